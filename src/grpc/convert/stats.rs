//! How the service is doing, to messages, with advice on the size of the pool.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use super::{
    Checks, DAY, duration, humane,
    queues::{block, counts},
    timestamp,
};
use crate::{
    handler::Violation,
    pool,
    proto::v1,
    queue::Block,
    sizing::{
        self, Load,
        forecast::{self, Class, Queue, Running, Situation},
    },
    store::{ClassStatus, Flow, Overview, QueueStatus},
};

/// Queues that are told of.
const MAX_QUEUES: usize = 1_000;
const DEFAULT_TARGET: Duration = Duration::from_secs(1);
/// Executions from which something is concluded; fewer tell too little.
const ENOUGH_COMPLETIONS: f64 = 10.0;
/// The unevenness of arrivals up to which averages tell of them.
const MAX_DISPERSION: f64 = 10.0;

/// Checks which wait is to be held.
///
/// # Errors
/// What is wrong with it.
pub fn target_wait(given: Option<prost_types::Duration>) -> Result<Duration, Vec<Violation>> {
    let mut checks = Checks::default();
    let bounds = (Duration::from_millis(1), DAY);
    let target = checks.duration("target_wait", given, bounds).unwrap_or(DEFAULT_TARGET);
    checks.finish(target)
}

/// How the service is doing. Takes some milliseconds of computation when many queues have
/// tasks that wait.
pub fn stats(overview: Overview, pool: &pool::Status, target: Duration) -> v1::GetStatsResponse {
    let busy = pool.workers.iter().filter(|worker| worker.running.is_some()).count();
    let busy = u32::try_from(busy).unwrap_or(u32::MAX);
    let waits = forecast::waits(&situation(&overview, pool.size));
    let backlog = Backlog::of(&overview.queues, &waits);
    v1::GetStatsResponse {
        pool: Some(v1::PoolStats {
            workers: pool.size,
            busy_workers: busy,
            busy_share: share(&overview.flow, pool.size),
            arrival_rate: overview.flow.arrival_rate,
            completion_rate: overview.flow.completion_rate,
            mean_service: overview.flow.mean_service.map(duration),
            mean_wait: overview.flow.mean_wait.map(duration),
            counts: Some(counts(&overview.counts)),
        }),
        advice: Some(advice(&overview.flow, backlog, pool, target)),
        start_time: Some(timestamp(overview.since)),
        time: Some(timestamp(overview.now)),
        queues: queues(overview.queues, waits, pool.size),
    }
}

/// What the forecast is made from.
fn situation(overview: &Overview, workers: u32) -> Situation {
    let mut situation = Situation { workers, ..Situation::default() };
    situation.queues = overview.queues.iter().map(queue).collect();
    let places: HashMap<&str, usize> =
        overview.queues.iter().enumerate().map(|(at, queue)| (&*queue.name, at)).collect();
    for status in &overview.classes {
        let Some(&queue) = places.get(&*status.queue) else { continue };
        let ClassStatus { usual, lower, seconds, running, .. } = status;
        let class = situation.classes.len();
        situation.classes.push(Class { seconds: seconds.clone() });
        let running = running.iter().map(|seconds| Running { queue, class, seconds: *seconds });
        situation.running.extend(running);
        let queue = &mut situation.queues[queue];
        queue.classes.push(class);
        queue.ahead.push((class, *usual));
        queue.behind.push((class, *lower));
    }
    add_unclassed(&mut situation, &overview.queues);
    situation
}

/// Tasks of which nobody counts how many there are of each kind: there are too many kinds.
fn add_unclassed(situation: &mut Situation, statuses: &[QueueStatus]) {
    let unknown = situation.classes.len();
    for (queue, status) in situation.queues.iter_mut().zip(statuses) {
        let waiting = queue.ahead.iter().chain(&queue.behind).map(|(_, count)| count).sum();
        let others = status.counts.queued.saturating_sub(waiting);
        if others > 0 {
            queue.ahead.push((unknown, others));
            queue.classes.push(unknown);
        }
    }
    situation.classes.push(Class::default());
}

fn queue(status: &QueueStatus) -> Queue {
    Queue {
        weight: status.settings.weight,
        max_running: status.settings.max_running,
        rate_per_second: status.settings.rate.map(|rate| rate.per_second),
        arrival_rate: status.flow.arrival_rate,
        blocked: is_blocked(status),
        ..Queue::default()
    }
}

/// Nothing of it starts, whoever is idle. Not so if only its own limits hold it back.
fn is_blocked(queue: &QueueStatus) -> bool {
    matches!(queue.block, Some(Block::Paused | Block::Draining))
}

/// The part of the time of `workers` that was spent on what flows.
fn share(flow: &Flow, workers: u32) -> f64 {
    (flow.mean_running / f64::from(workers.max(1))).clamp(0.0, 1.0)
}

fn queues(
    all: Vec<QueueStatus>,
    waits: Vec<Option<Duration>>,
    workers: u32,
) -> Vec<v1::QueueStats> {
    let mut all: Vec<_> = all.into_iter().zip(waits).collect();
    if all.len() > MAX_QUEUES {
        all.sort_by_key(|(queue, _)| Reverse(queue.counts.live()));
        all.truncate(MAX_QUEUES);
        all.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    }
    all.iter().map(|(queue, wait)| queue_stats(queue, *wait, workers)).collect()
}

fn queue_stats(queue: &QueueStatus, wait_now: Option<Duration>, workers: u32) -> v1::QueueStats {
    v1::QueueStats {
        queue: queue.name.to_string(),
        arrival_rate: queue.flow.arrival_rate,
        completion_rate: queue.flow.completion_rate,
        mean_service: queue.flow.mean_service.map(duration),
        mean_wait: queue.flow.mean_wait.map(duration),
        busy_share: share(&queue.flow, workers),
        counts: Some(counts(&queue.counts)),
        wait_now: wait_now.map(duration),
        block: block(queue.block).into(),
    }
}

/// Tasks that wait for a worker, and not for somebody to resume their queue.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    tasks: u64,
    /// When the last of them starts, if that can be told.
    last_start: Option<Duration>,
}

impl Backlog {
    fn of(queues: &[QueueStatus], waits: &[Option<Duration>]) -> Self {
        let waiting = queues
            .iter()
            .zip(waits)
            .filter(|(queue, _)| !is_blocked(queue) && queue.counts.queued > 0);
        let tasks = waiting.clone().map(|(queue, _)| queue.counts.queued).sum();
        let last_start = waiting.map(|(_, wait)| *wait).collect::<Option<Vec<_>>>();
        Self { tasks, last_start: last_start.and_then(|waits| waits.into_iter().max()) }
    }

    /// What the averages do not know of: tasks that have come already, as after a crash. Told
    /// where the last of them starts later than the wait that is wanted.
    fn told(&self, target: Duration) -> Option<String> {
        let tasks = match self.tasks {
            0 => return None,
            1 => "1 task waits".into(),
            many => format!("{many} tasks wait"),
        };
        match self.last_start {
            Some(span) if span <= target => None,
            Some(span) if self.tasks == 1 => {
                Some(format!("{tasks} now, and starts in about {}", rounded(span)))
            }
            Some(span) => {
                Some(format!("{tasks} now, the last of which starts in about {}", rounded(span)))
            }
            None => Some(format!("{tasks} now")),
        }
    }
}

fn advice(
    flow: &Flow,
    backlog: Backlog,
    pool: &pool::Status,
    target: Duration,
) -> v1::SizingAdvice {
    let none = |why: String| {
        let told = [backlog.told(target), Some(why)].into_iter().flatten();
        v1::SizingAdvice {
            target_wait: Some(duration(target)),
            summary: told.collect::<Vec<_>>().join("; "),
            ..Default::default()
        }
    };
    let load = match load(flow) {
        Ok(load) => load,
        Err(Unknown::Thin) => return none(thin(pool)),
        Err(Unknown::Bursts) => {
            return none("tasks come in bursts, for which averages give no advice".into());
        }
    };
    let workers = pool.size;
    let advised = sizing::workers_for(target, &load);
    let expected = advised.and_then(|workers| sizing::mean_wait(workers, &load));
    let current = sizing::mean_wait(workers, &load);
    let offered_load = sizing::offered_load(&load);
    let summary = summary(offered_load, workers, current, advised, target);
    v1::SizingAdvice {
        target_wait: Some(duration(target)),
        workers: advised.unwrap_or(0),
        expected_wait: expected.map(duration),
        current_expected_wait: current.map(duration),
        wait_probability: sizing::wait_probability(workers, &load),
        offered_load,
        summary: match backlog.told(target) {
            Some(told) => format!("{told}; beside them, {summary}"),
            None => summary,
        },
    }
}

/// Why averages tell nothing.
#[derive(Clone, Copy, Debug)]
enum Unknown {
    /// Too few executions have ended.
    Thin,
    /// Tasks come too unevenly.
    Bursts,
}

fn load(flow: &Flow) -> Result<Load, Unknown> {
    let mean_service = flow.mean_service.filter(|_| flow.completions >= ENOUGH_COMPLETIONS);
    let mean_service = mean_service.ok_or(Unknown::Thin)?;
    let dispersion = flow.arrival_dispersion.unwrap_or(1.0);
    if dispersion > MAX_DISPERSION {
        return Err(Unknown::Bursts);
    }
    // What still runs tells of long executions before they end: by Little's law the
    // mean number that run is their rate times their length.
    let seen = Duration::try_from_secs_f64(flow.mean_running / flow.completion_rate);
    Ok(Load {
        arrival_rate: flow.arrival_rate,
        mean_service: mean_service.max(seen.unwrap_or_default()),
        variability: f64::midpoint(dispersion.max(1.0), flow.service_variation.unwrap_or(1.0)),
    })
}

/// Says that nothing can be said, and what can be seen all the same.
fn thin(status: &pool::Status) -> String {
    let running = status.workers.iter().filter_map(|worker| worker.running.as_ref());
    let longest = running.clone().map(|running| running.running_for).max();
    match longest {
        Some(longest) if running.count() >= status.size as usize => format!(
            "{} busy, the longest for {}; too few executions have ended lately for advice",
            match status.size {
                1 => "the only worker is".into(),
                workers => format!("all {workers} workers are"),
            },
            rounded(longest)
        ),
        _ => "too few executions have ended lately for advice".into(),
    }
}

fn summary(
    offered_load: f64,
    workers: u32,
    current: Option<Duration>,
    advised: Option<u32>,
    target: Duration,
) -> String {
    let now = match current {
        Some(wait) => format!("with {}, tasks wait {} on average", counted(workers), rounded(wait)),
        None if workers == 1 => "1 worker cannot keep up, and the wait grows".into(),
        None => format!("{workers} workers cannot keep up, and the wait grows"),
    };
    let then = match advised {
        Some(1) => format!("1 worker holds a mean wait of {}", humane(target)),
        Some(advised) => format!("{advised} workers hold a mean wait of {}", humane(target)),
        None => format!("more than {} would be needed", sizing::MAX_WORKERS),
    };
    format!("the load is {offered_load:.2} workers; {now}; {then}")
}

fn counted(workers: u32) -> String {
    if workers == 1 { "1 worker".into() } else { format!("{workers} workers") }
}

/// To about three digits: more would say more than is known.
fn rounded(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    match seconds {
        s if s < 0.001 => "less than 1 ms".into(),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.0} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests;
