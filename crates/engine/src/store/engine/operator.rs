//! What operators do: redrive tasks, change queues, ask how they stand.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Decided, Effect, Engine, Entry, alone, apply::Particulars};
use crate::{
    admission::Refused,
    event::{Event, EventType},
    store::{
        Error, Overview, QueueChange,
        journal::{AttemptRow, Damage, FinishedTask, LiveRow, QueueRow},
        ready::{DueTimer, QueueId},
        record::{QueueRecord, TaskRecord},
    },
    task::{self, Budget, Command, Refusal, State, TaskId, invariants},
};

impl Engine<'_> {
    /// Lets tasks live again, of those in these states.
    pub fn redrive_all(
        &mut self,
        tasks: Vec<TaskId>,
        among: &[State],
    ) -> Decided<Vec<Result<(), Error>>> {
        if self.draining {
            return Ok(Err(Error::Draining));
        }
        // No task overtakes one of its queue that found no room.
        let mut full = HashMap::new();
        let decided = tasks.into_iter().map(|task| self.redrive(task, among, &mut full));
        decided.collect::<Result<_, _>>().map(Ok)
    }

    /// Lets a task live again that has failed or was cancelled.
    fn redrive(
        &mut self,
        id: TaskId,
        among: &[State],
        full: &mut HashMap<String, Refused>,
    ) -> Decided<()> {
        let number = id.number();
        if !self.identity.owns(id) {
            return Ok(Err(Error::NotFound(id)));
        }
        if let Some(entry) = self.index.get(number) {
            return Ok(Err(Error::NotEnded { task: id, state: entry.life.state }));
        }
        let ended = match alone(self.records.finished_task(number))? {
            Ok(Some(ended)) => ended,
            Ok(None) => return Ok(Err(Error::NotFound(id))),
            Err(damaged) => return Ok(Err(damaged)),
        };
        let state = ended.life.state;
        if !among.is_empty() && !among.contains(&state) {
            return Ok(Err(Error::Moved { task: id, state }));
        }
        // What counts of the budget begins anew, so the old one does not matter.
        let budget = Budget { max_attempts: 1, max_crashes: self.max_crashes };
        let (life, told) = match task::decide(ended.life, budget, Command::Redrive) {
            Ok(decided) => decided,
            Err(Refusal::Ended(state)) => return Ok(Err(Error::Ended { task: id, state })),
            Err(_) => return Ok(Err(Error::NotFound(id))),
        };
        debug_assert_eq!(invariants::check(ended.life, Command::Redrive, life), Ok(()));
        let record = match alone(self.records.record(number))? {
            Ok(record) => record.map(|(record, _)| record).unwrap_or_default(),
            Err(damaged) => return Ok(Err(damaged)),
        };
        let record = match TaskRecord::from_bytes(&record) {
            Ok(record) => record,
            Err(wrong) => {
                let damage = Damage::of_record(number, wrong.to_string());
                return Ok(Err(Error::Damaged(damage)));
            }
        };
        // A permit is for what waits, not for what came of it.
        let outputs = self.records.bytes_of_outputs(number)?;
        let bytes = ended.bytes.saturating_sub(outputs);
        if let Some(cause) = full.get(&ended.queue) {
            return Ok(Err(no_room(&ended.queue, *cause)));
        }
        let permit = match self.admission.try_admit(&ended.queue, bytes) {
            Ok(permit) => permit,
            Err(cause) => {
                if matches!(
                    cause,
                    Refused::Full { .. } | Refused::TooManyQueues(_) | Refused::Held { .. }
                ) {
                    full.insert(ended.queue.clone(), cause);
                }
                return Ok(Err(no_room(&ended.queue, cause)));
            }
        };
        let now = self.group.now;
        let (priority, max_attempts) = (record.priority, record.max_attempts);
        let kind = self.index.share(&ended.kind);
        let queue = self.queues.ensure(&ended.queue, &mut self.ready, &now);
        self.remember_last_attempt(number, &ended);
        self.records.unfinish(number);
        self.records.put_live(LiveRow {
            number,
            queue: Arc::from(&*ended.queue),
            kind: Arc::clone(&kind),
            priority,
            due: now.wall,
            interval: Some(Duration::ZERO),
            bytes,
            max_attempts,
            life,
            execution: ended.execution,
            failure: ended.failure.clone(),
            labels: ended.labels.clone(),
        });
        self.queues.uncount(queue, ended.life.state, ended.bytes);
        self.group.tallied.insert(queue);
        let entry = Entry {
            life,
            queue,
            class: self.mix.class(queue, &kind),
            kind,
            priority,
            max_attempts,
            due: now.wall,
            timer: DueTimer::Steady(now.steady),
            bytes,
            has_labels: ended.labels.is_some(),
            permit: Some(permit),
            execution: None,
        };
        self.await_turn(number, &entry);
        self.arrived(entry.queue);
        self.index.insert(number, entry);
        let labels = ended.labels.as_deref();
        self.tell(number, told, &Particulars { labels, ..Particulars::default() });
        Ok(Ok(()))
    }

    /// What the row of its end told of its latest execution.
    fn remember_last_attempt(&mut self, number: u64, ended: &FinishedTask) {
        let Some((worker, started)) = ended.execution else { return };
        let attempt = AttemptRow {
            task: number,
            attempt: ended.life.attempt,
            worker,
            started,
            ended: ended.finished,
            failure: ended.failure.clone(),
        };
        self.records.insert_attempt(attempt);
    }

    /// Changes a queue.
    ///
    /// # Errors
    /// [`Error::NoRoom`], [`Error::WrongBackoffs`].
    pub fn change_queue(&mut self, name: &str, change: QueueChange) -> Result<(), Error> {
        let now = self.group.now;
        let id = match self.queues.find(name) {
            Some(id) => id,
            None => match self.admission.try_handle(name) {
                Ok(handle) => self.queues.add(handle, &mut self.ready, &now),
                Err(cause) => return Err(no_room(name, cause)),
            },
        };
        match change {
            QueueChange::Pause => self.pause(id, true),
            QueueChange::Resume => self.pause(id, false),
            QueueChange::Settings(fields, values) => {
                let Some(queue) = self.queues.get(id) else { return Ok(()) };
                let (handle, before) = (queue.handle.clone(), queue.overrides);
                let configured = self.admission.queue_config().settings(name);
                let overrides = match before.changed(&fields, &values, configured) {
                    Ok(overrides) => overrides,
                    Err(wrong) => {
                        self.forget_unused(id);
                        return Err(Error::WrongBackoffs(wrong));
                    }
                };
                let settings = self.queues.set_overrides(id, overrides, &mut self.ready);
                let configure = settings.map(|settings| Effect::Configure(handle, settings));
                self.group.effects.extend(configure);
            }
        }
        self.write_queue(id);
        Ok(())
    }

    fn pause(&mut self, id: QueueId, paused: bool) {
        let Some(queue) = self.queues.get(id) else { return };
        if queue.paused == paused {
            return;
        }
        let name = Arc::clone(queue.name());
        self.queues.set_paused(id, paused, &mut self.ready);
        let what = if paused { EventType::QueuePaused } else { EventType::QueueResumed };
        let event = Event::new(what, self.group.now.wall, None);
        self.encoder.push(&Event { queue: Some(&name), ..event });
    }

    fn write_queue(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(id) else { return };
        if !queue.paused && queue.overrides.is_empty() {
            self.records.put_queue(queue.name(), None);
        } else {
            let (name, overrides) = (queue.name(), QueueRecord::to_bytes(&queue.overrides));
            let row = QueueRow { name: name.as_ref().into(), paused: queue.paused, overrides };
            self.records.put_queue(name, Some(row));
        }
        self.forget_unused(id);
    }

    /// Lets go of a queue of which nothing is left.
    pub(super) fn forget_unused(&mut self, id: QueueId) {
        if let Some(name) = self.queues.forget_unused(id, &mut self.ready) {
            self.mix.forget(id);
            self.records.delete_tallies(&name);
            self.group.tallied.remove(&id);
        }
    }

    /// Answers whoever asked how the queues stand, with what the committed group made
    /// of them.
    pub(super) fn answer_overviews(&mut self) {
        // Of all queues it is made once, however many ask.
        let mut of_all: Option<Overview> = None;
        for (only, reply) in std::mem::take(&mut self.group.overviews) {
            let overview = match (&only, &of_all) {
                (None, Some(made)) => made.clone(),
                _ => self.overview(only.as_deref()),
            };
            if only.is_none() {
                of_all.get_or_insert_with(|| overview.clone());
            }
            // Whoever asked may have gone.
            drop(reply.send(Ok(overview)));
        }
    }

    fn overview(&mut self, only: Option<&str>) -> Overview {
        let (began_at, now) = (self.clock.began_at(), self.group.now);
        let waiting = (&self.ready, &self.index);
        let mut overview = self.queues.overview(only, waiting, self.draining, began_at, &now);
        if only.is_none() {
            let name = |id| self.queues.get(id).map(|queue| Arc::clone(queue.name()));
            overview.classes = self.mix.statuses(name, now.instant);
        }
        overview
    }

    /// Writes how many tasks have ended, of the queues where that has changed.
    pub(super) fn write_tallies(&mut self) {
        for id in std::mem::take(&mut self.group.tallied) {
            let Some(queue) = self.queues.get(id) else { continue };
            let count = |state| {
                let count = queue.ended_count(state);
                (count.tasks, count.bytes)
            };
            self.records.put_tallies(queue.name(), super::queues::ENDS.map(count));
        }
    }
}

fn no_room(queue: &str, cause: Refused) -> Error {
    match cause {
        Refused::Draining => Error::Draining,
        cause => Error::NoRoom { queue: queue.into(), cause },
    }
}
