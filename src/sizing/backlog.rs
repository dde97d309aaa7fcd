//! How long a task submitted now would wait, from how the queues stand.

use std::time::Duration;

/// The longest wait that is told; beyond it an estimate means nothing.
pub const LONGEST_WAIT: Duration = Duration::from_hours(365 * 24);

/// A queue as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueView {
    /// Tasks that are due and wait for a worker.
    pub queued: u64,
    /// Tasks that run.
    pub running: u64,
    /// Its share of the starts beside other queues that have tasks waiting; zero
    /// counts as 1.
    pub weight: u32,
    /// Tasks of it that may run at a time.
    pub max_running: Option<u32>,
    /// Tasks of it that may start per second, on the long run.
    pub rate_per_second: Option<f64>,
    /// How long its tasks ran on average, if any was seen to end.
    pub mean_service: Option<Duration>,
    /// Nothing of it starts, whoever is idle: it is paused, or the server drains.
    /// Not so for a queue that only its own limits hold back.
    pub blocked: bool,
}

/// The crew as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrewView {
    /// Workers in all.
    pub workers: u32,
    /// Workers that wait for a task.
    pub idle: u32,
    /// How long tasks of all queues ran on average, if any was seen to end.
    pub mean_service: Option<Duration>,
}

/// How long a task submitted now to `queue` would wait for its start, if things
/// go on as they do; `others` are all other queues.
///
/// Zero if a worker is idle, nothing of the queue waits and no limit of it holds
/// it back. A rate shows only in tasks that wait for it: that the latest start
/// has just emptied the bucket cannot be seen here.
///
/// Otherwise the tasks ahead of it, and itself, over the rate at which the
/// queue's tasks start. That is the queue's share of what the crew completes,
/// beside the other queues with waiting tasks: by weight, except that what a
/// queue cannot use because of its own limits goes to the rest ("water-filling";
/// the max-min fairness of Bertsekas and Gallager, "Data Networks", second
/// edition, 1992, section 6.5, with weights). It is bounded by the queue's own
/// limits. Assumes that the task's priority is the usual one, and that the
/// backlogs of the other queues last as long as this one's.
///
/// `None` if nothing of the queue can start, or if workers are busy and nothing
/// was measured. At most [`LONGEST_WAIT`].
#[must_use]
pub fn wait_now(queue: &QueueView, others: &[QueueView], crew: &CrewView) -> Option<Duration> {
    let typical = typical(queue, crew);
    wait(queue, &Rivals::of(others, typical), weight(queue), crew)
}

/// All queues, to tell the wait of each: one sort for all of them.
#[derive(Clone, Debug)]
pub struct Backlog {
    rivals: Rivals,
    crew: CrewView,
}

impl Backlog {
    /// The queues as they stand.
    #[must_use]
    pub fn of(queues: &[QueueView], crew: CrewView) -> Self {
        Self { rivals: Rivals::of(queues, crew.mean_service), crew }
    }

    /// [`wait_now`] of a queue that is one of them, beside all others. Only where
    /// the crew has no mean service, though a queue has one, may it differ: limits
    /// of others that cannot be told count as none then.
    #[must_use]
    pub fn wait_now(&self, queue: &QueueView) -> Option<Duration> {
        // A rival is among them with its own limits. Those change what it gets only
        // if they are below its share, and then they decide in the end, too.
        let more_weight = if is_rival(queue) { 0.0 } else { weight(queue) };
        wait(queue, &self.rivals, more_weight, &self.crew)
    }
}

/// How long tasks run, if it was measured.
fn typical(queue: &QueueView, crew: &CrewView) -> Option<Duration> {
    crew.mean_service.or(queue.mean_service)
}

/// How long a task of `queue` waits beside `rivals`, when they are joined by one of
/// `more_weight`.
fn wait(queue: &QueueView, rivals: &Rivals, more_weight: f64, crew: &CrewView) -> Option<Duration> {
    if queue.blocked || crew.workers == 0 {
        return None;
    }
    let at_limit = queue.max_running.is_some_and(|limit| queue.running >= u64::from(limit));
    if crew.idle > 0 && queue.queued == 0 && !at_limit {
        return Some(Duration::ZERO);
    }
    let typical = typical(queue, crew);
    let share = typical.map(|service| {
        let completed = f64::from(crew.workers) / service.as_secs_f64();
        rivals.level(completed, more_weight) * weight(queue)
    });
    let starts = match (share, limit(queue, typical)) {
        (Some(share), limit) => share.min(limit),
        // While a worker is idle, only the queue's own limits hold it back.
        (None, limit) if crew.idle > 0 && !at_limit && limit.is_finite() => limit,
        (None, _) => return None,
    };
    (starts > 0.0).then(|| time_for(queue.queued, starts))
}

/// Whether a queue takes its share from others.
fn is_rival(queue: &QueueView) -> bool {
    queue.queued > 0 && !queue.blocked
}

/// Queues that share what the crew completes.
#[derive(Clone, Debug)]
struct Rivals {
    /// Those with limits, the most limited for its weight first: what it leaves,
    /// the next ones share.
    limited: Vec<Limited>,
    /// What all of them weigh, and what those with limits do and may take.
    weights: f64,
    all_limited: (f64, f64),
}

#[derive(Clone, Copy, Debug)]
struct Limited {
    weight: f64,
    limit: f64,
    /// The weight and the limits of all before it.
    before: (f64, f64),
}

impl Rivals {
    fn of(queues: &[QueueView], typical: Option<Duration>) -> Self {
        let rivals = queues.iter().filter(|queue| is_rival(queue));
        let rivals = rivals.map(|queue| (weight(queue), limit(queue, typical)));
        let (mut limited, mut weights) = (Vec::new(), 0.0);
        for (weight, limit) in rivals {
            weights += weight;
            if limit.is_finite() {
                limited.push(Limited { weight, limit, before: (0.0, 0.0) });
            }
        }
        limited.sort_by(|a, b| (a.limit / a.weight).total_cmp(&(b.limit / b.weight)));
        let mut before = (0.0, 0.0_f64);
        for rival in &mut limited {
            rival.before = before;
            // Not infinite, or what is left of something infinite would be no number.
            before = (before.0 + rival.weight, (before.1 + rival.limit).min(f64::MAX));
        }
        Self { limited, weights, all_limited: before }
    }

    /// The starts per second for each unit of weight, of `completed` in all, that go
    /// to whoever is not limited, when one of `more_weight` joins who is not.
    /// Infinite if limits hold everybody back.
    fn level(&self, completed: f64, more_weight: f64) -> f64 {
        let weights = self.weights + more_weight;
        // Once a limit is no less than the level, neither are those that follow.
        let satisfied = self.limited.partition_point(|Limited { weight, limit, before }| {
            *limit < (completed - before.1) * weight / (weights - before.0)
        });
        let rest = self.limited.get(satisfied);
        let (weight, taken) = rest.map_or(self.all_limited, |rest| rest.before);
        let left = weights - weight;
        if left > 0.0 { (completed - taken) / left } else { f64::INFINITY }
    }
}

fn weight(queue: &QueueView) -> f64 {
    f64::from(queue.weight.max(1))
}

/// The starts per second that a queue's own limits allow, infinite if it has
/// none or they cannot be told. A rate that is not a number allows none.
fn limit(queue: &QueueView, typical: Option<Duration>) -> f64 {
    let by_rate = queue.rate_per_second.map_or(f64::INFINITY, |rate| rate.clamp(0.0, f64::MAX));
    let by_running = match (queue.max_running, queue.mean_service.or(typical)) {
        (Some(0), _) => 0.0,
        (Some(limit), Some(service)) => f64::from(limit) / service.as_secs_f64(),
        (None, _) | (_, None) => f64::INFINITY,
    };
    if by_rate.is_nan() { 0.0 } else { by_rate.min(by_running) }
}

/// How long it takes until `ahead` tasks and one more have started.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn time_for(ahead: u64, starts_per_second: f64) -> Duration {
    let seconds = (ahead as f64 + 1.0) / starts_per_second;
    Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
}
