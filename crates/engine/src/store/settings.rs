//! What an operator decides about a store.

use std::{path::PathBuf, time::Duration};

use super::WallClock;

/// Where a store is and how it behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory; made if need be.
    pub data_dir: PathBuf,
    /// What an OK answer survives.
    pub durability: Durability,
    /// Crashes in a row that fail a task, at least 1.
    pub max_crashes: u32,
    /// Bytes that are to be free on the disk for a new task to be taken; 0 for none.
    pub disk_reserve: u64,
    /// What is kept of what has ended, and for how long.
    pub retention: Retention,
    /// Bytes that the write-ahead log may have.
    pub max_log: u64,
    /// To start although durable commits are lost, with what is whole; what is damaged is
    /// kept beside it.
    pub accept_loss: bool,
    /// The clock by which tasks become due.
    pub clock: WallClock,
}

/// What an OK answer survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// kill -9, a kernel crash and a power cut: fsync before the answer.
    #[default]
    Fsync,
    /// kill -9: written to the operating system before the answer.
    Os,
    /// Nothing: kept in memory only. For tests and experiments.
    Memory,
}

/// What is kept of what has ended, and for how long. Whichever bound is reached
/// first counts; the oldest goes first, in small steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long a task that has SUCCEEDED or was CANCELLED is kept, with its
    /// result and its `request_id`: up to 10 years. Default 24 hours.
    pub finished: Duration,
    /// How long a task that has FAILED is kept: up to 10 years. Default 7 days.
    pub failed: Duration,
    /// Ended tasks that are kept, and as many that have FAILED: 0 to 1,000,000,000.
    /// Default 1,000,000.
    pub max_finished: u64,
    /// Bytes of ended tasks and their results that are kept, and as many of those that
    /// have FAILED: 1 MiB to 1 PiB.
    /// Default 10 GiB.
    pub max_finished_bytes: u64,
    /// How long events are kept: up to 10 years. Default 24 hours.
    pub events: Duration,
    /// Events that are kept: 1,000 to 100,000,000,000. Default 10,000,000.
    pub max_events: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            finished: Duration::from_hours(24),
            failed: Duration::from_hours(168),
            max_finished: 1_000_000,
            max_finished_bytes: 10 << 30,
            events: Duration::from_hours(24),
            max_events: 10_000_000,
        }
    }
}
