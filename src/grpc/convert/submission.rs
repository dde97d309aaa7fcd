//! A `SubmitRequest` to a task that may be submitted.

use std::{
    collections::BTreeMap,
    hash::Hasher as _,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::{Checks, DAY, MAX_QUEUE, check_name, humane, json};
use crate::{
    admission::WhenFull,
    handler::{Registry, Violation},
    proto::v1::{self, submit_request},
    store::Submission,
    task::{Data, Due, NewTask, RetryPolicy, Timestamp},
};

/// What submissions may have and what they get when they do not say, as
/// configured.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of a payload.
    pub max_payload: usize,
    /// How long an attempt may take unless the task says.
    pub attempt_timeout: Duration,
    /// Attempts unless the task says.
    pub max_attempts: u32,
}

const MAX_KIND: usize = 63;
const MAX_LABELS: usize = 16;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 255;
const MAX_REQUEST_ID: usize = 128;
const MAX_PRIORITY: i32 = 1_000;
const MAX_ATTEMPTS: u32 = 100;
const MAX_DELAY: Duration = Duration::from_hours(8784);
const MAX_TIMEOUT: Duration = Duration::from_hours(720);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Checks a submission.
///
/// # Errors
/// Everything that is wrong with it.
pub fn submission(
    request: v1::SubmitRequest,
    rules: &Rules,
    registry: &Registry,
) -> Result<(Submission, WhenFull), Vec<Violation>> {
    let mut checks = Checks::default();
    let fingerprint = fingerprint(&request);
    let when_full = when_full(request.when_full, &mut checks);
    let payload = payload(request.payload, rules, &mut checks);
    let kind = kind(&request.kind, payload.as_ref(), registry, &mut checks);
    let queue = queue(&request.queue, &mut checks);
    if request.priority.unsigned_abs() > MAX_PRIORITY.unsigned_abs() {
        checks.wrong("priority", format!("{} is not within -1000 to 1000", request.priority));
    }
    let due = due(request.delay, request.run_at, &mut checks);
    let bounds = (MILLISECOND, MAX_TIMEOUT);
    let timeout = checks.duration("timeout", request.timeout, bounds);
    let retry = retry(request.retry, rules, &mut checks);
    check_labels(&request.labels, &mut checks);
    check_request_id(&request.request_id, &mut checks);
    match (kind, payload, checks.violations) {
        (Some(kind), Some(payload), wrong) if wrong.is_empty() => {
            let task = NewTask {
                kind,
                queue,
                payload,
                priority: request.priority,
                due,
                timeout: timeout.unwrap_or(rules.attempt_timeout),
                retry,
                labels: request.labels,
                request_id: Some(request.request_id).filter(|id| !id.is_empty()),
            };
            Ok((Submission { task, fingerprint }, when_full))
        }
        (_, _, wrong) => Err(wrong),
    }
}

/// A hash of what is asked for, by which a repeated `request_id` is told from a
/// reused one. What is not part of the task does not count, nor does whether the
/// default queue was spelled out. It is of the request, not of what defaults made
/// of it: a server whose defaults were changed still knows its tasks again. Fields
/// that later versions add do not change it.
fn fingerprint(request: &v1::SubmitRequest) -> [u8; 16] {
    if request.request_id.is_empty() {
        return [0; 16];
    }
    let mut content = request.clone();
    content.request_id.clear();
    content.when_full = 0;
    if content.queue.is_empty() {
        content.queue.push_str(DEFAULT_QUEUE);
    }
    let mut hasher = SipHasher24::new();
    hasher.write(&content.encode_to_vec());
    hasher.finish128().as_bytes()
}

fn when_full(given: i32, checks: &mut Checks) -> WhenFull {
    match v1::WhenFull::try_from(given) {
        Ok(v1::WhenFull::Unspecified | v1::WhenFull::Wait) => WhenFull::Wait,
        Ok(v1::WhenFull::Reject) => WhenFull::Reject,
        Err(_) => {
            checks.wrong("when_full", format!("{given} is neither WAIT (1) nor REJECT (2)"));
            WhenFull::Reject
        }
    }
}

fn payload(
    given: Option<submit_request::Payload>,
    rules: &Rules,
    checks: &mut Checks,
) -> Option<Data> {
    let (field, data) = match given {
        None => return Some(Data::Empty),
        Some(submit_request::Payload::Data(bytes)) => ("data", Data::Bytes(bytes)),
        // JSON can be shorter than the message, and both are kept in memory.
        Some(submit_request::Payload::Args(fields))
            if fields.encoded_len() > 2 * rules.max_payload.max(1 << 10) =>
        {
            let (size, limit) = (fields.encoded_len(), rules.max_payload);
            checks.wrong("args", format!("has {size} bytes as a message; a payload has at most {limit}, and twice that as a message"));
            return None;
        }
        Some(submit_request::Payload::Args(fields)) => match json::from_struct(fields, "args") {
            Ok(fields) => {
                ("args", Data::Json(serde_json::Value::Object(fields).to_string().into()))
            }
            Err(path) => {
                checks.wrong(&path, "JSON has no form for NaN and infinities");
                return None;
            }
        },
    };
    let (size, limit) = (data.len(), rules.max_payload);
    if size > limit {
        checks.wrong(field, format!("has {size} bytes; a payload has at most {limit}"));
        return None;
    }
    Some(data)
}

fn kind(
    given: &str,
    payload: Option<&Data>,
    registry: &Registry,
    checks: &mut Checks,
) -> Option<std::sync::Arc<str>> {
    if given.is_empty() {
        let known = registry.kinds().collect::<Vec<_>>().join(", ");
        checks.wrong("kind", format!("is required; this server has: {known}"));
        return None;
    }
    if given.len() > MAX_KIND {
        checks.wrong("kind", format!("has {} bytes; at most {MAX_KIND}", given.len()));
        return None;
    }
    // A payload that is wrong already is not shown to the handler; the kind is
    // checked all the same.
    let known = registry.kind(given);
    if payload.is_some() || known.is_none() {
        let checked = registry.check(given, payload.unwrap_or(&Data::Empty));
        checks.violations.extend(checked.err().unwrap_or_default());
    }
    known
}

const DEFAULT_QUEUE: &str = "default";

fn queue(given: &str, checks: &mut Checks) -> std::sync::Arc<str> {
    if given.is_empty() {
        return DEFAULT_QUEUE.into();
    }
    check_name("queue", given, MAX_QUEUE, checks);
    given.into()
}

fn due(
    delay: Option<prost_types::Duration>,
    run_at: Option<prost_types::Timestamp>,
    checks: &mut Checks,
) -> Due {
    if delay.is_some() && run_at.is_some() {
        checks.wrong("run_at", "goes not together with delay: give one of them");
    }
    if let Some(delay) = checks.duration("delay", delay, (Duration::ZERO, MAX_DELAY)) {
        return if delay.is_zero() { Due::Now } else { Due::After(delay) };
    }
    let Some(given) = run_at else { return Due::Now };
    let horizon = now().after(MAX_DELAY);
    match time_of(given) {
        Some(time) if time <= horizon => Due::At(time),
        Some(_) => {
            checks.wrong("run_at", "is more than 366 d ahead");
            Due::Now
        }
        None => {
            checks.wrong("run_at", "is no time between the years 1 and 9999");
            Due::Now
        }
    }
}

fn time_of(given: prost_types::Timestamp) -> Option<Timestamp> {
    /// 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, as the well-known type has it.
    const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let nanos = i64::from(given.nanos);
    if !SECONDS.contains(&given.seconds) || !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    Some(Timestamp(given.seconds * 1_000_000 + nanos / 1_000))
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::default().after(since_epoch.unwrap_or_default())
}

fn retry(given: Option<v1::RetryPolicy>, rules: &Rules, checks: &mut Checks) -> RetryPolicy {
    let given = given.unwrap_or_default();
    if given.max_attempts > MAX_ATTEMPTS {
        let wrong = format!("{} is not within 1 to {MAX_ATTEMPTS}", given.max_attempts);
        checks.wrong("retry.max_attempts", wrong);
    }
    let bounds = (MILLISECOND, DAY);
    let initial = checks.duration("retry.initial_backoff", given.initial_backoff, bounds);
    let initial = initial.unwrap_or(Duration::from_secs(1));
    let max = checks.duration("retry.max_backoff", given.max_backoff, bounds);
    if max.is_some_and(|max| max < initial) {
        let wrong = format!("is below the initial backoff of {}", humane(initial));
        checks.wrong("retry.max_backoff", wrong);
    }
    RetryPolicy {
        max_attempts: match given.max_attempts {
            0 => rules.max_attempts,
            attempts => attempts,
        },
        initial_backoff: initial,
        max_backoff: max.unwrap_or(Duration::from_mins(1).max(initial)),
    }
}

fn check_labels(labels: &BTreeMap<String, String>, checks: &mut Checks) {
    if labels.len() > MAX_LABELS {
        let wrong = format!("there are {}; a task has at most {MAX_LABELS}", labels.len());
        checks.wrong("labels", wrong);
    }
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    for (key, value) in labels {
        let field = format!("labels[{key:?}]");
        if key.is_empty() || key.len() > MAX_LABEL_KEY || !key.bytes().all(known) {
            let wrong = format!("a key has 1 to {MAX_LABEL_KEY} of A-Z a-z 0-9 . _ - /");
            checks.wrong(&field, wrong);
        }
        if value.len() > MAX_LABEL_VALUE {
            let wrong = format!("the value has {} bytes; at most {MAX_LABEL_VALUE}", value.len());
            checks.wrong(&field, wrong);
        }
    }
}

fn check_request_id(given: &str, checks: &mut Checks) {
    if given.len() > MAX_REQUEST_ID {
        let wrong = format!("has {} bytes; at most {MAX_REQUEST_ID}", given.len());
        checks.wrong("request_id", wrong);
    }
    if given.chars().any(char::is_control) {
        checks.wrong("request_id", "has control characters");
    }
}
