//! Who may hand in a task, and when.
//!
//! Owns the limits of every queue and the line of callers that wait for room.
//! Yields an [`Admitted`], without which the store takes nothing. Must not know
//! RPC types or files.
//!
//! An [`Admitted`] *is* the task's place: it travels with the task into the
//! store, and gives the place back when it is dropped, which is when the task
//! starts, is cancelled, or was never committed. So no path can forget to.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tasks in one queue.
    pub tasks: u64,
    /// Bytes of tasks in one queue.
    pub bytes: u64,
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

/// Which limit a queue has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// So many tasks.
    Tasks(u64),
    /// So many bytes.
    Bytes(u64),
}

/// Why there is no place.
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
    /// The task alone is larger than the queue.
    #[error("the task has {bytes} bytes and its queue holds {limit}")]
    LargerThanQueue {
        /// Bytes of the task.
        bytes: u64,
        /// Bytes that the queue holds.
        limit: u64,
    },
    /// The queue would be one too many.
    #[error("there are {0} queues in use, which is the limit")]
    TooManyQueues(usize),
    /// The server shuts down.
    #[error("the server is draining")]
    Draining,
    /// The store takes nothing more.
    #[error("the store has failed")]
    StoreFailed,
}

/// Proof that a task has a place in its queue; dropping it gives the place back.
#[derive(Debug)]
pub struct Admitted {
    room: Arc<Room>,
    bytes: u64,
}

impl Admitted {
    /// The queue that it is a place in.
    pub fn queue(&self) -> &Arc<str> {
        &self.room.queue
    }

    /// The bytes that it takes of the queue's limit.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.room.leave(self.bytes);
    }
}

/// The gate in front of all queues.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    rooms: Mutex<HashMap<Arc<str>, Arc<Room>>>,
    /// Why nobody is let in any more, once that is so.
    closed: OnceLock<Refused>,
}

impl Admission {
    /// A gate with nothing behind it.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, rooms: Mutex::default(), closed: OnceLock::new() }
    }

    /// Finds a place for a task of `bytes` in `queue`.
    ///
    /// Callers that wait are served strictly in the order of their arrival, so
    /// a large task is not overtaken by small ones for ever. Dropping the future
    /// leaves the line.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn admit(
        &self,
        queue: &str,
        bytes: u64,
        when_full: WhenFull,
        deadline: Option<tokio::time::Instant>,
    ) -> Result<Admitted, Refused> {
        if bytes > self.limits.bytes {
            return Err(Refused::LargerThanQueue { bytes, limit: self.limits.bytes });
        }
        let room = self.room(queue)?;
        let turn = match room.enter(bytes, when_full)? {
            Entry::Inside(admitted) => return Ok(admitted),
            Entry::InLine(turn) => turn,
        };
        // `close` may have emptied the line just before this caller joined it.
        self.check_open()?;
        let patience =
            deadline.unwrap_or_else(|| tokio::time::Instant::now() + self.limits.room_timeout);
        match tokio::time::timeout_at(patience, turn.granted()).await {
            // The line is emptied, without a grant, only when the gate closes.
            Ok(granted) => granted.ok_or_else(|| self.closed_because()),
            Err(_) if deadline.is_some() => Err(Refused::Deadline),
            Err(_) => Err(room.full()),
        }
    }

    /// A place for a task that the store already holds, whatever the limits
    /// say: at recovery, after an interruption, for a retry.
    #[must_use]
    pub fn readmit(&self, queue: &str, bytes: u64) -> Admitted {
        let room = Arc::clone(
            lock(&self.rooms)
                .entry(Arc::from(queue))
                .or_insert_with_key(|name| Room::new(Arc::clone(name), self.limits)),
        );
        room.readmit(bytes)
    }

    /// Refuses all from now on, those in line included, with the first cause that
    /// is given.
    pub fn close(&self, cause: Refused) {
        self.closed.get_or_init(|| cause);
        for room in lock(&self.rooms).values() {
            lock(&room.state).line.clear();
        }
    }

    fn check_open(&self) -> Result<(), Refused> {
        self.closed.get().map_or(Ok(()), |cause| Err(*cause))
    }

    fn closed_because(&self) -> Refused {
        self.closed.get().copied().unwrap_or(Refused::Draining)
    }

    fn room(&self, queue: &str) -> Result<Arc<Room>, Refused> {
        let mut rooms = lock(&self.rooms);
        // Read under the lock that `close` takes after it has set the flag.
        self.check_open()?;
        if let Some(room) = rooms.get(queue) {
            return Ok(Arc::clone(room));
        }
        if rooms.len() >= self.limits.queues {
            // A room that nobody else holds is empty.
            rooms.retain(|_, room| Arc::strong_count(room) > 1);
        }
        if rooms.len() >= self.limits.queues {
            return Err(Refused::TooManyQueues(self.limits.queues));
        }
        let room = Room::new(Arc::from(queue), self.limits);
        rooms.insert(Arc::clone(&room.queue), Arc::clone(&room));
        Ok(room)
    }
}

/// One queue's limits, what is used of them, and its line.
#[derive(Debug)]
struct Room {
    queue: Arc<str>,
    limits: Limits,
    state: Mutex<RoomState>,
}

#[derive(Debug)]
struct RoomState {
    tasks: u64,
    bytes: u64,
    /// By ticket, so in the order of arrival.
    line: BTreeMap<u64, Waiting>,
    line_bytes: u64,
    next_ticket: u64,
    drain: DrainRate,
}

#[derive(Debug)]
struct Waiting {
    bytes: u64,
    grant: oneshot::Sender<Admitted>,
}

enum Entry {
    Inside(Admitted),
    InLine(Turn),
}

impl Room {
    fn new(queue: Arc<str>, limits: Limits) -> Arc<Self> {
        let state = RoomState {
            tasks: 0,
            bytes: 0,
            line: BTreeMap::new(),
            line_bytes: 0,
            next_ticket: 0,
            drain: DrainRate::new(Instant::now()),
        };
        Arc::new(Self { queue, limits, state: Mutex::new(state) })
    }

    fn enter(self: &Arc<Self>, bytes: u64, when_full: WhenFull) -> Result<Entry, Refused> {
        let mut state = lock(&self.state);
        if state.line.is_empty() && self.fits(&state, bytes) {
            return Ok(Entry::Inside(self.seat(&mut state, bytes)));
        }
        let line_full = state.line.len() >= MAX_WAITING_CALLERS
            || state.line_bytes.saturating_add(bytes) > MAX_WAITING_BYTES;
        if when_full == WhenFull::Reject || line_full {
            return Err(self.refusal(&state));
        }
        let (grant, granted) = oneshot::channel();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.line_bytes += bytes;
        state.line.insert(ticket, Waiting { bytes, grant });
        Ok(Entry::InLine(Turn { room: Arc::clone(self), ticket, bytes, granted }))
    }

    fn readmit(self: &Arc<Self>, bytes: u64) -> Admitted {
        self.seat(&mut lock(&self.state), bytes)
    }

    fn leave(self: &Arc<Self>, bytes: u64) {
        let granted = {
            let mut state = lock(&self.state);
            state.tasks -= 1;
            state.bytes -= bytes;
            state.drain.left(Instant::now());
            self.serve_line(&mut state)
        };
        hand_over(granted);
    }

    /// Takes from the front of the line whoever fits.
    fn serve_line(self: &Arc<Self>, state: &mut RoomState) -> Vec<(Waiting, Admitted)> {
        let mut granted = Vec::new();
        while let Some(first) = state.line.first_entry() {
            let bytes = first.get().bytes;
            if !fits(&self.limits, state.tasks, state.bytes, bytes) {
                break;
            }
            let waiting = first.remove();
            state.line_bytes -= bytes;
            granted.push((waiting, self.seat(state, bytes)));
        }
        granted
    }

    fn seat(self: &Arc<Self>, state: &mut RoomState, bytes: u64) -> Admitted {
        state.tasks += 1;
        state.bytes += bytes;
        Admitted { room: Arc::clone(self), bytes }
    }

    fn fits(&self, state: &RoomState, bytes: u64) -> bool {
        fits(&self.limits, state.tasks, state.bytes, bytes)
    }

    fn full(&self) -> Refused {
        self.refusal(&lock(&self.state))
    }

    fn refusal(&self, state: &RoomState) -> Refused {
        let limit = if state.tasks >= self.limits.tasks {
            Limit::Tasks(self.limits.tasks)
        } else {
            Limit::Bytes(self.limits.bytes)
        };
        let retry_after = state.drain.time_for(state.line.len() as u64 + 1, Instant::now());
        Refused::Full { limit, retry_after }
    }
}

fn fits(limits: &Limits, tasks: u64, used: u64, bytes: u64) -> bool {
    tasks < limits.tasks && used.saturating_add(bytes) <= limits.bytes
}

/// Hands places over once the room's lock is free: a place whose caller has
/// gone is dropped here, which takes the lock again to pass it on.
fn hand_over(granted: Vec<(Waiting, Admitted)>) {
    for (waiting, admitted) in granted {
        drop(waiting.grant.send(admitted));
    }
}

/// A caller's stand in the line; dropping it leaves the line.
struct Turn {
    room: Arc<Room>,
    ticket: u64,
    bytes: u64,
    granted: oneshot::Receiver<Admitted>,
}

impl Turn {
    async fn granted(mut self) -> Option<Admitted> {
        (&mut self.granted).await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let granted = {
            let mut state = lock(&self.room.state);
            if state.line.remove(&self.ticket).is_none() {
                return;
            }
            state.line_bytes -= self.bytes;
            // If this caller stood in front, the next one may fit.
            self.room.serve_line(&mut state)
        };
        hand_over(granted);
    }
}

/// How many tasks leave a queue per second: an exponentially weighted average
/// over about [`DrainRate::WINDOW`].
#[derive(Debug)]
struct DrainRate {
    per_second: f64,
    at: Instant,
}

impl DrainRate {
    const WINDOW: Duration = Duration::from_secs(10);
    /// The advice when nothing has left for long, and its upper bound.
    const LONGEST: Duration = Duration::from_secs(30);
    const SHORTEST: Duration = Duration::from_millis(50);

    fn new(now: Instant) -> Self {
        Self { per_second: 0.0, at: now }
    }

    fn left(&mut self, now: Instant) {
        self.per_second = self.decayed(now) + 1.0 / Self::WINDOW.as_secs_f64();
        self.at = now;
    }

    fn decayed(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        self.per_second * (-age / Self::WINDOW.as_secs_f64()).exp()
    }

    /// How long it takes until `tasks` more have left.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn time_for(&self, tasks: u64, now: Instant) -> Duration {
        let seconds = tasks as f64 / self.decayed(now);
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(Self::LONGEST)
            .clamp(Self::SHORTEST, Self::LONGEST)
    }
}

/// Locks; a panic elsewhere leaves these plain counters usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
