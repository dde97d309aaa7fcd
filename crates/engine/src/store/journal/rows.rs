//! What is kept, row by row.

use std::{sync::Arc, time::Duration};

use crate::{
    event::Seq,
    store::clock::Uptime,
    task::{Data, Failure, Lifecycle, State, Timestamp, WorkerId},
};

/// An execution, as rows tell of it.
pub type ExecutionColumns = Option<(WorkerId, Timestamp)>;

/// Labels, encoded; `None` if there are none.
pub type Labels = Option<Box<[u8]>>;

/// A task as it was submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRow {
    pub number: u64,
    pub seq: Seq,
    pub created: Timestamp,
    pub queue: Arc<str>,
    pub kind: Arc<str>,
    pub request_id: Option<Arc<str>>,
    pub labels: Labels,
    pub record: Vec<u8>,
}

/// A new task. It waits as it was submitted until a [`LiveRow`] or a [`FinishRow`] says
/// otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct NewTaskRow {
    pub task: TaskRow,
    pub priority: i32,
    pub due: Timestamp,
    /// How long it is to wait until then; `None` if it is due at a time.
    pub interval: Option<Duration>,
    pub bytes: u64,
    pub max_attempts: u32,
}

/// The changing part of a task that has not ended, and is not as it was submitted.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveRow {
    pub number: u64,
    pub queue: Arc<str>,
    pub kind: Arc<str>,
    pub priority: i32,
    pub due: Timestamp,
    /// How long it was to wait until then; `None` if it is due at a time.
    pub interval: Option<Duration>,
    pub bytes: u64,
    pub max_attempts: u32,
    pub life: Lifecycle,
    pub execution: ExecutionColumns,
    pub failure: Option<Failure>,
    pub labels: Labels,
}

/// A task's place among those that have not ended, as a start needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveHead {
    pub number: u64,
    pub queue: Arc<str>,
    pub kind: Arc<str>,
    pub priority: i32,
    pub due: Timestamp,
    /// How long it was to wait until then; `None` if it is due at a time.
    pub interval: Option<Duration>,
    pub bytes: u64,
    pub max_attempts: u32,
    pub attempt: u32,
    pub failures: u32,
    pub crashes: u32,
    pub cancel_requested: bool,
    pub has_labels: bool,
}

/// What of a task that has not ended is not in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WrittenLive {
    /// How long it was to wait; `None` if it is due at a time.
    pub interval: Option<Duration>,
    /// Its latest execution that has ended.
    pub execution: ExecutionColumns,
    /// Why that failed.
    pub failure: Option<Failure>,
    pub labels: Labels,
}

/// The end of a task.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishRow {
    pub number: u64,
    pub life: Lifecycle,
    pub finished: Timestamp,
    pub due: Timestamp,
    /// Of the task and its result.
    pub bytes: u64,
    /// The row of `ended` that it is trimmed with.
    pub ended: i64,
    pub execution: ExecutionColumns,
    pub result: Option<Data>,
    pub failure: Option<Failure>,
}

/// A task that has ended, without its payload and its result.
#[derive(Clone, Debug, PartialEq)]
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

/// An execution that has ended, but not its task.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRow {
    pub task: u64,
    pub attempt: u32,
    pub worker: WorkerId,
    pub started: Timestamp,
    pub ended: Timestamp,
    pub failure: Option<Failure>,
}

/// What an execution wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputRow {
    pub task: u64,
    pub attempt: u32,
    pub data: Vec<u8>,
}

/// An idempotency key: which task it made, and from what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRow {
    pub task: u64,
    pub fingerprint: [u8; 16],
}

/// A worker that runs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRow {
    pub worker: WorkerId,
    pub task: u64,
    pub attempt: u32,
    pub started: Timestamp,
}

/// Tasks that ended in one commit, of which some are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedRow {
    pub id: i64,
    pub failed: bool,
    pub uptime: Uptime,
    pub tasks: Vec<u64>,
}

/// What is kept of the tasks of one queue that ended in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TallyRow {
    pub queue: String,
    pub state: State,
    pub tasks: u64,
    pub bytes: u64,
}

/// What an operator has changed about a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRow {
    pub name: String,
    pub paused: bool,
    pub overrides: Vec<u8>,
}
