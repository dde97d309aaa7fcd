//! The formats of what rows hold: protobuf, so that fields can be added.
//!
//! These are on disk. A field's number and meaning never change; a field that
//! is no longer written keeps its number reserved here.

mod queue;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message as _;

use super::{
    Exit, Output, OutputStream,
    journal::{LiveHead, NewTaskRow},
};
use crate::task::{Data, NewTask, RetryPolicy, TaskBody, Timestamp};

pub use queue::QueueRecord;

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
    // 8 were the labels, and 9 was the request_id, in format 1; they are columns now.
}

/// `task.labels`, and `live.labels` of those that have such a row: NULL if there are none. Their number is that of
/// `taskyard.v1.Event.labels`, so that the events of a task carry these bytes as
/// they are.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LabelsRecord {
    #[prost(btree_map = "string, string", tag = "13")]
    labels: BTreeMap<String, String>,
}

/// The labels in a record of format 1.
#[derive(Clone, PartialEq, prost::Message)]
struct LabelsOfFormat1 {
    #[prost(btree_map = "string, string", tag = "8")]
    labels: BTreeMap<String, String>,
}

impl LabelsRecord {
    /// As bytes for the row.
    pub fn to_bytes(labels: &BTreeMap<String, String>) -> Option<Vec<u8>> {
        (!labels.is_empty()).then(|| Self { labels: labels.clone() }.encode_to_vec())
    }

    /// From the bytes of a row.
    pub fn from_bytes(
        bytes: Option<&[u8]>,
    ) -> Result<BTreeMap<String, String>, prost::DecodeError> {
        bytes.map_or(Ok(BTreeMap::new()), |bytes| Self::decode(bytes).map(|record| record.labels))
    }

    /// From a record of format 1, in which they had another number.
    pub fn from_format_1(record: &[u8]) -> Option<Vec<u8>> {
        let record = LabelsOfFormat1::decode(record).ok()?;
        Self::to_bytes(&record.labels)
    }
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
            payload: match &task.body.payload {
                Data::Empty => None,
                Data::Json(text) => Some(DataRecord::Json(text.to_string())),
                Data::Bytes(bytes) => Some(DataRecord::Bytes(bytes.clone())),
            },
            timeout_micros: micros(task.body.timeout),
            priority: task.priority,
            max_attempts: task.retry.max_attempts,
            initial_backoff_micros: micros(task.retry.initial_backoff),
            max_backoff_micros: micros(task.retry.max_backoff),
        }
    }

    /// How often the task is tried.
    pub fn retry(&self) -> RetryPolicy {
        RetryPolicy {
            max_attempts: self.max_attempts,
            initial_backoff: Duration::from_micros(self.initial_backoff_micros),
            max_backoff: Duration::from_micros(self.max_backoff_micros),
        }
    }

    /// Takes out what the engine does not look at.
    pub fn take_body(&mut self) -> TaskBody {
        TaskBody {
            payload: match self.payload.take() {
                None => Data::Empty,
                Some(DataRecord::Json(text)) => Data::Json(text.into()),
                Some(DataRecord::Bytes(bytes)) => Data::Bytes(bytes),
            },
            timeout: Duration::from_micros(self.timeout_micros),
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

/// `pack.data`: tasks as they were submitted, each with what decides its turn.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PackRecord {
    /// Of queues and kinds.
    #[prost(string, repeated, tag = "1")]
    names: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    heads: Vec<HeadRecord>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct HeadRecord {
    /// Its number, counted from that of the pack.
    #[prost(uint32, tag = "1")]
    offset: u32,
    /// The place of its queue among the names, and of its kind.
    #[prost(uint32, tag = "2")]
    queue: u32,
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(sint32, tag = "4")]
    priority: i32,
    #[prost(int64, tag = "5")]
    due_micros: i64,
    /// Not set for a task that is due at a time.
    #[prost(uint64, optional, tag = "6")]
    interval_micros: Option<u64>,
    #[prost(uint64, tag = "7")]
    bytes: u64,
    #[prost(uint32, tag = "8")]
    max_attempts: u32,
    #[prost(bool, tag = "9")]
    has_labels: bool,
}

impl PackRecord {
    /// Adds a task to the pack of this number.
    pub fn push(&mut self, pack: u64, new: &NewTaskRow) {
        let (queue, kind) = (self.name(&new.task.queue), self.name(&new.task.kind));
        self.heads.push(HeadRecord {
            offset: u32::try_from(new.task.number.saturating_sub(pack)).unwrap_or(u32::MAX),
            queue,
            kind,
            priority: new.priority,
            due_micros: new.due.0,
            interval_micros: new.interval.map(micros),
            bytes: new.bytes,
            max_attempts: new.max_attempts,
            has_labels: new.task.labels.is_some(),
        });
    }

    /// There are few of them.
    fn name(&mut self, name: &str) -> u32 {
        let known = self.names.iter().position(|known| known == name);
        let place = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// As bytes for the row.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// The tasks of the pack of this number, from the bytes of its row.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn heads(pack: u64, bytes: &[u8]) -> Result<Vec<LiveHead>, String> {
        let Self { names, heads } = Self::decode(bytes).map_err(|error| error.to_string())?;
        let names: Vec<Arc<str>> = names.into_iter().map(Arc::from).collect();
        let name = |at: u32| names.get(at as usize).cloned().ok_or("a name is missing");
        let head = |head: HeadRecord| -> Result<LiveHead, String> {
            Ok(LiveHead {
                number: pack + u64::from(head.offset),
                queue: name(head.queue)?,
                kind: name(head.kind)?,
                priority: head.priority,
                due: Timestamp(head.due_micros),
                interval: head.interval_micros.map(Duration::from_micros),
                bytes: head.bytes,
                max_attempts: head.max_attempts,
                attempt: 0,
                failures: 0,
                crashes: 0,
                cancel_requested: false,
                has_labels: head.has_labels,
            })
        };
        heads.into_iter().map(head).collect()
    }
}

/// `output.data`: what an execution wrote, and how its process ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutputRecord {
    #[prost(bytes = "bytes", tag = "1")]
    stdout: bytes::Bytes,
    #[prost(uint64, tag = "2")]
    stdout_dropped: u64,
    #[prost(bytes = "bytes", tag = "3")]
    stderr: bytes::Bytes,
    #[prost(uint64, tag = "4")]
    stderr_dropped: u64,
    #[prost(oneof = "ExitRecord", tags = "5, 6")]
    exit: Option<ExitRecord>,
}

#[derive(Clone, Copy, PartialEq, prost::Oneof)]
enum ExitRecord {
    #[prost(int32, tag = "5")]
    Code(i32),
    #[prost(int32, tag = "6")]
    Signal(i32),
}

impl OutputRecord {
    /// As bytes for the row.
    pub fn to_bytes(output: &Output) -> Vec<u8> {
        let exit = output.exit.map(|exit| match exit {
            Exit::Code(code) => ExitRecord::Code(code),
            Exit::Signal(signal) => ExitRecord::Signal(signal),
        });
        let Output { stdout, stderr, .. } = output;
        let record = Self {
            stdout: stdout.bytes.clone(),
            stdout_dropped: stdout.dropped,
            stderr: stderr.bytes.clone(),
            stderr_dropped: stderr.dropped,
            exit,
        };
        record.encode_to_vec()
    }

    /// From the bytes of a row.
    pub fn from_bytes(bytes: &[u8]) -> Result<Output, prost::DecodeError> {
        let record = Self::decode(bytes)?;
        Ok(Output {
            stdout: OutputStream { bytes: record.stdout, dropped: record.stdout_dropped },
            stderr: OutputStream { bytes: record.stderr, dropped: record.stderr_dropped },
            exit: record.exit.map(|exit| match exit {
                ExitRecord::Code(code) => Exit::Code(code),
                ExitRecord::Signal(signal) => Exit::Signal(signal),
            }),
        })
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

/// A span as columns and records have it.
pub fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_come_back_as_they_went() {
        let stream = |bytes: &'static [u8], dropped| OutputStream { bytes: bytes.into(), dropped };
        for exit in [None, Some(Exit::Code(0)), Some(Exit::Code(-7)), Some(Exit::Signal(9))] {
            let output = Output { stdout: stream(b"", 0), stderr: stream(b"\xff\0", 3), exit };
            assert_eq!(OutputRecord::from_bytes(&OutputRecord::to_bytes(&output)), Ok(output));
        }
    }
}
