//! The seam below the engine: what keeps the truth, and how it is written.
//!
//! The engine decides, in memory, what becomes of a group of commands. What that changes is a
//! [`WriteSet`], plain data; a [`Journal`] makes all of it durable, or nothing. So one that was
//! refused is written again as it is, and nothing of SQL, files or threads shows here.
//!
//! The engine reads through [`Records`]: what is written, under what its group changes.

#[cfg(test)]
pub mod memory;
mod records;
mod rows;
#[cfg(test)]
mod tests;
mod write_set;

use std::{ops::Range, sync::Arc};

use super::{clock::Uptime, identity::Identity};
use crate::{
    event::Seq,
    events::Incarnation,
    task::{State, Timestamp},
};

pub use records::Records;
pub use rows::{
    AttemptRow, EndedRow, ExecutionColumns, FinishRow, FinishedTask, Labels, LiveHead, LiveRow,
    NewTaskRow, OutputRow, QueueRow, RequestRow, SlotRow, TallyRow, TaskRow, WrittenLive,
};
pub use write_set::{TallyChange, WriteSet};

/// Something in the store that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place} is damaged: {what}; stop the server and run `taskyard store verify` to see all that is"
)]
pub struct Damage {
    /// For example `row 17 of table task`.
    pub(in crate::store) place: String,
    pub(in crate::store) what: String,
}

impl Damage {
    /// Of `place`, for example `row 17 of table task`, and what is wrong there.
    pub fn at(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }

    /// Where and what, without what to do about it.
    pub fn what_is_wrong(&self) -> String {
        format!("{} is damaged: {}", self.place, self.what)
    }

    /// Where: for example `row 17 of table task`.
    pub fn place(&self) -> &str {
        &self.place
    }
}

/// What kept a journal from doing something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Somebody else holds a lock: it can be waited out.
    Busy,
    /// The disk is full: it can be waited out.
    Full,
    /// A write, or a change of a file's length, was refused; nothing that was synced has
    /// suffered. It may pass.
    Write,
    /// A sync has failed. The kernel may take what it could not write for written, so no
    /// later sync proves anything: only a start does, which writes everything anew.
    Sync,
    /// Whether it was done is not known, and will be when it is asked for again.
    Unknown,
    /// Another engine has taken the store over: nothing of it was done by this call, and nothing
    /// that this engine asks for will be.
    #[cfg_attr(not(test), expect(dead_code, reason = "SQLite's fence is a lock of the system"))]
    Fenced,
    /// The disk does not give what was written.
    Read,
    /// Anything else: damage, a misuse.
    Other,
}

impl Fault {
    /// Whether the same may be tried again, until it is done.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Busy | Self::Full | Self::Write | Self::Unknown)
    }
}

/// Why a journal did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// What it has is not what was written.
    #[error("{0}")]
    Damaged(#[from] Damage),
    /// It could not.
    #[error("{cause}")]
    Failed {
        /// What that means.
        fault: Fault,
        /// In words.
        cause: Arc<str>,
    },
}

impl JournalError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Damaged(_) => Fault::Other,
            Self::Failed { fault, .. } => *fault,
        }
    }

    /// The same, of a set whose outcome was unknown before.
    pub fn in_doubt(self) -> Self {
        let cause = format!("{self}; what was to be committed may be there after the restart");
        Self::Failed { fault: self.fault(), cause: cause.into() }
    }
}

/// How much of what was committed is where it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Pages in the log.
    pub pages: u64,
    /// Of these, the ones that are where they stay, too.
    pub moved: u64,
}

impl Moved {
    /// The log may begin anew with the next commit.
    pub fn is_whole(self) -> bool {
        self.moved >= self.pages
    }
}

/// What a journal has when it is opened, but for the tasks that have not ended.
#[derive(Debug)]
pub struct Found {
    pub identity: Identity,
    /// All process starts that are remembered, in order.
    pub starts: Vec<Incarnation>,
    /// The newest task, whether it is kept or not: no number is given twice.
    pub newest_task: u64,
    /// The newest event, in the same way.
    pub newest_event: Seq,
    /// The oldest event that is kept, or the next one if none is.
    pub oldest_event: Seq,
    /// The first event of the newest batch; 0 if there is none.
    pub newest_batch: Seq,
    /// The newest row of tasks that have ended; 0 if there is none.
    pub newest_ended: i64,
    /// How long the store has been running, over all process starts.
    pub uptime: Uptime,
    pub slots: Vec<SlotRow>,
    pub queues: Vec<QueueRow>,
    pub tallies: Vec<TallyRow>,
}

type Asked<T> = Result<T, JournalError>;

/// What keeps the truth. One engine owns it; others read what it has committed by ways of
/// their own.
///
/// Whatever is asked is answered from what was committed last. A row that cannot be read, or is
/// not what was written, is [`JournalError::Damaged`], and concerns whoever asked for it alone.
pub trait Journal {
    /// From here to the next commit, all that is asked is answered from one state. Fails for
    /// what is in the way, so that nothing that is asked later does.
    fn begin(&mut self) -> Asked<()>;

    /// What is there.
    fn find(&mut self) -> Asked<Found>;

    /// Whether there is a task with one of these numbers.
    fn has_tasks(&mut self, numbers: Range<u64>) -> Asked<bool>;

    /// Tasks that have not ended, in the order of submission: up to `most` of those with
    /// numbers above `beyond`.
    fn live_tasks(&mut self, beyond: u64, most: usize) -> Asked<Vec<LiveHead>>;

    /// The request that made a task under this `request_id`.
    fn request(&mut self, id: &str) -> Asked<Option<RequestRow>>;

    /// A task's record and its labels, if it is there.
    fn record(&mut self, number: u64) -> Asked<Option<(Vec<u8>, Labels)>>;

    /// A task as it was submitted, without its record. It is there.
    fn task(&mut self, number: u64) -> Asked<TaskRow>;

    /// The number of a task's SUBMITTED event.
    fn submitted_seq(&mut self, number: u64) -> Asked<Seq>;

    /// What is known of a task that has not ended beyond its [`LiveHead`].
    fn live(&mut self, number: u64) -> Asked<WrittenLive>;

    /// How a task has ended, if it has.
    fn finished_state(&mut self, number: u64) -> Asked<Option<State>>;

    /// A task that has ended.
    fn finished_task(&mut self, number: u64) -> Asked<Option<FinishedTask>>;

    /// Bytes of what a task's executions wrote and is kept, by attempt.
    fn outputs(&mut self, number: u64) -> Asked<Vec<(u32, u64)>>;

    /// The oldest row of tasks that ended in failure, or otherwise, after the row `beyond`.
    /// Its number alone, if it is damaged.
    fn oldest_ended(
        &mut self,
        failed: bool,
        beyond: i64,
    ) -> Asked<Option<Result<EndedRow, (i64, Damage)>>>;

    /// First and uptime of the oldest batch of events after `beyond`; its first alone, if the
    /// row is damaged.
    fn oldest_events(&mut self, beyond: Seq) -> Asked<Option<(Seq, Result<Uptime, Damage>)>>;

    /// Makes all of this durable, or nothing. `now` is the time of the wall clock.
    ///
    /// A journal that several engines can open begins an epoch with each opening, and ends those
    /// before it; one that only one can open at a time need not. Where a commit's outcome can be
    /// unknown, a set that is there already is known by its epoch and its number
    /// ([`WriteSet::number`]), and nothing of it is done again.
    ///
    /// # Errors
    /// Nothing of it was committed, as far as that can be known: see
    /// [`cut_uncommitted`](Self::cut_uncommitted); but for [`Fault::Unknown`], after which it may
    /// be there. One that [may pass](Fault::may_pass) may be tried again, with the same number;
    /// after any other the journal takes nothing more. A lock ([`Fault::Busy`]) was waited for, a
    /// little. [`Fault::Fenced`] if the epoch has ended.
    fn commit(&mut self, set: &WriteSet, now: Timestamp) -> Asked<()>;

    /// How long the log is.
    ///
    /// # Errors
    /// Also if somebody's lock keeps it from being known.
    fn log(&mut self) -> Asked<Moved>;

    /// Moves what readers allow of the log to where it stays, and syncs that. With
    /// `begin_anew`, sees to it that the log begins anew with the next commit, and waits for
    /// readers for as long as for any lock.
    fn move_log(&mut self, begin_anew: bool) -> Asked<Moved>;

    /// Bytes of so many pages of the log.
    fn log_bytes(&self, pages: u64) -> u64;

    /// Takes back what a commit that was refused has left, durably. Nothing, once the epoch has
    /// ended.
    fn cut_uncommitted(&mut self) -> Asked<()>;

    /// Pages, and how many of them are free.
    fn pages(&mut self) -> Asked<(u64, u64)>;

    /// Gives up to so many free pages back.
    fn give_back(&mut self, pages: u64) -> Asked<()>;
}
