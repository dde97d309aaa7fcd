//! What each command does to the index, the rows and the events of a group.
//!
//! Whether it does anything is decided by [`task::decide`] alone.

use std::{sync::Arc, time::Duration};

use super::{Effect, Engine, Entry, GroupError, Message, Reply};
use crate::{
    event::{Event, EventType, Seq, Subject},
    store::{Error, Finished, Submitted, Turn, prepared::Prepared, record, sqlite::FinishRow},
    task::{
        self, Command, Data, Failure, Lifecycle, State, TaskId, Timestamp, Told, WorkerId,
        invariants,
    },
};

type Applied = Result<(), GroupError>;

/// What an event says beyond its task, and what the end of a task records.
#[derive(Default)]
pub(super) struct Particulars<'a> {
    pub(super) ran: Option<Duration>,
    pub(super) failure: Option<&'a Failure>,
    pub(super) result: Option<&'a Data>,
    /// When to try again, if the attempt failed and another is left.
    pub(super) retry_at: Option<Timestamp>,
}

impl Engine<'_> {
    /// Decides one command and writes what it changes.
    pub(super) fn apply(&mut self, message: Message) -> Applied {
        match message {
            Message::Submit(prepared, reply) => self.submit(*prepared, reply),
            Message::Cancel(id, reply) => {
                let decided = self.cancel(id);
                let outcome = decided.as_ref().ok().cloned().unwrap_or(Err(Error::Draining));
                self.group.effects.push(Effect::Done(reply, outcome));
                decided.map(drop)
            }
            Message::Turn(worker, finished, reply) => self.turn(worker, finished, reply),
            Message::Join(worker, reply) => {
                self.tell_crew(EventType::WorkerStarted, Some(worker));
                self.done(reply);
                Ok(())
            }
            Message::Leave(worker, reply) => {
                self.tell_crew(EventType::WorkerStopped, Some(worker));
                self.done(reply);
                Ok(())
            }
            Message::Drain(reply) => {
                self.drain();
                self.done(reply);
                Ok(())
            }
            Message::Close(_) => Ok(()),
        }
    }

    fn done(&mut self, reply: Reply<()>) {
        self.group.effects.push(Effect::Done(reply, Ok(())));
    }

    fn submit(&mut self, prepared: Prepared, reply: Reply<Submitted>) -> Applied {
        let decided = self.decide_submission(prepared);
        // Also when the disk refused: whoever waits is then told with the rest
        // of the group.
        let outcome = decided.as_ref().ok().cloned().unwrap_or(Err(Error::Draining));
        self.group.effects.push(Effect::Submitted(reply, outcome));
        decided.map(drop)
    }

    fn decide_submission(
        &mut self,
        prepared: Prepared,
    ) -> Result<Result<Submitted, Error>, GroupError> {
        if self.draining {
            return Ok(Err(Error::Draining));
        }
        match self.repeated(&prepared)? {
            Some(outcome) => Ok(outcome),
            None => Ok(Ok(self.accept(prepared)?)),
        }
    }

    /// The outcome of a submission whose `request_id` is known.
    fn repeated(
        &mut self,
        prepared: &Prepared,
    ) -> Result<Option<Result<Submitted, Error>>, GroupError> {
        let Some(request_id) = &prepared.task.request_id else { return Ok(None) };
        let Some((number, fingerprint)) = self.writer.request(request_id)? else {
            return Ok(None);
        };
        let task = self.identity.task_id(number);
        if fingerprint != prepared.fingerprint {
            return Ok(Some(Err(Error::RequestIdReused(task))));
        }
        let state = match self.index.get(number) {
            Some(entry) => entry.life.state,
            None => match self.writer.finished_state(number)? {
                Some(state) => state,
                None => return Ok(Some(Err(Error::NotFound(task)))),
            },
        };
        let seq = self.writer.submitted_seq(number)?;
        Ok(Some(Ok(Submitted { task, seq, state, existing: true })))
    }

    fn accept(&mut self, prepared: Prepared) -> Result<Submitted, GroupError> {
        let Prepared { task, fingerprint, place, record } = prepared;
        let now = self.group.now;
        let due = record::due_time(task.due, now);
        self.newest_task += 1;
        let number = self.newest_task;
        let id = self.identity.task_id(number);
        let life = Lifecycle::submitted(due > now);

        let names = (&*task.queue, &*task.kind);
        let subject = Subject { id, queue: names.0, kind: names.1, attempt: 0 };
        let mut event = Event::new(EventType::Submitted, now, Some(subject));
        event.next_due = (due > now).then_some(due);
        let seq = self.encoder.push(&event);

        self.writer.insert_task(number, seq, now, names, &record)?;
        let max_attempts = task.retry.max_attempts;
        let bytes = place.bytes();
        self.writer.insert_live(number, names, task.priority, due, bytes, max_attempts)?;
        if let Some(request_id) = &task.request_id {
            self.writer.insert_request(request_id, number, fingerprint)?;
        }
        let entry = Entry {
            life,
            queue: Arc::clone(place.queue()),
            kind: self.index.share(&task.kind),
            priority: task.priority,
            max_attempts,
            due,
            bytes,
            place: Some(place),
            execution: None,
        };
        if life.state == State::Queued && self.group.fresh.len() < self.idle.len() {
            self.group.fresh.insert(number, task);
        }
        self.await_turn(number, &entry);
        self.index.insert(number, entry);
        Ok(Submitted { task: id, seq, state: life.state, existing: false })
    }

    /// Puts a waiting task where it will be found when it may start.
    pub(in crate::store) fn await_turn(&mut self, number: u64, entry: &Entry) {
        if entry.life.state == State::Scheduled {
            self.ready.push_later(entry.due, number);
        } else {
            self.ready.push(&entry.queue, entry.rank(number));
        }
    }

    fn cancel(&mut self, id: TaskId) -> Result<Result<(), Error>, GroupError> {
        if !self.identity.owns(id) {
            return Ok(Err(Error::NotFound(id)));
        }
        let Some(entry) = self.index.get(id.number()) else {
            return Ok(match self.writer.finished_state(id.number())? {
                None => Err(Error::NotFound(id)),
                Some(State::Cancelled) => Ok(()),
                Some(state) => Err(Error::Ended { task: id, state }),
            });
        };
        let waiting = entry.life.state;
        let (queue, due, rank) = (Arc::clone(&entry.queue), entry.due, entry.rank(id.number()));
        let failure = Failure::new("CANCELLED", "cancelled before it started");
        self.transition(
            id.number(),
            Command::Cancel,
            &Particulars {
                failure: (waiting != State::Running).then_some(&failure),
                ..Particulars::default()
            },
        )?;
        match waiting {
            State::Queued => self.ready.remove(&queue, rank),
            State::Scheduled => self.ready.remove_later(due, id.number()),
            _ => {}
        }
        Ok(Ok(()))
    }

    fn turn(
        &mut self,
        worker: WorkerId,
        finished: Option<Box<Finished>>,
        reply: Reply<Turn>,
    ) -> Applied {
        let recorded = match finished {
            Some(finished) => self.finish(worker, *finished),
            None => Ok(()),
        };
        if self.draining {
            self.group.effects.push(Effect::Stop(reply));
        } else {
            self.idle.push_back((worker, reply));
        }
        recorded
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
        if let (Told::RetryScheduled, Some(retry_at)) = (what, told.retry_at) {
            entry.due = retry_at;
        }
        self.tell(number, what, told);
        if after.state.is_terminal() {
            self.end(number, told)
        } else if before.state == State::Running && after.state != State::Running {
            self.wait_again(number, told)
        } else {
            self.mark_cancelled(number)
        }
    }

    /// A cancellation of a running task was accepted.
    fn mark_cancelled(&mut self, number: u64) -> Applied {
        let Some(entry) = self.index.get(number) else { return Ok(()) };
        if let Some(execution) = &entry.execution {
            self.group.effects.push(Effect::Signal(execution.cancel.clone()));
        }
        Ok(self.writer.request_cancel(number)?)
    }

    /// The task has ended: it leaves the index.
    fn end(&mut self, number: u64, told: &Particulars<'_>) -> Applied {
        let Some(entry) = self.index.remove(number) else { return Ok(()) };
        let result = told.result.filter(|_| entry.life.state == State::Succeeded);
        let failure = told.failure;
        let execution = match entry.execution_columns() {
            // It waits now, and ran before.
            None if entry.life.attempt > 0 => self.writer.last_execution(number)?,
            execution => execution,
        };
        self.writer.finish(&FinishRow {
            number,
            life: entry.life,
            finished: self.group.now,
            due: entry.due,
            execution,
            result,
            failure,
        })?;
        self.group.effects.extend(entry.place.map(Effect::Vacate));
        Ok(())
    }

    /// An execution has ended and the task has not: it waits again, whatever
    /// the limits of its queue say.
    fn wait_again(&mut self, number: u64, told: &Particulars<'_>) -> Applied {
        let Some(mut entry) = self.index.remove(number) else { return Ok(()) };
        let columns = entry.execution_columns();
        entry.execution = None;
        entry.place = Some(self.admission.readmit(&entry.queue, entry.bytes));
        self.writer.update_live(number, entry.life, entry.due, columns, told.failure)?;
        self.await_turn(number, &entry);
        self.index.insert(number, entry);
        Ok(())
    }

    /// Adds the event of a transition that was just made.
    pub(super) fn tell(&mut self, number: u64, what: Told, told: &Particulars<'_>) {
        let event_type = match what {
            Told::Nothing => return,
            Told::Started => EventType::Started,
            Told::Succeeded => EventType::Succeeded,
            Told::RetryScheduled => EventType::RetryScheduled,
            Told::Failed => EventType::Failed,
            Told::Interrupted => EventType::Interrupted,
            Told::Cancelled => EventType::Cancelled,
            Told::Redriven => EventType::Redriven,
        };
        let Some(entry) = self.index.get(number) else { return };
        let subject = Subject {
            id: self.identity.task_id(number),
            queue: &entry.queue,
            kind: &entry.kind,
            attempt: entry.life.attempt,
        };
        let execution = entry.execution.as_deref();
        self.encoder.push(&Event {
            worker: execution.map(|execution| execution.worker),
            waited: execution.map(|execution| execution.waited),
            ran: told.ran,
            error: told.failure,
            next_due: (what == Told::RetryScheduled).then_some(entry.due),
            ..Event::new(event_type, self.group.now, Some(subject))
        });
    }

    pub(in crate::store) fn tell_crew(
        &mut self,
        event_type: EventType,
        worker: Option<WorkerId>,
    ) -> Seq {
        self.encoder.push(&Event { worker, ..Event::new(event_type, self.group.now, None) })
    }

    fn drain(&mut self) {
        if !self.draining {
            self.draining = true;
            self.tell_crew(EventType::Draining, None);
            let idle = self.idle.drain(..).map(|(_, reply)| Effect::Stop(reply));
            self.group.effects.extend(idle);
        }
    }

    /// Moves what has become due among what may start.
    pub(super) fn make_due(&mut self) {
        while let Some(number) = self.ready.pop_due(self.group.now) {
            let Some(entry) = self.index.get_mut(number) else { continue };
            let budget = entry.budget(self.max_crashes);
            if let Ok((life, _)) = task::decide(entry.life, budget, Command::BecomeDue) {
                entry.life = life;
                let (queue, rank) = (Arc::clone(&entry.queue), entry.rank(number));
                self.ready.push(&queue, rank);
            }
        }
    }
}
