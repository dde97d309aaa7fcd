//! What a group changes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    AttemptRow, EndedRow, FinishRow, LiveRow, NewTaskRow, OutputRow, QueueRow, RequestRow, SlotRow,
};
use crate::{
    event::Seq,
    events::{EventBatch, Incarnation},
    store::{clock::Uptime, engine::ByNumber},
    task::WorkerId,
};

/// All that a group changes: of each row only how it is after the group. A journal writes it
/// as a whole.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// Which of its engine's sets it is, counted from 1: one that is tried again keeps it, and
    /// differs in uptimes at most, which are then later. A journal of which a commit's outcome can
    /// be unknown tells by it whether the set is there.
    pub number: u64,
    /// Process starts that begin, and those that are forgotten.
    pub starts: Vec<Incarnation>,
    pub forgotten_starts: Vec<Incarnation>,
    /// New tasks, in ascending order of their numbers.
    pub tasks: Vec<NewTaskRow>,
    /// Tasks that have not ended and are not as they were submitted, by number; `None` for those
    /// that have ended.
    pub live: ByNumber<Option<LiveRow>>,
    /// Tasks that have ended, likewise.
    pub finished: ByNumber<Option<FinishRow>>,
    /// Executions that have ended, in their order. Of a task's, those are forgotten with each
    /// that are `MAX_ATTEMPTS_KEPT` older. One that is there already stays as it is.
    pub attempts: Vec<AttemptRow>,
    pub outputs: Vec<OutputRow>,
    /// By `request_id`.
    pub requests: HashMap<Arc<str>, RequestRow>,
    /// By worker; `None` for those that run nothing any more.
    pub slots: HashMap<WorkerId, Option<SlotRow>>,
    /// New rows of tasks that have ended.
    pub ended: Vec<EndedRow>,
    /// Rows of tasks that ended before, with those that are left; without any they go.
    pub shortened: BTreeMap<i64, EndedRow>,
    /// Tasks that have ended of which nothing is kept any more, with their `request_id`.
    pub trimmed: ByNumber<Option<String>>,
    pub events: Vec<(EventBatch, Uptime)>,
    /// Batches of events that are not kept any more, by their first.
    pub trimmed_events: Vec<Seq>,
    /// By queue.
    pub tallies: HashMap<Arc<str>, TallyChange>,
    /// By name; `None` for those about which nothing is changed any more.
    pub queues: HashMap<Arc<str>, Option<QueueRow>>,
    /// Facts about the store.
    pub meta: BTreeMap<&'static str, Vec<u8>>,
}

/// What becomes of what a queue's rows count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TallyChange {
    /// What was there goes first.
    pub forget: bool,
    /// Tasks and bytes, by the place of the state among the ends.
    pub counts: Option<[(u64, u64); 3]>,
}

impl WriteSet {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        let Self {
            number: _,
            starts,
            forgotten_starts,
            tasks,
            live,
            finished,
            attempts,
            outputs,
            requests,
            slots,
            ended,
            shortened,
            trimmed,
            events,
            trimmed_events,
            tallies,
            queues,
            meta,
        } = self;
        starts.is_empty()
            && forgotten_starts.is_empty()
            && tasks.is_empty()
            && live.is_empty()
            && finished.is_empty()
            && attempts.is_empty()
            && outputs.is_empty()
            && requests.is_empty()
            && slots.is_empty()
            && ended.is_empty()
            && shortened.is_empty()
            && trimmed.is_empty()
            && events.is_empty()
            && trimmed_events.is_empty()
            && tallies.is_empty()
            && queues.is_empty()
            && meta.is_empty()
    }

    /// A new task of this number.
    pub fn new_task(&self, number: u64) -> Option<&NewTaskRow> {
        let at = self.tasks.binary_search_by_key(&number, |new| new.task.number).ok()?;
        self.tasks.get(at)
    }

    /// Whether the task of this number is new.
    pub fn is_new(&self, number: u64) -> bool {
        self.tasks.first().is_some_and(|first| first.task.number <= number)
    }
}
