//! What is read when a store is opened.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, Row, types::ValueRef};

use super::{
    DatabaseError, Table, state_from_column,
    sum::{check, check_head},
};
use crate::{
    event::Seq,
    events::Incarnation,
    store::{
        clock::Uptime,
        identity::Identity,
        journal::{Damage, Found, LiveHead, QueueRow, SlotRow, TallyRow},
    },
    task::{Timestamp, WorkerId},
};

type Rows<T> = Result<T, rusqlite::Error>;

/// Every row of a table, in the order of its key, its checksum compared.
fn all<T>(
    connection: &Connection,
    table: Table,
    read: impl Fn(&Row<'_>) -> Rows<T>,
) -> Rows<Vec<T>> {
    let sql = format!("SELECT * FROM {} ORDER BY 2", table.name());
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([], |row| {
        check(row, 0, table)?;
        read(row)
    })?;
    rows.collect()
}

/// What is there, but for the tasks that have not ended.
pub fn find(connection: &Connection) -> Result<Found, DatabaseError> {
    let (newest_task, newest_event) = newest(connection)?;
    Ok(Found {
        identity: identity(connection)?,
        starts: incarnations(connection)?,
        newest_task,
        newest_event,
        oldest_event: oldest_event(connection)?,
        newest_batch: newest_batch(connection)?,
        newest_ended: newest_ended(connection)?,
        uptime: uptime(connection)?,
        slots: slots(connection)?,
        queues: queues(connection)?,
        tallies: tallies(connection)?,
    })
}

/// A fact about the store, if it is known.
fn meta(connection: &Connection, key: &str) -> Rows<Option<Vec<u8>>> {
    let row = connection.query_row("SELECT * FROM meta WHERE key = ?1", [key], |row| {
        check(row, 0, Table::Meta)?;
        row.get(2)
    });
    row.optional()
}

/// A number among the facts about the store.
fn number(connection: &Connection, key: &str) -> Rows<Option<u64>> {
    let Some(bytes) = meta(connection, key)? else { return Ok(None) };
    let bytes = bytes.try_into();
    let bytes = bytes.map_err(|_| Damage::new(Table::Meta, key, "it is no number"))?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

/// The store's secret.
pub fn identity(connection: &Connection) -> Result<Identity, DatabaseError> {
    // All of them, as one that lies under another name would be missed.
    all(connection, Table::Meta, |_| Ok(()))?;
    let key = meta(connection, "key")?;
    let key = key.and_then(|key| key.try_into().ok());
    let key = key.ok_or_else(|| Damage::new(Table::Meta, "key", "the store's key is not there"))?;
    let starts = meta(connection, "starts")?.unwrap_or_default();
    let damaged = || Damage::new(Table::Meta, "starts", "these are no keys of starts");
    Ok(Identity::from_parts(key, &starts).ok_or_else(damaged)?)
}

/// Whether there is a task with one of these numbers.
pub fn has_tasks(connection: &Connection, numbers: std::ops::Range<u64>) -> Rows<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM task WHERE id >= ?1 AND id < ?2)";
    connection.query_row(sql, (numbers.start, numbers.end), |row| row.get(0))
}

/// All process starts that are remembered, in order.
pub fn incarnations(connection: &Connection) -> Result<Vec<Incarnation>, DatabaseError> {
    Ok(all(connection, Table::Incarnation, |row| {
        Ok(Incarnation { mark: row.get(2)?, first: Seq(row.get(3)?) })
    })?)
}

/// Tasks that have not ended, in the order of submission: up to `most` after one.
pub fn live_tasks(connection: &Connection, beyond: u64, most: usize) -> Rows<Vec<LiveHead>> {
    let sql = "SELECT * FROM live WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((beyond, most), |row| {
        check(row, 0, Table::Live)?;
        Ok(LiveHead {
            number: row.get(1)?,
            queue: row.get(2)?,
            kind: row.get(3)?,
            priority: row.get(4)?,
            due: Timestamp(row.get(5)?),
            interval: row.get::<_, Option<u64>>(6)?.map(Duration::from_micros),
            bytes: row.get(7)?,
            max_attempts: row.get(8)?,
            attempt: row.get(9)?,
            failures: row.get(10)?,
            crashes: row.get(11)?,
            cancel_requested: row.get(12)?,
            has_labels: row.get_ref(17)? != ValueRef::Null,
        })
    })?;
    rows.collect()
}

/// All workers that run a task.
pub fn slots(connection: &Connection) -> Rows<Vec<SlotRow>> {
    all(connection, Table::Slot, |row| {
        Ok(SlotRow {
            worker: WorkerId(row.get(1)?),
            task: row.get(2)?,
            attempt: row.get(3)?,
            started: Timestamp(row.get(4)?),
        })
    })
}

/// Number of the newest task, and of the newest event, whether they are kept or
/// not: no number is given twice.
pub fn newest(connection: &Connection) -> Result<(u64, Seq), DatabaseError> {
    let sql = "SELECT sum, id, seq, created, queue, kind, request_id, labels FROM task
               ORDER BY id DESC LIMIT 1";
    let task = connection.query_row(sql, [], |row| {
        check_head(row, 0, Table::Task)?;
        row.get(1)
    });
    let task: Option<u64> = task.optional()?;
    let trimmed = number(connection, "newest_task")?;
    let event = newest_events(connection)?.map(|(_, last, _)| last);
    Ok((task.max(trimmed).unwrap_or(0), event.unwrap_or_default()))
}

/// First, last and uptime of the newest batch of events, which is never trimmed.
fn newest_events(connection: &Connection) -> Rows<Option<(Seq, Seq, Uptime)>> {
    let sql = "SELECT * FROM event ORDER BY first DESC LIMIT 1";
    let row = connection.query_row(sql, [], |row| {
        check(row, 0, Table::Event)?;
        Ok((Seq(row.get(1)?), Seq(row.get(2)?), Uptime(row.get(3)?)))
    });
    row.optional()
}

/// The oldest event that is kept, or the next one if none is.
pub fn oldest_event(connection: &Connection) -> Result<Seq, DatabaseError> {
    let sql = "SELECT min(first) FROM event";
    let oldest: Option<u64> = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(Seq(oldest.unwrap_or(1)))
}

/// The newest event, as a reader sees it; 0 if there is none, or if its row is damaged,
/// which whoever reads the events is told.
pub fn newest_event(connection: &Connection) -> Rows<Seq> {
    let sql = "SELECT sum, first, last, uptime FROM event ORDER BY first DESC LIMIT 1";
    let mut newest = connection.prepare_cached(sql)?;
    let newest = newest.query_row([], |row| {
        check_head(row, 0, Table::Event)?;
        Ok(Seq(row.get(2)?))
    });
    match newest.optional() {
        Err(error) if Damage::in_error(&error).is_some() => Ok(Seq(0)),
        newest => Ok(newest?.unwrap_or_default()),
    }
}

/// The first event of the newest batch; 0 if there is none.
pub fn newest_batch(connection: &Connection) -> Result<Seq, DatabaseError> {
    Ok(newest_events(connection)?.map(|(first, ..)| first).unwrap_or_default())
}

/// How long the store has been running, over all process starts, as far as it has
/// noted that.
pub fn uptime(connection: &Connection) -> Result<Uptime, DatabaseError> {
    let noted = number(connection, "uptime")?.map(Uptime);
    let of_events = newest_events(connection)?.map(|(_, _, uptime)| uptime);
    Ok(noted.max(of_events).unwrap_or_default())
}

/// The newest row of tasks that have ended; 0 if there is none.
pub fn newest_ended(connection: &Connection) -> Result<i64, DatabaseError> {
    let row = connection.query_row("SELECT * FROM ended ORDER BY id DESC LIMIT 1", [], |row| {
        check(row, 0, Table::Ended)?;
        row.get(1)
    });
    Ok(row.optional()?.unwrap_or(0))
}

/// How many tasks have ended and are kept, by queue and state.
pub fn tallies(connection: &Connection) -> Result<Vec<TallyRow>, DatabaseError> {
    Ok(all(connection, Table::Tally, |row| {
        let queue: String = row.get(1)?;
        let state = state_from_column(row.get(2)?)
            .ok_or_else(|| Damage::new(Table::Tally, &queue, "it counts tasks of no state"))?;
        Ok(TallyRow { queue, state, tasks: row.get(3)?, bytes: row.get(4)? })
    })?)
}

/// The queues about which something was changed.
pub fn queues(connection: &Connection) -> Result<Vec<QueueRow>, DatabaseError> {
    Ok(all(connection, Table::Queue, |row| {
        Ok(QueueRow { name: row.get(1)?, paused: row.get(2)?, overrides: row.get(3)? })
    })?)
}
