//! The domain: how a queue behaves.
//!
//! Owns what a queue's name can be, what is configured of queues, and what is told of
//! them; `settings` has what can be set. Must not know clocks, I/O, tokio, tonic or any
//! other module but the domain.

mod settings;

use std::{collections::BTreeMap, sync::Arc};

pub use settings::{
    ATTEMPT_TIMEOUT, BACKOFF, BURST, Field, Kind, MAX_ATTEMPTS, MAX_BYTES, MAX_RUNNING, MAX_TASKS,
    Overrides, Rate, STARTS_PER_SECOND, Settings, Value, WEIGHT, WrongBackoffs,
};

/// Bytes of a queue's name.
pub const MAX_NAME: usize = 63;

/// Whether `name` can be a queue's: 1 to [`MAX_NAME`] of `a-z 0-9 . _ -`,
/// beginning with a letter or a digit.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    begins && name.len() <= MAX_NAME && name.bytes().all(known)
}

/// What the configuration says of queues.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueConfig {
    /// The settings of a queue of which nothing is said.
    pub defaults: Settings,
    /// The queues of which something is said.
    pub declared: BTreeMap<Arc<str>, Overrides>,
    /// No other queues may exist.
    pub fixed: bool,
}

impl QueueConfig {
    /// The configured settings of `queue`.
    #[must_use]
    pub fn settings(&self, queue: &str) -> Settings {
        self.declared.get(queue).map_or(self.defaults, |declared| declared.over(self.defaults))
    }

    /// Where the configuration differs from the built-in defaults for `queue`, or says
    /// something of it.
    #[must_use]
    pub fn configured(&self, queue: &str) -> Vec<Field> {
        let (own, defaults) = (self.declared.get(queue), Settings::default());
        let is_configured = |field: &Field| {
            own.is_some_and(|own| own.has(*field)) || self.defaults.differs(&defaults, *field)
        };
        Field::ALL.into_iter().filter(is_configured).collect()
    }

    /// Whether `queue` may exist.
    #[must_use]
    pub fn allows(&self, queue: &str) -> bool {
        !self.fixed || self.declared.contains_key(queue)
    }
}

/// How many tasks of a queue stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wait for their due time.
    pub scheduled: u64,
    /// Wait for a worker.
    pub queued: u64,
    /// Are being executed.
    pub running: u64,
    /// Have ended with a result, and are kept.
    pub succeeded: u64,
    /// Have ended in failure, and are kept.
    pub failed: u64,
    /// Were cancelled, and are kept.
    pub cancelled: u64,
}

impl Counts {
    /// Tasks that have not ended.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.scheduled + self.queued + self.running
    }

    /// Tasks that have ended and are kept.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            scheduled: self.scheduled + other.scheduled,
            queued: self.queued + other.queued,
            running: self.running + other.running,
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
        }
    }
}

/// What holds back the tasks of a queue that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// It is paused.
    Paused,
    /// As many run as may.
    MaxRunning,
    /// The rate holds the next start back.
    RateLimit,
    /// Nothing starts any more in this process.
    Draining,
}
