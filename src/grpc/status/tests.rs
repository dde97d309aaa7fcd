//! Every variant has its status, and every status travels.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tonic_types::{FieldViolation, RpcStatusExt as _, pb};

use super::*;
use crate::{
    admission::{Hold, Limit, Refused},
    queue::WrongBackoffs,
    store::{Damage, Error},
};

fn task() -> TaskId {
    TaskId::new(7, 8)
}

fn long() -> Arc<str> {
    "x".repeat(100_000).into()
}

fn full() -> Refused {
    Refused::Full { limit: Limit::Tasks(3), retry_after: Duration::from_millis(70) }
}

fn held(hold: Hold) -> Refused {
    Refused::Held { hold, retry_after: Duration::from_secs(5) }
}

fn causes() -> Vec<(Refused, Code, &'static str)> {
    use Code::{DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable};
    vec![
        (full(), ResourceExhausted, "QUEUE_FULL"),
        (Refused::Deadline, DeadlineExceeded, "DEADLINE"),
        (Refused::LargerThanQueue { bytes: 9, limit: 8 }, ResourceExhausted, "TOO_LARGE"),
        (Refused::MoreThanQueue { tasks: 9, limit: 8 }, ResourceExhausted, "TOO_LARGE"),
        (Refused::UnknownQueue, InvalidArgument, "INVALID_FIELDS"),
        (Refused::TooManyQueues(4), ResourceExhausted, "TOO_MANY_QUEUES"),
        (held(Hold::LogFull), ResourceExhausted, "LOG_FULL"),
        (held(Hold::DiskLow { reserve: 7 }), ResourceExhausted, "DISK_LOW"),
        (held(Hold::WriteRefused), ResourceExhausted, "WRITE_REFUSED"),
        (Refused::Draining, Unavailable, "DRAINING"),
        (Refused::ServerFailed, Unavailable, "SERVER_FAILED"),
        (Refused::StoreFailed, Unavailable, "STORE_FAILED"),
    ]
}

fn errors() -> Vec<(Error, Code, &'static str)> {
    use Code::{
        AlreadyExists, FailedPrecondition, Internal, InvalidArgument, NotFound, ResourceExhausted,
        Unavailable,
    };
    let wrong_backoffs =
        WrongBackoffs { initial: Duration::from_secs(2), max: Duration::from_secs(1) };
    let ended = Error::Ended { task: task(), state: State::Succeeded };
    let not_ended = Error::NotEnded { task: task(), state: State::Running };
    let all: Vec<_> = (0..1_000).map(|at| (at, Error::NotFound(task()))).collect();
    let mut errors = vec![
        (Error::NotFound(task()), NotFound, "TASK_NOT_FOUND"),
        (ended, FailedPrecondition, "TASK_ENDED"),
        (not_ended, FailedPrecondition, "TASK_NOT_ENDED"),
        (Error::Moved { task: task(), state: State::Queued }, FailedPrecondition, "TASK_MOVED"),
        (Error::RequestIdReused(task()), AlreadyExists, "REQUEST_ID_REUSED"),
        (Error::RequestIdRepeated { first: 4 }, AlreadyExists, "REQUEST_ID_REUSED"),
        (Error::WrongBackoffs(wrong_backoffs), InvalidArgument, "INVALID_FIELDS"),
        (Error::Damaged(Damage::at("row 7 of table task", "x".repeat(9_000))), Internal, "DAMAGED"),
        (Error::Crashed(long()), Unavailable, "SERVER_FAILED"),
        (Error::Draining, Unavailable, "DRAINING"),
        (Error::TooManyLists, ResourceExhausted, "TOO_MANY_LISTS"),
        (Error::Failed(long()), Unavailable, "STORE_FAILED"),
        (Error::Unreadable(long()), Internal, "STORE_UNREADABLE"),
        (Error::NotAll(all), NotFound, "TASK_NOT_FOUND"),
    ];
    errors.extend(
        causes().into_iter().map(|(cause, code, reason)| {
            (Error::NoRoom { queue: "q".into(), cause }, code, reason)
        }),
    );
    errors
}

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("every status has a reason");
    assert_eq!(info.domain, DOMAIN);
    assert!(status.message().len() + status.details().len() < 4_096, "too large for a trailer");
    info.reason
}

/// The place of an error in the enumeration: a new one does not compile without a place, and
/// has none without an example above.
fn variant(error: &Error) -> usize {
    match error {
        Error::NotFound(_) => 0,
        Error::Ended { .. } => 1,
        Error::NotEnded { .. } => 2,
        Error::Moved { .. } => 3,
        Error::NoRoom { .. } => 4,
        Error::NotAll(_) => 5,
        Error::RequestIdReused(_) => 6,
        Error::RequestIdRepeated { .. } => 7,
        Error::WrongBackoffs(_) => 8,
        Error::Draining => 9,
        Error::Failed(_) => 10,
        Error::Crashed(_) => 11,
        Error::Damaged(_) => 12,
        Error::TooManyLists => 13,
        Error::Unreadable(_) => 14,
    }
}

/// The same of a refusal.
fn cause(refused: &Refused) -> usize {
    match refused {
        Refused::Full { .. } => 0,
        Refused::Deadline => 1,
        Refused::LargerThanQueue { .. } => 2,
        Refused::MoreThanQueue { .. } => 3,
        Refused::UnknownQueue => 4,
        Refused::TooManyQueues(_) => 5,
        Refused::Held { .. } => 6,
        Refused::Draining => 7,
        Refused::ServerFailed => 8,
        Refused::StoreFailed => 9,
    }
}

#[test]
fn every_error_has_an_example_here() {
    let variants: BTreeSet<_> = errors().iter().map(|(error, ..)| variant(error)).collect();
    assert!(variants.into_iter().eq(0..15));
    let refusals: BTreeSet<_> = causes().iter().map(|(refused, ..)| cause(refused)).collect();
    assert!(refusals.into_iter().eq(0..10));
}

/// Reasons that no client is ever sent.
const UNSENT: [&str; 2] = [
    // Of tasks that a call by filter no longer concerns: it leaves them out.
    "TASK_MOVED",
    // A refusal of several tasks without any that refused.
    "NOT_ALL",
];

#[test]
fn every_reason_is_documented() {
    let sources =
        [include_str!("../status.rs"), include_str!("refusal.rs"), include_str!("wire.rs")];
    let protos = [
        include_str!("../../../proto/taskyard/v1/task_service.proto"),
        include_str!("../../../proto/taskyard/v1/admin_service.proto"),
    ];
    let is_reason = |text: &&str| {
        text.len() > 3 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
    };
    let reasons = sources.into_iter().flat_map(|source| source.split('"')).filter(is_reason);
    let reasons: BTreeSet<_> = reasons.filter(|reason| *reason != "STATE").collect();
    assert!(reasons.len() > 30, "{reasons:?}");
    let missing: Vec<_> = reasons
        .into_iter()
        .filter(|reason| !UNSENT.contains(reason))
        .filter(|reason| !protos.iter().any(|proto| proto.contains(reason)))
        .collect();
    assert!(missing.is_empty(), "no comment in the definitions names {missing:?}");
}

#[test]
fn every_error_has_its_status() {
    for (error, code, expected) in errors() {
        let status = store(&error);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{error}");
    }
    for (cause, code, expected) in causes() {
        let status = refused("q", cause);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{cause}");
    }
}

#[test]
fn wrong_states_are_preconditions() {
    let succeeded = Error::Ended { task: task(), state: State::Succeeded };
    for (status, expected) in [
        (store(&succeeded), "TASK_ENDED"),
        (redrive(&succeeded), "TASK_SUCCEEDED"),
        (redrive(&Error::NotEnded { task: task(), state: State::Queued }), "TASK_NOT_ENDED"),
    ] {
        assert_eq!(reason(&status), expected);
        let failure = status.get_details_precondition_failure().expect("PreconditionFailure");
        assert_eq!(failure.violations[0].subject, task().to_string());
    }
    assert_eq!(reason(&redrive(&Error::NotFound(task()))), "TASK_NOT_FOUND");
}

#[test]
fn an_unknown_queue_is_a_wrong_field() {
    let named = refused("nowhere", Refused::UnknownQueue).get_details_bad_request();
    let fields: Vec<_> = named.expect("BadRequest").field_violations;
    assert!(matches!(&fields[..], [FieldViolation { field, .. }] if field == "queue"));
}

#[test]
fn a_status_of_several_requests_is_that_of_the_first() {
    let full = Error::NoRoom { queue: "q".into(), cause: full() };
    let of_batch = refused_together(&[(9, Error::RequestIdReused(task())), (4, full)]);
    assert_eq!(
        (of_batch.code(), reason(&of_batch)),
        (Code::ResourceExhausted, "QUEUE_FULL".into())
    );
    assert!(of_batch.message().starts_with("requests[4]: "), "{}", of_batch.message());
    let metadata = of_batch.get_details_error_info().expect("a reason").metadata;
    assert_eq!((metadata["requests"].as_str(), metadata["queue"].as_str()), ("4,9", "q"));
    // What else the status tells is not lost.
    assert!(of_batch.get_details_retry_info().is_some());
    assert_eq!(of_batch.metadata().get("grpc-retry-pushback-ms").expect("a delay"), "70");
    assert_eq!(reason(&refused_together(&[])), "NOT_ALL");
}

#[test]
fn a_status_as_a_message_has_all_that_it_had() {
    for (error, code, expected) in errors() {
        let status = store(&error);
        let message: pb::Status = to_message(&status);
        assert_eq!((message.code, message.message.as_str()), (code as i32, status.message()));
        let info = message.get_details_error_info().expect("a reason");
        assert_eq!(info.reason, expected);
        assert_eq!(message.get_error_details_vec().len(), status.get_error_details_vec().len());
    }
    let bare = to_message(&Status::new(Code::Aborted, "why"));
    assert_eq!((bare.code, bare.message.as_str(), bare.details.len()), (10, "why", 0));
}

#[test]
fn what_the_library_says_of_a_message_is_repaired() {
    let said = "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes";
    for (status, code, expected) in [
        (Status::out_of_range(said), Code::ResourceExhausted, "TOO_LARGE"),
        (
            Status::internal("failed to decode Protobuf message: x"),
            Code::InvalidArgument,
            "MALFORMED_MESSAGE",
        ),
        (Status::internal("Unexpected EOF decoding stream."), Code::Internal, "PROTOCOL"),
    ] {
        let repaired = repaired(&status, "").expect("it is not of this server");
        assert_eq!((repaired.code(), reason(&repaired).as_str()), (code, expected));
    }
    assert!(repaired(&draining(), "").is_none());
}

#[test]
fn the_end_of_a_watch_says_where_to_go_on() {
    let over = [
        (CloseReason::Stalled, Code::ResourceExhausted, "WATCH_STALLED", false),
        (CloseReason::Lifetime, Code::Unavailable, "WATCH_LIFETIME", true),
        (CloseReason::Deadline, Code::DeadlineExceeded, "DEADLINE", false),
    ];
    for (end, code, expected, may_retry) in over {
        for cursor in ["c1", ""] {
            let status = watch_over(end, cursor);
            assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
            let told = status.get_details_error_info().unwrap().metadata.remove("cursor");
            assert_eq!(told.as_deref(), Some(cursor).filter(|cursor| !cursor.is_empty()));
            let rest = if cursor.is_empty() { "the snapshot again" } else { "go on after c1" };
            assert!(status.message().ends_with(rest), "{status:?}");
            assert_eq!(status.get_details_retry_info().is_some(), may_retry);
        }
    }
    let peer = std::net::Ipv4Addr::LOCALHOST.into();
    for limit in [WatcherLimit::Server(7), WatcherLimit::Connection(7), WatcherLimit::Peer(peer, 7)]
    {
        let status = too_many_watchers(limit);
        assert!(status.message().starts_with("7 watchers"), "{status:?}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "TOO_MANY_WATCHERS");
    }
}
