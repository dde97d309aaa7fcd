//! Who waits for the end of which task.
//!
//! A registry beside the broadcast, so that a waiting caller costs nothing for
//! the events of other tasks.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::Shared;

/// Callers that may wait at a time.
pub const MAX_WAITERS: usize = 100_000;

/// More than [`MAX_WAITERS`] callers wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_WAITERS} callers wait for tasks already, which is the limit")]
pub struct TooManyWaiters;

/// The callers that wait, by the number of their task.
#[derive(Debug, Default)]
pub struct Completions {
    waiting: Mutex<HashMap<u64, (Arc<Notify>, usize)>>,
    callers: AtomicUsize,
}

impl Completions {
    pub(super) fn register(shared: &Arc<Shared>, task: u64) -> Result<Completion, TooManyWaiters> {
        let mut waiting = shared.completions.lock();
        if shared.completions.callers.load(Ordering::Relaxed) >= MAX_WAITERS {
            return Err(TooManyWaiters);
        }
        shared.completions.callers.fetch_add(1, Ordering::Relaxed);
        let (notify, callers) = waiting.entry(task).or_default();
        *callers += 1;
        Ok(Completion { notify: Arc::clone(notify), task, shared: Arc::clone(shared) })
    }

    pub(super) fn complete(&self, ended: &[u64]) {
        // The common case: nobody waits, and the lock is not worth taking. A
        // caller that registers now reads the task afterwards and sees its end.
        if ended.is_empty() || self.callers.load(Ordering::Acquire) == 0 {
            return;
        }
        let waiting = self.lock();
        for task in ended {
            if let Some((notify, _)) = waiting.get(task) {
                notify.notify_waiters();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Arc<Notify>, usize)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Interest in the end of one task; given up when dropped.
#[derive(Debug)]
pub struct Completion {
    notify: Arc<Notify>,
    task: u64,
    shared: Arc<Shared>,
}

impl Completion {
    /// A future that completes when the task ends after this call, even if it
    /// is first polled later.
    pub fn ended(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        let mut waiting = self.shared.completions.lock();
        self.shared.completions.callers.fetch_sub(1, Ordering::Relaxed);
        if let Some((_, callers)) = waiting.get_mut(&self.task) {
            *callers -= 1;
            if *callers == 0 {
                waiting.remove(&self.task);
            }
        }
    }
}
