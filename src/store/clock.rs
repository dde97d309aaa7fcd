//! What time it is: for the store's own decisions, which nobody outside sees.
//!
//! Due times are of the wall clock, which may step. Intervals (a delay, a
//! backoff) are measured by a steady clock, which does not. It begins with the
//! wall clock of the process's start, because only that outlives a process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Instant, SystemTime},
};

use super::ready::Moment;
use crate::task::Timestamp;

/// The system's wall clock. A test can let it step.
#[derive(Clone, Debug, Default)]
pub struct WallClock {
    /// Microseconds by which it is ahead of the system's.
    ahead: Arc<AtomicI64>,
}

impl WallClock {
    /// A clock that is ahead of the system's by as many microseconds as `ahead`
    /// has at the moment.
    #[must_use]
    pub fn ahead_by(ahead: Arc<AtomicI64>) -> Self {
        Self { ahead }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = Timestamp::default().after(since_epoch.unwrap_or_default());
        Timestamp(now.0.saturating_add(self.ahead.load(Ordering::Relaxed)))
    }
}

/// Both clocks.
#[derive(Debug)]
pub struct Clock {
    wall: WallClock,
    began: Instant,
    began_at: Timestamp,
}

impl Clock {
    pub fn new(wall: WallClock) -> Self {
        let began_at = wall.now();
        Self { wall, began: Instant::now(), began_at }
    }

    /// When the process began.
    pub fn began_at(&self) -> Timestamp {
        self.began_at
    }

    /// Now, by both.
    pub fn moment(&self) -> Moment {
        let instant = Instant::now();
        let steady = self.began_at.after(instant.duration_since(self.began));
        Moment { wall: self.wall.now(), steady, instant }
    }
}
