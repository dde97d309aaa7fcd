//! Which of many tasks have ended, and how.
//!
//! Owns the match of acknowledgements and events, which arrive in either order:
//! a task may have ended before its acknowledgement is read. Must not know
//! streams, servers or output.

use std::collections::HashMap;

use taskyard_client::is_terminal;
use taskyard_proto::v1::{Event, EventType, Task, TaskError, TaskState};

/// How a task of ours ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// The line that it came from.
    pub line: u64,
    /// Which task.
    pub task_id: String,
    /// A terminal state.
    pub state: TaskState,
    /// Why, if it failed and that is known.
    pub error: Option<TaskError>,
}

/// How many ended, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// With a result.
    pub succeeded: u64,
    /// In failure.
    pub failed: u64,
    /// By cancellation.
    pub cancelled: u64,
}

impl Counts {
    /// All that ended.
    pub fn ended(self) -> u64 {
        self.succeeded + self.failed + self.cancelled
    }
}

/// What a bulk submission has come to.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Counts,
    /// Acknowledged and not ended: task to line. As large as the server's
    /// queues are long, at most.
    open: HashMap<String, u64>,
    /// Ended but not acknowledged: ours whose acknowledgement is on its way,
    /// and other people's.
    early: HashMap<String, (TaskState, Option<TaskError>)>,
}

impl Tally {
    /// Early ends that are remembered. When there are as many, events should
    /// wait until acknowledgements have caught up.
    pub const MAX_EARLY: usize = 100_000;

    /// Notes that a line became a task, which was in this state then. Tells the
    /// end if that is known already.
    pub fn accepted(&mut self, line: u64, task_id: &str, state: TaskState) -> Option<Ending> {
        let known = if is_terminal(state) { Some((state, None)) } else { None };
        if let Some((state, error)) = self.early.remove(task_id).or(known) {
            return Some(self.end(line, task_id, state, error));
        }
        // The same request twice is one task, under its first line.
        self.open.entry(task_id.to_owned()).or_insert(line);
        None
    }

    /// Notes an event. Tells the end of a task of ours.
    pub fn event(&mut self, event: Event) -> Option<Ending> {
        let state = match event.r#type() {
            EventType::Succeeded => TaskState::Succeeded,
            EventType::Failed => TaskState::Failed,
            EventType::Cancelled => TaskState::Cancelled,
            _ => return None,
        };
        if let Some(line) = self.open.remove(&event.task_id) {
            return Some(self.end(line, &event.task_id, state, event.error));
        }
        self.early.insert(event.task_id, (state, event.error));
        None
    }

    /// Notes how a task stands by itself, without an event.
    pub fn looked_up(&mut self, task: Task) -> Option<Ending> {
        let state = task.state();
        if !is_terminal(state) {
            return None;
        }
        let line = self.open.remove(&task.task_id)?;
        Some(self.end(line, &task.task_id, state, task.error))
    }

    /// Notes that every line that was sent is acknowledged: what ended and is
    /// not ours now never will be.
    pub fn all_acknowledged(&mut self) {
        self.early.clear();
    }

    /// Whether events should wait for acknowledgements.
    pub fn is_ahead(&self) -> bool {
        self.early.len() >= Self::MAX_EARLY
    }

    /// Tasks that have not ended.
    pub fn open(&self) -> u64 {
        self.open.len() as u64
    }

    /// How many ended, and how.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn end(
        &mut self,
        line: u64,
        task_id: &str,
        state: TaskState,
        error: Option<TaskError>,
    ) -> Ending {
        match state {
            TaskState::Failed => self.counts.failed += 1,
            TaskState::Cancelled => self.counts.cancelled += 1,
            _ => self.counts.succeeded += 1,
        }
        Ending { line, task_id: task_id.to_owned(), state, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(task_id: &str, kind: EventType) -> Event {
        Event { task_id: task_id.into(), r#type: kind.into(), ..Event::default() }
    }

    #[test]
    fn acknowledged_then_ended() {
        let mut tally = Tally::default();
        assert_eq!(tally.accepted(3, "t1", TaskState::Queued), None);
        assert_eq!(tally.event(event("t1", EventType::Started)), None);
        assert_eq!(tally.open(), 1);
        let ending = tally.event(event("t1", EventType::Failed)).expect("it has ended");
        assert_eq!((ending.line, ending.state), (3, TaskState::Failed));
        assert_eq!(tally.open(), 0);
        assert_eq!(tally.counts(), Counts { failed: 1, ..Counts::default() });
    }

    #[test]
    fn ended_then_acknowledged() {
        let mut tally = Tally::default();
        assert_eq!(tally.event(event("t1", EventType::Succeeded)), None);
        let ending = tally.accepted(1, "t1", TaskState::Queued).expect("it has ended");
        assert_eq!(ending.state, TaskState::Succeeded);
        assert_eq!(tally.open(), 0);
    }

    #[test]
    fn the_tasks_of_others_are_not_counted() {
        let mut tally = Tally::default();
        tally.event(event("tother", EventType::Succeeded));
        tally.all_acknowledged();
        assert_eq!(tally.counts().ended(), 0);
        assert!(!tally.is_ahead());
    }

    #[test]
    fn an_existing_task_may_have_ended_long_ago() {
        let mut tally = Tally::default();
        let ending = tally.accepted(1, "t1", TaskState::Cancelled).expect("it had ended");
        assert_eq!(ending.state, TaskState::Cancelled);
    }

    #[test]
    fn the_same_task_twice_is_counted_once() {
        let mut tally = Tally::default();
        tally.accepted(1, "t1", TaskState::Queued);
        tally.accepted(2, "t1", TaskState::Queued);
        assert_eq!(tally.open(), 1);
        let ending = tally.event(event("t1", EventType::Succeeded)).expect("it has ended");
        assert_eq!(ending.line, 1);
    }

    #[test]
    fn a_look_up_ends_only_what_is_open() {
        let mut tally = Tally::default();
        let ended =
            || Task { task_id: "t1".into(), state: TaskState::Succeeded.into(), ..Task::default() };
        assert_eq!(tally.looked_up(ended()), None);
        tally.accepted(1, "t1", TaskState::Running);
        assert!(tally.looked_up(ended()).is_some());
        assert_eq!(tally.event(event("t1", EventType::Succeeded)), None);
        assert_eq!(tally.counts().succeeded, 1);
    }
}
