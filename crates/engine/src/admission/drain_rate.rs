//! How fast a queue drains, for the advice to those it has no room for.

use std::time::{Duration, Instant};

/// How many tasks leave a queue per second: an exponentially weighted average
/// over about [`DrainRate::WINDOW`].
#[derive(Debug)]
pub struct DrainRate {
    per_second: f64,
    at: Instant,
}

impl DrainRate {
    const WINDOW: Duration = Duration::from_secs(10);
    /// The advice when nothing has left for long, and its upper bound.
    pub const LONGEST: Duration = Duration::from_secs(30);
    pub const SHORTEST: Duration = Duration::from_millis(50);

    pub fn new(now: Instant) -> Self {
        Self { per_second: 0.0, at: now }
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn left(&mut self, tasks: u64, now: Instant) {
        self.per_second = self.decayed(now) + tasks as f64 / Self::WINDOW.as_secs_f64();
        self.at = now;
    }

    fn decayed(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        self.per_second * (-age / Self::WINDOW.as_secs_f64()).exp()
    }

    /// How long it takes until `tasks` more have left.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn time_for(&self, tasks: u64, now: Instant) -> Duration {
        let seconds = tasks as f64 / self.decayed(now);
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(Self::LONGEST)
            .clamp(Self::SHORTEST, Self::LONGEST)
    }
}
