//! What one worker is doing, for whoever asks.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    store::Assignment,
    task::{RetryPolicy, TaskId, Timestamp, WorkerId},
};

/// A worker as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// Who.
    pub id: WorkerId,
    /// It leaves the pool when its execution has ended.
    pub leaving: bool,
    /// What it runs.
    pub running: Option<Running>,
    /// Executions that it has ended since it joined.
    pub finished: u64,
    /// The part of its time, from 0 to 1, that it was busy since it joined.
    pub busy_share: f64,
}

/// What a worker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which task.
    pub task: TaskId,
    /// Its queue.
    pub queue: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// Which execution of it.
    pub attempt: u32,
    /// Since when, by the wall clock.
    pub started: Timestamp,
    /// For how long, by the monotonic clock.
    pub running_for: Duration,
}

/// An execution, as whoever judges it from outside needs it.
#[derive(Debug)]
pub struct InHand {
    pub running: Running,
    pub since: Instant,
    pub timeout: Duration,
    pub failures: u32,
    pub retry: RetryPolicy,
    /// Fires when the task is cancelled.
    pub cancel: CancellationToken,
    /// Tells the handler to stop.
    pub signal: CancellationToken,
    /// Since when it is known that the task is cancelled.
    pub cancelled: Option<Instant>,
}

/// What one worker is doing, as it notes it.
#[derive(Debug)]
pub struct WorkerState {
    joined: Instant,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    leaving: bool,
    in_hand: Option<InHand>,
    /// How many executions were taken out of its hand. Who began before the last of them
    /// has nothing more to say.
    taken: u64,
    finished: u64,
    busy: Duration,
}

impl Notes {
    fn ended(&mut self, ran: Duration) {
        self.in_hand = None;
        self.finished += 1;
        self.busy += ran;
    }
}

impl WorkerState {
    pub fn new() -> Self {
        Self { joined: Instant::now(), notes: Mutex::default() }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An execution begins, of which `signal` tells the handler to stop.
    pub fn begin(&self, assignment: &Assignment, signal: CancellationToken, now: Instant) {
        let running = Running {
            task: assignment.task,
            queue: Arc::clone(&assignment.queue),
            kind: Arc::clone(&assignment.kind),
            attempt: assignment.attempt,
            started: assignment.started,
            running_for: Duration::ZERO,
        };
        self.notes().in_hand = Some(InHand {
            running,
            since: now,
            timeout: assignment.body.timeout,
            failures: assignment.failures,
            retry: assignment.retry,
            cancel: assignment.cancel.clone(),
            signal,
            cancelled: None,
        });
    }

    /// Which of the workers that one after the other have this state.
    pub fn generation(&self) -> u64 {
        self.notes().taken
    }

    /// The execution has ended; `false` if it was taken from this generation before.
    pub fn end(&self, generation: u64, ran: Duration) -> bool {
        let mut notes = self.notes();
        let is_held = notes.taken == generation;
        if is_held {
            notes.ended(ran);
        }
        is_held
    }

    /// Looks at what is in hand, and takes it out if `is_overdue` says so: whoever executes
    /// it has no more say in it.
    pub fn take_if(&self, is_overdue: impl FnOnce(&mut InHand) -> bool) -> Option<InHand> {
        let mut notes = self.notes();
        if !notes.in_hand.as_mut().is_some_and(is_overdue) {
            return None;
        }
        let taken = notes.in_hand.take()?;
        notes.taken += 1;
        notes.ended(taken.since.elapsed());
        Some(taken)
    }

    pub fn leave(&self) {
        self.notes().leaving = true;
    }

    pub fn is_leaving(&self) -> bool {
        self.notes().leaving
    }

    pub fn is_busy(&self) -> bool {
        self.notes().in_hand.is_some()
    }

    pub fn status(&self, id: WorkerId) -> WorkerStatus {
        let notes = self.notes();
        let now = Instant::now();
        let running = notes.in_hand.as_ref().map(|in_hand| Running {
            running_for: now.duration_since(in_hand.since),
            ..in_hand.running.clone()
        });
        let busy = notes.busy + running.as_ref().map_or(Duration::ZERO, |r| r.running_for);
        let there = now.duration_since(self.joined);
        WorkerStatus {
            id,
            leaving: notes.leaving,
            running,
            finished: notes.finished,
            busy_share: (busy.as_secs_f64() / there.as_secs_f64().max(1e-9)).min(1.0),
        }
    }
}
