//! The statements that write; `lookups` has what the engine must read between them.

use std::time::Duration;

use rusqlite::{Connection, Statement, types::ValueRef};

use super::{
    SlotRow, Table,
    redo::{Redo, Write},
    state_column,
    sum::{values, write},
};
use crate::{
    event::Seq,
    events::{EventBatch, Incarnation},
    store::{clock::Uptime, record},
    task::{Data, Failure, Lifecycle, Timestamp, WorkerId},
};

/// An execution, as rows tell of it.
pub type ExecutionColumns = Option<(WorkerId, Timestamp)>;

/// A task as it was submitted.
#[derive(Debug)]
pub struct TaskRow<'a> {
    pub number: u64,
    pub seq: Seq,
    pub created: Timestamp,
    pub queue: &'a str,
    pub kind: &'a str,
    pub request_id: Option<&'a str>,
    pub labels: Option<&'a [u8]>,
    pub record: &'a [u8],
}

/// The changing part of a task that has not ended.
#[derive(Debug)]
pub struct LiveColumns<'a> {
    pub number: u64,
    pub queue: &'a str,
    pub kind: &'a str,
    pub priority: i32,
    pub due: Timestamp,
    /// How long it was to wait until then; `None` if it is due at a time.
    pub interval: Option<Duration>,
    pub bytes: u64,
    pub max_attempts: u32,
    pub life: Lifecycle,
    pub execution: ExecutionColumns,
    pub failure: Option<&'a Failure>,
    pub labels: Option<&'a [u8]>,
}

/// The end of a task.
#[derive(Debug)]
pub struct FinishRow<'a> {
    pub number: u64,
    pub life: Lifecycle,
    pub finished: Timestamp,
    pub due: Timestamp,
    /// Of the task and its result.
    pub bytes: u64,
    /// The row of `ended` that it is trimmed with.
    pub ended: i64,
    pub execution: ExecutionColumns,
    pub result: Option<&'a Data>,
    pub failure: Option<&'a Failure>,
}

/// An execution that has ended, but not its task.
#[derive(Debug)]
pub struct AttemptRow<'a> {
    pub task: u64,
    pub attempt: u32,
    pub worker: WorkerId,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub failure: Option<&'a Failure>,
}

/// The statements that write, prepared once. All of them belong between
/// [`Writer::begin`] and [`Writer::commit`].
pub struct Writer<'c> {
    pub(super) connection: &'c Connection,
    pub(super) redo: Redo,
    begin: Statement<'c>,
    commit: Statement<'c>,
    insert_task: Write<'c>,
    insert_live: Write<'c>,
    replace_live: Write<'c>,
    delete_live: Write<'c>,
    put_slot: Write<'c>,
    delete_slot: Write<'c>,
    insert_finish: Write<'c>,
    pub(super) delete_finish: Write<'c>,
    insert_attempt: Write<'c>,
    forget_attempts: Write<'c>,
    insert_output: Write<'c>,
    forget_outputs: Write<'c>,
    pub(super) bytes_of_outputs: Statement<'c>,
    pub(super) delete_outputs: Write<'c>,
    pub(super) delete_attempts: Write<'c>,
    pub(super) delete_task: Write<'c>,
    pub(super) delete_request: Write<'c>,
    pub(super) insert_ended: Write<'c>,
    pub(super) oldest_ended: Statement<'c>,
    pub(super) replace_ended: Write<'c>,
    pub(super) delete_ended: Write<'c>,
    pub(super) select_finished: Statement<'c>,
    pub(super) oldest_events: Statement<'c>,
    pub(super) delete_events: Write<'c>,
    pub(super) put_tally: Write<'c>,
    insert_request: Write<'c>,
    insert_event: Write<'c>,
    pub(super) delete_tallies: Write<'c>,
    pub(super) put_queue: Write<'c>,
    pub(super) delete_queue: Write<'c>,
    pub(super) put_meta: Write<'c>,
    pub(super) select_request: Statement<'c>,
    pub(super) select_task: Statement<'c>,
    pub(super) select_task_head: Statement<'c>,
    pub(super) select_live: Statement<'c>,
    pub(super) select_finish_head: Statement<'c>,
    /// Whether any output of an execution may be kept.
    pub(super) has_outputs: bool,
}

/// The columns of `task` but for the record, which may be large.
pub(super) const TASK_HEAD: &str = "task.sum, task.id, task.seq, task.created, task.queue, task.kind, task.request_id, task.labels";

/// The columns of `finish` but for the result, which may be large.
pub(super) const FINISH_HEAD: &str =
    "finish.sum, finish.id, finish.state, finish.finished, finish.due, finish.attempt,
     finish.failures, finish.cancel_requested, finish.bytes, finish.ended, finish.worker,
     finish.started, finish.error_reason, finish.error_message, finish.result_type";

type Rows<T> = Result<T, rusqlite::Error>;

impl<'c> Writer<'c> {
    pub fn new(connection: &'c Connection) -> Rows<Self> {
        // The log is written by commits alone, so that nothing else can lack room.
        connection.pragma_update(None, "cache_spill", false)?;
        let prepare = |sql: &str| connection.prepare(sql);
        let mut redo = Redo::default();
        let mut write = |sql: &str| redo.prepare(connection, sql);
        let insert = |table: Table| table.insert("INSERT");
        let replace = |table: Table| table.insert("INSERT OR REPLACE");
        let has_outputs = prepare("SELECT 1 FROM output LIMIT 1")?.exists([])?;
        Ok(Self {
            connection,
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            insert_task: write(&insert(Table::Task))?,
            insert_live: write(&insert(Table::Live))?,
            replace_live: write(&replace(Table::Live))?,
            delete_live: write("DELETE FROM live WHERE id = ?1")?,
            put_slot: write(&replace(Table::Slot))?,
            delete_slot: write("DELETE FROM slot WHERE worker = ?1")?,
            insert_finish: write(&insert(Table::Finish))?,
            delete_finish: write("DELETE FROM finish WHERE id = ?1")?,
            insert_attempt: write(&Table::Attempt.insert("INSERT OR IGNORE"))?,
            forget_attempts: write("DELETE FROM attempt WHERE task = ?1 AND attempt <= ?2")?,
            insert_output: write(&replace(Table::Output))?,
            forget_outputs: write("DELETE FROM output WHERE task = ?1 AND attempt <= ?2")?,
            bytes_of_outputs: prepare("SELECT total(length(data)) FROM output WHERE task = ?1")?,
            delete_outputs: write("DELETE FROM output WHERE task = ?1")?,
            delete_attempts: write("DELETE FROM attempt WHERE task = ?1")?,
            delete_task: write("DELETE FROM task WHERE id = ?1")?,
            delete_request: write("DELETE FROM request WHERE id = ?1 AND task = ?2")?,
            insert_ended: write(&insert(Table::Ended))?,
            oldest_ended: prepare(
                "SELECT * FROM ended WHERE failed = ?1 AND id > ?2 ORDER BY id LIMIT 1",
            )?,
            replace_ended: write(&replace(Table::Ended))?,
            delete_ended: write("DELETE FROM ended WHERE id = ?1")?,
            select_finished: prepare(&format!(
                "SELECT {TASK_HEAD}, {FINISH_HEAD}
                 FROM finish JOIN task ON task.id = finish.id WHERE finish.id = ?1"
            ))?,
            oldest_events: prepare(
                "SELECT sum, first, last, uptime FROM event ORDER BY first LIMIT 1",
            )?,
            delete_events: write("DELETE FROM event WHERE first = ?1")?,
            put_tally: write(&replace(Table::Tally))?,
            insert_request: write(&insert(Table::Request))?,
            insert_event: write(&insert(Table::Event))?,
            select_request: prepare("SELECT * FROM request WHERE id = ?1")?,
            select_task: prepare("SELECT * FROM task WHERE id = ?1")?,
            select_task_head: prepare(&format!("SELECT {TASK_HEAD} FROM task WHERE id = ?1"))?,
            select_live: prepare("SELECT * FROM live WHERE id = ?1")?,
            select_finish_head: prepare(&format!(
                "SELECT {FINISH_HEAD} FROM finish WHERE id = ?1"
            ))?,
            delete_tallies: write("DELETE FROM tally WHERE queue = ?1")?,
            put_queue: write(&replace(Table::Queue))?,
            delete_queue: write("DELETE FROM queue WHERE name = ?1")?,
            put_meta: write(&replace(Table::Meta))?,
            has_outputs,
            redo,
        })
    }

    /// Begins, with the lock on writing: from here on nobody from outside is in the way.
    pub fn begin(&mut self) -> Rows<()> {
        self.redo.clear();
        self.begin.execute([]).map(drop)
    }

    /// Commits; with fsync, returns when the disk has it.
    pub fn commit(&mut self) -> Rows<()> {
        self.commit.execute([]).map(drop)
    }

    /// Commits what an earlier [`Self::commit`] could not: all changes since
    /// [`Self::begin`], in a transaction of their own.
    pub fn commit_again(&mut self) -> Rows<()> {
        self.begin_again()?;
        self.commit()
    }

    /// Gives up what was begun, if that was not done already, and begins anew with all
    /// changes so far.
    pub(super) fn begin_again(&mut self) -> Rows<()> {
        self.roll_back();
        self.begin.execute([])?;
        self.redo.repeat(self.connection)
    }

    /// Gives up what was begun, as well as that is possible.
    pub fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    pub fn insert_incarnation(&mut self, incarnation: Incarnation, now: Timestamp) -> Rows<()> {
        let newest = "SELECT coalesce(max(id), 0) FROM incarnation";
        let newest: i64 = self.connection.query_row(newest, [], |row| row.get(0))?;
        let row = values![newest + 1, incarnation.mark, incarnation.first.0, now.0];
        let mut insert = self.connection.prepare(&Table::Incarnation.insert("INSERT"))?;
        write(&mut insert, Table::Incarnation, &row)
    }

    /// Forgets a process start of which nothing is kept.
    pub fn delete_incarnation(&mut self, incarnation: Incarnation) -> Rows<()> {
        let sql = "DELETE FROM incarnation WHERE mark = ?1 AND first_seq = ?2";
        self.connection.execute(sql, (incarnation.mark, incarnation.first.0)).map(drop)
    }

    pub fn insert_task(&mut self, row: &TaskRow<'_>) -> Rows<()> {
        let values = values![
            row.number,
            row.seq.0,
            row.created.0,
            row.queue,
            row.kind,
            row.request_id,
            row.labels,
            row.record,
        ];
        self.redo.write(&mut self.insert_task, Table::Task, &values)
    }

    /// Of a task that joins those that have not ended.
    pub fn insert_live(&mut self, row: &LiveColumns<'_>) -> Rows<()> {
        self.redo.write(&mut self.insert_live, Table::Live, &live_values(row))
    }

    /// In place of the row that it has.
    pub fn replace_live(&mut self, row: &LiveColumns<'_>) -> Rows<()> {
        self.redo.write(&mut self.replace_live, Table::Live, &live_values(row))
    }

    pub fn put_slot(&mut self, slot: SlotRow) -> Rows<()> {
        let values = values![slot.worker.0, slot.task, slot.attempt, slot.started.0];
        self.redo.write(&mut self.put_slot, Table::Slot, &values)
    }

    pub fn delete_slot(&mut self, worker: WorkerId) -> Rows<()> {
        self.redo.execute(&mut self.delete_slot, &values![worker.0])
    }

    /// Moves a task from those that live to those that have ended.
    pub fn finish(&mut self, row: &FinishRow<'_>) -> Rows<()> {
        self.redo.execute(&mut self.delete_live, &values![row.number])?;
        let (result_type, result) = row.result.map(record::result_columns).unzip();
        let values = values![
            row.number,
            state_column(row.life.state),
            row.finished.0,
            row.due.0,
            row.life.attempt,
            row.life.failures,
            row.life.cancel_requested,
            row.bytes,
            row.ended,
            row.execution.map(|(worker, _)| worker.0),
            row.execution.map(|(_, started)| started.0),
            row.failure.map(|failure| failure.reason.as_str()),
            row.failure.map(|failure| failure.message.as_str()),
            result_type,
            result,
        ];
        self.redo.write(&mut self.insert_finish, Table::Finish, &values)
    }

    /// Takes a task back from those that have ended.
    pub fn unfinish(&mut self, number: u64) -> Rows<()> {
        self.redo.execute(&mut self.delete_finish, &values![number])
    }

    /// Notes an execution, and forgets the one that is `keep` executions older.
    pub fn insert_attempt(&mut self, row: &AttemptRow<'_>, keep: u32) -> Rows<()> {
        let values = values![
            row.task,
            row.attempt,
            row.worker.0,
            row.started.0,
            row.ended.0,
            row.failure.map(|failure| failure.reason.as_str()),
            row.failure.map(|failure| failure.message.as_str()),
        ];
        self.redo.write(&mut self.insert_attempt, Table::Attempt, &values)?;
        match row.attempt.checked_sub(keep) {
            None | Some(0) => Ok(()),
            Some(old) => {
                if self.has_outputs {
                    self.redo.execute(&mut self.forget_outputs, &values![row.task, old])?;
                }
                self.redo.execute(&mut self.forget_attempts, &values![row.task, old])
            }
        }
    }

    /// Keeps what an execution wrote.
    pub fn insert_output(&mut self, task: u64, attempt: u32, output: &[u8]) -> Rows<()> {
        self.has_outputs = true;
        self.redo.write(&mut self.insert_output, Table::Output, &values![task, attempt, output])
    }

    pub fn insert_request(&mut self, id: &str, task: u64, fingerprint: [u8; 16]) -> Rows<()> {
        let values = values![id, task, fingerprint.as_slice()];
        self.redo.write(&mut self.insert_request, Table::Request, &values)
    }

    pub fn insert_events(&mut self, batch: &EventBatch, now: Uptime) -> Rows<()> {
        let data: &[u8] = batch.data();
        let values = values![batch.first().0, batch.last().0, now.0, data];
        self.redo.write(&mut self.insert_event, Table::Event, &values)
    }

    /// Keeps the keys of the tasks of each start.
    pub fn remember_starts(&mut self, starts: &[u8]) -> Rows<()> {
        self.redo.write(&mut self.put_meta, Table::Meta, &values!["starts", starts])
    }

    /// Notes how long the store has been running, in case nothing else tells of it.
    pub fn remember_uptime(&mut self, now: Uptime) -> Rows<()> {
        let uptime = now.0.to_be_bytes();
        self.redo.write(&mut self.put_meta, Table::Meta, &values!["uptime", uptime.as_slice()])
    }
}

fn live_values<'a>(row: &LiveColumns<'a>) -> [ValueRef<'a>; 17] {
    values![
        row.number,
        row.queue,
        row.kind,
        row.priority,
        row.due.0,
        row.interval.map(record::micros),
        row.bytes,
        row.max_attempts,
        row.life.attempt,
        row.life.failures,
        row.life.crashes,
        row.life.cancel_requested,
        row.execution.map(|(worker, _)| worker.0),
        row.execution.map(|(_, started)| started.0),
        row.failure.map(|failure| failure.reason.as_str()),
        row.failure.map(|failure| failure.message.as_str()),
        row.labels,
    ]
}
