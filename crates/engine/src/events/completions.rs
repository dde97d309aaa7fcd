//! Who waits for the end of which task.
//!
//! A registry beside the broadcast, so that a waiting caller costs nothing for
//! the events of other tasks. That no end falls between a look at the task and the wait for
//! it is the part of [`callers`].

mod callers;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use self::callers::Callers;
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
    callers: Callers,
}

impl Completions {
    pub(super) fn register(shared: &Arc<Shared>, task: u64) -> Result<Completion, TooManyWaiters> {
        let mut waiting = shared.completions.lock();
        if shared.completions.callers.count() >= MAX_WAITERS {
            return Err(TooManyWaiters);
        }
        shared.completions.callers.arrive();
        let (notify, callers) = waiting.entry(task).or_default();
        *callers += 1;
        Ok(Completion { notify: Arc::clone(notify), task, shared: Arc::clone(shared) })
    }

    pub(super) fn complete(&self, ended: &[u64]) {
        // The common case: nobody waits, and the lock is not worth taking. A
        // caller that registers now reads the task afterwards and sees its end.
        if ended.is_empty() || self.callers.count() == 0 {
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
        self.shared.completions.callers.leave();
        if let Some((_, callers)) = waiting.get_mut(&self.task) {
            *callers = callers.saturating_sub(1);
            if *callers == 0 {
                waiting.remove(&self.task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        event::Seq,
        events::{CursorCodec, EventBatch, Hub, Incarnation, Publisher, hub},
        task::TaskId,
    };

    fn task(number: u64) -> TaskId {
        TaskId::new(number, 0)
    }

    fn new_hub() -> (Publisher, Hub) {
        let incarnation = Incarnation { mark: 1, first: Seq(1) };
        hub(Seq(0), CursorCodec::new(1, vec![incarnation]))
    }

    fn end(publisher: &Publisher, tasks: &[u64]) {
        let data = bytes::Bytes::new();
        publisher.publish(EventBatch::new(Seq(1), Seq(1), data, tasks.into()));
    }

    fn left(hub: &Hub) -> (usize, usize) {
        let completions = &hub.shared.completions;
        (completions.lock().len(), completions.callers.count())
    }

    #[test]
    fn whoever_waits_for_the_task_is_told_even_before_the_first_poll() {
        let (publisher, hub) = new_hub();
        let [first, second, other] = [1, 1, 2].map(|n| hub.completion(task(n)).unwrap());
        let [told, also_told, not_told] = [&first, &second, &other].map(Completion::ended);
        end(&publisher, &[1, 3]);
        assert_eq!(told.now_or_never(), Some(()));
        assert_eq!(also_told.now_or_never(), Some(()));
        assert_eq!(not_told.now_or_never(), None);
    }

    #[test]
    fn an_end_from_before_is_not_told() {
        let (publisher, hub) = new_hub();
        let early = hub.completion(task(1)).unwrap();
        end(&publisher, &[1]);
        let late = hub.completion(task(1)).unwrap();
        assert_eq!(early.ended().now_or_never(), None, "asked after the end");
        assert_eq!(late.ended().now_or_never(), None);
    }

    #[test]
    fn whoever_leaves_leaves_nothing() {
        let (publisher, hub) = new_hub();
        let (first, second) = (hub.completion(task(1)).unwrap(), hub.completion(task(1)).unwrap());
        let other = hub.completion(task(2)).unwrap();
        assert_eq!(left(&hub), (2, 3));
        drop(first);
        let told = second.ended();
        end(&publisher, &[1]);
        assert_eq!(told.now_or_never(), Some(()), "the leaving of another is no end");
        drop(second);
        assert_eq!(left(&hub), (1, 1));
        drop(other);
        assert_eq!(left(&hub), (0, 0));
    }

    #[test]
    fn waiters_are_limited() {
        let (_publisher, hub) = new_hub();
        let number = |n: usize| task(n as u64 % 7 + 1);
        let mut waiting: Vec<_> =
            (0..MAX_WAITERS).map(|n| hub.completion(number(n)).unwrap()).collect();
        assert_eq!(hub.completion(task(8)).unwrap_err(), TooManyWaiters);
        waiting.pop();
        let last = hub.completion(task(8)).unwrap();
        assert_eq!(hub.completion(task(1)).unwrap_err(), TooManyWaiters);
        drop((waiting, last));
        assert_eq!(left(&hub), (0, 0));
    }
}
