//! The wire's messages as JSON, and JSON as payloads.
//!
//! Owns the shape of `--output json`: proto field names in `snake_case`, short
//! names of enum values, RFC 3339 times, spans as `"1.5s"`, bytes as base64;
//! what is unset is left out. Must not know commands.

pub mod admin;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value, json};
use taskyard_proto::{
    v1::{
        Attempt, AttemptOutput, Event, EventType, Task, TaskError, TaskState, attempt_output::Exit,
        task_result::Output,
    },
    values,
};

use super::{body, units};

/// Bytes as JSON has them.
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Reads base64, the standard alphabet with padding.
///
/// # Errors
/// What is wrong with it.
pub fn from_base64(text: &str) -> Result<bytes::Bytes, String> {
    BASE64.decode(text).map(Into::into).map_err(|wrong| format!("is not base64: {wrong}"))
}

/// Collects the fields that are set.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    fn text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.set(name, text);
        }
    }

    fn time(&mut self, name: &str, time: Option<prost_types::Timestamp>) {
        if let Some(time) = time {
            self.set(name, units::rfc3339(time));
        }
    }

    fn span(&mut self, name: &str, span: Option<prost_types::Duration>) {
        if let Some(span) = span {
            self.set(name, seconds(span));
        }
    }

    fn error(&mut self, error: Option<&TaskError>) {
        if let Some(error) = error {
            self.set("error", json!({ "reason": error.reason, "message": error.message }));
        }
    }
}

/// As in proto3 JSON: seconds with as many decimals as needed.
fn seconds(span: prost_types::Duration) -> String {
    let span = units::from_wire(span);
    match span.subsec_nanos() {
        0 => format!("{}s", span.as_secs()),
        nanos => {
            let decimals = format!("{nanos:09}");
            format!("{}.{}s", span.as_secs(), decimals.trim_end_matches('0'))
        }
    }
}

/// A task.
pub fn task(mut task: Task) -> Value {
    let mut fields = Fields::default();
    fields.text("task_id", &task.task_id);
    fields.set("state", state_name(task.state()));
    fields.text("kind", &task.kind);
    fields.text("queue", &task.queue);
    fields.set("priority", task.priority);
    fields.set("attempt", task.attempt);
    fields.set("max_attempts", task.max_attempts);
    fields.text("worker", &task.worker);
    fields.time("create_time", task.create_time);
    fields.time("due_time", task.due_time);
    fields.time("start_time", task.start_time);
    fields.time("finish_time", task.finish_time);
    fields.span("timeout", task.timeout);
    fields.text("request_id", &task.request_id);
    if !task.labels.is_empty() {
        let labels = std::mem::take(&mut task.labels);
        let labels = labels.into_iter().map(|(key, value)| (key, value.into()));
        fields.set("labels", labels.collect::<Map<_, _>>());
    }
    fields.set("cancel_requested", task.cancel_requested);
    for (name, value) in body::to_json(&mut task) {
        fields.set(name, value);
    }
    match task.result.and_then(|result| result.output) {
        Some(Output::Json(value)) => fields.set("result", json!({ "json": values::shown(value) })),
        Some(Output::Data(data)) => fields.set("result", json!({ "data": base64(&data) })),
        None => {}
    }
    fields.error(task.error.as_ref());
    if !task.attempts.is_empty() {
        fields.set("attempts", task.attempts.iter().map(attempt).collect::<Vec<_>>());
    }
    fields.0.into()
}

fn attempt(attempt: &Attempt) -> Value {
    let mut fields = Fields::default();
    fields.set("attempt", attempt.attempt);
    fields.text("worker", &attempt.worker);
    fields.time("start_time", attempt.start_time);
    fields.time("end_time", attempt.end_time);
    fields.error(attempt.error.as_ref());
    if let Some(output) = &attempt.output {
        fields.set("output", attempt_output(output));
    }
    fields.0.into()
}

/// As text, with U+FFFD for bytes that are none; `logs` has them as they were.
fn attempt_output(output: &AttemptOutput) -> Value {
    let mut fields = Fields::default();
    fields.set("stdout", String::from_utf8_lossy(&output.stdout));
    fields.set("stderr", String::from_utf8_lossy(&output.stderr));
    for (name, dropped) in [
        ("stdout_dropped_bytes", output.stdout_dropped_bytes),
        ("stderr_dropped_bytes", output.stderr_dropped_bytes),
    ] {
        if dropped > 0 {
            fields.set(name, dropped);
        }
    }
    match output.exit {
        Some(Exit::ExitStatus(status)) => fields.set("exit_status", status),
        Some(Exit::ExitSignal(signal)) => fields.set("exit_signal", signal),
        None => {}
    }
    fields.0.into()
}

/// An event, with the cursor after which to resume.
pub fn event(event: &Event, cursor: &str) -> Value {
    let mut fields = Fields::default();
    fields.set("seq", event.seq);
    fields.time("time", event.time);
    fields.set("type", type_name(event.r#type));
    fields.text("task_id", &event.task_id);
    fields.text("queue", &event.queue);
    fields.text("kind", &event.kind);
    if event.attempt > 0 {
        fields.set("attempt", event.attempt);
    }
    fields.text("worker", &event.worker);
    fields.span("waited", event.waited);
    fields.span("ran", event.ran);
    fields.error(event.error.as_ref());
    fields.time("next_due_time", event.next_due_time);
    if !event.labels.is_empty() {
        fields.set("labels", json!(event.labels));
    }
    fields.text("cursor", cursor);
    fields.0.into()
}

/// A state's name without its prefix.
pub fn state_name(state: TaskState) -> &'static str {
    let name = state.as_str_name();
    name.strip_prefix("TASK_STATE_").unwrap_or(name)
}

/// An event type's name without its prefix; a newer server's by its number.
pub fn type_name(number: i32) -> String {
    EventType::try_from(number).map_or_else(
        |_| format!("TYPE_{number}"),
        |known| known.as_str_name().trim_start_matches("EVENT_TYPE_").to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_seconds() {
        let span = |whole, nanos| seconds(prost_types::Duration { seconds: whole, nanos });
        assert_eq!(span(5, 0), "5s");
        assert_eq!(span(1, 500_000_000), "1.5s");
        assert_eq!(span(0, 1_000), "0.000001s");
    }

    #[test]
    fn an_event_leaves_out_what_is_unset() {
        let started = Event {
            seq: 7,
            time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            r#type: EventType::Started.into(),
            task_id: "t1zq8x5kd7".into(),
            kind: "sleep".into(),
            attempt: 1,
            waited: Some(prost_types::Duration { seconds: 0, nanos: 1_200_000 }),
            ..Event::default()
        };
        assert_eq!(
            event(&started, "c7"),
            json!({
                "seq": 7, "time": "1970-01-01T00:00:00Z", "type": "STARTED",
                "task_id": "t1zq8x5kd7", "kind": "sleep", "attempt": 1,
                "waited": "0.0012s", "cursor": "c7",
            })
        );
    }

    #[test]
    fn a_task_shows_its_result() {
        let ended = Task {
            task_id: "t1".into(),
            state: TaskState::Succeeded.into(),
            result: Some(taskyard_proto::v1::TaskResult {
                output: Some(Output::Data(bytes::Bytes::from_static(b"\xff\x00"))),
            }),
            attempts: vec![Attempt { attempt: 1, worker: "worker-1".into(), ..Attempt::default() }],
            ..Task::default()
        };
        let value = task(ended);
        assert_eq!(value["attempts"], json!([{ "attempt": 1, "worker": "worker-1" }]));
        assert_eq!(value["state"], "SUCCEEDED");
        assert_eq!(value["result"], json!({ "data": "/wA=" }));
    }

    #[test]
    fn an_unknown_event_type_keeps_its_number() {
        assert_eq!(type_name(EventType::RetryScheduled.into()), "RETRY_SCHEDULED");
        assert_eq!(type_name(99), "TYPE_99");
    }
}
