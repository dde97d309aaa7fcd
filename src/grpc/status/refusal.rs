//! Why a task, or several together, were not taken.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    DOMAIN, details, draining, invalid, plain, push_back, server_failed, store as of_store,
    too_large,
};
use crate::{
    admission::{Hold, Limit, MAX_WAITING_BYTES, MAX_WAITING_CALLERS, Refused},
    handler::Violation,
    store,
};

/// Requests of a batch that are named by their numbers.
const MAX_NUMBERS: usize = 100;

/// There is no room.
pub fn refused(queue: &str, refused: Refused) -> Status {
    match refused {
        Refused::Full { limit, retry_after } => queue_full(queue, limit, retry_after),
        Refused::Deadline => plain(
            Code::DeadlineExceeded,
            "DEADLINE",
            format!(
                "the deadline passed while waiting for room in queue {queue:?}; nothing was enqueued"
            ),
        ),
        Refused::LargerThanQueue { bytes, limit } => {
            too_large(format!("this takes {bytes} bytes and queue {queue:?} holds {limit} in all"))
        }
        Refused::TooManyQueues(limit) => {
            let message =
                format!("queue {queue:?} would be one more than the {limit} allowed at a time");
            let mut details = details("TOO_MANY_QUEUES", []);
            details.add_quota_failure_violation("queues", message.clone());
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        Refused::MoreThanQueue { tasks, limit } => too_large(format!(
            "these are {tasks} tasks for queue {queue:?}, which holds {limit} in all"
        )),
        Refused::UnknownQueue => invalid(&[Violation::new(
            "queue",
            format!("there is no queue {queue:?}; the configuration fixes the queues"),
        )]),
        Refused::Held { hold, retry_after } => held(hold, retry_after),
        Refused::Draining => draining(),
        Refused::ServerFailed => server_failed("one of its parts panicked", ""),
        Refused::StoreFailed => of_store(&store::Error::Failed("the disk failed to sync".into())),
    }
}

/// The store takes no new task for a time.
fn held(hold: Hold, retry_after: Duration) -> Status {
    let (reason, subject, what) = match hold {
        Hold::WriteRefused => (
            "WRITE_REFUSED",
            "disk",
            "the server's disk is full or fails, and everything waits until it can be written to".to_owned(),
        ),
        Hold::LogFull => (
            "LOG_FULL",
            "write-ahead log",
            "the write-ahead log is full and cannot be moved into the database, as the server's log tells".to_owned(),
        ),
        Hold::DiskLow { reserve } => (
            "DISK_LOW",
            "disk",
            format!("less than disk_reserve, {reserve} bytes, is free on the server's disk"),
        ),
    };
    let millis = retry_after.as_millis();
    let message = format!("{what}; nothing was enqueued; try again in {millis} ms");
    let mut details = details(reason, []);
    details.set_retry_info(Some(retry_after));
    details.add_quota_failure_violation(subject, what.as_str());
    let mut status = Status::with_error_details(Code::ResourceExhausted, message, details);
    push_back(&mut status, &millis.to_string());
    status
}

fn queue_full(queue: &str, limit: Limit, retry_after: Duration) -> Status {
    let what = match limit {
        Limit::Tasks(1) => "1 task waits in it".into(),
        Limit::Tasks(tasks) => format!("{tasks} tasks wait in it"),
        Limit::Bytes(bytes) => {
            format!("the tasks that wait in it leave too little of its {bytes} bytes")
        }
        Limit::Line => format!(
            "and so is its line: at most {MAX_WAITING_CALLERS} callers, with {} MiB of tasks, may wait for room",
            MAX_WAITING_BYTES >> 20
        ),
    };
    let millis = retry_after.as_millis();
    let message = format!("queue {queue:?} is full: {what}; try again in {millis} ms");
    let mut details = details("QUEUE_FULL", [("queue", queue.to_owned())]);
    details.set_retry_info(Some(retry_after));
    details.add_quota_failure_violation(format!("queue:{queue}"), what);
    let mut status = Status::with_error_details(Code::ResourceExhausted, message, details);
    push_back(&mut status, &millis.to_string());
    status
}

/// Tasks that must go together were not taken, for these causes: the first one's
/// status, with the numbers of all requests that have one.
pub fn refused_together(causes: &[(usize, store::Error)]) -> Status {
    let Some((first, cause)) = causes.iter().min_by_key(|(at, _)| *at) else {
        return plain(Code::Internal, "NOT_ALL", "none of the tasks was taken");
    };
    let mut numbers: Vec<usize> = causes.iter().map(|(at, _)| *at).collect();
    numbers.sort_unstable();
    let more = numbers.len().saturating_sub(MAX_NUMBERS);
    let named = numbers.iter().take(MAX_NUMBERS).map(ToString::to_string);
    let mut named = named.collect::<Vec<_>>().join(",");
    if more > 0 {
        named.push_str(",...");
    }
    of_requests(&of_store(cause), *first, named)
}

/// The status of the request at `at` as that of the batch: nothing of it was
/// enqueued.
pub fn of_request(status: &Status, at: usize) -> Status {
    of_requests(status, at, at.to_string())
}

fn of_requests(status: &Status, first: usize, numbers: String) -> Status {
    let mut details: ErrorDetails = status.get_error_details();
    if let Some(info) = details.error_info() {
        let (reason, mut metadata) = (info.reason.clone(), info.metadata.clone());
        metadata.insert("requests".to_owned(), numbers);
        details.set_error_info(reason, DOMAIN, metadata);
    }
    let message = format!("requests[{first}]: {}", status.message());
    let mut of_batch = Status::with_error_details(status.code(), message, details);
    *of_batch.metadata_mut() = status.metadata().clone();
    of_batch
}
