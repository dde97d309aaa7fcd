//! Who may hand in a task, and when.
//!
//! Owns the limits of every queue and the line of callers that wait for room.
//! Yields a [`Permit`], without which the store takes nothing. Must not know
//! RPC types or files.
//!
//! A [`Permit`] *is* the task's share of its queue: it travels with the task into the
//! store, and is given back when it is dropped, which is when the task
//! starts, is cancelled, or was never committed. So no path can forget to.

mod drain_rate;
mod hold;
mod queue_gate;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use crate::queue::{QueueConfig, Settings};

pub use hold::Hold;
use hold::Holds;
use queue_gate::{Entry, QueueGate};

pub use queue_gate::Handoff;

/// How much may wait.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What each queue may hold.
    pub queue_config: QueueConfig,
    /// Queues in all.
    pub queues: usize,
    /// How long a caller without a deadline waits for room.
    pub room_timeout: Duration,
}

/// Callers that may wait for room in one queue; the next one is told that the
/// queue is full.
pub const MAX_WAITING_CALLERS: usize = 10_000;

/// Bytes of tasks that callers may hold in memory while they wait for room in
/// one queue; beyond it a caller is told that the queue is full.
pub const MAX_WAITING_BYTES: u64 = 256 << 20;

/// What a caller wants if there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Wait in line until the deadline.
    Wait,
    /// An answer at once.
    Reject,
}

/// How long a caller waits in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitLimit {
    /// Until its deadline: [`Refused::Deadline`].
    Deadline(tokio::time::Instant),
    /// Until then, when the queue counts as full: [`Refused::Full`].
    Full(tokio::time::Instant),
    /// For as long as it is there.
    Unlimited,
}

impl WaitLimit {
    /// What `work` gives, or `None` if that takes longer than the caller waits.
    pub async fn bound<T>(self, work: impl Future<Output = T>) -> Option<T> {
        match self {
            Self::Deadline(until) | Self::Full(until) => {
                tokio::time::timeout_at(until, work).await.ok()
            }
            Self::Unlimited => Some(work.await),
        }
    }

    /// What a caller is told when it has waited for as long as it does, to whom `refused` was
    /// said at first.
    #[must_use]
    pub fn over(self, refused: Refused) -> Refused {
        match self {
            Self::Deadline(_) => Refused::Deadline,
            Self::Full(_) | Self::Unlimited => refused,
        }
    }
}

/// Which limit a queue has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many tasks.
    Tasks(u64),
    /// So many bytes.
    Bytes(u64),
    /// As many callers stand in line as may, or hold as many bytes as may.
    Line,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue is full.
    #[error("the queue is full")]
    Full {
        /// Which limit it has reached.
        limit: Limit,
        /// When there is likely to be room, from the measured drain rate.
        retry_after: Duration,
    },
    /// The caller's deadline passed in the line.
    #[error("the deadline passed while waiting for room; nothing was enqueued")]
    Deadline,
    /// The task alone, or the tasks that must go together, are larger than the
    /// queue.
    #[error("this has {bytes} bytes and its queue holds {limit}")]
    LargerThanQueue {
        /// Bytes of the task, or of the tasks together.
        bytes: u64,
        /// Bytes that the queue holds.
        limit: u64,
    },
    /// The tasks that must go together are more than the queue holds.
    #[error("these are {tasks} tasks and their queue holds {limit}")]
    MoreThanQueue {
        /// Tasks.
        tasks: u64,
        /// Tasks that the queue holds.
        limit: u64,
    },
    /// The configuration fixes the queues, and this is none of them.
    #[error("there is no such queue")]
    UnknownQueue,
    /// The queue would be one too many.
    #[error("there are {0} queues in use, which is the limit")]
    TooManyQueues(usize),
    /// The store takes no new task for a time; that passes by itself.
    #[error("the store takes no new task for now")]
    Held {
        /// Why.
        hold: Hold,
        /// When to try again.
        retry_after: Duration,
    },
    /// The server shuts down.
    #[error("the server is draining")]
    Draining,
    /// A part of the server has failed, and it ends.
    #[error("the server has failed")]
    ServerFailed,
    /// The store takes nothing more.
    #[error("the store has failed")]
    StoreFailed,
}

/// Proof that a task was admitted to its queue; dropping it gives the permit back.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<QueueGate>,
    bytes: u64,
    handoff: Option<Handoff>,
}

impl Permit {
    /// The queue that it is for.
    pub fn queue(&self) -> &Arc<str> {
        &self.gate.queue
    }

    /// The bytes that it takes of the queue's limit.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What keeps the next caller in the line until this one's task is on its way to the
    /// store; `None` if nobody waits for that. To be dropped then: so tasks of callers that
    /// waited reach the store in the order of the line, whichever thread wakes first.
    pub fn take_handoff(&mut self) -> Option<Handoff> {
        self.handoff.take()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.leave(1, self.bytes);
    }
}

/// Permits for tasks that must go together; dropping it gives back those that
/// were not taken.
#[derive(Debug)]
pub struct Permits {
    gate: Arc<QueueGate>,
    tasks: u64,
    bytes: u64,
    /// Of a caller from the line. It goes with the first permit that is taken, as all of them
    /// are handed to the store together.
    handoff: Option<Handoff>,
}

impl Permits {
    /// Takes the permit of one task; `None` if that is more than is left.
    pub fn take(&mut self, bytes: u64) -> Option<Permit> {
        // Both or neither: a permit that is taken and not handed out is never given back.
        let (tasks, left) = (self.tasks.checked_sub(1)?, self.bytes.checked_sub(bytes)?);
        (self.tasks, self.bytes) = (tasks, left);
        let handoff = self.handoff.take();
        Some(Permit { gate: Arc::clone(&self.gate), bytes, handoff })
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        if self.tasks > 0 || self.bytes > 0 {
            self.gate.leave(self.tasks, self.bytes);
        }
    }
}

/// A queue that exists for as long as this is held, whether it has tasks or not.
#[derive(Clone, Debug)]
pub struct QueueHandle {
    gate: Arc<QueueGate>,
}

impl QueueHandle {
    /// Its name.
    pub fn queue(&self) -> &Arc<str> {
        &self.gate.queue
    }

    /// Gives it other settings; callers in line that fit now are let in.
    pub fn configure(&self, settings: Settings) {
        self.gate.configure(settings);
    }

    /// Bytes of the tasks that wait in it, and callers that wait for room.
    pub fn waiting(&self) -> (u64, u64) {
        let state = lock(&self.gate.state);
        (state.used.bytes(), state.line.len() as u64)
    }
}

/// The gates of all queues.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    gates: Mutex<HashMap<Arc<str>, Arc<QueueGate>>>,
    /// Why nobody is let in any more, once that is so.
    closed: OnceLock<Refused>,
    /// Why nobody is let in for now.
    holds: Holds,
}

impl Admission {
    /// A gate with nothing behind it.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, gates: Mutex::default(), closed: OnceLock::new(), holds: Holds::default() }
    }

    /// The settings of a queue, existing or not; `None` if it may not exist.
    pub fn settings(&self, queue: &str) -> Option<Settings> {
        if !self.limits.queue_config.allows(queue) {
            return None;
        }
        if let Some(gate) = lock(&self.gates).get(queue) {
            return Some(lock(&gate.state).settings);
        }
        Some(self.limits.queue_config.settings(queue))
    }

    /// What the configuration says of queues.
    pub fn queue_config(&self) -> &QueueConfig {
        &self.limits.queue_config
    }

    /// How long a caller with this deadline, or with none, waits.
    pub fn wait_limit(&self, deadline: Option<tokio::time::Instant>) -> WaitLimit {
        match deadline {
            Some(deadline) => WaitLimit::Deadline(deadline),
            None => WaitLimit::Full(tokio::time::Instant::now() + self.limits.room_timeout),
        }
    }

    /// Gets a permit for a task of `bytes` in `queue`.
    ///
    /// Callers that wait are served strictly in the order of their arrival, so
    /// a large task is not overtaken by small ones for ever. The next one is served when the
    /// one before has handed its task to the store ([`Permit::take_handoff`]), or has given
    /// its permit back. Dropping the future leaves the line.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn admit(
        &self,
        queue: &str,
        bytes: u64,
        when_full: WhenFull,
        wait_limit: WaitLimit,
    ) -> Result<Permit, Refused> {
        let mut permits = self.admit_together(queue, 1, bytes, when_full, wait_limit).await?;
        permits.take(bytes).ok_or(Refused::UnknownQueue)
    }

    /// Gets permits for `tasks` tasks of `bytes` in all that must go together. Who
    /// needs permits in several queues waits in one line only, and holds none while
    /// it does: otherwise one queue that is stuck would fill the others.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn admit_together(
        &self,
        queue: &str,
        tasks: u64,
        bytes: u64,
        when_full: WhenFull,
        wait_limit: WaitLimit,
    ) -> Result<Permits, Refused> {
        let gate = self.gate(queue)?;
        self.holds.check()?;
        let pending = match gate.enter(tasks, bytes, when_full)? {
            Entry::Inside(permits) => return Ok(permits),
            Entry::InLine(pending) => pending,
        };
        // The line may have been emptied just before this caller joined it.
        self.check_open()?;
        self.holds.check()?;
        let (WaitLimit::Deadline(until) | WaitLimit::Full(until)) = wait_limit else {
            return pending.granted().await.unwrap_or_else(|| Err(self.closed_because()));
        };
        match tokio::time::timeout_at(until, pending.granted()).await {
            // The line is emptied without an answer only when the gate closes.
            Ok(granted) => granted.unwrap_or_else(|| Err(self.closed_because())),
            Err(_) if matches!(wait_limit, WaitLimit::Deadline(_)) => Err(Refused::Deadline),
            Err(_) => Err(gate.full(tasks, bytes)),
        }
    }

    /// Gets a permit at once, or says why there is none.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn try_admit(&self, queue: &str, bytes: u64) -> Result<Permit, Refused> {
        let mut permits = self.try_admit_together(queue, 1, bytes, WhenFull::Reject)?;
        permits.take(bytes).ok_or(Refused::UnknownQueue)
    }

    /// Gets permits at once for `tasks` tasks of `bytes` in all, or says why there are none. A
    /// caller that would [wait](WhenFull::Wait) gets none while others stand in line.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn try_admit_together(
        &self,
        queue: &str,
        tasks: u64,
        bytes: u64,
        when_full: WhenFull,
    ) -> Result<Permits, Refused> {
        let gate = self.gate(queue)?;
        self.holds.check()?;
        gate.try_enter(tasks, bytes, when_full)
    }

    /// Another permit, for a task that goes to the store right behind that of `first`, if there is
    /// room now. Only a caller that was let in from the line gets one, before it hands its task
    /// over: so who brings many takes with its turn what there is room for, rather than stand in
    /// line for each.
    #[must_use]
    pub fn try_admit_behind(&self, first: &Permit, queue: &str, bytes: u64) -> Option<Permit> {
        let has_turn = first.handoff.is_some() && *first.gate.queue == *queue;
        if !has_turn || self.check_open().is_err() || self.holds.check().is_err() {
            return None;
        }
        first.gate.try_enter_behind(bytes)?.take(bytes)
    }

    /// A permit for a task that the store already holds, whatever the limits
    /// say: at recovery, after an interruption, for a retry.
    #[must_use]
    pub fn readmit(&self, queue: &str, bytes: u64) -> Permit {
        let gate = self.known_gate(queue);
        let mut state = lock(&gate.state);
        state.used.add(1, bytes);
        drop(state);
        Permit { gate, bytes, handoff: None }
    }

    /// A handle of a queue that the store knows, whatever the limits say.
    #[must_use]
    pub fn handle(&self, queue: &str) -> QueueHandle {
        QueueHandle { gate: self.known_gate(queue) }
    }

    /// A handle of a queue that may be new.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn try_handle(&self, queue: &str) -> Result<QueueHandle, Refused> {
        self.gate(queue).map(|gate| QueueHandle { gate })
    }

    fn known_gate(&self, queue: &str) -> Arc<QueueGate> {
        let mut gates = lock(&self.gates);
        if let Some(gate) = gates.get(queue) {
            return Arc::clone(gate);
        }
        let gate = QueueGate::new(Arc::from(queue), self.limits.queue_config.settings(queue));
        gates.insert(Arc::clone(&gate.queue), Arc::clone(&gate));
        gate
    }

    /// Refuses all from now on, those in line included, with the first cause that
    /// is given.
    pub fn close(&self, cause: Refused) {
        self.closed.get_or_init(|| cause);
        for gate in lock(&self.gates).values() {
            lock(&gate.state).line.clear();
        }
    }

    /// Refuses new tasks while `hold` stands, those in line included, and tells them
    /// to come back after `retry_after`. What the store has goes on: permits are given
    /// back and taken again ([`readmit`](Self::readmit)), and queues can be changed.
    pub fn hold(&self, hold: Hold, retry_after: Duration) {
        if self.holds.set(hold, retry_after) {
            let gates: Vec<_> = lock(&self.gates).values().map(Arc::clone).collect();
            for gate in gates {
                gate.send_away(Refused::Held { hold, retry_after });
            }
        }
    }

    /// Ends a [`hold`](Self::hold). Without any other, new tasks are let in again.
    pub fn release(&self, hold: Hold) {
        self.holds.unset(hold);
    }

    fn check_open(&self) -> Result<(), Refused> {
        self.closed.get().map_or(Ok(()), |cause| Err(*cause))
    }

    fn closed_because(&self) -> Refused {
        self.closed.get().copied().unwrap_or(Refused::Draining)
    }

    fn gate(&self, queue: &str) -> Result<Arc<QueueGate>, Refused> {
        let mut gates = lock(&self.gates);
        // Read under the lock that `close` takes after it has set the flag.
        self.check_open()?;
        if !self.limits.queue_config.allows(queue) {
            return Err(Refused::UnknownQueue);
        }
        if let Some(gate) = gates.get(queue) {
            return Ok(Arc::clone(gate));
        }
        if gates.len() >= self.limits.queues {
            // The queue of a gate that nobody else holds is empty.
            gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        if gates.len() >= self.limits.queues {
            return Err(Refused::TooManyQueues(self.limits.queues));
        }
        let gate = QueueGate::new(Arc::from(queue), self.limits.queue_config.settings(queue));
        gates.insert(Arc::clone(&gate.queue), Arc::clone(&gate));
        Ok(gate)
    }
}

/// Locks; a panic elsewhere leaves these plain counters usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
