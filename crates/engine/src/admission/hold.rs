//! What keeps new tasks out for a time.
//!
//! Owns which conditions of the store stand at present. Unlike a gate that is
//! closed, one that is held opens by itself when the last condition has passed.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::Refused;

/// A condition of the store in which it takes no new task, although it goes on with
/// those that it has. It passes without a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The write-ahead log is nearly as long as it may be, because it cannot be moved
    /// into the database.
    LogFull,
    /// Less is free on the disk than is kept in reserve.
    DiskLow {
        /// The reserve, in bytes.
        reserve: u64,
    },
    /// The disk refuses to be written to.
    WriteRefused,
}

/// The conditions that stand, each with how long a caller should stay away.
#[derive(Debug, Default)]
pub struct Holds {
    standing: Mutex<Vec<(Hold, Duration)>>,
}

impl Holds {
    /// Sets a condition, or the delay of one that stands. Tells whether it is new.
    pub fn set(&self, hold: Hold, retry_after: Duration) -> bool {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, delay)) = standing.iter_mut().find(|(known, _)| *known == hold) {
            *delay = retry_after;
            return false;
        }
        standing.push((hold, retry_after));
        true
    }

    /// Ends a condition. Tells whether it stood.
    pub fn unset(&self, hold: Hold) -> bool {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = standing.len();
        standing.retain(|(known, _)| *known != hold);
        standing.len() < before
    }

    /// Refuses while a condition stands: with the one that came first.
    ///
    /// # Errors
    /// [`Refused::Held`].
    pub fn check(&self) -> Result<(), Refused> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match standing.first() {
            None => Ok(()),
            Some(&(hold, retry_after)) => Err(Refused::Held { hold, retry_after }),
        }
    }
}
