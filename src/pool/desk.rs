//! What one worker is doing, for whoever asks.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    store::Assignment,
    task::{TaskId, Timestamp, WorkerId},
};

/// A worker as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// Who.
    pub id: WorkerId,
    /// It leaves the crew when its execution has ended.
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

/// Where a worker notes what it does.
#[derive(Debug)]
pub struct Desk {
    joined: Instant,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    leaving: bool,
    /// What it runs, and since when.
    running: Option<(Running, Instant)>,
    finished: u64,
    busy: Duration,
}

impl Desk {
    pub fn new() -> Self {
        Self { joined: Instant::now(), notes: Mutex::default() }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self, assignment: &Assignment, now: Instant) {
        let running = Running {
            task: assignment.task,
            queue: Arc::clone(&assignment.queue),
            kind: Arc::clone(&assignment.kind),
            attempt: assignment.attempt,
            started: assignment.started,
            running_for: Duration::ZERO,
        };
        self.notes().running = Some((running, now));
    }

    pub fn end(&self, ran: Duration) {
        let mut notes = self.notes();
        notes.running = None;
        notes.finished += 1;
        notes.busy += ran;
    }

    pub fn leave(&self) {
        self.notes().leaving = true;
    }

    pub fn is_leaving(&self) -> bool {
        self.notes().leaving
    }

    pub fn is_busy(&self) -> bool {
        self.notes().running.is_some()
    }

    pub fn status(&self, id: WorkerId) -> WorkerStatus {
        let notes = self.notes();
        let now = Instant::now();
        let running = notes.running.as_ref().map(|(running, since)| Running {
            running_for: now.duration_since(*since),
            ..running.clone()
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
