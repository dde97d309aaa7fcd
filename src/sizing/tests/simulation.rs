//! The formulas against queues that are played through, event by event. Each
//! has a fixed seed; the tolerances are several standard errors wide.

use std::{cmp::Reverse, collections::BinaryHeap};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

/// A moment of a simulation, in seconds from its beginning.
#[derive(Clone, Copy, PartialEq)]
struct Moment(f64);

impl Eq for Moment {}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A span that is exponentially distributed, by inversion.
fn exponential(random: &mut StdRng, mean: f64) -> f64 {
    -mean * (1.0 - random.random::<f64>()).ln()
}

/// When each worker is free next, the soonest on top.
type Workers = BinaryHeap<Reverse<Moment>>;

/// The mean wait of tasks of a second, in the order of arrival.
fn simulated_wait(workers: u32, load: f64, seed: u64) -> f64 {
    const WARM_UP: u32 = 20_000;
    const MEASURED: u32 = 200_000;
    let mut random = StdRng::seed_from_u64(seed);
    let mut free: Workers = (0..workers).map(|_| Reverse(Moment(0.0))).collect();
    let (mut now, mut waited) = (0.0, 0.0);
    for task in 0..WARM_UP + MEASURED {
        now += exponential(&mut random, 1.0 / load);
        let Reverse(Moment(first)) = free.pop().expect("a worker");
        let start = first.max(now);
        free.push(Reverse(Moment(start + exponential(&mut random, 1.0))));
        if task >= WARM_UP {
            waited += start - now;
        }
    }
    waited / f64::from(MEASURED)
}

#[test]
fn the_mean_wait_is_what_a_simulated_crew_shows() {
    // The last column is the standard error of one simulation, as 30 other seeds
    // spread; their means were within 0.3 % of the formula. For one worker the
    // theory says the same (Daley, "The serial correlation coefficients of
    // waiting times in a stationary single server queue", 1968).
    let cases = [
        (1, 0.5, 0.011),
        (1, 0.8, 0.025),
        (2, 1.6, 0.028),
        (5, 4.0, 0.036),
        (10, 8.0, 0.046),
        (20, 17.0, 0.069),
    ];
    for (seed, (workers, load, error)) in (1..).zip(cases) {
        let simulated = simulated_wait(workers, load, seed);
        let expected = mean_wait(workers, &erlangs(load)).expect("it keeps up").as_secs_f64();
        let off = simulated / expected - 1.0;
        assert!(off.abs() < 3.0 * error, "M/M/{workers} at {load}: {simulated}, not {expected}");
    }
}

/// When the task after `queued` others starts, if workers that are all busy take
/// `own` of every `of` tasks from its queue, the others first; mean of many
/// runs.
fn simulated_backlog(workers: u32, queued: u32, own: u32, of: u32) -> f64 {
    const RUNS: u32 = 2_000;
    let mut random = StdRng::seed_from_u64(7);
    let mut total = 0.0;
    for _ in 0..RUNS {
        let mut free: Workers =
            (0..workers).map(|_| Reverse(Moment(exponential(&mut random, 1.0)))).collect();
        let mut ahead = queued;
        for turn in 0.. {
            let Reverse(Moment(now)) = free.pop().expect("a worker");
            if turn % of >= of - own {
                if ahead == 0 {
                    total += now;
                    break;
                }
                ahead -= 1;
            }
            free.push(Reverse(Moment(now + exponential(&mut random, 1.0))));
        }
    }
    total / f64::from(RUNS)
}

/// A queue of so many tasks, and a crew that is busy with tasks of a second.
fn backlog(workers: u32, queued: u32) -> (QueueView, CrewView) {
    let mean_service = Some(Duration::from_secs(1));
    let crew = CrewView { workers, idle: 0, mean_service };
    let queued = queued.into();
    (QueueView { queued, weight: 1, mean_service, ..QueueView::default() }, crew)
}

fn assert_near(told: Option<Duration>, simulated: f64) {
    let told = told.expect("measured").as_secs_f64();
    // One standard error is at most 2.3 %, where nothing is ahead.
    assert!((told / simulated - 1.0).abs() < 0.06, "told {told}, simulated {simulated}");
}

#[test]
fn a_backlog_takes_as_long_as_a_simulated_one() {
    for (workers, queued) in [(1, 0), (1, 20), (4, 0), (4, 100), (32, 200)] {
        let (queue, crew) = backlog(workers, queued);
        assert_near(wait_now(&queue, &[], &crew), simulated_backlog(workers, queued, 1, 1));
    }
}

#[test]
fn a_backlog_beside_a_heavier_one_takes_as_long_as_a_simulated_one() {
    let (queue, crew) = backlog(8, 50);
    let rival = QueueView { queued: 1_000, weight: 3, ..queue };
    assert_near(wait_now(&queue, &[rival], &crew), simulated_backlog(8, 50, 1, 4));
    let rival = QueueView { queued: 1_000, weight: 1, ..queue };
    let heavy = QueueView { weight: 3, ..queue };
    assert_near(wait_now(&heavy, &[rival], &crew), simulated_backlog(8, 50, 3, 4));
}

#[test]
fn a_limited_backlog_takes_as_long_as_that_of_a_smaller_crew() {
    let (queue, crew) = backlog(16, 40);
    let limited = QueueView { running: 3, max_running: Some(3), ..queue };
    let crew = CrewView { idle: 13, ..crew };
    assert_near(wait_now(&limited, &[], &crew), simulated_backlog(3, 40, 1, 1));
}
