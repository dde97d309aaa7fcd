//! The truth: which tasks there are, how each stands, and what happened.
//!
//! Owns [`Store`], through which everybody else speaks to it. Must not know who submits or
//! who executes: commands come in, outcomes and committed event batches come out. No SQL,
//! transaction or clock shows through the handle.
//!
//! [`open`] starts one thread, the `engine`, that owns the writing connection
//! and commits commands in groups, and a few threads that read (`reader`).
//! `ready` is the order of what is due, `journal` what the engine writes to and reads from,
//! `sqlite` the journal on SQLite with its schema and its statements, `record` the formats
//! of what the rows hold, `recovery` what happens at start.

mod clock;
mod directory;
mod engine;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handle;
mod identity;
mod journal;
mod open;
mod overview;
mod prepared;
mod reader;
mod reading;
mod ready;
mod record;
mod recovery;
mod settings;
mod space;
mod sqlite;
mod verify;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    admission::Refused,
    event::Seq,
    queue::WrongBackoffs,
    task::{Data, Failure, NewTask, RetryPolicy, State, TaskBody, TaskId, Timestamp},
};

pub use clock::WallClock;
pub use directory::DirectoryError;
pub use engine::{MAX_GROUP_BYTES, MAX_GROUP_COMMANDS};
pub use handle::Store;
pub use journal::Damage;
pub use open::{OpenError, open, open_under};
pub use overview::{ClassStatus, Flow, Overview, QueueChange, QueueStatus};
pub use prepared::weight;
pub use reader::MAX_ROWS_PER_PAGE;
pub use reading::{
    Asker, Attempt, Exit, Filter, MAX_ATTEMPTS_KEPT, MAX_OUTPUTS_READ, Output, OutputStream, Page,
    Query, Task, TimeRange,
};
pub use recovery::Recovered;
pub use settings::{Durability, Retention, Settings};
pub use sqlite::{Scan as LogScan, Trust as LogTrust, scan_log};
pub use verify::{Verified, VerifyError, verify};

/// Why a command had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such task.
    #[error("there is no task {0}")]
    NotFound(TaskId),
    /// The task has ended.
    #[error("task {task} has ended already: {state:?}")]
    Ended {
        /// Which task.
        task: TaskId,
        /// How.
        state: State,
    },
    /// The task has not ended.
    #[error("task {task} has not ended: {state:?}")]
    NotEnded {
        /// Which task.
        task: TaskId,
        /// Where it stands.
        state: State,
    },
    /// The task stands in none of the states that were meant.
    #[error("task {task} is {state:?} by now")]
    Moved {
        /// Which task.
        task: TaskId,
        /// Where it stands.
        state: State,
    },
    /// The queue has no room.
    #[error("no room in queue {queue}: {cause}")]
    NoRoom {
        /// Which queue.
        queue: Arc<str>,
        /// Why.
        cause: Refused,
    },
    /// Tasks that were to be taken together were not: these keep the others out.
    #[error("{} of the tasks cannot be taken", .0.len())]
    NotAll(Vec<(usize, Error)>),
    /// The idempotency key belongs to another task.
    #[error("the request_id was used for another task, {0}")]
    RequestIdReused(TaskId),
    /// The idempotency key belongs to an earlier task of the same call, which is none
    /// yet, as all of them are taken or none.
    #[error("the request_id was used for another task of the same call, the one at {first}")]
    RequestIdRepeated {
        /// Its place in the call, from 0.
        first: usize,
    },
    /// The settings of a queue would not fit together.
    #[error("the longest backoff would be {:?}, below the initial one of {:?}", .0.max, .0.initial)]
    WrongBackoffs(WrongBackoffs),
    /// The store takes no more commands of this sort: the server shuts down.
    #[error("the server is draining")]
    Draining,
    /// The disk failed to sync: the store takes no more until a restart.
    #[error("the store has failed: {0}")]
    Failed(Arc<str>),
    /// A part of the server has failed, and it ends. Whether the command was done is not
    /// known.
    #[error("the server has failed: {0}")]
    Crashed(Arc<str>),
    /// A row that is needed is damaged: nothing of it is handed out.
    #[error("{0}")]
    Damaged(Damage),
    /// As many lists wait to be read as may, of the asker's address or of all.
    #[error("too many lists wait to be read")]
    TooManyLists,
    /// The disk refused a read.
    #[error("the store cannot be read: {0}")]
    Unreadable(Arc<str>),
}

/// A task on its way into the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The task.
    pub task: NewTask,
    /// A hash of what the caller asked for, by which a repeated `request_id` is
    /// told from a reused one. Counts only together with a `request_id`.
    pub fingerprint: [u8; 16],
}

/// A task is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Which.
    pub task: TaskId,
    /// The number of its SUBMITTED event.
    pub seq: Seq,
    /// Where it stands.
    pub state: State,
    /// It was there already, under the same `request_id`.
    pub existing: bool,
}

/// How an execution ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a result.
    Succeeded(Data),
    /// By an error, a panic or the timeout.
    Failed {
        /// Why.
        failure: Failure,
        /// Trying again is of no use.
        permanent: bool,
        /// How long to rest before the next attempt, if there is one.
        retry_after: Duration,
    },
    /// It was stopped after its task was cancelled.
    Stopped,
    /// It was stopped by the drain.
    Interrupted,
}

/// What a worker reports of its last execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Which task.
    pub task: TaskId,
    /// Which execution of it.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it ran.
    pub ran: Duration,
    /// What it wrote, if that is to be kept.
    pub output: Option<Output>,
}

/// What a worker does next.
#[derive(Debug)]
pub enum Dispatch {
    /// Execute this.
    Run(Assignment),
    /// Leave: nothing starts any more.
    Stop,
}

/// A task whose start is committed.
#[derive(Debug)]
pub struct Assignment {
    /// Which task.
    pub task: TaskId,
    /// Its queue.
    pub queue: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// What it was submitted with for whoever runs it.
    pub body: TaskBody,
    /// Which execution.
    pub attempt: u32,
    /// How many attempts have failed so far.
    pub failures: u32,
    /// When it started.
    pub started: Timestamp,
    /// How to rest after a failure.
    pub retry: RetryPolicy,
    /// Fires when the task is cancelled.
    pub cancel: CancellationToken,
}
