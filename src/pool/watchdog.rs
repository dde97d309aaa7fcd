//! Looks at executions from outside, as their workers may not be able to.
//!
//! A handler that blocks its thread blocks its worker, which then sees neither the timeout nor
//! a cancellation. The thread cannot be freed; but the execution can be judged without it, and
//! another worker of the same number goes on, on another thread. What the handler does from
//! then on has no effect here: its attempt has ended, and the next one has another number.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::runtime::Handle;
use tracing::warn;

use super::{
    Shared,
    worker::{Worker, failed, timed_out},
    worker_state::{InHand, WorkerState},
};
use crate::{
    store::{Finished, Outcome},
    task::WorkerId,
};

/// How often it looks.
const TICK: Duration = Duration::from_millis(250);

/// How much longer than its own worker an execution is given.
const SLACK: Duration = Duration::from_secs(1);

/// Looks until the pool is gone.
pub async fn watch(pool: Weak<Shared>) {
    loop {
        tokio::time::sleep(TICK).await;
        crate::failpoint::hit("watchdog");
        let Some(pool) = pool.upgrade() else { return };
        pool.threads.nudge();
        pool.take_over_the_overdue(Instant::now());
        pool.add_workers_for_freed_threads();
    }
}

impl Shared {
    fn take_over_the_overdue(&self, now: Instant) {
        for (id, state) in self.states() {
            let mut outcome = None;
            let taken = state.take_if(|in_hand| {
                outcome = self.overdue(in_hand, now);
                outcome.is_some()
            });
            if let Some((in_hand, outcome)) = taken.zip(outcome) {
                let runtime = None;
                self.replace(id, state, in_hand, outcome, runtime);
            }
        }
    }

    /// Whether all threads are blocked, or may be. Workers of a pool that shares its threads go
    /// on with those that are left.
    fn has_no_thread_for(&self, worker: &Worker) -> bool {
        worker.lease.is_shared() && !self.state().shares_threads()
    }

    /// Fills the places of workers that have left for want of a thread, once there is one.
    fn add_workers_for_freed_threads(&self) {
        let mut pool = self.state();
        if !pool.short_of_threads || pool.closed {
            return;
        }
        if let Err(error) = self.add_workers(&mut pool, self.threads.free()) {
            warn!(%error, "no thread for another worker");
        }
        pool.short_of_threads = pool.staying() < pool.size as usize;
    }

    /// Takes over whatever has not ended, as interrupted. What goes on has only to report,
    /// which needs no thread for handlers.
    pub fn take_over_all(&self) {
        for (id, state) in self.states() {
            if let Some(in_hand) = state.take_if(|_| true) {
                let runtime = Some(Handle::current());
                self.replace(id, state, in_hand, Outcome::Interrupted, runtime);
            }
        }
    }

    fn states(&self) -> Vec<(WorkerId, Arc<WorkerState>)> {
        self.state().workers.iter().map(|(id, state)| (*id, Arc::clone(state))).collect()
    }

    /// What becomes of an execution, if its worker should have judged it by now. The handler
    /// hears of what its worker cannot tell it.
    fn overdue(&self, in_hand: &mut InHand, now: Instant) -> Option<Outcome> {
        let grace = self.settings.cancel_grace + SLACK;
        if self.interrupt.is_cancelled() {
            in_hand.signal.cancel();
        }
        if in_hand.cancel.is_cancelled() {
            let since = *in_hand.cancelled.get_or_insert(now);
            return (now.duration_since(since) > grace).then_some(Outcome::Stopped);
        }
        let ran = now.saturating_duration_since(in_hand.since);
        let beyond = ran.checked_sub(in_hand.timeout)?;
        in_hand.signal.cancel();
        let judge = || failed(timed_out(in_hand.timeout), &in_hand.retry, in_hand.failures);
        (beyond > grace).then(judge)
    }

    fn replace(
        &self,
        id: WorkerId,
        state: Arc<WorkerState>,
        in_hand: InHand,
        outcome: Outcome,
        runtime: Option<Handle>,
    ) {
        let InHand { running, since, .. } = in_hand;
        warn!(
            task = %running.task,
            attempt = running.attempt,
            kind = %running.kind,
            worker = %id,
            "a handler blocks its thread: its attempt has ended without it"
        );
        self.drain_counts.count(&outcome);
        let (task, attempt, ran) = (running.task, running.attempt, since.elapsed());
        let finished = Finished { task, attempt, outcome, ran, output: None };
        match self.worker(id, state, 1) {
            Ok(worker) if runtime.is_none() && self.has_no_thread_for(&worker) => {
                warn!(
                    worker = %id,
                    "its handler blocks the last thread for handlers: it leaves, and another one \
                     comes when a handler returns"
                );
                worker.state.leave();
                self.state().short_of_threads = true;
                let state = Arc::clone(&worker.state);
                self.spawn(id, &Handle::current(), &state, worker.give_up(finished));
            }
            Ok(worker) => {
                let runtime = runtime.unwrap_or_else(|| worker.lease.runtime().clone());
                self.spawn(id, &runtime, &Arc::clone(&worker.state), worker.succeed(finished));
            }
            Err(error) => warn!(worker = %id, %error, "its worker cannot go on"),
        }
    }
}
