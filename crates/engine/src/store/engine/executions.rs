//! Executions: how they begin on a worker, and every way in which they end.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Effect, Engine, GroupError, alone, apply::Particulars, index::Execution};
use crate::{
    store::{
        Assignment, Finished, Outcome, clock,
        journal::{JournalError, SlotRow},
        record::{OutputRecord, TaskRecord},
    },
    task::{
        self, Command, Failure, Interruption, Lifecycle, State, TaskBody, TaskId, WorkerId,
        invariants,
    },
};

type Applied = Result<(), GroupError>;

/// What a start needs of a task that is not in the index.
struct StartContent {
    labels: Option<Box<[u8]>>,
    /// Or how its record is damaged.
    run: Result<(TaskBody, task::RetryPolicy), String>,
}

impl Engine<'_> {
    /// Gives due tasks to idle workers; tells whether there were both.
    pub(super) fn start_ready(&mut self) -> Result<bool, GroupError> {
        if self.draining {
            return Ok(false);
        }
        // A worker that has gone gets nothing.
        self.idle.retain(|(_, reply)| !reply.is_closed());
        let mut started = false;
        while !self.idle.is_empty() {
            let Some(number) = self.ready.pop(self.group.now.instant) else { break };
            let Some((worker, reply)) = self.idle.pop_front() else { break };
            match self.start(number, worker)? {
                Some(assignment) => {
                    let assign = Effect::Assign(worker, reply, Box::new(assignment));
                    self.group.effects.push(assign);
                }
                None => self.idle.push_front((worker, reply)),
            }
            started = true;
        }
        Ok(started)
    }

    /// Starts a task on a worker. `None` if its record cannot be read: the task
    /// then fails, and the worker is free for the next one.
    fn start(&mut self, number: u64, worker: WorkerId) -> Result<Option<Assignment>, GroupError> {
        let now = self.group.now;
        let started = now.wall;
        let cancel = CancellationToken::new();
        let StartContent { labels, run } = self.read_content(number)?;
        let Some(entry) = self.index.get_mut(number) else {
            return Err(GroupError::Inconsistent(number));
        };
        let before = entry.life;
        let decided = task::decide(before, entry.budget(self.max_crashes), Command::Start);
        let (after, told) = decided.map_err(|_| GroupError::Inconsistent(number))?;
        debug_assert_eq!(invariants::check(before, Command::Start, after), Ok(()));
        entry.life = after;
        let measured = now.steady.since(entry.timer.time());
        let waited = clock::span(started.since(entry.due), measured);
        let execution = Execution { worker, started, waited, labels, cancel: cancel.clone() };
        entry.execution = Some(Box::new(execution));
        self.group.effects.extend(entry.permit.take().map(Effect::ReleasePermit));
        let kind = Arc::clone(&entry.kind);
        self.mix.no_longer_waits(entry.class, entry.priority);
        self.mix.started(worker, entry.class, now.instant);
        let Lifecycle { attempt, failures, .. } = after;
        self.queues.meter.started(now.instant, waited);
        let Some(queue) = self.queues.get_mut(entry.queue) else {
            return Err(GroupError::Inconsistent(number));
        };
        queue.meter.started(now.instant, waited);
        let queue = Arc::clone(queue.name());
        let slot = SlotRow { worker, task: number, attempt, started };
        self.group.slots.insert(worker, Some(slot));
        self.running.insert(worker.0.into(), (number, attempt));
        self.group.started.insert(number);
        self.tell(number, told, &Particulars::default());

        let task = self.identity.task_id(number);
        let (body, retry) = match run {
            Ok(run) => run,
            Err(damage) => {
                tracing::error!(%task, %damage, "the record of a task is damaged");
                self.finish(damaged(task, attempt, &damage))?;
                return Ok(None);
            }
        };
        Ok(Some(Assignment { task, queue, kind, body, attempt, failures, started, retry, cancel }))
    }

    fn read_content(&mut self, number: u64) -> Result<StartContent, GroupError> {
        let found = alone(self.records.record(number))?
            .map(|found| found.map(|(bytes, labels)| (TaskRecord::from_bytes(&bytes), labels)));
        let (record, labels) = match found {
            Ok(Some(found)) => found,
            Ok(None) => return self.damaged_content(number, "it is not there".into()),
            Err(damage) => return self.damaged_content(number, damage.to_string()),
        };
        let run = match record {
            Ok(mut record) => Ok((record.take_body(), record.retry())),
            Err(damage) => Err(damage.to_string()),
        };
        Ok(StartContent { labels, run })
    }

    /// What is told of a task that cannot run has its labels, if these can be read.
    fn damaged_content(&mut self, number: u64, damage: String) -> Result<StartContent, GroupError> {
        let labels = match self.labels(number) {
            Err(JournalError::Damaged(_)) => None,
            labels => labels?,
        };
        Ok(StartContent { labels, run: Err(damage) })
    }

    pub(super) fn finish(&mut self, finished: Finished) -> Applied {
        let Finished { task, attempt, outcome, ran, output } = finished;
        let number = task.number();
        let output = output.map(|output| OutputRecord::to_bytes(&output));
        let output = output.as_deref();
        let told = Particulars { ran: Some(ran), output, ..Particulars::default() };
        match outcome {
            Outcome::Succeeded(result) => {
                let told = Particulars { result: Some(&result), ..told };
                self.transition(number, Command::Succeed { attempt }, &told)
            }
            Outcome::Failed { failure, permanent, retry_after } => {
                let retry_after = Some(retry_after);
                let told = Particulars { failure: Some(&failure), retry_after, ..told };
                self.transition(number, Command::Fail { attempt, permanent }, &told)
            }
            Outcome::Stopped => {
                let failure = Failure::new("CANCELLED", "cancelled while it ran");
                let told = Particulars { failure: Some(&failure), ..told };
                self.transition(number, Command::Stopped { attempt }, &told)
            }
            Outcome::Interrupted => {
                let failure = Failure::new("DRAINED", "the server was shut down");
                let told = Particulars { failure: Some(&failure), ..told };
                let by = Interruption::Drain;
                self.transition(number, Command::Interrupt { attempt, by }, &told)
            }
        }
    }

    /// Lets go of what a worker was given and does not have: its answer was lost on the
    /// way, or it began anew. The task is ready again, and its attempt number refuses
    /// what may still be reported of that execution.
    pub(super) fn give_up(&mut self, worker: WorkerId) -> Applied {
        let Some(&(number, attempt)) = self.running.get(&worker.0.into()) else { return Ok(()) };
        let task = self.identity.task_id(number);
        tracing::warn!(%worker, %task, attempt, "a worker does not have the task it was given");
        let failure = Failure::new("WORKER_LOST", "its worker does not have it");
        // It is nobody's fault, as when the server is shut down.
        let command = Command::Interrupt { attempt, by: Interruption::Drain };
        let told = Particulars { failure: Some(&failure), ..Particulars::default() };
        self.transition(number, command, &told)
    }

    /// Records that a crash ended the execution of a task.
    pub(in crate::store) fn crashed(&mut self, slot: SlotRow) -> Applied {
        let labels = match self.labels(slot.task) {
            // That is told when it is to run again.
            Err(JournalError::Damaged(_)) => None,
            labels => labels?,
        };
        let Some(entry) = self.index.get_mut(slot.task) else { return Ok(()) };
        // The slot knows of the start; the task's own row does not.
        entry.life = Lifecycle { state: State::Running, attempt: slot.attempt, ..entry.life };
        let waited = slot.started.since(entry.due);
        self.ready.resumed(entry.queue);
        let cancel = CancellationToken::new();
        let (worker, started) = (slot.worker, slot.started);
        entry.execution = Some(Box::new(Execution { worker, started, waited, labels, cancel }));
        let crashes = entry.life.crashes + 1;
        let failure = if crashes >= self.max_crashes {
            let message = format!("it was running at {crashes} crashes of the server in a row");
            Failure::new("CRASHED", message)
        } else {
            Failure::new("CRASHED", "the server stopped without a shutdown")
        };
        let command = Command::Interrupt { attempt: slot.attempt, by: Interruption::Crash };
        let told = Particulars { failure: Some(&failure), ..Particulars::default() };
        self.transition(slot.task, command, &told)
    }
}

/// The end of a task whose record cannot be read: alone, not with the store.
fn damaged(task: TaskId, attempt: u32, damage: &str) -> Finished {
    let failure = Failure::new("RECORD_DAMAGED", format!("its record cannot be read: {damage}"));
    let outcome = Outcome::Failed { failure, permanent: true, retry_after: Duration::ZERO };
    Finished { task, attempt, outcome, ran: Duration::ZERO, output: None }
}
