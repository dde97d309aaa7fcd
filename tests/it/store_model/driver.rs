//! A real store beside its model: every command goes to both, and after each
//! they are compared.

use std::{collections::BTreeMap, fs, path::Path, pin::Pin, sync::Arc, time::Duration};

use futures_util::poll;
use prost::Message as _;
use taskyard::{
    admission::{Admission, Limits, WaitLimit, WhenFull},
    config::{Durability, Retention},
    event::Seq,
    events::{Cursor, Ended, Hub, Tail},
    proto::v1,
    queue::{self, Counts},
    store::{
        self, Assignment, Dispatch, Error, Finished, Outcome, Query, QueueChange, Recovered,
        Settings, Store, Submission, Submitted, WallClock, open,
    },
    task::{Data, Due, NewTask, RetryPolicy, State, TaskBody, TaskId, WorkerId},
};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::store_model::model::{Model, ModelEvent, QUEUES, Task};

/// Only a hang exceeds it.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// Permits of a queue.
pub const PLACES: u64 = 5;

type PendingDispatch = Pin<Box<dyn Future<Output = Result<Dispatch, Error>> + Send>>;

pub fn gate(permits: u64) -> Arc<Admission> {
    let defaults = queue::Settings { max_tasks: permits, ..queue::Settings::default() };
    let queue_config = queue::QueueConfig { defaults, ..queue::QueueConfig::default() };
    Arc::new(Admission::new(Limits { queue_config, queues: 10, room_timeout: PATIENCE }))
}

pub fn settings(dir: &Path, durability: Durability) -> Settings {
    Settings {
        data_dir: dir.to_owned(),
        durability,
        max_crashes: 2,
        disk_reserve: 0,
        retention: Retention::default(),
        clock: WallClock::default(),
        max_log: 512 << 20,
        accept_loss: false,
    }
}

/// What a crash leaves of a store: the files as they are at this moment.
pub fn crashed_copy(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["taskyard.db", "taskyard.db-wal"] {
        fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

pub fn new_task(queue: &str, payload: &Data) -> NewTask {
    NewTask {
        kind: "kind".into(),
        queue: queue.into(),
        body: TaskBody { timeout: PATIENCE, ..payload.clone().into() },
        priority: 0,
        due: Due::Now,
        retry: RetryPolicy {
            max_attempts: 1,
            initial_backoff: Duration::from_secs(1),
            max_backoff: PATIENCE,
        },
        labels: [("label".to_owned(), "value".to_owned())].into(),
        request_id: None,
    }
}

pub struct Driver {
    pub dir: TempDir,
    durability: Durability,
    pub store: Arc<Store>,
    hub: Hub,
    gate: Arc<Admission>,
    pub model: Model,
    pending: BTreeMap<u32, PendingDispatch>,
    assignments: BTreeMap<u32, Assignment>,
    tail: Tail,
    seen: usize,
    /// Cursors that were given out, at any time.
    cursors: Vec<(Cursor, Seq)>,
}

impl Driver {
    pub async fn new(durability: Durability) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = Model { max_crashes: 2, ..Model::default() };
        let (driver, recovered) = Self::open(dir, durability, model, Vec::new()).await;
        assert_eq!(recovered, Recovered::default());
        driver
    }

    async fn open(
        dir: TempDir,
        durability: Durability,
        model: Model,
        cursors: Vec<(Cursor, Seq)>,
    ) -> (Self, Recovered) {
        let gate = gate(PLACES);
        let opened = open(&settings(dir.path(), durability), Arc::clone(&gate)).await;
        let (store, hub, recovered) = opened.expect("the store opens");
        let tail = hub.follow(Some(Seq(0)), Arc::clone(&store) as _);
        let (pending, assignments) = (BTreeMap::new(), BTreeMap::new());
        let driver = Self {
            dir,
            durability,
            store,
            hub,
            gate,
            model,
            pending,
            assignments,
            tail,
            seen: 0,
            cursors,
        };
        (driver, recovered)
    }

    pub async fn submit(&mut self, task: NewTask, request: Option<u8>, content: u8) {
        let queue = QUEUES.into_iter().find(|queue| **queue == *task.queue).unwrap();
        let permit = self.gate.admit(queue, 100, WhenFull::Reject, WaitLimit::Unlimited).await;
        let full = self.model.waits_in(queue) as u64 >= PLACES;
        assert_eq!(permit.is_err(), full, "a permit in queue {queue}: {permit:?}");
        let Ok(permit) = permit else { return };
        let request_id = request.map(|key| format!("request-{key}"));
        let submission =
            Submission { task: NewTask { request_id, ..task.clone() }, fingerprint: [content; 16] };
        let answer = self.store.submit(submission, permit).await;
        let known = request.and_then(|key| self.model.requests.get(&key).copied());
        if let Some((first, at)) = known {
            let task = &self.model.tasks[at];
            let seq = self.model.events.iter().position(|told| told.task == Some(task.id)).unwrap();
            let expected = if first == content {
                let seq = Seq(seq as u64 + 1);
                Ok(Submitted { task: task.id, seq, state: task.state, existing: true })
            } else {
                Err(Error::RequestIdReused(task.id))
            };
            return assert_eq!(answer, expected);
        }
        let submitted = answer.expect("accepted");
        let stored = self.store.get(submitted.task).await.unwrap();
        match task.due {
            Due::At(time) if time > stored.created => assert_eq!(stored.due, time),
            Due::After(span) => assert_eq!(stored.due, stored.created.after(span)),
            Due::Now | Due::At(_) => assert_eq!(stored.due, stored.created),
        }
        let later = stored.due > stored.created;
        let state = if later { State::Scheduled } else { State::Queued };
        let task = Task {
            id: submitted.task,
            queue,
            priority: task.priority,
            payload: task.body.payload,
            max_attempts: task.retry.max_attempts,
            request,
            due: stored.due,
            state,
            attempt: 0,
            failures: 0,
            crashes: 0,
            cancel_requested: false,
            worker: None,
            reason: None,
            result: None,
            attempts: Vec::new(),
        };
        let seq = Seq(self.model.events.len() as u64 + 1);
        self.model.submit(task, content);
        let runs = self.model.next_start().is_some();
        let state = if runs { State::Running } else { state };
        assert_eq!(submitted, Submitted { task: submitted.task, seq, state, existing: false });
        self.start_next().await;
    }

    pub async fn cancel(&mut self, at: usize) {
        let id = self.model.tasks[at].id;
        let answer = self.store.cancel(vec![id], Vec::new()).await;
        let expected = self.model.cancel(at);
        assert_eq!(answer, Ok(vec![expected.map_err(|state| Error::Ended { task: id, state })]));
        for (worker, at) in &self.model.busy {
            let requested = self.model.tasks[*at].cancel_requested;
            assert_eq!(self.assignments[worker].cancel.is_cancelled(), requested);
        }
    }

    pub async fn redrive(&mut self, at: usize) {
        let (id, state) = (self.model.tasks[at].id, self.model.tasks[at].state);
        let full = self.model.waits_in(self.model.tasks[at].queue) as u64 >= PLACES;
        let answer = self.store.redrive(vec![id], Vec::new()).await.unwrap().pop().unwrap();
        if full && matches!(state, State::Failed | State::Cancelled) {
            return assert!(matches!(answer, Err(Error::NoRoom { .. })), "{answer:?}");
        }
        let expected = self.model.redrive(at).map_err(|state| match state {
            State::Succeeded => Error::Ended { task: id, state },
            state => Error::NotEnded { task: id, state },
        });
        assert_eq!(answer, expected);
        if answer.is_ok() {
            let due = self.store.get(id).await.unwrap().due;
            assert!(due >= self.model.tasks[at].due || state == State::Cancelled);
            self.model.tasks[at].due = due;
            self.start_next().await;
        }
    }

    pub async fn pause(&mut self, queue: usize, paused: bool) {
        let queue = QUEUES[queue];
        let change = if paused { QueueChange::Pause } else { QueueChange::Resume };
        self.store.change_queue(queue.into(), change).await.expect("changed");
        self.model.pause(queue, paused);
        while self.model.next_start().is_some() {
            self.start_next().await;
        }
    }

    /// A worker reports, if it has run something, and asks for work.
    pub async fn next_dispatch(&mut self, worker: u32, outcome: Outcome) {
        if self.model.waiting.contains(&worker) {
            return;
        }
        let finished = self.assignments.remove(&worker).map(|assignment| {
            let (task, attempt) = (assignment.task, assignment.attempt);
            Finished { task, attempt, outcome: outcome.clone(), ran: Duration::ZERO, output: None }
        });
        let reported = finished.is_some().then(|| self.model.report(worker, &outcome));
        let store = Arc::clone(&self.store);
        let mut dispatch: PendingDispatch =
            Box::pin(async move { store.next_dispatch(WorkerId(worker), finished).await });
        // The command is on its way once it was polled.
        if let std::task::Poll::Ready(early) = poll!(&mut dispatch) {
            dispatch = Box::pin(std::future::ready(early));
        }
        self.pending.insert(worker, dispatch);
        self.model.waiting.push_back(worker);
        if let Some(at) = reported {
            self.settle_due(at).await;
        }
        self.start_next().await;
    }

    /// A failed attempt gives its task another due time, and nothing else does.
    async fn settle_due(&mut self, at: usize) {
        let retried = self.model.events.last().unwrap().what == v1::EventType::RetryScheduled;
        if !retried {
            return;
        }
        // Answered after what the call has committed.
        let unknown = TaskId::new(1 << 40, 0);
        let answer = self.store.cancel(vec![unknown], Vec::new()).await;
        assert_eq!(answer, Ok(vec![Err(Error::NotFound(unknown))]));
        let due = self.store.get(self.model.tasks[at].id).await.unwrap().due;
        assert!(due >= self.model.tasks[at].due);
        self.model.tasks[at].due = due;
    }

    async fn start_next(&mut self) {
        let Some(worker) = self.model.next_start() else { return };
        let dispatch = self.pending.remove(&worker).expect("it waits");
        let dispatch = timeout(PATIENCE, dispatch).await.expect("a task is ready").unwrap();
        let Dispatch::Run(assignment) = dispatch else { panic!("nothing to run: {dispatch:?}") };
        let at = self.model.start(assignment.task);
        let task = &self.model.tasks[at];
        assert_eq!((assignment.attempt, assignment.failures), (task.attempt, task.failures));
        assert_eq!((&*assignment.kind, &assignment.body.payload), ("kind", &task.payload));
        assert_eq!(
            (assignment.body.timeout, assignment.retry.max_attempts),
            (PATIENCE, task.max_attempts)
        );
        assert!(!assignment.cancel.is_cancelled() && !task.cancel_requested);
        self.assignments.insert(worker, assignment);
    }

    /// The process ends without a word, and another takes over.
    pub async fn crash(self) -> Self {
        let dir = crashed_copy(self.dir.path());
        self.reopen(Some(dir)).await
    }

    /// An orderly end, in which some workers report and others are stuck.
    pub async fn restart(mut self, reports: u8) -> Self {
        self.store.drain().await.unwrap();
        self.model.drain();
        for (_, dispatch) in std::mem::take(&mut self.pending) {
            let dispatch = timeout(PATIENCE, dispatch).await.expect("told to stop");
            assert!(matches!(dispatch, Ok(Dispatch::Stop)), "{dispatch:?}");
        }
        let permit = self.gate.readmit("a", 1);
        let late = Submission { task: new_task("a", &Data::Empty), fingerprint: [0; 16] };
        assert_eq!(self.store.submit(late, permit).await, Err(Error::Draining));
        for (worker, assignment) in std::mem::take(&mut self.assignments) {
            let outcome = match reports >> (2 * worker) & 3 {
                0 => continue,
                1 => Outcome::Succeeded(Data::Empty),
                _ => Outcome::Interrupted,
            };
            self.model.report(worker, &outcome);
            let Assignment { task, attempt, .. } = assignment;
            let finished = Finished { task, attempt, outcome, ran: Duration::ZERO, output: None };
            let dispatch = self.store.next_dispatch(WorkerId(worker), Some(finished)).await;
            assert!(matches!(dispatch, Ok(Dispatch::Stop)), "{dispatch:?}");
        }
        self.check().await;
        assert_eq!(self.store.close().await, Ok(self.model.live().count() as u64));
        assert_eq!(self.tail.next().await, Err(Ended::Closed));
        let later = self.store.join(WorkerId(1)).await;
        assert_eq!(later, Err(Error::Draining));
        self.reopen(None).await
    }

    async fn reopen(mut self, copy: Option<TempDir>) -> Self {
        let newest = self.hub.newest();
        self.cursors.push((self.hub.cursor(newest), newest));
        let running = self.model.busy.len();
        let Self { dir, store, pending, tail, mut model, cursors, durability, .. } = self;
        drop((pending, tail, store));
        model.crash();
        let dir = copy.unwrap_or(dir);
        let (driver, recovered) = Self::open(dir, durability, model, cursors).await;
        assert_eq!(
            recovered,
            Recovered { tasks: driver.model.live().count(), interrupted: running }
        );
        for (cursor, seq) in &driver.cursors {
            assert_eq!(driver.hub.resolve(*cursor), Ok(*seq));
        }
        driver
    }

    /// Ends every task, and finds all permits free again.
    pub async fn finish(mut self) {
        for queue in 0..QUEUES.len() {
            self.pause(queue, false).await;
        }
        for at in self.model.live().collect::<Vec<_>>() {
            self.cancel(at).await;
        }
        for worker in self.model.busy.keys().copied().collect::<Vec<_>>() {
            self.next_dispatch(worker, Outcome::Stopped).await;
        }
        self.check().await;
        assert_eq!(self.model.live().count(), 0);
        for queue in QUEUES {
            let mut permits = Vec::new();
            for _ in 0..PLACES {
                let permit =
                    self.gate.admit(queue, 100, WhenFull::Reject, WaitLimit::Unlimited).await;
                permits.push(permit.expect("a permit was not given back"));
            }
            let more = self.gate.admit(queue, 100, WhenFull::Reject, WaitLimit::Unlimited).await;
            more.expect_err("a permit was given back twice");
        }
        assert_eq!(self.store.close().await, Ok(0));
    }

    /// Compares everything that can be read with the model.
    pub async fn check(&mut self) {
        self.check_events().await;
        let overview = self.store.overview(None).await.unwrap();
        for queue in QUEUES {
            let status = overview.queues.iter().find(|status| &*status.name == queue);
            let counts = status.map_or_else(Counts::default, |status| status.counts);
            assert_eq!((queue, counts), (queue, self.model.counts(queue)));
            let paused = status.is_some_and(|status| status.paused);
            assert_eq!(paused, self.model.paused.contains(queue));
        }
        let query = Query { limit: 1_000, ..Query::default() };
        let page = self.store.list(query).await.unwrap();
        assert_eq!((page.tasks.len(), page.next), (self.model.tasks.len(), None));
        for (stored, task) in page.tasks.iter().zip(&self.model.tasks) {
            let alone = self.store.get(task.id).await.unwrap();
            assert_eq!(&store::Task { attempts: Vec::new(), ..alone.clone() }, stored);
            task.check_attempts(&alone);
            let life = stored.lifecycle;
            let id = task.id;
            assert_eq!((stored.id, life.state), (id, task.state));
            assert_eq!((id, life.attempt, life.failures), (id, task.attempt, task.failures));
            assert_eq!((id, life.cancel_requested), (id, task.cancel_requested));
            if !task.state.is_terminal() {
                assert_eq!((id, life.crashes), (id, task.crashes));
            }
            assert_eq!((&*stored.queue, stored.priority), (task.queue, task.priority));
            assert_eq!(
                (id, &stored.body.payload, &stored.result),
                (id, &task.payload, &task.result)
            );
            let reason = stored.failure.as_ref().map(|failure| failure.reason.clone());
            assert_eq!((id, reason), (id, task.reason.clone()), "{task:?}");
            let worker = stored.execution.map(|(worker, _)| worker.0);
            assert_eq!((id, worker), (id, task.worker));
            assert_eq!((id, stored.due), (id, task.due), "{task:?}");
            assert_eq!(stored.finished.is_some(), task.state.is_terminal());
            assert_eq!(stored.max_attempts, task.max_attempts);
            assert_eq!(stored.labels.len(), 1);
            let request = task.request.map(|key| format!("request-{key}"));
            assert_eq!(stored.request_id, request);
        }
    }

    async fn check_events(&mut self) {
        while self.seen < self.model.events.len() {
            let piece = timeout(PATIENCE, self.tail.next()).await.expect("an event is missing");
            let data = piece.expect("events").data().clone();
            for event in v1::WatchEventsResponse::decode(data).unwrap().events {
                let expected = self.model.events.get(self.seen);
                self.seen += 1;
                assert_eq!(event.seq, self.seen as u64, "a gap, or a repetition");
                let told = ModelEvent {
                    what: event.r#type(),
                    task: event.task_id.parse().ok(),
                    attempt: event.attempt,
                    worker: event.worker.strip_prefix("worker-").map(|n| n.parse().unwrap()),
                    reason: event.error.map(|error| error.reason),
                };
                assert_eq!(Some(&told), expected, "event {}", self.seen);
            }
        }
        assert_eq!(self.hub.newest().0, self.model.events.len() as u64, "an event too many");
    }
}
