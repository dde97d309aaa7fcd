//! What is written, as the engine sees it: the journal's rows under what its group changes.

use std::{borrow::Cow, sync::Arc};

use super::{
    AttemptRow, Damage, EndedRow, FinishRow, FinishedTask, Journal, JournalError, Labels, LiveRow,
    NewTaskRow, OutputRow, QueueRow, RequestRow, SlotRow, TallyChange, WriteSet, WrittenLive,
};
use crate::{
    event::Seq,
    events::{EventBatch, Incarnation},
    store::{MAX_ATTEMPTS_KEPT, clock::Uptime},
    task::{State, Timestamp, WorkerId},
};

type Asked<T> = Result<T, JournalError>;

/// The rows of a store, and how the present group changes them.
pub struct Records<'j> {
    /// Where they are.
    pub journal: Box<dyn Journal + 'j>,
    /// What the group changes.
    pub changes: WriteSet,
    /// The last rows of tasks that have ended, of each class, that go with the group.
    gone: [i64; 2],
    /// Sets that were committed.
    committed: u64,
}

impl<'j> Records<'j> {
    /// Those of a journal.
    pub fn new(journal: Box<dyn Journal + 'j>) -> Self {
        Self { journal, changes: WriteSet::default(), gone: [0; 2], committed: 0 }
    }

    /// Makes what the group changes durable, and begins the next one.
    ///
    /// # Errors
    /// Those of [`Journal::commit`]. What may pass can be tried again.
    pub fn commit(&mut self, now: Timestamp) -> Asked<()> {
        self.changes.number = self.committed + 1;
        self.journal.commit(&self.changes, now)?;
        self.committed += 1;
        self.changes = WriteSet::default();
        self.gone = [0; 2];
        Ok(())
    }

    /// What ends in the group does so now: it could not be committed before.
    pub fn postpone(&mut self, now: Uptime) {
        self.changes.ended.iter_mut().for_each(|row| row.uptime = now);
        self.changes.events.iter_mut().for_each(|(_, uptime)| *uptime = now);
    }

    /// The request that made a task under this `request_id`.
    pub fn request(&mut self, id: &str) -> Asked<Option<RequestRow>> {
        if let Some(row) = self.changes.requests.get(id) {
            return Ok(Some(*row));
        }
        let row = self.journal.request(id)?;
        Ok(row.filter(|row| !self.changes.trimmed.contains_key(&row.task)))
    }

    /// A task's record and its labels, if it is there. A record may be large.
    pub fn record(&mut self, number: u64) -> Asked<Option<(Cow<'_, [u8]>, Labels)>> {
        match self.changes.new_task(number) {
            Some(NewTaskRow { task, .. }) => {
                Ok(Some((task.record.as_slice().into(), task.labels.clone())))
            }
            None if self.changes.trimmed.contains_key(&number) => Ok(None),
            None => {
                let found = self.journal.record(number)?;
                Ok(found.map(|(record, labels)| (record.into(), labels)))
            }
        }
    }

    /// The number of a task's SUBMITTED event.
    pub fn submitted_seq(&mut self, number: u64) -> Asked<Seq> {
        match self.changes.new_task(number) {
            Some(new) => Ok(new.task.seq),
            None => self.journal.submitted_seq(number),
        }
    }

    /// What is known of a task that has not ended beyond what is in memory.
    pub fn live(&mut self, number: u64) -> Asked<WrittenLive> {
        match self.changes.live.get(&number) {
            Some(Some(LiveRow { interval, execution, failure, labels, .. })) => Ok(WrittenLive {
                interval: *interval,
                execution: *execution,
                failure: failure.clone(),
                labels: labels.clone(),
            }),
            _ => match self.changes.new_task(number) {
                Some(NewTaskRow { task, interval, .. }) => Ok(WrittenLive {
                    interval: *interval,
                    labels: task.labels.clone(),
                    ..WrittenLive::default()
                }),
                None => self.journal.live(number),
            },
        }
    }

    /// How a task has ended, if it has.
    pub fn finished_state(&mut self, number: u64) -> Asked<Option<State>> {
        if self.changes.trimmed.contains_key(&number) {
            return Ok(None);
        }
        match self.changes.finished.get(&number) {
            Some(row) => Ok(row.as_ref().map(|row| row.life.state)),
            None => self.journal.finished_state(number),
        }
    }

    /// A task that has ended.
    pub fn finished_task(&mut self, number: u64) -> Asked<Option<FinishedTask>> {
        if self.changes.trimmed.contains_key(&number) {
            return Ok(None);
        }
        match self.changes.finished.get(&number) {
            None => self.journal.finished_task(number),
            Some(None) => Ok(None),
            Some(Some(row)) => {
                let row = row.clone();
                self.just_finished(row).map(Some)
            }
        }
    }

    /// A task that has ended in this group.
    fn just_finished(&mut self, row: FinishRow) -> Asked<FinishedTask> {
        let FinishRow { number, life, finished, bytes, ended, execution, failure, .. } = row;
        let of_task = match self.changes.new_task(number) {
            Some(new) => new.task.clone(),
            None => self.journal.task(number)?,
        };
        Ok(FinishedTask {
            queue: of_task.queue.as_ref().into(),
            kind: of_task.kind.as_ref().into(),
            labels: of_task.labels,
            request_id: of_task.request_id.as_deref().map(Into::into),
            life,
            bytes,
            finished,
            execution,
            failure,
            ended,
        })
    }

    /// Bytes of what a task's executions wrote, as far as it is kept.
    pub fn bytes_of_outputs(&mut self, number: u64) -> Asked<u64> {
        let changes = &self.changes;
        if changes.trimmed.contains_key(&number) {
            return Ok(0);
        }
        let mut kept =
            if changes.is_new(number) { Vec::new() } else { self.journal.outputs(number)? };
        for output in changes.outputs.iter().filter(|output| output.task == number) {
            kept.retain(|(attempt, _)| *attempt != output.attempt);
            kept.push((output.attempt, output.data.len() as u64));
        }
        if kept.is_empty() {
            return Ok(0);
        }
        let attempts = changes.attempts.iter().filter(|attempt| attempt.task == number);
        let newest = attempts.map(|attempt| attempt.attempt).max().unwrap_or(0);
        let forgotten = newest.saturating_sub(MAX_ATTEMPTS_KEPT);
        let kept = kept.into_iter().filter(|(attempt, _)| *attempt > forgotten);
        Ok(kept.map(|(_, bytes)| bytes).sum())
    }

    /// The oldest row of tasks that ended in failure, or otherwise, after the row `beyond`.
    /// Its number alone, if it is damaged.
    pub fn oldest_ended(
        &mut self,
        failed: bool,
        beyond: i64,
    ) -> Asked<Option<Result<EndedRow, (i64, Damage)>>> {
        // They go in their order, so that the last one that is gone has none before it.
        let beyond = beyond.max(self.gone[usize::from(failed)]);
        let oldest = self.journal.oldest_ended(failed, beyond)?;
        Ok(match oldest {
            Some(Ok(row)) => Some(Ok(self.changes.shortened.get(&row.id).cloned().unwrap_or(row))),
            Some(Err(damaged)) => Some(Err(damaged)),
            None => {
                let mut new = self.changes.ended.iter();
                new.find(|row| row.failed == failed && row.id > beyond).cloned().map(Ok)
            }
        })
    }

    /// First and uptime of the oldest batch of events; its first alone, if the row is damaged.
    pub fn oldest_events(&mut self) -> Asked<Option<(Seq, Result<Uptime, Damage>)>> {
        let beyond = self.changes.trimmed_events.last().copied().unwrap_or_default();
        let oldest = self.journal.oldest_events(beyond)?;
        let new = self.changes.events.first().map(|(batch, uptime)| (batch.first(), Ok(*uptime)));
        Ok(oldest.or(new))
    }

    /// A process start begins.
    pub fn insert_start(&mut self, start: Incarnation) {
        self.changes.starts.push(start);
    }

    /// Forgets a process start of which nothing is kept.
    pub fn delete_start(&mut self, start: Incarnation) {
        self.changes.forgotten_starts.push(start);
    }

    /// A new task. Its number is above all others.
    pub fn insert_task(&mut self, row: NewTaskRow) {
        self.changes.tasks.push(row);
    }

    /// The changing part of a task that has not ended, and is not as it was submitted.
    pub fn put_live(&mut self, row: LiveRow) {
        self.changes.live.insert(row.number, Some(row));
    }

    /// Moves a task from those that live to those that have ended.
    pub fn finish(&mut self, row: FinishRow) {
        self.changes.live.insert(row.number, None);
        self.changes.finished.insert(row.number, Some(row));
    }

    /// Takes a task back from those that have ended.
    pub fn unfinish(&mut self, number: u64) {
        self.changes.finished.insert(number, None);
    }

    /// Notes an execution, and forgets the one that is [`MAX_ATTEMPTS_KEPT`] executions older.
    pub fn insert_attempt(&mut self, row: AttemptRow) {
        self.changes.attempts.push(row);
    }

    /// Keeps what an execution wrote.
    pub fn insert_output(&mut self, task: u64, attempt: u32, data: Vec<u8>) {
        self.changes.outputs.push(OutputRow { task, attempt, data });
    }

    /// Keeps which task a `request_id` has made.
    pub fn insert_request(&mut self, id: Arc<str>, row: RequestRow) {
        self.changes.requests.insert(id, row);
    }

    /// Tasks that have ended together.
    pub fn insert_ended(&mut self, row: EndedRow) {
        self.changes.ended.push(row);
    }

    /// Leaves these tasks in a row of those that ended; without any, it goes.
    pub fn keep_ended(&mut self, row: EndedRow) {
        if row.tasks.is_empty() {
            self.gone[usize::from(row.failed)] = row.id;
        }
        self.changes.shortened.insert(row.id, row);
    }

    /// Forgets a task that has ended, with everything that is kept of it.
    pub fn trim_task(&mut self, number: u64, request_id: Option<String>) {
        self.changes.trimmed.insert(number, request_id);
    }

    /// Forgets one batch of events, the oldest.
    pub fn trim_events(&mut self, first: Seq) {
        self.changes.trimmed_events.push(first);
    }

    /// The events of this group, or some of them, in their order.
    pub fn insert_events(&mut self, batch: EventBatch, now: Uptime) {
        self.changes.events.push((batch, now));
    }

    /// Which tasks workers run, after the group.
    pub fn put_slots(&mut self, slots: impl Iterator<Item = (WorkerId, Option<SlotRow>)>) {
        self.changes.slots.extend(slots);
    }

    /// How many tasks of a queue have ended in each way, and their bytes.
    pub fn put_tallies(&mut self, queue: &Arc<str>, counts: [(u64, u64); 3]) {
        self.changes.tallies.entry(Arc::clone(queue)).or_default().counts = Some(counts);
    }

    /// Forgets what was counted of a queue.
    pub fn delete_tallies(&mut self, queue: &Arc<str>) {
        let forgotten = TallyChange { forget: true, counts: None };
        self.changes.tallies.insert(Arc::clone(queue), forgotten);
    }

    /// What an operator has changed about a queue.
    pub fn put_queue(&mut self, name: &Arc<str>, row: Option<QueueRow>) {
        self.changes.queues.insert(Arc::clone(name), row);
    }

    /// Keeps the keys of the tasks of each start.
    pub fn remember_starts(&mut self, starts: Vec<u8>) {
        self.changes.meta.insert("starts", starts);
    }

    /// Notes how long the store has been running, in case nothing else tells of it.
    pub fn remember_uptime(&mut self, now: Uptime) {
        self.changes.meta.insert("uptime", now.0.to_be_bytes().to_vec());
    }

    /// Notes the newest task's number, in case its row is trimmed.
    pub fn remember_newest_task(&mut self, number: u64) {
        self.changes.meta.insert("newest_task", number.to_be_bytes().to_vec());
    }
}
