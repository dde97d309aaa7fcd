//! What is read when a store is opened.

use rusqlite::{Connection, OptionalExtension as _};

use super::{DatabaseError, state_from_column};
use crate::{
    event::Seq,
    events::Incarnation,
    store::identity::Identity,
    task::{State, Timestamp, WorkerId},
};

/// The store's secret.
pub fn identity(connection: &Connection) -> Result<Identity, DatabaseError> {
    let key: Vec<u8> =
        connection.query_row("SELECT value FROM meta WHERE key = 'key'", [], |row| row.get(0))?;
    let key = key.try_into().map_err(|_| DatabaseError::Damaged("the store's key".into()))?;
    Ok(Identity::from_key(key))
}

/// All process starts, in order.
pub fn incarnations(connection: &Connection) -> Result<Vec<Incarnation>, DatabaseError> {
    let mut statement =
        connection.prepare("SELECT mark, first_seq FROM incarnation ORDER BY id")?;
    let rows = statement
        .query_map([], |row| Ok(Incarnation { mark: row.get(0)?, first: Seq(row.get(1)?) }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A task's place among those that have not ended.
#[derive(Debug)]
pub struct LiveRow {
    pub number: u64,
    pub queue: String,
    pub kind: String,
    pub priority: i32,
    pub due: Timestamp,
    pub bytes: u64,
    pub max_attempts: u32,
    pub attempt: u32,
    pub failures: u32,
    pub crashes: u32,
    pub cancel_requested: bool,
    pub has_labels: bool,
}

/// Gives every task that has not ended to `each`, in the order of submission.
pub fn each_live(
    connection: &Connection,
    mut each: impl FnMut(LiveRow),
) -> Result<(), DatabaseError> {
    let mut statement = connection.prepare(
        "SELECT id, queue, kind, priority, due, bytes, max_attempts, attempt, failures, crashes,
                cancel_requested, labels IS NOT NULL FROM live ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(LiveRow {
            number: row.get(0)?,
            queue: row.get(1)?,
            kind: row.get(2)?,
            priority: row.get(3)?,
            due: Timestamp(row.get(4)?),
            bytes: row.get(5)?,
            max_attempts: row.get(6)?,
            attempt: row.get(7)?,
            failures: row.get(8)?,
            crashes: row.get(9)?,
            cancel_requested: row.get(10)?,
            has_labels: row.get(11)?,
        });
    }
    Ok(())
}

/// A worker that runs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRow {
    pub worker: WorkerId,
    pub task: u64,
    pub attempt: u32,
    pub started: Timestamp,
}

/// All workers that run a task.
pub fn slots(connection: &Connection) -> Result<Vec<SlotRow>, rusqlite::Error> {
    let mut statement =
        connection.prepare_cached("SELECT worker, task, attempt, started FROM slot")?;
    let rows = statement.query_map([], |row| {
        Ok(SlotRow {
            worker: WorkerId(row.get(0)?),
            task: row.get(1)?,
            attempt: row.get(2)?,
            started: Timestamp(row.get(3)?),
        })
    })?;
    rows.collect()
}

/// Number of the newest task, and of the newest event, whether they are kept or
/// not: no number is given twice.
pub fn newest(connection: &Connection) -> Result<(u64, Seq), DatabaseError> {
    let task: Option<u64> =
        connection.query_row("SELECT max(id) FROM task", [], |row| row.get(0))?;
    let trimmed: Option<[u8; 8]> = connection
        .query_row("SELECT value FROM meta WHERE key = 'newest_task'", [], |row| row.get(0))
        .optional()?;
    let trimmed = trimmed.map(u64::from_be_bytes);
    // The newest row of events is never trimmed.
    let event: Option<u64> = connection
        .query_row("SELECT last FROM event ORDER BY first DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok((task.max(trimmed).unwrap_or(0), Seq(event.unwrap_or(0))))
}

/// The first event of the newest batch; 0 if there is none.
pub fn newest_batch(connection: &Connection) -> Result<Seq, DatabaseError> {
    let first: Option<u64> =
        connection.query_row("SELECT max(first) FROM event", [], |row| row.get(0))?;
    Ok(Seq(first.unwrap_or(0)))
}

/// The newest row of tasks that have ended; 0 if there is none.
pub fn newest_ended(connection: &Connection) -> Result<i64, DatabaseError> {
    let id: Option<i64> =
        connection.query_row("SELECT max(id) FROM ended", [], |row| row.get(0))?;
    Ok(id.unwrap_or(0))
}

/// What is kept of the tasks of one queue that ended in one way.
#[derive(Debug)]
pub struct TallyRow {
    pub queue: String,
    pub state: State,
    pub tasks: u64,
    pub bytes: u64,
}

/// How many tasks have ended and are kept, by queue and state.
pub fn tallies(connection: &Connection) -> Result<Vec<TallyRow>, DatabaseError> {
    let mut statement = connection.prepare("SELECT queue, state, tasks, bytes FROM tally")?;
    let mut rows = statement.query([])?;
    let mut tallies = Vec::new();
    while let Some(row) = rows.next()? {
        let state = state_from_column(row.get(1)?)
            .ok_or_else(|| DatabaseError::Damaged("a tally of no state".into()))?;
        tallies.push(TallyRow {
            queue: row.get(0)?,
            state,
            tasks: row.get(2)?,
            bytes: row.get(3)?,
        });
    }
    Ok(tallies)
}

/// What an operator has changed about a queue.
#[derive(Debug)]
pub struct QueueRow {
    pub name: String,
    pub paused: bool,
    pub overrides: Vec<u8>,
}

/// The queues about which something was changed.
pub fn queues(connection: &Connection) -> Result<Vec<QueueRow>, DatabaseError> {
    let mut statement = connection.prepare("SELECT name, paused, overrides FROM queue")?;
    let rows = statement.query_map([], |row| {
        Ok(QueueRow { name: row.get(0)?, paused: row.get(1)?, overrides: row.get(2)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
