//! What the engine asks for. Every row is compared with its checksum.

use std::{fmt::Display, sync::Arc, time::Duration};

use rusqlite::{Connection, OptionalExtension as _, Row, Statement};

use super::{
    SqliteJournal, Table,
    numbers::unpack,
    packs, state_from_column,
    sum::{check, check_head, is_of_pages},
};
use crate::{
    event::Seq,
    store::{
        clock::Uptime,
        journal::{
            Damage, EndedRow, ExecutionColumns, FinishedTask, Labels, LiveHead, RequestRow,
            TaskRow, WrittenLive,
        },
    },
    task::{Failure, Lifecycle, State, Timestamp, WorkerId},
};

type Rows<T> = Result<T, rusqlite::Error>;

/// The columns of `task` but for the record, which may be large.
const TASK_HEAD: &str = "task.sum, task.id, task.seq, task.created, task.queue, task.kind, task.request_id, task.labels";

/// Columns before those of `finish`, where a task and its end are read together.
const TASK_HEAD_COLUMNS: usize = Table::Task.columns();

/// The columns of `finish` but for the result, which may be large.
const FINISH_HEAD: &str =
    "finish.sum, finish.id, finish.state, finish.finished, finish.due, finish.attempt,
     finish.failures, finish.cancel_requested, finish.bytes, finish.ended, finish.worker,
     finish.started, finish.error_reason, finish.error_message, finish.result_type";

/// The statements that read, prepared once.
pub struct Lookups<'c> {
    touch: Statement<'c>,
    request: Statement<'c>,
    record: Statement<'c>,
    task: Statement<'c>,
    live: Statement<'c>,
    pack: Statement<'c>,
    /// The pack that was looked up last, and its number. It never changes.
    last_pack: (u64, Vec<LiveHead>),
    finish: Statement<'c>,
    finished_task: Statement<'c>,
    outputs: Statement<'c>,
    oldest_ended: Statement<'c>,
    oldest_events: Statement<'c>,
}

impl SqliteJournal<'_> {
    /// Sees to it that all that a group asks for is of one transaction: to begin one costs as
    /// much as to look a row up.
    pub(super) fn begin_reading(&mut self) -> Rows<()> {
        if self.connection.is_autocommit() {
            self.connection.execute_batch("BEGIN")
        } else {
            Ok(())
        }
    }

    /// So that nothing is read that was before a commit, and nobody's checkpoint waits.
    pub(super) fn end_reading(&mut self) -> Rows<()> {
        if self.connection.is_autocommit() {
            Ok(())
        } else {
            self.connection.execute_batch("COMMIT")
        }
    }

    /// Looks one row up. What the disk does not give, or SQLite finds torn, is damage of that
    /// row, and concerns whoever asked for it alone.
    pub(super) fn look_up<T>(
        &mut self,
        table: Table,
        key: impl Display,
        read: impl FnOnce(&mut Lookups<'_>) -> Rows<T>,
    ) -> Rows<T> {
        self.begin_reading()?;
        read(&mut self.lookups).map_err(|error| {
            if is_of_pages(&error) {
                // SQLite may have given the transaction up, or not.
                self.roll_back();
            }
            Damage::met_at(table, key, error)
        })
    }
}

impl<'c> Lookups<'c> {
    pub fn new(connection: &'c Connection) -> Rows<Self> {
        let prepare = |sql: &str| connection.prepare(sql);
        Ok(Self {
            touch: prepare("SELECT 1 FROM meta LIMIT 1")?,
            request: prepare("SELECT * FROM request WHERE id = ?1")?,
            record: prepare("SELECT * FROM task WHERE id = ?1")?,
            task: prepare(&format!("SELECT {TASK_HEAD} FROM task WHERE id = ?1"))?,
            live: prepare("SELECT * FROM live WHERE id = ?1")?,
            pack: prepare("SELECT * FROM pack WHERE first = ?1")?,
            last_pack: (0, Vec::new()),
            finish: prepare(&format!("SELECT {FINISH_HEAD} FROM finish WHERE id = ?1"))?,
            finished_task: prepare(&format!(
                "SELECT {TASK_HEAD}, {FINISH_HEAD}
                 FROM finish JOIN task ON task.id = finish.id WHERE finish.id = ?1"
            ))?,
            outputs: prepare("SELECT attempt, length(data) FROM output WHERE task = ?1")?,
            oldest_ended: prepare(
                "SELECT * FROM ended WHERE failed = ?1 AND id > ?2 ORDER BY id LIMIT 1",
            )?,
            oldest_events: prepare(
                "SELECT sum, first, last, uptime FROM event WHERE first > ?1
                 ORDER BY first LIMIT 1",
            )?,
        })
    }

    /// Reads something.
    pub fn touch(&mut self) -> Rows<()> {
        self.touch.exists([]).map(drop)
    }

    pub fn request(&mut self, id: &str) -> Rows<Option<RequestRow>> {
        let row = self.request.query_row([id], |row| {
            check(row, 0, Table::Request)?;
            let wrong = || Damage::new(Table::Request, format!("{id:?}"), "it has no fingerprint");
            let fingerprint = row.get_ref(3)?.as_blob()?.try_into().map_err(|_| wrong())?;
            Ok(RequestRow { task: row.get(2)?, fingerprint })
        });
        row.optional()
    }

    pub fn record(&mut self, number: u64) -> Rows<Option<(Vec<u8>, Labels)>> {
        let row = self.record.query_row([number], |row| {
            check(row, 0, Table::Task)?;
            Ok((row.get(8)?, labels(row, 7)?))
        });
        row.optional()
    }

    /// Without its record.
    pub fn task(&mut self, number: u64) -> Rows<TaskRow> {
        let row = self.task.query_row([number], |row| {
            check_head(row, 0, Table::Task)?;
            Ok(TaskRow {
                number,
                seq: Seq(row.get(2)?),
                created: Timestamp(row.get(3)?),
                queue: row.get(4)?,
                kind: row.get(5)?,
                request_id: row.get::<_, Option<Arc<str>>>(6)?,
                labels: labels(row, 7)?,
                record: Vec::new(),
            })
        });
        let missing = || Damage::new(Table::Task, number, "it is not there").into();
        row.optional()?.ok_or_else(missing)
    }

    pub fn live(&mut self, number: u64) -> Rows<WrittenLive> {
        let row = self.live.query_row([number], |row| {
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
    }

    /// How long a task of this pack was to wait, and whether it has labels.
    pub fn packed(&mut self, pack: u64, number: u64) -> Rows<(Option<Duration>, bool)> {
        if self.last_pack.0 != pack {
            let heads = self.pack.query_row([pack], |row| {
                check(row, 0, Table::Pack)?;
                packs::all_heads(row)
            });
            let missing = || Damage::new(Table::Pack, pack, "it is not there").into();
            let heads = heads.optional()?.ok_or_else::<rusqlite::Error, _>(missing)?;
            self.last_pack = (pack, heads);
        }
        let head = self.last_pack.1.iter().find(|head| head.number == number);
        let missing = || Damage::new(Table::Pack, pack, format!("task {number} is not in it"));
        let LiveHead { interval, has_labels, .. } = head.ok_or_else(missing)?;
        Ok((*interval, *has_labels))
    }

    pub fn finished_state(&mut self, number: u64) -> Rows<Option<State>> {
        let row = self.finish.query_row([number], |row| {
            check_head(row, 0, Table::Finish)?;
            state(row, 0)
        });
        row.optional()
    }

    pub fn finished_task(&mut self, number: u64) -> Rows<Option<FinishedTask>> {
        let row = self.finished_task.query_row([number], |row| {
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
    }

    /// Attempts, and bytes.
    pub fn outputs(&mut self, number: u64) -> Rows<Vec<(u32, u64)>> {
        let rows = self.outputs.query_map([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    }

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

    pub fn oldest_events(&mut self, beyond: Seq) -> Rows<Option<(Seq, Result<Uptime, Damage>)>> {
        let row = self.oldest_events.query_row([beyond.0], |row| {
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
