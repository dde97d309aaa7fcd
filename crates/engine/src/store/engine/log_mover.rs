//! Moves the write-ahead log into the database while the engine goes on.
//!
//! Owns a thread, and what became of the latest move. Must not know when one is due, or what a
//! failure means: that is `log`'s.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
};

use crate::{
    store::journal::{JournalError, Moved},
    supervisor::Supervisor,
};

/// What a move led to.
pub type Outcome = Result<Moved, JournalError>;

/// The thread, which ends when this is dropped.
#[derive(Debug)]
pub struct LogMover {
    /// `None` once it is to end.
    asks: Option<mpsc::SyncSender<()>>,
    shared: Arc<Shared>,
    /// Nothing comes: the other end goes with the thread.
    end: mpsc::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Moving,
    /// It is not asked anew before somebody has heard this.
    Done(Outcome),
    /// The thread has ended.
    Gone,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state() = state;
        self.changed.notify_all();
    }
}

/// Says that the thread has ended, however it does.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if !matches!(*state, State::Done(_)) {
            *state = State::Gone;
        }
        self.0.changed.notify_all();
    }
}

impl LogMover {
    /// Starts the thread. `move_log` writes what readers allow into the database.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(
        move_log: impl Fn() -> Outcome + Send + 'static,
        supervisor: &Supervisor,
    ) -> io::Result<Self> {
        let (asks, asked) = mpsc::sync_channel(1);
        let (alive, end) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let end_guard = EndGuard(Arc::clone(&shared));
        supervisor.thread("store-log", move || {
            // Goes after all that this thread has.
            let _alive: mpsc::Sender<()> = alive;
            let (end_guard, move_log) = (end_guard, move_log);
            for () in asked {
                crate::failpoint::hit("log-mover");
                end_guard.0.set(State::Done(move_log()));
            }
        })?;
        Ok(Self { asks: Some(asks), shared, end })
    }

    /// Has the log moved, unless it is being moved, or nobody has heard what became of that.
    pub fn ask(&self) {
        let mut state = self.shared.state();
        if let Some(asks) = &self.asks
            && matches!(*state, State::Idle)
            && asks.try_send(()).is_ok()
        {
            *state = State::Moving;
        }
    }

    /// Whether it is being moved.
    pub fn is_busy(&self) -> bool {
        matches!(*self.shared.state(), State::Moving)
    }

    /// What became of the latest move, once.
    pub fn outcome(&self) -> Option<Outcome> {
        let mut state = self.shared.state();
        match std::mem::take(&mut *state) {
            State::Done(outcome) => Some(outcome),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Waits until it is not being moved.
    pub fn wait(&self) {
        let is_moving = |state: &mut State| matches!(state, State::Moving);
        drop(self.shared.changed.wait_while(self.shared.state(), is_moving));
    }
}

impl Drop for LogMover {
    /// Waits for the thread, so that its connection is closed.
    fn drop(&mut self) {
        self.asks = None;
        let _ = self.end.recv();
    }
}
