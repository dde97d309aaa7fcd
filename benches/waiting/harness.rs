//! A store, and what is done to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use taskyard::{
    admission::{Admission, Limits, WaitLimit, WhenFull},
    config::{Durability, Retention},
    queue,
    store::{
        self, Dispatch, Error, Filter, Finished, Outcome, Query, QueueChange, Store, Submission,
        WallClock,
    },
    task::{Data, NewTask, State, TaskBody, TaskId, WorkerId},
};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Bytes of a task.
pub const PAYLOAD_BYTES: usize = 200;

/// Tasks that are handed over together.
const CHUNK: usize = 1_000;

type Done = Result<(), Box<dyn std::error::Error>>;

/// A store in a directory of its own.
pub struct Harness {
    dir: TempDir,
    store: Arc<Store>,
    gate: Arc<Admission>,
}

impl Harness {
    pub async fn open() -> Result<Self, Box<dyn std::error::Error>> {
        Self::on(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?).await
    }

    async fn on(dir: TempDir) -> Result<Self, Box<dyn std::error::Error>> {
        let defaults = queue::Settings {
            max_tasks: *queue::MAX_TASKS.end(),
            max_bytes: *queue::MAX_BYTES.end(),
            ..queue::Settings::default()
        };
        let queue_config = queue::QueueConfig { defaults, ..queue::QueueConfig::default() };
        let room_timeout = Duration::from_mins(1);
        let gate = Arc::new(Admission::new(Limits { queue_config, queues: 10, room_timeout }));
        let settings = store::Settings {
            data_dir: dir.path().to_owned(),
            durability: Durability::Fsync,
            max_crashes: 3,
            disk_reserve: 0,
            retention: Retention::default(),
            clock: WallClock::default(),
            max_log: 512 << 20,
            accept_loss: false,
        };
        let (store, _, _) = store::open(&settings, Arc::clone(&gate)).await?;
        Ok(Self { dir, store, gate })
    }

    pub async fn submit(&self, queue: &str, tasks: usize) -> Done {
        let payload = Data::Bytes(vec![b'x'; PAYLOAD_BYTES].into());
        let task = NewTask { body: payload.into(), ..NewTask::new("noop", queue) };
        let bytes = store::weight(&task);
        let mut left = tasks;
        let mut under_way = JoinSet::new();
        while left > 0 {
            let mut chunk = Vec::with_capacity(CHUNK);
            for _ in 0..left.min(CHUNK) {
                let place =
                    self.gate.admit(queue, bytes, WhenFull::Reject, WaitLimit::Unlimited).await?;
                let submission = Submission { task: task.clone(), fingerprint: [0; 16] };
                chunk.push((submission, place));
            }
            left -= chunk.len();
            let store = Arc::clone(&self.store);
            under_way.spawn(async move { store.submit_all(chunk).await });
            if under_way.len() >= 8 {
                joined(&mut under_way).await?;
            }
        }
        while !under_way.is_empty() {
            joined(&mut under_way).await?;
        }
        Ok(())
    }

    /// Runs so many tasks, which must be of this queue, on so many workers.
    pub async fn run(&self, queue: &str, tasks: usize, workers: u32) -> Done {
        let left = Arc::new(AtomicUsize::new(tasks));
        let mut runners = JoinSet::new();
        for worker in 100..100 + workers {
            let (store, left, queue) =
                (Arc::clone(&self.store), Arc::clone(&left), queue.to_owned());
            runners.spawn(async move {
                let mut finished = None;
                while let Ok(()) = take_one(&left) {
                    let dispatch = store.next_dispatch(WorkerId(worker), finished.take()).await?;
                    finished = Some(ended(&dispatch, &queue)?);
                }
                report(&store, worker, finished).await
            });
        }
        while let Some(worker) = runners.join_next().await {
            worker??;
        }
        Ok(())
    }

    pub async fn pause(&self, queue: &str) -> Done {
        Ok(self.store.change_queue(queue.into(), QueueChange::Pause).await?)
    }

    pub async fn resume(&self, queue: &str) -> Done {
        Ok(self.store.change_queue(queue.into(), QueueChange::Resume).await?)
    }

    pub async fn overview(&self) -> Done {
        self.store.overview(None).await?;
        Ok(())
    }

    /// Pages through all tasks that wait, and counts them.
    pub async fn list_all(&self) -> Result<usize, Box<dyn std::error::Error>> {
        let mut query = waiting();
        let mut listed = 0;
        loop {
            let page = self.store.list(query.clone()).await?;
            listed += page.tasks.len();
            match page.next {
                Some(next) => query.beyond = Some(next),
                None => return Ok(listed),
            }
        }
    }

    /// Cancels so many of those that wait.
    pub async fn cancel(&self, tasks: usize) -> Done {
        let mut query = waiting();
        let mut left = tasks;
        while left > 0 {
            query.limit = left.min(CHUNK);
            let page = self.store.list(query.clone()).await?;
            let ids: Vec<TaskId> = page.tasks.iter().map(|task| task.id).collect();
            left -= ids.len();
            self.store.cancel(ids, Vec::new()).await?;
            query.beyond = page.next;
        }
        Ok(())
    }

    /// Closes the store and opens it again.
    pub async fn reopen(self) -> Result<Self, Box<dyn std::error::Error>> {
        let Self { dir, store, gate } = self;
        drop(store.close().await);
        drop((store, gate));
        Self::on(dir).await
    }

    pub async fn close(self) {
        drop(self.store.close().await);
    }
}

fn waiting() -> Query {
    let filter =
        Filter { states: vec![State::Queued], queues: vec!["waiting".into()], ..Filter::default() };
    Query { filter, limit: CHUNK, omit_payloads: true, ..Query::default() }
}

async fn joined<T: 'static>(under_way: &mut JoinSet<Result<T, Error>>) -> Done {
    match under_way.join_next().await {
        Some(answer) => answer?.map(drop).map_err(Into::into),
        None => Ok(()),
    }
}

fn take_one(left: &AtomicUsize) -> Result<(), usize> {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).map(drop)
}

fn ended(dispatch: &Dispatch, queue: &str) -> Result<Finished, Error> {
    let Dispatch::Run(assignment) = dispatch else { return Err(Error::Draining) };
    assert_eq!(&*assignment.queue, queue);
    Ok(Finished {
        task: assignment.task,
        attempt: assignment.attempt,
        outcome: Outcome::Succeeded(Data::Empty),
        ran: Duration::ZERO,
        output: None,
    })
}

/// Reports the last execution of a worker that then leaves.
async fn report(store: &Store, worker: u32, finished: Option<Finished>) -> Result<(), Error> {
    store.retire(vec![WorkerId(worker)]).await?;
    store.next_dispatch(WorkerId(worker), finished).await?;
    store.leave(WorkerId(worker)).await
}

/// A worker with work of its own, that notes how long it ever waits for more.
pub struct Runner {
    longest: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    work: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Runner {
    pub fn start(harness: &Harness) -> Self {
        let (longest, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (store, gate) = (Arc::clone(&harness.store), Arc::clone(&harness.gate));
        let (noted, ends) = (Arc::clone(&longest), Arc::clone(&over));
        let work = tokio::spawn(async move {
            let mut finished = None;
            let task = small_task();
            while !ends.load(Ordering::Relaxed) {
                let place = gate
                    .try_admit("own", 100)
                    .map_err(|cause| Error::NoRoom { queue: "own".into(), cause })?;
                let submission = Submission { task: task.clone(), fingerprint: [0; 16] };
                let began = Instant::now();
                store.submit(submission, place).await?;
                let dispatch = store.next_dispatch(WorkerId(1), finished.take()).await?;
                let rest = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                noted.fetch_max(rest, Ordering::Relaxed);
                finished = Some(ended(&dispatch, "own")?);
            }
            report(&store, 1, finished).await
        });
        Self { longest, over, work }
    }

    /// Since it was last asked.
    pub fn longest_rest(&self) -> Duration {
        Duration::from_micros(self.longest.swap(0, Ordering::Relaxed))
    }

    pub async fn stop(self) -> Done {
        self.over.store(true, Ordering::Relaxed);
        Ok(self.work.await??)
    }
}

fn small_task() -> NewTask {
    NewTask {
        body: TaskBody { timeout: Duration::from_mins(1), ..TaskBody::default() },
        ..NewTask::new("noop", "own")
    }
}

/// Memory of this process, as the operating system counts it.
pub fn resident_bytes() -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
    Ok(kib << 10)
}
