//! A watcher's stream, as its connection sees it.
//!
//! The stream itself is held where others can reach it: a client that does not read
//! must not keep it, and is not there to let go of it.

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::SystemTime,
};

use futures_util::Stream;
use tonic::Status;

use super::{
    close::{CloseReason, Limit},
    registry::Registry,
    stats::WatchStats,
    turn::Turn,
};
use crate::{
    grpc::{calls::Call, response::EncodedWatchEventsResponse, status},
    proto::v1,
    supervisor::message_of,
    task::TaskId,
};

/// What a watch says, one message at a time.
pub type Step = Result<EncodedWatchEventsResponse, Status>;

/// The messages of a watch.
pub type Steps = Pin<Box<dyn Stream<Item = Step> + Send>>;

/// Who asks to become a watcher.
#[derive(Debug)]
pub struct WatcherInfo {
    /// Where the connection comes from, if it is one of IP.
    pub peer: Option<SocketAddr>,
    /// What is asked for, as far as it is shown.
    pub filter: Option<v1::EventFilter>,
}

/// A watcher, as the registry knows it.
pub struct Entry {
    /// Counted from the start of the server.
    pub id: u64,
    /// Where its connection comes from.
    pub peer: Option<SocketAddr>,
    /// Since when.
    pub began: SystemTime,
    /// What it asked for, as far as that is shown.
    pub filter: Option<v1::EventFilter>,
    /// The task that it follows.
    pub follows: OnceLock<TaskId>,
    /// How it stands.
    pub stats: Arc<WatchStats>,
    /// Whether it waits for the server, or the server for its client.
    pub turn: Arc<Turn>,
    /// When it is over, if it ever is; set when its messages begin.
    limit: OnceLock<Limit>,
    /// Why it was stopped, if it was.
    stopped: OnceLock<CloseReason>,
    steps: Mutex<Option<Steps>>,
    call: Option<Arc<Call>>,
}

impl Entry {
    /// A watcher that the present call is.
    pub fn new(id: u64, who: WatcherInfo) -> Self {
        Self {
            id,
            peer: who.peer,
            began: SystemTime::now(),
            filter: who.filter,
            follows: OnceLock::new(),
            stats: Arc::default(),
            turn: Arc::default(),
            limit: OnceLock::new(),
            stopped: OnceLock::new(),
            steps: Mutex::new(None),
            call: Call::current(),
        }
    }

    /// When it is over; `None` if its messages have not begun.
    pub fn limit(&self) -> Option<Limit> {
        self.limit.get().copied()
    }

    /// Ends it, and lets go of all that it holds. Its client is told as soon as there
    /// is room for a message.
    pub fn stop(&self, reason: CloseReason) {
        // The first reason stays.
        let _ = self.stopped.set(reason);
        self.let_go();
        self.turn.call();
    }

    fn let_go(&self) {
        let steps = self.steps().take();
        drop(steps);
    }

    /// Resets its stream, with whatever was handed to the connection.
    pub fn cut(&self) {
        if let Some(call) = &self.call {
            call.cut();
        }
    }

    /// Held while the watcher is asked for a message, and never across an await.
    fn steps(&self) -> MutexGuard<'_, Option<Steps>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What keeps a watcher registered; dropping it removes the watcher.
pub struct WatchGuard {
    entry: Arc<Entry>,
    registry: Arc<Registry>,
}

impl WatchGuard {
    /// Of an entry of `registry`.
    pub(super) fn new(entry: Arc<Entry>, registry: Arc<Registry>) -> Self {
        Self { entry, registry }
    }

    /// Where the watcher writes how it stands.
    pub fn stats(&self) -> &Arc<WatchStats> {
        &self.entry.stats
    }

    /// It follows one task.
    pub fn follows(&self, task: TaskId) {
        // A watcher follows one task, from its beginning on.
        let _ = self.entry.follows.set(task);
    }

    /// Begins with the messages, which end by themselves at the limit if they are read.
    pub fn take(self, steps: Steps, limit: Limit) -> WatchStream {
        *self.entry.steps() = Some(steps);
        // A watcher has one stream.
        let _ = self.entry.limit.set(limit);
        let waker = Waker::from(Arc::clone(&self.entry.turn));
        WatchStream { guard: self, waker, over: false }
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.registry.remove(&self.entry);
        self.entry.let_go();
    }
}

/// What a `WatchEvents` call answers with.
pub struct WatchStream {
    guard: WatchGuard,
    /// What the messages wake; it wakes the connection.
    waker: Waker,
    over: bool,
}

#[cfg(test)]
impl WatchStream {
    /// The watcher, as the registry knows it.
    pub fn entry(&self) -> &Entry {
        &self.guard.entry
    }
}

impl Stream for WatchStream {
    type Item = Step;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Step>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let entry = &this.guard.entry;
        entry.turn.asked(cx.waker());
        let mut steps = entry.steps();
        let Some(running) = steps.as_mut() else {
            this.over = true;
            let end = entry.stopped.get().copied().unwrap_or(CloseReason::Stalled);
            let cursor = this.guard.registry.cursor(entry.stats.handed());
            return Poll::Ready(Some(Err(status::watch_over(end, &cursor))));
        };
        let cx = &mut Context::from_waker(&this.waker);
        let polled = catch_unwind(AssertUnwindSafe(|| running.as_mut().poll_next(cx)));
        let polled = polled.unwrap_or_else(|panic| {
            *steps = None;
            Poll::Ready(Some(Err(status::panicked(&message_of(&*panic)))))
        });
        if polled.is_ready() {
            entry.turn.answered();
        }
        this.over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        polled
    }
}
