//! Submissions: whether they are new, and what they make.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Effect, Engine, Entry, GroupError, Reply, alone};
use crate::{
    event::{Event, EventType, Seq, Subject},
    store::{
        Error, Submitted,
        journal::{NewTaskRow, RequestRow, TaskRow},
        prepared::Prepared,
        ready::{DueTimer, EngineTime},
    },
    task::{Due, Lifecycle, State, TaskId, Timestamp},
};

type Applied = Result<(), GroupError>;
type Outcome = Result<Submitted, Error>;

impl Engine<'_> {
    pub(super) fn submit(&mut self, prepared: Prepared, reply: Reply<Submitted>) -> Applied {
        let decided = self.decide_submission(prepared);
        // Also when the disk refused: whoever waits is then told with the rest
        // of the group.
        let outcome = decided.as_ref().ok().cloned().unwrap_or(Err(Error::Draining));
        self.group.effects.push(Effect::Submitted(reply, outcome));
        decided.map(drop)
    }

    pub(super) fn submit_all(&mut self, all: Vec<Prepared>, reply: Reply<Vec<Outcome>>) -> Applied {
        let decided = self.decide_all(all);
        let outcome = decided.as_ref().ok().cloned().unwrap_or(Err(Error::Draining));
        self.group.effects.push(Effect::SubmittedAll(reply, outcome));
        decided.map(drop)
    }

    fn decide_all(
        &mut self,
        all: Vec<Prepared>,
    ) -> Result<Result<Vec<Outcome>, Error>, GroupError> {
        if self.draining {
            return Ok(Err(Error::Draining));
        }
        let decided = all.into_iter().map(|prepared| self.decide_submission(prepared));
        decided.collect::<Result<_, _>>().map(Ok)
    }

    pub(super) fn submit_atomic(
        &mut self,
        all: Vec<Prepared>,
        reply: Reply<Vec<Submitted>>,
    ) -> Applied {
        let decided = self.decide_atomic(all);
        let outcome = decided.as_ref().ok().cloned().unwrap_or(Err(Error::Draining));
        self.group.effects.push(Effect::SubmittedAtomic(reply, outcome));
        decided.map(drop)
    }

    /// Looks at all of them first, so that there is nothing to take back.
    fn decide_atomic(
        &mut self,
        all: Vec<Prepared>,
    ) -> Result<Result<Vec<Submitted>, Error>, GroupError> {
        if self.draining {
            return Ok(Err(Error::Draining));
        }
        let mut wrong = Vec::new();
        let mut asked: HashMap<&str, (usize, [u8; 16])> = HashMap::new();
        for (at, prepared) in all.iter().enumerate() {
            let Some(request_id) = &prepared.request_id else { continue };
            let own = (at, prepared.fingerprint);
            let (first, fingerprint) = *asked.entry(request_id).or_insert(own);
            match self.repeated(prepared)? {
                Some(Err(error)) => wrong.push((at, error)),
                Some(Ok(_)) => {}
                None if fingerprint == prepared.fingerprint => {}
                None => wrong.push((at, Error::RequestIdRepeated { first })),
            }
        }
        if !wrong.is_empty() {
            return Ok(Err(Error::NotAll(wrong)));
        }
        let decided = all.into_iter().map(|prepared| self.decide_submission(prepared));
        decided.collect()
    }

    fn decide_submission(&mut self, prepared: Prepared) -> Result<Outcome, GroupError> {
        if self.draining {
            return Ok(Err(Error::Draining));
        }
        match self.repeated(&prepared)? {
            Some(outcome) => Ok(outcome),
            None => Ok(Ok(self.accept(prepared))),
        }
    }

    /// The outcome of a submission whose `request_id` is known.
    fn repeated(&mut self, prepared: &Prepared) -> Result<Option<Outcome>, GroupError> {
        let Some(request_id) = &prepared.request_id else { return Ok(None) };
        let RequestRow { task: number, fingerprint } =
            match alone(self.records.request(request_id))? {
                Ok(Some(known)) => known,
                Ok(None) => return Ok(None),
                Err(damaged) => return Ok(Some(Err(damaged))),
            };
        let task = self.identity.task_id(number);
        if fingerprint != prepared.fingerprint {
            return Ok(Some(Err(Error::RequestIdReused(task))));
        }
        let state = match self.index.get(number) {
            Some(entry) => entry.life.state,
            None => match alone(self.records.finished_state(number))? {
                Ok(Some(state)) => state,
                Ok(None) => return Ok(Some(Err(Error::NotFound(task)))),
                Err(damaged) => return Ok(Some(Err(damaged))),
            },
        };
        let seq = alone(self.records.submitted_seq(number))?;
        Ok(Some(seq.map(|seq| Submitted { task, seq, state, existing: true })))
    }

    fn accept(&mut self, prepared: Prepared) -> Submitted {
        let now = self.group.now;
        let (due, interval, timer) = due(prepared.due, &now);
        self.newest_task += 1;
        let number = self.newest_task;
        let id = self.identity.task_id(number);
        let life = Lifecycle::submitted(timer.is_some());
        let seq = self.tell_submitted(id, &prepared, timer.map(|_| due));

        let Prepared { queue, kind, priority, max_attempts, permit, labels, .. } = prepared;
        let (request_id, fingerprint) = (prepared.request_id, prepared.fingerprint);
        let (bytes, has_labels) = (permit.bytes(), labels.is_some());
        let task = TaskRow {
            number,
            seq,
            created: now.wall,
            queue,
            kind: Arc::clone(&kind),
            request_id: request_id.clone(),
            labels,
            record: prepared.record,
        };
        let row = NewTaskRow { task, priority, due, interval, bytes, max_attempts };
        self.records.insert_task(row);
        if let Some(request_id) = request_id {
            self.records.insert_request(request_id, RequestRow { task: number, fingerprint });
        }
        let queue = self.queues.ensure(permit.queue(), &mut self.ready, &now);
        let kind = self.index.share(&kind);
        let entry = Entry {
            life,
            queue,
            class: self.mix.class(queue, &kind),
            kind,
            priority,
            max_attempts,
            due,
            timer: timer.unwrap_or(DueTimer::Steady(now.steady)),
            bytes,
            has_labels,
            permit: Some(permit),
            execution: None,
        };
        self.await_turn(number, &entry);
        if life.state == State::Queued {
            self.arrived(entry.queue);
        }
        self.index.insert(number, entry);
        Submitted { task: id, seq, state: life.state, existing: false }
    }

    /// The event of a submission; its number.
    fn tell_submitted(
        &mut self,
        id: TaskId,
        prepared: &Prepared,
        next_due: Option<Timestamp>,
    ) -> Seq {
        let Prepared { queue, kind, labels, .. } = prepared;
        let labels = labels.as_deref().unwrap_or_default();
        let subject = Subject { id, queue, kind, attempt: 0, labels };
        let mut event = Event::new(EventType::Submitted, self.group.now.wall, Some(subject));
        event.next_due = next_due;
        self.encoder.push(&event)
    }

    /// Lets the answers to submissions tell of starts in the same group.
    pub(super) fn refresh_answers(&mut self) {
        let index = &self.index;
        let started = &self.group.started;
        let refresh = |submitted: &mut Submitted| {
            let number = submitted.task.number();
            if started.contains(&number)
                && let Some(entry) = index.get(number)
            {
                submitted.state = entry.life.state;
            }
        };
        for effect in &mut self.group.effects {
            match effect {
                Effect::Submitted(_, Ok(submitted)) => refresh(submitted),
                Effect::SubmittedAll(_, Ok(outcomes)) => {
                    outcomes.iter_mut().flatten().for_each(refresh);
                }
                Effect::SubmittedAtomic(_, Ok(all)) => all.iter_mut().for_each(refresh),
                _ => {}
            }
        }
    }
}

/// When a task may start, how long it waits for that, if it is not a time that it
/// waits for, and what makes it due if that is later.
fn due(due: Due, now: &EngineTime) -> (Timestamp, Option<Duration>, Option<DueTimer>) {
    match due {
        Due::After(span) if !span.is_zero() => {
            (now.wall.after(span), Some(span), Some(DueTimer::Steady(now.steady.after(span))))
        }
        Due::At(time) if time > now.wall => (time, None, Some(DueTimer::Wall(time))),
        Due::Now | Due::After(_) | Due::At(_) => (now.wall, Some(Duration::ZERO), None),
    }
}
