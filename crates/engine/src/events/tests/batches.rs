//! What the encoder writes, and batches cut to pieces.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};
use prost::Message as _;

use super::*;
use crate::{
    event::{Event, EventType, Subject},
    proto::v1,
    task::{Failure, Timestamp, WorkerId},
};

/// With each type as the wire has it, and whether it ends a task.
const TYPES: [(EventType, v1::EventType, bool); 13] = [
    (EventType::Submitted, v1::EventType::Submitted, false),
    (EventType::Started, v1::EventType::Started, false),
    (EventType::Succeeded, v1::EventType::Succeeded, true),
    (EventType::RetryScheduled, v1::EventType::RetryScheduled, false),
    (EventType::Failed, v1::EventType::Failed, true),
    (EventType::Interrupted, v1::EventType::Interrupted, false),
    (EventType::Cancelled, v1::EventType::Cancelled, true),
    (EventType::Redriven, v1::EventType::Redriven, false),
    (EventType::WorkerStarted, v1::EventType::WorkerStarted, false),
    (EventType::WorkerStopped, v1::EventType::WorkerStopped, false),
    (EventType::Draining, v1::EventType::Draining, false),
    (EventType::QueuePaused, v1::EventType::QueuePaused, false),
    (EventType::QueueResumed, v1::EventType::QueueResumed, false),
];

type TaskParts = (u64, u64, String, String, u32);

/// An event that owns what it says.
#[derive(Clone, Debug)]
struct Said {
    time: i64,
    which: usize,
    task: Option<TaskParts>,
    queue: Option<String>,
    worker: Option<u32>,
    waited: Option<Duration>,
    ran: Option<Duration>,
    error: Option<(String, String)>,
    next_due: Option<i64>,
    labels: BTreeMap<String, String>,
}

fn time() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(-1), Just(i64::MIN), Just(i64::MAX), Just(1_000_000), any::<i64>()]
}

fn span() -> impl Strategy<Value = Duration> {
    let any = (0..=i64::MAX as u64, 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s, n));
    prop_oneof![Just(Duration::ZERO), (0..2_000_000u64).prop_map(Duration::from_micros), any]
}

prop_compose! {
    fn said()(
        (time, which) in (time(), 0..TYPES.len()),
        task in option::of((1..u64::MAX, any::<u64>(), "[a-z]{0,70}", "\\PC{0,9}", 0..3u32)),
        worker in option::of(any::<u32>()),
        (waited, ran) in (option::of(span()), option::of(span())),
        error in option::of(("[A-Z_]{0,9}", "\\PC{0,300}")),
        (next_due, queue) in (option::of(time()), option::of("[a-z]{1,9}")),
        labels in btree_map("[a-z./]{1,63}", "\\PC{0,90}", 0..4),
    ) -> Said {
        let labels = if task.is_some() { labels } else { BTreeMap::new() };
        Said { time, which, task, queue, worker, waited, ran, error, next_due, labels }
    }
}

impl Said {
    fn push(&self, encoder: &mut Encoder) -> Seq {
        let error = self.error.clone().map(|(reason, message)| Failure { reason, message });
        let labels = v1::Event { labels: self.labels.clone(), ..v1::Event::default() };
        let labels = labels.encode_to_vec();
        let task = self.task.as_ref().map(|(number, tag, queue, kind, attempt)| Subject {
            id: TaskId::new(*number, *tag),
            queue,
            kind,
            attempt: *attempt,
            labels: &labels,
        });
        encoder.push(&Event {
            time: Timestamp(self.time),
            event_type: TYPES[self.which].0,
            task,
            queue: self.queue.as_deref(),
            worker: self.worker.map(WorkerId),
            waited: self.waited,
            ran: self.ran,
            error: error.as_ref(),
            next_due: self.next_due.map(Timestamp),
        })
    }

    fn ends(&self) -> Option<u64> {
        self.task.as_ref().filter(|_| TYPES[self.which].2).map(|task| task.0)
    }

    fn on_the_wire(self, seq: Seq) -> v1::Event {
        let none = (String::new(), self.queue.unwrap_or_default(), String::new(), 0);
        let (id, queue, kind, attempt) = self
            .task
            .map_or(none, |task| (TaskId::new(task.0, task.1).to_string(), task.2, task.3, task.4));
        v1::Event {
            seq: seq.0,
            time: Some(wire_time(self.time)),
            r#type: TYPES[self.which].1.into(),
            task_id: id,
            queue,
            kind,
            attempt,
            worker: self.worker.map(|worker| format!("worker-{worker}")).unwrap_or_default(),
            waited: self.waited.map(wire_span),
            ran: self.ran.map(wire_span),
            error: self.error.map(|(reason, message)| v1::TaskError { reason, message }),
            next_due_time: self.next_due.map(wire_time),
            labels: self.labels,
        }
    }
}

/// The seconds go down to the whole one before, so that the rest is positive.
fn wire_time(micros: i64) -> prost_types::Timestamp {
    let mut seconds = micros / 1_000_000;
    let mut rest = micros % 1_000_000;
    if rest < 0 {
        seconds -= 1;
        rest += 1_000_000;
    }
    prost_types::Timestamp { seconds, nanos: i32::try_from(rest * 1_000).unwrap() }
}

fn wire_span(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap(),
        nanos: i32::try_from(span.subsec_nanos()).unwrap(),
    }
}

fn decode(batch: &EventBatch) -> Vec<v1::Event> {
    v1::WatchEventsResponse::decode(batch.data().clone()).expect("whole events").events
}

fn numbers(batch: &EventBatch) -> Vec<u64> {
    decode(batch).iter().map(|event| event.seq).collect()
}

fn encoded(first: u64, events: &[Said]) -> EventBatch {
    let mut encoder = Encoder::new(Seq(first).previous());
    for event in events {
        event.push(&mut encoder);
    }
    EventBatch::joined(&encoder.take_all()).expect("events")
}

proptest! {
    #[test]
    fn what_is_encoded_is_what_was_pushed(
        newest in 0..u64::MAX / 2,
        groups in vec(vec(said(), 0..8), 1..4),
    ) {
        let mut encoder = Encoder::new(Seq(newest));
        let mut next = Seq(newest).next();
        for group in groups {
            prop_assert!(encoder.is_empty());
            let (first, count) = (next, group.len());
            let ended: Vec<u64> = group.iter().filter_map(Said::ends).collect();
            let mut expected = Vec::new();
            for event in group {
                prop_assert_eq!(event.push(&mut encoder), next);
                expected.push(event.on_the_wire(next));
                next = next.next();
            }
            prop_assert_eq!(encoder.newest(), next.previous());
            let Some(batch) = EventBatch::joined(&encoder.take_all()) else {
                prop_assert_eq!(count, 0);
                continue;
            };
            prop_assert_eq!((batch.first(), batch.last()), (first, next.previous()));
            prop_assert_eq!(batch.ended(), &ended[..]);
            let message = v1::WatchEventsResponse { events: expected, ..Default::default() };
            prop_assert_eq!(decode(&batch), &message.events[..]);
            prop_assert_eq!(batch.data(), &message.encode_to_vec(), "the generated bytes");
        }
    }

    #[test]
    fn pieces_of_any_size_hold_every_event_once_in_order(
        first in 1..1_000u64,
        events in vec(said(), 1..40),
        sizes in vec(0..2_000usize, 1..60),
    ) {
        let whole = encoded(first, &events);
        let mut sizes = sizes.into_iter().chain(std::iter::repeat(usize::MAX));
        let mut rest = Some(whole.clone());
        let (mut seen, mut bytes) = (Vec::new(), Vec::new());
        while let Some(batch) = rest {
            let most = sizes.next().unwrap();
            let (piece, more) = batch.split(most);
            let piece = piece.expect("a piece");
            let held = numbers(&piece);
            prop_assert!(piece.data().len() <= most || held.len() == 1);
            prop_assert_eq!(held.first(), Some(&piece.first().0));
            prop_assert_eq!(held.last(), Some(&piece.last().0));
            if let Some(more) = &more {
                let head = more.clone().split(0).0.unwrap();
                prop_assert!(piece.data().len() + head.data().len() > most, "one more would fit");
            }
            seen.extend(held);
            bytes.extend_from_slice(piece.data());
            rest = more;
        }
        prop_assert_eq!(seen, numbers(&whole));
        prop_assert_eq!(&bytes[..], &whole.data()[..]);
    }

    #[test]
    fn after_leaves_just_what_follows(
        first in 1..50u64,
        events in vec(said(), 1..40),
        after in 0..100u64,
    ) {
        let whole = encoded(first, &events);
        let expected: Vec<_> = numbers(&whole).into_iter().filter(|seq| *seq > after).collect();
        match whole.after(Seq(after)) {
            None => prop_assert!(expected.is_empty()),
            Some(left) => {
                prop_assert_eq!(numbers(&left), &expected[..]);
                prop_assert_eq!(Some(&left.first().0), expected.first());
                prop_assert_eq!(Some(&left.last().0), expected.last());
            }
        }
    }

    #[test]
    fn damaged_bytes_never_panic(
        data in vec(any::<u8>(), 0..60),
        (first, count) in (1..9u64, 0..9u64),
        (most, after) in (0..70usize, 0..20u64),
    ) {
        let last = Seq(first + count);
        let batch = EventBatch::new(Seq(first), last, Bytes::from(data), Box::default());
        drop(batch.clone().after(Seq(after)));
        let mut rest = Some(batch);
        for _ in 0..100 {
            let Some(batch) = rest else { break };
            rest = batch.split(most).1;
        }
    }
}

#[test]
fn a_truncated_event_is_no_event() {
    let event = Said {
        time: 1,
        which: 0,
        task: Some((1, 2, "queue".into(), "kind".into(), 0)),
        queue: None,
        worker: None,
        waited: None,
        ran: None,
        error: None,
        next_due: None,
        labels: BTreeMap::new(),
    };
    let whole = encoded(1, &[event]);
    let data = whole.data().slice(..whole.data().len() - 1);
    let batch = EventBatch::new(Seq(1), Seq(1), data, Box::default());
    assert_eq!(batch.clone().split(1), (None, None));
    assert_eq!(batch.after(Seq(1)), None);
}

#[test]
fn a_large_commit_makes_batches_of_a_bounded_size() {
    let mut encoder = Encoder::new(Seq(0));
    let labels = vec![7; 5_000];
    let subject = |number| Subject {
        id: TaskId::new(number, 0),
        queue: "q",
        kind: "k",
        attempt: 1,
        labels: &labels,
    };
    for number in 1..=1_000 {
        encoder.push(&Event::new(EventType::Failed, Timestamp(1), Some(subject(number))));
    }
    let bytes = encoder.bytes();
    let batches = encoder.take_all();
    assert_eq!(bytes, batches.iter().map(|batch| batch.data().len()).sum::<usize>());
    assert!(batches.len() > 10, "{} batches", batches.len());
    let mut next = Seq(1);
    let mut ended = Vec::new();
    for batch in &batches {
        assert!(batch.data().len() <= MAX_BATCH_BYTES);
        assert_eq!(batch.first(), next);
        ended.extend_from_slice(batch.ended());
        next = batch.last().next();
    }
    assert_eq!(ended, (1..=1_000).collect::<Vec<_>>());
    assert!(encoder.is_empty());
}
