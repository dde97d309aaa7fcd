//! What one watcher saw, and whether that is what it should have seen.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    ops::RangeInclusive,
};

use prost::Message as _;
use taskyard::{
    client::Start,
    events::Cursor,
    proto::v1::{Event, EventFilter, Task},
};

use crate::watch_checker::{MAX_EVENTS, audit::Count, log::Log};

/// Events that retention may take beyond what it must, as commits are kept or gone as a
/// whole, and those of which the auditor does not know yet.
const SLACK: u64 = 1_000;

/// What a watcher notes.
#[derive(Clone, Debug)]
enum Note {
    /// An event, by its number and all that it says.
    Saw(u64, u64),
    /// It was told that these are missing.
    Gap(RangeInclusive<u64>),
}

impl Note {
    fn gap(&self) -> Option<&RangeInclusive<u64>> {
        match self {
            Self::Gap(range) => Some(range),
            Self::Saw(..) => None,
        }
    }

    fn saw(&self) -> Option<(u64, u64)> {
        match self {
            Self::Saw(seq, whole) => Some((*seq, *whole)),
            Self::Gap(_) => None,
        }
    }
}

/// A watcher's notes.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub name: String,
    filter: Option<EventFilter>,
    /// The watch began after the event with this number.
    from: Option<u64>,
    /// It must not begin before.
    earliest: u64,
    /// It is to begin with the first event, as long as that is kept.
    is_of_all: bool,
    /// It was told everything up to the event with this number.
    reached: u64,
    notes: Vec<Note>,
    /// How often it was told that it had not read.
    pub stalls: usize,
    count: Count,
    snapshot: Option<HashMap<String, Task>>,
}

impl Record {
    pub fn new(name: String, filter: Option<EventFilter>, count: Count) -> Self {
        Self { name, filter, count, ..Self::default() }
    }

    /// It begins with the oldest event, or with the next one.
    pub fn begins(&mut self, start: &Start) {
        self.earliest = match start {
            Start::Live => self.count.now(),
            _ => 0,
        };
        self.is_of_all = *start == Start::Oldest;
    }

    /// A message told this cursor: the first one is where the watch begins. Before there
    /// is anything to go on after, it is empty.
    pub fn reached(&mut self, cursor: &str) {
        if cursor.is_empty() {
            return;
        }
        let seq = number(cursor);
        self.start_at(seq);
        assert!(seq >= self.reached, "{}: the cursor went back to {cursor}", self.name);
        self.reached = seq;
    }

    pub fn has_reached(&self, last: u64) -> bool {
        self.from.is_some() && self.reached >= last
    }

    /// Events came in one message.
    pub fn saw(&mut self, events: &[Event]) {
        if let Some(first) = events.first() {
            self.start_at(first.seq - 1);
        }
        self.notes.extend(events.iter().map(|event| Note::Saw(event.seq, whole(event))));
    }

    fn start_at(&mut self, seq: u64) {
        if self.from.is_some() {
            return;
        }
        self.from = Some(seq);
        assert!(seq >= self.earliest, "{}: it began with what was long past", self.name);
        let oldest = if self.is_of_all { self.oldest() } else { u64::MAX };
        assert!(seq <= oldest, "{}: it began after {seq}, and there is older", self.name);
    }

    /// Everything after this number is still kept, and perhaps more.
    fn oldest(&self) -> u64 {
        (self.count.now() + SLACK).saturating_sub(MAX_EVENTS)
    }

    /// It was told that what lies between two cursors is missing.
    pub fn gap(&mut self, from: &str, to: &str) {
        let oldest = self.oldest();
        assert!(number(to) <= oldest, "{}: a gap up to {to} that is none", self.name);
        self.notes.push(Note::Gap(number(from) + 1..=number(to)));
        self.reached = number(to);
    }

    /// A snapshot was complete.
    pub fn snapshot(&mut self, tasks: HashMap<String, Task>, cursor: &str) {
        self.snapshot = Some(tasks);
        self.from = Some(number(cursor));
        self.reached = number(cursor);
    }

    /// How many gaps it was told of.
    pub fn gaps(&self) -> usize {
        self.notes.iter().filter_map(Note::gap).count()
    }

    /// Compares with what happened; how many events it saw.
    pub fn check(&self, log: &Log) -> usize {
        let Some(from) = self.from else {
            assert!(self.notes.is_empty(), "{}: it saw things before it began", self.name);
            return 0;
        };
        let gaps: Vec<_> = self.notes.iter().filter_map(Note::gap).collect();
        let expected = (from + 1..=self.reached)
            .filter(|seq| !gaps.iter().any(|gap| gap.contains(seq)))
            .map(|seq| log.event(seq))
            .filter(|event| self.filter.as_ref().is_none_or(|filter| lets_through(filter, event)))
            .map(|event| (event.seq, whole(event)));
        let saw = self.notes.iter().filter_map(Note::saw);
        let (expected, saw): (Vec<_>, Vec<_>) = (expected.collect(), saw.collect());
        if let Some(place) =
            (0..expected.len().max(saw.len())).find(|&n| expected.get(n) != saw.get(n))
        {
            panic!(
                "{}: it should see {:?} as its event {place} and saw {:?}; {} should have been, {} were; \
                 filter {:?}, from {from} to {}, gaps {gaps:?}",
                self.name,
                expected.get(place),
                saw.get(place),
                expected.len(),
                saw.len(),
                self.filter,
                self.reached,
            );
        }
        if let Some(tasks) = &self.snapshot {
            self.check_snapshot(tasks, from, log);
        }
        saw.len()
    }

    /// A task that lived when the snapshot began is in it, or has gone on since. One that
    /// is in it lived then, or came since.
    fn check_snapshot(&self, tasks: &HashMap<String, Task>, from: u64, log: &Log) {
        let lives = log.lives(from);
        let since: HashSet<_> =
            (from + 1..=log.len() as u64).map(|seq| log.event(seq).task_id.as_str()).collect();
        let is_meant = |queue: &str| {
            self.filter.as_ref().is_none_or(|filter| {
                filter.queues.is_empty() || filter.queues.iter().any(|name| name == queue)
            })
        };
        let queues: HashMap<_, _> = (1..=from)
            .map(|seq| log.event(seq))
            .map(|event| (event.task_id.as_str(), event.queue.as_str()))
            .collect();
        for (task_id, life) in &lives {
            if life.is_live() && is_meant(queues[task_id]) && !since.contains(task_id) {
                assert!(tasks.contains_key(*task_id), "{}: no {task_id}, {life:?}", self.name);
            }
        }
        for (task_id, task) in tasks {
            let was_there = lives.get(task_id.as_str()).is_some_and(|life| life.is_live());
            let came = since.contains(task_id.as_str());
            assert!(was_there || came, "{}: {task_id} had ended: {task:?}", self.name);
            assert!(is_meant(&task.queue), "{}: {task_id} was not asked for", self.name);
        }
    }
}

fn number(cursor: &str) -> u64 {
    cursor.parse::<Cursor>().unwrap_or_else(|_| panic!("{cursor:?} is no cursor")).seq().0
}

/// All that an event says, as one number.
fn whole(event: &Event) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.encode_to_vec().hash(&mut hasher);
    hasher.finish()
}

/// Whether a filter means this event: written anew, from the comments of the proto.
fn lets_through(filter: &EventFilter, event: &Event) -> bool {
    let any = |names: &[String], name: &String| names.is_empty() || names.contains(name);
    any(&filter.queues, &event.queue)
        && any(&filter.kinds, &event.kind)
        && any(&filter.task_ids, &event.task_id)
        && any(&filter.workers, &event.worker)
        && (filter.types.is_empty() || filter.types.contains(&event.r#type))
        && filter.labels.iter().all(|(key, value)| event.labels.get(key) == Some(value))
}
