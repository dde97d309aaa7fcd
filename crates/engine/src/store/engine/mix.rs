//! What waits and runs, by queue and kind, and how long such tasks took lately: what the
//! forecast of waits is made from.
//!
//! Counting costs an addition for each task. A class is a queue and a kind; there are few,
//! as kinds are what the server has handlers for.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc, time::Instant};

use super::index::ByNumber;
use crate::{
    store::{ClassStatus, ready::QueueId},
    task::WorkerId,
};

/// Classes that are told apart; tasks of further ones count as unknown.
const MAX_CLASSES: usize = 4_096;
/// Executions of a class whose times are kept: the latest.
const MAX_SAMPLES: usize = 64;

/// A class, by its place in the table of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(NonZeroU32);

impl ClassId {
    /// Counted from 1, so that an optional one takes no more room.
    fn at(place: usize) -> Option<Self> {
        u32::try_from(place).ok()?.checked_add(1).and_then(NonZeroU32::new).map(Self)
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// The tasks of a queue that have one kind.
#[derive(Debug)]
struct Class {
    queue: QueueId,
    kind: Arc<str>,
    /// Due tasks of the usual or a higher priority, and of a lower one.
    waiting: [u64; 2],
    samples: Samples,
}

/// For how many seconds the latest executions kept their workers.
#[derive(Debug, Default)]
struct Samples {
    seconds: Vec<f32>,
    oldest: usize,
}

impl Samples {
    fn add(&mut self, seconds: f32) {
        if self.seconds.len() < MAX_SAMPLES {
            self.seconds.push(seconds);
        } else {
            self.seconds[self.oldest] = seconds;
            self.oldest = (self.oldest + 1) % MAX_SAMPLES;
        }
    }
}

/// All classes.
#[derive(Debug, Default)]
pub struct Mix {
    classes: Vec<Option<Class>>,
    free: Vec<ClassId>,
    by_name: HashMap<(QueueId, Arc<str>), ClassId>,
    /// What each busy worker does, and since when.
    running: ByNumber<(ClassId, Instant)>,
}

impl Mix {
    /// The class of a task; there may be too many.
    pub fn class(&mut self, queue: QueueId, kind: &Arc<str>) -> Option<ClassId> {
        if let Some(class) = self.by_name.get(&(queue, Arc::clone(kind))) {
            return Some(*class);
        }
        let class = match self.free.pop() {
            Some(class) => class,
            None if self.classes.len() < MAX_CLASSES => {
                self.classes.push(None);
                ClassId::at(self.classes.len() - 1)?
            }
            None => return None,
        };
        let new =
            Class { queue, kind: Arc::clone(kind), waiting: [0; 2], samples: Samples::default() };
        self.classes[class.place()] = Some(new);
        self.by_name.insert((queue, Arc::clone(kind)), class);
        Some(class)
    }

    /// A due task waits.
    pub fn waits(&mut self, class: Option<ClassId>, priority: i32) {
        if let Some(class) = self.get_mut(class) {
            class.waiting[usize::from(priority < 0)] += 1;
        }
    }

    /// It does not wait any more.
    pub fn no_longer_waits(&mut self, class: Option<ClassId>, priority: i32) {
        if let Some(class) = self.get_mut(class) {
            let waiting = &mut class.waiting[usize::from(priority < 0)];
            *waiting = waiting.saturating_sub(1);
        }
    }

    /// A worker has begun with a task.
    pub fn started(&mut self, worker: WorkerId, class: Option<ClassId>, now: Instant) {
        if let Some(class) = class {
            self.running.insert(worker.0.into(), (class, now));
        }
    }

    /// A worker has ended with its task, which ran `whole` or was stopped.
    pub fn ended(&mut self, worker: WorkerId, whole: bool, now: Instant) {
        let Some((class, began)) = self.running.remove(&worker.0.into()) else { return };
        if whole && let Some(class) = self.get_mut(Some(class)) {
            // Not what the handler took, but what another task had to wait for: the
            // commit that tells of the end is a part of it.
            class.samples.add(now.saturating_duration_since(began).as_secs_f32());
        }
    }

    /// Nothing is left of a queue.
    pub fn forget(&mut self, queue: QueueId) {
        for place in 0..self.classes.len() {
            if self.classes[place].as_ref().is_some_and(|class| class.queue == queue)
                && let Some(class) = self.classes[place].take()
            {
                self.by_name.remove(&(queue, class.kind));
                self.free.extend(ClassId::at(place));
            }
        }
    }

    /// How all of them stand, with the names of their queues.
    pub fn statuses(
        &self,
        name: impl Fn(QueueId) -> Option<Arc<str>>,
        now: Instant,
    ) -> Vec<ClassStatus> {
        let mut place = vec![None; self.classes.len()];
        let mut statuses = Vec::new();
        for (at, class) in self.classes.iter().enumerate() {
            let Some(class) = class else { continue };
            let Some(queue) = name(class.queue) else { continue };
            place[at] = Some(statuses.len());
            statuses.push(ClassStatus {
                queue,
                usual: class.waiting[0],
                lower: class.waiting[1],
                seconds: class.samples.seconds.clone(),
                running: Vec::new(),
            });
        }
        for (class, began) in self.running.values() {
            if let Some(at) = place[class.place()] {
                let seconds = now.saturating_duration_since(*began).as_secs_f64();
                statuses[at].running.push(seconds);
            }
        }
        statuses
    }

    fn get_mut(&mut self, class: Option<ClassId>) -> Option<&mut Class> {
        self.classes.get_mut(class?.place())?.as_mut()
    }
}

#[cfg(test)]
mod tests;
