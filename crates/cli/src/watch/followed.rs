//! Tasks that are followed to their ends.
//!
//! Owns when a task has ended for good: while its history is read, an end may be
//! followed by a redrive.

use std::collections::HashMap;

use taskyard_client::{CallRetryPolicy, Tasks, is_terminal};
use taskyard_proto::v1::{Event, EventType, GetTaskRequest, Task, TaskState};

use super::super::{
    exit::Exit,
    output::{note, printable},
    problem::{Problem, told},
    query::ending,
};

/// The tasks, each as it stands by what was seen of it.
#[derive(Debug, Default)]
pub struct Followed {
    tasks: HashMap<String, Stand>,
    /// The history was read: what ends now has ended.
    is_caught_up: bool,
}

#[derive(Debug)]
struct Stand {
    task: Task,
    has_events: bool,
}

impl Followed {
    /// Looks them up, so that a wrong id is told at once.
    ///
    /// # Errors
    /// What the server answers, for each of them that it does not know.
    pub async fn look_up(client: &Tasks, task_ids: &[String]) -> Result<Self, Problem> {
        let mut followed = Self::default();
        let mut refused: Option<Problem> = None;
        for task_id in task_ids {
            let request = GetTaskRequest { task_id: task_id.clone() };
            let ask = async |mut client: Tasks, request| client.get_task(request).await;
            match CallRetryPolicy::BRIEF.ask(client, &request, ask).await {
                Ok(response) => {
                    let task = response.task.unwrap_or_default();
                    let stand = Stand { task, has_events: false };
                    followed.tasks.insert(task_id.clone(), stand);
                }
                Err(status) if task_ids.len() == 1 => return Err(status.into()),
                Err(status) => {
                    let told = format!("{}: {}", printable(task_id), told(&status));
                    refused = Some(match refused {
                        None => Problem::new(Problem::from(status).exit(), told),
                        Some(problem) => problem.hint(&told),
                    });
                }
            }
        }
        refused.map_or(Ok(followed), Err)
    }

    /// Notes an event.
    pub fn event(&mut self, event: &Event) {
        let Some(Stand { task, has_events }) = self.tasks.get_mut(&event.task_id) else { return };
        let state = match event.r#type() {
            EventType::Succeeded => TaskState::Succeeded,
            EventType::Failed => TaskState::Failed,
            EventType::Cancelled => TaskState::Cancelled,
            _ => TaskState::Queued,
        };
        *has_events = true;
        task.set_state(state);
        task.error.clone_from(&event.error);
    }

    /// What had happened has been seen.
    pub fn caught_up(&mut self) {
        self.is_caught_up = true;
    }

    /// Whether there are any, and all have ended for good.
    pub fn have_ended(&self) -> bool {
        let ended = |stand: &Stand| is_terminal(stand.task.state());
        !self.tasks.is_empty() && self.is_caught_up && self.tasks.values().all(ended)
    }

    /// Tells which did not end well, and the exit code for all of them.
    pub fn tell(&self) -> Exit {
        let mut tasks: Vec<_> = self.tasks.values().collect();
        tasks.sort_unstable_by(|a, b| a.task.task_id.cmp(&b.task.task_id));
        let mut exit = Exit::Ok;
        for stand in tasks {
            if !stand.has_events {
                let task_id = printable(&stand.task.task_id);
                note(format!("task {task_id} ended long ago; its events are no longer kept"));
            }
            if ending(&stand.task) != Exit::Ok {
                exit = Exit::TaskFailed;
            }
        }
        exit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn following(states: &[(&str, TaskState)]) -> Followed {
        let stand = |(task_id, state): &(&str, TaskState)| {
            let task =
                Task { task_id: (*task_id).into(), state: (*state).into(), ..Task::default() };
            ((*task_id).to_owned(), Stand { task, has_events: false })
        };
        Followed { tasks: states.iter().map(stand).collect(), is_caught_up: false }
    }

    fn event(task_id: &str, kind: EventType) -> Event {
        Event { task_id: task_id.into(), r#type: kind.into(), ..Event::default() }
    }

    #[test]
    fn an_end_in_history_may_not_be_the_last() {
        let mut followed = following(&[("t1", TaskState::Succeeded)]);
        followed.event(&event("t1", EventType::Failed));
        assert!(!followed.have_ended(), "more may have happened since");
        followed.event(&event("t1", EventType::Redriven));
        followed.caught_up();
        assert!(!followed.have_ended(), "it was redriven");
        followed.event(&event("t1", EventType::Succeeded));
        assert!(followed.have_ended());
        assert_eq!(followed.tell(), Exit::Ok);
    }

    #[test]
    fn all_must_have_ended() {
        let mut followed = following(&[("t1", TaskState::Queued), ("t2", TaskState::Queued)]);
        followed.caught_up();
        followed.event(&event("t1", EventType::Succeeded));
        assert!(!followed.have_ended());
        followed.event(&event("t2", EventType::Cancelled));
        assert!(followed.have_ended());
        assert_eq!(followed.tell(), Exit::TaskFailed);
    }

    #[test]
    fn a_task_without_events_ends_as_it_stood() {
        let mut followed = following(&[("t1", TaskState::Failed)]);
        followed.caught_up();
        assert!(followed.have_ended());
        assert_eq!(followed.tell(), Exit::TaskFailed);
    }

    #[test]
    fn nothing_that_is_followed_never_ends_it() {
        let mut followed = Followed::default();
        followed.caught_up();
        assert!(!followed.have_ended());
    }
}
