//! When a stream has been silent for long enough to say that it lives.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep};

/// Fires when nothing was sent for an interval. A message costs a look at the
/// clock and no timer: the timer is set anew only when it fires too early.
pub struct HeartbeatTimer {
    interval: Duration,
    sent: Instant,
    timer: Pin<Box<Sleep>>,
}

impl HeartbeatTimer {
    /// As if something was sent now.
    pub fn new(interval: Duration) -> Self {
        let sent = Instant::now();
        Self { interval, sent, timer: Box::pin(tokio::time::sleep_until(sent + interval)) }
    }

    /// Something was sent.
    pub fn sent(&mut self) {
        self.sent = Instant::now();
    }

    /// Whether nothing was sent for the interval.
    pub fn is_due(&self) -> bool {
        self.sent.elapsed() >= self.interval
    }

    /// Returns when nothing was sent for the interval. Dropping the future loses
    /// nothing.
    pub async fn silence(&mut self) {
        loop {
            self.timer.as_mut().await;
            let due = self.sent + self.interval;
            if due <= Instant::now() {
                return;
            }
            self.timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fires_once_nothing_was_sent_for_the_interval() {
        let interval = Duration::from_secs(10);
        let (began, mut timer) = (Instant::now(), HeartbeatTimer::new(interval));
        let mut heartbeats = Vec::new();
        tokio::time::advance(Duration::from_secs(7)).await;
        timer.sent();
        for _ in 0..3 {
            timer.silence().await;
            heartbeats.push(began.elapsed().as_secs());
            timer.sent();
        }
        assert_eq!(heartbeats, [17, 27, 37]);
    }
}
