//! Batches that are handed out as they were committed.

use std::sync::Mutex;

use super::*;
use crate::{
    event::{Event, EventType},
    task::Timestamp,
};

/// What the store would have.
#[derive(Default)]
struct Log(Mutex<Vec<EventBatch>>);

impl History for Log {
    fn read(&self, after: Seq, _: usize) -> BoxFuture<'_, Result<Vec<EventBatch>, Unreadable>> {
        let batches = self.0.lock().unwrap();
        let found = batches.iter().filter(|batch| batch.last() > after).take(2).cloned().collect();
        Box::pin(async move { Ok(found) })
    }
}

struct Harness {
    publisher: Publisher,
    encoder: Encoder,
    log: Arc<Log>,
    hub: Hub,
}

impl Harness {
    fn new() -> Self {
        let incarnations = vec![Incarnation { mark: 1, first: Seq(1) }];
        let (publisher, hub) = hub(Seq(0), CursorCodec::new(1, incarnations));
        Self { publisher, encoder: Encoder::new(Seq(0)), log: Arc::default(), hub }
    }

    fn commit(&mut self, events: usize) {
        for _ in 0..events {
            self.encoder.push(&Event::new(EventType::Draining, Timestamp(1), None));
        }
        let batch = EventBatch::joined(&self.encoder.take_all()).expect("events");
        self.log.0.lock().unwrap().push(batch.clone());
        self.publisher.publish(batch);
    }

    fn follow(&self, after: Option<u64>) -> Tail {
        self.hub.follow(after.map(Seq), Arc::clone(&self.log) as _)
    }
}

async fn next(tail: &mut Tail) -> (u64, u64) {
    let batch = tail.next_batch().await.expect("more events");
    assert_eq!(tail.cursor(), batch.last());
    (batch.first().0, batch.last().0)
}

#[tokio::test]
async fn batches_come_whole_wherever_one_begins() {
    let mut harness = Harness::new();
    for _ in 0..5 {
        harness.commit(3);
    }
    for after in 0..15 {
        let mut tail = harness.follow(Some(after));
        for first in (after / 3 * 3 + 1..=13).step_by(3) {
            assert_eq!(next(&mut tail).await, (first, first + 2));
        }
        harness.commit(3);
        let newest = harness.encoder.newest().0;
        while tail.cursor() < Seq(newest) {
            next(&mut tail).await;
        }
    }
}

#[tokio::test]
async fn pieces_and_whole_batches_take_turns_without_a_gap() {
    let mut harness = Harness::new();
    let mut tail = harness.follow(None);
    for _ in 0..4 {
        harness.commit(3);
    }
    assert_eq!(next(&mut tail).await, (1, 3));
    let piece = tail.next().await.expect("more events");
    assert_eq!((piece.first().0, piece.last().0), (4, 6));
    assert_eq!(next(&mut tail).await, (7, 9));
    let mut inside = harness.follow(Some(7));
    assert_eq!(inside.next().await.expect("more events").first().0, 8, "a piece is cut");
}

#[tokio::test]
async fn all_who_follow_share_one_outline() {
    let mut harness = Harness::new();
    let (mut one, mut other) = (harness.follow(None), harness.follow(None));
    harness.commit(3);
    let (one, other) = (one.next_batch().await.unwrap(), other.next_batch().await.unwrap());
    let (first, second) = (one.index().unwrap(), other.index().unwrap());
    assert!(std::ptr::eq(first, second), "it was parsed twice");
    assert_eq!(first.events().len(), 3);
}
