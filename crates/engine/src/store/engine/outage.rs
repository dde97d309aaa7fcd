//! Waits out what keeps a group from being committed and may pass.
//!
//! Owns what becomes of a group whose commit lacks room, meets an error of a write, or the
//! lock of another program: it is written again, the same, until it is taken. Everything else
//! waits meanwhile, as memory is ahead of the disk; where the disk has refused, new tasks are
//! held back. Nothing of it was synced, so nothing is in doubt: a sync that fails is another
//! matter, and ends the store. Where a commit's outcome can be unknown, the journal is asked for
//! the set of the same number until it knows.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use super::{Engine, GroupError};
use crate::{
    admission::Hold,
    store::journal::{Fault, JournalError},
};

/// Backoff before the group is written again: the first, and the longest. Each is twice as
/// long as the one before.
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Backoff before a lock is tried again, which was waited for before.
const LOCK_BACKOFF: Duration = Duration::from_millis(1);

/// How often trouble that lasts is told.
const REMINDER: Duration = Duration::from_secs(10);

/// When a caller that was refused may come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a group waits for.
#[derive(Debug)]
struct Outage {
    began: Instant,
    told: Option<Instant>,
    backoff: Duration,
    /// The disk has refused it, and new tasks are held back.
    is_refused: bool,
    /// It may be there already.
    is_in_doubt: bool,
}

impl Outage {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            told: None,
            backoff: INITIAL_BACKOFF,
            is_refused: false,
            is_in_doubt: false,
        }
    }

    /// Tells of it, at once or now and then.
    fn tell(&mut self, error: &JournalError, at_once: bool) {
        if !at_once && self.told.is_some_and(|told| told.elapsed() < REMINDER) {
            return;
        }
        let since = self.told.map_or(Duration::ZERO, |_| self.began.elapsed());
        self.told = Some(Instant::now());
        if error.fault() == Fault::Busy {
            tracing::warn!(
                waited = ?since,
                "another program has locked the database, and the store waits for it: close \
                 what has taskyard.db open"
            );
        } else if error.fault() == Fault::Unknown {
            tracing::warn!(
                %error,
                ?since,
                "whether the last group was committed is not known, and everything waits; it is \
                 committed again until that is known"
            );
        } else {
            tracing::warn!(
                %error,
                ?since,
                "the disk refuses what is written, and everything waits; it is tried again until it is \
                 taken: make room, or see what is wrong with the disk"
            );
        }
    }
}

impl Engine<'_> {
    /// Commits the group, however long the disk refuses it or another program has a lock:
    /// callers wait until their deadlines meanwhile, and a drain until its bound.
    ///
    /// # Errors
    /// Any other than of a write or a lock; a failed sync above all.
    pub(super) fn commit(&mut self) -> Result<(), GroupError> {
        let mut outage = None;
        loop {
            let call = self.disk.begin();
            crate::failpoint::hit("engine.commit");
            let committed = self.records.commit(self.group.now.wall);
            drop(call);
            match committed {
                Ok(()) => break,
                Err(error) if error.fault().may_pass() => {
                    let outage = outage.get_or_insert_with(Outage::new);
                    self.wait_out(outage, &error);
                    self.postpone();
                }
                Err(error) if outage.as_ref().is_some_and(|outage| outage.is_in_doubt) => {
                    return Err(error.in_doubt().into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(outage) = outage {
            self.went_on(&outage);
        }
        Ok(())
    }

    /// Begins a group: what is in the way of reading is waited out before anything is decided.
    ///
    /// # Errors
    /// Any other.
    pub(super) fn begin(&mut self) -> Result<(), GroupError> {
        let mut outage = None;
        loop {
            match self.records.journal.begin() {
                Ok(()) => break,
                Err(error) if error.fault().may_pass() => {
                    self.wait_out(outage.get_or_insert_with(Outage::new), &error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(outage) = outage {
            self.went_on(&outage);
        }
        Ok(())
    }

    /// What ends in the group is to be kept from when it is committed. If it is there already, it
    /// was committed then, and the journal leaves it so.
    fn postpone(&mut self) {
        let before = self.uptime();
        let now = self.clock.uptime(&self.clock.now());
        self.records.postpone(now);
        self.trimmer.postpone(before, now);
    }

    fn wait_out(&self, outage: &mut Outage, error: &JournalError) {
        outage.is_in_doubt |= error.fault() == Fault::Unknown;
        let is_new = error.fault() != Fault::Busy && !outage.is_refused;
        if is_new {
            // Before it is told: whoever reads of it finds it so.
            outage.is_refused = true;
            self.admission.hold(Hold::WriteRefused, RETRY_AFTER);
        }
        outage.tell(error, is_new || outage.told.is_none());
        if error.fault() == Fault::Busy {
            // It was waited for, a little, in the journal.
            self.clock.sleep(LOCK_BACKOFF);
            return;
        }
        self.clock.sleep(outage.backoff);
        outage.backoff = MAX_BACKOFF.min(outage.backoff * 2);
    }

    fn went_on(&self, outage: &Outage) {
        let waited = outage.began.elapsed();
        if outage.is_refused {
            // Before it is told, as above.
            self.admission.release(Hold::WriteRefused);
            tracing::info!(after = ?waited, "the disk takes what is written: all goes on");
        } else {
            tracing::info!(?waited, "the database is free again");
        }
    }
}
