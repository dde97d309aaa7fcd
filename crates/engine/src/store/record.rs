//! The formats of what rows hold: protobuf, so that fields can be added.
//!
//! These are on disk. A field's number and meaning never change; a field that
//! is no longer written keeps its number reserved here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Buf, BufMut};
use prost::{
    Message as _,
    encoding::{DecodeContext, WireType, double, skip_field, uint64},
};

use super::{
    Exit, Output, OutputStream,
    journal::{LiveHead, NewTaskRow},
};
use crate::{
    queue::{Field, Kind, Overrides, Rate, Value},
    task::{Data, NewTask, RetryPolicy, TaskBody, Timestamp},
};

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

/// `queue.overrides`: the settings that an operator has changed, by the numbers that
/// [`Field::record_number`] gives them. Counts are whole numbers, spans whole microseconds,
/// and of a rate there are the starts per second and the burst; each is there if its
/// setting was changed. For limits that can be lifted, 0 means that they are.
#[derive(Debug, Default, PartialEq)]
pub struct QueueRecord(BTreeMap<u32, Number>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Number {
    /// `uint64`, which is read and written as `uint32` is.
    Whole(u64),
    /// `double`
    Real(f64),
}

impl QueueRecord {
    /// As bytes for the row.
    pub fn to_bytes(overrides: &Overrides) -> Vec<u8> {
        let mut record = Self::default();
        for field in Field::ALL {
            let number = field.record_number();
            let first = match overrides.get(field) {
                None => continue,
                Some(Value::Count(count)) => Number::Whole(count),
                Some(Value::Duration(span)) => Number::Whole(micros(span)),
                Some(Value::Rate(None)) => Number::Real(0.0),
                Some(Value::Rate(Some(Rate { per_second, burst }))) => {
                    record.0.insert(number + 1, Number::Whole(burst.into()));
                    Number::Real(per_second)
                }
            };
            record.0.insert(number, first);
        }
        record.encode_to_vec()
    }

    /// From the bytes of a row.
    pub fn from_bytes(bytes: &[u8]) -> Result<Overrides, prost::DecodeError> {
        let record = Self::decode(bytes)?;
        let mut overrides = Overrides::default();
        for field in Field::ALL {
            overrides.set(field, record.value(field));
        }
        Ok(overrides)
    }

    fn value(&self, field: Field) -> Option<Value> {
        let number = field.record_number();
        let whole = |number| match self.0.get(&number) {
            Some(Number::Whole(whole)) => Some(*whole),
            _ => None,
        };
        match (field.kind(), self.0.get(&number)?) {
            (Kind::Rate, Number::Real(per_second)) => {
                let burst = whole(number + 1).unwrap_or_default().max(1);
                let burst = u32::try_from(burst).unwrap_or(u32::MAX);
                let rate = Rate { per_second: *per_second, burst };
                Some(Value::Rate(Some(rate).filter(|rate| rate.per_second > 0.0)))
            }
            (Kind::Duration(_), Number::Whole(micros)) => {
                Some(Value::Duration(Duration::from_micros(*micros)))
            }
            (_, Number::Whole(count)) => Some(Value::Count(*count)),
            (_, Number::Real(_)) => None,
        }
    }

    /// What the record has under `number`, as a zero; nothing if no setting has it.
    fn shape(number: u32) -> Option<Number> {
        Field::ALL.into_iter().find_map(|field| match (field.kind(), field.record_number()) {
            (Kind::Rate, rate) if number == rate => Some(Number::Real(0.0)),
            (Kind::Rate, rate) if number == rate + 1 => Some(Number::Whole(0)),
            (_, own) if number == own => Some(Number::Whole(0)),
            _ => None,
        })
    }
}

/// As the derived one of a message with all of these fields would be.
impl prost::Message for QueueRecord {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        for (number, value) in &self.0 {
            match value {
                Number::Whole(whole) => uint64::encode(*number, whole, buffer),
                Number::Real(real) => double::encode(*number, real, buffer),
            }
        }
    }

    fn merge_field(
        &mut self,
        number: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        let Some(mut value) = Self::shape(number) else {
            return skip_field(wire_type, number, buffer, context);
        };
        match &mut value {
            Number::Whole(whole) => uint64::merge(wire_type, whole, buffer, context)?,
            Number::Real(real) => double::merge(wire_type, real, buffer, context)?,
        }
        self.0.insert(number, value);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        let len = |(number, value): (&u32, &Number)| match value {
            Number::Whole(whole) => uint64::encoded_len(*number, whole),
            Number::Real(real) => double::encoded_len(*number, real),
        };
        self.0.iter().map(len).sum()
    }

    fn clear(&mut self) {
        self.0.clear();
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

    #[test]
    fn changes_of_a_queue_come_back_as_they_went() {
        let all = Overrides {
            max_tasks: Some(7),
            max_bytes: Some(1 << 20),
            max_running: Some(Some(3)),
            rate: Some(Some(Rate { per_second: 0.5, burst: 9 })),
            weight: Some(10),
            max_attempts: Some(4),
            initial_backoff: Some(Duration::from_millis(5)),
            max_backoff: Some(Duration::from_secs(5)),
            attempt_timeout: Some(Duration::from_mins(5)),
        };
        let lifted =
            Overrides { max_running: Some(None), rate: Some(None), ..Overrides::default() };
        for overrides in [all, lifted, Overrides::default()] {
            let bytes = QueueRecord::to_bytes(&overrides);
            assert_eq!(QueueRecord::from_bytes(&bytes), Ok(overrides));
        }
    }

    #[test]
    fn what_no_setting_has_is_passed_over_and_what_is_none_is_damage() {
        let weight = QueueRecord::to_bytes(&Overrides { weight: Some(3), ..Overrides::default() });
        let mut later = weight.clone();
        uint64::encode(1_000, &7, &mut later);
        double::encode(1_001, &0.5, &mut later);
        assert_eq!(QueueRecord::from_bytes(&later), QueueRecord::from_bytes(&weight));
        let mut wrong = Vec::new();
        double::encode(Field::Weight.record_number(), &3.0, &mut wrong);
        for damaged in [&wrong, &later[..later.len() - 1]] {
            assert!(QueueRecord::from_bytes(damaged).is_err(), "{damaged:?}");
        }
    }
}
