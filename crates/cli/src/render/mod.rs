//! Tasks as text for people, and what else there is in the modules below.
//!
//! Owns columns, colours and wording. Must not know where things come from, or
//! where the text goes.

mod attempts;
pub mod bar;
pub mod events;
pub mod list;
pub mod queues;
pub mod stats;
pub mod workers;

use console::Style;
use taskyard_proto::{
    v1::{Task, TaskError, TaskState, task_result::Output},
    values,
};

use super::{body, json, output::printable, units};

/// The colour of a state.
pub fn state_style(state: TaskState) -> Style {
    match state {
        TaskState::Succeeded => Style::new().green(),
        TaskState::Failed => Style::new().red(),
        TaskState::Cancelled => Style::new().yellow(),
        TaskState::Running => Style::new().cyan(),
        TaskState::Scheduled | TaskState::Queued | TaskState::Unspecified => Style::new(),
    }
}

/// Reason and message.
pub fn error_text(error: &TaskError) -> String {
    match (error.reason.as_str(), error.message.as_str()) {
        (reason, "") => printable(reason),
        ("", message) => printable(message),
        (reason, message) => format!("{}: {}", printable(reason), printable(message)),
    }
}

/// How a task ended, and why: `FAILED: TIMEOUT: …`. A reason that only repeats the state
/// is left out.
pub fn end_text(state: TaskState, error: Option<&TaskError>) -> String {
    let name = json::state_name(state);
    match error {
        None => name.to_owned(),
        Some(error) if error.reason == name && error.message.is_empty() => name.to_owned(),
        Some(error) if error.reason == name => format!("{name}: {}", printable(&error.message)),
        Some(error) => format!("{name}: {}", error_text(error)),
    }
}

/// Everything about one task, a line for each thing there is.
pub fn task_block(mut task: Task) -> String {
    let state = task.state();
    let body_rows = body::rows(&mut task);
    let mut rows: Vec<(&str, String)> = vec![
        ("task", printable(&task.task_id)),
        ("state", state_style(state).apply_to(state_words(&task)).to_string()),
        ("kind", printable(&task.kind)),
        ("queue", printable(&task.queue)),
    ];
    let mut row = |name, text: String| {
        if !text.is_empty() {
            rows.push((name, text));
        }
    };
    row("priority", if task.priority == 0 { String::new() } else { task.priority.to_string() });
    row("attempt", attempts(&task, " of "));
    row("worker", printable(&task.worker));
    row("created", task.create_time.map(units::calendar).unwrap_or_default());
    row("due", due(&task));
    row("started", started(&task));
    row("finished", finished(&task));
    row(
        "timeout",
        task.timeout.map(|span| units::span(units::from_wire(span))).unwrap_or_default(),
    );
    row("request id", printable(&task.request_id));
    let labels: Vec<_> =
        task.labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    row("labels", printable(&labels.join(", ")));
    for (name, text) in body_rows {
        row(name, text);
    }
    match task.result.and_then(|result| result.output) {
        Some(Output::Json(value)) => row("result", printable(&values::shown(value).to_string())),
        Some(Output::Data(data)) => row("result", bytes_text(&data)),
        None => {}
    }
    if let Some(error) = &task.error {
        row("error", Style::new().red().apply_to(error_text(error)).to_string());
    }
    let block = named(rows);
    match attempts::table(&task.attempts) {
        Some(table) => format!("{block}\n\n{table}"),
        None => block,
    }
}

/// Names and what they stand for, a line each.
fn named<'n>(rows: impl IntoIterator<Item = (&'n str, String)>) -> String {
    let name = |name| Style::new().dim().apply_to(format!("{name:<10}")).to_string();
    let line = |(key, text)| format!("{}  {text}", name(key));
    rows.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn state_words(task: &Task) -> String {
    let name = json::state_name(task.state());
    let stopping = task.cancel_requested && task.state() == TaskState::Running;
    if stopping { format!("{name} (cancellation requested)") } else { name.to_owned() }
}

/// The due time, if it tells more than the time of submission.
fn due(task: &Task) -> String {
    match (task.create_time, task.due_time) {
        (Some(created), Some(due)) if !units::between(created, due).is_zero() => {
            units::calendar(due)
        }
        _ => String::new(),
    }
}

fn started(task: &Task) -> String {
    let Some(started) = task.start_time else { return String::new() };
    let waited = task.due_time.map(|due| units::span(units::between(due, started)));
    let waited = waited.map(|span| format!("  (waited {span})")).unwrap_or_default();
    units::calendar(started) + &waited
}

fn finished(task: &Task) -> String {
    let Some(finished) = task.finish_time else { return String::new() };
    let ran = task.start_time.map(|started| units::span(units::between(started, finished)));
    let ran = ran.map(|span| format!("  (ran {span})")).unwrap_or_default();
    units::calendar(finished) + &ran
}

/// Bytes of a payload or a result, as text if they are some.
pub fn bytes_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= 1024 => printable(text),
        _ => units::counted(bytes.len() as u64, "byte"),
    }
}

/// Which attempt it is, of how many. Executions that a crash or a drain ended, and
/// those before a redrive, count on without using any up: beyond the number that a
/// task is granted it would only confuse.
fn attempts(task: &Task, of: &str) -> String {
    if task.attempt > task.max_attempts {
        task.attempt.to_string()
    } else {
        format!("{}{of}{}", task.attempt, task.max_attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        console::strip_ansi_codes(text).into_owned()
    }

    #[test]
    fn a_block_leaves_out_what_is_not_there() {
        let task = Task {
            task_id: "t1".into(),
            state: TaskState::Queued.into(),
            kind: "noop".into(),
            queue: "default".into(),
            max_attempts: 3,
            ..Task::default()
        };
        assert_eq!(
            plain(&task_block(task)),
            "task        t1\nstate       QUEUED\nkind        noop\n\
             queue       default\nattempt     0 of 3"
        );
    }

    #[test]
    fn an_end_tells_its_state_once() {
        let error = |reason: &str, message: &str| TaskError {
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let ran = error("CANCELLED", "cancelled while it ran");
        let text = end_text(TaskState::Cancelled, Some(&ran));
        assert_eq!(text, "CANCELLED: cancelled while it ran");
        assert_eq!(end_text(TaskState::Cancelled, Some(&error("CANCELLED", ""))), "CANCELLED");
        assert_eq!(end_text(TaskState::Failed, None), "FAILED");
        let late = error("TIMEOUT", "too slow");
        assert_eq!(end_text(TaskState::Failed, Some(&late)), "FAILED: TIMEOUT: too slow");
    }

    #[test]
    fn a_redriven_task_is_not_at_attempt_3_of_2() {
        let at = |attempt| Task { attempt, max_attempts: 2, ..Task::default() };
        assert_eq!(attempts(&at(2), " of "), "2 of 2");
        assert_eq!(attempts(&at(3), " of "), "3");
    }
}
