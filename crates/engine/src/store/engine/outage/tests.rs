//! A disk that refuses for a while, below an engine that is driven by hand.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use tokio::sync::oneshot;

use super::*;
use crate::{
    admission::{Admission, Limits},
    queue::QueueConfig,
    store::{
        Dispatch, Durability, Finished, Outcome, Retention, Settings, Submission, WallClock,
        engine::{LogMover, Message, Reply, tests::task},
        journal::memory::{MemoryDisk, Outcome as Committed},
        prepared::Prepared,
        recovery, weight,
    },
    supervisor::Supervisor,
    task::{Data, WorkerId},
};

const KEEP: Duration = Duration::from_secs(10);

struct Bench {
    disk: MemoryDisk,
    /// Microseconds.
    time: Arc<AtomicI64>,
    admission: Arc<Admission>,
    engine: Engine<'static>,
}

impl Bench {
    fn new() -> Self {
        let limits = Limits {
            queue_config: QueueConfig::default(),
            queues: 10,
            room_timeout: Duration::from_secs(1),
        };
        let (time, admission) = (Arc::default(), Arc::new(Admission::new(limits)));
        let settings = Settings {
            data_dir: "unused".into(),
            durability: Durability::Memory,
            max_crashes: 3,
            disk_reserve: 0,
            max_log: 512 << 20,
            accept_loss: false,
            retention: Retention { finished: KEEP, events: KEEP, ..Retention::default() },
            clock: WallClock::by_hand(Arc::clone(&time), Arc::default()),
        };
        let disk = MemoryDisk::new([7; 16]);
        let recovered = recovery::recover(disk.journal(), None, Arc::clone(&admission), &settings);
        let (engine, _) = recovered.expect("it is recovered");
        Self { disk, time, admission, engine }
    }

    fn group(&mut self, messages: Vec<Message>) {
        self.engine.commit_group(&mut messages.into_iter());
    }

    fn one<T>(&mut self, message: impl FnOnce(Reply<T>) -> Message) -> T {
        let (reply, mut answer) = oneshot::channel();
        self.group(vec![message(reply)]);
        answer.try_recv().expect("an answer").unwrap_or_else(|error| panic!("{error}"))
    }

    fn submission(&self) -> Box<Prepared> {
        let task = task("queue");
        let permit = self.admission.try_admit("queue", weight(&task)).expect("there is room");
        Box::new(Prepared::new(Submission { task, fingerprint: [1; 16] }, permit))
    }

    /// Submits a task and gives it to a worker, who has done it.
    fn done(&mut self) -> Finished {
        let submission = self.submission();
        self.one(|reply| Message::Submit(submission, reply));
        let given = self.one(|reply| Message::NextDispatch(WorkerId(1), None, reply));
        let Dispatch::Run(given) = given else { panic!("{given:?}") };
        let outcome = Outcome::Succeeded(Data::Empty);
        let (task, attempt, ran) = (given.task, given.attempt, Duration::ZERO);
        Finished { task, attempt, outcome, ran, output: None }
    }

    fn pass(&self, span: Duration) {
        self.engine.clock.sleep(span);
    }

    /// Tasks that have ended and are kept, and batches of events.
    fn kept(&self) -> (usize, usize) {
        let content = self.disk.content();
        (content.finished.len(), content.events.len())
    }
}

#[test]
fn what_ends_in_a_group_that_waits_is_kept_from_when_it_was_committed() {
    for fault in [Fault::Full, Fault::Write, Fault::Busy] {
        let mut bench = Bench::new();
        let done = bench.done();
        bench.pass(Duration::from_secs(1));
        // Its first rest is 50 ms, the longest one 1 s; after a lock it is 1 ms.
        let times = if fault == Fault::Busy { 30_000 } else { 40 };
        for _ in 0..times {
            bench.disk.fail_next(Committed::Refused(fault));
        }
        let before = bench.time.load(Ordering::Relaxed);
        let (reply, _dispatch) = oneshot::channel();
        bench.group(vec![Message::NextDispatch(WorkerId(1), Some(Box::new(done)), reply)]);
        let waited = bench.time.load(Ordering::Relaxed) - before;
        assert!(waited > 2 * i64::try_from(KEEP.as_micros()).unwrap(), "{fault:?}: {waited} us");
        let (ended, events) = bench.kept();
        assert_eq!(ended, 1);
        bench.pass(KEEP / 2);
        bench.group(Vec::new());
        // What was committed before that is over its time.
        let (ended, events_kept) = bench.kept();
        assert_eq!((ended, events_kept), (1, 1), "{fault:?}: it was kept for 5 s of 10");
        assert!(events_kept < events, "{fault:?}: nothing is trimmed");
        bench.pass(KEEP);
        bench.group(Vec::new());
        assert_eq!(bench.kept().0, 0, "{fault:?}: it is trimmed in its time");
    }
}

#[test]
fn what_is_in_the_way_of_reading_is_waited_out_before_anything_is_decided() {
    for fault in [Fault::Busy, Fault::Full, Fault::Write] {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.disk.fail_begin(fault);
        }
        let (before, submission) = (bench.time.load(Ordering::Relaxed), bench.submission());
        bench.one(|reply| Message::Submit(submission, reply));
        assert!(bench.time.load(Ordering::Relaxed) > before, "{fault:?}: it did not rest");
        assert_eq!(bench.disk.content().tasks.len(), 1);
        // Nobody is held back any more.
        drop(bench.submission());
    }
}

#[test]
fn what_does_not_pass_ends_the_store_before_anything_is_decided() {
    for fault in [Fault::Sync, Fault::Read, Fault::Other] {
        let mut bench = Bench::new();
        bench.disk.fail_begin(fault);
        let (reply, mut answer) = oneshot::channel();
        let submission = bench.submission();
        bench.group(vec![Message::Submit(submission, reply)]);
        answer.try_recv().expect("an answer").expect_err("the store has failed");
        assert!(bench.engine.failure.borrow().is_some(), "{fault:?}");
        assert_eq!(bench.disk.content().tasks.len(), 0);
    }
}

/// The last thing that the log's thread meets is known before the database is closed.
#[test]
fn a_sync_that_fails_beside_the_engine_ends_the_store_also_when_it_is_closing() {
    let mut bench = Bench::new();
    let failed =
        || Err(JournalError::Failed { fault: Fault::Sync, cause: "as the test says".into() });
    let mover = LogMover::start(failed, &Supervisor::default()).expect("a thread");
    mover.ask();
    bench.engine.log_keeper.leave_to(mover);
    let failure = bench.engine.failure.subscribe();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (messages, inbox) = tokio::sync::mpsc::channel(1);
    drop(messages);
    assert!(bench.engine.run(inbox, runtime.handle()).is_none(), "nobody has closed it");
    let cause = failure.borrow().clone().expect("it has failed");
    assert!(cause.contains("as the test says"), "{cause}");
}

#[test]
fn who_is_refused_after_an_unknown_outcome_is_told_that_it_may_be_there() {
    for is_there in [false, true] {
        let mut bench = Bench::new();
        bench.disk.fail_next(Committed::Unknown { is_there });
        bench.disk.fail_next(Committed::Refused(Fault::Fenced));
        let (reply, mut answer) = oneshot::channel();
        let submission = bench.submission();
        bench.group(vec![Message::Submit(submission, reply)]);
        let refused = answer.try_recv().expect("an answer").expect_err("the store has failed");
        assert!(refused.to_string().contains("may be there"), "{refused}");
        assert_eq!(bench.disk.content().tasks.len(), usize::from(is_there));
    }
}

#[test]
fn a_group_whose_outcome_is_unknown_is_there_once() {
    let mut bench = Bench::new();
    bench.disk.fail_next(Committed::Unknown { is_there: true });
    bench.disk.fail_next(Committed::Unknown { is_there: true });
    let submission = bench.submission();
    bench.one(|reply| Message::Submit(submission, reply));
    let content = bench.disk.content();
    assert_eq!((content.tasks.len(), content.events.len()), (1, 1));
}
