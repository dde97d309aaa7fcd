//! Messages to the domain, with everything that is wrong named at once; and the
//! domain to messages.

use std::{
    collections::BTreeMap,
    hash::Hasher as _,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::{json, status::MAX_VIOLATIONS};
use crate::{
    admission::WhenFull,
    handler::{Registry, Violation},
    proto::v1::{self, submit_request},
    store::{Page, Query, Submission, Task},
    task::{Data, Due, NewTask, RetryPolicy, State, TaskId, Timestamp, WorkerId},
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

const MAX_QUEUE: usize = 63;
const MAX_KIND: usize = 63;
const MAX_LABELS: usize = 16;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 255;
const MAX_REQUEST_ID: usize = 128;
const MAX_PRIORITY: i32 = 1_000;
const MAX_ATTEMPTS: u32 = 100;
const DAY: Duration = Duration::from_hours(24);
const MAX_DELAY: Duration = Duration::from_hours(8784);
const MAX_TIMEOUT: Duration = Duration::from_hours(720);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
struct Checks {
    violations: Vec<Violation>,
}

impl Checks {
    fn wrong(&mut self, field: &str, description: impl Into<String>) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation::new(field, description));
        }
    }

    /// A duration within bounds; `None`, and said why, if it is not one.
    fn duration(
        &mut self,
        field: &str,
        given: Option<prost_types::Duration>,
        (least, most): (Duration, Duration),
    ) -> Option<Duration> {
        let given = given?;
        let bounds = format!("it takes {} to {}", humane(least), humane(most));
        let Some(span) = span_of(given) else {
            let what =
                if given.seconds < 0 || given.nanos < 0 { "is negative" } else { "is no duration" };
            self.wrong(field, format!("{what}; {bounds}"));
            return None;
        };
        if span < least || span > most {
            self.wrong(field, format!("{} is out of bounds; {bounds}", humane(span)));
            return None;
        }
        Some(span)
    }
}

fn span_of(given: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(given.seconds).ok()?;
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// A duration as people write it: whole days and hours where it is one.
fn humane(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{span:?}"),
        s if span.subsec_nanos() != 0 => format!("{:?}", Duration::new(s, span.subsec_nanos())),
        s if s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s => format!("{s} s"),
    }
}

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

fn check_name(field: &str, given: &str, most: usize, checks: &mut Checks) {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let begins = given.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if given.len() > most || !begins || !given.bytes().all(known) {
        checks.wrong(
            field,
            format!("takes 1 to {most} of a-z 0-9 . _ - and begins with a letter or digit"),
        );
    }
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

/// Checks a task's identifier.
///
/// # Errors
/// What is wrong with it.
pub fn task_id(given: &str) -> Result<TaskId, Vec<Violation>> {
    if given.is_empty() {
        return Err(vec![Violation::new("task_id", "is required")]);
    }
    given.parse().map_err(|wrong| vec![Violation::new("task_id", format!("{wrong}"))])
}

/// Checks the timeout of a wait.
///
/// # Errors
/// What is wrong with it.
pub fn wait_timeout(
    given: Option<prost_types::Duration>,
) -> Result<Option<Duration>, Vec<Violation>> {
    let mut checks = Checks::default();
    let timeout = checks.duration("timeout", given, (Duration::ZERO, DAY));
    if checks.violations.is_empty() { Ok(timeout) } else { Err(checks.violations) }
}

/// A watch, checked.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Where it begins.
    pub start: WatchStart,
    /// Silence before a heartbeat, if the watcher says.
    pub heartbeat: Option<Duration>,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With the next event.
    Live,
    /// With the oldest.
    Oldest,
    /// After this cursor.
    After(crate::events::Cursor),
}

/// Checks a watch.
///
/// # Errors
/// Everything that is wrong with it.
pub fn watch(request: &v1::WatchEventsRequest) -> Result<Watch, Vec<Violation>> {
    let mut checks = Checks::default();
    let bounds = (Duration::from_millis(100), Duration::from_hours(1));
    let heartbeat = checks.duration("heartbeat_interval", request.heartbeat_interval, bounds);
    let start = match v1::WatchStart::try_from(request.start) {
        Ok(v1::WatchStart::Oldest) => WatchStart::Oldest,
        Ok(v1::WatchStart::Unspecified | v1::WatchStart::Live) => WatchStart::Live,
        Err(_) => {
            checks.wrong("start", format!("{} is neither LIVE (1) nor OLDEST (2)", request.start));
            WatchStart::Live
        }
    };
    let start = if request.after_cursor.is_empty() {
        start
    } else {
        if request.start != 0 {
            checks.wrong("start", "goes not together with after_cursor: give one of them");
        }
        match request.after_cursor.parse() {
            Ok(cursor) => WatchStart::After(cursor),
            Err(wrong) => {
                checks.wrong("after_cursor", format!("{wrong}"));
                start
            }
        }
    };
    if checks.violations.is_empty() {
        Ok(Watch { start, heartbeat })
    } else {
        Err(checks.violations)
    }
}

/// States in a filter: each of them once, with room for a few repeated.
const MAX_STATES: usize = 16;
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 1_000;

/// Checks a listing.
///
/// # Errors
/// Everything that is wrong with it.
pub fn query(request: v1::ListTasksRequest) -> Result<Query, Vec<Violation>> {
    let mut checks = Checks::default();
    let filter = filter_hash(&request);
    let mut states = Vec::new();
    if request.states.len() > MAX_STATES {
        let wrong = format!("there are {}; at most {MAX_STATES}", request.states.len());
        checks.wrong("states", wrong);
    }
    for (at, given) in request.states.iter().take(MAX_STATES).enumerate() {
        match v1::TaskState::try_from(*given) {
            Ok(v1::TaskState::Unspecified) => states.extend(State::ALL),
            Ok(state) => states.push(state_of(state)),
            Err(_) => checks.wrong(&format!("states[{at}]"), format!("{given} is no state")),
        }
    }
    if !request.queue.is_empty() {
        check_name("queue", &request.queue, MAX_QUEUE, &mut checks);
    }
    let limit = match usize::try_from(request.page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(MAX_PAGE),
        Err(_) => {
            checks.wrong("page_size", "is negative");
            DEFAULT_PAGE
        }
    };
    let after = page_start(&request.page_token, filter, &mut checks);
    if !checks.violations.is_empty() {
        return Err(checks.violations);
    }
    Ok(Query {
        states,
        queue: Some(request.queue).filter(|queue| !queue.is_empty()),
        kind: Some(request.kind).filter(|kind| !kind.is_empty()),
        after,
        limit,
        omit_payloads: request.omit_payloads,
    })
}

/// Recognises the filters that a page token belongs to.
pub fn filter_hash(request: &v1::ListTasksRequest) -> u32 {
    let filters = v1::ListTasksRequest {
        states: request.states.clone(),
        queue: request.queue.clone(),
        kind: request.kind.clone(),
        ..Default::default()
    };
    let mut hasher = SipHasher24::new();
    hasher.write(&filters.encode_to_vec());
    u32::try_from(hasher.finish128().h1 >> 32).unwrap_or_default()
}

/// The token of the page that begins after task `after`.
fn page_token(after: u64, filter: u32) -> String {
    format!("p{filter:08x}{after:x}")
}

fn page_start(token: &str, filter: u32, checks: &mut Checks) -> u64 {
    if token.is_empty() {
        return 0;
    }
    let parsed = token.strip_prefix('p').and_then(|rest| {
        let (of, after) = rest.split_at_checked(8)?;
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        (hex(of) && hex(after)).then_some(())?;
        let after = u64::from_str_radix(after, 16).ok()?;
        Some((u32::from_str_radix(of, 16).ok()?, i64::try_from(after).ok()?.unsigned_abs()))
    });
    match parsed {
        Some((of, after)) if of == filter => after,
        Some(_) => {
            checks.wrong("page_token", "belongs to a query with other filters");
            0
        }
        None => {
            checks.wrong("page_token", "is not a page token: take next_page_token as it is");
            0
        }
    }
}

/// A state as the wire has it.
pub fn state_to(state: State) -> v1::TaskState {
    match state {
        State::Scheduled => v1::TaskState::Scheduled,
        State::Queued => v1::TaskState::Queued,
        State::Running => v1::TaskState::Running,
        State::Succeeded => v1::TaskState::Succeeded,
        State::Failed => v1::TaskState::Failed,
        State::Cancelled => v1::TaskState::Cancelled,
    }
}

fn state_of(state: v1::TaskState) -> State {
    match state {
        v1::TaskState::Scheduled => State::Scheduled,
        v1::TaskState::Unspecified | v1::TaskState::Queued => State::Queued,
        v1::TaskState::Running => State::Running,
        v1::TaskState::Succeeded => State::Succeeded,
        v1::TaskState::Failed => State::Failed,
        v1::TaskState::Cancelled => State::Cancelled,
    }
}

/// Bytes of a page, unless its first task alone has more: below the 4 MiB that
/// most clients accept.
const MAX_PAGE_BYTES: usize = 3 << 20;

/// A page as the wire has it: as many tasks as fit, the others on the next one.
pub fn page(page: Page, filter: u32) -> v1::ListTasksResponse {
    let mut tasks: Vec<v1::Task> = Vec::with_capacity(page.tasks.len());
    let (mut bytes, mut last, mut next) = (0, 0, page.next);
    for found in page.tasks {
        let number = found.id.number();
        let found = task(found);
        bytes += found.encoded_len();
        if bytes > MAX_PAGE_BYTES && !tasks.is_empty() {
            next = Some(last);
            break;
        }
        last = number;
        tasks.push(found);
    }
    let next_page_token = next.map(|after| page_token(after, filter)).unwrap_or_default();
    v1::ListTasksResponse { tasks, next_page_token }
}

/// A task as the wire has it.
pub fn task(task: Task) -> v1::Task {
    let life = task.lifecycle;
    v1::Task {
        task_id: task.id.to_string(),
        queue: task.queue,
        kind: task.kind,
        payload: match task.payload {
            Data::Empty => None,
            Data::Bytes(bytes) => Some(v1::task::Payload::Data(bytes)),
            Data::Json(text) => match serde_json::from_str(&text) {
                Ok(serde_json::Value::Object(args)) => {
                    Some(v1::task::Payload::Args(json::to_struct(args)))
                }
                _ => None,
            },
        },
        priority: task.priority,
        labels: task.labels,
        state: state_to(life.state).into(),
        attempt: life.attempt,
        max_attempts: task.max_attempts,
        worker: task
            .execution
            .map_or_else(String::new, |(worker, _): (WorkerId, _)| worker.to_string()),
        create_time: Some(timestamp(task.created)),
        due_time: Some(timestamp(task.due)),
        start_time: task.execution.map(|(_, started)| timestamp(started)),
        finish_time: task.finished.map(timestamp),
        result: task.result.map(result),
        error: task
            .failure
            .map(|failure| v1::TaskError { reason: failure.reason, message: failure.message }),
        cancel_requested: life.cancel_requested,
        timeout: Some(duration(task.timeout)),
        request_id: task.request_id.unwrap_or_default(),
    }
}

fn result(data: Data) -> v1::TaskResult {
    let output = match data {
        Data::Empty => None,
        Data::Bytes(bytes) => Some(v1::task_result::Output::Data(bytes)),
        Data::Json(text) => serde_json::from_str(&text)
            .ok()
            .map(|json| v1::task_result::Output::Json(json::to_value(json))),
    };
    v1::TaskResult { output }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.0.div_euclid(1_000_000),
        nanos: i32::try_from(time.0.rem_euclid(1_000_000) * 1_000).unwrap_or_default(),
    }
}

fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default(),
    }
}
