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
/// The time constant of the averages.
const WINDOW: Duration = Duration::from_mins(1);

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
            busy_share: share(&overview.flow, crew.size).max(busy_now(crew)),
            arrival_rate: overview.flow.arrival_rate,
            completion_rate: overview.flow.completion_rate,
            mean_service: overview.flow.mean_service.map(duration),
            mean_wait: overview.flow.mean_wait.map(duration),
            counts: Some(counts(&overview.counts)),
        }),
        advice: Some(advice(&overview.flow, crew.size, target)),
        start_time: Some(timestamp(overview.since)),
        time: Some(timestamp(overview.now)),
        queues: queues(overview.queues, view),
    }
}

/// The part of the time of `workers` that went into what ended.
fn share(flow: &Flow, workers: u32) -> f64 {
    let busy = flow.completion_rate * flow.mean_service.unwrap_or_default().as_secs_f64();
    (busy / f64::from(workers.max(1))).clamp(0.0, 1.0)
}

/// The part of the crew's time, weighted as the averages are, that went into what
/// still runs: executions that take longer than that end too rarely to be seen
/// otherwise.
fn busy_now(crew: &pool::Status) -> f64 {
    let running = crew.workers.iter().filter_map(|worker| worker.running.as_ref());
    let busy: f64 = running
        .map(|running| -(-running.running_for.as_secs_f64() / WINDOW.as_secs_f64()).exp_m1())
        .sum();
    (busy / f64::from(crew.size.max(1))).clamp(0.0, 1.0)
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

fn advice(flow: &Flow, workers: u32, target: Duration) -> v1::SizingAdvice {
    let Some(mean_service) = flow.mean_service else {
        return v1::SizingAdvice {
            target_wait: Some(duration(target)),
            summary: "nothing was measured yet: there is no advice before tasks have ended".into(),
            ..Default::default()
        };
    };
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
        summary: summary(offered_load, workers, current, advised, target),
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
        Some(wait) => format!("with {workers} workers, tasks wait {} on average", rounded(wait)),
        None => format!("{workers} workers cannot keep up, and the wait grows"),
    };
    let then = match advised {
        Some(advised) => format!("{advised} hold a mean wait of {}", humane(target)),
        None => format!("more than {} would be needed", sizing::MAX_WORKERS),
    };
    format!("the load is {offered_load:.2} workers; {now}; {then}")
}

/// To three digits: more would say more than is known.
fn rounded(span: Duration) -> String {
    format!("{span:.3?}")
}

#[cfg(test)]
mod tests;
