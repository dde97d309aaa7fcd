//! Waits out a disk that refuses to be written to.
//!
//! Owns what becomes of a group whose commit lacks room, or meets an error of a write: it
//! is written again, the same, until the disk takes it. Everything else waits meanwhile, as
//! memory is ahead of the disk; new tasks are held back. Nothing of it was synced, so
//! nothing is in doubt: a sync that fails is another matter, and ends the store.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Engine, GroupError};
use crate::{admission::Hold, store::sqlite::Fault};

/// Rest before the group is written again: the first, and the longest. Each is twice as
/// long as the one before.
const FIRST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How often trouble that lasts is told.
const REMINDER: Duration = Duration::from_secs(10);

/// When a caller that was refused may come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Engine<'_> {
    /// Commits the group, however long the disk refuses it: callers wait until their
    /// deadlines meanwhile, and a drain until its bound.
    ///
    /// # Errors
    /// Any other than of a write; a failed sync above all.
    pub(super) fn commit(&mut self) -> Result<(), GroupError> {
        let call = self.disk.begin();
        crate::failpoint::hit("engine.commit");
        let committed = self.writer.commit();
        drop(call);
        match committed {
            Err(error) if Fault::of(&error).may_pass() => self.commit_later(&error),
            committed => Ok(committed?),
        }
    }

    fn commit_later(&mut self, first: &rusqlite::Error) -> Result<(), GroupError> {
        self.admission.hold(Hold::WriteRefused, RETRY_AFTER);
        tell(first, Duration::ZERO);
        let began = Instant::now();
        let (mut told, mut rest) = (began, FIRST_REST);
        loop {
            thread::sleep(rest);
            rest = LONGEST_REST.min(rest * 2);
            self.writer.roll_back();
            self.log.forget_uncommitted();
            match self.writer.commit_again() {
                Ok(()) => break,
                Err(error) if Fault::of(&error).may_pass() => {
                    if told.elapsed() >= REMINDER {
                        told = Instant::now();
                        tell(&error, began.elapsed());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        tracing::info!(after = ?began.elapsed(), "the disk takes what is written: all goes on");
        self.admission.release(Hold::WriteRefused);
        Ok(())
    }
}

fn tell(error: &rusqlite::Error, since: Duration) {
    tracing::warn!(
        %error,
        ?since,
        "the disk refuses what is written, and everything waits; it is tried again until it is \
         taken: make room, or see what is wrong with the disk"
    );
}
