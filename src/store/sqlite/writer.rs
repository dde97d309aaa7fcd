//! The statements that write, and what the engine must read between them.

use rusqlite::{Connection, OptionalExtension as _, Statement, params};

use super::{SlotRow, state_column, state_from_column};
use crate::{
    event::Seq,
    events::{EventBatch, Incarnation},
    store::record,
    task::{Data, Failure, Lifecycle, State, Timestamp, WorkerId},
};

/// An execution, as rows tell of it.
pub type ExecutionColumns = Option<(WorkerId, Timestamp)>;

/// The end of a task.
#[derive(Debug)]
pub struct FinishRow<'a> {
    pub number: u64,
    pub life: Lifecycle,
    pub finished: Timestamp,
    pub due: Timestamp,
    pub execution: ExecutionColumns,
    pub result: Option<&'a Data>,
    pub failure: Option<&'a Failure>,
}

/// The statements that write, prepared once. All of them belong between
/// [`Writer::begin`] and [`Writer::commit`].
pub struct Writer<'c> {
    connection: &'c Connection,
    begin: Statement<'c>,
    commit: Statement<'c>,
    insert_task: Statement<'c>,
    insert_live: Statement<'c>,
    update_live: Statement<'c>,
    request_cancel: Statement<'c>,
    delete_live: Statement<'c>,
    put_slot: Statement<'c>,
    delete_slot: Statement<'c>,
    insert_finish: Statement<'c>,
    insert_request: Statement<'c>,
    insert_event: Statement<'c>,
    select_request: Statement<'c>,
    select_record: Statement<'c>,
    select_seq: Statement<'c>,
    select_finish: Statement<'c>,
    select_execution: Statement<'c>,
}

type Rows<T> = Result<T, rusqlite::Error>;

impl<'c> Writer<'c> {
    pub fn new(connection: &'c Connection) -> Rows<Self> {
        let prepare = |sql| connection.prepare(sql);
        Ok(Self {
            connection,
            begin: prepare("BEGIN")?,
            commit: prepare("COMMIT")?,
            insert_task: prepare("INSERT INTO task VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?,
            insert_live: prepare(
                "INSERT INTO live VALUES
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0, 0, NULL, NULL, NULL, NULL)",
            )?,
            update_live: prepare(
                "UPDATE live SET due = ?2, attempt = ?3, failures = ?4, crashes = ?5,
                 cancel_requested = ?6, worker = ?7, started = ?8, error_reason = ?9,
                 error_message = ?10 WHERE id = ?1",
            )?,
            request_cancel: prepare("UPDATE live SET cancel_requested = 1 WHERE id = ?1")?,
            delete_live: prepare("DELETE FROM live WHERE id = ?1")?,
            put_slot: prepare("INSERT OR REPLACE INTO slot VALUES (?1, ?2, ?3, ?4)")?,
            delete_slot: prepare("DELETE FROM slot WHERE worker = ?1")?,
            insert_finish: prepare(
                "INSERT INTO finish VALUES
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?,
            insert_request: prepare("INSERT INTO request VALUES (?1, ?2, ?3)")?,
            insert_event: prepare("INSERT INTO event VALUES (?1, ?2, ?3)")?,
            select_request: prepare("SELECT task, fingerprint FROM request WHERE id = ?1")?,
            select_record: prepare("SELECT record FROM task WHERE id = ?1")?,
            select_seq: prepare("SELECT seq FROM task WHERE id = ?1")?,
            select_finish: prepare("SELECT state FROM finish WHERE id = ?1")?,
            select_execution: prepare("SELECT worker, started FROM live WHERE id = ?1")?,
        })
    }

    pub fn begin(&mut self) -> Rows<()> {
        self.begin.execute([]).map(drop)
    }

    /// Commits; with fsync, returns when the disk has it.
    pub fn commit(&mut self) -> Rows<()> {
        self.commit.execute([]).map(drop)
    }

    /// Gives up what was begun, as well as that is possible.
    pub fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    pub fn insert_incarnation(&mut self, incarnation: Incarnation, now: Timestamp) -> Rows<()> {
        self.connection
            .execute(
                "INSERT INTO incarnation (mark, first_seq, started) VALUES (?1, ?2, ?3)",
                params![incarnation.mark, incarnation.first.0, now.0],
            )
            .map(drop)
    }

    pub fn insert_task(
        &mut self,
        number: u64,
        seq: Seq,
        created: Timestamp,
        (queue, kind): (&str, &str),
        record: &[u8],
    ) -> Rows<()> {
        let row = params![number, seq.0, created.0, queue, kind, record];
        self.insert_task.execute(row).map(drop)
    }

    pub fn insert_live(
        &mut self,
        number: u64,
        (queue, kind): (&str, &str),
        priority: i32,
        due: Timestamp,
        bytes: u64,
        max_attempts: u32,
    ) -> Rows<()> {
        let row = params![number, queue, kind, priority, due.0, bytes, max_attempts];
        self.insert_live.execute(row).map(drop)
    }

    pub fn update_live(
        &mut self,
        number: u64,
        life: Lifecycle,
        due: Timestamp,
        execution: ExecutionColumns,
        failure: Option<&Failure>,
    ) -> Rows<()> {
        self.update_live
            .execute(params![
                number,
                due.0,
                life.attempt,
                life.failures,
                life.crashes,
                life.cancel_requested,
                execution.map(|(worker, _)| worker.0),
                execution.map(|(_, started)| started.0),
                failure.map(|failure| &failure.reason),
                failure.map(|failure| &failure.message),
            ])
            .map(drop)
    }

    /// Marks a running task, and leaves what is known of earlier attempts.
    pub fn request_cancel(&mut self, number: u64) -> Rows<()> {
        self.request_cancel.execute([number]).map(drop)
    }

    pub fn put_slot(&mut self, slot: SlotRow) -> Rows<()> {
        let row = params![slot.worker.0, slot.task, slot.attempt, slot.started.0];
        self.put_slot.execute(row).map(drop)
    }

    pub fn delete_slot(&mut self, worker: WorkerId) -> Rows<()> {
        self.delete_slot.execute([worker.0]).map(drop)
    }

    /// Moves a task from those that live to those that have ended.
    pub fn finish(&mut self, row: &FinishRow<'_>) -> Rows<()> {
        self.delete_live.execute([row.number])?;
        let (result_type, result) = row.result.map(record::result_columns).unzip();
        self.insert_finish
            .execute(params![
                row.number,
                state_column(row.life.state),
                row.finished.0,
                row.due.0,
                row.life.attempt,
                row.life.failures,
                row.life.cancel_requested,
                row.execution.map(|(worker, _)| worker.0),
                row.execution.map(|(_, started)| started.0),
                result_type,
                result,
                row.failure.map(|failure| &failure.reason),
                row.failure.map(|failure| &failure.message),
            ])
            .map(drop)
    }

    pub fn insert_request(&mut self, id: &str, task: u64, fingerprint: [u8; 16]) -> Rows<()> {
        self.insert_request.execute(params![id, task, fingerprint]).map(drop)
    }

    pub fn insert_events(&mut self, batch: &EventBatch) -> Rows<()> {
        let data: &[u8] = batch.data();
        self.insert_event.execute(params![batch.first().0, batch.last().0, data]).map(drop)
    }

    /// The task that a `request_id` made, and the fingerprint of the request.
    pub fn request(&mut self, id: &str) -> Rows<Option<(u64, Vec<u8>)>> {
        self.select_request.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    }

    /// A task's record, if it is there.
    pub fn record(&mut self, number: u64) -> Rows<Option<Vec<u8>>> {
        self.select_record.query_row([number], |row| row.get(0)).optional()
    }

    /// The number of a task's SUBMITTED event.
    pub fn submitted_seq(&mut self, number: u64) -> Rows<Seq> {
        self.select_seq.query_row([number], |row| row.get(0)).map(Seq)
    }

    /// The latest execution of a task that waits.
    pub fn last_execution(&mut self, number: u64) -> Rows<ExecutionColumns> {
        self.select_execution.query_row([number], |row| {
            let (worker, started): (Option<u32>, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok(worker.map(WorkerId).zip(started.map(Timestamp)))
        })
    }

    /// How a task has ended, if it has.
    pub fn finished_state(&mut self, number: u64) -> Rows<Option<State>> {
        let state = self.select_finish.query_row([number], |row| row.get(0)).optional()?;
        Ok(state.and_then(state_from_column))
    }
}
