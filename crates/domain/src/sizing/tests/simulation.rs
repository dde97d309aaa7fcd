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
fn the_mean_wait_is_what_a_simulated_pool_shows() {
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

#[test]
fn service_times_that_vary_otherwise_wait_as_a_simulated_pool_shows() {
    const TASKS: u32 = 200_000;
    // For one worker the scaling is exact: the formula of Pollaczek and Khinchine.
    let equal = Load { variability: 0.5, ..erlangs(0.8) };
    let mut random = StdRng::seed_from_u64(5);
    let (mut now, mut free, mut waited) = (0.0, 0.0_f64, 0.0);
    for _ in 0..TASKS {
        now += exponential(&mut random, 1.0 / 0.8);
        waited += (free - now).max(0.0);
        free = free.max(now) + 1.0;
    }
    let simulated = waited / f64::from(TASKS);
    let expected = mean_wait(1, &equal).expect("it keeps up").as_secs_f64();
    assert!((simulated / expected - 1.0).abs() < 0.1, "{simulated}, not {expected}");
}
