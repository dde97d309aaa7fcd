//! Which events a watcher wants, and how they are taken out of a batch.
//!
//! A filter compares bytes: names with the bytes of the encoded event, and each
//! label with the whole entry of the map, as every entry is encoded in one way. So
//! it decodes nothing.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use std::{collections::BTreeMap, ops::Range};

use super::{BatchIndex, EventBatch, IndexedEvent, batch::entry_length};
use crate::{event::Seq, proto::v1, task::TaskId};

/// What a watcher asks for. What is set must all match; what is empty matches any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilterSpec {
    /// Any of these queues.
    pub queues: Vec<String>,
    /// Any of these kinds.
    pub kinds: Vec<String>,
    /// Any of these tasks.
    pub tasks: Vec<TaskId>,
    /// Any of these types: numbers of `taskyard.v1.EventType`.
    pub types: Vec<i32>,
    /// Any of these workers, by their names.
    pub workers: Vec<String>,
    /// All of these labels.
    pub labels: BTreeMap<String, String>,
}

/// A specification, made ready to be compared with very many events.
#[derive(Clone, Debug)]
pub struct EventFilter {
    /// A bit for each type; all are set if any type will do.
    types: u64,
    /// Sorted; empty if any task will do.
    tasks: Box<[TaskId]>,
    queues: Names,
    kinds: Names,
    workers: Names,
    /// Entries of the map, encoded, in the order of their keys.
    labels: Box<[Box<[u8]>]>,
}

type Names = Box<[Box<str>]>;

/// What a filter takes out of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The events, encoded as they are in the batch.
    pub events: Bytes,
    /// How many they are.
    pub count: u64,
    /// The last event that was looked at: the batch's last one, unless what was
    /// selected has reached the limit.
    pub upto: Seq,
}

impl EventFilter {
    /// Makes a filter; `None` if everything is wanted.
    #[must_use]
    pub fn new(spec: EventFilterSpec) -> Option<Self> {
        if spec == EventFilterSpec::default() {
            return None;
        }
        let bit = |number: &i32| u32::try_from(*number).ok().and_then(|bit| 1u64.checked_shl(bit));
        let types = match spec.types.as_slice() {
            [] => u64::MAX,
            types => types.iter().filter_map(bit).fold(0, |all, bit| all | bit),
        };
        let names = |names: Vec<String>| names.into_iter().map(String::into_boxed_str).collect();
        let mut tasks = spec.tasks;
        tasks.sort_unstable();
        tasks.dedup();
        let entry = |(key, value)| {
            let labels = BTreeMap::from([(key, value)]);
            v1::Event { labels, ..v1::Event::default() }.encode_to_vec().into_boxed_slice()
        };
        Some(Self {
            types,
            tasks: tasks.into_boxed_slice(),
            queues: names(spec.queues),
            kinds: names(spec.kinds),
            workers: names(spec.workers),
            labels: spec.labels.into_iter().map(entry).collect(),
        })
    }

    /// Takes the matching events after `after` out of a batch, up to `max_bytes` (or
    /// one event). `None` if the batch is damaged.
    #[must_use]
    pub fn select(&self, batch: &EventBatch, after: Seq, max_bytes: usize) -> Option<Selection> {
        let index = batch.index()?;
        let data: &[u8] = batch.data();
        let (mut runs, mut bytes, mut count) = (Vec::<Range<usize>>::new(), 0, 0);
        let mut upto = batch.last();
        let mut take = |at: usize, event: &IndexedEvent| {
            let seq = Seq(batch.first().0 + at as u64);
            if seq <= after || !self.wants(event, data) {
                return true;
            }
            if count > 0 && bytes + event.bytes.len() > max_bytes {
                upto = seq.previous();
                return false;
            }
            bytes += event.bytes.len();
            count += 1;
            match runs.last_mut() {
                Some(run) if run.end == event.bytes.start => run.end = event.bytes.end,
                _ => runs.push(event.bytes.clone()),
            }
            true
        };
        if self.tasks.is_empty() {
            index.events().iter().enumerate().all(|(at, event)| take(at, event));
        } else {
            self.of_tasks(index).into_iter().all(|(at, event)| take(at, event));
        }
        Some(Selection { events: joined(batch.data(), &runs, bytes), count, upto })
    }

    /// The events of the wanted tasks, in order: each task is looked up, or each event,
    /// whichever are fewer.
    fn of_tasks<'i>(&self, index: &'i BatchIndex) -> Vec<(usize, &'i IndexedEvent)> {
        if index.events().len() < self.tasks.len() {
            let is_wanted = |event: &IndexedEvent| {
                event.task.is_some_and(|task| self.tasks.binary_search(&task).is_ok())
            };
            let events = index.events().iter().enumerate();
            return events.filter(|(_, event)| is_wanted(event)).collect();
        }
        let of_task = |task: &TaskId| {
            // The number leads to it, and the tag tells it from another store's.
            let task = *task;
            index.of_task(task.number()).filter(move |(_, event)| event.task == Some(task))
        };
        let mut events: Vec<_> = self.tasks.iter().flat_map(of_task).collect();
        events.sort_unstable_by_key(|(at, _)| *at);
        events
    }

    /// Whether it matches in everything but the task.
    fn wants(&self, event: &IndexedEvent, data: &[u8]) -> bool {
        let bit = u32::try_from(event.event_type).ok().and_then(|bit| 1u64.checked_shl(bit));
        let any_type = self.types == u64::MAX;
        (any_type || bit.is_some_and(|bit| self.types & bit != 0))
            && names(&self.queues, event.queue.of(data))
            && names(&self.kinds, event.kind.of(data))
            && names(&self.workers, event.worker.of(data))
            && has_entries(event.labels.of(data), &self.labels)
    }
}

fn names(wanted: &[Box<str>], name: &[u8]) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| wanted.as_bytes() == name)
}

/// Whether all of `wanted` are among the entries that `labels` consists of. Both are in
/// the order of their keys, so that one pass over them tells.
fn has_entries(labels: &[u8], wanted: &[Box<[u8]>]) -> bool {
    let mut rest = labels;
    wanted.iter().all(|wanted| {
        while let Some(length) = entry_length(rest) {
            let (entry, after) = rest.split_at(length);
            rest = after;
            if entry == &**wanted {
                return true;
            }
        }
        false
    })
}

/// A single run is shared, several are copied together.
fn joined(data: &Bytes, runs: &[Range<usize>], bytes: usize) -> Bytes {
    match runs {
        [] => Bytes::new(),
        [run] => data.slice(run.clone()),
        runs => {
            let mut joined = BytesMut::with_capacity(bytes);
            for run in runs {
                joined.extend_from_slice(data.get(run.clone()).unwrap_or_default());
            }
            joined.freeze()
        }
    }
}

#[cfg(test)]
mod tests;
