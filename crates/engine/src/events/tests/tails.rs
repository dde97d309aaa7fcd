//! Tails over a scripted history: every event once, in order, whatever happens.

use std::{sync::Mutex, time::Duration};

use futures_util::poll;
use proptest::{collection::vec, prelude::*};
use prost::Message as _;
use tokio::{runtime, time::timeout};

use super::*;
use crate::{
    event::{Event, EventType},
    proto::v1,
    task::Timestamp,
};

/// Only a hang exceeds it; in paused time a hang is seen at once.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the store would have: a log that grows, and may turn unreadable.
#[derive(Default)]
struct Log {
    batches: Mutex<Vec<EventBatch>>,
    fault: Mutex<Option<Unreadable>>,
    /// Answers with the wrong batches.
    skips: bool,
}

impl Log {
    fn found(&self, after: Seq, max_bytes: usize) -> Result<Vec<EventBatch>, Unreadable> {
        if let Some(fault) = self.fault.lock().unwrap().clone() {
            return Err(fault);
        }
        let batches = self.batches.lock().unwrap();
        let begin = batches.partition_point(|batch| batch.last() <= after);
        let mut bytes = 0;
        let found = batches[begin..].iter().skip(usize::from(self.skips)).take_while(|batch| {
            let room = bytes < max_bytes.min(2_000);
            bytes += batch.data().len();
            room
        });
        Ok(found.cloned().collect())
    }
}

impl History for Log {
    fn read(
        &self,
        after: Seq,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<EventBatch>, Unreadable>> {
        Box::pin(async move {
            // The answer takes a while, so that it can be abandoned.
            tokio::task::yield_now().await;
            let found = self.found(after, max_bytes);
            tokio::task::yield_now().await;
            found
        })
    }
}

/// The committing end.
struct Harness {
    publisher: Option<Publisher>,
    encoder: Encoder,
    log: Arc<Log>,
    hub: Hub,
}

impl Harness {
    fn with(log: Log) -> Self {
        let incarnations = vec![Incarnation { mark: 1, first: Seq(1) }];
        let (publisher, hub) = hub(Seq(0), CursorCodec::new(1, incarnations));
        let encoder = Encoder::new(Seq(0));
        Self { publisher: Some(publisher), encoder, log: Arc::new(log), hub }
    }

    fn new() -> Self {
        Self::with(Log::default())
    }

    /// One commit: into the log first, then to the watchers.
    fn commit(&mut self, events: u64) {
        for _ in 0..events {
            // The time tells the number once more, independently of the encoder.
            let time = Timestamp(self.encoder.newest().0.cast_signed() + 1);
            self.encoder.push(&Event::new(EventType::Submitted, time, None));
        }
        let batch = EventBatch::joined(&self.encoder.take_all()).expect("events");
        self.log.batches.lock().unwrap().push(batch.clone());
        self.publisher.as_ref().expect("open").publish(batch);
    }

    fn commits(&mut self, batches: usize) {
        (0..batches).for_each(|_| self.commit(1));
    }

    fn close(&mut self) {
        self.publisher = None;
    }

    fn newest(&self) -> u64 {
        self.encoder.newest().0
    }

    fn follow(&self, after: Option<u64>) -> Reader {
        let tail = self.hub.follow(after.map(Seq), Arc::clone(&self.log) as _);
        Reader { seen: tail.cursor().0, tail }
    }
}

/// A tail, and the check of what it delivers.
struct Reader {
    tail: Tail,
    seen: u64,
}

impl Reader {
    fn accept(&mut self, piece: &EventBatch) {
        assert_eq!(piece.first().0, self.seen + 1, "lost or repeated");
        let events = v1::WatchEventsResponse::decode(piece.data().clone()).unwrap().events;
        for event in events {
            self.seen += 1;
            let time = event.time.unwrap();
            let told = time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000;
            assert_eq!((event.seq, told), (self.seen, self.seen.cast_signed()));
        }
        assert_eq!((piece.last().0, self.tail.cursor().0), (self.seen, self.seen));
    }

    async fn read(&mut self) -> Result<(), Ended> {
        let next = timeout(PATIENCE, self.tail.next()).await.expect("the tail hangs");
        next.map(|piece| self.accept(&piece))
    }

    async fn read_to(&mut self, newest: u64) {
        while self.seen < newest {
            self.read().await.expect("more events");
        }
        assert_eq!(self.seen, newest);
        assert!(poll!(Box::pin(self.tail.next())).is_pending(), "there is nothing more");
    }

    /// Polls a few times, then gives up; a piece that came is kept.
    async fn try_read(&mut self, polls: usize) {
        let mut next = Box::pin(self.tail.next());
        for _ in 0..polls {
            if let std::task::Poll::Ready(piece) = poll!(&mut next) {
                drop(next);
                return self.accept(&piece.expect("a piece"));
            }
        }
    }

    /// Everything to the end of the store.
    async fn rest(mut self) -> u64 {
        loop {
            match self.read().await {
                Ok(()) => {}
                Err(ended) => {
                    assert_eq!(ended, Ended::Closed);
                    assert_eq!(self.read().await, Err(Ended::Closed), "and it stays closed");
                    return self.seen;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_tail_sees_only_what_comes() {
    let mut harness = Harness::new();
    harness.commit(3);
    let mut live = harness.follow(None);
    assert_eq!(live.seen, 3);
    harness.commit(2);
    live.read_to(5).await;
}

#[tokio::test(start_paused = true)]
async fn a_cursor_inside_a_commit_is_as_good_as_any() {
    let mut harness = Harness::new();
    harness.commit(10);
    harness.commit(10);
    for after in 0..=20 {
        harness.follow(Some(after)).read_to(20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_tail_that_lags_far_behind_loses_nothing() {
    let mut harness = Harness::new();
    let mut slow = harness.follow(None);
    for lag in [1, BROADCAST_BATCHES - 1, BROADCAST_BATCHES, BROADCAST_BATCHES + 1, 3_000] {
        harness.commits(lag);
        slow.read_to(harness.newest()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_overtaken_again_and_again() {
    let mut harness = Harness::new();
    let mut slow = harness.follow(Some(0));
    for _ in 0..50 {
        harness.commits(BROADCAST_BATCHES * 2);
        slow.read().await.unwrap();
    }
    assert!(slow.seen < harness.newest(), "slower than the store");
    harness.close();
    assert_eq!(slow.rest().await, harness.newest());
}

#[tokio::test(start_paused = true)]
async fn pieces_are_bounded() {
    let mut harness = Harness::new();
    let mut live = harness.follow(None);
    harness.commit(200_000);
    let whole = harness.log.batches.lock().unwrap()[0].data().len();
    assert!(whole > 3 * tail::MAX_PIECE_BYTES);
    while live.seen < 200_000 {
        let piece = live.tail.next().await.unwrap();
        assert!(piece.data().len() <= tail::MAX_PIECE_BYTES);
        live.accept(&piece);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_published_yet_is_not_delivered() {
    let mut harness = Harness::new();
    harness.commits(3);
    let mut reader = harness.follow(Some(0));
    // The log has the next commit, and the hub does not know of it.
    harness.encoder.push(&Event::new(EventType::Submitted, Timestamp(4), None));
    let batch = EventBatch::joined(&harness.encoder.take_all()).expect("an event");
    harness.log.batches.lock().unwrap().push(batch.clone());
    reader.read_to(3).await;
    assert_eq!(harness.hub.resolve(harness.hub.cursor(Seq(reader.seen))), Ok(Seq(3)));
    harness.publisher.as_ref().expect("open").publish(batch);
    reader.read_to(4).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_comes_after_the_last_event() {
    let mut harness = Harness::new();
    let (live, lagging) = (harness.follow(None), harness.follow(None));
    harness.commits(5);
    let idle = harness.follow(None);
    harness.commits(BROADCAST_BATCHES);
    harness.close();
    let late = harness.follow(Some(2));
    for reader in [live, lagging, idle, late] {
        assert_eq!(reader.rest().await, harness.newest());
    }
    assert_eq!(harness.follow(None).rest().await, harness.newest());
}

#[tokio::test(start_paused = true)]
async fn expired_history_is_said() {
    let mut harness = Harness::new();
    harness.commits(BROADCAST_BATCHES * 2);
    *harness.log.fault.lock().unwrap() = Some(Unreadable::Expired(Seq(40)));
    let expired = Err(Ended::Unreadable(Unreadable::Expired(Seq(40))));
    let mut tail = harness.follow(Some(1));
    assert_eq!(tail.read().await, expired);
    assert_eq!(tail.read().await, expired, "it does not skip on to what there is");
    // Nobody who is up to date notices.
    let mut live = harness.follow(None);
    harness.commit(1);
    live.read_to(harness.newest()).await;
    // When the history can be read again, nothing was lost.
    *harness.log.fault.lock().unwrap() = None;
    tail.read_to(harness.newest()).await;
}

#[tokio::test(start_paused = true)]
async fn a_history_with_a_hole_is_an_error_not_a_gap() {
    let mut harness = Harness::with(Log { skips: true, ..Log::default() });
    harness.commits(3);
    for after in 0..3 {
        let ended = harness.follow(Some(after)).read().await;
        let damaged = matches!(ended, Err(Ended::Unreadable(Unreadable::Damaged(_))));
        assert!(damaged, "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_that_begin_in_a_burst_miss_nothing() {
    const COMMITS: usize = 3_000;
    let mut harness = Harness::new();
    let (hub, log) = (harness.hub.clone(), Arc::clone(&harness.log));
    let burst = std::thread::spawn(move || {
        harness.commits(COMMITS);
        harness.close();
    });
    let mut readers = tokio::task::JoinSet::new();
    for turn in 0..200 {
        let after = (turn % 2 == 0).then_some(hub.newest());
        let tail = hub.follow(after, Arc::clone(&log) as _);
        let reader = Reader { seen: tail.cursor().0, tail };
        readers.spawn(reader.rest());
        tokio::task::yield_now().await;
    }
    while let Some(seen) = readers.join_next().await {
        assert_eq!(seen.unwrap(), COMMITS as u64);
    }
    burst.join().unwrap();
}

/// A commit at the very moment of a subscription, and none after it that would
/// reveal a missed one.
#[tokio::test(start_paused = true)]
async fn nothing_falls_between_subscribing_and_looking() {
    const ROUNDS: u64 = 20_000;
    let mut harness = Harness::new();
    let (hub, log) = (harness.hub.clone(), Arc::clone(&harness.log));
    let [begun, done] = [0, 0].map(|n| Arc::new(AtomicU64::new(n)));
    let (go, gone) = (Arc::clone(&begun), Arc::clone(&done));
    let commits = std::thread::spawn(move || {
        for round in 1..=ROUNDS {
            while go.load(Ordering::Acquire) < round {
                std::hint::spin_loop();
            }
            harness.commit(1);
            gone.store(round, Ordering::Release);
        }
        harness
    });
    for round in 1..=ROUNDS {
        begun.store(round, Ordering::Release);
        // Somewhere within the commit, each time elsewhere.
        (0..round % 100).for_each(|_| std::hint::spin_loop());
        let tail = hub.follow(Some(Seq(round).previous()), Arc::clone(&log) as _);
        let mut reader = Reader { seen: tail.cursor().0, tail };
        while done.load(Ordering::Acquire) < round {
            std::thread::yield_now();
        }
        reader.read_to(round).await;
    }
    commits.join().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Commit(u64),
    /// More commits at once than the broadcast keeps.
    Burst,
    Read(usize),
    /// Polls a reader so often, and drops the future.
    Abandon(usize, usize),
    /// A new reader, this share of the way in; the newest if there is none.
    Follow(Option<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..5u64).prop_map(Step::Commit),
        1 => Just(Step::Burst),
        4 => (0..8usize).prop_map(Step::Read),
        4 => (0..8usize, 0..5usize).prop_map(|(reader, polls)| Step::Abandon(reader, polls)),
        1 => prop::option::of(any::<u8>()).prop_map(Step::Follow),
    ]
}

async fn run(steps: Vec<Step>) {
    let mut harness = Harness::new();
    let mut readers = vec![harness.follow(None)];
    for step in steps {
        let count = readers.len();
        match step {
            Step::Commit(events) => harness.commit(events),
            Step::Burst => harness.commits(BROADCAST_BATCHES + 30),
            Step::Read(which) => {
                let reader = &mut readers[which % count];
                if reader.seen < harness.newest() {
                    reader.read().await.expect("more events");
                }
            }
            Step::Abandon(which, polls) => readers[which % count].try_read(polls).await,
            Step::Follow(share) => {
                let after = share.map(|share| harness.newest() * u64::from(share) / 255);
                readers.push(harness.follow(after));
            }
        }
    }
    harness.close();
    for reader in readers {
        assert_eq!(reader.rest().await, harness.newest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_reader_sees_every_event_once_in_order(steps in vec(step(), 1..80)) {
        let runtime =
            runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(run(steps));
    }
}

/// Polling once and turning away, as a heartbeat makes a watcher do, must not begin
/// the read of the history anew: it would never end while readers are busy.
#[tokio::test]
async fn a_read_that_is_turned_away_from_goes_on() {
    let mut harness = Harness::new();
    harness.commit(3);
    let mut tail = harness.hub.follow(Some(Seq(0)), Arc::clone(&harness.log) as _);
    // The log answers at the third poll of one and the same read.
    for _ in 0..2 {
        let mut next = Box::pin(tail.next());
        assert!(poll!(&mut next).is_pending());
    }
    let mut next = Box::pin(tail.next());
    let std::task::Poll::Ready(piece) = poll!(&mut next) else { panic!("it began anew") };
    assert_eq!(piece.unwrap().last(), Seq(3));
}
