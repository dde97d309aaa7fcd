//! One watcher's place in the events, and how it moves.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::broadcast::{self, error::RecvError};

use super::{BoxFuture, EventBatch, History, Hub, Unreadable};
use crate::event::Seq;

/// Bytes of events in one piece: a whole batch, and well below the 1 MiB that a
/// response may have.
pub const MAX_PIECE_BYTES: usize = 256 << 10;

const _: () =
    assert!(super::MAX_BATCH_BYTES <= MAX_PIECE_BYTES, "nobody cuts a batch that is live");

/// Why a tail goes no further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Everything was delivered, and nothing more comes: the store is closed.
    #[error("the store is closed")]
    Closed,
    /// Everything that was committed and known so was delivered, and nothing more comes:
    /// the server has failed.
    #[error("the server has failed: {0}")]
    Failed(Arc<str>),
    /// Everything that was committed was delivered, and nothing more comes: the store has
    /// failed.
    #[error("the store has failed: {0}")]
    StoreFailed(Arc<str>),
    /// History cannot be read.
    #[error(transparent)]
    Unreadable(Unreadable),
}

impl From<Unreadable> for Ended {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Crashed(cause) => Self::Failed(cause),
            other => Self::Unreadable(other),
        }
    }
}

/// Follows the events from a cursor on: every event once, in order.
pub struct Tail {
    cursor: Seq,
    /// Events up to here are read from history before the broadcast goes on.
    known: Seq,
    /// Batches to deliver next, without a gap; the first has what follows the cursor.
    ready: VecDeque<EventBatch>,
    /// Received while events before it were missing.
    ahead: Option<EventBatch>,
    live: Option<broadcast::Receiver<EventBatch>>,
    history: Arc<dyn History>,
    /// A read that is under way, also when whoever asked for it has turned away.
    reading: Option<BoxFuture<'static, Result<Vec<EventBatch>, Unreadable>>>,
    hub: Hub,
}

impl Tail {
    pub(super) fn new(
        cursor: Seq,
        known: Seq,
        live: Option<broadcast::Receiver<EventBatch>>,
        history: Arc<dyn History>,
        hub: Hub,
    ) -> Self {
        Self {
            cursor,
            known,
            ready: VecDeque::new(),
            ahead: None,
            live,
            history,
            reading: None,
            hub,
        }
    }

    /// The last event that was delivered.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Whether the next events come from the store, not from the broadcast.
    pub fn reads_history(&self) -> bool {
        self.cursor < self.known
    }

    /// The next events: the piece that follows the cursor, at most
    /// [`MAX_PIECE_BYTES`] (or one event). Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn next(&mut self) -> Result<EventBatch, Ended> {
        self.arrived().await?;
        let next = self.ready.pop_front().and_then(|batch| batch.after(self.cursor));
        let (piece, rest) =
            next.ok_or_else(|| Unreadable::damaged(self.cursor))?.split(MAX_PIECE_BYTES);
        let piece = piece.ok_or_else(|| Unreadable::damaged(self.cursor))?;
        if let Some(rest) = rest {
            self.ready.push_front(rest);
        }
        self.cursor = piece.last();
        Ok(piece)
    }

    /// The batch with the next events, as it was committed: so its index is
    /// shared with everybody else. It may begin with events up to the cursor as
    /// it was before, which have been delivered, or were not asked for. Dropping
    /// the future loses nothing.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn next_batch(&mut self) -> Result<EventBatch, Ended> {
        self.arrived().await?;
        let batch = self.ready.pop_front().ok_or_else(|| Unreadable::damaged(self.cursor))?;
        self.cursor = batch.last();
        Ok(batch)
    }

    /// Waits until the first of `ready` has what follows the cursor.
    async fn arrived(&mut self) -> Result<(), Ended> {
        while self.ready.is_empty() {
            if self.cursor < self.known {
                self.read_history().await?;
            } else if let Some(ahead) = self.ahead.take() {
                self.accept(ahead);
            } else {
                self.receive().await?;
            }
        }
        Ok(())
    }

    async fn read_history(&mut self) -> Result<(), Ended> {
        let (history, after) = (Arc::clone(&self.history), self.cursor);
        let reading = self.reading.get_or_insert_with(|| {
            Box::pin(async move { history.read(after, MAX_PIECE_BYTES).await })
        });
        let read = reading.await;
        self.reading = None;
        let mut expected = self.cursor;
        // What is committed and not yet published is not for now: whoever was given its
        // cursor, and came back with it at once, would be told that it is past the end.
        let newest = self.hub.newest();
        for batch in read?.into_iter().take_while(|batch| batch.first() <= newest) {
            if batch.first() > expected.next() || batch.last() <= expected {
                return Err(Unreadable::damaged(expected).into());
            }
            expected = batch.last();
            self.ready.push_back(batch);
        }
        if self.ready.is_empty() {
            return Err(Unreadable::damaged(self.cursor).into());
        }
        Ok(())
    }

    /// Waits for the broadcast. Having lagged needs no handling of its own: the
    /// number of the next batch tells what was missed.
    async fn receive(&mut self) -> Result<(), Ended> {
        let received = match &mut self.live {
            Some(live) => {
                let broken = &self.hub.shared.broken;
                // In this order: the last event comes before the end.
                tokio::select! {
                    biased;
                    received = live.recv() => received,
                    () = broken.cancelled() => Err(RecvError::Closed),
                }
            }
            None => Err(RecvError::Closed),
        };
        match received {
            Ok(batch) => self.accept(batch),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => {
                self.live = None;
                self.known = self.hub.newest();
                if self.cursor >= self.known {
                    return Err(self.hub.end());
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, batch: EventBatch) {
        if batch.first() > self.cursor.next() {
            self.known = batch.first().previous();
            self.ahead = Some(batch);
        } else if batch.last() > self.cursor {
            self.ready.push_back(batch);
        }
    }
}
