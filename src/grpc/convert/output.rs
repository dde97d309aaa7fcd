//! The domain to messages.

use std::time::Duration;

use prost::Message as _;
use taskyard_proto::values;

use super::{Pages, body};
use crate::{
    proto::v1,
    store::{self, Attempt, Page, Task},
    task::{Data, Failure, State, Timestamp, WorkerId},
};

/// A state as the wire has it.
pub fn state_to(state: State) -> v1::TaskState {
    match state {
        State::Scheduled => v1::TaskState::Scheduled,
        State::Queued => v1::TaskState::Queued,
        State::Running => v1::TaskState::Running,
        State::Succeeded => v1::TaskState::Succeeded,
        State::Failed => v1::TaskState::Failed,
        State::Cancelled => v1::TaskState::Cancelled,
    }
}

/// Bytes of a page, unless its first task alone has more: below the 4 MiB that
/// most clients accept.
const MAX_PAGE_BYTES: usize = 3 << 20;

/// A page as the wire has it: as many tasks as fit, the others on the next one.
pub fn page(page: Page, pages: Pages) -> v1::ListTasksResponse {
    let mut tasks: Vec<v1::Task> = Vec::with_capacity(page.tasks.len());
    let (mut bytes, mut last, mut next) = (0, 0, page.next);
    let mut damaged = page.damaged;
    for found in page.tasks {
        let number = found.id.number();
        let found = task(found);
        bytes += found.encoded_len();
        if bytes > MAX_PAGE_BYTES && !tasks.is_empty() {
            next = Some(last);
            // The others are those of the next page, in either order.
            damaged.retain(|(id, _)| (id.number() < last) == (last < number));
            break;
        }
        last = number;
        tasks.push(found);
    }
    let damaged = damaged
        .into_iter()
        .map(|(id, damage)| v1::DamagedTask {
            task_id: id.to_string(),
            place: damage.place().to_owned(),
            message: damage.to_string(),
        })
        .collect();
    let next_page_token = next.map(|beyond| pages.token(beyond)).unwrap_or_default();
    v1::ListTasksResponse { tasks, next_page_token, damaged }
}

/// A task as the wire has it.
pub fn task(task: Task) -> v1::Task {
    let life = task.lifecycle;
    let mut shown = v1::Task {
        task_id: task.id.to_string(),
        queue: task.queue,
        kind: task.kind,
        priority: task.priority,
        labels: task.labels,
        state: state_to(life.state).into(),
        attempt: life.attempt,
        max_attempts: task.max_attempts,
        worker: task
            .execution
            .map_or_else(String::new, |(worker, _): (WorkerId, _)| worker.to_string()),
        create_time: Some(timestamp(task.created)),
        due_time: Some(timestamp(task.due)),
        start_time: task.execution.map(|(_, started)| timestamp(started)),
        finish_time: task.finished.map(timestamp),
        result: task.result.map(result),
        error: task.failure.map(error),
        cancel_requested: life.cancel_requested,
        request_id: task.request_id.unwrap_or_default(),
        attempts: task.attempts.into_iter().map(attempt).collect(),
        ..v1::Task::default()
    };
    body::show(task.body, &mut shown);
    shown
}

fn attempt(attempt: Attempt) -> v1::Attempt {
    v1::Attempt {
        attempt: attempt.attempt,
        worker: attempt.worker.to_string(),
        start_time: Some(timestamp(attempt.started)),
        end_time: attempt.ended.map(timestamp),
        error: attempt.failure.map(error),
        output: attempt.output.map(attempt_output),
    }
}

fn attempt_output(output: store::Output) -> v1::AttemptOutput {
    let store::Output { stdout, stderr, exit } = output;
    v1::AttemptOutput {
        stdout: stdout.bytes,
        stdout_dropped_bytes: stdout.dropped,
        stderr: stderr.bytes,
        stderr_dropped_bytes: stderr.dropped,
        exit: exit.map(|exit| match exit {
            store::Exit::Code(code) => v1::attempt_output::Exit::ExitStatus(code),
            store::Exit::Signal(signal) => v1::attempt_output::Exit::ExitSignal(signal),
        }),
    }
}

fn error(failure: Failure) -> v1::TaskError {
    v1::TaskError { reason: failure.reason, message: failure.message }
}

fn result(data: Data) -> v1::TaskResult {
    let output = match data {
        Data::Empty => None,
        Data::Bytes(bytes) => Some(v1::task_result::Output::Data(bytes)),
        Data::Json(text) => Some(v1::task_result::Output::Json(values::stored(&text))),
    };
    v1::TaskResult { output }
}

/// A time as the wire has it.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.0.div_euclid(1_000_000),
        nanos: i32::try_from(time.0.rem_euclid(1_000_000) * 1_000).unwrap_or_default(),
    }
}

/// A duration as the wire has it.
pub fn duration(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default(),
    }
}
