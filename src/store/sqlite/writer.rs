//! The statements that write, and what the engine must read between them.

use rusqlite::{Connection, OptionalExtension as _, Row, Statement, params};

use super::{SlotRow, state_column, state_from_column};
use crate::{
    event::Seq,
    events::{EventBatch, Incarnation},
    store::record,
    task::{Data, Failure, Lifecycle, State, Timestamp, WorkerId},
};

/// An execution, as rows tell of it.
pub type ExecutionColumns = Option<(WorkerId, Timestamp)>;

/// Labels, encoded; `None` if there are none.
type Labels = Option<Box<[u8]>>;

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

/// A task that joins those that have not ended.
#[derive(Debug)]
pub struct NewLiveRow<'a> {
    pub number: u64,
    pub queue: &'a str,
    pub kind: &'a str,
    pub priority: i32,
    pub due: Timestamp,
    pub bytes: u64,
    pub max_attempts: u32,
    pub attempt: u32,
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

/// A task that has ended, as far as a redrive needs to know.
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
}

/// The statements that write, prepared once. All of them belong between
/// [`Writer::begin`] and [`Writer::commit`].
pub struct Writer<'c> {
    pub(super) connection: &'c Connection,
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
    pub(super) delete_finish: Statement<'c>,
    insert_attempt: Statement<'c>,
    forget_attempts: Statement<'c>,
    pub(super) delete_attempts: Statement<'c>,
    pub(super) delete_task: Statement<'c>,
    pub(super) delete_request: Statement<'c>,
    pub(super) insert_ended: Statement<'c>,
    pub(super) oldest_ended: Statement<'c>,
    pub(super) update_ended: Statement<'c>,
    pub(super) delete_ended: Statement<'c>,
    pub(super) select_trimmed: Statement<'c>,
    pub(super) oldest_events: Statement<'c>,
    pub(super) sane_ended: Statement<'c>,
    pub(super) sane_events: Statement<'c>,
    pub(super) delete_events: Statement<'c>,
    pub(super) put_tally: Statement<'c>,
    insert_request: Statement<'c>,
    insert_event: Statement<'c>,
    select_request: Statement<'c>,
    select_record: Statement<'c>,
    select_labels: Statement<'c>,
    select_seq: Statement<'c>,
    select_finish: Statement<'c>,
    select_execution: Statement<'c>,
    select_finished: Statement<'c>,
}

type Rows<T> = Result<T, rusqlite::Error>;

impl<'c> Writer<'c> {
    pub fn new(connection: &'c Connection) -> Rows<Self> {
        let prepare = |sql| connection.prepare(sql);
        Ok(Self {
            connection,
            begin: prepare("BEGIN")?,
            commit: prepare("COMMIT")?,
            insert_task: prepare("INSERT INTO task VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?,
            insert_live: prepare(
                "INSERT INTO live VALUES
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, 0, NULL, NULL, NULL, NULL, ?9)",
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
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?,
            delete_finish: prepare("DELETE FROM finish WHERE id = ?1")?,
            insert_attempt: prepare(
                "INSERT OR IGNORE INTO attempt VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            forget_attempts: prepare("DELETE FROM attempt WHERE task = ?1 AND attempt <= ?2")?,
            delete_attempts: prepare("DELETE FROM attempt WHERE task = ?1")?,
            delete_task: prepare("DELETE FROM task WHERE id = ?1")?,
            delete_request: prepare("DELETE FROM request WHERE id = ?1 AND task = ?2")?,
            insert_ended: prepare("INSERT INTO ended VALUES (?1, ?2, ?3, ?4)")?,
            oldest_ended: prepare(
                "SELECT id, time, tasks FROM ended WHERE failed = ?1 ORDER BY id LIMIT 1",
            )?,
            update_ended: prepare("UPDATE ended SET tasks = ?2 WHERE id = ?1")?,
            delete_ended: prepare("DELETE FROM ended WHERE id = ?1")?,
            select_trimmed: prepare(
                "SELECT task.queue, finish.state, finish.bytes, finish.ended, task.request_id
                 FROM finish JOIN task ON task.id = finish.id WHERE finish.id = ?1",
            )?,
            oldest_events: prepare("SELECT first, time FROM event ORDER BY first LIMIT 1")?,
            sane_ended: prepare(
                "SELECT time FROM ended WHERE failed = ?1 AND time <= ?2 ORDER BY id LIMIT 1",
            )?,
            sane_events: prepare("SELECT time FROM event WHERE time <= ?1 ORDER BY first LIMIT 1")?,
            delete_events: prepare("DELETE FROM event WHERE first = ?1")?,
            put_tally: prepare("INSERT OR REPLACE INTO tally VALUES (?1, ?2, ?3, ?4)")?,
            insert_request: prepare("INSERT INTO request VALUES (?1, ?2, ?3)")?,
            insert_event: prepare("INSERT INTO event VALUES (?1, ?2, ?3, ?4)")?,
            select_request: prepare("SELECT task, fingerprint FROM request WHERE id = ?1")?,
            select_record: prepare("SELECT record, labels FROM task WHERE id = ?1")?,
            select_labels: prepare("SELECT labels FROM live WHERE id = ?1")?,
            select_seq: prepare("SELECT seq FROM task WHERE id = ?1")?,
            select_finish: prepare("SELECT state FROM finish WHERE id = ?1")?,
            select_execution: prepare("SELECT worker, started FROM live WHERE id = ?1")?,
            select_finished: prepare(
                "SELECT task.queue, task.kind, finish.state, finish.attempt, finish.failures,
                 finish.cancel_requested, finish.bytes, finish.finished, finish.worker,
                 finish.started, finish.error_reason, finish.error_message, task.labels
                 FROM finish JOIN task ON task.id = finish.id WHERE finish.id = ?1",
            )?,
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

    pub fn insert_task(&mut self, row: &TaskRow<'_>) -> Rows<()> {
        self.insert_task
            .execute(params![
                row.number,
                row.seq.0,
                row.created.0,
                row.queue,
                row.kind,
                row.request_id,
                row.labels,
                row.record,
            ])
            .map(drop)
    }

    pub fn insert_live(&mut self, row: &NewLiveRow<'_>) -> Rows<()> {
        self.insert_live
            .execute(params![
                row.number,
                row.queue,
                row.kind,
                row.priority,
                row.due.0,
                row.bytes,
                row.max_attempts,
                row.attempt,
                row.labels,
            ])
            .map(drop)
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
                row.bytes,
                row.ended,
                row.execution.map(|(worker, _)| worker.0),
                row.execution.map(|(_, started)| started.0),
                row.failure.map(|failure| &failure.reason),
                row.failure.map(|failure| &failure.message),
                result_type,
                result,
            ])
            .map(drop)
    }

    /// Takes a task back from those that have ended.
    pub fn unfinish(&mut self, number: u64) -> Rows<()> {
        self.delete_finish.execute([number]).map(drop)
    }

    /// Notes an execution, and forgets the one that is `keep` executions older.
    pub fn insert_attempt(&mut self, row: &AttemptRow<'_>, keep: u32) -> Rows<()> {
        self.insert_attempt.execute(params![
            row.task,
            row.attempt,
            row.worker.0,
            row.started.0,
            row.ended.0,
            row.failure.map(|failure| &failure.reason),
            row.failure.map(|failure| &failure.message),
        ])?;
        match row.attempt.checked_sub(keep) {
            None | Some(0) => Ok(()),
            Some(old) => self.forget_attempts.execute(params![row.task, old]).map(drop),
        }
    }

    pub fn insert_request(&mut self, id: &str, task: u64, fingerprint: [u8; 16]) -> Rows<()> {
        self.insert_request.execute(params![id, task, fingerprint]).map(drop)
    }

    pub fn insert_events(&mut self, batch: &EventBatch, now: Timestamp) -> Rows<()> {
        let data: &[u8] = batch.data();
        let row = params![batch.first().0, batch.last().0, now.0, data];
        self.insert_event.execute(row).map(drop)
    }

    /// The task that a `request_id` made, and the fingerprint of the request.
    pub fn request(&mut self, id: &str) -> Rows<Option<(u64, Vec<u8>)>> {
        self.select_request.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    }

    /// A task's record and its labels, if it is there.
    pub fn record(&mut self, number: u64) -> Rows<Option<(Vec<u8>, Labels)>> {
        let row = self.select_record.query_row([number], |row| Ok((row.get(0)?, labels(row, 1)?)));
        row.optional()
    }

    /// The labels of a task that has not ended.
    pub fn labels(&mut self, number: u64) -> Rows<Labels> {
        self.select_labels.query_row([number], |row| labels(row, 0))
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

    /// A task that has ended.
    pub fn finished_task(&mut self, number: u64) -> Rows<Option<FinishedTask>> {
        let row = self.select_finished.query_row([number], |row| {
            let (worker, started): (Option<u32>, Option<i64>) = (row.get(8)?, row.get(9)?);
            let (reason, message): (Option<String>, Option<String>) = (row.get(10)?, row.get(11)?);
            Ok(FinishedTask {
                queue: row.get(0)?,
                kind: row.get(1)?,
                life: Lifecycle {
                    state: state_from_column(row.get(2)?).unwrap_or(State::Failed),
                    attempt: row.get(3)?,
                    failures: row.get(4)?,
                    crashes: 0,
                    cancel_requested: row.get(5)?,
                },
                bytes: row.get(6)?,
                finished: Timestamp(row.get(7)?),
                execution: worker.map(WorkerId).zip(started.map(Timestamp)),
                failure: reason.zip(message).map(|(reason, message)| Failure { reason, message }),
                labels: labels(row, 12)?,
            })
        });
        row.optional()
    }
}

fn labels(row: &Row<'_>, column: usize) -> Rows<Labels> {
    Ok(row.get::<_, Option<Vec<u8>>>(column)?.map(Vec::into_boxed_slice))
}
