//! The statements that trim what has ended, and give its space back.

use prost::encoding::{decode_varint, encode_varint};
use rusqlite::{OptionalExtension as _, params};

use super::{Writer, state_from_column};
use crate::{
    event::Seq,
    task::{State, Timestamp},
};

/// Tasks that ended in one commit, of which some are kept.
#[derive(Debug)]
pub struct EndedRow {
    pub id: i64,
    pub time: Timestamp,
    pub tasks: Vec<u64>,
}

/// A task that has ended, as far as trimming it needs to know.
#[derive(Debug)]
pub struct TrimmedTask {
    pub queue: String,
    pub state: State,
    pub bytes: u64,
    pub ended: i64,
    pub request_id: Option<String>,
}

type Rows<T> = Result<T, rusqlite::Error>;

impl Writer<'_> {
    pub fn insert_ended(
        &mut self,
        id: i64,
        failed: bool,
        time: Timestamp,
        tasks: &[u64],
    ) -> Rows<()> {
        self.insert_ended.execute(params![id, failed, time.0, pack(tasks)]).map(drop)
    }

    /// The oldest row of tasks that ended in failure, or otherwise. A time that has
    /// not come yet was told by a clock that was wrong: the next time that has come
    /// counts in its place.
    pub fn oldest_ended(&mut self, failed: bool, now: Timestamp) -> Rows<Option<EndedRow>> {
        let Some(mut row) = self.first_ended(failed)? else { return Ok(None) };
        if row.time > now {
            let sane = self.sane_ended.query_row(params![failed, now.0], |row| row.get(0));
            row.time = sane.optional()?.map_or(now, Timestamp);
        }
        Ok(Some(row))
    }

    fn first_ended(&mut self, failed: bool) -> Rows<Option<EndedRow>> {
        let row = self.oldest_ended.query_row([failed], |row| {
            let packed = row.get_ref(2)?.as_blob()?;
            Ok(EndedRow { id: row.get(0)?, time: Timestamp(row.get(1)?), tasks: unpack(packed) })
        });
        row.optional()
    }

    /// Leaves these tasks in a row of those that ended; without any, deletes it.
    pub fn keep_ended(&mut self, id: i64, tasks: &[u64]) -> Rows<()> {
        if tasks.is_empty() {
            self.delete_ended.execute([id]).map(drop)
        } else {
            self.update_ended.execute(params![id, pack(tasks)]).map(drop)
        }
    }

    /// A task that has ended; `None` if it is gone, or lives again.
    pub fn trimmed_task(&mut self, number: u64) -> Rows<Option<TrimmedTask>> {
        let row = self.select_trimmed.query_row([number], |row| {
            Ok(TrimmedTask {
                queue: row.get(0)?,
                state: state_from_column(row.get(1)?).unwrap_or(State::Failed),
                bytes: row.get(2)?,
                ended: row.get(3)?,
                request_id: row.get(4)?,
            })
        });
        row.optional()
    }

    /// Deletes a task that has ended, with everything that is kept of it.
    pub fn trim_task(&mut self, number: u64, request_id: Option<&str>) -> Rows<()> {
        self.delete_finish.execute([number])?;
        self.delete_task.execute([number])?;
        self.delete_attempts.execute([number])?;
        if let Some(request_id) = request_id {
            self.delete_request.execute(params![request_id, number])?;
        }
        Ok(())
    }

    /// Notes the newest task's number, in case its row is trimmed.
    pub fn remember_newest_task(&mut self, number: u64) -> Rows<()> {
        let sql = "INSERT OR REPLACE INTO meta VALUES ('newest_task', ?1)";
        self.connection.execute(sql, [number.to_be_bytes()]).map(drop)
    }

    /// First and time of the oldest batch of events, the time as of
    /// [`Self::oldest_ended`].
    pub fn oldest_events(&mut self, now: Timestamp) -> Rows<Option<(Seq, Timestamp)>> {
        let row =
            self.oldest_events.query_row([], |row| Ok((Seq(row.get(0)?), Timestamp(row.get(1)?))));
        let Some((first, time)) = row.optional()? else { return Ok(None) };
        if time <= now {
            return Ok(Some((first, time)));
        }
        let sane = self.sane_events.query_row([now.0], |row| row.get(0)).optional()?;
        Ok(Some((first, sane.map_or(now, Timestamp))))
    }

    /// Deletes one batch of events.
    pub fn trim_events(&mut self, first: Seq) -> Rows<()> {
        self.delete_events.execute([first.0]).map(drop)
    }

    pub fn put_tally(&mut self, queue: &str, state: State, tasks: u64, bytes: u64) -> Rows<()> {
        let row = params![queue, super::state_column(state), tasks, bytes];
        self.put_tally.execute(row).map(drop)
    }

    pub fn delete_tallies(&mut self, queue: &str) -> Rows<()> {
        self.connection.execute("DELETE FROM tally WHERE queue = ?1", [queue]).map(drop)
    }

    pub fn put_queue(&mut self, name: &str, paused: bool, overrides: &[u8]) -> Rows<()> {
        let sql = "INSERT OR REPLACE INTO queue VALUES (?1, ?2, ?3)";
        self.connection.execute(sql, params![name, paused, overrides]).map(drop)
    }

    pub fn delete_queue(&mut self, name: &str) -> Rows<()> {
        self.connection.execute("DELETE FROM queue WHERE name = ?1", [name]).map(drop)
    }

    /// Pages of the database, and how many of them are free.
    pub fn pages(&mut self) -> Rows<(u64, u64)> {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get(0));
        Ok((pragma("page_count")?, pragma("freelist_count")?))
    }

    /// Gives up to so many free pages back, outside of a transaction.
    pub fn give_back(&mut self, pages: u64) -> Rows<()> {
        let mut statement =
            self.connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        // Each step gives one page back.
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// Moves what readers allow of the log into the database, without waiting,
    /// which shortens the file by the pages that were given back.
    pub fn checkpoint(&mut self) -> Rows<()> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    }
}

/// Task numbers in as few bytes as they need: each as the difference from the one
/// before, zigzag, as a varint.
pub fn pack(tasks: &[u64]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(tasks.len() * 2);
    let mut before = 0u64;
    for task in tasks {
        let step = task.wrapping_sub(before).cast_signed();
        encode_varint(((step << 1) ^ (step >> 63)).cast_unsigned(), &mut packed);
        before = *task;
    }
    packed
}

/// The reverse of [`pack`]; what is damaged ends it.
pub fn unpack(mut packed: &[u8]) -> Vec<u64> {
    let mut tasks = Vec::new();
    let mut before = 0u64;
    while let Ok(zigzag) = decode_varint(&mut packed) {
        let step = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        before = before.wrapping_add(step);
        tasks.push(before);
    }
    tasks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back_as_they_went(tasks in proptest::collection::vec(any::<u64>(), 0..50)) {
            prop_assert_eq!(unpack(&pack(&tasks)), tasks);
        }
    }

    #[test]
    fn neighbours_take_a_byte_each() {
        assert_eq!(pack(&[1_000_000, 1_000_001, 1_000_003, 1_000_002]).len(), 3 + 3);
    }
}
