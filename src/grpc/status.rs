//! Every status that is not OK, made here and nowhere else.
//!
//! Each carries one `ErrorInfo` with a reason for programs, plus the details
//! that fit. Message and details stay below 4 KiB together, whatever a request
//! contains: they travel in trailers, and larger ones break clients.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    admission::{Limit, MAX_WAITING_CALLERS, Refused},
    events::{Ended, Hub, Invalid, TooManyWaiters, Unreadable},
    handler::Violation,
    store,
    task::State,
};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "taskyard";

/// When a draining server is likely to be back.
const DRAINING_RETRY: Duration = Duration::from_secs(1);

fn details<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> ErrorDetails {
    let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

fn plain(code: Code, reason: &str, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, details(reason, []))
}

/// `text`, cut to at most `bytes`.
fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(bytes.saturating_sub(3))])
}

/// Violations that are kept of one request. Further ones are not: the request
/// decides how many there are.
pub const MAX_VIOLATIONS: usize = 100;

/// Fields that are wrong: all of them, as far as a status has room.
pub fn invalid(violations: &[Violation]) -> Status {
    const ROOM: usize = 2_000;
    let mut details = details("INVALID_FIELDS", []);
    let mut used = 0;
    let mut named = 0;
    for violation in violations {
        let field = cut(&violation.field, 100);
        let description = cut(&violation.description, 300);
        used += field.len() + description.len() + 16;
        if used > ROOM && named > 0 {
            break;
        }
        details.add_bad_request_violation(field, description);
        named += 1;
    }
    let left = violations.len() - named;
    if left > 0 {
        details.add_bad_request_violation("", format!("and {left} more"));
    }
    let message = match violations {
        [one] => format!("{}: {}", cut(&one.field, 100), cut(&one.description, 300)),
        [first, ..] => format!(
            "{}{} fields are invalid; the first is {}: {}",
            if violations.len() < MAX_VIOLATIONS { "" } else { "at least " },
            violations.len(),
            cut(&first.field, 100),
            cut(&first.description, 300)
        ),
        [] => "the request is invalid".into(),
    };
    Status::with_error_details(Code::InvalidArgument, message, details)
}

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
        Refused::LargerThanQueue { bytes, limit } => too_large(format!(
            "the task takes {bytes} bytes and queue {queue:?} holds {limit} in all"
        )),
        Refused::TooManyQueues(limit) => {
            let message =
                format!("queue {queue:?} would be one more than the {limit} allowed at a time");
            let mut details = details("TOO_MANY_QUEUES", []);
            details.add_quota_failure_violation("queues", message.clone());
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
        Refused::Draining => draining(),
        Refused::StoreFailed => store(&store::Error::Failed("the disk refused a write".into())),
    }
}

fn queue_full(queue: &str, limit: Limit, retry_after: Duration) -> Status {
    let what = match limit {
        Limit::Tasks(tasks) => format!("{tasks} tasks wait in it"),
        Limit::Bytes(bytes) => format!(
            "its {bytes} bytes are used, or more than {MAX_WAITING_CALLERS} callers wait for room"
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

/// Tells gRPC's own retry policies when to try again; -1 for never.
fn push_back(status: &mut Status, millis: &str) {
    if let Ok(value) = MetadataValue::try_from(millis) {
        status.metadata_mut().insert("grpc-retry-pushback-ms", value);
    }
}

/// Something is larger than a limit; trying again is of no use.
pub fn too_large(message: impl Into<String>) -> Status {
    let mut status = plain(Code::ResourceExhausted, "TOO_LARGE", message);
    push_back(&mut status, "-1");
    status
}

/// The server shuts down.
pub fn draining() -> Status {
    let mut details = details("DRAINING", []);
    details.set_retry_info(Some(DRAINING_RETRY));
    let message = "the server is draining; try again at another, or when it is back";
    Status::with_error_details(Code::Unavailable, message, details)
}

/// A request that began and did not arrive whole.
pub fn not_arrived(limit: Duration) -> Status {
    let message = format!("the request did not arrive within {limit:?}; nothing was done");
    plain(Code::DeadlineExceeded, "DEADLINE", message)
}

/// The caller's deadline has passed, and what became of the call is not known.
pub fn deadline() -> Status {
    plain(
        Code::DeadlineExceeded,
        "DEADLINE",
        "the deadline passed before the outcome was known; to repeat a Submit safely, give it the same request_id",
    )
}

/// What the store says.
pub fn store(error: &store::Error) -> Status {
    match error {
        store::Error::NotFound(task) => {
            plain(Code::NotFound, "TASK_NOT_FOUND", format!("there is no task {task}"))
        }
        store::Error::Ended { task, state } => {
            let state = state_name(*state);
            let message = format!("task {task} has {state} and cannot be cancelled");
            let mut details = details("TASK_ENDED", [("state", state.to_uppercase())]);
            details.add_precondition_failure_violation("STATE", task.to_string(), message.clone());
            Status::with_error_details(Code::FailedPrecondition, message, details)
        }
        store::Error::RequestIdReused(task) => Status::with_error_details(
            Code::AlreadyExists,
            format!("this request_id was used for another task, {task}; nothing was enqueued"),
            details("REQUEST_ID_REUSED", [("task_id", task.to_string())]),
        ),
        store::Error::Draining => draining(),
        store::Error::Unreadable(cause) => plain(
            Code::Internal,
            "STORE_UNREADABLE",
            format!("the store could not be read: {}", cut(cause, 500)),
        ),
        store::Error::Failed(cause) => plain(
            Code::Unavailable,
            "STORE_FAILED",
            format!("the store has failed and needs a restart of the server: {}", cut(cause, 500)),
        ),
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Scheduled => "scheduled",
        State::Queued => "queued",
        State::Running => "running",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

/// A cursor that is of no use here.
pub fn cursor(invalid: Invalid, hub: &Hub) -> Status {
    let (code, reason) = match invalid {
        Invalid::AnotherStore => (Code::FailedPrecondition, "CURSOR_FROM_ANOTHER_STORE"),
        Invalid::AnotherHistory => (Code::FailedPrecondition, "CURSOR_FROM_ANOTHER_HISTORY"),
        Invalid::PastEnd => (Code::OutOfRange, "CURSOR_PAST_END"),
    };
    let newest = hub.cursor(hub.newest()).to_string();
    let message = format!("{invalid}; the newest cursor of this store is {newest}");
    Status::with_error_details(code, message, details(reason, [("newest_cursor", newest)]))
}

/// A watch that goes no further.
pub fn watch_ended(ended: &Ended, hub: &Hub) -> Status {
    match ended {
        Ended::Closed => draining(),
        Ended::Unreadable(Unreadable::Expired(oldest)) => {
            let oldest = hub.cursor(oldest.previous()).to_string();
            let newest = hub.cursor(hub.newest()).to_string();
            let message = format!(
                "the events after this cursor are no longer kept; the oldest cursor is {oldest}"
            );
            let metadata = [("oldest_cursor", oldest), ("newest_cursor", newest)];
            let details = details("CURSOR_EXPIRED", metadata);
            Status::with_error_details(Code::OutOfRange, message, details)
        }
        Ended::Unreadable(Unreadable::Broken(cause)) => {
            let message = format!("the event history cannot be read: {}", cut(cause, 500));
            plain(Code::Internal, "HISTORY_UNREADABLE", message)
        }
    }
}

/// One watcher too many.
pub fn too_many_watchers(limit: usize) -> Status {
    let message = format!("{limit} watchers are connected, which is the limit");
    let mut details = details("TOO_MANY_WATCHERS", []);
    details.add_quota_failure_violation("watchers", message.clone());
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// One waiting caller too many.
pub fn too_many_waiters(error: TooManyWaiters) -> Status {
    plain(Code::ResourceExhausted, "TOO_MANY_WAITERS", error.to_string())
}

/// A health check of a service that does not exist.
pub fn unknown_service(service: &str) -> Status {
    let message = format!("there is no service {:?}", cut(service, 100));
    plain(Code::NotFound, "SERVICE_NOT_FOUND", message)
}

/// Puts right what the gRPC library answers by itself: an oversized or garbled
/// request, an unknown method. `None` if the status is one of this module's.
pub fn repaired(status: &Status, path: &str) -> Option<Status> {
    if !status.details().is_empty() {
        return None;
    }
    let message = status.message();
    Some(match status.code() {
        Code::OutOfRange if message.contains("message length too large") => {
            too_large(format!("the request is too large: {}", cut(message, 300)))
        }
        Code::Internal if message.contains("decode Protobuf") => plain(
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
            format!("the request is not a valid message: {}", cut(message, 300)),
        ),
        Code::Unimplemented if message.is_empty() => plain(
            Code::Unimplemented,
            "UNKNOWN_METHOD",
            format!(
                "there is no method {:?}; `grpcurl … list` shows what there is",
                cut(path, 200)
            ),
        ),
        code => plain(code, "PROTOCOL", cut(message, 500)),
    })
}
