//! What is changed and told of queues.

use std::{sync::Arc, time::Duration};

use crate::{queue, task::Timestamp};

/// A change to a queue.
#[derive(Clone, Debug, PartialEq)]
pub enum QueueChange {
    /// Starts none of its tasks, until it is resumed.
    Pause,
    /// Starts its tasks again.
    Resume,
    /// Gives these settings the values that they have in the overrides; where
    /// they have none there, those of the configuration.
    Settings(Vec<queue::Field>, Box<queue::Overrides>),
}

/// How the queues stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// Each queue.
    pub queues: Vec<QueueStatus>,
    /// What waits and runs of each queue and kind; empty if one queue was asked for.
    pub classes: Vec<ClassStatus>,
    /// What went through all queues together.
    pub flow: Flow,
    /// The tasks of all these queues together.
    pub counts: queue::Counts,
    /// When measuring began: at the start of the process.
    pub since: Timestamp,
    /// When this was told.
    pub now: Timestamp,
}

/// A queue as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueStatus {
    /// Its name.
    pub name: Arc<str>,
    /// The settings in force.
    pub settings: queue::Settings,
    /// Those that were changed by [`QueueChange::Settings`].
    pub overrides: queue::Overrides,
    /// It is paused.
    pub paused: bool,
    /// What holds its due tasks back.
    pub block: Option<queue::Block>,
    /// How many of its tasks stand where.
    pub counts: queue::Counts,
    /// Bytes of the tasks that wait.
    pub waiting_bytes: u64,
    /// Callers that wait for room.
    pub waiting_callers: u64,
    /// Since when its next task has been due.
    pub oldest_due: Option<Timestamp>,
    /// What went through it.
    pub flow: Flow,
}

/// The tasks of a queue that have one kind, as they stand.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassStatus {
    /// The queue.
    pub queue: Arc<str>,
    /// Due tasks of priority 0 or a higher one.
    pub usual: u64,
    /// Due tasks of a lower priority.
    pub lower: u64,
    /// For how many seconds the latest executions kept their workers, from the commit of
    /// their start to that of their end; at most 64.
    pub seconds: Vec<f32>,
    /// For how many seconds those under way have kept theirs.
    pub running: Vec<f64>,
}

/// What went through over about the last minute, weighted towards the present:
/// exponentially, with a time constant of 60 s.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    /// Tasks that became due, per second.
    pub arrival_rate: f64,
    /// Executions that ended, per second.
    pub completion_rate: f64,
    /// How long executions ran.
    pub mean_service: Option<Duration>,
    /// How long tasks that started had been due.
    pub mean_wait: Option<Duration>,
    /// Executions under way, on average: also of those that have not ended.
    pub mean_running: f64,
    /// How many executions the figures are made from: those of the last minute, and older
    /// ones in part.
    pub completions: f64,
    /// How much the times of executions vary: their variance over the square of their
    /// mean. 0 if all are equal, 1 if they are spread exponentially.
    pub service_variation: Option<f64>,
    /// How unevenly tasks become due: the variance of their number in a second over its
    /// mean. 1 if they come independently of each other, the size of a burst if they come
    /// in bursts.
    pub arrival_dispersion: Option<f64>,
}
