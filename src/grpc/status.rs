//! Every status that is not OK, made here and nowhere else.
//!
//! Each carries one `ErrorInfo` with a reason for programs, plus the details
//! that fit. Message and details stay below 4 KiB together, whatever a request
//! contains: they travel in trailers, and larger ones break clients.

mod refusal;
mod wire;

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::convert;
use super::{shares::MAX_STREAMS, watch::CloseReason};
use crate::{
    events::{Ended, Hub, Invalid, TooManyWaiters, Unreadable},
    handler::{CheckError, Violation},
    store,
    task::{State, TaskId, cut},
};

pub use refusal::{of_request, refused, refused_together};
pub use wire::{repaired, to_message};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "taskyard";

/// When a draining server is likely to be back.
const DRAINING_RETRY: Duration = Duration::from_secs(1);

/// When somebody for whose connection there was no slot may come back.
const CROWDED_RETRY: Duration = Duration::from_secs(1);

/// When some of the lists that wait are likely to have been read.
const LISTS_RETRY: Duration = Duration::from_secs(1);

/// When some of the checks of payloads are likely to have returned.
const CHECKS_RETRY: Duration = Duration::from_secs(1);

/// When a watcher whose time was over may come back.
const LIFETIME_RETRY: Duration = Duration::from_millis(100);

fn details<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> ErrorDetails {
    let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value)).into();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

fn plain(code: Code, reason: &str, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, details(reason, []))
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

/// A submission that cannot be taken as it is, or could not be checked.
pub fn unchecked(error: &CheckError) -> Status {
    match error {
        CheckError::Invalid(violations) => invalid(violations),
        CheckError::TooManyChecks => {
            let message = "as many checks of payloads are under way as may be, of this kind or in \
                           all; nothing was enqueued: try again";
            let mut details = details("TOO_MANY_CHECKS", []);
            details.set_retry_info(Some(CHECKS_RETRY));
            details.add_quota_failure_violation("checks", message);
            Status::with_error_details(Code::ResourceExhausted, message, details)
        }
    }
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

/// The server has done what it should not have.
pub fn internal(message: impl Into<String>) -> Status {
    plain(Code::Internal, "INTERNAL", message)
}

/// The server shuts down.
pub fn draining() -> Status {
    let mut details = details("DRAINING", []);
    details.set_retry_info(Some(DRAINING_RETRY));
    let message = "the server is draining; try again at another, or when it is back";
    Status::with_error_details(Code::Unavailable, message, details)
}

/// A part of the server has failed: it ends, and whatever runs it starts it again. `cursor`
/// is what a watch goes on after, if it is one that has such.
pub fn server_failed(cause: &str, cursor: &str) -> Status {
    let cause = cut(cause, 500);
    let (message, mut details) = match cursor {
        "" => (
            format!(
                "the server has failed and ends ({cause}); whether this was done is not known: \
                 to repeat a Submit safely, give it the same request_id"
            ),
            details("SERVER_FAILED", []),
        ),
        cursor => (
            format!("the server has failed and ends ({cause}); go on after {cursor}"),
            details("SERVER_FAILED", [("cursor", cursor.to_owned())]),
        ),
    };
    details.set_retry_info(Some(DRAINING_RETRY));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// The store takes no more; `cursor` is where a watch that ends for it goes on, or empty.
pub fn store_failed(cause: &str, cursor: &str) -> Status {
    let message =
        format!("the store has failed and needs a restart of the server: {}", cut(cause, 500));
    match cursor {
        "" => plain(Code::Unavailable, "STORE_FAILED", message),
        cursor => {
            let message = format!("{message}; go on after {cursor}");
            let details = details("STORE_FAILED", [("cursor", cursor.to_owned())]);
            Status::with_error_details(Code::Unavailable, message, details)
        }
    }
}

/// A call whose own code panicked: a defect, which ends nothing but the call.
pub fn panicked(message: &str) -> Status {
    internal(format!("the call panicked, which is a defect of the server: {}", cut(message, 500)))
}

/// When there may be room again.
const ROOM_RETRY: Duration = Duration::from_secs(1);

fn no_room(reason: &str, message: &str) -> Status {
    let mut details = details(reason, []);
    details.set_retry_info(Some(ROOM_RETRY));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// A large request, while there are as many unfinished ones as may be.
pub fn no_room_for_request() -> Status {
    let message = "there are as many bytes of unfinished requests as there may be, on this \
                   connection or in all; nothing was done: try again, with fewer at a time";
    no_room("REQUESTS_UNFINISHED", message)
}

/// A call whose answer may be large, while there are as many unread ones as may be.
pub fn no_room_for_response() -> Status {
    let message = "there are as many bytes of unread responses as there may be, on this \
                   connection or in all; read them, and try again";
    no_room("RESPONSES_UNREAD", message)
}

/// A request of another method of HTTP.
pub fn not_post(method: &http::Method) -> Status {
    let message = format!("gRPC calls are POST, not {}", cut(method.as_str(), 50));
    plain(Code::Internal, "METHOD_NOT_ALLOWED", message)
}

/// A request whose content is not gRPC's.
pub fn not_grpc(content_type: Option<&http::HeaderValue>) -> Status {
    let message = match content_type {
        Some(value) => format!(
            "content-type {:?} is not served; it would have to be application/grpc",
            cut(&String::from_utf8_lossy(value.as_bytes()), 100)
        ),
        None => "the request has no content-type; it would have to be application/grpc".into(),
    };
    plain(Code::InvalidArgument, "UNSUPPORTED_MEDIA_TYPE", message)
}

/// More metadata than a call may have.
pub fn too_much_metadata(size: usize, limit: usize) -> Status {
    too_large(format!("the metadata has {size} bytes as HTTP/2 counts them, of at most {limit}"))
}

/// A call of one message that has more.
pub fn too_many_messages() -> Status {
    let message = "the method takes one message, and more were sent; nothing was done";
    plain(Code::Unimplemented, "TOO_MANY_MESSAGES", message)
}

/// A call on a connection for which there was no ordinary slot.
pub fn too_many_connections() -> Status {
    let mut details = details("TOO_MANY_CONNECTIONS", []);
    details.set_retry_info(Some(CROWDED_RETRY));
    let message = "there are as many connections as allowed, in all or from this address; on this \
                   one only health checks and AdminService are served, and it is closed now";
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
            let message = format!("task {task} has {} and cannot be cancelled", name(*state));
            wrong_state("TASK_ENDED", *task, *state, message)
        }
        store::Error::NotEnded { task, state } => {
            let message = format!("task {task} is {} and has not ended", name(*state));
            wrong_state("TASK_NOT_ENDED", *task, *state, message)
        }
        store::Error::Moved { task, state } => {
            let message = format!("task {task} is {} by now", name(*state));
            wrong_state("TASK_MOVED", *task, *state, message)
        }
        store::Error::NoRoom { queue, cause } => refused(queue, *cause),
        store::Error::NotAll(causes) => refused_together(causes),
        store::Error::RequestIdReused(task) => Status::with_error_details(
            Code::AlreadyExists,
            format!("this request_id was used for another task, {task}; nothing was enqueued"),
            details("REQUEST_ID_REUSED", [("task_id", task.to_string())]),
        ),
        store::Error::RequestIdRepeated { first } => Status::with_error_details(
            Code::AlreadyExists,
            format!(
                "this request_id is that of requests[{first}], which asks for something else; nothing was enqueued"
            ),
            details("REQUEST_ID_REUSED", [("request", first.to_string())]),
        ),
        store::Error::WrongBackoffs(wrong) => invalid(&[convert::wrong_backoffs(*wrong)]),
        store::Error::Draining => draining(),
        store::Error::Crashed(cause) => server_failed(cause, ""),
        store::Error::Damaged(damage) => damaged(damage.place(), &damage.to_string()),
        store::Error::TooManyLists => too_many_lists(),
        store::Error::Unreadable(cause) => plain(
            Code::Internal,
            "STORE_UNREADABLE",
            format!("the store could not be read: {}", cut(cause, 500)),
        ),
        store::Error::Failed(cause) => store_failed(cause, ""),
    }
}

/// What is kept is not what was written; trying again is of no use.
fn damaged(place: &str, message: &str) -> Status {
    let details = details("DAMAGED", [("place", cut(place, 200))]);
    Status::with_error_details(Code::Internal, cut(message, 500), details)
}

/// As many lists wait to be read as may.
fn too_many_lists() -> Status {
    let message = "too many lists wait to be read, from this address or in all; \
                   ask for fewer at a time";
    let mut details = details("TOO_MANY_LISTS", []);
    details.set_retry_info(Some(LISTS_RETRY));
    details.add_quota_failure_violation("lists", message);
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// What the store says to a redrive.
pub fn redrive(error: &store::Error) -> Status {
    match error {
        store::Error::Ended { task, state } => {
            let message = format!("task {task} has {} and cannot be redriven", name(*state));
            wrong_state("TASK_SUCCEEDED", *task, *state, message)
        }
        other => store(other),
    }
}

fn wrong_state(reason: &str, task: TaskId, state: State, message: String) -> Status {
    let mut details = details(reason, [("state", name(state).to_uppercase())]);
    details.add_precondition_failure_violation("STATE", task.to_string(), message.clone());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

fn name(state: State) -> &'static str {
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
        Ended::Failed(cause) | Ended::Unreadable(Unreadable::Crashed(cause)) => {
            server_failed(cause, "")
        }
        Ended::StoreFailed(cause) => store_failed(cause, ""),
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
        Ended::Unreadable(Unreadable::Damaged(damage)) => {
            damaged("the event history", &format!("the event history is damaged: {damage}"))
        }
        Ended::Unreadable(Unreadable::Broken(cause)) => {
            let message = format!("the event history cannot be read: {}", cut(cause, 500));
            plain(Code::Internal, "HISTORY_UNREADABLE", message)
        }
    }
}

/// Whose watchers are as many as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherLimit {
    /// All of the server.
    Server(usize),
    /// Those on one connection.
    Connection(usize),
    /// Those from one address.
    Peer(IpAddr, usize),
}

/// One watcher too many.
pub fn too_many_watchers(reached: WatcherLimit) -> Status {
    let message = match reached {
        WatcherLimit::Server(limit) => {
            format!("{limit} watchers are connected, which is the limit")
        }
        WatcherLimit::Connection(limit) => {
            format!("{limit} watchers are on this connection, which is the limit")
        }
        WatcherLimit::Peer(peer, limit) => {
            format!("{limit} watchers are connected from {peer}, which is the limit")
        }
    };
    let mut details = details("TOO_MANY_WATCHERS", []);
    details.add_quota_failure_violation("watchers", message.clone());
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

/// A watch that is ended from without. `cursor` is empty if its snapshot was not told
/// to its end: to go on after any would leave out the rest.
pub fn watch_over(closed: CloseReason, cursor: &str) -> Status {
    let (code, reason, why) = match closed {
        CloseReason::Stalled => (
            Code::ResourceExhausted,
            "WATCH_STALLED",
            "the watch is ended, as its messages were not read for too long",
        ),
        CloseReason::Deadline => {
            (Code::DeadlineExceeded, "DEADLINE", "the watch was open until its deadline")
        }
        CloseReason::Lifetime => {
            (Code::Unavailable, "WATCH_LIFETIME", "the watch was open for as long as it may")
        }
    };
    let (message, mut details) = match cursor {
        "" => (format!("{why}; ask for the snapshot again"), details(reason, [])),
        cursor => (
            format!("{why}; go on after {cursor}"),
            details(reason, [("cursor", cursor.to_owned())]),
        ),
    };
    match closed {
        CloseReason::Stalled => {
            details.add_quota_failure_violation("watch_stall_timeout", message.clone());
        }
        CloseReason::Lifetime => {
            details.set_retry_info(Some(LIFETIME_RETRY));
        }
        CloseReason::Deadline => {}
    }
    Status::with_error_details(code, message, details)
}

/// One stream too many on its connection.
pub fn too_many_streams() -> Status {
    let message = format!(
        "{MAX_STREAMS} streams are open on this connection, which is the limit; send more over \
         one of them, or open another connection"
    );
    let mut details = details("TOO_MANY_STREAMS", []);
    details.add_quota_failure_violation("streams", message.clone());
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

#[cfg(test)]
mod tests;
