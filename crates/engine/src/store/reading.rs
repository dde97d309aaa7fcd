//! What is read of tasks: which ones are meant, and how they stand.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::Bytes;

use super::Damage;
use crate::task::{Data, Failure, Lifecycle, State, TaskBody, TaskId, Timestamp, WorkerId};

/// A task as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Which.
    pub id: TaskId,
    /// Its queue.
    pub queue: String,
    /// Its kind.
    pub kind: String,
    /// What was submitted for whoever runs it or looks at it.
    pub body: TaskBody,
    /// Its priority.
    pub priority: i32,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The idempotency key, if any.
    pub request_id: Option<String>,
    /// Attempts that may fail before it does.
    pub max_attempts: u32,
    /// Where it stands.
    pub lifecycle: Lifecycle,
    /// When it was submitted.
    pub created: Timestamp,
    /// When it may start, or might have.
    pub due: Timestamp,
    /// Its latest execution: on which worker, since when.
    pub execution: Option<(WorkerId, Timestamp)>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// What it returned; empty if the query omits payloads.
    pub result: Option<Data>,
    /// Why its latest attempt failed.
    pub failure: Option<Failure>,
    /// Its executions, the oldest first, at most [`MAX_ATTEMPTS_KEPT`]; empty in
    /// a list.
    pub attempts: Vec<Attempt>,
}

/// Executions of one task that are remembered, the latest ones.
pub const MAX_ATTEMPTS_KEPT: u32 = 100;

/// One execution of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its number.
    pub attempt: u32,
    /// Who ran it.
    pub worker: WorkerId,
    /// When it started.
    pub started: Timestamp,
    /// When it ended; of one that a crash ended, when that was found out.
    pub ended: Option<Timestamp>,
    /// Why it failed, was interrupted or cancelled.
    pub failure: Option<Failure>,
    /// What it wrote, if that was kept. Of a task that is read with all of its
    /// executions, the latest outputs that [`MAX_OUTPUTS_READ`] has room for, at
    /// least one; see [`super::Store::output`].
    pub output: Option<Output>,
}

/// Bytes of outputs that are read with one task.
pub const MAX_OUTPUTS_READ: usize = 256 << 10;

/// What an execution wrote, as far as it was kept, and how its process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its standard output.
    pub stdout: OutputStream,
    /// Its standard error.
    pub stderr: OutputStream,
    /// How its process ended, if it had one that did.
    pub exit: Option<Exit>,
}

/// What was written to one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputStream {
    /// What of it was kept.
    pub bytes: Bytes,
    /// How many bytes were not.
    pub dropped: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Which tasks are meant: all that is set must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these states; all if empty.
    pub states: Vec<State>,
    /// Any of these queues; all if empty.
    pub queues: Vec<String>,
    /// Any of these kinds; all if empty.
    pub kinds: Vec<String>,
    /// All of these labels.
    pub labels: BTreeMap<String, String>,
    /// When it was submitted.
    pub created: TimeRange,
    /// When it ended; one that is set matches no task that has not ended.
    pub finished: TimeRange,
}

/// A span of time, from the first moment on and before the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub before: Option<Timestamp>,
}

impl TimeRange {
    /// Whether nothing is set.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `time` lies in it.
    #[must_use]
    pub fn has(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| time >= from) && self.before.is_none_or(|before| time < before)
    }
}

/// On whose behalf tasks are listed: a client's end of its connection; none for the server
/// itself. Nobody's lists wait for more than one of each other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asker(pub Option<SocketAddr>);

/// Which tasks to list, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Which.
    pub filter: Filter,
    /// Only tasks beyond this number: higher ones, or lower ones if the newest
    /// come first.
    pub beyond: Option<u64>,
    /// The newest first.
    pub newest_first: bool,
    /// Tasks on the page.
    pub limit: usize,
    /// Leave payloads and results out.
    pub omit_payloads: bool,
    /// On whose behalf.
    pub asker: Asker,
}

/// Some tasks, in the order of submission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The tasks; fewer than the limit, even none, if looking further would
    /// have taken too long or the page become too large.
    pub tasks: Vec<Task>,
    /// Tasks between them of which something is damaged, and what: whether they match is not
    /// known. They count to the limit.
    pub damaged: Vec<(TaskId, Damage)>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<u64>,
}
