//! From the store's commits to the watchers.
//!
//! Owns the numbering as watchers see it ([`Cursor`]), the encoding of events,
//! the broadcast of committed batches, and catching up. Must not know tonic or
//! SQL: history is read through [`History`].
//!
//! A watcher is a cursor, not a buffer ([`Tail`]). The log in the store is the
//! truth and the broadcast only a shortcut to its newest part: a tail compares
//! the numbers of what it receives with its cursor, and reads whatever is
//! missing from the history. So a slow watcher loses nothing, costs no memory,
//! and slows nobody.

mod batch;
mod batch_index;
mod completions;
mod encode;
mod filter;
mod tail;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::{event::Seq, task::TaskId};

pub use batch::EventBatch;
pub use batch_index::{BatchIndex, IndexedEvent};
pub use completions::{Completion, Completions, MAX_WAITERS, TooManyWaiters};
pub use encode::{Encoder, MAX_BATCH_BYTES};
pub use filter::{EventFilter, EventFilterSpec, Selection};
pub use tail::{Ended, MAX_PIECE_BYTES, Tail};
pub use taskyard_domain::cursor::{
    Cursor, CursorCodec, Incarnation, Invalid, MARK_BITS, NotACursor,
};

/// Batches that the broadcast keeps for watchers that are a little behind: at most
/// 32 MiB, as each has at most [`MAX_BATCH_BYTES`]. Whoever is further behind reads
/// from the store.
const BROADCAST_BATCHES: usize = 128;

/// A boxed future, as object-safe traits need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where past events are read.
pub trait History: Send + Sync + 'static {
    /// The batches with the events after `after`, in order: at least one, and
    /// not many more bytes than `max_bytes`. The first may begin earlier.
    ///
    /// # Errors
    /// [`Unreadable`].
    fn read(
        &self,
        after: Seq,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<EventBatch>, Unreadable>>;
}

/// Why history cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// What was asked for is no longer kept.
    #[error("the events after this cursor are no longer kept; the oldest kept is event {0:?}")]
    Expired(Seq),
    /// What is kept of it is damaged.
    #[error("the event history is damaged: {0}")]
    Damaged(String),
    /// The store could not read it.
    #[error("the event history cannot be read: {0}")]
    Broken(String),
    /// Whoever reads it has failed, and with it the server.
    #[error("{0}")]
    Crashed(Arc<str>),
}

impl Unreadable {
    /// What comes after this event is not what an encoder writes.
    pub fn damaged(after: Seq) -> Self {
        Self::Damaged(format!("the record of the events after number {}", after.0))
    }
}

#[derive(Debug)]
struct Shared {
    /// The newest event that was published.
    newest: AtomicU64,
    /// The newest event that may be committed by now; never before `newest`.
    expected: AtomicU64,
    /// `newest` has moved, or nothing more will be published.
    moved: Notify,
    /// Nothing more will be published.
    over: AtomicBool,
    /// The oldest event that is kept.
    oldest: AtomicU64,
    codec: CursorCodec,
    completions: Completions,
    /// Why nothing more comes, if not because the store was closed.
    failure: OnceLock<Ended>,
    /// Nothing more comes, though the publisher is there.
    broken: CancellationToken,
}

/// The store's end: hands on what was committed. Dropping it, after the last
/// commit, ends every tail once it has delivered everything.
#[derive(Debug)]
pub struct Publisher {
    sender: broadcast::Sender<EventBatch>,
    shared: Arc<Shared>,
}

impl Publisher {
    /// The events before `oldest` are no longer kept.
    pub fn kept_from(&self, oldest: Seq) {
        self.shared.oldest.store(oldest.0, Ordering::Release);
    }

    /// The events up to here are about to be committed: somebody who reads the store
    /// may see them before they are published.
    pub fn expect(&self, newest: Seq) {
        self.shared.expected.store(newest.0, Ordering::Release);
    }

    /// Nothing more will be committed: tails end once they have delivered everything.
    pub fn fail(&self, cause: Arc<str>) {
        let _ = self.shared.failure.set(Ended::StoreFailed(cause));
        self.shared.broken.cancel();
        self.end();
    }

    fn end(&self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.moved.notify_waiters();
    }

    /// Hands on one committed batch, in the order of commits.
    pub fn publish(&self, batch: EventBatch) {
        self.shared.expected.fetch_max(batch.last().0, Ordering::AcqRel);
        self.shared.newest.store(batch.last().0, Ordering::Release);
        self.shared.completions.complete(batch.ended());
        // Nobody may be listening: the log has it all.
        drop(self.sender.send(batch));
        self.shared.moved.notify_waiters();
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.end();
    }
}

/// What was committed will not be published any more: the store has broken down in
/// between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store broke down before it told what it had committed")]
pub struct NeverPublished;
/// See [`Hub::hold_open`].
#[derive(Debug)]
pub struct HeldOpen(#[expect(dead_code, reason = "it is held")] broadcast::Sender<EventBatch>);

/// The watchers' end.
#[derive(Clone, Debug)]
pub struct Hub {
    sender: broadcast::WeakSender<EventBatch>,
    shared: Arc<Shared>,
}

/// Both ends, for a store whose newest event is `newest`.
#[must_use]
pub fn hub(newest: Seq, codec: CursorCodec) -> (Publisher, Hub) {
    let (sender, _) = broadcast::channel(BROADCAST_BATCHES);
    let completions = Completions::default();
    let shared = Arc::new(Shared {
        newest: AtomicU64::new(newest.0),
        expected: AtomicU64::new(newest.0),
        moved: Notify::new(),
        over: AtomicBool::new(false),
        oldest: AtomicU64::new(1),
        codec,
        completions,
        failure: OnceLock::new(),
        broken: CancellationToken::new(),
    });
    let hub = Hub { sender: sender.downgrade(), shared: Arc::clone(&shared) };
    (Publisher { sender, shared }, hub)
}

impl Hub {
    /// The newest event that was published.
    #[must_use]
    pub fn newest(&self) -> Seq {
        Seq(self.shared.newest.load(Ordering::Acquire))
    }

    /// The oldest event that is kept, or the next one if none is.
    #[must_use]
    pub fn oldest(&self) -> Seq {
        Seq(self.shared.oldest.load(Ordering::Acquire))
    }

    /// The cursor after event `seq`.
    #[must_use]
    pub fn cursor(&self, seq: Seq) -> Cursor {
        self.shared.codec.cursor(seq)
    }

    /// Waits until event `seq`, which somebody has read from the store, is published:
    /// who reads must not run ahead of who watches.
    ///
    /// # Errors
    /// [`NeverPublished`].
    pub async fn published(&self, seq: Seq) -> Result<(), NeverPublished> {
        loop {
            let mut moved = std::pin::pin!(self.shared.moved.notified());
            // Registers before it looks, so that nothing falls in between.
            moved.as_mut().enable();
            // In this order: the last event comes before the end.
            let over = self.shared.over.load(Ordering::Acquire);
            if self.newest() >= seq {
                return Ok(());
            }
            if over {
                return Err(NeverPublished);
            }
            moved.await;
        }
    }

    /// The event that `cursor` stands after. It may be committed and not published yet:
    /// a watch from there waits for what follows.
    ///
    /// # Errors
    /// [`Invalid`], if this store never gave out the cursor.
    pub fn resolve(&self, cursor: Cursor) -> Result<Seq, Invalid> {
        let expected = Seq(self.shared.expected.load(Ordering::Acquire));
        self.shared.codec.resolve(cursor, expected)
    }

    /// Follows the events after `after`, or only those to come.
    pub fn follow(&self, after: Option<Seq>, history: Arc<dyn History>) -> Tail {
        // Subscribe first, then look how far history goes: what is committed in
        // between arrives both ways, and the tail skips it by its number.
        let live = self.sender.upgrade().map(|sender| sender.subscribe());
        let newest = self.newest();
        Tail::new(after.unwrap_or(newest), newest, live, history, self.clone())
    }

    /// Tails that end from now on end because of this failure, and say so. Only the
    /// first one counts.
    pub fn fail(&self, cause: Arc<str>) {
        let _ = self.shared.failure.set(Ended::Failed(cause));
    }

    /// Keeps tails open while it is held, as a publisher does: so that whoever cleans up
    /// after one can say why it ended, before anybody asks.
    #[must_use]
    pub fn hold_open(&self) -> Option<HeldOpen> {
        self.sender.upgrade().map(HeldOpen)
    }

    fn end(&self) -> Ended {
        self.shared.failure.get().cloned().unwrap_or(Ended::Closed)
    }

    /// Registers interest in the end of a task.
    ///
    /// # Errors
    /// [`TooManyWaiters`].
    pub fn completion(&self, task: TaskId) -> Result<Completion, TooManyWaiters> {
        Completions::register(&self.shared, task.number())
    }
}

#[cfg(test)]
mod tests;
