//! A place in the events of one store, as text that a client keeps.
//!
//! A cursor names the store, the incarnation (process start) that gave the
//! event its number, and the number. The incarnation tells a store that was
//! restored from a backup from the one that the cursor is from: after the
//! restore, the same numbers are given again, to other events, by another
//! incarnation.

use std::{fmt, str::FromStr};

use crate::{base32, event::Seq};

/// Characters of the store's and of the incarnation's mark: 30 bits each.
const MARK_CHARS: usize = (MARK_BITS / 5) as usize;

/// Bits of a mark.
pub const MARK_BITS: u32 = 30;

/// The place after one event of one store. Written as `c`, six characters for
/// the store, six for the incarnation, then the number, in Crockford's base 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    store: u32,
    incarnation: u32,
    seq: Seq,
}

impl Cursor {
    /// The place after event `seq`, which must be of the same commit as the event
    /// that this cursor stands after: only then are their incarnations the same.
    #[must_use]
    pub fn after_event(self, seq: Seq) -> Self {
        Self { seq, ..self }
    }

    /// The number of the event that it stands after.
    #[must_use]
    pub fn seq(self) -> Seq {
        self.seq
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 1 + 2 * MARK_CHARS + base32::MAX_U64_CHARS];
        let end = 1 + 2 * MARK_CHARS + base32::significant_chars(self.seq.0);
        text[0] = b'c';
        base32::write(self.store.into(), &mut text[1..=MARK_CHARS]);
        base32::write(self.incarnation.into(), &mut text[1 + MARK_CHARS..=2 * MARK_CHARS]);
        base32::write(self.seq.0, &mut text[1 + 2 * MARK_CHARS..end]);
        f.write_str(std::str::from_utf8(&text[..end]).map_err(|_| fmt::Error)?)
    }
}

/// The text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: take one from an earlier response, as it is")]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let digits = text.strip_prefix('c').ok_or(NotACursor)?.as_bytes();
        let read = |range| digits.get(range).and_then(base32::read).ok_or(NotACursor);
        let mark = |range| u32::try_from(read(range)?).map_err(|_| NotACursor);
        Ok(Self {
            store: mark(0..MARK_CHARS)?,
            incarnation: mark(MARK_CHARS..2 * MARK_CHARS)?,
            seq: Seq(read(2 * MARK_CHARS..digits.len())?),
        })
    }
}

/// Why a cursor is of no use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is another store's.
    #[error("the cursor is from another store")]
    AnotherStore,
    /// It speaks of events that this store does not have: it was restored from
    /// a backup, or lost its last moments in a power cut without fsync.
    #[error("the cursor is from another history of this store, which was restored from a backup")]
    AnotherHistory,
    /// It is past the newest event.
    #[error("the cursor is past the newest event")]
    PastEnd,
}

/// One process start of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// A random mark; its low [`MARK_BITS`] count.
    pub mark: u32,
    /// The number of the first event that it could give out.
    pub first: Seq,
}

/// A store's mark and incarnations: makes cursors and checks them.
#[derive(Clone, Debug)]
pub struct CursorCodec {
    store: u32,
    incarnations: Vec<Incarnation>,
}

impl CursorCodec {
    /// The codec of a store's cursors; its incarnations that are remembered, in the order of
    /// their starts, at least one.
    #[must_use]
    pub fn new(store: u32, incarnations: Vec<Incarnation>) -> Self {
        let mask = (1 << MARK_BITS) - 1;
        let masked = incarnations.into_iter().map(|i| Incarnation { mark: i.mark & mask, ..i });
        Self { store: store & mask, incarnations: masked.collect() }
    }

    /// The cursor after `seq`.
    #[must_use]
    pub fn cursor(&self, seq: Seq) -> Cursor {
        Cursor { store: self.store, incarnation: self.mark_of(seq), seq }
    }

    /// The event that `cursor` stands after. Of incarnations that are forgotten, with
    /// their events, nothing can be said but that: whoever goes on from there is told
    /// that the events are no longer kept.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn resolve(&self, cursor: Cursor, newest: Seq) -> Result<Seq, Invalid> {
        if cursor.store != self.store {
            return Err(Invalid::AnotherStore);
        }
        let known_from = self.incarnations[0].first;
        if known_from > Seq(1) && cursor.seq < known_from {
            return Ok(cursor.seq);
        }
        // Before the number is compared: one that this history has not reached
        // yet, given by an incarnation that it did not have, is no mere future.
        if cursor.incarnation != self.mark_of(cursor.seq) {
            return Err(Invalid::AnotherHistory);
        }
        if cursor.seq > newest {
            return Err(Invalid::PastEnd);
        }
        Ok(cursor.seq)
    }

    /// The mark of the incarnation that numbered `seq`. Several incarnations
    /// that told nothing begin at the same number: the last of them counts.
    fn mark_of(&self, seq: Seq) -> u32 {
        let begun = self.incarnations.partition_point(|known| known.first <= seq);
        self.incarnations[begun.saturating_sub(1)].mark
    }
}
