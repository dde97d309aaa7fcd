//! The statements that trim what has ended, and give its space back.

use prost::encoding::{decode_varint, encode_varint};
use rusqlite::OptionalExtension as _;

use super::{
    Damage, Table, Writer,
    sum::{check, check_head, values},
};
use crate::{event::Seq, store::clock::Uptime, task::State};

/// Tasks that ended in one commit, of which some are kept.
#[derive(Debug)]
pub struct EndedRow {
    pub id: i64,
    pub failed: bool,
    pub uptime: Uptime,
    pub tasks: Vec<u64>,
}

type Rows<T> = Result<T, rusqlite::Error>;

impl Writer<'_> {
    pub fn insert_ended(&mut self, row: &EndedRow) -> Rows<()> {
        let tasks = pack(&row.tasks);
        let values = values![row.id, row.failed, row.uptime.0, tasks.as_slice()];
        self.redo.write(&mut self.insert_ended, Table::Ended, &values)
    }

    /// The oldest row of tasks that ended in failure, or otherwise, after the row
    /// `beyond`. Its number alone, if it is damaged.
    pub fn oldest_ended(
        &mut self,
        failed: bool,
        beyond: i64,
    ) -> Rows<Option<Result<EndedRow, (i64, Damage)>>> {
        let row = self.oldest_ended.query_row((failed, beyond), |row| {
            let id = row.get(1)?;
            if let Err(error) = check(row, 0, Table::Ended) {
                return Damage::in_error(&error).map_or(Err(error), |damage| Ok(Err((id, damage))));
            }
            let tasks = unpack(row.get_ref(4)?.as_blob()?);
            Ok(Ok(EndedRow { id, failed, uptime: Uptime(row.get(3)?), tasks }))
        });
        row.optional()
    }

    /// Leaves these tasks in a row of those that ended; without any, deletes it.
    pub fn keep_ended(&mut self, row: &EndedRow) -> Rows<()> {
        if row.tasks.is_empty() {
            return self.redo.execute(&mut self.delete_ended, &values![row.id]);
        }
        let tasks = pack(&row.tasks);
        let values = values![row.id, row.failed, row.uptime.0, tasks.as_slice()];
        self.redo.write(&mut self.replace_ended, Table::Ended, &values)
    }

    /// Deletes a task that has ended, with everything that is kept of it.
    pub fn trim_task(&mut self, number: u64, request_id: Option<&str>) -> Rows<()> {
        self.redo.execute(&mut self.delete_finish, &values![number])?;
        self.redo.execute(&mut self.delete_task, &values![number])?;
        self.redo.execute(&mut self.delete_attempts, &values![number])?;
        if self.has_outputs {
            self.redo.execute(&mut self.delete_outputs, &values![number])?;
        }
        if let Some(request_id) = request_id {
            self.redo.execute(&mut self.delete_request, &values![request_id, number])?;
        }
        Ok(())
    }

    /// Notes the newest task's number, in case its row is trimmed.
    pub fn remember_newest_task(&mut self, number: u64) -> Rows<()> {
        let number = number.to_be_bytes();
        let values = values!["newest_task", number.as_slice()];
        self.redo.write(&mut self.put_meta, Table::Meta, &values)
    }

    /// First and uptime of the oldest batch of events; its first alone, if the row is
    /// damaged.
    pub fn oldest_events(&mut self) -> Rows<Option<(Seq, Result<Uptime, Damage>)>> {
        let row = self.oldest_events.query_row([], |row| {
            let first = Seq(row.get(1)?);
            match check_head(row, 0, Table::Event) {
                Ok(()) => Ok((first, Ok(Uptime(row.get(3)?)))),
                Err(error) => match Damage::in_error(&error) {
                    Some(damage) => Ok((first, Err(damage))),
                    None => Err(error),
                },
            }
        });
        row.optional()
    }

    /// Deletes one batch of events.
    pub fn trim_events(&mut self, first: Seq) -> Rows<()> {
        self.redo.execute(&mut self.delete_events, &values![first.0])
    }

    pub fn put_tally(&mut self, queue: &str, state: State, tasks: u64, bytes: u64) -> Rows<()> {
        let values = values![queue, super::state_column(state), tasks, bytes];
        self.redo.write(&mut self.put_tally, Table::Tally, &values)
    }

    pub fn delete_tallies(&mut self, queue: &str) -> Rows<()> {
        self.redo.execute(&mut self.delete_tallies, &values![queue])
    }

    pub fn put_queue(&mut self, name: &str, paused: bool, overrides: &[u8]) -> Rows<()> {
        self.redo.write(&mut self.put_queue, Table::Queue, &values![name, paused, overrides])
    }

    pub fn delete_queue(&mut self, name: &str) -> Rows<()> {
        self.redo.execute(&mut self.delete_queue, &values![name])
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
