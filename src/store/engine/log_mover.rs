//! Moves the write-ahead log into the database while the engine goes on.
//!
//! Owns a thread, and what became of the latest move. Must not know when one is due, or what a
//! failure means: that is `log`'s.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
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
    is_busy: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
}

impl LogMover {
    /// Starts the thread. `move_log` moves what readers allow, and syncs that.
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
        let told = Arc::clone(&shared);
        supervisor.thread("store-log", move || {
            // Goes after all that this thread has.
            let _alive: mpsc::Sender<()> = alive;
            let move_log = move_log;
            for () in asked {
                crate::failpoint::hit("log-mover");
                let outcome = move_log();
                *told.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
                told.is_busy.store(false, Ordering::Release);
            }
        })?;
        Ok(Self { asks: Some(asks), shared, end })
    }

    /// Has the log moved, unless it is being moved.
    pub fn ask(&self) {
        if let Some(asks) = &self.asks
            && !self.shared.is_busy.swap(true, Ordering::AcqRel)
        {
            // It fails when the thread has, which the supervisor tells.
            let _ = asks.try_send(());
        }
    }

    /// Whether it is being moved.
    pub fn is_busy(&self) -> bool {
        self.shared.is_busy.load(Ordering::Acquire)
    }

    /// What became of the latest move, once.
    pub fn outcome(&self) -> Option<Outcome> {
        self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for LogMover {
    /// Waits for the thread: nobody else has the database open then.
    fn drop(&mut self) {
        self.asks = None;
        let _ = self.end.recv();
    }
}
