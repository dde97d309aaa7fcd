//! The engine, driven by hand: one group after the other, with nobody in between.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Engine, Message, Reply, apply::STEP_DUE};
use crate::{
    admission::{Admission, Limits},
    events::{Hub, Invalid},
    queue::{Counts, Field, Overrides, QueueConfig, WrongBackoffs},
    store::{
        Dispatch, Durability, Error, Finished, Outcome, Overview, QueueChange, Retention, Settings,
        Submission, Submitted, WallClock, prepared::Prepared, recovery, sqlite, weight,
    },
    task::{Data, Due, NewTask, RetryPolicy, State, TaskBody, WorkerId},
};

const HOUR: i64 = 3_600_000_000;

struct Bench {
    gate: Arc<Admission>,
    ahead: Arc<AtomicI64>,
    settings: Settings,
    location: sqlite::Location,
    connection: &'static Connection,
    engine: Engine<'static>,
    hub: Hub,
}

/// An answer that is there once its group is.
fn told<T>(mut answer: oneshot::Receiver<T>) -> Option<T> {
    answer.try_recv().ok()
}

impl Bench {
    fn new() -> Self {
        let location = sqlite::Location::Memory(format!("bench-{:x}", rand::random::<u64>()));
        let circumstances = sqlite::Circumstances {
            trust: sqlite::Trust::SameBoot,
            had_store: false,
            accept_loss: false,
        };
        let connection = sqlite::open_writer(&location, Durability::Memory, circumstances);
        let connection = connection.expect("it opens");
        let ahead = Arc::new(AtomicI64::new(0));
        let settings = Settings {
            data_dir: "unused".into(),
            durability: Durability::Memory,
            max_crashes: 3,
            disk_reserve: 0,
            max_log: 512 << 20,
            accept_loss: false,
            retention: Retention::default(),
            clock: WallClock::ahead_by(Arc::clone(&ahead)),
        };
        // It lives as long as the test.
        Self::on(location, Box::leak(Box::new(connection)), settings, ahead)
    }

    fn on(
        location: sqlite::Location,
        connection: &'static Connection,
        settings: Settings,
        ahead: Arc<AtomicI64>,
    ) -> Self {
        let limits = Limits {
            queue_config: QueueConfig::default(),
            queues: 100,
            room_timeout: Duration::from_secs(1),
        };
        let gate = Arc::new(Admission::new(limits));
        let journal = sqlite::SqliteJournal::new(connection, None).expect("it is read");
        let recovered = recovery::recover(Box::new(journal), None, Arc::clone(&gate), &settings);
        let (engine, opened) = recovered.expect("it is recovered");
        Self { gate, ahead, settings, location, connection, engine, hub: opened.hub }
    }

    /// The process ends without a word, and the next one begins.
    fn crash(self) -> Self {
        let Self { ahead, settings, location, connection, engine, .. } = self;
        drop(engine);
        Self::on(location, connection, settings, ahead)
    }

    fn group(&mut self, messages: Vec<Message>) {
        self.engine.commit_group(&mut messages.into_iter());
        assert_eq!(*self.engine.failure.borrow(), None);
    }

    fn one<T>(&mut self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.group(vec![message(reply)]);
        told(answer).expect("an answer")
    }

    fn prepared(&self, task: NewTask, fingerprint: u8) -> Prepared {
        let permit = self.gate.try_admit(&task.queue, weight(&task)).expect("there is room");
        Prepared::new(Submission { task, fingerprint: [fingerprint; 16] }, permit)
    }

    fn submit(&mut self, task: NewTask) -> Submitted {
        let prepared = Box::new(self.prepared(task, 1));
        self.one(|reply| Message::Submit(prepared, reply)).expect("it is taken")
    }

    fn submit_many(&mut self, tasks: impl Iterator<Item = NewTask>) {
        let prepared: Vec<_> = tasks.map(|task| self.prepared(task, 1)).collect();
        self.one(|reply| Message::SubmitAll(prepared, reply)).expect("they are taken");
    }

    fn overview(&mut self, queue: Option<&str>) -> Overview {
        let queue = queue.map(Arc::from);
        self.one(|reply| Message::Overview(queue, reply)).expect("an overview")
    }

    fn counts(&mut self, queue: &str) -> Counts {
        self.overview(Some(queue)).counts
    }

    fn next_dispatch(
        &mut self,
        worker: u32,
        finished: Option<Finished>,
    ) -> Option<Result<Dispatch, Error>> {
        let (reply, answer) = oneshot::channel();
        let finished = finished.map(Box::new);
        self.group(vec![Message::NextDispatch(WorkerId(worker), finished, reply)]);
        told(answer)
    }

    /// Which task a worker is given, and how it reports its success.
    fn start(&mut self, worker: u32) -> Finished {
        let dispatch = self.next_dispatch(worker, None);
        let Some(Ok(Dispatch::Run(given))) = dispatch else { panic!("{dispatch:?}") };
        let outcome = Outcome::Succeeded(Data::Empty);
        let (task, attempt, ran) = (given.task, given.attempt, Duration::ZERO);
        Finished { task, attempt, outcome, ran, output: None }
    }

    fn slots(&self) -> usize {
        sqlite::slots(self.connection).expect("they can be read").len()
    }
}

/// A task of no importance.
pub(super) fn task(queue: &str) -> NewTask {
    NewTask {
        kind: "kind".into(),
        queue: queue.into(),
        body: TaskBody { timeout: Duration::from_secs(1), ..TaskBody::default() },
        priority: 0,
        due: Due::Now,
        retry: RetryPolicy {
            max_attempts: 1,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(1),
        },
        labels: BTreeMap::new(),
        request_id: None,
    }
}

#[test]
fn a_group_moves_no_more_than_it_may_and_the_others_follow_in_their_order() {
    let mut bench = Bench::new();
    let at = Due::At(bench.settings.clock.now().after(Duration::from_mins(30)));
    let all = 2 * STEP_DUE + 10;
    // The last ones start first.
    let priority = |number: usize| i32::from(number >= all - 5);
    bench.submit_many((0..all).map(|n| NewTask { due: at, priority: priority(n), ..task("a") }));
    bench.ahead.store(HOUR, Ordering::Relaxed);
    for group in 1..=3 {
        let counts = bench.counts("a");
        let moved = (group * STEP_DUE).min(all) as u64;
        assert_eq!((counts.queued, counts.scheduled), (moved, all as u64 - moved));
        let now = bench.engine.clock.now();
        let wait = bench.engine.ready.until_due(&now, Duration::from_secs(9));
        let more = (moved < all as u64).then_some(Duration::ZERO);
        assert_eq!(wait, more, "the rest is not waited for");
        if group == 1 {
            for worker in 1..=6 {
                let started = bench.start(worker).task.number();
                let expected = if worker <= 5 { all as u64 - 5 + u64::from(worker) } else { 1 };
                assert_eq!(started, expected, "by priority, then in the order of submission");
            }
            return bench_rest(bench, all as u64 - 6);
        }
    }
}

fn bench_rest(mut bench: Bench, waiting: u64) {
    for _ in 0..3 {
        bench.group(Vec::new());
    }
    let counts = bench.counts("a");
    assert_eq!((counts.queued, counts.scheduled, counts.running), (waiting, 0, 6));
}

#[test]
fn a_task_whose_worker_was_not_told_is_ready_again_at_once() {
    let mut bench = Bench::new();
    let submitted = bench.submit(task("a"));
    let (reply, answer) = oneshot::channel();
    // It asks, and goes while its task is being given to it.
    let dispatch = Message::NextDispatch(WorkerId(1), None, reply);
    bench.engine.group.now = bench.engine.clock.now();
    let mut closing = None;
    bench.engine.write_group(&mut vec![dispatch].into_iter(), &mut closing).expect("it is written");
    drop(answer);
    let effects: Vec<_> = bench.engine.group.effects.drain(..).collect();
    let lost: Vec<_> = effects.into_iter().filter_map(super::Effect::perform).collect();
    assert_eq!(lost, [WorkerId(1)]);
    bench.engine.lost = lost;
    assert_eq!(bench.engine.until_something(), Some(Duration::ZERO));
    bench.group(Vec::new());
    assert_eq!(bench.slots(), 0);
    let next = bench.start(2);
    assert_eq!((next.task, next.attempt), (submitted.task, 2), "a number is not used twice");
}

#[test]
fn a_worker_that_begins_anew_has_lost_its_task() {
    let mut bench = Bench::new();
    let first = bench.submit(task("a")).task;
    let second = bench.submit(NewTask { priority: -1, ..task("a") }).task;
    let late = bench.start(1);
    assert_eq!(late.task, first);
    // It asks again, as if it had nothing: what it was given is ready again, for whom
    // comes first, which is itself.
    let again = bench.start(1);
    assert_eq!((again.task, again.attempt, bench.slots()), (first, 2, 1));
    // The same, if it joins.
    bench.one(|reply| Message::join(WorkerId(1), reply)).expect("it joins");
    assert_eq!(bench.slots(), 0);
    let anew = bench.start(1);
    assert_eq!((anew.task, anew.attempt), (first, 3));
    // What is reported late changes nothing, also not what runs now.
    for stale in [late, again] {
        let other = bench.next_dispatch(2, Some(stale));
        if let Some(Ok(Dispatch::Run(given))) = other {
            assert_eq!(given.task, second);
        }
        assert_eq!(bench.engine.index.get(first.number()).expect("it lives").life.attempt, 3);
    }
    assert_eq!(bench.counts("a").running, 2);
    assert_eq!(bench.slots(), 2);
    bench.next_dispatch(1, Some(anew));
    assert_eq!(bench.counts("a").succeeded, 1);
}

#[test]
fn one_request_id_twice_in_a_batch_is_told_by_its_place() {
    let mut bench = Bench::new();
    let keyed = |key: &str| NewTask { request_id: Some(key.into()), ..task("a") };
    let batch =
        [(keyed("x"), 1), (task("a"), 1), (keyed("y"), 1), (keyed("x"), 2), (keyed("y"), 1)];
    let batch: Vec<_> =
        batch.into_iter().map(|(task, print)| bench.prepared(task, print)).collect();
    let answer = bench.one(|reply| Message::SubmitAtomic(batch, reply));
    assert_eq!(answer, Err(Error::NotAll(vec![(3, Error::RequestIdRepeated { first: 0 })])));
    assert_eq!(bench.counts("a"), Counts::default(), "nothing was taken");
}

#[test]
fn two_changes_that_do_not_fit_together_are_not_both_made() {
    let mut bench = Bench::new();
    let span = Duration::from_secs;
    let change = |field, initial, max| {
        let values =
            Overrides { initial_backoff: initial, max_backoff: max, ..Overrides::default() };
        QueueChange::Settings(vec![field], Box::new(values))
    };
    let changes = [
        change(Field::MaxBackoff, None, Some(span(5))),
        change(Field::InitialBackoff, Some(span(20)), None),
    ];
    let mut answers = Vec::new();
    let messages = changes.into_iter().map(|change| {
        let (reply, answer) = oneshot::channel();
        answers.push(answer);
        Message::change("a".into(), change, reply)
    });
    let messages = messages.collect();
    bench.group(messages);
    let answers: Vec<_> = answers.into_iter().map(|answer| told(answer).expect("told")).collect();
    let wrong = WrongBackoffs { initial: span(20), max: span(5) };
    assert_eq!(answers, [Ok(()), Err(Error::WrongBackoffs(wrong))]);
    let queue = bench.overview(Some("a")).queues.remove(0);
    assert_eq!((queue.settings.initial_backoff, queue.settings.max_backoff), (span(1), span(5)));
    // A queue that came into being for a change that was refused is none.
    let both = Overrides { max_backoff: Some(Duration::ZERO), ..Overrides::default() };
    let both = QueueChange::Settings(vec![Field::MaxBackoff], Box::new(both));
    let refused = bench.one(|reply| Message::change("b".into(), both, reply));
    assert!(matches!(refused, Err(Error::WrongBackoffs(_))), "{refused:?}");
    assert!(bench.overview(Some("b")).queues.is_empty());
}

#[test]
fn an_overview_of_one_queue_tells_of_that_queue_alone() {
    let mut bench = Bench::new();
    for queue in ["a", "b", "b"] {
        bench.submit(task(queue));
    }
    assert_eq!(bench.counts("b").queued, 2);
    assert_eq!(bench.overview(None).counts.queued, 3);
    let one = bench.overview(Some("a"));
    assert_eq!((one.queues.len(), one.counts.queued), (1, 1));
}

#[test]
fn process_starts_of_which_nothing_is_kept_are_forgotten() {
    let mut bench = Bench::new();
    let rows = |bench: &Bench| sqlite::incarnations(bench.connection).expect("they are read").len();
    // Before anything was told there is a cursor, too.
    let start = bench.hub.cursor(crate::event::Seq(0));
    for _ in 0..3 {
        bench = bench.crash();
        assert_eq!(bench.hub.resolve(start), Ok(crate::event::Seq(0)));
    }
    bench.submit(task("a"));
    let early = bench.hub.cursor(bench.hub.newest());
    for _ in 0..20 {
        bench = bench.crash();
    }
    assert_eq!(rows(&bench), 3, "those that told nothing go");
    assert!(bench.hub.resolve(early).is_ok());
    for _ in 0..5 {
        bench.submit(task("a"));
        bench = bench.crash();
    }
    assert_eq!(rows(&bench), 8, "those whose events are kept stay");
    // Of the first ones nothing is kept any more.
    bench.connection.execute_batch("DELETE FROM event WHERE first < 5").expect("trimmed");
    let kept = bench.hub.cursor(crate::event::Seq(4));
    let bench = bench.crash();
    assert!(rows(&bench) < 8, "{}", rows(&bench));
    assert_eq!(bench.hub.resolve(kept), Ok(crate::event::Seq(4)), "the oldest cursor is known");
    // An earlier one is told that its events are gone; one of another history never passes
    // for one of this.
    assert_eq!(bench.hub.resolve(early), Ok(crate::event::Seq(1)));
    let another = Bench::new().hub.cursor(crate::event::Seq(1));
    assert_eq!(bench.hub.resolve(another), Err(Invalid::AnotherStore));
}

#[test]
fn a_task_of_a_clock_that_was_ahead_waits_for_nothing_after_a_restart() {
    let mut bench = Bench::new();
    bench.ahead.store(HOUR, Ordering::Relaxed);
    let plain = bench.submit(task("a")).task;
    let delay = Due::After(Duration::from_mins(5));
    let delayed = bench.submit(NewTask { due: delay, ..task("b") }).task;
    let at = Due::At(bench.settings.clock.now().after(Duration::from_mins(10)));
    let timed = bench.submit(NewTask { due: at, ..task("c") }).task;
    bench.ahead.store(0, Ordering::Relaxed);
    let later = bench.submit(task("a")).task;
    let mut bench = bench.crash();
    let state = |bench: &Bench, id: crate::task::TaskId| {
        bench.engine.index.get(id.number()).expect("it lives").life.state
    };
    assert_eq!(state(&bench, plain), State::Queued);
    assert_eq!(state(&bench, delayed), State::Scheduled);
    assert_eq!(state(&bench, timed), State::Scheduled, "it is to start at that time");
    let now = bench.engine.clock.now();
    let wait = bench.engine.ready.until_due(&now, Duration::MAX).expect("it waits");
    assert!(wait <= Duration::from_mins(5), "no longer than its delay: {wait:?}");
    let now = bench.settings.clock.now();
    let read = crate::store::reader::task(bench.connection, &bench.engine.identity, plain, now);
    assert_eq!(read.expect("it is read").expect("it is there").lifecycle.state, State::Queued);
    // The order is that of now: what was due in the past, then what says it is due later.
    assert_eq!(bench.start(1).task, later);
    assert_eq!(bench.start(2).task, plain);
}

#[test]
fn a_step_of_the_clock_changes_neither_the_order_nor_how_long_a_task_waited() {
    let mut bench = Bench::new();
    let first = bench.submit(task("a")).task;
    bench.ahead.store(-HOUR, Ordering::Relaxed);
    let second = bench.submit(task("a")).task;
    bench.ahead.store(HOUR, Ordering::Relaxed);
    for (worker, expected) in [(1, first), (2, second)] {
        assert_eq!(bench.start(worker).task, expected);
        let entry = bench.engine.index.get(expected.number()).expect("it runs");
        let waited = entry.execution.as_ref().expect("it runs").waited;
        assert!(waited < Duration::from_mins(1), "{waited:?}");
    }
    let oldest = bench.submit(task("b"));
    assert_eq!(oldest.state, State::Queued);
    let due = bench.overview(Some("b")).queues[0].oldest_due.expect("it waits");
    let apart = due.since(bench.settings.clock.now()).max(bench.settings.clock.now().since(due));
    assert!(apart < Duration::from_mins(1), "it is told by the wall clock: {apart:?}");
}

#[test]
fn what_is_young_is_not_trimmed_for_a_step_of_the_clock() {
    let mut bench = Bench::new();
    let keyed = NewTask { request_id: Some("key".into()), ..task("a") };
    let id = bench.submit(keyed.clone()).task;
    let done = bench.start(1);
    bench.next_dispatch(1, Some(done));
    for hours in [25, 24 * 365, -24 * 365, 0] {
        bench.ahead.store(hours * HOUR, Ordering::Relaxed);
        for restarts in 0..2 {
            bench.group(Vec::new());
            assert_eq!(bench.counts("a").succeeded, 1, "{hours} h, {restarts} restarts");
            assert_eq!(bench.engine.trimmer.first_event(), Some(crate::event::Seq(1)));
            let again = bench.submit(keyed.clone());
            assert_eq!((again.task, again.existing), (id, true));
            bench = bench.crash();
        }
    }
}
