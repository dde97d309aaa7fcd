//! Keeps the write-ahead log short.
//!
//! Owns when the log is moved into the database. Most of it is moved by a thread of its own
//! ([`LogMover`]) while groups are committed; the rest by the engine, after the effects of a
//! group, so that nobody's answer waits for it: only when all of it is moved, and nothing is
//! being written, the log begins anew. What cannot be moved is told, and tried again. While the
//! log is long, new tasks are held back, and what the store has goes on; at the very bound
//! the engine stands still until something can be moved.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Engine, GroupError, LogMover};
use crate::{
    admission::Hold,
    store::{
        journal::{Fault, JournalError, Moved},
        sqlite::CHECKPOINT_PAGES,
    },
};

/// Rest before the log is tried again: the first, and the longest. Each is twice as long
/// as the one before.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(5);

/// How many times as long as it is usually the log may become while the mover is at work.
const MOST_LEFT: u64 = 4;

/// How often trouble that lasts is told.
const REMINDER: Duration = Duration::from_secs(30);

/// When a caller that was refused may come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How the log stands.
#[derive(Debug)]
pub struct LogKeeper {
    /// Pages that it may have.
    limit: u64,
    /// Pages that it has, as far as they are not all in the database; and how many of them are.
    pages: u64,
    moved: u64,
    background: Option<Background>,
    /// Pages that it had when all of them were in the database: it was to begin anew.
    whole_at: Option<u64>,
    /// It did not, as somebody read it: it must be seen to.
    is_kept: bool,
    /// Somebody wants it to be moved, however short it is.
    wanted: bool,
    trouble: Option<Trouble>,
    held: bool,
}

/// Who moves it beside the engine.
#[derive(Debug)]
struct Background {
    mover: LogMover,
    /// Pages that were moved when it was asked.
    asked_at: u64,
    /// It achieved nothing then: the engine sees to it.
    rests: bool,
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
            moved: 0,
            background: None,
            whole_at: None,
            is_kept: false,
            wanted: false,
            trouble: None,
            held: false,
        }
    }

    /// Most of it is moved by this one.
    pub fn leave_to(&mut self, mover: LogMover) {
        self.background = Some(Background { mover, asked_at: 0, rests: false });
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
        self.wanted || self.pages >= self.threshold() && !self.is_left_to_mover()
    }

    /// Pages from which on it is to be moved.
    fn threshold(&self) -> u64 {
        CHECKPOINT_PAGES.min(self.limit / 4)
    }

    /// So much is left to be moved that the engine had better not wait for it.
    fn much_is_left(&self) -> bool {
        self.pages.saturating_sub(self.moved) > self.threshold() / 4
    }

    /// The mover will have made it shorter, and it may be as long as it is meanwhile.
    fn is_left_to_mover(&self) -> bool {
        let bound = (MOST_LEFT * self.threshold()).min(self.limit / 4);
        self.background.as_ref().is_some_and(|Background { mover, rests, .. }| {
            self.pages < bound && !rests && (mover.is_busy() || self.much_is_left())
        })
    }

    /// Has it moved while the engine goes on, if that is of use.
    fn ask_mover(&mut self) {
        let is_of_use = self.pages >= self.threshold() / 2 && self.much_is_left();
        if let Some(background) =
            self.background.as_mut().filter(|background| is_of_use && !background.rests)
        {
            background.mover.ask();
            background.asked_at = self.moved;
        }
    }

    /// Waits until nobody else moves it.
    ///
    /// # Errors
    /// See [`hear_mover`](Self::hear_mover).
    fn wait_for_mover(&mut self) -> Result<(), JournalError> {
        if let Some(background) = &self.background {
            background.mover.wait();
        }
        self.hear_mover()
    }

    /// What became of the mover's latest work.
    ///
    /// # Errors
    /// After which the store must not go on.
    fn hear_mover(&mut self) -> Result<(), JournalError> {
        let Some(background) = &mut self.background else { return Ok(()) };
        match background.mover.outcome() {
            None => Ok(()),
            Some(Ok(Moved { moved, .. })) => {
                background.rests |= moved <= background.asked_at;
                Ok(())
            }
            Some(Err(error)) if error.fault().may_pass() => {
                background.rests = true;
                Ok(())
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// The log has begun anew, or is about to.
    fn begins_anew(&mut self) {
        if let Some(background) = &mut self.background {
            (background.asked_at, background.rests) = (0, false);
        }
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

    /// How it is after a commit.
    fn stands(&mut self, Moved { pages, moved }: Moved) {
        self.is_kept |= self.whole_at.take().is_some_and(|whole| pages > whole);
        if moved < self.moved {
            self.begins_anew();
        }
        (self.pages, self.moved) = (pages, moved);
    }

    /// All of it is in the database, and the next commit begins it anew, as far as can be
    /// told.
    fn succeeded(&mut self, moved: Moved) {
        (self.pages, self.moved, self.wanted) = (0, 0, false);
        self.begins_anew();
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
            Ok(stand) => self.log_keeper.stands(stand),
            // It is as long as it was, as far as can be told.
            Err(error) if error.fault().may_pass() => {}
            Err(error) => return Err(error.into()),
        }
        self.log_keeper.hear_mover()?;
        if self.log_keeper.is_due(Instant::now()) {
            self.move_log()?;
        } else if !self.log_keeper.is_to_be_moved() {
            self.log_keeper.ask_mover();
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
        // Only one can move it at a time.
        self.log_keeper.wait_for_mover()?;
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

    /// Nothing is moved beside the engine any more.
    ///
    /// # Errors
    /// After which the store has failed: of the latest move.
    pub(super) fn end_mover(&mut self) -> Result<(), GroupError> {
        self.log_keeper.wait_for_mover()?;
        self.log_keeper.background = None;
        Ok(())
    }

    /// New tasks stay outside while the log has more than half of its pages.
    fn hold_or_release(&mut self) {
        let LogKeeper { limit, pages, held, .. } = &self.log_keeper;
        let (limit, pages, held) = (*limit, *pages, *held);
        if pages >= limit / 2 && !held {
            // Before it is told: whoever reads of it finds it so.
            self.admission.hold(Hold::LogFull, RETRY_AFTER);
            self.log_keeper.held = true;
            tracing::warn!("no new task is taken until the write-ahead log is shorter");
        } else if pages < limit / 4 && held {
            self.admission.release(Hold::LogFull);
            self.log_keeper.held = false;
            tracing::info!("new tasks are taken again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::{super::log_mover, *};
    use crate::supervisor::Supervisor;

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
        log.stands(Moved { pages: 300, moved: 0 });
        log.succeeded(Moved { pages: 300, moved: 300 });
        log.stands(Moved { pages: 1, moved: 0 });
        assert!(!log.is_kept, "it began anew");
        log.stands(Moved { pages: 300, moved: 0 });
        log.succeeded(Moved { pages: 300, moved: 300 });
        log.stands(Moved { pages: 301, moved: 0 });
        assert!(log.is_kept, "somebody read it");
        log.succeeded(Moved { pages: 301, moved: 301 });
        log.stands(Moved { pages: 2, moved: 0 });
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

    /// A mover that does as the test says, and tells when it is at work.
    fn mover() -> (LogMover, mpsc::Receiver<()>, mpsc::Sender<log_mover::Outcome>) {
        let (tell, at_work) = mpsc::channel();
        let (outcome, outcomes) = mpsc::channel();
        let move_log = move || {
            tell.send(()).expect("the test waits");
            outcomes.recv().expect("the test says how it ends")
        };
        let mover = LogMover::start(move_log, &Supervisor::default()).expect("a thread");
        (mover, at_work, outcome)
    }

    fn until_idle(log: &LogKeeper) {
        log.background.as_ref().expect("there is one").mover.wait();
    }

    #[test]
    fn most_of_the_log_is_left_to_the_mover_and_the_rest_is_the_engines() {
        let mut log = LogKeeper::new(1_000_000);
        let (mover, at_work, outcome) = mover();
        log.leave_to(mover);
        let now = Instant::now();
        let stands = |log: &mut LogKeeper, pages, moved| {
            log.stands(Moved { pages, moved });
            log.hear_mover().expect("nothing has failed");
            let is_due = log.is_due(now);
            if !log.is_to_be_moved() {
                log.ask_mover();
            }
            is_due
        };
        assert!(!stands(&mut log, CHECKPOINT_PAGES / 2 - 1, 0));
        assert!(at_work.try_recv().is_err(), "it is short");
        assert!(!stands(&mut log, CHECKPOINT_PAGES / 2, 0));
        at_work.recv().expect("it is asked");
        assert!(!stands(&mut log, CHECKPOINT_PAGES * 2, 0), "it is at work");
        assert!(stands(&mut log, CHECKPOINT_PAGES * MOST_LEFT, 0), "but the log has a bound");
        // Much was written meanwhile: it goes on.
        let half = CHECKPOINT_PAGES / 2;
        outcome.send(Ok(Moved { pages: half, moved: half })).expect("it waits");
        until_idle(&log);
        assert!(!stands(&mut log, CHECKPOINT_PAGES * 2, half));
        at_work.recv().expect("it is asked again");
        let most = CHECKPOINT_PAGES * 2;
        outcome.send(Ok(Moved { pages: most, moved: most })).expect("it waits");
        until_idle(&log);
        assert!(stands(&mut log, most + 10, most), "the rest is short");
        log.succeeded(Moved { pages: most + 10, moved: most + 10 });
        assert!(!stands(&mut log, 5, 0));
    }

    #[test]
    fn what_the_mover_cannot_do_is_the_engines_and_a_failed_sync_is_the_end() {
        let failed = |fault| Err(JournalError::Failed { fault, cause: "as the test says".into() });
        let stuck = Ok(Moved { pages: CHECKPOINT_PAGES, moved: 0 });
        for (told, ends) in
            [(failed(Fault::Full), false), (stuck, false), (failed(Fault::Sync), true)]
        {
            let mut log = LogKeeper::new(1_000_000);
            let (mover, at_work, outcome) = mover();
            log.leave_to(mover);
            log.stands(Moved { pages: CHECKPOINT_PAGES, moved: 0 });
            log.ask_mover();
            at_work.recv().expect("it is asked");
            assert!(!log.is_due(Instant::now()));
            outcome.send(told).expect("it waits");
            until_idle(&log);
            log.ask_mover();
            assert!(at_work.try_recv().is_err(), "nobody has heard of the move before");
            assert_eq!(log.hear_mover().is_err(), ends);
            assert!(ends || log.is_due(Instant::now()), "the engine sees to it");
            log.ask_mover();
            assert!(ends || at_work.try_recv().is_err(), "it is left alone meanwhile");
            drop(outcome);
        }
    }
}
