//! The threads that handlers run on: not those that serve callers.
//!
//! Owns runtimes for the workers, and how many threads each has. A handler that blocks its
//! thread keeps it from the others of its runtime; so there is a thread for every worker, up
//! to [`MAX_THREADS`], and a worker whose predecessor still blocks a thread is given another.
//! Must not know what a worker does.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::telemetry::Throttle;

/// Threads for handlers in all. Workers beyond share them.
pub const MAX_THREADS: usize = 512;

/// Tried again and again.
static REFUSED: Throttle = Throttle::new("threads for handlers were refused");

/// Threads that are added together, at least.
const LEAST_ADDED: usize = 4;

/// The runtimes of the workers.
#[derive(Debug, Default)]
pub struct Threads {
    groups: Mutex<Vec<Group>>,
}

/// A runtime, and how many workers use it.
#[derive(Debug)]
struct Group {
    /// `None` once it is being shut down.
    runtime: Option<Runtime>,
    threads: usize,
    workers: Arc<AtomicUsize>,
}

/// A worker's place on a runtime; given up when dropped.
#[derive(Debug)]
pub struct Lease {
    runtime: Handle,
    workers: Arc<AtomicUsize>,
    /// There were fewer threads than workers when it was given.
    is_shared: bool,
}

impl Lease {
    /// Where to spawn the worker.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Whether other workers may have all threads that it is on.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.workers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Threads {
    /// A place for a worker, of `missing` that are to come; on new threads if every one has
    /// a worker already.
    ///
    /// # Errors
    /// If there are no threads yet, and they cannot be started.
    pub fn lease(&self, missing: usize) -> io::Result<Lease> {
        let mut groups = self.groups();
        let is_free = |group: &&Group| group.workers() < group.threads;
        if groups.iter().find(is_free).is_none() {
            let there: usize = groups.iter().map(|group| group.threads).sum();
            let cores = thread::available_parallelism().map_or(1, usize::from);
            let least = if groups.is_empty() { cores } else { LEAST_ADDED };
            let added = missing.max(least).min(MAX_THREADS.saturating_sub(there));
            if added > 0 {
                match Group::start(added) {
                    Ok(group) => groups.push(group),
                    Err(error) if groups.is_empty() => return Err(error),
                    Err(error) => REFUSED.line(|left_out| {
                        tracing::warn!(%error, left_out, "no further threads for handlers");
                    }),
                }
            }
        }
        // The share of its threads that are taken, in thousandths.
        let load = |group: &&Group| group.workers() * 1_000 / group.threads;
        let group = groups.iter().min_by_key(load);
        let group = group.ok_or_else(|| io::Error::other("there are no threads for handlers"))?;
        group.lease()
    }

    /// How many workers could have a thread of their own now.
    pub fn free(&self) -> usize {
        let groups = self.groups();
        let there: usize = groups.iter().map(|group| group.threads).sum();
        let free = |group: &Group| group.threads.saturating_sub(group.workers());
        groups.iter().map(free).sum::<usize>() + MAX_THREADS.saturating_sub(there)
    }

    /// Wakes a thread of each runtime. The one that waits for the runtime's timers and sockets
    /// leaves that to nobody when a task that it was woken for blocks it: one that is idle has to
    /// be woken to take it over.
    pub fn nudge(&self) {
        for runtime in self.groups().iter().filter_map(|group| group.runtime.as_ref()) {
            runtime.spawn(async {});
        }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Group {
    fn start(threads: usize) -> io::Result<Self> {
        let build = || {
            Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("handlers")
                .enable_all()
                .build()
        };
        // It panics where the system refuses a thread.
        let refused = |_| Err(io::Error::other("the system refuses further threads"));
        let runtime = catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(refused)?;
        Ok(Self { runtime: Some(runtime), threads, workers: Arc::default() })
    }

    fn workers(&self) -> usize {
        self.workers.load(Ordering::Acquire)
    }

    fn lease(&self) -> io::Result<Lease> {
        let gone = || io::Error::other("the threads for handlers are shut down");
        let runtime = self.runtime.as_ref().ok_or_else(gone)?.handle().clone();
        let is_shared = self.workers.fetch_add(1, Ordering::AcqRel) >= self.threads;
        Ok(Lease { runtime, workers: Arc::clone(&self.workers), is_shared })
    }
}

impl Drop for Group {
    /// A thread that is blocked is left behind: it cannot be stopped.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_blocks_after_a_timer_holds_up_no_timer_of_others() {
        let threads = Threads::default();
        let lease = threads.lease(2).unwrap();
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        lease.runtime().spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // On the thread that waited for the timers.
            let _ = blocked.recv();
        });
        lease.runtime().spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            tell.send(()).expect("somebody waits");
        });
        let timer = (0..1_000).find(|_| {
            threads.nudge();
            told.recv_timeout(Duration::from_millis(20)).is_ok()
        });
        drop(release);
        assert!(timer.is_some(), "it hangs");
    }

    #[test]
    fn every_worker_has_a_thread_up_to_the_bound() {
        let threads = Threads::default();
        let leases: Vec<_> = (0..6).map(|given| threads.lease(6 - given).unwrap()).collect();
        let there = |threads: &Threads| -> Vec<_> {
            threads.groups().iter().map(|group| group.threads).collect()
        };
        let cores = thread::available_parallelism().map_or(1, usize::from);
        assert_eq!(there(&threads), [6.max(cores)], "one runtime for those that come together");
        let more: Vec<_> = (0..=cores).map(|_| threads.lease(1).unwrap()).collect();
        assert!(there(&threads)[1..].iter().all(|added| *added == LEAST_ADDED));
        assert!(there(&threads).iter().sum::<usize>() >= leases.len() + more.len());
        drop((leases, more));
        let free = there(&threads);
        let again: Vec<_> = (0..6).map(|_| threads.lease(1).unwrap()).collect();
        assert_eq!(there(&threads), free, "a place that was given up is given again");
        drop(again);
    }
}
