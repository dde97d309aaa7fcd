//! Moments that the random commands do not reach: answers that nobody got, and
//! crashes in the middle of commits.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::poll;
use prost::Message as _;
use taskyard::{
    admission::{Admission, WaitLimit, WhenFull},
    config::Durability,
    event::Seq,
    events::Hub,
    proto::v1::{self, EventType},
    store::{
        Dispatch, Error, Finished, Outcome, Query, Settings, Store, Submission, Submitted,
        WallClock, open,
    },
    task::{Data, Due, NewTask, State, TaskId, WorkerId},
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::store_model::driver::{PATIENCE, crashed_copy, gate, new_task, settings};

struct Opened {
    dir: TempDir,
    store: Arc<Store>,
    hub: Hub,
    gate: Arc<Admission>,
}

async fn store_in(dir: TempDir) -> Opened {
    let gate = gate(10_000);
    let settings = settings(dir.path(), Durability::Os);
    let (store, hub, _) = open(&settings, Arc::clone(&gate)).await.expect("the store opens");
    Opened { dir, store, hub, gate }
}

impl Opened {
    async fn new() -> Self {
        store_in(tempfile::tempdir().unwrap()).await
    }

    async fn submit(&self, task: NewTask) -> Result<Submitted, Error> {
        let permit = self.gate.admit("a", 1, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap();
        self.store.submit(Submission { task, fingerprint: [1; 16] }, permit).await
    }

    async fn run_next(&self, finished: Option<Finished>) -> (TaskId, Finished) {
        let dispatch = timeout(PATIENCE, self.store.next_dispatch(WorkerId(1), finished)).await;
        let dispatch = dispatch.expect("there is work");
        let Ok(Dispatch::Run(assignment)) = dispatch else { panic!("{dispatch:?}") };
        let (task, attempt) = (assignment.task, assignment.attempt);
        let outcome = Outcome::Succeeded(Data::Empty);
        (task, Finished { task, attempt, outcome, ran: Duration::ZERO, output: None })
    }
}

fn keyed(key: &str) -> NewTask {
    NewTask { request_id: Some(key.into()), ..new_task("a", &Data::Empty) }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_got_no_answer_asks_again_and_gets_the_same_task() {
    let mut harness = Opened::new().await;
    for round in 0..20 {
        let key = format!("order-{round}");
        {
            // On its way once it was polled; then the caller goes.
            let mut unheard = Box::pin(harness.submit(keyed(&key)));
            drop(poll!(&mut unheard));
        }
        if round % 2 == 1 {
            // The process may have ended before or after the commit.
            let copy = crashed_copy(harness.dir.path());
            harness = store_in(copy).await;
        }
        let again = harness.submit(keyed(&key)).await.unwrap();
        assert!(round % 2 == 1 || again.existing, "the command was taken");
        let twice = harness.submit(keyed(&key)).await.unwrap();
        assert_eq!(twice, Submitted { existing: true, ..again });
        let all = Query { limit: 100, ..Query::default() };
        let tasks = harness.store.list(all).await.unwrap().tasks;
        assert_eq!(tasks.len(), round + 1, "one task per key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_gone_is_given_nothing() {
    let harness = Opened::new().await;
    {
        let mut gone = Box::pin(harness.store.next_dispatch(WorkerId(2), None));
        assert!(poll!(&mut gone).is_pending());
    }
    let submitted = harness.submit(new_task("a", &Data::Empty)).await.unwrap();
    assert_eq!(submitted.state, State::Queued);
    let (task, finished) = harness.run_next(None).await;
    assert_eq!((task, finished.attempt), (submitted.task, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn later_tasks_start_when_they_are_due_and_in_that_order() {
    let harness = Opened::new().await;
    let mut tasks = BTreeMap::new();
    for millis in [60, 20, 40, 0] {
        let due = Due::After(Duration::from_millis(millis));
        let submitted =
            harness.submit(NewTask { due, ..new_task("a", &Data::Empty) }).await.unwrap();
        // As the store counts it: on a busy machine submissions may be far apart.
        let due = harness.store.get(submitted.task).await.unwrap().due;
        tasks.insert(due, submitted.task);
    }
    let mut finished = None;
    for id in tasks.into_values() {
        let (task, next) = harness.run_next(finished).await;
        assert_eq!(task, id, "the earliest first");
        let task = harness.store.get(task).await.unwrap();
        let (_, started) = task.execution.unwrap();
        assert!(started >= task.due, "not before its time");
        finished = Some(next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_wall_clock_changes_times_and_no_intervals() {
    const HOUR: i64 = 3_600_000_000;
    let ahead = Arc::new(AtomicI64::new(0));
    let dir = tempfile::tempdir().unwrap();
    let gate = gate(10);
    let clock = WallClock::ahead_by(Arc::clone(&ahead));
    let settings = Settings { clock: clock.clone(), ..settings(dir.path(), Durability::Os) };
    let (store, hub, _) = open(&settings, Arc::clone(&gate)).await.expect("the store opens");
    let harness = Opened { dir, store, hub, gate };
    let later = |due| NewTask { due, ..new_task("a", &Data::Empty) };
    let at = clock.now().after(Duration::from_mins(30));
    let timed = harness.submit(later(Due::At(at))).await.unwrap().task;
    let delayed = harness.submit(later(Due::After(Duration::from_millis(50)))).await.unwrap().task;
    // Back by an hour: the delay is as long as it was.
    ahead.store(-HOUR, Ordering::Relaxed);
    let (first, finished) = harness.run_next(None).await;
    assert_eq!(first, delayed);
    assert_eq!(harness.store.get(timed).await.unwrap().lifecycle.state, State::Scheduled);
    // And ahead by an hour: its time has come.
    ahead.store(HOUR, Ordering::Relaxed);
    let (second, _) = harness.run_next(Some(finished)).await;
    assert_eq!(second, timed);
}

/// What callers were told.
#[derive(Clone, Default)]
struct Heard {
    submitted: Vec<TaskId>,
    ended: Vec<TaskId>,
}

/// Submits and runs tasks on all sides until they are done.
fn load(harness: &Opened, heard: &Arc<Mutex<Heard>>, count: &watch::Sender<usize>) -> JoinSet<()> {
    let mut load = JoinSet::new();
    for _ in 0..5 {
        let (store, gate) = (Arc::clone(&harness.store), Arc::clone(&harness.gate));
        let (heard, count) = (Arc::clone(heard), count.clone());
        load.spawn(async move {
            for _ in 0..30 {
                let permit =
                    gate.admit("a", 1, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap();
                let task = new_task("a", &Data::Bytes(vec![7; 500].into()));
                let submission = Submission { task, fingerprint: [0; 16] };
                let submitted = store.submit(submission, permit).await.unwrap();
                heard.lock().unwrap().submitted.push(submitted.task);
                count.send_modify(|count| *count += 1);
            }
        });
    }
    for worker in 1..=2 {
        let (store, heard) = (Arc::clone(&harness.store), Arc::clone(heard));
        load.spawn(async move {
            let mut finished = None;
            // Until the store is closed.
            loop {
                let reported = finished.as_ref().map(|finished: &Finished| finished.task);
                let dispatch = store.next_dispatch(WorkerId(worker), finished.take()).await;
                let Ok(Dispatch::Run(assignment)) = dispatch else { return };
                heard.lock().unwrap().ended.extend(reported);
                let (task, attempt) = (assignment.task, assignment.attempt);
                let outcome = Outcome::Succeeded(Data::Empty);
                finished =
                    Some(Finished { task, attempt, outcome, ran: Duration::ZERO, output: None });
            }
        });
    }
    load
}

/// The state in which the events leave each task.
async fn states_by_events(harness: &Opened) -> BTreeMap<String, (State, u32)> {
    let newest = harness.hub.newest();
    let mut tail = harness.hub.follow(Some(Seq(0)), Arc::clone(&harness.store) as _);
    let (mut states, mut seq) = (BTreeMap::new(), 0);
    while Seq(seq) < newest {
        let piece = timeout(PATIENCE, tail.next()).await.expect("an event is missing").unwrap();
        for event in v1::WatchEventsResponse::decode(piece.data().clone()).unwrap().events {
            seq += 1;
            assert_eq!(event.seq, seq, "a gap, or a repetition");
            let state = match event.r#type() {
                EventType::Submitted | EventType::Interrupted => State::Queued,
                EventType::Started => State::Running,
                EventType::Succeeded => State::Succeeded,
                other => panic!("{other:?}"),
            };
            let before = states.insert(event.task_id.clone(), (state, event.attempt));
            let right = match state {
                State::Queued => {
                    before.is_none_or(|before| before == (State::Running, event.attempt))
                }
                State::Running => before == Some((State::Queued, event.attempt - 1)),
                _ => before == Some((State::Running, event.attempt)),
            };
            assert!(right, "{event:?} after {before:?}");
        }
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_moment_loses_nothing_that_was_told() {
    let harness = Opened::new().await;
    let heard = Arc::new(Mutex::new(Heard::default()));
    let (count, mut reached) = watch::channel(0);
    let mut load = load(&harness, &heard, &count);
    let mut crashes = Vec::new();
    for moment in [1, 20, 50, 80, 110, 150] {
        timeout(PATIENCE, reached.wait_for(|count| *count >= moment)).await.unwrap().unwrap();
        let told = heard.lock().unwrap().clone();
        crashes.push((told, crashed_copy(harness.dir.path())));
    }
    // The copies are crashes only if the log was not moved into the database
    // between the copy of the one and of the other.
    let log = fs::metadata(harness.dir.path().join("taskyard.db-wal")).unwrap().len();
    assert!(log < 4_000 * 4_096, "{log} bytes");
    harness.store.drain().await.unwrap();
    harness.store.close().await.expect("it closes");
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    for (told, dir) in crashes {
        let harness = store_in(dir).await;
        for id in told.submitted {
            harness.store.get(id).await.expect("what was acknowledged is there");
        }
        for id in told.ended {
            let task = harness.store.get(id).await.unwrap();
            assert_eq!(task.lifecycle.state, State::Succeeded, "what has ended stays so");
        }
        let all = Query { limit: 1_000, ..Query::default() };
        let tasks = harness.store.list(all).await.unwrap().tasks;
        let states: BTreeMap<_, _> = tasks
            .iter()
            .map(|task| (task.id.to_string(), (task.lifecycle.state, task.lifecycle.attempt)))
            .collect();
        assert_eq!(states_by_events(&harness).await, states);
    }
}
