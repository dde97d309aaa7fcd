//! How large the pool should be.
//!
//! Owns the arithmetic of waiting: how long tasks wait on average for a load and
//! a pool of some size ([`mean_wait`]), which pool holds a wait that someone
//! wants ([`workers_for`]), and how long a task submitted now would wait
//! ([`forecast`]). Pure: must not know clocks, I/O or any other module; whoever
//! measures hands the figures in.
//!
//! The averages are those of the queue M/M/c: tasks arrive independently of each
//! other (a Poisson process), their service times are exponentially distributed,
//! `c` workers take them in the order of arrival, and any number may wait. What
//! it assumes decides how far to trust it:
//!
//! - Bursts, such as a batch every minute, wait longer than it says, and so does a mix of
//!   very short and very long tasks; service times that vary less than exponential ones wait
//!   less, down to about half if all are equal. [`Load::variability`] accounts for both, as
//!   far as they are mild.
//! - It speaks of the long run at a steady load. A pool that is nearly fully
//!   busy takes long to get there; one that cannot keep up never does.
//! - Priorities change who waits, but not how long all wait on average.
//!
//! Sources: A. K. Erlang, "Solution of some Problems in the Theory of
//! Probabilities of Significance in Automatic Telephone Exchanges", 1917;
//! R. B. Cooper, "Introduction to Queueing Theory", second edition, 1981,
//! chapter 3.

pub mod forecast;

use std::time::Duration;

/// Workers that a pool may have; a larger number counts as this one.
pub const MAX_WORKERS: u32 = 10_000;

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Tasks per second on the long run. A negative rate counts as none; with
    /// one that is not a number or infinite, no pool can keep up.
    pub arrival_rate: f64,
    /// How long a task keeps its worker on average. If that is zero, no rate is
    /// too high.
    pub mean_service: Duration,
    /// How much more unevenly tasks come and take than the model assumes: the mean of the
    /// squared coefficients of variation of the times between arrivals and of the service
    /// times. 1 is the model; waits are in proportion to it (Allen and Cunneen's
    /// approximation: A. O. Allen, "Probability, Statistics, and Queueing Theory", 1978).
    pub variability: f64,
}

/// The load in erlangs: how many workers are busy on average if the pool can
/// keep up. Not a number if the rate is not.
#[must_use]
pub fn offered_load(load: &Load) -> f64 {
    if load.mean_service.is_zero() {
        return 0.0;
    }
    let erlangs = load.arrival_rate * load.mean_service.as_secs_f64();
    // Not `max`, which would make a number of what is none.
    if erlangs < 0.0 { 0.0 } else { erlangs }
}

/// The probability that a task finds all workers busy and has to wait: Erlang's
/// delay formula, "Erlang C". It is 1 if the pool cannot keep up, as an empty
/// one never does.
#[must_use]
pub fn wait_probability(workers: u32, load: &Load) -> f64 {
    let erlangs = offered_load(load);
    let workers = workers.min(MAX_WORKERS);
    if !keeps_up(workers, erlangs) {
        return 1.0;
    }
    delayed(workers, erlangs, blocked(workers, erlangs))
}

/// How long a task waits on average for its start. `None` if the pool cannot
/// keep up, so that the wait grows without bound, or if it is beyond what a
/// [`Duration`] holds.
#[must_use]
pub fn mean_wait(workers: u32, load: &Load) -> Option<Duration> {
    let erlangs = offered_load(load);
    let workers = workers.min(MAX_WORKERS);
    if !keeps_up(workers, erlangs) {
        return None;
    }
    wait(workers, erlangs, blocked(workers, erlangs), load)
}

/// The fewest workers, at least one, that hold a mean wait of at most `target`;
/// `None` if even [`MAX_WORKERS`] do not. A wait under half a nanosecond counts
/// as none.
#[must_use]
pub fn workers_for(target: Duration, load: &Load) -> Option<u32> {
    let erlangs = offered_load(load);
    if !keeps_up(MAX_WORKERS, erlangs) {
        return None;
    }
    // One pass: the recursion yields the loss of every smaller pool on its way.
    let mut loss = 1.0;
    (1..=MAX_WORKERS).find(|&workers| {
        loss = next_blocked(loss, workers, erlangs);
        keeps_up(workers, erlangs)
            && wait(workers, erlangs, loss, load).is_some_and(|wait| wait <= target)
    })
}

/// Whether the wait has a bound. Not so if `erlangs` is not a number.
fn keeps_up(workers: u32, erlangs: f64) -> bool {
    f64::from(workers) > erlangs
}

/// Erlang's loss formula, "Erlang B": the probability of finding all workers
/// busy if those who do are turned away.
fn blocked(workers: u32, erlangs: f64) -> f64 {
    (1..=workers).fold(1.0, |loss, workers| next_blocked(loss, workers, erlangs))
}

/// The loss of `workers` from that of one fewer. Adds and multiplies positive
/// numbers that are at most `erlangs + workers`, so nothing cancels or overflows,
/// unlike the sums of powers over factorials in the formula itself; a loss too
/// small for a float becomes zero.
fn next_blocked(loss: f64, workers: u32, erlangs: f64) -> f64 {
    let turned_away = erlangs * loss;
    turned_away / (f64::from(workers) + turned_away)
}

/// Erlang C from Erlang B, for a pool that keeps up: `n B / (n - a (1 - B))`.
fn delayed(workers: u32, erlangs: f64, loss: f64) -> f64 {
    let spare = f64::from(workers) - erlangs;
    f64::from(workers) * loss / (spare + erlangs * loss)
}

/// The mean wait, for a pool that keeps up: whoever is delayed waits on average
/// for as long as the spare workers would take to serve one task.
fn wait(workers: u32, erlangs: f64, loss: f64, load: &Load) -> Option<Duration> {
    let spare = f64::from(workers) - erlangs;
    let seconds = delayed(workers, erlangs, loss) * load.mean_service.as_secs_f64() / spare;
    let seconds = seconds * load.variability;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests;
