//! The pool, the queues, the statistics and a drain's report as JSON.
//!
//! Owns their shape, by the rules of [`super`]. Must not know commands.

use serde_json::{Value, json};
use taskyard_domain::queue::Field;
use taskyard_proto::{
    queue_settings::Value as Setting,
    v1::{
        DrainResponse, Execution, GetStatsResponse, Pool, PoolStats, Queue, QueueBlock,
        QueueSettings, QueueStats, RateLimit, SizingAdvice, TaskCounts, Worker,
    },
};

use super::Fields;

/// A block's name without its prefix; nothing when tasks start. A newer server's
/// by its number.
pub fn block_name(number: i32) -> Option<String> {
    match QueueBlock::try_from(number) {
        Ok(QueueBlock::Unspecified) => None,
        Ok(known) => Some(known.as_str_name().trim_start_matches("QUEUE_BLOCK_").to_owned()),
        Err(_) => Some(format!("BLOCK_{number}")),
    }
}

/// A queue.
pub fn queue(queue: &Queue) -> Value {
    let mut fields = Fields::default();
    fields.set("queue", queue.queue.as_str());
    fields.set("paused", queue.paused);
    fields.text("block", &block_name(queue.block).unwrap_or_default());
    fields.set("counts", counts(queue.counts.unwrap_or_default()));
    fields.set("waiting_bytes", queue.waiting_bytes);
    fields.set("waiting_callers", queue.waiting_callers);
    fields.time("oldest_due_time", queue.oldest_due_time);
    if let Some(settings) = &queue.settings {
        fields.set("settings", self::settings(settings));
    }
    fields.set("overridden", queue.overridden.clone());
    fields.set("configured", queue.configured.clone());
    fields.0.into()
}

fn settings(settings: &QueueSettings) -> Value {
    let mut fields = Fields::default();
    for name in Field::ALL.map(Field::name) {
        match settings.get(name) {
            None => {}
            Some(Setting::Count(count)) => fields.set(name, count),
            Some(Setting::Duration(span)) => fields.span(name, Some(span)),
            Some(Setting::Rate(RateLimit { starts_per_second, burst })) => {
                let rate = json!({ "starts_per_second": starts_per_second, "burst": burst });
                fields.set(name, rate);
            }
        }
    }
    fields.0.into()
}

fn counts(counts: TaskCounts) -> Value {
    json!({
        "scheduled": counts.scheduled,
        "queued": counts.queued,
        "running": counts.running,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
    })
}

/// A worker.
pub fn worker(worker: &Worker) -> Value {
    let mut fields = Fields::default();
    fields.set("worker", worker.worker.as_str());
    fields.set("leaving", worker.leaving);
    if let Some(execution) = &worker.execution {
        fields.set("execution", self::execution(execution));
    }
    fields.set("finished", worker.finished);
    fields.set("busy_share", worker.busy_share);
    fields.0.into()
}

fn execution(execution: &Execution) -> Value {
    let mut fields = Fields::default();
    fields.text("task_id", &execution.task_id);
    fields.text("queue", &execution.queue);
    fields.text("kind", &execution.kind);
    fields.set("attempt", execution.attempt);
    fields.time("start_time", execution.start_time);
    fields.span("running_for", execution.running_for);
    fields.0.into()
}

/// The pool.
pub fn pool(pool: &Pool) -> Value {
    let workers: Vec<_> = pool.workers.iter().map(worker).collect();
    json!({ "size": pool.size, "workers": workers })
}

/// What a drain left.
pub fn drained(report: &DrainResponse) -> Value {
    json!({
        "finished": report.finished,
        "interrupted": report.interrupted,
        "remaining": report.remaining,
        "complete": report.complete,
    })
}

/// How the service is doing.
pub fn stats(stats: &GetStatsResponse) -> Value {
    let mut fields = Fields::default();
    fields.time("time", stats.time);
    fields.time("start_time", stats.start_time);
    if let Some(pool) = &stats.pool {
        fields.set("pool", pool_stats(pool));
    }
    if let Some(advice) = &stats.advice {
        fields.set("advice", self::advice(advice));
    }
    fields.set("queues", stats.queues.iter().map(queue_stats).collect::<Vec<_>>());
    fields.0.into()
}

fn pool_stats(pool: &PoolStats) -> Value {
    let mut fields = Fields::default();
    fields.set("workers", pool.workers);
    fields.set("busy_workers", pool.busy_workers);
    fields.set("busy_share", pool.busy_share);
    fields.set("arrival_rate", pool.arrival_rate);
    fields.set("completion_rate", pool.completion_rate);
    fields.span("mean_service", pool.mean_service);
    fields.span("mean_wait", pool.mean_wait);
    fields.set("counts", counts(pool.counts.unwrap_or_default()));
    fields.0.into()
}

fn queue_stats(queue: &QueueStats) -> Value {
    let mut fields = Fields::default();
    fields.set("queue", queue.queue.as_str());
    fields.text("block", &block_name(queue.block).unwrap_or_default());
    fields.set("busy_share", queue.busy_share);
    fields.set("arrival_rate", queue.arrival_rate);
    fields.set("completion_rate", queue.completion_rate);
    fields.span("mean_service", queue.mean_service);
    fields.span("mean_wait", queue.mean_wait);
    fields.span("wait_now", queue.wait_now);
    fields.set("counts", counts(queue.counts.unwrap_or_default()));
    fields.0.into()
}

fn advice(advice: &SizingAdvice) -> Value {
    let mut fields = Fields::default();
    fields.span("target_wait", advice.target_wait);
    fields.set("workers", advice.workers);
    fields.span("expected_wait", advice.expected_wait);
    fields.span("current_expected_wait", advice.current_expected_wait);
    fields.set("wait_probability", advice.wait_probability);
    fields.set("offered_load", advice.offered_load);
    fields.text("summary", &advice.summary);
    fields.0.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(seconds: i64) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos: 0 }
    }

    #[test]
    fn a_queue_has_its_settings_and_what_is_overridden() {
        let mail = Queue {
            queue: "mail".into(),
            settings: Some(QueueSettings {
                max_tasks: Some(7),
                max_running: Some(0),
                rate_limit: Some(RateLimit { starts_per_second: 0.5, burst: 3 }),
                max_backoff: Some(span(60)),
                ..QueueSettings::default()
            }),
            overridden: vec!["max_tasks".into()],
            paused: true,
            block: QueueBlock::Paused.into(),
            counts: Some(TaskCounts { queued: 2, ..TaskCounts::default() }),
            waiting_bytes: 99,
            waiting_callers: 1,
            oldest_due_time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            configured: vec!["max_backoff".into()],
        };
        assert_eq!(
            queue(&mail),
            json!({
                "queue": "mail", "paused": true, "block": "PAUSED",
                "counts": {
                    "scheduled": 0, "queued": 2, "running": 0,
                    "succeeded": 0, "failed": 0, "cancelled": 0,
                },
                "waiting_bytes": 99, "waiting_callers": 1,
                "oldest_due_time": "1970-01-01T00:00:00Z",
                "settings": {
                    "max_tasks": 7, "max_running": 0,
                    "rate_limit": { "starts_per_second": 0.5, "burst": 3 },
                    "max_backoff": "60s",
                },
                "overridden": ["max_tasks"],
                "configured": ["max_backoff"],
            })
        );
    }

    #[test]
    fn what_nobody_could_measure_is_left_out() {
        let value = stats(&GetStatsResponse {
            pool: Some(PoolStats { workers: 4, ..PoolStats::default() }),
            queues: vec![QueueStats {
                queue: "q".into(),
                block: 99,
                wait_now: Some(span(3)),
                ..QueueStats::default()
            }],
            ..GetStatsResponse::default()
        });
        assert_eq!(value["pool"]["workers"], 4);
        assert!(value["pool"].get("mean_wait").is_none() && value.get("advice").is_none());
        assert_eq!(value["queues"][0]["wait_now"], "3s");
        assert_eq!(value["queues"][0]["block"], "BLOCK_99");
    }

    #[test]
    fn a_worker_shows_what_it_runs() {
        let busy = Worker {
            worker: "worker-2".into(),
            leaving: true,
            execution: Some(Execution {
                task_id: "t1".into(),
                attempt: 2,
                running_for: Some(span(5)),
                ..Execution::default()
            }),
            finished: 7,
            busy_share: 0.5,
        };
        assert_eq!(
            pool(&Pool { size: 1, workers: vec![busy] }),
            json!({ "size": 1, "workers": [{
                "worker": "worker-2", "leaving": true,
                "execution": { "task_id": "t1", "attempt": 2, "running_for": "5s" },
                "finished": 7, "busy_share": 0.5,
            }] })
        );
    }
}
