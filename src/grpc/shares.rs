//! What the calls of one connection share among them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls on one connection at a time that send more than one message, as each may be held
/// up for as long as it likes: what the server keeps of one is bounded, and this bounds
/// what it keeps of all.
pub const MAX_STREAMS: usize = 32;

/// The shares of one connection; its calls have them in their extensions.
#[derive(Clone, Debug)]
pub struct Shares {
    streams: Arc<Semaphore>,
}

impl Default for Shares {
    fn default() -> Self {
        Self { streams: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }
}

impl Shares {
    /// A place for a call that sends messages; `None` if there are as many as may be. It is
    /// given up when dropped.
    pub fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }
}
