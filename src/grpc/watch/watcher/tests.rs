//! Watchers over a scripted history that loses its beginning while they read.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use prost::Message as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    event::{Event, EventType, Subject},
    events::{
        BoxFuture, CursorCodec, Encoder, EventFilterSpec, History, Incarnation, Publisher, hub,
    },
    proto::v1,
    task::{TaskId, Timestamp},
};

/// A log that reads one batch at a time, from `oldest` on, or not at all.
struct Log {
    batches: Mutex<Vec<EventBatch>>,
    oldest: AtomicU64,
    is_broken: AtomicBool,
}

impl History for Log {
    fn read(&self, after: Seq, _: usize) -> BoxFuture<'_, Result<Vec<EventBatch>, Unreadable>> {
        let oldest = Seq(self.oldest.load(Ordering::Relaxed));
        let batches = self.batches.lock().unwrap();
        let read = if self.is_broken.load(Ordering::Relaxed) {
            Err(Unreadable::Broken("the disk".into()))
        } else if after.next() < oldest {
            Err(Unreadable::Expired(oldest))
        } else {
            Ok(batches.iter().find(|batch| batch.last() > after).cloned().into_iter().collect())
        };
        Box::pin(async move { read })
    }
}

struct Harness {
    publisher: Publisher,
    encoder: Encoder,
    log: Arc<Log>,
    feed: Feed,
}

impl Harness {
    fn new() -> Self {
        let incarnations = vec![Incarnation { mark: 1, first: Seq(1) }];
        let (publisher, hub) = hub(Seq(0), CursorCodec::new(1, incarnations));
        let log = Arc::new(Log {
            batches: Mutex::default(),
            oldest: AtomicU64::new(1),
            is_broken: AtomicBool::new(false),
        });
        let feed = Feed { hub, history: Arc::clone(&log) as _ };
        Self { publisher, encoder: Encoder::new(Seq(0)), log, feed }
    }

    /// A commit of ten events of the queue.
    fn commit(&mut self, queue: &str) {
        (1..=10).for_each(|number| self.push(number, queue));
        let batch = EventBatch::joined(&self.encoder.take_all()).expect("events");
        self.publish(batch);
    }

    fn push(&mut self, number: u64, queue: &str) {
        let id = TaskId::new(number, 0);
        let subject = Subject { id, queue, kind: "k", attempt: 0, labels: &[] };
        self.encoder.push(&Event::new(EventType::Submitted, Timestamp(1), Some(subject)));
    }

    fn publish(&mut self, batch: EventBatch) {
        self.log.batches.lock().unwrap().push(batch.clone());
        self.publisher.publish(batch);
    }

    fn watch(&self, queue: Option<&str>, over_gaps: bool) -> Steps {
        let queues = queue.map(str::to_owned).into_iter().collect();
        let terms = Terms {
            filter: EventFilter::new(EventFilterSpec { queues, ..EventFilterSpec::default() }),
            snapshot: None,
            stop_when_caught_up: true,
            over_gaps,
            from_oldest: false,
        };
        let (tail, feed) = (self.feed.tail(Some(Seq(0))), self.feed.clone());
        let timer = HeartbeatTimer::new(Duration::from_hours(1));
        let never = Box::pin(std::future::pending());
        Watcher::begin(tail, terms, feed, Arc::default(), timer, never)
    }

    fn cursor(&self, seq: u64) -> String {
        self.feed.hub.cursor(Seq(seq)).to_string()
    }
}

#[tokio::test]
async fn what_retention_overtakes_in_the_middle_is_told() {
    let mut harness = Harness::new();
    (0..4).for_each(|_| harness.commit("q"));
    for (queue, over_gaps) in [(None, true), (Some("q"), true), (None, false), (Some("q"), false)] {
        harness.log.oldest.store(1, Ordering::Relaxed);
        let mut steps = harness.watch(queue, over_gaps);
        let _started = steps.next().await.unwrap().unwrap();
        assert_eq!(steps.next().await.unwrap().unwrap().cursor, harness.cursor(10));
        harness.log.oldest.store(31, Ordering::Relaxed);
        let next = steps.next().await.unwrap();
        if !over_gaps {
            assert_eq!(next.unwrap_err().code(), Code::OutOfRange);
            assert!(steps.next().await.is_none());
            continue;
        }
        let gap = next.unwrap();
        let told = WatchGap {
            from_cursor: harness.cursor(10),
            to_cursor: harness.cursor(30),
            missing_events: 20,
        };
        assert_eq!((gap.cursor, gap.control), (harness.cursor(30), Some(Control::Gap(told))));
        assert_eq!(steps.next().await.unwrap().unwrap().cursor, harness.cursor(40));
        assert_eq!(steps.next().await.unwrap().unwrap().control, Some(Control::CaughtUp));
        assert!(steps.next().await.is_none(), "it was to stop");
    }
}

#[tokio::test]
async fn what_a_filter_leaves_out_is_no_message_and_moves_the_cursor() {
    let mut harness = Harness::new();
    (0..500).for_each(|_| harness.commit("others"));
    harness.commit("q");
    harness.commit("others");
    let steps: Vec<_> = harness.watch(Some("q"), false).collect().await;
    let told: Vec<_> = steps
        .into_iter()
        .map(|step| step.unwrap())
        .map(|message| (message.cursor, !message.events.is_empty()))
        .collect();
    let expected =
        [(harness.cursor(0), false), (harness.cursor(5_010), true), (harness.cursor(5_020), false)];
    assert_eq!(told, expected, "started, the one batch, and caught up");
}

#[tokio::test]
async fn a_large_batch_is_picked_in_several_messages() {
    const EVENTS: u64 = 30_000;
    let mut harness = Harness::new();
    let is_left_out = |seq: u64| seq <= EVENTS && seq % 5 == 1;
    (1..=EVENTS).for_each(|seq| harness.push(seq, ["q", "others"][usize::from(is_left_out(seq))]));
    let batch = EventBatch::joined(&harness.encoder.take_all()).expect("events");
    assert!(batch.data().len() > 3 * MAX_PIECE_BYTES);
    harness.publish(batch);
    harness.commit("q");
    let mut steps = harness.watch(Some("q"), false);
    let (mut seen, mut messages) = (Vec::new(), 0);
    while let Some(step) = steps.next().await {
        let message = step.unwrap();
        if let Some(control) = message.control {
            assert_eq!(control == Control::CaughtUp, seen.len() as u64 == EVENTS / 5 * 4 + 10);
            continue;
        }
        assert!(message.events.len() <= MAX_PIECE_BYTES);
        let told = v1::WatchEventsResponse::decode(message.events).unwrap().events;
        seen.extend(told.into_iter().map(|event| event.seq));
        // Whoever resumes after it misses nothing and sees nothing twice.
        let (next, last) = (seen.last().unwrap() + 1, harness.cursor(EVENTS));
        let cursors = [next - 1, next].map(|seq| harness.cursor(seq));
        assert!(cursors.contains(&message.cursor) || message.cursor == last);
        assert!(message.cursor != cursors[1] || is_left_out(next));
        messages += 1;
    }
    let expected = (1..=EVENTS + 10).filter(|seq| !is_left_out(*seq));
    assert_eq!(seen, expected.collect::<Vec<_>>());
    assert!(messages > 3, "{messages} messages");
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_not_passed_over() {
    for queue in [None, Some("q")] {
        let mut harness = Harness::new();
        harness.commit("q");
        harness.log.is_broken.store(true, Ordering::Relaxed);
        let steps: Vec<_> = harness.watch(queue, true).collect().await;
        let [Ok(_started), Err(status)] = &steps[..] else { panic!("{steps:?}") };
        let reason = status.get_details_error_info().unwrap().reason;
        assert_eq!((status.code(), reason.as_str()), (Code::Internal, "HISTORY_UNREADABLE"));
    }
    // Damage that only shows when the batch is looked through.
    let mut harness = Harness::new();
    harness.commit("q");
    (1..=2).for_each(|number| harness.push(number, "q"));
    let whole = EventBatch::joined(&harness.encoder.take_all()).expect("events");
    let cut = whole.data().slice(..whole.data().len() - 1);
    harness.publish(EventBatch::new(whole.first(), whole.last(), cut, Box::default()));
    let steps: Vec<_> = harness.watch(Some("q"), true).collect().await;
    let [Ok(_started), Ok(first), Err(status)] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(first.cursor, harness.cursor(10));
    let reason = status.get_details_error_info().unwrap().reason;
    assert_eq!((status.code(), reason.as_str()), (Code::Internal, "DAMAGED"));
}
