//! Who is taken for one that does not read.

use std::{
    sync::atomic::AtomicBool,
    task::{Context, Poll, Wake, Waker},
};

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tonic::Code;

use super::*;
use crate::{
    events::{CursorCodec, Incarnation, hub},
    grpc::{
        response::EncodedWatchEventsResponse,
        watch::{
            close::Limit,
            guard::{Step, WatchStream},
        },
    },
};

const TIMEOUT: Duration = Duration::from_mins(5);

/// A connection, as its waker sees it.
#[derive(Default)]
struct Connection(AtomicBool);

impl Wake for Connection {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Harness {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
    now: Instant,
}

impl Harness {
    fn new() -> Self {
        let incarnations = vec![Incarnation { mark: 1, first: Seq(1) }];
        let (_, hub) = hub(Seq(9), CursorCodec::new(1, incarnations));
        let limits = Limits { watchers: 9, per_connection: 9, per_peer: 9 };
        Self {
            registry: Arc::new(Registry::new(hub, limits)),
            connection: Arc::default(),
            now: Instant::now(),
        }
    }

    /// A watcher far behind, and what hands it its messages.
    fn watch(&self, limit: Limit) -> (WatchStream, mpsc::UnboundedSender<Step>) {
        let (hand, mut handed) = mpsc::unbounded_channel();
        let guard = self.registry.register(WatcherInfo { peer: None, filter: None }).unwrap();
        guard.stats().begin(Seq(1));
        let steps = futures_util::stream::poll_fn(move |cx| handed.poll_recv(cx));
        (guard.take(Box::pin(steps), limit), hand)
    }

    fn ask(&self, stream: &mut WatchStream) -> Poll<Option<Step>> {
        let waker = Waker::from(Arc::clone(&self.connection));
        stream.poll_next_unpin(&mut Context::from_waker(&waker))
    }

    /// Whether the connection was told that it may ask again.
    fn is_called(&self) -> bool {
        self.connection.0.swap(false, Ordering::Relaxed)
    }

    /// Who is ended after some more time, and why. Ends nobody.
    fn sweep(&mut self, later: Duration) -> Vec<CloseReason> {
        self.now += later;
        self.registry.sweep(self.now, Some(TIMEOUT)).into_iter().map(|(_, end)| end).collect()
    }

    fn is_stalled(&self) -> bool {
        self.registry.list().watchers[0].stalled_for.is_some()
    }
}

fn message() -> EncodedWatchEventsResponse {
    EncodedWatchEventsResponse::default()
}

#[tokio::test]
async fn whoever_waits_for_the_server_is_not_stalled() {
    let mut harness = Harness::new();
    let (mut stream, hand) = harness.watch(None);
    assert!(harness.ask(&mut stream).is_pending());
    for _ in 0..3 {
        assert_eq!(harness.sweep(TIMEOUT), []);
        assert!(!harness.is_stalled());
    }
    hand.send(Ok(message())).unwrap();
    assert!(harness.is_called());
    assert!(harness.ask(&mut stream).is_ready());
    assert!(harness.ask(&mut stream).is_pending());
    assert_eq!(harness.sweep(TIMEOUT), []);
    assert_eq!(harness.sweep(TIMEOUT), []);
}

#[tokio::test]
async fn whoever_does_not_ask_for_the_next_message_is() {
    let mut harness = Harness::new();
    let (mut stream, hand) = harness.watch(None);
    hand.send(Ok(message())).unwrap();
    assert!(harness.ask(&mut stream).is_ready());
    assert_eq!(harness.sweep(Duration::ZERO), [], "it was asked since it was last looked at");
    assert_eq!(harness.sweep(Duration::ZERO), []);
    assert!(harness.is_stalled());
    assert_eq!(harness.sweep(TIMEOUT), [CloseReason::Stalled]);
    assert_eq!(harness.sweep(TIMEOUT), [], "it is not registered any more");
    drop(stream);
}

#[tokio::test]
async fn so_is_whoever_was_called_and_does_not_ask() {
    let mut harness = Harness::new();
    let (mut stream, hand) = harness.watch(None);
    assert!(harness.ask(&mut stream).is_pending());
    assert_eq!(harness.sweep(TIMEOUT), []);
    hand.send(Ok(message())).unwrap();
    assert_eq!(harness.sweep(TIMEOUT), []);
    assert_eq!(harness.sweep(TIMEOUT), [CloseReason::Stalled]);
}

#[tokio::test]
async fn whoever_is_ended_is_called_and_told_why_and_where_to_go_on() {
    for (handed, end, code) in [
        (Some(Seq(4)), CloseReason::Stalled, Code::ResourceExhausted),
        (Some(Seq(4)), CloseReason::Lifetime, Code::Unavailable),
        (None, CloseReason::Stalled, Code::ResourceExhausted),
    ] {
        let harness = Harness::new();
        let (mut stream, hand) = harness.watch(None);
        assert!(harness.ask(&mut stream).is_pending());
        stream.entry().stats.hand(handed, 0);
        assert!(!harness.is_called());
        stream.entry().stop(end);
        assert!(harness.is_called() && hand.is_closed(), "nothing is held for it any more");
        let Poll::Ready(Some(Err(status))) = harness.ask(&mut stream) else { panic!("no status") };
        assert_eq!(status.code(), code);
        let cursor = harness.registry.cursor(handed);
        assert_eq!(status.message().contains(&format!("after {cursor}")), handed.is_some());
        assert!(matches!(harness.ask(&mut stream), Poll::Ready(None)));
    }
}

#[tokio::test]
async fn whoever_does_not_read_is_ended_at_its_limit() {
    let mut harness = Harness::new();
    let limit = Some((harness.now + TIMEOUT / 2, CloseReason::Lifetime));
    let (mut reading, _hand) = harness.watch(limit);
    let (mut unread, hand) = harness.watch(limit);
    assert!(harness.ask(&mut reading).is_pending());
    hand.send(Ok(message())).unwrap();
    assert!(harness.ask(&mut unread).is_ready());
    for _ in 0..2 {
        assert_eq!(harness.sweep(TIMEOUT / 5), []);
    }
    assert_eq!(harness.sweep(TIMEOUT / 5), [CloseReason::Lifetime], "the other one ends by itself");
    assert!(harness.ask(&mut reading).is_pending());
}
