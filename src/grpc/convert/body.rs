//! What of a task the engine does not look at, both ways.
//!
//! A field that a task carries as it was submitted is checked in [`body`] and shown in
//! [`show`].

use prost::Message as _;
use taskyard_proto::values;

use super::{Checks, Rules, duration};
use crate::{
    proto::v1::{self, submit_request},
    queue,
    task::{Data, TaskBody},
};

/// Checks what else a submission carries for whoever runs it or looks at it, also without a
/// payload: all that is wrong is named at once.
pub fn body(
    payload: Option<Data>,
    request: &mut v1::SubmitRequest,
    settings: &queue::Settings,
    checks: &mut Checks,
) -> Option<TaskBody> {
    let bounds = (*queue::ATTEMPT_TIMEOUT.start(), *queue::ATTEMPT_TIMEOUT.end());
    let timeout = checks.duration("timeout", request.timeout.take(), bounds);
    Some(TaskBody { payload: payload?, timeout: timeout.unwrap_or(settings.attempt_timeout) })
}

/// Adds it to a task as the wire has it.
pub fn show(body: TaskBody, task: &mut v1::Task) {
    let TaskBody { payload, timeout } = body;
    task.payload = match payload {
        Data::Empty => None,
        Data::Bytes(bytes) => Some(v1::task::Payload::Data(bytes)),
        Data::Json(text) => match serde_json::from_str(&text) {
            Ok(serde_json::Value::Object(args)) => {
                Some(v1::task::Payload::Args(values::stored_object(args)))
            }
            _ => None,
        },
    };
    task.timeout = Some(duration(timeout));
}

/// Checks a payload; `None`, and said why, if it is not one.
pub fn payload(
    given: Option<submit_request::Payload>,
    rules: Rules,
    checks: &mut Checks,
) -> Option<Data> {
    let (field, data) = match given {
        None => return Some(Data::Empty),
        Some(submit_request::Payload::Data(bytes)) => ("data", Data::Bytes(bytes)),
        // JSON can be shorter than the message, and both are kept in memory.
        Some(submit_request::Payload::Args(fields))
            if fields.encoded_len() > 2 * rules.max_payload.max(1 << 10) =>
        {
            let (size, limit) = (fields.encoded_len(), rules.max_payload);
            checks.wrong("args", format!("has {size} bytes as a message; a payload has at most {limit}, and twice that as a message"));
            return None;
        }
        Some(submit_request::Payload::Args(fields)) => match values::from_struct(fields) {
            Ok(fields) => {
                ("args", Data::Json(serde_json::Value::Object(fields).to_string().into()))
            }
            Err(wrong) => {
                checks.wrong(&format!("args{}", wrong.path), wrong.why.to_string());
                return None;
            }
        },
    };
    let (size, limit) = (data.len(), rules.max_payload);
    if size > limit {
        checks.wrong(field, format!("has {size} bytes; a payload has at most {limit}"));
        return None;
    }
    Some(data)
}
