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

use crate::queue::{Book, Settings};

/// How much may wait.
#[derive(Clone, Debug)]
pub struct Limits {
    /// What each queue may hold.
    pub book: Book,
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
pub enum Patience {
    /// Until its deadline: [`Refused::Deadline`].
    Deadline(tokio::time::Instant),
    /// Until then, when the queue counts as full: [`Refused::Full`].
    Full(tokio::time::Instant),
    /// For as long as it is there.
    Unlimited,
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
        self.room.leave(1, self.bytes);
    }
}

/// Places for tasks that must go together; dropping it gives back those that
/// were not taken.
#[derive(Debug)]
pub struct Places {
    room: Arc<Room>,
    tasks: u64,
    bytes: u64,
}

impl Places {
    /// Takes the place of one task; `None` if that is more than is left.
    pub fn take(&mut self, bytes: u64) -> Option<Admitted> {
        self.tasks = self.tasks.checked_sub(1)?;
        self.bytes = self.bytes.checked_sub(bytes)?;
        Some(Admitted { room: Arc::clone(&self.room), bytes })
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        if self.tasks > 0 || self.bytes > 0 {
            self.room.leave(self.tasks, self.bytes);
        }
    }
}

/// A queue that exists for as long as this is held, whether it has tasks or not.
#[derive(Clone, Debug)]
pub struct Kept {
    room: Arc<Room>,
}

impl Kept {
    /// Its name.
    pub fn queue(&self) -> &Arc<str> {
        &self.room.queue
    }

    /// Gives it other settings; callers in line that fit now are let in.
    pub fn configure(&self, settings: Settings) {
        self.room.configure(settings);
    }

    /// Bytes of the tasks that wait in it, and callers that wait for room.
    pub fn waiting(&self) -> (u64, u64) {
        let state = lock(&self.room.state);
        (state.bytes, state.line.len() as u64)
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

    /// The settings of a queue, existing or not; `None` if it may not exist.
    pub fn settings(&self, queue: &str) -> Option<Settings> {
        if !self.limits.book.allows(queue) {
            return None;
        }
        if let Some(room) = lock(&self.rooms).get(queue) {
            return Some(lock(&room.state).settings);
        }
        Some(self.limits.book.settings(queue))
    }

    /// What the configuration says of queues.
    pub fn book(&self) -> &Book {
        &self.limits.book
    }

    /// How long a caller with this deadline, or with none, waits.
    pub fn patience(&self, deadline: Option<tokio::time::Instant>) -> Patience {
        match deadline {
            Some(deadline) => Patience::Deadline(deadline),
            None => Patience::Full(tokio::time::Instant::now() + self.limits.room_timeout),
        }
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
        patience: Patience,
    ) -> Result<Admitted, Refused> {
        let mut places = self.admit_together(queue, 1, bytes, when_full, patience).await?;
        places.take(bytes).ok_or(Refused::UnknownQueue)
    }

    /// Finds places for `tasks` tasks of `bytes` in all that must go together.
    /// Who needs places in several queues asks for them in the order of the
    /// queues' names, so that two such callers never wait for each other.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn admit_together(
        &self,
        queue: &str,
        tasks: u64,
        bytes: u64,
        when_full: WhenFull,
        patience: Patience,
    ) -> Result<Places, Refused> {
        let room = self.room(queue)?;
        let turn = match room.enter(tasks, bytes, when_full)? {
            Entry::Inside(places) => return Ok(places),
            Entry::InLine(turn) => turn,
        };
        // `close` may have emptied the line just before this caller joined it.
        self.check_open()?;
        let (Patience::Deadline(until) | Patience::Full(until)) = patience else {
            return turn.granted().await.unwrap_or_else(|| Err(self.closed_because()));
        };
        match tokio::time::timeout_at(until, turn.granted()).await {
            // The line is emptied only when the gate closes.
            Ok(granted) => granted.unwrap_or_else(|| Err(self.closed_because())),
            Err(_) if matches!(patience, Patience::Deadline(_)) => Err(Refused::Deadline),
            Err(_) => Err(room.full()),
        }
    }

    /// Finds a place at once, or says why there is none.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn try_admit(&self, queue: &str, bytes: u64) -> Result<Admitted, Refused> {
        let room = self.room(queue)?;
        match room.enter(1, bytes, WhenFull::Reject)? {
            Entry::Inside(mut places) => places.take(bytes).ok_or(Refused::UnknownQueue),
            Entry::InLine(_) => Err(room.full()),
        }
    }

    /// A place for a task that the store already holds, whatever the limits
    /// say: at recovery, after an interruption, for a retry.
    #[must_use]
    pub fn readmit(&self, queue: &str, bytes: u64) -> Admitted {
        let room = self.held_room(queue);
        let mut state = lock(&room.state);
        state.tasks += 1;
        state.bytes += bytes;
        drop(state);
        Admitted { room, bytes }
    }

    /// Keeps a queue that the store knows, whatever the limits say.
    #[must_use]
    pub fn keep(&self, queue: &str) -> Kept {
        Kept { room: self.held_room(queue) }
    }

    /// Keeps a queue that may be new.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn try_keep(&self, queue: &str) -> Result<Kept, Refused> {
        self.room(queue).map(|room| Kept { room })
    }

    fn held_room(&self, queue: &str) -> Arc<Room> {
        let mut rooms = lock(&self.rooms);
        if let Some(room) = rooms.get(queue) {
            return Arc::clone(room);
        }
        let room = Room::new(Arc::from(queue), self.limits.book.settings(queue));
        rooms.insert(Arc::clone(&room.queue), Arc::clone(&room));
        room
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
        if !self.limits.book.allows(queue) {
            return Err(Refused::UnknownQueue);
        }
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
        let room = Room::new(Arc::from(queue), self.limits.book.settings(queue));
        rooms.insert(Arc::clone(&room.queue), Arc::clone(&room));
        Ok(room)
    }
}

/// One queue's settings, what is used of its limits, and its line.
#[derive(Debug)]
struct Room {
    queue: Arc<str>,
    state: Mutex<RoomState>,
}

#[derive(Debug)]
struct RoomState {
    settings: Settings,
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
    tasks: u64,
    bytes: u64,
    grant: oneshot::Sender<Result<Places, Refused>>,
}

/// Somebody who leaves the line, and with what.
type Served = (Waiting, Result<Places, Refused>);

enum Entry {
    Inside(Places),
    InLine(Turn),
}

impl RoomState {
    fn fits(&self, tasks: u64, bytes: u64) -> bool {
        self.tasks.saturating_add(tasks) <= self.settings.max_tasks
            && self.bytes.saturating_add(bytes) <= self.settings.max_bytes
    }

    fn refusal(&self) -> Refused {
        let Settings { max_tasks, max_bytes, .. } = self.settings;
        let limit =
            if self.tasks >= max_tasks { Limit::Tasks(max_tasks) } else { Limit::Bytes(max_bytes) };
        let retry_after = self.drain.time_for(self.line.len() as u64 + 1, Instant::now());
        Refused::Full { limit, retry_after }
    }
}

impl Room {
    fn new(queue: Arc<str>, settings: Settings) -> Arc<Self> {
        let state = RoomState {
            settings,
            tasks: 0,
            bytes: 0,
            line: BTreeMap::new(),
            line_bytes: 0,
            next_ticket: 0,
            drain: DrainRate::new(Instant::now()),
        };
        Arc::new(Self { queue, state: Mutex::new(state) })
    }

    fn enter(
        self: &Arc<Self>,
        tasks: u64,
        bytes: u64,
        when_full: WhenFull,
    ) -> Result<Entry, Refused> {
        let mut state = lock(&self.state);
        if let Some(never) = never_fits(&state.settings, tasks, bytes) {
            return Err(never);
        }
        if state.line.is_empty() && state.fits(tasks, bytes) {
            return Ok(Entry::Inside(self.seat(&mut state, tasks, bytes)));
        }
        let line_full = state.line.len() >= MAX_WAITING_CALLERS
            || state.line_bytes.saturating_add(bytes) > MAX_WAITING_BYTES;
        if when_full == WhenFull::Reject || line_full {
            return Err(state.refusal());
        }
        let (grant, granted) = oneshot::channel();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.line_bytes += bytes;
        state.line.insert(ticket, Waiting { tasks, bytes, grant });
        Ok(Entry::InLine(Turn { room: Arc::clone(self), ticket, bytes, granted }))
    }

    fn configure(self: &Arc<Self>, settings: Settings) {
        let served = {
            let mut state = lock(&self.state);
            state.settings = settings;
            self.serve_line(&mut state)
        };
        hand_over(served);
    }

    fn leave(self: &Arc<Self>, tasks: u64, bytes: u64) {
        let granted = {
            let mut state = lock(&self.state);
            state.tasks -= tasks;
            state.bytes -= bytes;
            state.drain.left(tasks, Instant::now());
            self.serve_line(&mut state)
        };
        hand_over(granted);
    }

    /// Takes from the front of the line whoever fits, and whoever never will
    /// since the limits were lowered.
    fn serve_line(self: &Arc<Self>, state: &mut RoomState) -> Vec<Served> {
        let mut served = Vec::new();
        while let Some(first) = state.line.first_entry() {
            let Waiting { tasks, bytes, .. } = *first.get();
            let Settings { max_tasks, max_bytes, .. } = state.settings;
            let answer = if let Some(never) = never_fits(&state.settings, tasks, bytes) {
                Err(never)
            } else if state.tasks.saturating_add(tasks) > max_tasks
                || state.bytes.saturating_add(bytes) > max_bytes
            {
                break;
            } else {
                Ok(())
            };
            let waiting = first.remove();
            state.line_bytes -= bytes;
            let answer = answer.map(|()| self.seat(state, tasks, bytes));
            served.push((waiting, answer));
        }
        served
    }

    fn seat(self: &Arc<Self>, state: &mut RoomState, tasks: u64, bytes: u64) -> Places {
        state.tasks += tasks;
        state.bytes += bytes;
        Places { room: Arc::clone(self), tasks, bytes }
    }

    fn full(&self) -> Refused {
        lock(&self.state).refusal()
    }
}

/// Hands places over once the room's lock is free: places whose caller has
/// gone are dropped here, which takes the lock again to pass them on.
fn hand_over(served: Vec<Served>) {
    for (waiting, answer) in served {
        drop(waiting.grant.send(answer));
    }
}

fn never_fits(settings: &Settings, tasks: u64, bytes: u64) -> Option<Refused> {
    if bytes > settings.max_bytes {
        Some(Refused::LargerThanQueue { bytes, limit: settings.max_bytes })
    } else if tasks > settings.max_tasks {
        Some(Refused::MoreThanQueue { tasks, limit: settings.max_tasks })
    } else {
        None
    }
}

/// A caller's stand in the line; dropping it leaves the line.
struct Turn {
    room: Arc<Room>,
    ticket: u64,
    bytes: u64,
    granted: oneshot::Receiver<Result<Places, Refused>>,
}

impl Turn {
    /// `None` if the line is emptied without an answer.
    async fn granted(mut self) -> Option<Result<Places, Refused>> {
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

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn left(&mut self, tasks: u64, now: Instant) {
        self.per_second = self.decayed(now) + tasks as f64 / Self::WINDOW.as_secs_f64();
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
