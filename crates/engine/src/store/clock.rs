//! What time it is: for the store's own decisions, which nobody outside sees.
//!
//! Due times are of the wall clock, which may step. Intervals (a delay, a
//! backoff) are measured by a steady clock, which does not. It begins with the
//! wall clock of the process's start, because only that outlives a process.
//!
//! How old something is, and whether it is to be trimmed for it, is measured by the
//! store's [`Uptime`], which no step of a clock and no stop of the server moves: what
//! is young is never trimmed, whatever the wall clock says.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::ready::EngineTime;
use crate::task::Timestamp;

/// The system's wall clock. A test can let it step.
#[derive(Clone, Debug, Default)]
pub struct WallClock {
    /// Microseconds by which it is ahead of the system's.
    ahead: Arc<AtomicI64>,
    /// The time of a simulation, in microseconds, in place of the system's.
    by_hand: Option<Arc<AtomicI64>>,
}

/// When simulations begin, by the wall clock: late in 2019.
const SIMULATED: Duration = Duration::from_hours(50 * 365 * 24);

/// When simulations begin, by the clock that does not step.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

impl WallClock {
    /// A clock that is ahead of the system's by as many microseconds as `ahead`
    /// has at the moment.
    #[must_use]
    pub fn ahead_by(ahead: Arc<AtomicI64>) -> Self {
        Self { ahead, by_hand: None }
    }

    /// A clock that goes on only as somebody moves it: `by_hand` has microseconds.
    #[cfg(test)]
    pub(crate) fn by_hand(by_hand: Arc<AtomicI64>, ahead: Arc<AtomicI64>) -> Self {
        Self { ahead, by_hand: Some(by_hand) }
    }

    /// Now, by the clock that does not step.
    fn instant(&self) -> Instant {
        self.moved().map_or_else(Instant::now, |moved| *BEGINNING + moved)
    }

    /// How long a simulation has gone on, if this is one.
    fn moved(&self) -> Option<Duration> {
        let moved = self.by_hand.as_ref()?.load(Ordering::Relaxed);
        Some(Duration::from_micros(moved.unsigned_abs()))
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let since_epoch = self.moved().map_or_else(
            || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            |moved| SIMULATED + moved,
        );
        let now = Timestamp::default().after(since_epoch);
        Timestamp(now.0.saturating_add(self.ahead.load(Ordering::Relaxed)))
    }
}

/// How long something took: by the times that are shown of its beginning and its end,
/// so that there is one figure; by the clock that does not step, where the wall clock
/// has stepped in between.
pub fn span(shown: Duration, measured: Duration) -> Duration {
    // Two clocks drift apart, by a small part of what they measure.
    let drift = Duration::from_secs(1) + measured / 500;
    if shown.abs_diff(measured) <= drift { shown } else { measured }
}

/// How long a store has been running, over all process starts: microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub u64);

impl Uptime {
    /// This much later.
    pub fn after(self, span: Duration) -> Self {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// How much later than `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// All clocks.
#[derive(Debug)]
pub struct Clock {
    wall: WallClock,
    began: Instant,
    began_at: Timestamp,
    uptime_before: Uptime,
}

impl Clock {
    /// Of a process that begins now, on a store that has been running for so long.
    pub fn new(wall: WallClock, uptime_before: Uptime) -> Self {
        let (began, began_at) = (wall.instant(), wall.now());
        Self { wall, began, began_at, uptime_before }
    }

    /// How long the store had been running at this time.
    pub fn uptime(&self, now: &EngineTime) -> Uptime {
        self.uptime_before.after(now.instant.duration_since(self.began))
    }

    /// When the process began.
    pub fn began_at(&self) -> Timestamp {
        self.began_at
    }

    /// Lets time pass.
    pub fn sleep(&self, span: Duration) {
        match &self.wall.by_hand {
            None => thread::sleep(span),
            Some(by_hand) => {
                let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
                by_hand.fetch_add(micros, Ordering::Relaxed);
            }
        }
    }

    /// Now, by both.
    pub fn now(&self) -> EngineTime {
        let instant = self.wall.instant();
        let steady = self.began_at.after(instant.duration_since(self.began));
        EngineTime { wall: self.wall.now(), steady, instant }
    }
}
