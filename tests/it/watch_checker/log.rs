//! All events, and what must be true of them whoever saw them.

use std::collections::{BTreeMap, HashMap};

use taskyard::proto::v1::{Event, EventType, TaskState};

use crate::watch_checker::ledger::{Known, Ledger};

/// All events of an episode, in the order of their numbers, from 1.
pub struct Log(Vec<Event>);

/// A task, by its events so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    pub state: TaskState,
    pub attempt: u32,
    cancelled: bool,
    redriven: u32,
}

impl Life {
    /// Takes an event, if the state machine allows it. Written anew, from the table of
    /// the design: what is checked must not check itself.
    fn take(&mut self, event: &Event) -> Result<(), String> {
        use TaskState::{Cancelled, Failed, Queued, Running, Scheduled, Succeeded, Unspecified};
        let (before, is_due_later) = (self.state, event.next_due_time.is_some());
        let after = match (before, event.r#type()) {
            (Unspecified, EventType::Submitted) if !is_due_later => Queued,
            (Unspecified, EventType::Submitted) => Scheduled,
            (Running, EventType::Interrupted) => Queued,
            // That a task became due is no event.
            (Queued | Scheduled, EventType::Started) => {
                self.attempt += 1;
                Running
            }
            (Running, EventType::Succeeded) => Succeeded,
            (Running, EventType::RetryScheduled) if is_due_later => Scheduled,
            (Running, EventType::Failed) => Failed,
            (Queued | Scheduled | Running, EventType::Cancelled) => {
                self.cancelled = true;
                Cancelled
            }
            (Failed | Cancelled, EventType::Redriven) => {
                self.redriven += 1;
                Queued
            }
            _ => return Err(format!("{event:?} cannot follow {self:?}")),
        };
        self.state = after;
        if event.attempt == self.attempt {
            Ok(())
        } else {
            Err(format!("{event:?} is of another attempt than {self:?}"))
        }
    }

    /// Whether it has begun and not ended.
    pub fn is_live(self) -> bool {
        matches!(self.state, TaskState::Scheduled | TaskState::Queued | TaskState::Running)
    }
}

impl Log {
    pub fn new(events: Vec<Event>) -> Self {
        Self(events)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The event with this number.
    pub fn event(&self, seq: u64) -> &Event {
        &self.0[usize::try_from(seq - 1).expect("it fits")]
    }

    /// Every task as it stood after the event with this number.
    pub fn lives(&self, upto: u64) -> HashMap<&str, Life> {
        let mut lives: HashMap<&str, Life> = HashMap::new();
        for event in self.0.iter().take(usize::try_from(upto).expect("it fits")) {
            if !event.task_id.is_empty() {
                let life = lives.entry(&event.task_id).or_default();
                life.take(event).unwrap_or_else(|wrong| panic!("{wrong}"));
            }
        }
        lives
    }

    /// Checks it against the state machine, and against what was acknowledged.
    pub fn check(&self, ledger: &Ledger) {
        let (tasks, pauses) = ledger.read();
        let lives = self.lives(self.0.len() as u64);
        for (task_id, life) in &lives {
            let known = tasks.get(*task_id);
            let known = known.unwrap_or_else(|| panic!("{task_id} was told to nobody: {life:?}"));
            check_life(task_id, *life, known);
        }
        for task_id in tasks.keys() {
            assert!(lives.contains_key(task_id.as_str()), "{task_id} was acknowledged and is lost");
        }
        for event in self.0.iter().filter(|event| !event.task_id.is_empty()) {
            let known = &tasks[&event.task_id];
            let told = (&event.queue, &event.kind, &event.labels);
            assert_eq!(told, (&known.queue, &known.kind, &known.labels), "{event:?}");
        }
        self.check_ends(&tasks);
        self.check_pauses(&pauses);
    }

    /// An end that somebody was told of is among the events.
    fn check_ends(&self, tasks: &HashMap<String, Known>) {
        let mut ends: HashMap<&str, Vec<(TaskState, u32)>> = HashMap::new();
        for event in &self.0 {
            let state = match event.r#type() {
                EventType::Succeeded => TaskState::Succeeded,
                EventType::Failed => TaskState::Failed,
                EventType::Cancelled => TaskState::Cancelled,
                _ => continue,
            };
            ends.entry(&event.task_id).or_default().push((state, event.attempt));
        }
        for (task_id, known) in tasks {
            for end in &known.ended {
                assert!(ends[task_id.as_str()].contains(end), "{task_id} has no {end:?}");
            }
        }
    }

    /// Pauses and resumptions alternate, as often as was acknowledged.
    fn check_pauses(&self, pauses: &BTreeMap<String, usize>) {
        for (queue, count) in pauses {
            let told: Vec<_> = self
                .0
                .iter()
                .filter(|event| event.task_id.is_empty() && event.queue == *queue)
                .map(Event::r#type)
                .collect();
            let expected = [EventType::QueuePaused, EventType::QueueResumed].repeat(*count);
            assert_eq!(told, expected, "pauses and resumptions of {queue}");
        }
    }
}

fn check_life(task_id: &str, life: Life, known: &Known) {
    assert!(!life.is_live(), "{task_id} did not end: {life:?}");
    assert!(life.cancelled || !known.cancelled, "{task_id} was said to be cancelled: {life:?}");
    let redrives = known.redriven..=known.redriven + known.perhaps_redriven;
    assert!(redrives.contains(&life.redriven), "{task_id}: {known:?}, {life:?}");
}
