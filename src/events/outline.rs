//! Where in a batch which event lies, and which task it speaks of.
//!
//! A watcher that is interested in some events only must not decode all of them:
//! there may be a thousand such watchers, and very many events. So a batch is
//! parsed once, when the first of them asks, and all of them look things up in
//! the same outline. It reads the encoded bytes, so that batches of the broadcast
//! and of history are alike.

use std::ops::Range;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::batch::entry_length;
use crate::task::TaskId;

/// The outline of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    events: Vec<EventOutline>,
    /// The events of tasks: the task's number and the event's place, sorted.
    by_task: Vec<(u64, u32)>,
}

/// What the outline knows of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventOutline {
    /// Its bytes in the batch, with tag and length.
    pub bytes: Range<usize>,
    /// Its type, a number of `taskyard.v1.EventType`.
    pub event_type: i32,
    /// The number of the task that it speaks of, if it does of one.
    pub task: Option<u64>,
}

impl Outline {
    /// Parses a batch; `None` if it is damaged.
    #[must_use]
    pub(super) fn of(data: &[u8]) -> Option<Self> {
        let mut events = Vec::new();
        let mut start = 0;
        while start < data.len() {
            let end = start + entry_length(&data[start..])?;
            let (event_type, task) = parse(&data[start..end])?;
            events.push(EventOutline { bytes: start..end, event_type, task });
            start = end;
        }
        let places = (0u32..).zip(&events);
        let mut by_task: Vec<_> =
            places.filter_map(|(at, event)| event.task.map(|task| (task, at))).collect();
        by_task.sort_unstable();
        Some(Self { events, by_task })
    }

    /// All events, in order.
    pub fn events(&self) -> &[EventOutline] {
        &self.events
    }

    /// The events of the task of this number, in order, each with its place in
    /// the batch.
    pub fn of_task(&self, number: u64) -> impl Iterator<Item = (usize, &EventOutline)> {
        let first = self.by_task.partition_point(|(task, _)| *task < number);
        let of_task = self.by_task[first..].iter().take_while(move |(task, _)| *task == number);
        of_task.filter_map(|(_, at)| {
            let at = usize::try_from(*at).ok()?;
            Some((at, self.events.get(at)?))
        })
    }
}

/// The type and the task of an encoded event with its tag and length.
fn parse(entry: &[u8]) -> Option<(i32, Option<u64>)> {
    let mut rest = entry.get(1..)?;
    decode_varint(&mut rest).ok()?;
    let (mut event_type, mut task) = (0, None);
    while !rest.is_empty() {
        let (field, wire_type) = decode_key(&mut rest).ok()?;
        match (field, wire_type) {
            (3, WireType::Varint) => {
                event_type = i32::try_from(decode_varint(&mut rest).ok()?).ok()?;
            }
            (4, WireType::LengthDelimited) => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let id = std::str::from_utf8(rest.get(..length)?).ok()?;
                task = Some(id.parse::<TaskId>().ok()?.number());
                rest = &rest[length..];
            }
            // Fields stand in the order of their numbers: what follows is not needed.
            (5.., _) => break,
            _ => skip_field(wire_type, field, &mut rest, DecodeContext::default()).ok()?,
        }
    }
    Some((event_type, task))
}
