//! Events as bytes: `taskyard.v1.Event`, written by hand.
//!
//! The generated message owns its strings, so that filling it costs several
//! allocations for every event, on the one thread that commits. This writes the
//! same bytes from borrowed fields; a test holds it against the generated
//! message, field by field.

use std::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

use super::EventBatch;
use crate::{
    event::{Event, EventType, Seq, Subject},
    proto::v1,
    task::{Failure, Timestamp},
};

/// The field number of `WatchEventsResponse.events`.
const EVENTS_FIELD: u32 = 2;

/// Bytes of events in one batch, unless a single event has more. A commit with more
/// of them (labels are repeated by every event of their task) makes several batches,
/// so that nobody who holds one holds much.
pub const MAX_BATCH_BYTES: usize = 256 << 10;

/// Bytes before an event at most: its tag and its length.
const MAX_HEAD: usize = 11;

/// Collects the events of one commit.
#[derive(Debug)]
pub struct Encoder {
    newest: Seq,
    first: Seq,
    data: Vec<u8>,
    body: Vec<u8>,
    text: String,
    ended: Vec<u64>,
    /// Batches of this commit that are full.
    full: Vec<EventBatch>,
}

impl Encoder {
    /// An encoder that numbers on from `newest`.
    #[must_use]
    pub fn new(newest: Seq) -> Self {
        Self {
            newest,
            first: newest.next(),
            data: Vec::new(),
            body: Vec::new(),
            text: String::new(),
            ended: Vec::new(),
            full: Vec::new(),
        }
    }

    /// The newest event's number.
    pub fn newest(&self) -> Seq {
        self.newest
    }

    /// Whether nothing was added since the last commit.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty() && self.full.is_empty()
    }

    /// Bytes of all events since the last commit.
    pub fn bytes(&self) -> usize {
        self.data.len() + self.full.iter().map(|batch| batch.data().len()).sum::<usize>()
    }

    /// Adds an event, and returns the number that it got.
    pub fn push(&mut self, event: &Event<'_>) -> Seq {
        self.body.clear();
        self.encode(event, self.newest.next());
        if !self.data.is_empty() && self.data.len() + self.body.len() + MAX_HEAD > MAX_BATCH_BYTES {
            self.seal();
        }
        self.newest = self.newest.next();
        encode_key(EVENTS_FIELD, WireType::LengthDelimited, &mut self.data);
        encode_varint(self.body.len() as u64, &mut self.data);
        self.data.extend_from_slice(&self.body);
        let ends = matches!(
            event.event_type,
            EventType::Succeeded | EventType::Failed | EventType::Cancelled
        );
        if let (true, Some(task)) = (ends, event.task) {
            self.ended.push(task.id.number());
        }
        self.newest
    }

    /// Everything since the last commit, in order: one batch, mostly.
    pub fn take_all(&mut self) -> Vec<EventBatch> {
        if !self.data.is_empty() {
            self.seal();
        }
        std::mem::take(&mut self.full)
    }

    fn seal(&mut self) {
        let data = Bytes::from(std::mem::take(&mut self.data));
        let ended = std::mem::take(&mut self.ended).into_boxed_slice();
        self.full.push(EventBatch::new(self.first, self.newest, data, ended));
        self.first = self.newest.next();
    }

    fn encode(&mut self, event: &Event<'_>, seq: Seq) {
        let Self { body, text, .. } = self;
        put_uint(body, 1, seq.0);
        put_time(body, 2, event.time);
        put_uint(body, 3, wire_type(event.event_type));
        if let Some(task) = event.task {
            encode_subject(body, text, task);
        } else if let Some(queue) = event.queue {
            put_str(body, 5, queue);
        }
        if let Some(worker) = event.worker {
            put_display(body, text, 8, worker);
        }
        if let Some(waited) = event.waited {
            put_span(body, 9, waited);
        }
        if let Some(ran) = event.ran {
            put_span(body, 10, ran);
        }
        if let Some(error) = event.error {
            let error = encode_failure(error);
            put_key(body, 11, error.len());
            body.extend_from_slice(&error);
        }
        if let Some(due) = event.next_due {
            put_time(body, 12, due);
        }
        // Encoded when the task was submitted, as field 13 repeats them.
        if let Some(task) = event.task {
            body.extend_from_slice(task.labels);
        }
    }
}

fn encode_subject(body: &mut Vec<u8>, text: &mut String, task: Subject<'_>) {
    put_display(body, text, 4, task.id);
    put_str(body, 5, task.queue);
    put_str(body, 6, task.kind);
    if task.attempt > 0 {
        put_uint(body, 7, task.attempt.into());
    }
}

/// Rare, so the generated message may do it.
fn encode_failure(failure: &Failure) -> Vec<u8> {
    let Failure { reason, message } = failure.clone();
    v1::TaskError { reason, message }.encode_to_vec()
}

fn put_key(out: &mut Vec<u8>, field: u32, length: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn put_uint(out: &mut Vec<u8>, field: u32, value: u64) {
    encode_key(field, WireType::Varint, out);
    encode_varint(value, out);
}

fn put_str(out: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        put_key(out, field, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

fn put_display(out: &mut Vec<u8>, text: &mut String, field: u32, value: impl std::fmt::Display) {
    text.clear();
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
    put_str(out, field, text);
}

fn put_time(out: &mut Vec<u8>, field: u32, time: Timestamp) {
    let seconds = time.0.div_euclid(1_000_000);
    let nanos = time.0.rem_euclid(1_000_000) * 1000;
    put_seconds_nanos(out, field, seconds, nanos);
}

fn put_span(out: &mut Vec<u8>, field: u32, span: Duration) {
    let seconds = i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
    put_seconds_nanos(out, field, seconds, span.subsec_nanos().into());
}

/// `google.protobuf.Timestamp` and `Duration` have the same fields.
fn put_seconds_nanos(out: &mut Vec<u8>, field: u32, seconds: i64, nanos: i64) {
    encode_key(field, WireType::LengthDelimited, out);
    // Two varints and their keys have at most 22 bytes, so the length has one.
    let length_at = out.len();
    out.push(0);
    for (field, value) in [(1, seconds), (2, nanos)] {
        if value != 0 {
            put_uint(out, field, value.cast_unsigned());
        }
    }
    out[length_at] = u8::try_from(out.len() - length_at - 1).unwrap_or(u8::MAX);
}

fn wire_type(event_type: EventType) -> u64 {
    let wire = match event_type {
        EventType::Submitted => v1::EventType::Submitted,
        EventType::Started => v1::EventType::Started,
        EventType::Succeeded => v1::EventType::Succeeded,
        EventType::RetryScheduled => v1::EventType::RetryScheduled,
        EventType::Failed => v1::EventType::Failed,
        EventType::Interrupted => v1::EventType::Interrupted,
        EventType::Cancelled => v1::EventType::Cancelled,
        EventType::Redriven => v1::EventType::Redriven,
        EventType::WorkerStarted => v1::EventType::WorkerStarted,
        EventType::WorkerStopped => v1::EventType::WorkerStopped,
        EventType::Draining => v1::EventType::Draining,
        EventType::QueuePaused => v1::EventType::QueuePaused,
        EventType::QueueResumed => v1::EventType::QueueResumed,
    };
    u64::from((wire as i32).cast_unsigned())
}
