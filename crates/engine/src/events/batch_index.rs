//! Where in a batch which event lies, and what a watcher may ask of it.
//!
//! A watcher that is interested in some events only must not decode all of them:
//! there may be a thousand such watchers, and very many events. So a batch is
//! parsed once, when the first of them asks, and all of them look things up in
//! the same index. It reads the encoded bytes, so that batches of the broadcast
//! and of history are alike.

use std::ops::Range;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::batch::entry_length;
use crate::task::TaskId;

/// The index of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchIndex {
    events: Vec<IndexedEvent>,
    /// The events of tasks: the task's number and the event's place, sorted.
    by_task: Vec<(u64, u32)>,
}

/// What the index knows of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedEvent {
    /// Its bytes in the batch, with tag and length.
    pub bytes: Range<usize>,
    /// Its type, a number of `taskyard.v1.EventType`.
    pub event_type: i32,
    /// The task that it speaks of, if it does of one.
    pub task: Option<TaskId>,
    /// The name of its queue.
    pub queue: Span,
    /// The name of its kind.
    pub kind: Span,
    /// The name of its worker.
    pub worker: Span,
    /// Its labels: all entries of the map, each with tag and length.
    pub labels: Span,
}

/// Bytes of a batch: half the size of a range, as very many are kept. Empty if the
/// event has no such field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn new(bytes: &Range<usize>) -> Option<Self> {
        let length = u32::try_from(bytes.len()).ok()?;
        Some(Self { start: u32::try_from(bytes.start).ok()?, length })
    }

    /// These bytes of the batch's data.
    #[must_use]
    pub fn of(self, data: &[u8]) -> &[u8] {
        let start = self.start as usize;
        data.get(start..start + self.length as usize).unwrap_or_default()
    }
}

impl BatchIndex {
    /// Parses a batch; `None` if it is damaged.
    #[must_use]
    pub(super) fn of(data: &[u8]) -> Option<Self> {
        let mut events = Vec::new();
        let mut start = 0;
        while start < data.len() {
            let end = start + entry_length(&data[start..])?;
            events.push(parse(data, start..end)?);
            start = end;
        }
        let places = (0u32..).zip(&events);
        let mut by_task: Vec<_> =
            places.filter_map(|(at, event)| event.task.map(|task| (task.number(), at))).collect();
        by_task.sort_unstable();
        Some(Self { events, by_task })
    }

    /// All events, in order.
    pub fn events(&self) -> &[IndexedEvent] {
        &self.events
    }

    /// The events of the task of this number, in order, each with its place in
    /// the batch.
    pub fn of_task(&self, number: u64) -> impl Iterator<Item = (usize, &IndexedEvent)> {
        let first = self.by_task.partition_point(|(task, _)| *task < number);
        let of_task = self.by_task[first..].iter().take_while(move |(task, _)| *task == number);
        of_task.filter_map(|(_, at)| {
            let at = usize::try_from(*at).ok()?;
            Some((at, self.events.get(at)?))
        })
    }
}

/// The index of the encoded event that lies at `bytes`, with its tag and length.
fn parse(data: &[u8], bytes: Range<usize>) -> Option<IndexedEvent> {
    let end = bytes.end;
    let mut event = IndexedEvent {
        bytes: bytes.clone(),
        event_type: 0,
        task: None,
        queue: Span::default(),
        kind: Span::default(),
        worker: Span::default(),
        labels: Span::default(),
    };
    let mut rest = data.get(bytes.start + 1..end)?;
    decode_varint(&mut rest).ok()?;
    while !rest.is_empty() {
        let key_at = end - rest.len();
        let (field, wire_type) = decode_key(&mut rest).ok()?;
        match (field, wire_type) {
            (3, WireType::Varint) => {
                event.event_type = i32::try_from(decode_varint(&mut rest).ok()?).ok()?;
            }
            (4..=6 | 8, WireType::LengthDelimited) => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let text = rest.get(..length)?;
                let span = end - rest.len()..end - rest.len() + length;
                match field {
                    4 => event.task = Some(std::str::from_utf8(text).ok()?.parse().ok()?),
                    5 => event.queue = Span::new(&span)?,
                    6 => event.kind = Span::new(&span)?,
                    _ => event.worker = Span::new(&span)?,
                }
                rest = &rest[length..];
            }
            // Fields stand in the order of their numbers: nothing else follows.
            (13, WireType::LengthDelimited) => {
                event.labels = Span::new(&(key_at..end))?;
                break;
            }
            _ => skip_field(wire_type, field, &mut rest, DecodeContext::default()).ok()?,
        }
    }
    Some(event)
}
