//! Keeps the write-ahead log short.
//!
//! Owns when the log is moved into the database: after the effects of a group, so that
//! nobody's answer waits for it. What cannot be moved is told, and tried again. While the
//! log is long, new tasks are held back, and what the store has goes on; at the very bound
//! the engine stands still until something can be moved.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Engine, GroupError};
use crate::{
    admission::Hold,
    store::{
        journal::{Fault, Moved},
        sqlite::CHECKPOINT_PAGES,
    },
};

/// Rest before the log is tried again: the first, and the longest. Each is twice as long
/// as the one before.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(5);

/// How often trouble that lasts is told.
const REMINDER: Duration = Duration::from_secs(30);

/// When a caller that was refused may come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How the log stands.
#[derive(Debug)]
pub struct LogKeeper {
    /// Pages that it may have.
    limit: u64,
    /// Pages that it has, as far as they are not all in the database.
    pages: u64,
    /// Pages that it had when all of them were in the database: it was to begin anew.
    whole_at: Option<u64>,
    /// It did not, as somebody read it: it must be seen to.
    is_kept: bool,
    /// Somebody wants it to be moved, however short it is.
    wanted: bool,
    trouble: Option<Trouble>,
    held: bool,
}

/// It cannot be moved for now.
#[derive(Debug)]
struct Trouble {
    since: Instant,
    rest: Duration,
    next_try: Instant,
    told: Option<Instant>,
}

impl LogKeeper {
    /// Of a log that may have so many pages.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            pages: 0,
            whole_at: None,
            is_kept: false,
            wanted: false,
            trouble: None,
            held: false,
        }
    }

    /// To be moved soon, as what is in it makes the database shorter.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// How long until it is to be tried again.
    pub fn until_retry(&self) -> Option<Duration> {
        let trouble = self.trouble.as_ref().filter(|_| self.is_to_be_moved())?;
        Some(trouble.next_try.saturating_duration_since(Instant::now()))
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_time = self.trouble.as_ref().is_none_or(|trouble| trouble.next_try <= now);
        is_time && self.is_to_be_moved()
    }

    fn is_to_be_moved(&self) -> bool {
        self.wanted || self.pages >= CHECKPOINT_PAGES.min(self.limit / 4)
    }

    /// It could not be moved, or not all of it. Tells whether that is to be told.
    fn failed(&mut self, now: Instant, at_once: bool) -> bool {
        let trouble = self.trouble.get_or_insert(Trouble {
            since: now,
            rest: FIRST_REST / 2,
            next_try: now,
            told: None,
        });
        trouble.rest = (trouble.rest * 2).min(LONGEST_REST);
        trouble.next_try = now + trouble.rest;
        let due = match trouble.told {
            Some(told) => now.duration_since(told) >= REMINDER,
            None => at_once || now.duration_since(trouble.since) >= REMINDER,
        };
        if due {
            trouble.told = Some(now);
        }
        due
    }

    /// So many pages are in it after a commit.
    fn stands(&mut self, pages: u64) {
        self.is_kept |= self.whole_at.take().is_some_and(|whole| pages > whole);
        self.pages = pages;
    }

    /// All of it is in the database, and the next commit begins it anew, as far as can be
    /// told.
    fn succeeded(&mut self, moved: Moved) {
        (self.pages, self.wanted) = (0, false);
        self.whole_at = (!self.is_kept).then_some(moved.pages);
        self.is_kept = false;
        if self.trouble.take().is_some_and(|trouble| trouble.told.is_some()) {
            tracing::info!("the write-ahead log is moved into the database again");
        }
    }
}

impl Engine<'_> {
    /// Looks at the log after a commit, and moves it if it is long.
    ///
    /// # Errors
    /// After which the store must not go on.
    pub(super) fn keep_log_short(&mut self) -> Result<(), GroupError> {
        match self.records.journal.log() {
            Ok(stand) => self.log_keeper.stands(stand.pages),
            // It is as long as it was, as far as can be told.
            Err(error) if error.fault().may_pass() => {}
            Err(error) => return Err(error.into()),
        }
        if self.log_keeper.is_due(Instant::now()) {
            self.move_log()?;
        }
        self.hold_or_release();
        Ok(())
    }

    /// Waits until there is room for a group.
    ///
    /// # Errors
    /// After which the store must not go on.
    pub(super) fn wait_for_log(&mut self) -> Result<(), GroupError> {
        while self.log_keeper.pages >= self.log_keeper.limit {
            thread::sleep(self.log_keeper.until_retry().unwrap_or_default());
            self.move_log()?;
        }
        self.hold_or_release();
        Ok(())
    }

    fn move_log(&mut self) -> Result<(), GroupError> {
        let now = Instant::now();
        let must_begin_anew =
            self.log_keeper.is_kept || self.log_keeper.pages >= self.log_keeper.limit / 4;
        let call = self.disk.begin();
        self.log_keeper.is_kept |= must_begin_anew;
        let moved = self.records.journal.move_log(must_begin_anew);
        drop(call);
        let mib = self.records.journal.log_bytes(self.log_keeper.pages) >> 20;
        match moved {
            Ok(moved) if moved.is_whole() => self.log_keeper.succeeded(moved),
            Ok(Moved { pages, .. }) => {
                // Readers come and go; one that stays is somebody's mistake.
                let long = pages >= self.log_keeper.limit / 4;
                if self.log_keeper.failed(now, long) {
                    tracing::warn!(
                        mib,
                        "the write-ahead log grows, as somebody reads an old state of the database \
                         and does not end; look for other programs that have it open"
                    );
                }
            }
            Err(error) => match error.fault() {
                // Readers come and go; who stays is told of when it is long.
                Fault::Busy if self.log_keeper.pages < self.log_keeper.limit / 4 => {
                    self.log_keeper.failed(now, false);
                }
                fault if fault.may_pass() => {
                    if self.log_keeper.failed(now, true) {
                        tracing::warn!(
                            %error,
                            mib,
                            "the write-ahead log cannot be moved into the database and grows; \
                             it is tried again: make room on the disk, or see what refuses the write"
                        );
                    }
                }
                _ => return Err(error.into()),
            },
        }
        Ok(())
    }

    /// New tasks stay outside while the log has more than half of its pages.
    fn hold_or_release(&mut self) {
        let LogKeeper { limit, pages, held, .. } = self.log_keeper;
        if pages >= limit / 2 && !held {
            tracing::warn!("no new task is taken until the write-ahead log is shorter");
            self.admission.hold(Hold::LogFull, RETRY_AFTER);
            self.log_keeper.held = true;
        } else if pages < limit / 4 && held {
            tracing::info!("new tasks are taken again");
            self.admission.release(Hold::LogFull);
            self.log_keeper.held = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_after_rests_and_told_at_intervals() {
        let mut log = LogKeeper::new(1_000);
        let now = Instant::now();
        log.pages = 249;
        assert!(!log.is_due(now), "it is short");
        log.pages = 250;
        assert!(log.is_due(now));
        assert!(log.failed(now, true), "told at once");
        assert!(!log.is_due(now) && log.is_due(now + FIRST_REST));
        assert!(!log.failed(now + FIRST_REST, true), "and not each time");
        assert!(!log.is_due(now + 2 * FIRST_REST));
        for _ in 0..10 {
            log.failed(now, true);
        }
        assert!(log.is_due(now + LONGEST_REST), "it never rests for longer");
        assert!(log.failed(now + REMINDER, true), "but it is not forgotten");
        log.succeeded(Moved::default());
        assert!(log.until_retry().is_none() && !log.is_due(now + REMINDER));
    }

    #[test]
    fn a_log_that_readers_keep_from_beginning_anew_is_seen_to() {
        let mut log = LogKeeper::new(1_000);
        log.stands(300);
        log.succeeded(Moved { pages: 300, moved: 300 });
        log.stands(1);
        assert!(!log.is_kept, "it began anew");
        log.stands(300);
        log.succeeded(Moved { pages: 300, moved: 300 });
        log.stands(301);
        assert!(log.is_kept, "somebody read it");
        log.succeeded(Moved { pages: 301, moved: 301 });
        log.stands(2);
        assert!(!log.is_kept && log.pages == 2);
    }

    #[test]
    fn nobody_waits_for_a_log_that_is_short_again() {
        let mut log = LogKeeper::new(1_000);
        log.want();
        log.failed(Instant::now(), false);
        assert!(log.until_retry().is_some(), "it is wanted");
        log.wanted = false;
        assert!(log.until_retry().is_none(), "there is nothing to be done");
    }
}
