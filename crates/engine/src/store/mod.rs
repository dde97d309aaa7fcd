//! The truth: which tasks there are, how each stands, and what happened.
//!
//! Owns the contract [`Store`] and its implementation on SQLite. Must not know
//! who submits or who executes: commands come in, outcomes and committed event
//! batches come out. No SQL, transaction or clock shows through the contract.
//!
//! [`open`] starts one thread, the `engine`, that owns the writing connection
//! and commits commands in groups, and a few threads that read (`reader`).
//! `ready` is the order of what is due, `sqlite` the schema and the statements,
//! `record` the formats of what the rows hold, `recovery` what happens at start.

mod clock;
mod directory;
mod engine;
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
    admission::{Permit, Refused},
    event::Seq,
    events::{BoxFuture, History},
    queue::WrongBackoffs,
    task::{Data, Failure, NewTask, RetryPolicy, State, TaskId, Timestamp, WorkerId},
};

pub use clock::WallClock;
pub use directory::DirectoryError;
pub use engine::{MAX_GROUP_BYTES, MAX_GROUP_COMMANDS};
pub use journal::Damage;
pub use open::{OpenError, Settings, SqliteStore, open, open_under};
pub use overview::{ClassStatus, Flow, Overview, QueueChange, QueueStatus};
pub use prepared::weight;
pub use reader::MAX_ROWS_PER_PAGE;
pub use reading::{
    Asker, Attempt, Exit, Filter, MAX_ATTEMPTS_KEPT, MAX_OUTPUTS_READ, Output, OutputStream, Page,
    Query, Task, TimeRange,
};
pub use recovery::Recovered;
pub use settings::{Durability, Retention};
pub use sqlite::{Scan as LogScan, Trust as LogTrust, scan_log};
pub use verify::{Verified, VerifyError, verify};

/// A durable store of tasks and their events.
///
/// Every method that changes something answers only once the change, and the
/// events that tell it, are committed; dropping its future does not undo the
/// command if it was already taken. Every method answers [`Error::Crashed`] once its part of
/// the store has failed.
pub trait Store: History {
    /// Takes a task. `permit` is given back when the task starts or ends.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`], [`Error::Draining`], [`Error::Failed`],
    /// [`Error::Damaged`].
    fn submit(&self, task: Submission, permit: Permit) -> BoxFuture<'_, Result<Submitted, Error>>;

    /// Takes several tasks, in order and in one commit. The outer result is the
    /// commit's; each task has its own within.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`]; of a task [`Error::RequestIdReused`],
    /// [`Error::Damaged`].
    fn submit_all(
        &self,
        tasks: Vec<(Submission, Permit)>,
    ) -> BoxFuture<'_, Result<Vec<Result<Submitted, Error>>, Error>>;

    /// Takes all of these tasks, in order and in one commit, or none.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`], [`Error::NotAll`] with what is
    /// wrong with each task that keeps the others out.
    fn submit_atomic(
        &self,
        tasks: Vec<(Submission, Permit)>,
    ) -> BoxFuture<'_, Result<Vec<Submitted>, Error>>;

    /// The outcome of a submission whose `request_id` is known already; it needs
    /// no permit. `None` if the `request_id` is new.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`], [`Error::Unreadable`], [`Error::Damaged`].
    fn repeated(
        &self,
        request_id: String,
        fingerprint: [u8; 16],
    ) -> BoxFuture<'_, Result<Option<Submitted>, Error>>;

    /// Cancels tasks that wait, and signals the handlers of those that run, in
    /// one commit; of those, only tasks that stand in one of the states `among`, if
    /// any are named. Each has its own result, in order.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`]; of a task [`Error::NotFound`],
    /// [`Error::Ended`], [`Error::Moved`], [`Error::Damaged`].
    fn cancel(
        &self,
        tasks: Vec<TaskId>,
        among: Vec<State>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), Error>>, Error>>;

    /// Puts tasks that have failed or were cancelled back into their queues, in
    /// one commit; of those, only tasks that stand in one of the states `among`, if
    /// any are named. Each has its own result, in order; after the first that finds
    /// its queue full, the others of that queue find it so too.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`]; of a task [`Error::NotFound`],
    /// [`Error::Ended`] (it has succeeded), [`Error::NotEnded`], [`Error::NoRoom`],
    /// [`Error::Moved`], [`Error::Damaged`].
    fn redrive(
        &self,
        tasks: Vec<TaskId>,
        among: Vec<State>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), Error>>, Error>>;

    /// Records that a worker has joined the pool.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`].
    fn join(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), Error>>;

    /// A worker asks for its next dispatch: records how its last execution ended, if it had one,
    /// and answers with the next task as soon as there is one. The start of
    /// that task is committed then. A worker has one such call at a time.
    ///
    /// # Errors
    /// [`Error::Failed`].
    fn next_dispatch(
        &self,
        worker: WorkerId,
        finished: Option<Finished>,
    ) -> BoxFuture<'_, Result<Dispatch, Error>>;

    /// Records that a worker has left the pool.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`].
    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), Error>>;

    /// Answers the next call for a dispatch of these workers, or the one that they wait in, with
    /// [`Dispatch::Stop`].
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`].
    fn retire(&self, workers: Vec<WorkerId>) -> BoxFuture<'_, Result<(), Error>>;

    /// Changes a queue: holds also over restarts.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`], [`Error::WrongBackoffs`],
    /// [`Error::NoRoom`] if it would be one queue too many.
    fn change_queue(
        &self,
        queue: Arc<str>,
        change: QueueChange,
    ) -> BoxFuture<'_, Result<(), Error>>;

    /// How the queues stand, in the order of their names: all of them, or only
    /// the one of this name, if it exists.
    ///
    /// # Errors
    /// [`Error::Draining`] once the store is closed, [`Error::Failed`].
    fn overview(&self, queue: Option<Arc<str>>) -> BoxFuture<'_, Result<Overview, Error>>;

    /// Starts no task from now on, refuses new ones, and answers workers that
    /// wait for a dispatch with [`Dispatch::Stop`].
    ///
    /// # Errors
    /// [`Error::Failed`].
    fn drain(&self) -> BoxFuture<'_, Result<(), Error>>;

    /// Commits what was taken, then closes: tails end, and every later command
    /// fails with [`Error::Draining`]. Reading goes on. Answers with how many
    /// tasks have not ended, running ones included.
    ///
    /// # Errors
    /// [`Error::Draining`] if it was closed before, [`Error::Crashed`].
    fn close(&self) -> BoxFuture<'_, Result<u64, Error>>;

    /// Reads one task.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unreadable`], [`Error::Damaged`].
    fn get(&self, task: TaskId) -> BoxFuture<'_, Result<Task, Error>>;

    /// Reads what an execution of a task wrote: this attempt, or the latest of which
    /// anything was kept. `None` if nothing was.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unreadable`], [`Error::Damaged`].
    fn output(
        &self,
        task: TaskId,
        attempt: Option<u32>,
    ) -> BoxFuture<'_, Result<Option<(u32, Output)>, Error>>;

    /// Reads a page of tasks in the order of submission, or in the reverse.
    /// Without their attempts.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::Damaged`], [`Error::TooManyLists`].
    fn list(&self, query: Query) -> BoxFuture<'_, Result<Page, Error>>;

    /// The cause, once the disk has failed to sync and the store takes no more.
    fn failure(&self) -> tokio::sync::watch::Receiver<Option<Arc<str>>>;
}

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
    /// What the handler is given.
    pub payload: Data,
    /// Which execution.
    pub attempt: u32,
    /// How many attempts have failed so far.
    pub failures: u32,
    /// When it started.
    pub started: Timestamp,
    /// How long it may take.
    pub timeout: Duration,
    /// How to rest after a failure.
    pub retry: RetryPolicy,
    /// Fires when the task is cancelled.
    pub cancel: CancellationToken,
}
