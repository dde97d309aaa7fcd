//! The worker pool: the workers that execute tasks.
//!
//! Owns the workers, timeouts, cancellation, and turning whatever a handler
//! does (return, fail, panic, hang) into an outcome. Must not know RPC, SQL or
//! who is watching. A worker takes its next task only when it has a free hand,
//! so a task that waits is always waiting in the store.
//!
//! The pool has a size, which can change while it works. Workers join at once;
//! one that is to leave is told so by the store at its next dispatch, so that no
//! task is handed to somebody who has gone.
//!
//! Workers and their handlers run on threads of their own (`threads`). An execution whose
//! handler blocks its thread cannot look at the clock, so another looks for it (`watchdog`).

mod retry;
mod threads;
mod watchdog;
mod worker;
mod worker_state;

use std::{
    collections::BTreeMap,
    io,
    num::NonZeroU32,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    handler::Registry,
    store::{self, Store},
    supervisor::Supervisor,
    task::WorkerId,
};

use threads::{MAX_THREADS, Threads};
use worker::{DrainCounts, Worker};
use worker_state::WorkerState;

pub use worker_state::{Running, WorkerStatus};

/// How the pool behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Workers in the pool at first.
    pub workers: NonZeroU32,
    /// How long a signalled handler has to return before it is dropped.
    pub cancel_grace: Duration,
    /// Bytes of a result; a larger one fails the task.
    pub max_result: usize,
}

/// The workers of one server. Clones are the same pool.
#[derive(Clone)]
pub struct WorkerPool {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<Store>,
    registry: Arc<Registry>,
    settings: Settings,
    supervisor: Supervisor,
    threads: Threads,
    state: Mutex<PoolState>,
    /// Somebody has left the pool.
    left: Notify,
    this: Weak<Shared>,
    /// What is under way for a caller that may leave.
    errands: TaskTracker,
    drain_counts: Arc<DrainCounts>,
    interrupt: CancellationToken,
    stop_handlers: CancellationToken,
}

struct PoolState {
    /// How many there are to be.
    size: u32,
    /// Who is there, or has yet to leave.
    workers: BTreeMap<WorkerId, Arc<WorkerState>>,
    /// Nobody joins any more.
    closed: bool,
    /// Workers whose handlers block the last threads have left, and are to be replaced.
    short_of_threads: bool,
}

/// The pool as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// How many workers there are to be.
    pub size: u32,
    /// The workers that there are, in the order of their numbers.
    pub workers: Vec<WorkerStatus>,
}

/// How the executions ended that ran when a drain began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// By themselves.
    pub finished: u64,
    /// By the drain; their tasks run again at the next start.
    pub interrupted: u64,
    /// Not at all: there was no time to record it. Recovery deals with them.
    pub stuck: usize,
}

impl WorkerPool {
    /// Starts the workers. Each is a tokio task, joined by [`WorkerPool::drain`]. Must be called
    /// within a tokio runtime, which is not the one that they run on.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        store: &Arc<Store>,
        registry: &Arc<Registry>,
        settings: Settings,
        supervisor: &Supervisor,
    ) -> io::Result<Self> {
        let state = PoolState {
            size: settings.workers.get(),
            workers: BTreeMap::new(),
            closed: false,
            short_of_threads: false,
        };
        let shared = Arc::new_cyclic(|this| Shared {
            store: Arc::clone(store),
            registry: Arc::clone(registry),
            settings,
            supervisor: supervisor.clone(),
            threads: Threads::default(),
            state: Mutex::new(state),
            left: Notify::new(),
            this: Weak::clone(this),
            errands: TaskTracker::new(),
            drain_counts: Arc::default(),
            interrupt: CancellationToken::new(),
            stop_handlers: CancellationToken::new(),
        });
        shared.add_workers(&mut shared.state(), usize::MAX)?;
        let watch = watchdog::watch(Arc::downgrade(&shared));
        // It ends with the pool.
        tokio::spawn(supervisor.task("watchdog", watch));
        Ok(Self { shared })
    }

    /// Gives the pool another size. New workers join at once. Of those that are
    /// too many, idle ones leave first, and at once; busy ones leave when their
    /// execution has ended.
    ///
    /// # Errors
    /// [`store::Error::Draining`], [`store::Error::Failed`].
    pub async fn resize(&self, size: NonZeroU32) -> Result<(), store::Error> {
        let leaving = {
            let mut pool = self.shared.state();
            if pool.closed {
                return Err(store::Error::Draining);
            }
            pool.size = size.get();
            let leaving = pool.choose_leaving();
            let added = self.shared.add_workers(&mut pool, usize::MAX);
            added.map_err(|error| store::Error::Failed(format!("no thread: {error}").into()))?;
            leaving
        };
        if leaving.is_empty() {
            return Ok(());
        }
        // On its way whether the caller stays or not: whoever is marked as leaving
        // must be told.
        let store = Arc::clone(&self.shared.store);
        let (tell, told) = oneshot::channel();
        let retire = async move {
            crate::failpoint::hit("pool");
            // The caller may have left.
            let _ = tell.send(store.retire(leaving).await);
        };
        self.shared.errands.spawn(self.shared.supervisor.task("pool", retire));
        told.await.unwrap_or_else(|_| Err(store::Error::Crashed("pool panicked".into())))
    }

    /// The pool as it stands.
    pub fn status(&self) -> Status {
        let pool = self.shared.state();
        let workers = pool.workers.iter().map(|(id, state)| state.status(*id)).collect();
        Status { size: pool.size, workers }
    }

    /// Executions are signalled now, whenever a drain would do that; see
    /// [`stop_handlers`](Self::stop_handlers).
    pub fn interrupt(&self) {
        self.shared.interrupt.cancel();
    }

    /// Executions that were signalled and have not ended are dropped.
    pub fn stop_handlers(&self) {
        self.shared.stop_handlers.cancel();
    }

    /// From now on nobody joins, and how executions end counts for the report
    /// of a drain.
    pub fn begin_drain(&self) {
        self.shared.state().closed = true;
        self.shared.drain_counts.begin_drain();
    }

    /// Waits for the workers to leave, which they do when the store answers
    /// their next dispatch with [`crate::store::Dispatch::Stop`]. Executions that still run
    /// at `interrupt_at` are signalled, and dropped at `stop_at`; whatever has
    /// not ended halfway from there to `give_up_at` blocks its thread, and is recorded as
    /// interrupted without it. Whoever is there at `give_up_at` is left behind.
    pub async fn drain(
        &self,
        interrupt_at: Instant,
        stop_at: Instant,
        give_up_at: Instant,
    ) -> Drained {
        self.begin_drain();
        let take_over_at = stop_at + give_up_at.saturating_duration_since(stop_at) / 2;
        let interrupt = || self.shared.interrupt.cancel();
        let stop = || self.shared.stop_handlers.cancel();
        let take_over = || self.shared.take_over_all();
        let steps: [(Instant, &(dyn Fn() + Sync)); 4] = [
            (interrupt_at, &interrupt),
            (stop_at, &stop),
            (take_over_at, &take_over),
            (give_up_at, &|| {}),
        ];
        for (deadline, then) in steps {
            if tokio::time::timeout_at(deadline, self.shared.all_left()).await.is_ok() {
                break;
            }
            then();
        }
        self.shared.errands.close();
        // They end with the store, which is yet to be closed, at the latest.
        drop(tokio::time::timeout_at(give_up_at, self.shared.errands.wait()).await);
        let (finished, interrupted) = self.shared.drain_counts.ended_in_drain();
        Drained { finished, interrupted, stuck: self.shared.state().workers.len() }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        // A panic elsewhere leaves the lists usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets workers join until the pool has its size, but no more than `most`, under the
    /// lowest numbers that are free.
    fn add_workers(&self, pool: &mut PoolState, most: usize) -> io::Result<()> {
        let mut missing = (pool.size as usize).saturating_sub(pool.staying()).min(most);
        let mut number = 0;
        while missing > 0 {
            number += 1;
            let id = WorkerId(number);
            if pool.workers.contains_key(&id) {
                continue;
            }
            let state = Arc::new(WorkerState::new());
            let worker = self.worker(id, Arc::clone(&state), missing)?;
            if worker.lease.is_shared() && !pool.shares_threads() {
                // All threads may be blocked: it comes when one is free.
                pool.short_of_threads = true;
                break;
            }
            missing -= 1;
            pool.workers.insert(id, state);
            let runtime = worker.lease.runtime().clone();
            self.spawn(id, &runtime, &Arc::clone(&worker.state), worker.run());
        }
        Ok(())
    }

    fn worker(&self, id: WorkerId, state: Arc<WorkerState>, missing: usize) -> io::Result<Worker> {
        Ok(Worker {
            id,
            state,
            store: Arc::clone(&self.store),
            registry: Arc::clone(&self.registry),
            settings: self.settings,
            drain_counts: Arc::clone(&self.drain_counts),
            interrupt: self.interrupt.clone(),
            stop_handlers: self.stop_handlers.clone(),
            lease: self.threads.lease(missing)?,
        })
    }

    fn spawn(
        &self,
        id: WorkerId,
        runtime: &Handle,
        state: &Arc<WorkerState>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let leaving = Leaving {
            pool: Weak::clone(&self.this),
            id,
            state: Arc::clone(state),
            generation: state.generation(),
        };
        let work = self.supervisor.task(format!("{id}"), async move {
            let _leaving = leaving;
            work.await;
        });
        // It ends with its threads, if not before; that it has ended is told by `leaving`.
        runtime.spawn(work);
    }

    /// Returns once nobody is in the pool.
    async fn all_left(&self) {
        loop {
            let mut left = pin!(self.left.notified());
            // Registers before it looks, so that nobody leaves in between.
            left.as_mut().enable();
            if self.state().workers.is_empty() {
                return;
            }
            left.await;
        }
    }
}

/// Takes a worker off the list when its task ends, in whichever way; but not one that
/// somebody goes on for.
struct Leaving {
    pool: Weak<Shared>,
    id: WorkerId,
    state: Arc<WorkerState>,
    generation: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        if self.state.generation() == self.generation {
            pool.state().workers.remove(&self.id);
            pool.left.notify_waiters();
        }
    }
}

impl PoolState {
    /// Whether it has more workers than there may be threads.
    fn shares_threads(&self) -> bool {
        self.size as usize > MAX_THREADS
    }

    fn staying(&self) -> usize {
        self.workers.values().filter(|state| !state.is_leaving()).count()
    }

    /// Marks as leaving those that are too many: idle ones before busy ones,
    /// high numbers before low ones.
    fn choose_leaving(&mut self) -> Vec<WorkerId> {
        let too_many = self.staying().saturating_sub(self.size as usize);
        let mut staying: Vec<_> =
            self.workers.iter().filter(|(_, state)| !state.is_leaving()).collect();
        staying.sort_by_key(|(id, state)| (state.is_busy(), std::cmp::Reverse(**id)));
        let leaving = staying.into_iter().take(too_many);
        leaving.inspect(|(_, state)| state.leave()).map(|(id, _)| *id).collect()
    }
}
