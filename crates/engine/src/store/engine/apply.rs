//! What each command does to the index, the rows and the events of a group.
//!
//! Whether it does anything is decided by [`task::decide`] alone.

use std::time::Duration;

use super::{
    Decided, Effect, Engine, Entry, GroupError, Message, Reply, alone, queues::EndedCount,
};
use crate::{
    event::{Event, EventType, Subject},
    store::{
        Dispatch, Error, Finished, clock,
        journal::{AttemptRow, FinishRow, JournalError, Labels, WrittenLive},
        ready::{DueTimer, QueueId},
    },
    task::{self, Command, Data, Failure, State, TaskId, Transition, WorkerId, invariants},
};

type Applied = Result<(), GroupError>;

/// Tasks that become due in a group.
pub(super) const STEP_DUE: usize = 4_096;

/// What an event says beyond its task, and what the end of a task records.
#[derive(Default)]
pub(super) struct Particulars<'a> {
    pub(super) ran: Option<Duration>,
    pub(super) failure: Option<&'a Failure>,
    pub(super) result: Option<&'a Data>,
    /// The labels of a task that does not run, as its events carry them; one that runs
    /// has them itself.
    pub(super) labels: Option<&'a [u8]>,
    /// How long to rest, if the attempt failed and another is left.
    pub(super) retry_after: Option<Duration>,
    /// What the execution wrote, encoded.
    pub(super) output: Option<&'a [u8]>,
    /// The row of the task before, where it is needed.
    pub(super) written: Option<&'a WrittenLive>,
}

impl Engine<'_> {
    /// Decides one command and writes what it changes.
    pub(super) fn apply(&mut self, message: Message) -> Applied {
        match message {
            Message::Submit(prepared, reply) => self.submit(*prepared, reply),
            Message::SubmitAll(all, reply) => self.submit_all(all, reply),
            Message::SubmitAtomic(all, reply) => self.submit_atomic(all, reply),
            Message::NextDispatch(worker, finished, reply) => {
                self.next_dispatch(worker, finished, reply)
            }
            Message::Overview(only, reply) => {
                self.group.overviews.push((only, reply));
                Ok(())
            }
            Message::Operation(operation) => operation.apply(self),
            Message::Close(_) => Ok(()),
        }
    }

    /// A worker joins the pool.
    pub fn join(&mut self, worker: WorkerId) -> Decided<()> {
        self.give_up(worker)?;
        self.tell_pool(EventType::WorkerStarted, Some(worker));
        Ok(Ok(()))
    }

    /// A worker has left the pool.
    pub fn leave(&mut self, worker: WorkerId) -> Decided<()> {
        self.give_up(worker)?;
        self.retiring.remove(&worker);
        self.tell_pool(EventType::WorkerStopped, Some(worker));
        Ok(Ok(()))
    }

    /// Ends tasks, of those in these states.
    pub fn cancel_all(
        &mut self,
        tasks: Vec<TaskId>,
        among: &[State],
    ) -> Decided<Vec<Result<(), Error>>> {
        let decided = tasks.into_iter().map(|task| self.cancel(task, among));
        decided.collect::<Result<_, _>>().map(Ok)
    }

    /// Puts a waiting task where it will be found when it may start.
    pub(in crate::store) fn await_turn(&mut self, number: u64, entry: &Entry) {
        if entry.life.state == State::Scheduled {
            self.ready.push_later(entry.timer, entry.priority, number);
            if let Some(queue) = self.queues.get_mut(entry.queue) {
                queue.scheduled += 1;
            }
        } else {
            self.ready.push(entry.queue, entry.ready_key(number));
            self.mix.waits(entry.class, entry.priority);
        }
    }

    /// A task of the queue became due.
    pub(super) fn arrived(&mut self, queue: QueueId) {
        let now = self.group.now.instant;
        self.queues.meter.arrived(now);
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.meter.arrived(now);
        }
    }

    fn cancel(&mut self, id: TaskId, among: &[State]) -> Decided<()> {
        if !self.identity.owns(id) {
            return Ok(Err(Error::NotFound(id)));
        }
        let Some(entry) = self.index.get(id.number()) else {
            return Ok(match alone(self.records.finished_state(id.number()))? {
                Err(damaged) => Err(damaged),
                Ok(None) => Err(Error::NotFound(id)),
                Ok(Some(State::Cancelled)) => Ok(()),
                Ok(Some(state)) => Err(Error::Ended { task: id, state }),
            });
        };
        let waiting = entry.life.state;
        if !among.is_empty() && !among.contains(&waiting) {
            return Ok(Err(Error::Moved { task: id, state: waiting }));
        }
        let (queue, timer, key) = (entry.queue, entry.timer, entry.ready_key(id.number()));
        let (class, priority) = (entry.class, entry.priority);
        let written = match alone(self.records.live(id.number()))? {
            Ok(written) => written,
            Err(damaged) => return Ok(Err(damaged)),
        };
        let failure = Failure::new("CANCELLED", "cancelled before it started");
        self.transition(
            id.number(),
            Command::Cancel,
            &Particulars {
                failure: (waiting != State::Running).then_some(&failure),
                labels: written.labels.as_deref(),
                written: Some(&written),
                ..Particulars::default()
            },
        )?;
        match waiting {
            State::Queued => {
                self.ready.remove(queue, key);
                self.mix.no_longer_waits(class, priority);
            }
            State::Scheduled => {
                self.ready.remove_later(timer, priority, id.number());
                self.no_longer_scheduled(queue);
            }
            _ => {}
        }
        Ok(Ok(()))
    }

    /// The labels of a task that has not ended, as its events carry them.
    pub(super) fn labels(&mut self, number: u64) -> Result<Labels, JournalError> {
        match self.index.get(number) {
            Some(entry) if entry.has_labels => Ok(self.records.live(number)?.labels),
            _ => Ok(None),
        }
    }

    fn no_longer_scheduled(&mut self, queue: QueueId) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.scheduled = queue.scheduled.saturating_sub(1);
        }
    }

    fn next_dispatch(
        &mut self,
        worker: WorkerId,
        finished: Option<Box<Finished>>,
        reply: Reply<Dispatch>,
    ) -> Applied {
        let recorded = match finished {
            // A report that was refused says nothing of what the worker had.
            Some(finished) => self.finish(*finished).and_then(|()| self.give_up(worker)),
            // Whoever asks for work has none.
            None => self.give_up(worker),
        };
        if self.draining || self.retiring.contains(&worker) {
            self.group.effects.push(Effect::Stop(reply));
        } else {
            self.idle.push_back((worker, reply));
        }
        recorded
    }

    /// Lets a worker go: now if it waits for a task, else at its next dispatch.
    pub fn retire(&mut self, worker: WorkerId) {
        self.retiring.insert(worker);
        if let Some(at) = self.idle.iter().position(|(idle, _)| *idle == worker)
            && let Some((_, reply)) = self.idle.remove(at)
        {
            self.group.effects.push(Effect::Stop(reply));
        }
    }

    /// Makes one transition of a task that has not ended: in the index, in the
    /// rows and in the events.
    pub(super) fn transition(
        &mut self,
        number: u64,
        command: Command,
        told: &Particulars<'_>,
    ) -> Applied {
        let Some(entry) = self.index.get_mut(number) else {
            tracing::error!(number, ?command, "a command for a task that has ended");
            return Ok(());
        };
        let before = entry.life;
        let (after, what) = match task::decide(before, entry.budget(self.max_crashes), command) {
            Ok(decided) => decided,
            Err(refusal) => {
                tracing::error!(number, ?command, ?refusal, "a command that does not apply");
                return Ok(());
            }
        };
        debug_assert_eq!(invariants::check(before, command, after), Ok(()));
        entry.life = after;
        if let (Transition::RetryScheduled, Some(rest)) = (what, told.retry_after) {
            entry.due = self.group.now.wall.after(rest);
            entry.timer = DueTimer::Steady(self.group.now.steady.after(rest));
        }
        let queue = entry.queue;
        let worker = entry.execution.as_ref().map(|execution| execution.worker);
        let stopped = before.state == State::Running && after.state != State::Running;
        self.tell(number, what, told);
        if stopped {
            self.ready.ended(queue);
            self.measure_end(queue, told.ran);
            if let Some(worker) = worker {
                self.running.remove(&worker.0.into());
                self.group.slots.insert(worker, None);
                let whole = told.ran.is_some()
                    && !matches!(command, Command::Stopped { .. } | Command::Interrupt { .. });
                self.mix.ended(worker, whole, self.group.now.instant);
            }
        }
        if after.state.is_terminal() {
            return self.end(number, told);
        }
        if stopped {
            self.wait_again(number, told);
        } else {
            self.mark_cancelled(number, told.written);
        }
        Ok(())
    }

    fn measure_end(&mut self, queue: QueueId, ran: Option<Duration>) {
        let now = self.group.now.instant;
        self.queues.meter.ended(now, ran);
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.meter.ended(now, ran);
        }
    }

    /// A cancellation of a running task was accepted.
    fn mark_cancelled(&mut self, number: u64, written: Option<&WrittenLive>) {
        let Some(entry) = self.index.get(number) else { return };
        if let Some(execution) = &entry.execution {
            self.group.effects.push(Effect::Signal(execution.cancel.clone()));
        }
        let (Some(written), Some(queue)) = (written, self.queues.get(entry.queue)) else { return };
        // What is known of earlier attempts stays.
        self.records.put_live(entry.row(number, queue.name(), written.clone()));
    }

    /// The task has ended: it leaves the index.
    fn end(&mut self, number: u64, told: &Particulars<'_>) -> Applied {
        let Some(entry) = self.index.remove(number) else { return Ok(()) };
        let result = told.result.filter(|_| entry.life.state == State::Succeeded);
        let failure = told.failure;
        let execution = match entry.execution_columns() {
            // It waits now, and ran before.
            None => told.written.and_then(|written| written.execution),
            execution => execution,
        };
        let state = entry.life.state;
        if let Some(output) = told.output {
            self.records.insert_output(number, entry.life.attempt, output.to_vec());
        }
        let outputs = self.records.bytes_of_outputs(number)?;
        let bytes = entry.bytes + outputs + result.map_or(0, |result| result.len() as u64);
        self.records.finish(FinishRow {
            number,
            life: entry.life,
            finished: self.group.now.wall,
            due: entry.due,
            bytes,
            ended: self.ended_row(state == State::Failed),
            execution,
            result: result.cloned(),
            failure: failure.cloned(),
        });
        self.queues.count(entry.queue, state, EndedCount { tasks: 1, bytes });
        self.group.tallied.insert(entry.queue);
        self.group.ended[usize::from(state == State::Failed)].push(number);
        self.group.effects.extend(entry.permit.map(Effect::ReleasePermit));
        Ok(())
    }

    /// An execution has ended and the task has not: it waits again, whatever
    /// the limits of its queue say.
    fn wait_again(&mut self, number: u64, told: &Particulars<'_>) {
        let Some(mut entry) = self.index.remove(number) else { return };
        let columns = entry.execution_columns();
        let execution = entry.execution.take();
        if let Some(queue) = self.queues.get(entry.queue) {
            entry.permit = Some(self.admission.readmit(queue.name(), entry.bytes));
            let rests = entry.life.state == State::Scheduled;
            let written = WrittenLive {
                interval: Some(told.retry_after.filter(|_| rests).unwrap_or_default()),
                execution: columns,
                failure: told.failure.cloned(),
                labels: execution.and_then(|execution| execution.labels),
            };
            self.records.put_live(entry.row(number, queue.name(), written));
        }
        if let Some(output) = told.output {
            self.records.insert_output(number, entry.life.attempt, output.to_vec());
        }
        if let Some((worker, started)) = columns {
            let attempt = AttemptRow {
                task: number,
                attempt: entry.life.attempt,
                worker,
                started,
                ended: self.group.now.wall,
                failure: told.failure.cloned(),
            };
            self.records.insert_attempt(attempt);
        }
        self.await_turn(number, &entry);
        self.index.insert(number, entry);
    }

    /// Adds the event of a transition that was just made.
    pub(super) fn tell(&mut self, number: u64, what: Transition, told: &Particulars<'_>) {
        let event_type = match what {
            Transition::Silent => return,
            Transition::Started => EventType::Started,
            Transition::Succeeded => EventType::Succeeded,
            Transition::RetryScheduled => EventType::RetryScheduled,
            Transition::Failed => EventType::Failed,
            Transition::Interrupted => EventType::Interrupted,
            Transition::Cancelled => EventType::Cancelled,
            Transition::Redriven => EventType::Redriven,
        };
        let Some(entry) = self.index.get(number) else { return };
        let Some(queue) = self.queues.get(entry.queue) else { return };
        let now = self.group.now.wall;
        let execution = entry.execution.as_deref();
        let labels = execution.and_then(|execution| execution.labels.as_deref());
        let subject = Subject {
            id: self.identity.task_id(number),
            queue: queue.name(),
            kind: &entry.kind,
            attempt: entry.life.attempt,
            labels: labels.or(told.labels).unwrap_or_default(),
        };
        self.encoder.push(&Event {
            worker: execution.map(|execution| execution.worker),
            waited: execution.map(|execution| execution.waited),
            // From its start to now, as the task tells them.
            ran: told
                .ran
                .zip(execution)
                .map(|(measured, execution)| clock::span(now.since(execution.started), measured)),
            error: told.failure,
            next_due: (what == Transition::RetryScheduled).then_some(entry.due),
            ..Event::new(event_type, now, Some(subject))
        });
    }

    pub(in crate::store) fn tell_pool(&mut self, event_type: EventType, worker: Option<WorkerId>) {
        let event = Event::new(event_type, self.group.now.wall, None);
        self.encoder.push(&Event { worker, ..event });
    }

    pub fn drain(&mut self) {
        if !self.draining {
            self.draining = true;
            self.tell_pool(EventType::Draining, None);
            let idle = self.idle.drain(..).map(|(_, reply)| Effect::Stop(reply));
            self.group.effects.extend(idle);
        }
    }

    /// Moves what has become due among what may start: as much as holds no group up.
    /// The earliest first, and of those with one due time the one that is to start
    /// first; so what is moved starts before what is not yet.
    pub(super) fn make_due(&mut self) {
        let now = self.group.now;
        for _ in 0..STEP_DUE {
            let Some(number) = self.ready.pop_due(&now) else { break };
            let Some(entry) = self.index.get_mut(number) else { continue };
            let budget = entry.budget(self.max_crashes);
            if let Ok((life, _)) = task::decide(entry.life, budget, Command::BecomeDue) {
                entry.life = life;
                if let DueTimer::Wall(due) = entry.timer {
                    entry.timer = DueTimer::elapsed(due, &now);
                }
                let (queue, key) = (entry.queue, entry.ready_key(number));
                self.ready.push(queue, key);
                self.mix.waits(entry.class, entry.priority);
                self.no_longer_scheduled(queue);
                self.arrived(queue);
            }
        }
    }
}
