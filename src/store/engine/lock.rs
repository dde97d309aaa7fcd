//! Waits out the locks of other programs.

use std::time::{Duration, Instant};

use super::{Engine, GroupError};
use crate::store::sqlite::Fault;

/// How often a lock that lasts is told.
const REMINDER: Duration = Duration::from_secs(10);

impl Engine<'_> {
    /// Begins the transaction of a group. Nothing of it is decided before, so a lock that
    /// another program holds is waited out, for as long as it takes: whoever asked waits
    /// until its deadline, and a drain until its bound.
    pub(super) fn begin(&mut self) -> Result<(), GroupError> {
        let began = Instant::now();
        let mut told: Option<Instant> = None;
        loop {
            match self.writer.begin() {
                Ok(()) => break,
                Err(error) if Fault::of(&error) == Fault::Busy => {}
                Err(error) => return Err(error.into()),
            }
            if told.is_none_or(|told| told.elapsed() >= REMINDER) {
                told = Some(Instant::now());
                tracing::warn!(
                    waited = ?began.elapsed(),
                    "another program has locked the database, and the store waits for it: close \
                     what has taskyard.db open"
                );
            }
        }
        if told.is_some() {
            tracing::info!(waited = ?began.elapsed(), "the database is free again");
        }
        Ok(())
    }
}
