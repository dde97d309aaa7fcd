//! Where one watcher stands, for others to see.
//!
//! Written by the watcher alone, and read by whoever lists the watchers or looks
//! after them: no lock, and nothing that others' watchers write.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::event::Seq;

/// Stands for no event to resume after.
const NOTHING: u64 = u64::MAX;

/// What a watcher tells of itself.
#[derive(Debug, Default)]
pub struct WatchStats {
    read: AtomicU64,
    handed: AtomicU64,
    sent: AtomicU64,
    reads_history: AtomicBool,
}

impl WatchStats {
    /// Those of a watcher that begins after `cursor`.
    pub fn begin(&self, cursor: Seq) {
        self.read.store(cursor.0, Relaxed);
        self.handed.store(cursor.0, Relaxed);
    }

    /// It has looked at the events up to `read`.
    pub fn moved(&self, read: Seq, reads_history: bool) {
        self.read.store(read.0, Relaxed);
        self.reads_history.store(reads_history, Relaxed);
    }

    /// It hands a message to its connection, after which its client may resume, or not
    /// yet: without a cursor it would have to begin anew.
    pub fn hand(&self, cursor: Option<Seq>, events: u64) {
        self.handed.store(cursor.map_or(NOTHING, |cursor| cursor.0), Relaxed);
        self.sent.store(self.sent.load(Relaxed).wrapping_add(events), Relaxed);
    }

    /// The last event that it has looked at.
    pub fn read(&self) -> Seq {
        Seq(self.read.load(Relaxed))
    }

    /// The last event that its client need not see again; `None` if it has to begin
    /// anew.
    pub fn handed(&self) -> Option<Seq> {
        Some(self.handed.load(Relaxed)).filter(|handed| *handed != NOTHING).map(Seq)
    }

    /// Events that were handed to its connection.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Whether it reads from the store.
    pub fn reads_history(&self) -> bool {
        self.reads_history.load(Relaxed)
    }
}
