//! What the events tell about the workers: who runs what, how much is done, how
//! long it took.
//!
//! Owns the figures, which come from events alone. Must not know files, servers
//! or the screen.

use std::{collections::BTreeMap, time::Duration};

use taskyard_cli::{render::error_text, units};

use crate::proto::v1::{Event, EventType};

/// A worker's name, in the order of its number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    length: usize,
    text: String,
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self { length: text.len(), text: text.to_owned() }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.text)
    }
}

/// One worker so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// The task that it runs.
    pub running: Option<String>,
    /// Attempts that it ended.
    pub done: u64,
    /// How long it ran them.
    pub busy: Duration,
}

/// A task that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub task_id: String,
    /// Why.
    pub why: String,
}

/// How far the demo is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Everyone who was heard of.
    pub workers: BTreeMap<Name, Worker>,
    /// Tasks that succeeded.
    pub succeeded: u64,
    /// Tasks that did not.
    pub failures: Vec<Failure>,
    /// How long each attempt was due before it started.
    pub waited: Vec<Duration>,
    /// How long each attempt ran.
    pub ran: Vec<Duration>,
}

impl Progress {
    /// Takes note of an event. Those that are not known are passed over.
    pub fn event(&mut self, event: &Event) {
        let kind = event.r#type();
        match kind {
            EventType::WorkerStarted => {
                self.worker(event);
            }
            EventType::Started => {
                self.worker(event).running = Some(event.task_id.clone());
                self.waited.extend(event.waited.map(units::from_wire));
            }
            EventType::Succeeded | EventType::Failed | EventType::RetryScheduled => {
                self.attempt_ended(event);
            }
            _ => {}
        }
        match kind {
            EventType::Succeeded => self.succeeded += 1,
            EventType::Failed | EventType::Cancelled => {
                let why = event.error.as_ref().map_or_else(|| "cancelled".into(), error_text);
                self.failures.push(Failure { task_id: event.task_id.clone(), why });
            }
            _ => {}
        }
    }

    /// Tasks that have ended.
    pub fn ended(&self) -> u64 {
        self.succeeded + self.failures.len() as u64
    }

    fn worker(&mut self, event: &Event) -> &mut Worker {
        self.workers.entry(event.worker.as_str().into()).or_default()
    }

    fn attempt_ended(&mut self, event: &Event) {
        let ran = event.ran.map(units::from_wire).unwrap_or_default();
        self.ran.push(ran);
        let worker = self.worker(event);
        worker.running = None;
        worker.done += 1;
        worker.busy += ran;
    }
}

/// The value that `percent` of all are not above: nearest rank. `None` without
/// values.
pub fn percentile(values: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventType, task_id: &str, worker: &str, ms: u64) -> Event {
        let span = Some(units::to_wire(Duration::from_millis(ms)));
        Event {
            r#type: kind.into(),
            task_id: task_id.into(),
            worker: worker.into(),
            waited: span,
            ran: span,
            ..Event::default()
        }
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let values: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Some(Duration::from_millis(50)));
        assert_eq!(percentile(&values, 99), Some(Duration::from_millis(99)));
        assert_eq!(percentile(&values[..1], 99), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&values[..3], 50), Some(Duration::from_millis(99)));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_worker_is_busy_from_start_to_end() {
        let mut progress = Progress::default();
        progress.event(&event(EventType::Started, "t1", "worker-1", 3));
        assert_eq!(progress.workers[&"worker-1".into()].running.as_deref(), Some("t1"));
        progress.event(&event(EventType::Succeeded, "t1", "worker-1", 20));
        let expected = Worker { running: None, done: 1, busy: Duration::from_millis(20) };
        assert_eq!(progress.workers[&"worker-1".into()], expected);
        assert_eq!((progress.ended(), progress.waited.len(), progress.ran.len()), (1, 1, 1));
    }

    #[test]
    fn a_failure_is_remembered_with_its_reason() {
        let mut progress = Progress::default();
        progress.event(&event(EventType::Failed, "t1", "worker-1", 1));
        assert_eq!(progress.failures, [Failure { task_id: "t1".into(), why: "cancelled".into() }]);
        assert_eq!((progress.succeeded, progress.ended()), (0, 1));
    }

    #[test]
    fn workers_stand_in_the_order_of_their_numbers() {
        let mut progress = Progress::default();
        for name in ["worker-10", "worker-2", "worker-1"] {
            progress.event(&event(EventType::WorkerStarted, "", name, 0));
        }
        let names: Vec<_> = progress.workers.keys().map(Name::to_string).collect();
        assert_eq!(names, ["worker-1", "worker-2", "worker-10"]);
    }
}
