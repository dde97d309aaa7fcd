//! What the engine reads between its writes. Every row is compared with its checksum.

use std::time::Duration;

use rusqlite::{OptionalExtension as _, Row};

use super::{
    Damage, Table, Writer, state_from_column,
    sum::{check, check_head, is_of_pages},
    writer::ExecutionColumns,
};
use crate::{
    event::Seq,
    task::{Failure, Lifecycle, State, Timestamp, WorkerId},
};

type Rows<T> = Result<T, rusqlite::Error>;

/// Labels, encoded; `None` if there are none.
pub type Labels = Option<Box<[u8]>>;

/// What only the row of a task that has not ended tells.
#[derive(Debug, Default)]
pub struct WrittenLive {
    /// How long it was to wait; `None` if it is due at a time.
    pub interval: Option<Duration>,
    /// Its latest execution that has ended.
    pub execution: ExecutionColumns,
    /// Why that failed.
    pub failure: Option<Failure>,
    pub labels: Labels,
}

/// A task that has ended, without its payload and its result.
#[derive(Debug)]
pub struct FinishedTask {
    pub queue: String,
    pub kind: String,
    pub life: Lifecycle,
    pub bytes: u64,
    pub finished: Timestamp,
    pub execution: ExecutionColumns,
    pub failure: Option<Failure>,
    pub labels: Labels,
    /// The row of `ended` that it is trimmed with.
    pub ended: i64,
    pub request_id: Option<String>,
}

/// Columns before those of `finish`, where a task and its end are read together.
const TASK_HEAD_COLUMNS: usize = Table::Task.columns();

impl Writer<'_> {
    /// Looks one row up. What the disk does not give, or SQLite finds torn, is damage of that
    /// row, and concerns whoever asked for it alone.
    fn look_up<T>(
        &mut self,
        table: Table,
        key: impl std::fmt::Display,
        read: impl FnOnce(&mut Self) -> Rows<T>,
    ) -> Rows<T> {
        read(self).or_else(|error| {
            if is_of_pages(&error) {
                // SQLite gives a transaction up in which a read has failed; one in which it
                // has met torn pages it lets stand, but what is written next may fail.
                self.begin_again()?;
            }
            Err(Damage::met_at(table, key, error))
        })
    }

    /// The task that a `request_id` made, and the fingerprint of the request.
    pub fn request(&mut self, id: &str) -> Rows<Option<(u64, Vec<u8>)>> {
        self.look_up(Table::Request, format!("{id:?}"), |writer| {
            let row = writer.select_request.query_row([id], |row| {
                check(row, 0, Table::Request)?;
                Ok((row.get(2)?, row.get(3)?))
            });
            row.optional()
        })
    }

    /// A task's record and its labels, if it is there.
    pub fn record(&mut self, number: u64) -> Rows<Option<(Vec<u8>, Labels)>> {
        self.look_up(Table::Task, number, |writer| {
            let row = writer.select_task.query_row([number], |row| {
                check(row, 0, Table::Task)?;
                Ok((row.get(8)?, labels(row, 7)?))
            });
            row.optional()
        })
    }

    /// What the row of a task that has not ended tells beyond what is in memory.
    pub fn live(&mut self, number: u64) -> Rows<WrittenLive> {
        self.look_up(Table::Live, number, |writer| {
            let row = writer.select_live.query_row([number], |row| {
                check(row, 0, Table::Live)?;
                Ok(WrittenLive {
                    interval: row.get::<_, Option<u64>>(6)?.map(Duration::from_micros),
                    execution: execution(row, 13)?,
                    failure: failure(row, 15)?,
                    labels: labels(row, 17)?,
                })
            });
            let missing = || Damage::new(Table::Live, number, "it is not there").into();
            row.optional()?.ok_or_else(missing)
        })
    }

    /// The number of a task's SUBMITTED event.
    pub fn submitted_seq(&mut self, number: u64) -> Rows<Seq> {
        self.look_up(Table::Task, number, |writer| {
            let row = writer.select_task_head.query_row([number], |row| {
                check_head(row, 0, Table::Task)?;
                Ok(Seq(row.get(2)?))
            });
            let missing = || Damage::new(Table::Task, number, "it is not there").into();
            row.optional()?.ok_or_else(missing)
        })
    }

    /// How a task has ended, if it has.
    pub fn finished_state(&mut self, number: u64) -> Rows<Option<State>> {
        self.look_up(Table::Finish, number, |writer| {
            let row = writer.select_finish_head.query_row([number], |row| {
                check_head(row, 0, Table::Finish)?;
                state(row, 0)
            });
            row.optional()
        })
    }

    /// A task that has ended.
    pub fn finished_task(&mut self, number: u64) -> Rows<Option<FinishedTask>> {
        self.look_up(Table::Finish, number, |writer| {
            let row = writer.select_finished.query_row([number], |row| {
                let finish = TASK_HEAD_COLUMNS;
                check_head(row, 0, Table::Task)?;
                check_head(row, finish, Table::Finish)?;
                Ok(FinishedTask {
                    queue: row.get(4)?,
                    kind: row.get(5)?,
                    life: Lifecycle {
                        state: state(row, finish)?,
                        attempt: row.get(finish + 5)?,
                        failures: row.get(finish + 6)?,
                        crashes: 0,
                        cancel_requested: row.get(finish + 7)?,
                    },
                    bytes: row.get(finish + 8)?,
                    finished: Timestamp(row.get(finish + 3)?),
                    execution: execution(row, finish + 10)?,
                    failure: failure(row, finish + 12)?,
                    labels: labels(row, 7)?,
                    ended: row.get(finish + 9)?,
                    request_id: row.get(6)?,
                })
            });
            row.optional()
        })
    }

    /// Bytes of what a task's executions wrote, as far as it is kept.
    pub fn bytes_of_outputs(&mut self, number: u64) -> Rows<u64> {
        self.look_up(Table::Output, number, |writer| {
            if !writer.has_outputs {
                return Ok(0);
            }
            let total: f64 = writer.bytes_of_outputs.query_row([number], |row| row.get(0))?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a sum of lengths"
            )]
            Ok(total as u64)
        })
    }
}

fn state(row: &Row<'_>, finish: usize) -> Rows<State> {
    let number: u64 = row.get(finish + 1)?;
    let wrong = || Damage::new(Table::Finish, number, "it tells of no end").into();
    state_from_column(row.get(finish + 2)?).ok_or_else(wrong)
}

fn execution(row: &Row<'_>, at: usize) -> Rows<ExecutionColumns> {
    let (worker, started): (Option<u32>, Option<i64>) = (row.get(at)?, row.get(at + 1)?);
    Ok(worker.map(WorkerId).zip(started.map(Timestamp)))
}

fn failure(row: &Row<'_>, at: usize) -> Rows<Option<Failure>> {
    let (reason, message): (Option<String>, Option<String>) = (row.get(at)?, row.get(at + 1)?);
    Ok(reason.zip(message).map(|(reason, message)| Failure { reason, message }))
}

fn labels(row: &Row<'_>, at: usize) -> Rows<Labels> {
    Ok(row.get::<_, Option<Vec<u8>>>(at)?.map(Vec::into_boxed_slice))
}
