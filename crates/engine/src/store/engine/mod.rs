//! The group commit.
//!
//! One thread owns the journal and the index of all tasks that have not ended. It
//! takes a command, drains what else has arrived (within bounds), decides each by
//! the pure transition, has the journal make all changes durable at once, then
//! performs the effects: events, replies, starts. The batching window is the sync
//! in flight; there is no timer.
//!
//! When the disk refuses to be written to, memory is ahead of it. So the group is
//! written again until the disk takes it (`outage`). When a sync fails, a repeated
//! one proves nothing. The engine then stops for good: it answers everything with
//! the cause until the process is restarted, and recovers from disk.

mod apply;
mod disk_watch;
mod effects;
mod executions;
mod index;
mod log;
mod log_mover;
mod message;
mod meter;
mod mix;
mod operator;
mod outage;
mod queues;
mod submit;
mod trimming;

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
};

use super::{
    Dispatch, Error, Overview,
    clock::{Clock, Uptime},
    directory::Directory,
    identity::Identity,
    journal::{EndedRow, Fault, JournalError, Records, SlotRow},
    ready::{EngineTime, QueueId, ReadyQueues},
    space::Space,
};
use crate::{
    admission::Admission,
    events::{Encoder, EventBatch, Publisher},
    task::WorkerId,
};

pub use disk_watch::{DiskWatch, watch as watch_disk};
pub use effects::{Effect, Reply};
pub use index::{ByNumber, Entry, Index};
pub use log::LogKeeper;
pub use log_mover::LogMover;
pub use message::{Decided, Message};
pub use mix::Mix;
pub use queues::{ENDS, EndedCount, Queues};
pub use trimming::RetentionTrimmer;

/// Commands in one group.
pub const MAX_GROUP_COMMANDS: usize = 1_024;

/// Bytes of new tasks, results and events, with what is written around them, after
/// which a group takes no more commands.
pub const MAX_GROUP_BYTES: usize = 8 << 20;

/// How often, at least, due times are compared with the wall clock, so that a
/// step of the clock is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// What outlives a group.
pub struct Engine<'c> {
    pub records: Records<'c>,
    pub log_keeper: LogKeeper,
    pub disk: Arc<DiskWatch>,
    pub identity: Identity,
    pub admission: Arc<Admission>,
    pub publisher: Publisher,
    pub failure: watch::Sender<Option<Arc<str>>>,
    /// Is told of a sync that has failed; of a store in memory there is none.
    pub directory: Option<Arc<Directory>>,
    pub clock: Clock,
    pub index: Index,
    pub queues: Queues,
    pub mix: Mix,
    pub ready: ReadyQueues,
    pub encoder: Encoder,
    pub trimmer: RetentionTrimmer,
    pub space: Space,
    pub newest_task: u64,
    /// The newest row of tasks that have ended. A group has two numbers of its own,
    /// for those that did not fail and for those that did.
    pub newest_ended: i64,
    pub max_crashes: u32,
    /// Workers that wait for a task, in the order in which they came.
    pub idle: VecDeque<(WorkerId, Reply<Dispatch>)>,
    /// What each worker runs, by its number: which task, and which attempt.
    pub running: ByNumber<(u64, u32)>,
    /// Workers that were given a task and could not be told.
    pub lost: Vec<WorkerId>,
    /// Workers that are to leave at their next dispatch.
    pub retiring: HashSet<WorkerId>,
    pub draining: bool,
    pub group: Group,
}

/// What a group gathers before its commit.
#[derive(Debug)]
pub struct Group {
    pub now: EngineTime,
    pub effects: Vec<Effect>,
    /// What the slots hold after the group: one row per worker, however many
    /// tasks it went through.
    pub slots: HashMap<WorkerId, Option<SlotRow>>,
    /// Tasks that started in this group.
    pub started: HashSet<u64>,
    /// Tasks that ended in this group: those that did not fail, and those that did.
    pub ended: [Vec<u64>; 2],
    /// Queues whose tallies have changed.
    pub tallied: BTreeSet<QueueId>,
    /// Queues from which tasks were trimmed.
    pub trimmed: BTreeSet<QueueId>,
    /// Who asked how the queues stand.
    pub overviews: Vec<(Option<Arc<str>>, Reply<Overview>)>,
}

impl Group {
    pub fn new(now: EngineTime) -> Self {
        Self {
            now,
            effects: Vec::new(),
            slots: HashMap::new(),
            started: HashSet::new(),
            ended: Default::default(),
            tallied: BTreeSet::new(),
            trimmed: BTreeSet::new(),
            overviews: Vec::new(),
        }
    }
}

impl Engine<'_> {
    /// Serves until it is closed, or every sender has gone. Returns whom to
    /// tell once everything is let go of, and how many tasks have not ended.
    pub fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        runtime: &runtime::Handle,
    ) -> Option<Closed> {
        let closed = self.serve(&mut inbox, runtime);
        // What it has met must be known before the database is closed.
        if let Err(error) = self.end_mover()
            && self.failure.borrow().is_none()
        {
            self.fail(&error);
        }
        closed
    }

    fn serve(
        &mut self,
        inbox: &mut mpsc::Receiver<Message>,
        runtime: &runtime::Handle,
    ) -> Option<Closed> {
        let mut arrived = Vec::with_capacity(MAX_GROUP_COMMANDS);
        loop {
            let came = runtime.block_on(self.wait(inbox, &mut arrived));
            if came == Came::Hangup {
                return None;
            }
            gather(inbox, &mut arrived);
            let idle = arrived.is_empty();
            let mut rest = arrived.drain(..).peekable();
            loop {
                let closed = self.commit_group(&mut rest);
                if let Some(reply) = closed {
                    return Some(Closed { reply, remaining: self.index.len() as u64 });
                }
                if rest.peek().is_none() {
                    break;
                }
            }
            if idle
                && self.failure.borrow().is_none()
                && let Err(error) = self.give_back_space().and_then(|()| self.keep_log_short())
            {
                self.fail(&error);
            }
            if self.failure.borrow().is_none() {
                self.space.look(Instant::now(), &self.admission);
            }
        }
    }

    async fn wait(&self, inbox: &mut mpsc::Receiver<Message>, arrived: &mut Vec<Message>) -> Came {
        let receive = inbox.recv_many(arrived, MAX_GROUP_COMMANDS);
        let received = match self.until_something() {
            Some(until) => tokio::time::timeout(until, receive).await,
            None => Ok(receive.await),
        };
        match received {
            Ok(0) => Came::Hangup,
            Ok(_) => Came::Commands,
            Err(_) => Came::DueTime,
        }
    }

    /// How long until there is something to do of which nobody says a word.
    fn until_something(&self) -> Option<Duration> {
        if self.failure.borrow().is_some() {
            return None;
        }
        if !self.lost.is_empty() {
            return Some(Duration::ZERO);
        }
        if self.draining {
            return None;
        }
        let now = self.clock.now();
        let due = self.ready.until_due(&now, LONGEST_SLEEP);
        // A queue that its rate holds back is of interest to a worker only.
        let release = self.ready.next_release().filter(|_| !self.idle.is_empty());
        let release = release.map(|until| until.saturating_duration_since(now.instant));
        let look = self.space.until_look(now.instant);
        let log = self.log_keeper.until_retry();
        [due, release, self.until_trimming(&now), look, log].into_iter().flatten().min()
    }

    /// One transaction: takes from `arrived` up to the byte bound. Returns the
    /// reply of a `Close`, which ends the engine.
    // Its instructions are counted, by its name.
    #[inline(never)]
    fn commit_group(
        &mut self,
        arrived: &mut impl Iterator<Item = Message>,
    ) -> Option<oneshot::Sender<u64>> {
        let failed = self.failure.borrow().clone();
        if let Some(cause) = failed {
            return refuse_all(arrived, &cause);
        }
        let mut closing = None;
        let written = self.write_group(arrived, &mut closing);
        if written.as_ref().is_ok_and(|batches| !batches.is_empty()) {
            crate::failpoint::hit("engine.publish");
        }
        match written {
            Ok(batches) => {
                if let Some(first) = self.trimmer.first_event() {
                    self.publisher.kept_from(first);
                }
                for batch in batches {
                    self.publisher.publish(batch);
                }
                let effects = self.group.effects.drain(..);
                self.lost.extend(effects.filter_map(Effect::perform));
                self.answer_overviews();
                // Everybody has been answered.
                if let Err(error) = self.keep_log_short() {
                    self.fail(&error);
                }
                closing
            }
            Err(error) => {
                self.fail(&error);
                let cause: Arc<str> = error.to_string().into();
                let closing_later = refuse_all(arrived, &cause);
                closing.or(closing_later)
            }
        }
    }

    fn write_group(
        &mut self,
        arrived: &mut impl Iterator<Item = Message>,
        closing: &mut Option<oneshot::Sender<u64>>,
    ) -> Result<Vec<EventBatch>, GroupError> {
        crate::failpoint::hit("engine.group");
        self.wait_for_log()?;
        self.begin()?;
        self.group.now = self.clock.now();
        for worker in std::mem::take(&mut self.lost) {
            self.give_up(worker)?;
        }
        let mut bytes = 0;
        while bytes + self.encoder.bytes() < MAX_GROUP_BYTES && closing.is_none() {
            let Some(message) = arrived.next() else { break };
            bytes += message.bytes();
            match message {
                Message::Close(reply) => {
                    // Nothing starts that nobody would hear the end of.
                    self.draining = true;
                    *closing = Some(reply);
                }
                message => self.apply(message)?,
            }
        }
        self.make_due();
        if self.start_ready()? {
            self.refresh_answers();
        }
        self.group.started.clear();
        self.trim()?;
        self.write_gathered();
        let batches = self.encoder.take_all();
        let uptime = self.uptime();
        if closing.is_some() {
            self.records.remember_uptime(uptime);
        }
        for batch in &batches {
            self.records.insert_events(batch.clone(), uptime);
            self.trimmer.events_written(batch.first(), uptime);
        }
        self.publisher.expect(self.encoder.newest());
        self.commit()?;
        Ok(batches)
    }

    /// How long the store had been running when this group began.
    pub fn uptime(&self) -> Uptime {
        self.clock.uptime(&self.group.now)
    }

    /// The row of `ended` for the tasks that end in this group.
    pub(super) fn ended_row(&self, failed: bool) -> i64 {
        self.newest_ended + 1 + i64::from(failed)
    }

    /// Notes what is one row for the whole group.
    pub(super) fn write_gathered(&mut self) {
        self.records.put_slots(self.group.slots.drain());
        let uptime = self.uptime();
        for failed in [false, true] {
            let tasks = std::mem::take(&mut self.group.ended[usize::from(failed)]);
            if !tasks.is_empty() {
                let row = EndedRow { id: self.ended_row(failed), failed, uptime, tasks };
                self.records.insert_ended(row);
                self.trimmer.tasks_ended(failed, uptime);
            }
        }
        self.newest_ended += 2;
        self.write_tallies();
        self.forget_trimmed_queues();
    }

    /// The disk has refused: nothing of this group happened, and nothing will.
    fn fail(&mut self, error: &GroupError) {
        tracing::error!(%error, "the store has failed and takes no more until a restart");
        let mut cause = error.to_string();
        if let (GroupError::Journal(error), Some(directory)) = (error, &self.directory)
            && error.fault() == Fault::Sync
        {
            directory.note_failed_sync();
        }
        // Before anybody is told that nothing of it has happened.
        if let Err(uncut) = self.records.journal.cut_uncommitted() {
            tracing::error!(error = %uncut, "what was refused cannot be cut off the write-ahead log");
            cause.push_str("; what was refused with this may be there after the restart");
        }
        let cause: Arc<str> = cause.into();
        self.failure.send_replace(Some(Arc::clone(&cause)));
        self.publisher.fail(Arc::clone(&cause));
        for effect in self.group.effects.drain(..) {
            effect.fail(&cause);
        }
        for (_, reply) in self.group.overviews.drain(..) {
            effects::refuse(reply, &cause);
        }
        for (_, reply) in self.idle.drain(..) {
            Effect::Stop(reply).fail(&cause);
        }
    }
}

/// Takes what else arrives while this thread lets others have the processor.
///
/// On an idle machine it comes back at once, so a lone command is not held up.
/// On a busy one the threads that bring commands run first, and the group grows
/// with the load: the cost of a commit is then shared by more commands.
fn gather(inbox: &mut mpsc::Receiver<Message>, arrived: &mut Vec<Message>) {
    loop {
        let before = arrived.len();
        thread::yield_now();
        while arrived.len() < MAX_GROUP_COMMANDS {
            let Ok(message) = inbox.try_recv() else { break };
            arrived.push(message);
        }
        if arrived.len() == before || arrived.len() == MAX_GROUP_COMMANDS {
            return;
        }
    }
}

/// Why a group could not be written.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("task number {0} was to start and cannot: the index is inconsistent")]
    Inconsistent(u64),
}

/// Damage that is met while one task is looked at, before anything of it is changed,
/// concerns that task alone.
fn alone<T>(read: Result<T, JournalError>) -> Result<Result<T, Error>, GroupError> {
    match read {
        Ok(found) => Ok(Ok(found)),
        Err(JournalError::Damaged(damage)) => {
            tracing::error!(%damage, "a command was refused");
            Ok(Err(Error::Damaged(damage)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Answers everything with the cause; a `Close` is left to the caller.
fn refuse_all(
    arrived: &mut impl Iterator<Item = Message>,
    cause: &Arc<str>,
) -> Option<oneshot::Sender<u64>> {
    arrived.find_map(|message| message.refuse(cause))
}

/// The engine has ended in an orderly way.
#[derive(Debug)]
pub struct Closed {
    reply: oneshot::Sender<u64>,
    remaining: u64,
}

impl Closed {
    /// Tells whoever closed it.
    pub fn tell(self) {
        // Nobody may be waiting any more.
        let _ = self.reply.send(self.remaining);
    }
}

#[derive(PartialEq, Eq)]
enum Came {
    Commands,
    DueTime,
    Hangup,
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
