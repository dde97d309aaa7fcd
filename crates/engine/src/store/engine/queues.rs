//! The queues that the store knows: their settings, how many tasks have ended in
//! them, and what went through.
//!
//! Which tasks wait in them, and in what order, is [`ReadyQueues`]'s; how much may wait
//! is [`Admission`]'s, who is told of the settings here.

use std::{collections::HashMap, sync::Arc};

use super::{index::Index, meter::Meter};
use crate::{
    admission::{Admission, QueueHandle},
    queue::{Block, Counts, Overrides, Settings},
    store::{
        Overview, QueueStatus,
        ready::{EngineTime, QueueId, ReadyQueues},
    },
    task::{State, Timestamp},
};

/// A queue.
#[derive(Debug)]
pub struct Queue {
    pub handle: QueueHandle,
    pub settings: Settings,
    pub overrides: Overrides,
    pub paused: bool,
    /// The configuration names it, so it exists without tasks, too.
    declared: bool,
    /// Tasks that wait for their due time.
    pub scheduled: u64,
    /// By the ways in which tasks end.
    ended: [EndedCount; 3],
    pub meter: Meter,
}

/// Tasks that have ended in one way, and are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedCount {
    pub tasks: u64,
    pub bytes: u64,
}

/// The terminal states, in the order of [`Queue::ended`].
pub const ENDS: [State; 3] = [State::Succeeded, State::Failed, State::Cancelled];

fn end(state: State) -> usize {
    ENDS.iter().position(|end| *end == state).unwrap_or_default()
}

impl Queue {
    pub fn name(&self) -> &Arc<str> {
        self.handle.queue()
    }

    pub fn ended_count(&self, state: State) -> EndedCount {
        self.ended[end(state)]
    }
}

/// All queues.
#[derive(Debug)]
pub struct Queues {
    admission: Arc<Admission>,
    table: Vec<Option<Queue>>,
    by_name: HashMap<Arc<str>, QueueId>,
    /// All queues' ended tasks: those that did not fail, and those that did.
    pub kept: [EndedCount; 2],
    /// What went through all of them.
    pub meter: Meter,
}

impl Queues {
    pub fn new(admission: Arc<Admission>, now: &EngineTime) -> Self {
        Self {
            admission,
            table: Vec::new(),
            by_name: HashMap::new(),
            kept: Default::default(),
            meter: Meter::new(now.instant),
        }
    }

    pub fn find(&self, name: &str) -> Option<QueueId> {
        self.by_name.get(name).copied()
    }

    pub fn get(&self, id: QueueId) -> Option<&Queue> {
        self.table.get(id.0 as usize).and_then(Option::as_ref)
    }

    pub fn get_mut(&mut self, id: QueueId) -> Option<&mut Queue> {
        self.table.get_mut(id.0 as usize).and_then(Option::as_mut)
    }

    /// The queue of this name, which may be new here. It was admitted.
    pub fn ensure(&mut self, name: &str, ready: &mut ReadyQueues, now: &EngineTime) -> QueueId {
        match self.find(name) {
            Some(id) => id,
            None => self.add(self.admission.handle(name), ready, now),
        }
    }

    pub fn add(
        &mut self,
        handle: QueueHandle,
        ready: &mut ReadyQueues,
        now: &EngineTime,
    ) -> QueueId {
        let name = Arc::clone(handle.queue());
        let queue_config = self.admission.queue_config();
        let settings = queue_config.settings(&name);
        let declared = queue_config.declared.contains_key(&name);
        let id = ready.add(&settings);
        let queue = Queue {
            handle,
            settings,
            overrides: Overrides::default(),
            paused: false,
            declared,
            scheduled: 0,
            ended: Default::default(),
            meter: Meter::new(now.instant),
        };
        let at = id.0 as usize;
        if at >= self.table.len() {
            self.table.resize_with(at + 1, || None);
        }
        self.table[at] = Some(queue);
        self.by_name.insert(name, id);
        id
    }

    /// Gives a queue other overrides, and returns the settings that are then in
    /// force.
    pub fn set_overrides(
        &mut self,
        id: QueueId,
        overrides: Overrides,
        ready: &mut ReadyQueues,
    ) -> Option<Settings> {
        let configured = self.admission.queue_config().settings(self.get(id)?.name());
        let queue = self.get_mut(id)?;
        queue.overrides = overrides;
        queue.settings = overrides.over(configured);
        ready.configure(id, &queue.settings);
        Some(queue.settings)
    }

    pub fn set_paused(&mut self, id: QueueId, paused: bool, ready: &mut ReadyQueues) {
        if let Some(queue) = self.get_mut(id) {
            queue.paused = paused;
            ready.pause(id, paused);
        }
    }

    /// A task has ended.
    pub fn count(&mut self, id: QueueId, state: State, more: EndedCount) {
        if let Some(queue) = self.get_mut(id) {
            let count = &mut queue.ended[end(state)];
            count.tasks += more.tasks;
            count.bytes += more.bytes;
            let kept = &mut self.kept[usize::from(state == State::Failed)];
            kept.tasks += more.tasks;
            kept.bytes += more.bytes;
        }
    }

    /// A task that had ended is trimmed, or lives again.
    pub fn uncount(&mut self, id: QueueId, state: State, bytes: u64) {
        if let Some(queue) = self.get_mut(id) {
            let count = &mut queue.ended[end(state)];
            count.tasks = count.tasks.saturating_sub(1);
            count.bytes = count.bytes.saturating_sub(bytes);
            let kept = &mut self.kept[usize::from(state == State::Failed)];
            kept.tasks = kept.tasks.saturating_sub(1);
            kept.bytes = kept.bytes.saturating_sub(bytes);
        }
    }

    /// Forgets a queue of which nothing is left; tells its name if it was.
    pub fn forget_unused(&mut self, id: QueueId, ready: &mut ReadyQueues) -> Option<Arc<str>> {
        let queue = self.get(id)?;
        let used = queue.declared
            || queue.paused
            || !queue.overrides.is_empty()
            || self.counts(id, ready) != Counts::default();
        if used {
            return None;
        }
        ready.take_out(id);
        let name = Arc::clone(self.table[id.0 as usize].take()?.name());
        self.by_name.remove(&name);
        Some(name)
    }

    pub fn counts(&self, id: QueueId, ready: &ReadyQueues) -> Counts {
        let Some(queue) = self.get(id) else { return Counts::default() };
        let (queued, running) = ready.load(id);
        let [succeeded, failed, cancelled] = queue.ended.map(|count| count.tasks);
        Counts { scheduled: queue.scheduled, queued, running, succeeded, failed, cancelled }
    }

    /// How they stand: all, by name, or one.
    pub fn overview(
        &mut self,
        only: Option<&str>,
        (ready, index): (&ReadyQueues, &Index),
        draining: bool,
        began_at: Timestamp,
        now: &EngineTime,
    ) -> Overview {
        let mut named: Vec<_> = match only {
            Some(name) => self.by_name.get_key_value(name).into_iter().collect(),
            None => self.by_name.iter().collect(),
        };
        named.sort();
        let ids: Vec<QueueId> = named.into_iter().map(|(_, id)| *id).collect();
        let queues =
            ids.into_iter().filter_map(|id| self.status(id, (ready, index), draining, now));
        let queues: Vec<_> = queues.collect();
        let counts = queues.iter().map(|queue| queue.counts);
        Overview {
            counts: counts.fold(Counts::default(), Counts::plus),
            queues,
            classes: Vec::new(),
            flow: self.meter.flow(now.instant),
            since: began_at,
            now: now.wall,
        }
    }

    fn status(
        &mut self,
        id: QueueId,
        (ready, index): (&ReadyQueues, &Index),
        draining: bool,
        now: &EngineTime,
    ) -> Option<QueueStatus> {
        let counts = self.counts(id, ready);
        let queue = self.get_mut(id)?;
        let next = ready.next_of(id).and_then(|number| index.get(number));
        let (waiting_bytes, waiting_callers) = queue.handle.waiting();
        Some(QueueStatus {
            name: Arc::clone(queue.name()),
            settings: queue.settings,
            overrides: queue.overrides,
            paused: queue.paused,
            block: if draining { Some(Block::Draining) } else { ready.block(id, now.instant) },
            counts,
            waiting_bytes,
            waiting_callers,
            // As the task itself tells it, which was no later than now.
            oldest_due: next.map(|entry| entry.due.min(now.wall)),
            flow: queue.meter.flow(now.instant),
        })
    }
}
