//! Followers of a task over a scripted history.

use std::{sync::Mutex, time::Duration};

use futures_util::StreamExt as _;

use super::*;
use crate::{
    event::{Event, EventType as Type, Subject},
    events::{BoxFuture, CursorCodec, Encoder, Incarnation, Publisher, hub},
    task::Timestamp,
};

const TASK: u64 = 7;

/// What the store would have, and from where on it still has it.
struct Log {
    batches: Mutex<Vec<EventBatch>>,
    oldest: Seq,
}

impl History for Log {
    fn read(&self, after: Seq, _: usize) -> BoxFuture<'_, Result<Vec<EventBatch>, Unreadable>> {
        let batches = self.batches.lock().unwrap();
        let found = if after.next() < self.oldest {
            Err(Unreadable::Expired(self.oldest))
        } else {
            Ok(batches.iter().filter(|batch| batch.last() > after).cloned().collect())
        };
        Box::pin(async move { found })
    }
}

struct Harness {
    publisher: Publisher,
    encoder: Encoder,
    log: Arc<Log>,
    hub: Hub,
}

impl Harness {
    fn keeping_from(oldest: u64) -> Self {
        let incarnations = vec![Incarnation { mark: 1, first: Seq(1) }];
        let (publisher, hub) = hub(Seq(0), CursorCodec::new(1, incarnations));
        let log = Arc::new(Log { batches: Mutex::default(), oldest: Seq(oldest) });
        Self { publisher, encoder: Encoder::new(Seq(0)), log, hub }
    }

    /// One commit of events, each at the time of its number.
    fn commit(&mut self, events: &[(u64, Type)]) {
        for (number, event_type) in events {
            let time = Timestamp(self.encoder.newest().next().0.cast_signed() * 1_000_000);
            let id = TaskId::new(*number, 0);
            let subject = Subject { id, queue: "q", kind: "k", attempt: 1, labels: &[] };
            self.encoder.push(&Event::new(*event_type, time, Some(subject)));
        }
        let batch = EventBatch::joined(&self.encoder.take_all()).expect("events");
        self.log.batches.lock().unwrap().push(batch.clone());
        self.publisher.publish(batch);
    }

    /// Follows the task from its first event on; it `ended` with this event.
    fn follow(&self, ended: Option<i64>, is_known: bool) -> Steps {
        let history: Arc<dyn History> = Arc::clone(&self.log) as _;
        let end = ended.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
        let past = Past {
            newest: self.hub.newest(),
            ended: ended.is_some(),
            end: end.filter(|_| is_known),
        };
        let tail = self.hub.follow(Some(Seq(0)), Arc::clone(&history));
        let life = Life { task: TaskId::new(TASK, 0), tail, past };
        let timer = HeartbeatTimer::new(Duration::from_hours(1));
        let events = (self.hub.clone(), history);
        let never = Box::pin(std::future::pending());
        let ack = SubmitResponse::default();
        Follower::begin(life, ack, events, Arc::default(), timer, never)
    }
}

/// The numbers of the events that a stream shows up to its good end, and its
/// last cursor.
async fn seen(stream: Steps) -> (Vec<u64>, String) {
    let (mut numbers, mut cursor) = (Vec::new(), String::new());
    let all: Vec<_> = tokio::time::timeout(Duration::from_mins(1), stream.collect::<Vec<_>>())
        .await
        .expect("the stream does not end");
    for message in all {
        let message = message.expect("a good end");
        let events = v1::WatchEventsResponse::decode(message.events).expect("whole events").events;
        numbers.extend(events.iter().map(|event| event.seq));
        cursor = message.cursor;
    }
    (numbers, cursor)
}

/// A life with a redrive, among others' events: 1, 3, 4; then 6, 7, 8.
fn redriven(harness: &mut Harness) {
    harness.commit(&[(TASK, Type::Submitted), (9, Type::Submitted), (TASK, Type::Started)]);
    harness.commit(&[(TASK, Type::Failed), (9, Type::Started), (TASK, Type::Redriven)]);
    harness.commit(&[(TASK, Type::Started)]);
    harness.commit(&[(TASK, Type::Succeeded), (9, Type::Succeeded)]);
}

#[tokio::test(start_paused = true)]
async fn a_life_with_a_redrive_is_told_to_its_last_end() {
    let mut harness = Harness::keeping_from(1);
    redriven(&mut harness);
    for is_known in [true, false] {
        let (numbers, cursor) = seen(harness.follow(Some(8), is_known)).await;
        assert_eq!(numbers, [1, 3, 4, 6, 7, 8]);
        let after = if is_known { 8 } else { 9 };
        assert_eq!(cursor, harness.hub.cursor(Seq(after)).to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_is_found_without_reading_everything_after_it() {
    let mut harness = Harness::keeping_from(1);
    redriven(&mut harness);
    harness.commit(&[(9, Type::Submitted)]);
    // What comes after the end cannot be read: nobody does.
    let damaged = bytes::Bytes::from_static(&[1, 2, 3]);
    let (first, last) = (Seq(11), Seq(20));
    let broken = EventBatch::new(first, last, damaged, Box::default());
    harness.log.batches.lock().unwrap().push(broken.clone());
    harness.publisher.publish(broken);
    assert_eq!(seen(harness.follow(Some(8), true)).await.0, [1, 3, 4, 6, 7, 8]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_redriven_is_followed_to_its_next_end() {
    let mut harness = Harness::keeping_from(1);
    harness.commit(&[(TASK, Type::Submitted), (TASK, Type::Started)]);
    harness.commit(&[(TASK, Type::Failed), (TASK, Type::Redriven)]);
    let following = harness.follow(None, false);
    harness.commit(&[(TASK, Type::Started), (TASK, Type::Cancelled), (TASK, Type::Redriven)]);
    let (numbers, cursor) = seen(following).await;
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6], "to its end, and no further");
    assert_eq!(cursor, harness.hub.cursor(Seq(6)).to_string(), "the redrive is not skipped");
}

#[tokio::test(start_paused = true)]
async fn an_end_between_two_looks_is_an_end() {
    let mut harness = Harness::keeping_from(1);
    harness.commit(&[(TASK, Type::Submitted), (TASK, Type::Started), (TASK, Type::Succeeded)]);
    // It had not ended when the task was read, and had when the events were.
    assert_eq!(seen(harness.follow(None, false)).await.0, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_life_whose_beginning_is_gone_is_told_from_what_is_kept() {
    let mut harness = Harness::keeping_from(5);
    redriven(&mut harness);
    assert_eq!(seen(harness.follow(Some(8), true)).await.0, [6, 7, 8]);
    let mut harness = Harness::keeping_from(10);
    redriven(&mut harness);
    assert_eq!(seen(harness.follow(Some(8), true)).await.0, [0; 0], "all of it is gone");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_is_told() {
    let harness = Harness::keeping_from(1);
    let damaged = bytes::Bytes::from_static(&[1, 2, 3]);
    harness.publisher.publish(EventBatch::new(Seq(1), Seq(2), damaged.clone(), Box::default()));
    let batch = EventBatch::new(Seq(1), Seq(2), damaged, Box::default());
    harness.log.batches.lock().unwrap().push(batch);
    let mut stream = harness.follow(None, false);
    assert!(stream.next().await.expect("the acknowledgement").is_ok());
    let end = stream.next().await.expect("a status").expect_err("it cannot be read");
    assert_eq!(end.code(), tonic::Code::Internal);
    assert!(stream.next().await.is_none());
}
