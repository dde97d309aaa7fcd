//! Events, and what a snapshot tells before them, as lines for people.

use console::{Alignment, Style, pad_str};

use super::{
    super::{json, output::printable, units},
    error_text, state_style,
};
use crate::proto::v1::{Event, EventType, Task, TaskState, Worker};

/// The queue of tasks that name none; not worth a word.
const DEFAULT_QUEUE: &str = "default";

/// The least widths of the columns.
const DATE: usize = 23;
const CLOCK: usize = 12;
const NAME: usize = 15;
const TASK: usize = 14;
const KIND: usize = 8;
const WORKER: usize = 9;

/// An event's line: time, type, task, kind, then what else there is to say.
pub fn event_line(event: &Event) -> String {
    line(event, &when(event.time))
}

/// The same, without the date.
pub fn clock_line(event: &Event) -> String {
    line(event, &event.time.map_or_else(|| format!("{:<CLOCK$}", "-"), units::clock))
}

fn line(event: &Event, time: &str) -> String {
    let mut columns = begun(time, &json::type_name(event.r#type), &type_style(event.r#type()));
    if !event.task_id.is_empty() {
        columns.push(padded(&event.task_id, TASK));
        columns.push(padded(&event.kind, KIND));
    } else if !event.queue.is_empty() {
        columns.push(format!("queue {}", printable(&event.queue)));
    }
    columns.extend(details(event));
    columns.join("  ").trim_end().to_owned()
}

/// A task of a snapshot, in the columns of an event: when it came, its state, and
/// what it does.
pub fn task_line(task: &Task) -> String {
    let state = task.state();
    let mut columns = begun(&when(task.create_time), json::state_name(state), &state_style(state));
    columns.push(padded(&task.task_id, TASK));
    columns.push(padded(&task.kind, KIND));
    if !task.worker.is_empty() {
        columns.push(padded(&task.worker, WORKER));
    }
    if task.attempt > 1 {
        columns.push(format!("attempt {}", task.attempt));
    }
    if task.queue != DEFAULT_QUEUE {
        columns.push(format!("queue {}", printable(&task.queue)));
    }
    if let Some(due) = task.due_time.filter(|_| state == TaskState::Scheduled) {
        columns.push(format!("due {}", units::calendar(due)));
    }
    columns.join("  ").trim_end().to_owned()
}

/// A worker of a snapshot, in the columns of an event.
pub fn worker_line(worker: &Worker) -> String {
    let dim = Style::new().dim();
    let mut columns = begun(&when(None), "WORKER", &dim);
    columns.push(padded(&worker.worker, TASK));
    columns.push(match &worker.execution {
        Some(execution) => format!("runs {}", printable(&execution.task_id)),
        None => dim.apply_to("idle").to_string(),
    });
    columns.join("  ")
}

fn when(time: Option<prost_types::Timestamp>) -> String {
    time.map_or_else(|| format!("{:<DATE$}", "-"), units::calendar)
}

/// The first two columns: when, and what.
fn begun(time: &str, name: &str, style: &Style) -> Vec<String> {
    let name = pad_str(name, NAME, Alignment::Left, None).into_owned();
    vec![Style::new().dim().apply_to(time).to_string(), style.apply_to(name).to_string()]
}

fn type_style(kind: EventType) -> Style {
    match kind {
        EventType::Succeeded | EventType::QueueResumed => Style::new().green(),
        EventType::Failed => Style::new().red().bold(),
        EventType::RetryScheduled | EventType::Interrupted | EventType::Cancelled => {
            Style::new().yellow()
        }
        EventType::Started => Style::new().cyan(),
        EventType::QueuePaused => Style::new().yellow().bold(),
        EventType::Draining => Style::new().magenta().bold(),
        EventType::Submitted | EventType::Redriven => Style::new(),
        EventType::WorkerStarted | EventType::WorkerStopped | EventType::Unspecified => {
            Style::new().dim()
        }
    }
}

fn padded(text: &str, width: usize) -> String {
    pad_str(&printable(text), width, Alignment::Left, None).into_owned()
}

/// What not every event has. The worker comes first and padded: it nearly
/// always is there, and the eye follows it down.
fn details(event: &Event) -> Vec<String> {
    let mut details = Vec::new();
    if !event.worker.is_empty() {
        details.push(padded(&event.worker, WORKER));
    }
    if let Some(waited) = event.waited {
        details.push(format!("waited {}", units::span(units::from_wire(waited))));
    }
    if let Some(ran) = event.ran {
        details.push(format!("ran {}", units::span(units::from_wire(ran))));
    }
    if event.attempt > 1 {
        details.push(format!("attempt {}", event.attempt));
    }
    let of_a_task = !event.task_id.is_empty();
    if of_a_task && !event.queue.is_empty() && event.queue != DEFAULT_QUEUE {
        details.push(format!("queue {}", printable(&event.queue)));
    }
    if let Some(due) = event.next_due_time {
        details.push(format!("due {}", units::calendar(due)));
    }
    if let Some(error) = &event.error {
        details.push(error_text(error));
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::TaskError;

    fn plain(text: &str) -> String {
        console::strip_ansi_codes(text).into_owned()
    }

    fn ended() -> Event {
        Event {
            seq: 3,
            time: Some(prost_types::Timestamp { seconds: 0, nanos: 123_000_000 }),
            r#type: EventType::Failed.into(),
            task_id: "t1zq8x5kd7".into(),
            queue: "default".into(),
            kind: "exec".into(),
            attempt: 1,
            worker: "worker-3".into(),
            waited: Some(units::to_wire(std::time::Duration::from_micros(1200))),
            ran: Some(units::to_wire(std::time::Duration::from_secs(2))),
            error: Some(TaskError { reason: "EXIT_STATUS".into(), message: "1\u{1b}[2J".into() }),
            ..Event::default()
        }
    }

    #[test]
    fn an_event_is_one_aligned_line() {
        let line = plain(&event_line(&ended()));
        assert!(
            line.ends_with(
                ".123  FAILED           t1zq8x5kd7      exec      worker-3   waited 1.2 ms  ran 2.0 s  \
                 EXIT_STATUS: 1\\u{1b}[2J"
            ),
            "{line}"
        );
    }

    #[test]
    fn the_date_may_be_left_out() {
        let (full, short) = (plain(&event_line(&ended())), plain(&clock_line(&ended())));
        assert_eq!(full.split_once(' ').map(|(_, rest)| rest), Some(short.as_str()));
        let timeless = Event { time: None, ..ended() };
        assert!(plain(&clock_line(&timeless)).starts_with("-             FAILED  "));
    }

    #[test]
    fn the_unusual_is_told() {
        let event = Event { queue: "slow".into(), attempt: 2, ..ended() };
        let line = plain(&event_line(&event));
        assert!(line.contains("attempt 2  queue slow"), "{line}");
        let crew = Event { task_id: String::new(), r#type: 99, ..Event::default() };
        assert!(plain(&event_line(&crew)).ends_with("TYPE_99"));
        let paused = Event {
            r#type: EventType::QueuePaused.into(),
            queue: "default".into(),
            ..Event::default()
        };
        let expected = format!("{:<23}  QUEUE_PAUSED     queue default", "-");
        assert_eq!(plain(&event_line(&paused)), expected);
    }

    #[test]
    fn a_snapshot_has_the_columns_of_events() {
        let task = Task {
            task_id: "t1zq8x5kd7".into(),
            state: TaskState::Running.into(),
            kind: "exec".into(),
            queue: "slow".into(),
            worker: "worker-3".into(),
            ..Task::default()
        };
        let expected = format!(
            "{:<23}  RUNNING          t1zq8x5kd7      exec      worker-3   queue slow",
            "-"
        );
        assert_eq!(plain(&task_line(&task)), expected);
        let worker = Worker { worker: "worker-1".into(), ..Worker::default() };
        let expected = format!("{:<23}  WORKER           worker-1        idle", "-");
        assert_eq!(plain(&worker_line(&worker)), expected);
    }
}
