//! The pool, and what a drain left of its work, to messages.

use std::num::NonZeroU32;

use super::{Checks, duration, timestamp};
use crate::{
    drain,
    handler::Violation,
    pool::{Running, Status, WorkerStatus},
    proto::v1,
    sizing::MAX_WORKERS,
};

/// Checks a size of the pool.
///
/// # Errors
/// What is wrong with it.
pub fn pool_size(given: u32) -> Result<NonZeroU32, Vec<Violation>> {
    let mut checks = Checks::default();
    let size = checks.within("size", Some(given), &(1..=MAX_WORKERS));
    checks.finish(size.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
}

/// The pool as the wire has it.
pub fn pool(status: &Status) -> v1::Pool {
    v1::Pool { size: status.size, workers: status.workers.iter().map(worker).collect() }
}

fn worker(status: &WorkerStatus) -> v1::Worker {
    v1::Worker {
        worker: status.id.to_string(),
        leaving: status.leaving,
        execution: status.running.as_ref().map(execution),
        finished: status.finished,
        busy_share: status.busy_share,
    }
}

fn execution(running: &Running) -> v1::Execution {
    v1::Execution {
        task_id: running.task.to_string(),
        queue: running.queue.to_string(),
        kind: running.kind.to_string(),
        attempt: running.attempt,
        start_time: Some(timestamp(running.started)),
        running_for: Some(duration(running.running_for)),
    }
}

/// What a drain left.
pub fn drained(report: drain::Report) -> v1::DrainResponse {
    let drain::Report { finished, interrupted, remaining, complete, clients_cut: _ } = report;
    v1::DrainResponse { finished, interrupted, remaining, complete }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_one_to_ten_thousand_workers() {
        let size = |given| pool_size(given).map(NonZeroU32::get).ok();
        assert_eq!(
            [0, 1, 10_000, 10_001, u32::MAX].map(size),
            [None, Some(1), Some(10_000), None, None]
        );
        assert_eq!(pool_size(0).unwrap_err()[0].field, "size");
    }
}
