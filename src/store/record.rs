//! The formats of what rows hold: protobuf, so that fields can be added.
//!
//! These are on disk. A field's number and meaning never change; a field that
//! is no longer written keeps its number reserved here.

use std::{collections::BTreeMap, time::Duration};

use prost::Message as _;

use crate::task::{Data, Due, NewTask, RetryPolicy, Timestamp};

/// `task.record`: what of a task never changes and is not a column.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskRecord {
    #[prost(oneof = "DataRecord", tags = "1, 2")]
    payload: Option<DataRecord>,
    #[prost(sint32, tag = "3")]
    pub priority: i32,
    #[prost(uint64, tag = "4")]
    timeout_micros: u64,
    #[prost(uint32, tag = "5")]
    pub max_attempts: u32,
    #[prost(uint64, tag = "6")]
    initial_backoff_micros: u64,
    #[prost(uint64, tag = "7")]
    max_backoff_micros: u64,
    #[prost(btree_map = "string, string", tag = "8")]
    pub labels: BTreeMap<String, String>,
    #[prost(string, optional, tag = "9")]
    pub request_id: Option<String>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum DataRecord {
    #[prost(string, tag = "1")]
    Json(String),
    #[prost(bytes = "bytes", tag = "2")]
    Bytes(bytes::Bytes),
}

impl TaskRecord {
    /// The part of `task` that is kept in its record.
    pub fn of(task: &NewTask) -> Self {
        Self {
            payload: match &task.payload {
                Data::Empty => None,
                Data::Json(text) => Some(DataRecord::Json(text.to_string())),
                Data::Bytes(bytes) => Some(DataRecord::Bytes(bytes.clone())),
            },
            priority: task.priority,
            timeout_micros: micros(task.timeout),
            max_attempts: task.retry.max_attempts,
            initial_backoff_micros: micros(task.retry.initial_backoff),
            max_backoff_micros: micros(task.retry.max_backoff),
            labels: task.labels.clone(),
            request_id: task.request_id.clone(),
        }
    }

    /// How long one attempt may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout_micros)
    }

    /// How often the task is tried.
    pub fn retry(&self) -> RetryPolicy {
        RetryPolicy {
            max_attempts: self.max_attempts,
            initial_backoff: Duration::from_micros(self.initial_backoff_micros),
            max_backoff: Duration::from_micros(self.max_backoff_micros),
        }
    }

    /// Takes the payload out.
    pub fn take_payload(&mut self) -> Data {
        match self.payload.take() {
            None => Data::Empty,
            Some(DataRecord::Json(text)) => Data::Json(text.into()),
            Some(DataRecord::Bytes(bytes)) => Data::Bytes(bytes),
        }
    }

    /// As bytes for the row.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// From the bytes of a row.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        Self::decode(bytes)
    }
}

/// `finish.result_type`: how `finish.result` is to be read.
pub fn result_columns(result: &Data) -> (i64, &[u8]) {
    match result {
        Data::Empty => (0, &[]),
        Data::Json(text) => (1, text.as_bytes()),
        Data::Bytes(bytes) => (2, bytes),
    }
}

/// The reverse of [`result_columns`]; `None` if the row is damaged.
pub fn result_from_columns(result_type: i64, bytes: Vec<u8>) -> Option<Data> {
    match result_type {
        0 => Some(Data::Empty),
        1 => String::from_utf8(bytes).ok().map(|text| Data::Json(text.into())),
        2 => Some(Data::Bytes(bytes.into())),
        _ => None,
    }
}

/// When a task that is submitted `now` may start; at once if that is not later.
pub fn due_time(due: Due, now: Timestamp) -> Timestamp {
    match due {
        Due::Now => now,
        Due::After(span) => now.after(span),
        Due::At(time) => time.max(now),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
