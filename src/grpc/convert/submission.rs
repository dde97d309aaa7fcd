//! A `SubmitRequest` to a task that may be submitted.

use std::{hash::Hasher as _, sync::Arc, time::Duration};

use prost::Message as _;
use siphasher::sip128::{Hasher128 as _, SipHasher24};
use taskyard_text::closest;

use super::{
    Checks, MAX_KIND, NO_TIME, body, check_labels, check_queue, check_request_id, now,
    retry::retry, time_of,
};
use crate::{
    admission::{Admission, WhenFull},
    handler::{CheckError, Registry},
    proto::v1,
    queue,
    store::Submission,
    task::{Due, NewTask, Timestamp},
};

/// What submissions may have, as configured.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of a payload.
    pub max_payload: usize,
}

const MAX_PRIORITY: i32 = 1_000;
const MAX_DELAY: Duration = Duration::from_hours(8784);
const DEFAULT_QUEUE: &str = "default";
/// Declared queues that are named to somebody who asked for another.
const MAX_QUEUES_NAMED: usize = 20;

/// Checks submissions, one after the other. It remembers the queue of
/// the last one, so many for one queue look it up once; it is not to be kept for
/// longer than one call, or its settings grow old.
#[derive(Debug)]
pub struct SubmissionValidator<'a> {
    rules: Rules,
    registry: &'a Registry,
    admission: &'a Admission,
    last: Option<(Arc<str>, queue::Settings)>,
}

impl<'a> SubmissionValidator<'a> {
    /// A validator that knows of no queue yet.
    pub fn new(rules: Rules, registry: &'a Registry, admission: &'a Admission) -> Self {
        Self { rules, registry, admission, last: None }
    }

    /// Checks a submission.
    ///
    /// # Errors
    /// Everything that is wrong with it; or, if that is nothing, that its payload was not
    /// checked.
    pub fn check(
        &mut self,
        mut request: v1::SubmitRequest,
    ) -> Result<(Submission, WhenFull), CheckError> {
        let mut checks = Checks::default();
        let fingerprint = fingerprint(&mut request);
        let when_full = when_full(request.when_full, &mut checks);
        let payload = body::payload(request.payload.take(), self.rules, &mut checks);
        let kind = kind(&request.kind, self.registry, &mut checks);
        let unchecked = match (&kind, &payload) {
            (Some(kind), Some(payload)) => match self.registry.check(kind, payload) {
                Err(CheckError::Invalid(violations)) => {
                    checks.violations.extend(violations);
                    None
                }
                checked => checked.err(),
            },
            // A payload that is wrong already is not shown to the handler.
            _ => None,
        };
        let (queue, settings) = self.queue(&request.queue, &mut checks);
        if request.priority.unsigned_abs() > MAX_PRIORITY.unsigned_abs() {
            checks.wrong("priority", format!("{} is not within -1000 to 1000", request.priority));
        }
        let due = due(request.delay, request.run_at, &mut checks);
        let body = body::body(payload, &mut request, &settings, &mut checks);
        let retry = retry(request.retry, &settings, &mut checks);
        check_labels("labels", &request.labels, &mut checks);
        check_request_id(&request.request_id, &mut checks);
        let (Some(kind), Some(body)) = (kind, body) else {
            return Err(CheckError::Invalid(checks.violations));
        };
        let task = NewTask {
            kind,
            queue,
            body,
            priority: request.priority,
            due,
            retry,
            labels: request.labels,
            request_id: Some(request.request_id).filter(|id| !id.is_empty()),
        };
        let checked = checks.finish((Submission { task, fingerprint }, when_full));
        match (checked.map_err(CheckError::Invalid), unchecked) {
            (Ok(_), Some(unchecked)) => Err(unchecked),
            (checked, _) => checked,
        }
    }

    /// The queue of this name, and its settings; some others if it is wrong.
    fn queue(&mut self, given: &str, checks: &mut Checks) -> (Arc<str>, queue::Settings) {
        let name = if given.is_empty() { DEFAULT_QUEUE } else { given };
        if let Some((last, settings)) = &self.last
            && **last == *name
        {
            return (Arc::clone(last), *settings);
        }
        let queue: Arc<str> = name.into();
        if !queue::is_name(name) {
            check_queue("queue", name, checks);
            return (queue, queue::Settings::default());
        }
        let Some(settings) = self.admission.settings(name) else {
            checks.wrong("queue", unknown_queue(name, self.admission));
            return (queue, queue::Settings::default());
        };
        self.last = Some((Arc::clone(&queue), settings));
        (queue, settings)
    }
}

/// What is said of a queue that may not exist.
pub fn unknown_queue(name: &str, admission: &Admission) -> String {
    let declared = &admission.queue_config().declared;
    let mut named: Vec<&str> = declared.keys().take(MAX_QUEUES_NAMED).map(AsRef::as_ref).collect();
    if declared.len() > MAX_QUEUES_NAMED {
        named.push("...");
    }
    let named = named.join(", ");
    let meant = closest(name, declared.keys().map(AsRef::as_ref));
    let meant = meant.map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
    format!("there is no queue {name:?}; {meant}the configuration fixes the queues: {named}")
}

/// A hash of what is asked for, by which a repeated `request_id` is told from a
/// reused one. What is not part of the task does not count, nor does whether the
/// default queue was spelled out. It is of the request, not of what defaults made
/// of it: a server whose defaults were changed still knows its tasks again. Fields
/// that later versions add do not change it.
fn fingerprint(request: &mut v1::SubmitRequest) -> [u8; 16] {
    if request.request_id.is_empty() {
        return [0; 16];
    }
    // What does not count is put aside, rather than the rest copied.
    let request_id = std::mem::take(&mut request.request_id);
    let when_full = std::mem::take(&mut request.when_full);
    if request.queue.is_empty() {
        request.queue.push_str(DEFAULT_QUEUE);
    }
    let mut hasher = SipHasher24::new();
    hasher.write(&request.encode_to_vec());
    request.request_id = request_id;
    request.when_full = when_full;
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

fn kind(given: &str, registry: &Registry, checks: &mut Checks) -> Option<Arc<str>> {
    if given.is_empty() {
        let known = registry.kinds().collect::<Vec<_>>().join(", ");
        checks.wrong("kind", format!("is required; this server has: {known}"));
        return None;
    }
    if given.len() > MAX_KIND {
        checks.wrong("kind", format!("has {} bytes; at most {MAX_KIND}", given.len()));
        return None;
    }
    let known = registry.kind(given);
    if known.is_none() {
        checks.wrong("kind", registry.unknown(given));
    }
    known
}

fn due(
    delay: Option<prost_types::Duration>,
    run_at: Option<prost_types::Timestamp>,
    checks: &mut Checks,
) -> Due {
    if delay.is_some() && run_at.is_some() {
        checks.wrong("run_at", "goes not together with delay: give one of them");
    }
    // Both are looked at, so that neither's fault hides behind the contradiction.
    let delay = checks.duration("delay", delay, (Duration::ZERO, MAX_DELAY));
    let time = run_at.and_then(|given| start_time(given, checks));
    match (delay, time) {
        (Some(delay), _) if !delay.is_zero() => Due::After(delay),
        (None, Some(time)) => Due::At(time),
        _ => Due::Now,
    }
}

fn start_time(given: prost_types::Timestamp, checks: &mut Checks) -> Option<Timestamp> {
    let time = time_of(given);
    let horizon = now().after(MAX_DELAY);
    match time {
        None => checks.wrong("run_at", NO_TIME),
        Some(time) if time > horizon => checks.wrong("run_at", "is more than 366 d ahead"),
        Some(_) => return time,
    }
    None
}
