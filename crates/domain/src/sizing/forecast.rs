//! How long a task submitted now would wait, from how the queues stand.
//!
//! Owns the forecast, and the decision whether it is sure enough to be told. It
//! plays through what the scheduler would do with the tasks that wait and run
//! now, several times, each time with service times that are drawn anew from
//! those that were seen (a bootstrap: Efron, "Bootstrap Methods: Another Look at
//! the Jackknife", 1979). What the runs agree on is told; where they disagree,
//! nothing is. Must not know where its figures come from.
//!
//! What it assumes: queues share the starts by weight, a task takes as long as
//! tasks of its class took lately, and tasks of other queues arrive at the rates
//! that were measured, evenly. An execution that has lasted for longer than all
//! that were seen of its class may end at once or go on as long again: it is as
//! likely as not to last for twice the time that it has taken.

mod play;

use std::time::Duration;

use play::Play;
use rand::{SeedableRng as _, rngs::StdRng};

/// The longest wait that is told; beyond it a forecast means nothing.
pub const LONGEST_WAIT: Duration = Duration::from_hours(365 * 24);

/// How often the future is played through; less often if there are very many queues.
const RUNS: usize = 32;
const FEWEST_RUNS: usize = 8;
/// Queues that all runs together play through.
const MAX_PLAYED: usize = 32_000;
/// Waits are compared after this was added to each: nobody minds whether a task waits
/// 1 ms or 3 ms.
const SLACK_SECONDS: f64 = 0.005;
/// A forecast is told if nine runs in ten are within this factor of the middle one. Less
/// than the factor of 2 that a forecast is to hold, as the future is none of the runs.
const AGREEMENT: f64 = 1.7;
/// Standard deviations within which nine values in ten of a normal distribution are.
const NINE_IN_TEN: f64 = 1.645;

/// Everything that waits and runs.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// Workers in all.
    pub workers: u32,
    /// Sorts of tasks that take about as long as each other.
    pub classes: Vec<Class>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// The executions under way, at most one for each worker.
    pub running: Vec<Running>,
}

/// Tasks that are expected to take about as long as each other: of one queue and kind.
#[derive(Clone, Debug, Default)]
pub struct Class {
    /// For how many seconds its latest executions kept their workers.
    pub seconds: Vec<f32>,
}

/// A queue as it stands.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Due tasks that start before one that is submitted now with the usual priority, by
    /// the number of their class.
    pub ahead: Vec<(usize, u64)>,
    /// Due tasks that start after it.
    pub behind: Vec<(usize, u64)>,
    /// Its share of the starts beside other queues that have tasks waiting; zero
    /// counts as 1.
    pub weight: u32,
    /// Tasks of it that may run at a time.
    pub max_running: Option<u32>,
    /// Tasks of it that may start per second, on the long run.
    pub rate_per_second: Option<f64>,
    /// Tasks of it that become due per second.
    pub arrival_rate: f64,
    /// The classes of its tasks, of each of which some may arrive.
    pub classes: Vec<usize>,
    /// Nothing of it starts, whoever is idle: it is paused, or the server drains.
    pub blocked: bool,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            ahead: Vec::new(),
            behind: Vec::new(),
            weight: 1,
            max_running: None,
            rate_per_second: None,
            arrival_rate: 0.0,
            classes: Vec::new(),
            blocked: false,
        }
    }
}

/// An execution under way.
#[derive(Clone, Copy, Debug)]
pub struct Running {
    /// The number of its queue.
    pub queue: usize,
    /// The number of its class.
    pub class: usize,
    /// For how many seconds it has kept its worker.
    pub seconds: f64,
}

/// How long a task of the usual priority that is submitted now would wait for its start,
/// for each queue, if things go on as they do.
///
/// `None` if nothing of the queue can start, or if what was seen does not tell: the middle
/// one of the runs is told only if nine in ten are within a factor of 1.7 of it. At most
/// [`LONGEST_WAIT`].
///
/// Takes some milliseconds for a hundred workers and a thousand queues, however many tasks
/// wait.
#[must_use]
pub fn waits(situation: &Situation) -> Vec<Option<Duration>> {
    let runs = MAX_PLAYED / situation.queues.len().max(1);
    let runs: Vec<Vec<Option<f64>>> = (0..runs.clamp(FEWEST_RUNS, RUNS) as u64)
        // The same situation has the same forecast.
        .map(|run| Play::new(situation, StdRng::seed_from_u64(run)).waits())
        .collect();
    (0..situation.queues.len()).map(|queue| agreed(runs.iter().map(|run| run[queue]))).collect()
}

/// The middle of the runs' waits, in seconds, if they agree.
fn agreed(waits: impl Iterator<Item = Option<f64>>) -> Option<Duration> {
    let mut waits = waits.collect::<Option<Vec<f64>>>()?;
    waits.sort_by(f64::total_cmp);
    let logs = || waits.iter().map(|wait| (wait + SLACK_SECONDS).ln());
    #[expect(clippy::cast_precision_loss, reason = "there are 32")]
    let count = waits.len() as f64;
    let mean = logs().sum::<f64>() / count;
    let variance = logs().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    if variance.sqrt() * NINE_IN_TEN > AGREEMENT.ln() {
        return None;
    }
    let middle = waits[waits.len() / 2];
    let told = Duration::try_from_secs_f64(middle).unwrap_or(LONGEST_WAIT);
    Some(told.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests;
