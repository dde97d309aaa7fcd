//! The domain: what is told of a task or of the pool.
//!
//! Owns the shape of an event. Must not know how events are encoded, stored or
//! delivered, nor clocks, I/O, tokio or tonic.

use std::time::Duration;

use crate::task::{Failure, TaskId, Timestamp, WorkerId};

/// An event's number: from 1, in commit order, without gaps. Zero stands for
/// the place before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The number that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number before; zero stays zero.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A task was accepted.
    Submitted,
    /// An attempt began.
    Started,
    /// An attempt returned its result; the task has ended.
    Succeeded,
    /// An attempt failed; another follows.
    RetryScheduled,
    /// The task has ended in failure.
    Failed,
    /// The process ended an attempt; another follows.
    Interrupted,
    /// The task has ended by cancellation.
    Cancelled,
    /// An ended task lives again.
    Redriven,
    /// A worker joined the pool.
    WorkerStarted,
    /// A worker left the pool.
    WorkerStopped,
    /// No task starts any more in this process.
    Draining,
    /// The tasks of a queue do not start until it is resumed.
    QueuePaused,
    /// The tasks of a queue start again.
    QueueResumed,
}

/// The task that an event speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Which task.
    pub id: TaskId,
    /// Its queue.
    pub queue: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// Which execution; 0 before the first.
    pub attempt: u32,
    /// Its labels, in the form in which they are kept with it and appended to what
    /// is told of it; empty if it has none.
    pub labels: &'a [u8],
}

/// One event, borrowed from whoever decided it: it is encoded at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// When it was decided, by the wall clock.
    pub time: Timestamp,
    /// What happened.
    pub event_type: EventType,
    /// To which task, if to one.
    pub task: Option<Subject<'a>>,
    /// To which queue, if not to a task of it.
    pub queue: Option<&'a str>,
    /// By which worker, if by one.
    pub worker: Option<WorkerId>,
    /// How long the task was due before the attempt started.
    pub waited: Option<Duration>,
    /// How long the attempt ran.
    pub ran: Option<Duration>,
    /// Why it failed, was interrupted or cancelled.
    pub error: Option<&'a Failure>,
    /// When the task may start (again), if that is later.
    pub next_due: Option<Timestamp>,
}

impl<'a> Event<'a> {
    /// An event with nothing but its type, time and task.
    #[must_use]
    pub fn new(event_type: EventType, time: Timestamp, task: Option<Subject<'a>>) -> Self {
        Self {
            time,
            event_type,
            task,
            queue: None,
            worker: None,
            waited: None,
            ran: None,
            error: None,
            next_due: None,
        }
    }
}
