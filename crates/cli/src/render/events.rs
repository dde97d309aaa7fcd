//! Events, and what a snapshot tells before them, as lines for people.

use console::{Alignment, Style, measure_text_width, pad_str};
use prost_types::Timestamp;
use taskyard_proto::v1::{Event, EventType, Task, TaskState, Worker};

use super::{
    super::{
        json,
        output::{middle_cut, printable, shortened},
        units,
    },
    error_text, state_style,
};

/// The queue of tasks that name none; not worth a word.
const DEFAULT_QUEUE: &str = "default";

/// The least widths of the columns.
const DATE: usize = 23;
const CLOCK: usize = 12;
const NAME: usize = 15;
const TASK: usize = 14;
const KIND: usize = 8;
const WORKER: usize = 9;

/// How lines are laid out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// Columns of the screen that a line may have; without a bound it has everything.
    pub width: Option<usize>,
    /// Its times have no date; in full, if it is not said when today is.
    pub today: Option<Timestamp>,
}

/// Below this a screen has no room for the worker and the wait of an event.
const WIDE: usize = 100;

/// A part of a line, and when it is left out where there is no room: of those above 0 the
/// highest first.
struct Part(String, u8);

const TASK_RANK: u8 = 0;
const ERROR_RANK: u8 = 0;
const RAN_RANK: u8 = 1;
const DUE_RANK: u8 = 2;
const KIND_RANK: u8 = 3;
const ATTEMPT_RANK: u8 = 4;
const QUEUE_RANK: u8 = 5;
const WORKER_RANK: u8 = 6;
const WAITED_RANK: u8 = 7;

/// Columns of an error for which others are left out; the rest of it is cut.
const ERROR: usize = 20;

impl Room {
    /// The parts that there is room for.
    fn line(self, mut parts: Vec<Part>) -> String {
        let joined = |parts: &[Part]| {
            let texts: Vec<_> = parts.iter().map(|part| part.0.as_str()).collect();
            texts.join("  ").trim_end().to_owned()
        };
        let Some(width) = self.width else { return joined(&parts) };
        if width < WIDE {
            parts.retain(|part| part.1 < WORKER_RANK);
        }
        let taken = |part: &Part| {
            let text = measure_text_width(&part.0);
            if part.1 == 0 { text.min(ERROR) } else { text }
        };
        while parts.iter().map(|part| taken(part) + 2).sum::<usize>() > width + 2 {
            let highest = parts.iter().map(|part| part.1).max().unwrap_or_default();
            let Some(at) = parts.iter().rposition(|part| part.1 == highest && highest > 0) else {
                break;
            };
            parts.remove(at);
        }
        shortened(&joined(&parts), width)
    }

    fn when(self, time: Option<Timestamp>) -> String {
        let width = if self.today.is_some() { CLOCK } else { DATE };
        time.map_or_else(|| format!("{:<width$}", "-"), |time| units::recent(time, self.today))
    }

    /// A name, cut in the middle to what a narrow screen has room for.
    fn name(self, text: &str, least: usize) -> String {
        let longest = self.width.map_or(usize::MAX, |width| (width / 5).max(least));
        let cut = middle_cut(&printable(text), longest);
        pad_str(&cut, least, Alignment::Left, None).into_owned()
    }
}

/// An event's line: time, type, task, kind, then what else there is to say.
pub fn event_line(event: &Event, room: Room) -> String {
    line(event, &room.when(event.time), room)
}

/// The same, with the time of the day.
pub fn clock_line(event: &Event) -> String {
    let time = event.time.map_or_else(|| format!("{:<CLOCK$}", "-"), units::clock);
    line(event, &time, Room::default())
}

fn line(event: &Event, time: &str, room: Room) -> String {
    let mut parts = begun(time, &json::type_name(event.r#type), &type_style(event.r#type()));
    if !event.task_id.is_empty() {
        parts.push(Part(padded(&event.task_id, TASK), TASK_RANK));
        parts.push(Part(room.name(&event.kind, KIND), KIND_RANK));
    } else if !event.queue.is_empty() {
        parts.push(Part(format!("queue {}", room.name(&event.queue, 0)), QUEUE_RANK));
    }
    parts.extend(details(event, room));
    room.line(parts)
}

/// A task of a snapshot, in the columns of an event: when it came, its state, and
/// what it does.
pub fn task_line(task: &Task, room: Room) -> String {
    let state = task.state();
    let time = room.when(task.create_time);
    let mut parts = begun(&time, json::state_name(state), &state_style(state));
    parts.push(Part(padded(&task.task_id, TASK), TASK_RANK));
    parts.push(Part(room.name(&task.kind, KIND), KIND_RANK));
    if !task.worker.is_empty() {
        parts.push(Part(padded(&task.worker, WORKER), WORKER_RANK));
    }
    if task.attempt > 1 {
        parts.push(Part(format!("attempt {}", task.attempt), ATTEMPT_RANK));
    }
    if task.queue != DEFAULT_QUEUE {
        parts.push(Part(format!("queue {}", room.name(&task.queue, 0)), QUEUE_RANK));
    }
    if let Some(due) = task.due_time.filter(|_| state == TaskState::Scheduled) {
        parts.push(Part(format!("due {}", units::recent(due, room.today)), DUE_RANK));
    }
    room.line(parts)
}

/// A worker of a snapshot, in the columns of an event.
pub fn worker_line(worker: &Worker, room: Room) -> String {
    let dim = Style::new().dim();
    let mut parts = begun(&room.when(None), "WORKER", &dim);
    parts.push(Part(padded(&worker.worker, TASK), TASK_RANK));
    let does = match &worker.execution {
        Some(execution) => format!("runs {}", printable(&execution.task_id)),
        None => dim.apply_to("idle").to_string(),
    };
    parts.push(Part(does, TASK_RANK));
    room.line(parts)
}

/// The first two columns: when, and what.
fn begun(time: &str, name: &str, style: &Style) -> Vec<Part> {
    let name = pad_str(name, NAME, Alignment::Left, None).into_owned();
    let time = Style::new().dim().apply_to(time).to_string();
    vec![Part(time, TASK_RANK), Part(style.apply_to(name).to_string(), TASK_RANK)]
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
fn details(event: &Event, room: Room) -> Vec<Part> {
    let mut details = Vec::new();
    if !event.worker.is_empty() {
        details.push(Part(padded(&event.worker, WORKER), WORKER_RANK));
    }
    if let Some(waited) = event.waited {
        let waited = format!("waited {}", units::span(units::from_wire(waited)));
        details.push(Part(waited, WAITED_RANK));
    }
    if let Some(ran) = event.ran {
        details.push(Part(format!("ran {}", units::span(units::from_wire(ran))), RAN_RANK));
    }
    if event.attempt > 1 {
        details.push(Part(format!("attempt {}", event.attempt), ATTEMPT_RANK));
    }
    let of_a_task = !event.task_id.is_empty();
    if of_a_task && !event.queue.is_empty() && event.queue != DEFAULT_QUEUE {
        details.push(Part(format!("queue {}", room.name(&event.queue, 0)), QUEUE_RANK));
    }
    if let Some(due) = event.next_due_time {
        details.push(Part(format!("due {}", units::recent(due, room.today)), DUE_RANK));
    }
    if let Some(error) = &event.error {
        details.push(Part(error_text(error), ERROR_RANK));
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskyard_proto::v1::TaskError;

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
        let line = plain(&event_line(&ended(), Room::default()));
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
        let (full, short) =
            (plain(&event_line(&ended(), Room::default())), plain(&clock_line(&ended())));
        assert_eq!(full.split_once(' ').map(|(_, rest)| rest), Some(short.as_str()));
        let timeless = Event { time: None, ..ended() };
        assert!(plain(&clock_line(&timeless)).starts_with("-             FAILED  "));
    }

    #[test]
    fn the_unusual_is_told() {
        let event = Event { queue: "slow".into(), attempt: 2, ..ended() };
        let line = plain(&event_line(&event, Room::default()));
        assert!(line.contains("attempt 2  queue slow"), "{line}");
        let pool = Event { task_id: String::new(), r#type: 99, ..Event::default() };
        assert!(plain(&event_line(&pool, Room::default())).ends_with("TYPE_99"));
        let paused = Event {
            r#type: EventType::QueuePaused.into(),
            queue: "default".into(),
            ..Event::default()
        };
        let expected = format!("{:<23}  QUEUE_PAUSED     queue default", "-");
        assert_eq!(plain(&event_line(&paused, Room::default())), expected);
    }

    #[test]
    fn a_line_fits_every_terminal_and_cuts_no_figure() {
        let long = Event { queue: "q".repeat(63), kind: "k".repeat(63), attempt: 2, ..ended() };
        for width in 60..220 {
            let room = Room { width: Some(width), today: ended().time };
            for event in [ended(), long.clone()] {
                let line = plain(&event_line(&event, room));
                assert!(measure_text_width(&line) <= width, "{width}: {line}");
                assert!(line.contains("FAILED           t1zq8x5kd7"), "{width}: {line}");
                assert!(!line.contains("ran") || line.contains("ran 2.0 s"), "{width}: {line}");
                assert!(!line.starts_with("19"), "{width}: {line}");
            }
        }
        let room = Room { width: Some(80), today: ended().time };
        let line = plain(&event_line(&ended(), room));
        assert!(line.contains("t1zq8x5kd7      ran 2.0 s  EXIT_STATUS: 1"), "{line}");
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
        assert_eq!(plain(&task_line(&task, Room::default())), expected);
        let worker = Worker { worker: "worker-1".into(), ..Worker::default() };
        let expected = format!("{:<23}  WORKER           worker-1        idle", "-");
        assert_eq!(plain(&worker_line(&worker, Room::default())), expected);
    }
}
