//! What went through: rates and means, weighted towards the present.

use std::time::{Duration, Instant};

use crate::store::Flow;

/// The time constant: what happened so long ago counts 1/e of what happens now.
const WINDOW: Duration = Duration::from_mins(1);

/// Sums that decay exponentially. They decay once in a group, whose commands all
/// happen at one moment, so that counting costs an addition.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    at: Instant,
    arrivals: f64,
    completions: f64,
    service_seconds: f64,
    service_squares: f64,
    starts: f64,
    wait_seconds: f64,
    /// Executions under way, and the time that they take.
    running: f64,
    busy_seconds: f64,
    /// Arrivals in the present second, since when, and the squares of earlier ones.
    second: f64,
    second_began: Instant,
    arrival_squares: f64,
}

/// How long a part of the time is whose arrivals are counted together.
const SECOND: Duration = Duration::from_secs(1);

impl Meter {
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            at: now,
            arrivals: 0.0,
            completions: 0.0,
            service_seconds: 0.0,
            service_squares: 0.0,
            starts: 0.0,
            wait_seconds: 0.0,
            running: 0.0,
            busy_seconds: 0.0,
            second: 0.0,
            second_began: now,
            arrival_squares: 0.0,
        }
    }

    /// A task became due.
    pub fn arrived(&mut self, now: Instant) {
        self.decay(now);
        self.arrivals += 1.0;
        self.second += 1.0;
    }

    /// A task started that had been due for so long.
    pub fn started(&mut self, now: Instant, waited: Duration) {
        self.decay(now);
        self.starts += 1.0;
        self.wait_seconds += waited.as_secs_f64();
        self.running += 1.0;
    }

    /// An execution ended that ran for so long; `None` if it was another process's.
    pub fn ended(&mut self, now: Instant, ran: Option<Duration>) {
        let Some(ran) = ran else { return };
        self.decay(now);
        self.running = (self.running - 1.0).max(0.0);
        self.completions += 1.0;
        self.service_seconds += ran.as_secs_f64();
        self.service_squares += ran.as_secs_f64().powi(2);
    }

    /// What it has measured.
    pub fn flow(&mut self, now: Instant) -> Flow {
        self.decay(now);
        // What a steady rate of one per second would have summed up to by now.
        let age = now.saturating_duration_since(self.began).div_duration_f64(WINDOW);
        let full = (WINDOW.as_secs_f64() * -(-age).exp_m1()).max(1e-3);
        let arrival_rate = self.arrivals / full;
        let squares = (self.arrival_squares + self.second.powi(2)) / full;
        let mean_square = self.service_squares / self.completions;
        let mean_service = mean(self.service_seconds, self.completions);
        let variation = mean_service
            .map(|mean| mean_square / mean.as_secs_f64().powi(2) - 1.0)
            .filter(|variation| variation.is_finite());
        Flow {
            arrival_rate,
            completion_rate: self.completions / full,
            mean_service,
            mean_wait: mean(self.wait_seconds, self.starts),
            mean_running: self.busy_seconds / full,
            completions: self.completions,
            service_variation: variation.map(|variation| variation.max(0.0)),
            arrival_dispersion: mean(1.0, self.arrivals)
                .map(|_| (squares / arrival_rate - arrival_rate).max(0.0)),
        }
    }

    fn decay(&mut self, now: Instant) {
        if now <= self.at {
            return;
        }
        self.count_second(now);
        let age = now.duration_since(self.at).div_duration_f64(WINDOW);
        let factor = (-age).exp();
        self.at = now;
        for sum in [
            &mut self.arrivals,
            &mut self.completions,
            &mut self.service_seconds,
            &mut self.service_squares,
            &mut self.arrival_squares,
            &mut self.starts,
            &mut self.wait_seconds,
            &mut self.busy_seconds,
        ] {
            *sum *= factor;
        }
        // What has run since then, each moment weighted by its age.
        self.busy_seconds += self.running * WINDOW.as_secs_f64() * -(-age).exp_m1();
    }
}

impl Meter {
    /// Ends the second whose arrivals were counted, if it is over.
    fn count_second(&mut self, now: Instant) {
        if now.saturating_duration_since(self.second_began) >= SECOND {
            self.arrival_squares += self.second.powi(2);
            self.second = 0.0;
            self.second_began = now;
        }
    }
}

/// `None` when what was measured is too long ago to mean anything.
fn mean(sum: f64, count: f64) -> Option<Duration> {
    const FAINT: f64 = 1e-6;
    if count < FAINT { None } else { Duration::try_from_secs_f64(sum / count).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(began: Instant, seconds: f64) -> Instant {
        began + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_steady_rate_is_told_from_the_first_seconds_on() {
        let began = Instant::now();
        let mut meter = Meter::new(began);
        for second in 0..300 {
            for _ in 0..10 {
                meter.arrived(after(began, f64::from(second) + 0.5));
            }
            if [5, 60, 299].contains(&second) {
                let rate = meter.flow(after(began, f64::from(second) + 1.0)).arrival_rate;
                assert!((9.5..10.5).contains(&rate), "after {second} s: {rate}");
            }
        }
    }

    #[test]
    fn the_present_counts_more_than_the_past() {
        let began = Instant::now();
        let mut meter = Meter::new(began);
        let (slow, fast) = (Duration::from_secs(10), Duration::from_secs(1));
        for second in 0..120 {
            meter.ended(after(began, f64::from(second)), Some(slow));
            meter.started(after(began, f64::from(second)), slow);
        }
        for second in 120..300 {
            meter.ended(after(began, f64::from(second)), Some(fast));
            meter.started(after(began, f64::from(second)), fast);
        }
        let flow = meter.flow(after(began, 300.0));
        let service = flow.mean_service.expect("measured").as_secs_f64();
        assert!((1.0..1.6).contains(&service), "{service}: 180 s are three windows");
        assert_eq!(flow.mean_service, flow.mean_wait);
    }

    #[test]
    fn what_runs_counts_before_it_ends() {
        let began = Instant::now();
        let mut meter = Meter::new(began);
        for _ in 0..4 {
            meter.started(began, Duration::ZERO);
        }
        for seconds in [1.0, 10.0, 100.0] {
            let running = meter.flow(after(began, seconds)).mean_running;
            assert!((3.99..4.01).contains(&running), "after {seconds} s: {running}");
        }
        for _ in 0..4 {
            meter.ended(after(began, 100.0), Some(Duration::from_secs(100)));
        }
        let rested = meter.flow(after(began, 160.0)).mean_running;
        assert!((1.0..2.0).contains(&rested), "4/e a window later, and a bit more: {rested}");
    }

    #[test]
    fn nothing_measured_is_no_mean() {
        let began = Instant::now();
        let mut meter = Meter::new(began);
        assert_eq!(meter.flow(began), Flow::default());
        meter.ended(began, Some(Duration::from_secs(1)));
        let flow = meter.flow(after(began, 3600.0));
        assert_eq!(flow.mean_service, None, "an hour later");
        assert!(flow.completion_rate < 1e-9, "{flow:?}");
    }
}
