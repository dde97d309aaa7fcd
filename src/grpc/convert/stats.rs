//! How the service is doing, to messages, with advice on the size of the crew.

use std::{cmp::Reverse, time::Duration};

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
    sizing::{self, Backlog, CrewView, Load, QueueView},
    store::{Flow, Overview, QueueStatus},
};

/// Queues that are told of.
const MAX_QUEUES: usize = 1_000;
const DEFAULT_TARGET: Duration = Duration::from_secs(1);

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

/// How the service is doing.
pub fn stats(overview: Overview, crew: &pool::Status, target: Duration) -> v1::GetStatsResponse {
    let busy = crew.workers.iter().filter(|worker| worker.running.is_some()).count();
    let busy = u32::try_from(busy).unwrap_or(u32::MAX);
    let view = CrewView {
        workers: crew.size,
        idle: crew.size.saturating_sub(busy),
        mean_service: overview.flow.mean_service,
    };
    v1::GetStatsResponse {
        crew: Some(v1::CrewStats {
            workers: crew.size,
            busy_workers: busy,
            busy_share: share(&overview.flow, crew.size),
            arrival_rate: overview.flow.arrival_rate,
            completion_rate: overview.flow.completion_rate,
            mean_service: overview.flow.mean_service.map(duration),
            mean_wait: overview.flow.mean_wait.map(duration),
            counts: Some(counts(&overview.counts)),
        }),
        advice: Some(advice(&overview.flow, waiting(&overview.queues), crew.size, target)),
        start_time: Some(timestamp(overview.since)),
        time: Some(timestamp(overview.now)),
        queues: queues(overview.queues, view),
    }
}

/// The part of the time of `workers` that was spent on what flows.
fn share(flow: &Flow, workers: u32) -> f64 {
    (flow.mean_running / f64::from(workers.max(1))).clamp(0.0, 1.0)
}

fn queues(mut all: Vec<QueueStatus>, crew: CrewView) -> Vec<v1::QueueStats> {
    let views: Vec<QueueView> = all.iter().map(view).collect();
    // Those that are not told of take their share, too.
    let backlog = Backlog::of(&views, crew);
    if all.len() > MAX_QUEUES {
        all.sort_by_key(|queue| Reverse(queue.counts.live()));
        all.truncate(MAX_QUEUES);
        all.sort_by(|one, other| one.name.cmp(&other.name));
    }
    let told = |queue| queue_stats(queue, backlog.wait_now(&view(queue)), crew.workers);
    all.iter().map(told).collect()
}

fn view(queue: &QueueStatus) -> QueueView {
    QueueView {
        queued: queue.counts.queued,
        running: queue.counts.running,
        weight: queue.settings.weight,
        max_running: queue.settings.max_running,
        rate_per_second: queue.settings.rate.map(|rate| rate.per_second),
        mean_service: queue.flow.mean_service,
        blocked: matches!(queue.block, Some(Block::Paused | Block::Draining)),
    }
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
fn waiting(queues: &[QueueStatus]) -> u64 {
    let open = queues.iter().map(view).filter(|queue| !queue.blocked);
    open.map(|queue| queue.queued).sum()
}

fn advice(flow: &Flow, waiting: u64, workers: u32, target: Duration) -> v1::SizingAdvice {
    let Some(mean_service) = flow.mean_service else {
        return v1::SizingAdvice {
            target_wait: Some(duration(target)),
            summary: "nothing was measured yet: there is no advice before tasks have ended".into(),
            ..Default::default()
        };
    };
    // What still runs tells of long executions before they end: by Little's law the
    // mean number that run is their rate times their length.
    let seen = Duration::try_from_secs_f64(flow.mean_running / flow.completion_rate);
    let mean_service = mean_service.max(seen.unwrap_or_default());
    let load = Load { arrival_rate: flow.arrival_rate, mean_service };
    let advised = sizing::workers_for(target, &load);
    let expected = advised.and_then(|workers| sizing::mean_wait(workers, &load));
    let current = sizing::mean_wait(workers, &load);
    let offered_load = sizing::offered_load(&load);
    v1::SizingAdvice {
        target_wait: Some(duration(target)),
        workers: advised.unwrap_or(0),
        expected_wait: expected.map(duration),
        current_expected_wait: current.map(duration),
        wait_probability: sizing::wait_probability(workers, &load),
        offered_load,
        summary: backlog(waiting, mean_service, workers, target)
            + &summary(offered_load, workers, current, advised, target),
    }
}

/// What the averages do not know of: tasks that have come already, as after a crash. Told
/// where to work them off takes longer than the wait that is wanted.
fn backlog(waiting: u64, mean_service: Duration, workers: u32, target: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "told to three digits at most")]
    let seconds = waiting as f64 * mean_service.as_secs_f64() / f64::from(workers.max(1));
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) if span <= target => String::new(),
        Ok(span) => {
            let takes = if workers == 1 { "takes" } else { "take" };
            let tasks =
                if waiting == 1 { "1 task waits".into() } else { format!("{waiting} tasks wait") };
            format!(
                "{tasks} now, for which {} {takes} {}; beside them, ",
                crew(workers),
                rounded(span)
            )
        }
        Err(_) => format!("{waiting} tasks wait now; beside them, "),
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
        Some(wait) => format!("with {}, tasks wait {} on average", crew(workers), rounded(wait)),
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

fn crew(workers: u32) -> String {
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
