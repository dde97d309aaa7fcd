//! Trimming: what has ended is kept for a time and within bounds, and then goes,
//! the oldest first, a little in each group.
//!
//! A group trims at most [`STEP_TASKS`] tasks, or twice as many as ended in it, so
//! that trimming keeps up with any load and no group is held up by it. Between
//! two groups, when nothing else is to be done, the engine goes on with it, and
//! gives the space back that has become free.

use std::time::Duration;

use super::{Engine, GroupError};
use crate::{
    event::Seq,
    store::{
        Retention,
        clock::Uptime,
        journal::{EndedRow, JournalError},
        ready::EngineTime,
    },
};

type Applied = Result<(), GroupError>;

/// Ended tasks that a group trims.
const STEP_TASKS: usize = 256;

/// Batches of events that a group trims.
const STEP_BATCHES: usize = 32;

/// Pages that are given back in one step.
const STEP_PAGES: u64 = 256;

/// Free pages that are never given back: the next tasks need them.
const SPARE_PAGES: u64 = 256;

/// What has ended stays for so long in any case, so that whoever waited for it can
/// read it.
const GRACE: Duration = Duration::from_secs(1);

/// What is to be trimmed next.
#[derive(Debug)]
pub struct RetentionTrimmer {
    retention: Retention,
    /// The uptime at which the oldest tasks that are kept ended: those that did not
    /// fail, and those that did.
    oldest_ended: [Option<Uptime>; 2],
    /// Rows of them that are damaged, up to these: they stay as they are.
    passed_over: [i64; 2],
    oldest_events: Option<(Seq, Uptime)>,
    /// The newest batch of events: it stays, as the numbers go on from it.
    newest_batch: Seq,
    /// Pages may have become free.
    space: bool,
    /// Pages were given back, and the file is still as long as it was.
    gave_back: bool,
}

/// Tasks that did not fail, and those that did, by the column `ended.failed`.
const CLASSES: [bool; 2] = [false, true];

impl RetentionTrimmer {
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            oldest_ended: [None; 2],
            passed_over: [0; 2],
            oldest_events: None,
            newest_batch: Seq(0),
            space: true,
            gave_back: false,
        }
    }

    /// A batch of events was written.
    pub fn events_written(&mut self, first: Seq, now: Uptime) {
        self.newest_batch = first;
        self.oldest_events.get_or_insert((first, now));
    }

    /// What was written at `before`, or later, is written at `now`.
    pub fn postpone(&mut self, before: Uptime, now: Uptime) {
        let ended = self.oldest_ended.iter_mut().flatten();
        let events = self.oldest_events.as_mut().map(|(_, uptime)| uptime);
        for uptime in ended.chain(events).filter(|uptime| **uptime >= before) {
            *uptime = now;
        }
    }

    /// The oldest event that is kept.
    pub fn first_event(&self) -> Option<Seq> {
        self.oldest_events.map(|(first, _)| first)
    }

    /// Tasks have ended.
    pub fn tasks_ended(&mut self, failed: bool, now: Uptime) {
        self.oldest_ended[usize::from(failed)].get_or_insert(now);
    }

    fn keep(&self, failed: bool) -> Duration {
        if failed { self.retention.failed } else { self.retention.finished }
    }

    /// When the oldest of a class is to be trimmed, if it is beyond the bounds or not.
    fn trim_at(&self, failed: bool, beyond: bool) -> Option<Uptime> {
        let keep = if beyond { GRACE } else { self.keep(failed).max(GRACE) };
        self.oldest_ended[usize::from(failed)].map(|time| time.after(keep))
    }
}

impl Engine<'_> {
    /// Looks up what is the oldest of everything.
    pub(in crate::store) fn begin_trimming(&mut self, newest_batch: Seq) -> Applied {
        self.trimmer.newest_batch = newest_batch;
        self.look_at_oldest_events()?;
        for failed in CLASSES {
            self.look_at_oldest(failed)?;
        }
        Ok(())
    }

    fn look_at_oldest(&mut self, failed: bool) -> Result<Option<EndedRow>, GroupError> {
        let class = usize::from(failed);
        let row = loop {
            match self.records.oldest_ended(failed, self.trimmer.passed_over[class])? {
                None => break None,
                Some(Ok(row)) => break Some(row),
                Some(Err((id, damage))) => {
                    tracing::error!(%damage, "the tasks that it names are not trimmed");
                    self.trimmer.passed_over[class] = id;
                }
            }
        };
        self.trimmer.oldest_ended[class] = row.as_ref().map(|row| row.uptime);
        Ok(row)
    }

    /// A batch whose age is damaged counts as written now.
    fn look_at_oldest_events(&mut self) -> Applied {
        let now = self.uptime();
        let oldest = self.records.oldest_events()?;
        self.trimmer.oldest_events = oldest.map(|(first, uptime)| {
            let uptime = uptime.unwrap_or_else(|damage| {
                tracing::error!(%damage, "the events that it has cannot be read");
                now
            });
            (first, uptime)
        });
        Ok(())
    }

    /// How long until there is something to trim or to give back.
    pub(super) fn until_trimming(&self, now: &EngineTime) -> Option<Duration> {
        let trimmer = &self.trimmer;
        if trimmer.space || self.too_many_events() {
            return Some(Duration::ZERO);
        }
        let tasks = CLASSES.map(|failed| trimmer.trim_at(failed, self.is_beyond(failed)));
        let events = trimmer
            .oldest_events
            .filter(|(first, _)| *first < trimmer.newest_batch)
            .map(|(_, time)| time.after(trimmer.retention.events));
        let next = tasks.into_iter().chain([events]).flatten().min();
        next.map(|time| time.since(self.clock.uptime(now)))
    }

    /// Whether more of a class is kept than may be. Dead letters have bounds of their
    /// own, of the same size: they do not push out what ended well.
    fn is_beyond(&self, failed: bool) -> bool {
        let (kept, retention) = (self.queues.kept[usize::from(failed)], &self.trimmer.retention);
        kept.tasks > retention.max_finished || kept.bytes > retention.max_finished_bytes
    }

    fn too_many_events(&self) -> bool {
        let (newest, retention) = (self.encoder.newest(), &self.trimmer.retention);
        self.trimmer.oldest_events.is_some_and(|(first, _)| {
            first < self.trimmer.newest_batch && newest.0 - first.0 >= retention.max_events
        })
    }

    /// Trims a little of what is beyond its time or its bounds.
    pub(super) fn trim(&mut self) -> Applied {
        let ended: usize = self.group.ended.iter().map(Vec::len).sum();
        let mut left = STEP_TASKS.max(2 * ended);
        let before = left;
        for failed in CLASSES {
            while left > 0 && self.is_due(failed) {
                self.trim_ended(failed, &mut left)?;
            }
        }
        if left < before {
            // The row with the newest number may be gone.
            self.records.remember_newest_task(self.newest_task);
            self.trimmer.space = true;
        }
        self.trim_events()
    }

    fn is_due(&self, failed: bool) -> bool {
        let at = self.trimmer.trim_at(failed, self.is_beyond(failed));
        at.is_some_and(|time| time <= self.uptime())
    }

    fn trim_ended(&mut self, failed: bool, left: &mut usize) -> Applied {
        let Some(mut row) = self.look_at_oldest(failed)? else { return Ok(()) };
        let mut trimmed = 0;
        while trimmed < row.tasks.len() && *left > 0 && self.is_due(failed) {
            self.trim_task(row.tasks[trimmed], row.id)?;
            trimmed += 1;
            *left -= 1;
        }
        row.tasks.drain(..trimmed);
        let is_gone = row.tasks.is_empty();
        self.records.keep_ended(row);
        if is_gone {
            self.look_at_oldest(failed)?;
        }
        Ok(())
    }

    fn trim_task(&mut self, number: u64, row: i64) -> Applied {
        let task = match self.records.finished_task(number) {
            Ok(Some(task)) => task,
            Ok(None) => return Ok(()),
            Err(JournalError::Damaged(damage)) => {
                tracing::error!(%damage, "the task is not trimmed: it stays as it is");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        if task.ended != row {
            // It was redriven, and ended again: another row is its.
            return Ok(());
        }
        self.records.trim_task(number, task.request_id);
        if let Some(queue) = self.queues.find(&task.queue) {
            self.queues.uncount(queue, task.life.state, task.bytes);
            self.group.tallied.insert(queue);
            self.group.trimmed.insert(queue);
        }
        Ok(())
    }

    fn trim_events(&mut self) -> Applied {
        for _ in 0..STEP_BATCHES {
            let Some((first, time)) = self.trimmer.oldest_events else { break };
            let old = time.after(self.trimmer.retention.events) <= self.uptime();
            if first >= self.trimmer.newest_batch || !(old || self.too_many_events()) {
                break;
            }
            self.records.trim_events(first);
            self.look_at_oldest_events()?;
            self.trimmer.space = true;
        }
        Ok(())
    }

    /// Lets go of queues of which trimming has left nothing.
    pub(super) fn forget_trimmed_queues(&mut self) {
        for queue in std::mem::take(&mut self.group.trimmed) {
            self.forget_unused(queue);
        }
    }

    /// Gives back some of the space that is free, while nobody waits. A reader in
    /// the way is of no harm; any other failure is one of the disk, as of a commit.
    pub(super) fn give_back_space(&mut self) -> Applied {
        if !self.trimmer.space {
            return Ok(());
        }
        match self.try_give_back() {
            Ok(more) => self.trimmer.space = more,
            Err(error) if error.fault().may_pass() => self.trimmer.space = false,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tells whether there is more to give back.
    fn try_give_back(&mut self) -> Result<bool, JournalError> {
        let journal = &mut self.records.journal;
        let (pages, free) = journal.pages()?;
        if free > SPARE_PAGES.max(pages / 4) {
            journal.give_back(STEP_PAGES.min(free - SPARE_PAGES))?;
            self.trimmer.gave_back = true;
            // Not where the database cannot give back.
            return Ok(journal.pages()?.1 < free);
        }
        if std::mem::take(&mut self.trimmer.gave_back) {
            // This shortens the file by the pages that were given back.
            self.log_keeper.want();
        }
        Ok(false)
    }
}
