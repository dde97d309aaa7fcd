//! A store with its gate and its pool, as a case sees it.

use std::{future::Future, pin::Pin, sync::Arc, task::Poll};

use futures_util::poll;
use taskyard::{
    admission::{Admission, Limits, Permit},
    config::Retention,
    events::Hub,
    queue::{Overrides, QueueConfig},
    store::{
        Assignment, Dispatch, Error, Finished, Outcome, Overview, QueueChange, QueueStatus,
        Recovered, Store, Submission, Submitted, Task, weight,
    },
    task::{NewTask, State, TaskId, WorkerId},
};

use crate::store_conformance::{
    provider::{Opened, Provider},
    work::{FINGERPRINT, PATIENCE, RAN, done, nobody, patient},
};

/// What the configuration around the store says.
#[derive(Clone)]
pub struct Setup {
    pub queue_config: QueueConfig,
    pub queues: usize,
    pub max_crashes: u32,
    pub retention: Retention,
}

impl Default for Setup {
    fn default() -> Self {
        let (queue_config, retention) = (QueueConfig::default(), Retention::default());
        Self { queue_config, queues: 100, max_crashes: 100, retention }
    }
}

impl Setup {
    /// With a queue declared.
    pub fn queue(mut self, name: &str, own: Overrides) -> Self {
        self.queue_config.declared.insert(name.into(), own);
        self
    }
}

/// A worker with a task.
#[derive(Debug)]
pub struct Run {
    pub worker: WorkerId,
    pub given: Assignment,
}

impl Run {
    pub fn finished(&self, outcome: Outcome) -> Finished {
        let Assignment { task, attempt, .. } = self.given;
        Finished { task, attempt, outcome, ran: RAN, output: None }
    }
}

/// A worker that waits for its next dispatch.
pub struct Waiting {
    pub worker: WorkerId,
    dispatch: Pin<Box<dyn Future<Output = Result<Dispatch, Error>> + Send>>,
}

impl Waiting {
    /// Whether it has no answer yet. Call [`StoreHarness::settle`] before.
    pub async fn is_idle(&mut self) -> bool {
        match poll!(&mut self.dispatch) {
            Poll::Pending => true,
            Poll::Ready(answer) => {
                self.dispatch = Box::pin(std::future::ready(answer));
                false
            }
        }
    }

    pub async fn run(self) -> Run {
        match patient(self.dispatch).await {
            Ok(Dispatch::Run(given)) => Run { worker: self.worker, given },
            other => panic!("{} is given no task: {other:?}", self.worker),
        }
    }

    pub async fn stop(self) {
        let answer = patient(self.dispatch).await;
        assert!(matches!(answer, Ok(Dispatch::Stop)), "{} is not to stop: {answer:?}", self.worker);
    }
}

/// A store, what is in front of it, and what is behind it.
pub struct StoreHarness<'p, P: Provider> {
    provider: &'p P,
    home: P::Home,
    setup: Setup,
    workers: u32,
    pub gate: Arc<Admission>,
    pub store: Arc<Store>,
    pub hub: Hub,
    pub recovered: Recovered,
}

impl<'p, P: Provider> StoreHarness<'p, P> {
    pub async fn new(provider: &'p P) -> Self {
        Self::with(provider, Setup::default()).await
    }

    pub async fn with(provider: &'p P, setup: Setup) -> Self {
        let harness = Self::open(provider, provider.home(), setup).await;
        assert_eq!(harness.recovered, Recovered::default(), "a new store is empty");
        harness
    }

    async fn open(provider: &'p P, home: P::Home, setup: Setup) -> Self {
        let Setup { queue_config, queues, max_crashes, retention } = setup.clone();
        let gate =
            Arc::new(Admission::new(Limits { queue_config, queues, room_timeout: PATIENCE }));
        let opened = provider.open(&home, Arc::clone(&gate), max_crashes, retention);
        let Opened { store, hub, recovered } = patient(opened).await;
        Self { provider, home, setup, workers: 0, gate, store, hub, recovered }
    }

    /// The process ends without a word, and another takes over.
    pub async fn crash(self) -> Self {
        let home = self.provider.crashed(&self.home);
        Self::open(self.provider, home, self.setup).await
    }

    /// An orderly end, and another process. Whatever was not reported before is
    /// not reported.
    pub async fn restart(self) -> Self {
        patient(self.store.drain()).await.expect("a drain");
        patient(self.store.close()).await.expect("it closes");
        let Self { provider, home, setup, store, .. } = self;
        drop(store);
        Self::open(provider, home, setup).await
    }

    /// A permit for a task, which there must be.
    pub fn permit(&self, task: &NewTask) -> Permit {
        self.gate.try_admit(&task.queue, weight(task)).expect("there is room")
    }

    /// A task with its permit, on its way.
    pub fn ready(&self, task: NewTask) -> (Submission, Permit) {
        let permit = self.permit(&task);
        (Submission { task, fingerprint: FINGERPRINT }, permit)
    }

    pub async fn try_submit(&self, task: NewTask) -> Result<Submitted, Error> {
        let (submission, permit) = self.ready(task);
        patient(self.store.submit(submission, permit)).await
    }

    pub async fn submit(&self, task: NewTask) -> TaskId {
        self.try_submit(task).await.expect("accepted").task
    }

    pub async fn get(&self, id: TaskId) -> Task {
        patient(self.store.get(id)).await.expect("it is there")
    }

    pub async fn state(&self, id: TaskId) -> State {
        self.get(id).await.lifecycle.state
    }

    pub async fn cancel(&self, id: TaskId) -> Result<(), Error> {
        let results = patient(self.store.cancel(vec![id], Vec::new())).await.expect("a commit");
        results.into_iter().next().expect("a result")
    }

    pub async fn redrive(&self, id: TaskId) -> Result<(), Error> {
        let results = patient(self.store.redrive(vec![id], Vec::new())).await.expect("a commit");
        results.into_iter().next().expect("a result")
    }

    pub async fn change(&self, queue: &str, change: QueueChange) {
        patient(self.store.change_queue(queue.into(), change)).await.expect("a change");
    }

    pub async fn overview(&self) -> Overview {
        patient(self.store.overview(None)).await.expect("an overview")
    }

    pub async fn queue(&self, name: &str) -> QueueStatus {
        let overview = patient(self.store.overview(Some(name.into()))).await.expect("an overview");
        let [status] = <[QueueStatus; 1]>::try_from(overview.queues).expect("one queue");
        assert_eq!(&*status.name, name);
        status
    }

    /// Another worker joins the pool.
    pub async fn add_worker(&mut self) -> WorkerId {
        self.workers += 1;
        let worker = WorkerId(self.workers);
        patient(self.store.join(worker)).await.expect("it joins");
        worker
    }

    /// Another worker joins the pool, and waits for a dispatch when this answers.
    pub async fn wait(&mut self) -> Waiting {
        let worker = self.add_worker().await;
        self.wait_as(worker).await
    }

    pub async fn wait_as(&self, worker: WorkerId) -> Waiting {
        let store = Arc::clone(&self.store);
        let dispatch = Box::pin(async move { store.next_dispatch(worker, None).await });
        let mut waiting = Waiting { worker, dispatch };
        // On its way once it was polled.
        waiting.is_idle().await;
        self.settle().await;
        waiting
    }

    /// Another worker joins the pool, and is given the next task.
    pub async fn start(&mut self) -> Run {
        self.wait().await.run().await
    }

    /// A worker reports, and is given the next task.
    pub async fn next(&self, run: Run, outcome: Outcome) -> Run {
        let (worker, finished) = (run.worker, run.finished(outcome));
        let store = Arc::clone(&self.store);
        let dispatch = Box::pin(async move { store.next_dispatch(worker, Some(finished)).await });
        Waiting { worker, dispatch }.run().await
    }

    /// A worker reports, and leaves the pool: no task is given to it.
    pub async fn end(&self, run: Run, outcome: Outcome) {
        self.report(run.worker, run.finished(outcome)).await;
    }

    pub async fn report(&self, worker: WorkerId, finished: Finished) {
        patient(self.store.retire(vec![worker])).await.expect("it retires");
        let dispatch = patient(self.store.next_dispatch(worker, Some(finished))).await;
        assert!(
            matches!(dispatch, Ok(Dispatch::Stop)),
            "a retired worker is told to stop: {dispatch:?}"
        );
        patient(self.store.leave(worker)).await.expect("it leaves");
    }

    /// Another worker runs the next task to this end.
    pub async fn run(&mut self, outcome: Outcome) -> TaskId {
        let run = self.start().await;
        let task = run.given.task;
        self.end(run, outcome).await;
        task
    }

    /// One worker runs so many tasks; which, and of which queues, in order.
    pub async fn run_all(&mut self, count: usize) -> Vec<(TaskId, Arc<str>)> {
        let mut started = Vec::new();
        let mut run = self.start().await;
        loop {
            started.push((run.given.task, Arc::clone(&run.given.queue)));
            if started.len() == count {
                self.end(run, done()).await;
                return started;
            }
            run = self.next(run, done()).await;
        }
    }

    /// Until every start that was possible has happened: a store answers a
    /// command only after it has made the starts that earlier ones allow.
    pub async fn settle(&self) {
        for _ in 0..2 {
            assert_eq!(self.cancel(nobody()).await, Err(Error::NotFound(nobody())));
        }
    }
}
