//! A journal in memory, with the faults of a disk, for tests: what was committed outlives the
//! engine that committed it.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    AttemptRow, Damage, EndedRow, Fault, FinishRow, FinishedTask, Found, Journal, JournalError,
    Labels, LiveHead, LiveRow, Moved, NewTaskRow, QueueRow, RequestRow, SlotRow, TallyRow, TaskRow,
    WriteSet, WrittenLive,
};
use crate::{
    event::Seq,
    events::{EventBatch, Incarnation},
    store::{MAX_ATTEMPTS_KEPT, clock::Uptime, engine::ENDS, identity::Identity},
    task::{Lifecycle, State, Timestamp, WorkerId},
};

type Asked<T> = Result<T, JournalError>;

/// What a commit that fails says.
pub const REFUSED: &str = "as the test says";

/// What becomes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is refused, and nothing of it is there.
    Refused(Fault),
    /// It is refused, and there all the same, as after a failed sync.
    RefusedAndThere,
    /// Nobody answers, and it is there, or not.
    Unknown { is_there: bool },
}

/// The disk, which outlives whoever writes to it.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Content>>);

#[derive(Clone, Debug, Default)]
pub struct Content {
    pub starts: Vec<Incarnation>,
    pub tasks: BTreeMap<u64, TaskRow>,
    pub live: BTreeMap<u64, LiveRow>,
    pub finished: BTreeMap<u64, FinishRow>,
    pub attempts: BTreeMap<(u64, u32), AttemptRow>,
    pub outputs: BTreeMap<(u64, u32), Vec<u8>>,
    pub requests: BTreeMap<Arc<str>, RequestRow>,
    pub slots: BTreeMap<WorkerId, SlotRow>,
    pub ended: BTreeMap<i64, EndedRow>,
    pub events: BTreeMap<Seq, (EventBatch, Uptime)>,
    pub tallies: BTreeMap<Arc<str>, [(u64, u64); 3]>,
    pub queues: BTreeMap<Arc<str>, QueueRow>,
    pub meta: BTreeMap<&'static str, Vec<u8>>,
    key: [u8; 16],
    /// Counts the journals that were opened: the latest one may write.
    epoch: u64,
    /// The epoch and the number of the set that was committed last.
    newest_set: (u64, u64),
    /// A set was written whose writer does not know it yet.
    pub is_in_doubt: bool,
    /// What becomes of the next commits.
    faults: VecDeque<Outcome>,
    /// What is in the way of the next groups when they begin.
    in_the_way: VecDeque<Fault>,
}

impl MemoryDisk {
    /// An empty one, of a store with this key.
    pub fn new(key: [u8; 16]) -> Self {
        Self(Arc::new(Mutex::new(Content { key, ..Content::default() })))
    }

    /// What is on it.
    pub fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the commits after those that are to fail already fail in this way.
    pub fn fail_next(&self, outcome: Outcome) {
        self.content().faults.push_back(outcome);
    }

    /// Puts this in the way of the next group that begins, once it is its turn: each is met once.
    pub fn fail_begin(&self, fault: Fault) {
        self.content().in_the_way.push_back(fault);
    }

    /// Whoever writes to it from now on. Those before have nothing to say any more.
    pub fn journal(&self) -> Box<dyn Journal> {
        let mut content = self.content();
        content.epoch += 1;
        Box::new(MemoryJournal(self.clone(), content.epoch))
    }

    /// Whoever only asks.
    pub fn reader(&self) -> Box<dyn Journal> {
        Box::new(MemoryJournal(self.clone(), 0))
    }
}

/// The disk, and the epoch.
struct MemoryJournal(MemoryDisk, u64);

impl Content {
    fn number(&self, key: &str) -> Option<u64> {
        let bytes = self.meta.get(key)?.as_slice().try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    }

    fn write(&mut self, set: &WriteSet) {
        self.starts.retain(|start| !set.forgotten_starts.contains(start));
        self.starts.extend(&set.starts);
        for (number, request_id) in &set.trimmed {
            self.finished.remove(number);
            self.tasks.remove(number);
            self.attempts.retain(|(task, _), _| task != number);
            self.outputs.retain(|(task, _), _| task != number);
            if let Some(id) = request_id {
                self.requests.retain(|known, row| **known != **id || row.task != *number);
            }
        }
        for new in &set.tasks {
            let (number, row) = (new.task.number, as_submitted(new));
            assert!(self.tasks.insert(number, new.task.clone()).is_none(), "a number is new");
            self.live.insert(number, row);
        }
        for (number, row) in &set.live {
            change(&mut self.live, *number, row.as_ref());
        }
        for (number, row) in &set.finished {
            change(&mut self.finished, *number, row.as_ref());
        }
        for (id, row) in &set.requests {
            assert!(self.requests.insert(Arc::clone(id), *row).is_none(), "an id is new");
        }
        for output in &set.outputs {
            self.outputs.insert((output.task, output.attempt), output.data.clone());
        }
        for row in &set.attempts {
            self.attempts.entry((row.task, row.attempt)).or_insert_with(|| row.clone());
            let old = row.attempt.saturating_sub(MAX_ATTEMPTS_KEPT);
            self.attempts.retain(|(task, attempt), _| *task != row.task || *attempt > old);
            self.outputs.retain(|(task, attempt), _| *task != row.task || *attempt > old);
        }
        for (worker, slot) in &set.slots {
            change(&mut self.slots, *worker, slot.as_ref());
        }
        for row in &set.ended {
            assert!(self.ended.insert(row.id, row.clone()).is_none(), "a row is new");
        }
        for (id, row) in &set.shortened {
            change(&mut self.ended, *id, (!row.tasks.is_empty()).then_some(row));
        }
        for (batch, uptime) in &set.events {
            // As a reader finds it: it does not know what ended.
            let read =
                EventBatch::new(batch.first(), batch.last(), batch.data().clone(), [].into());
            assert!(self.events.insert(batch.first(), (read, *uptime)).is_none(), "it is new");
        }
        for first in &set.trimmed_events {
            self.events.remove(first);
        }
        for (queue, tally) in &set.tallies {
            if tally.forget {
                self.tallies.remove(queue);
            }
            if let Some(counts) = tally.counts {
                self.tallies.insert(Arc::clone(queue), counts);
            }
        }
        for (name, row) in &set.queues {
            change(&mut self.queues, Arc::clone(name), row.as_ref());
        }
        self.meta.extend(set.meta.iter().map(|(key, value)| (*key, value.clone())));
    }
}

/// The row of a task that nothing has changed since its submission.
fn as_submitted(new: &NewTaskRow) -> LiveRow {
    LiveRow {
        number: new.task.number,
        queue: Arc::clone(&new.task.queue),
        kind: Arc::clone(&new.task.kind),
        priority: new.priority,
        due: new.due,
        interval: new.interval,
        bytes: new.bytes,
        max_attempts: new.max_attempts,
        life: Lifecycle::submitted(new.interval.is_none_or(|interval| !interval.is_zero())),
        execution: None,
        failure: None,
        labels: new.task.labels.clone(),
    }
}

fn change<K: Ord, V: Clone>(rows: &mut BTreeMap<K, V>, key: K, row: Option<&V>) {
    match row {
        Some(row) => drop(rows.insert(key, row.clone())),
        None => drop(rows.remove(&key)),
    }
}

fn missing(number: u64) -> JournalError {
    Damage { place: format!("task {number}"), what: "it is not there".into() }.into()
}

impl Journal for MemoryJournal {
    fn begin(&mut self) -> Asked<()> {
        match self.0.content().in_the_way.pop_front() {
            None => Ok(()),
            Some(fault) => Err(JournalError::Failed { fault, cause: REFUSED.into() }),
        }
    }

    fn find(&mut self) -> Asked<Found> {
        let content = self.0.content();
        let starts = content.meta.get("starts").map_or(&[][..], Vec::as_slice);
        let newest = content.events.values().next_back();
        let of_events = newest.map(|(_, uptime)| *uptime).unwrap_or_default();
        let tallies = content.tallies.iter().flat_map(|(queue, counts)| {
            ENDS.iter().zip(counts).map(|(state, (tasks, bytes))| TallyRow {
                queue: queue.as_ref().into(),
                state: *state,
                tasks: *tasks,
                bytes: *bytes,
            })
        });
        let trimmed = content.number("newest_task");
        let newest_task = content.tasks.keys().next_back().copied().max(trimmed);
        Ok(Found {
            identity: Identity::from_parts(content.key, starts).expect("what it gave"),
            starts: content.starts.clone(),
            newest_task: newest_task.unwrap_or(0),
            newest_event: newest.map(|(batch, _)| batch.last()).unwrap_or_default(),
            oldest_event: content.events.keys().next().copied().unwrap_or(Seq(1)),
            newest_batch: newest.map(|(batch, _)| batch.first()).unwrap_or_default(),
            newest_ended: content.ended.keys().next_back().copied().unwrap_or(0),
            uptime: Uptime(content.number("uptime").unwrap_or(0)).max(of_events),
            slots: content.slots.values().copied().collect(),
            queues: content.queues.values().cloned().collect(),
            tallies: tallies.collect(),
        })
    }

    fn has_tasks(&mut self, numbers: Range<u64>) -> Asked<bool> {
        Ok(self.0.content().tasks.range(numbers).next().is_some())
    }

    fn live_tasks(&mut self, beyond: u64, most: usize) -> Asked<Vec<LiveHead>> {
        let content = self.0.content();
        let rows = content.live.range(beyond + 1..).take(most).map(|(_, row)| LiveHead {
            number: row.number,
            queue: Arc::clone(&row.queue),
            kind: Arc::clone(&row.kind),
            priority: row.priority,
            due: row.due,
            interval: row.interval,
            bytes: row.bytes,
            max_attempts: row.max_attempts,
            attempt: row.life.attempt,
            failures: row.life.failures,
            crashes: row.life.crashes,
            cancel_requested: row.life.cancel_requested,
            has_labels: row.labels.is_some(),
        });
        Ok(rows.collect())
    }

    fn request(&mut self, id: &str) -> Asked<Option<RequestRow>> {
        Ok(self.0.content().requests.get(id).copied())
    }

    fn record(&mut self, number: u64) -> Asked<Option<(Vec<u8>, Labels)>> {
        let content = self.0.content();
        Ok(content.tasks.get(&number).map(|task| (task.record.clone(), task.labels.clone())))
    }

    fn task(&mut self, number: u64) -> Asked<TaskRow> {
        let content = self.0.content();
        let task = content.tasks.get(&number).ok_or_else(|| missing(number))?;
        Ok(TaskRow { record: Vec::new(), ..task.clone() })
    }

    fn submitted_seq(&mut self, number: u64) -> Asked<Seq> {
        self.task(number).map(|task| task.seq)
    }

    fn live(&mut self, number: u64) -> Asked<WrittenLive> {
        let content = self.0.content();
        let row = content.live.get(&number).ok_or_else(|| missing(number))?.clone();
        let LiveRow { interval, execution, failure, labels, .. } = row;
        Ok(WrittenLive { interval, execution, failure, labels })
    }

    fn finished_state(&mut self, number: u64) -> Asked<Option<State>> {
        Ok(self.0.content().finished.get(&number).map(|row| row.life.state))
    }

    fn finished_task(&mut self, number: u64) -> Asked<Option<FinishedTask>> {
        let content = self.0.content();
        let Some((row, task)) = content.finished.get(&number).zip(content.tasks.get(&number))
        else {
            return Ok(None);
        };
        Ok(Some(FinishedTask {
            queue: task.queue.as_ref().into(),
            kind: task.kind.as_ref().into(),
            life: row.life,
            bytes: row.bytes,
            finished: row.finished,
            execution: row.execution,
            failure: row.failure.clone(),
            labels: task.labels.clone(),
            ended: row.ended,
            request_id: task.request_id.as_deref().map(Into::into),
        }))
    }

    fn outputs(&mut self, number: u64) -> Asked<Vec<(u32, u64)>> {
        let content = self.0.content();
        let rows = content.outputs.range((number, 0)..(number + 1, 0));
        Ok(rows.map(|((_, attempt), data)| (*attempt, data.len() as u64)).collect())
    }

    fn oldest_ended(
        &mut self,
        failed: bool,
        beyond: i64,
    ) -> Asked<Option<Result<EndedRow, (i64, Damage)>>> {
        let content = self.0.content();
        let mut rows = content.ended.range(beyond + 1..).map(|(_, row)| row);
        Ok(rows.find(|row| row.failed == failed).cloned().map(Ok))
    }

    fn oldest_events(&mut self, beyond: Seq) -> Asked<Option<(Seq, Result<Uptime, Damage>)>> {
        let content = self.0.content();
        let oldest = content.events.range(beyond.next()..).next();
        Ok(oldest.map(|(first, (_, uptime))| (*first, Ok(*uptime))))
    }

    fn commit(&mut self, set: &WriteSet, _now: Timestamp) -> Asked<()> {
        let mut content = self.0.content();
        if set.is_empty() {
            return Ok(());
        }
        let failed = |fault| Err(JournalError::Failed { fault, cause: REFUSED.into() });
        let epoch = self.1;
        if content.epoch != epoch {
            return failed(Fault::Fenced);
        }
        let (is_there, answer) = match content.faults.pop_front() {
            None => (true, Ok(())),
            Some(Outcome::Refused(fault)) => (false, failed(fault)),
            Some(Outcome::RefusedAndThere) => (true, failed(Fault::Sync)),
            Some(Outcome::Unknown { is_there }) => (is_there, failed(Fault::Unknown)),
        };
        if is_there && content.newest_set != (epoch, set.number) {
            content.write(set);
            content.newest_set = (epoch, set.number);
            content.is_in_doubt |= answer.is_err();
        }
        answer
    }

    fn log(&mut self) -> Asked<Moved> {
        Ok(Moved::default())
    }

    fn move_log(&mut self, _begin_anew: bool) -> Asked<Moved> {
        Ok(Moved::default())
    }

    fn log_bytes(&self, _pages: u64) -> u64 {
        0
    }

    fn cut_uncommitted(&mut self) -> Asked<()> {
        Ok(())
    }

    fn pages(&mut self) -> Asked<(u64, u64)> {
        Ok((0, 0))
    }

    fn give_back(&mut self, _pages: u64) -> Asked<()> {
        Ok(())
    }
}
