//! The order of what waits.
//!
//! Owns, for every queue, its due tasks in the order in which they start: by
//! priority, then due time, then submission; and the tasks that become due
//! later. Knows numbers and names only: no rows, no clock.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::task::Timestamp;

/// A task's place in the order of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    priority: Reverse<i32>,
    due: Timestamp,
    number: u64,
}

impl Rank {
    /// The place of task `number`.
    pub fn new(priority: i32, due: Timestamp, number: u64) -> Self {
        Self { priority: Reverse(priority), due, number }
    }
}

/// Everything that waits.
#[derive(Debug, Default)]
pub struct Ready {
    queues: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    /// The queues that have due tasks; the next start comes from the front, and
    /// the queue then goes to the back, so that none starves another.
    turns: VecDeque<Arc<str>>,
    later: BTreeSet<(Timestamp, u64)>,
}

impl Ready {
    /// Adds a task that is due.
    pub fn push(&mut self, queue: &Arc<str>, rank: Rank) {
        let ranks = match self.queues.get_mut(queue) {
            Some(ranks) => ranks,
            None => self.queues.entry(Arc::clone(queue)).or_default(),
        };
        if ranks.is_empty() {
            self.turns.push_back(Arc::clone(queue));
        }
        ranks.insert(rank);
    }

    /// Takes the task that starts next.
    pub fn pop(&mut self) -> Option<u64> {
        let queue = self.turns.pop_front()?;
        let ranks = self.queues.get_mut(&queue)?;
        let next = ranks.pop_first();
        if ranks.is_empty() {
            self.queues.remove(&queue);
        } else {
            self.turns.push_back(queue);
        }
        next.map(|rank| rank.number)
    }

    /// Takes a task out that is due.
    pub fn remove(&mut self, queue: &Arc<str>, rank: Rank) {
        let Some(ranks) = self.queues.get_mut(queue) else { return };
        ranks.remove(&rank);
        if ranks.is_empty() {
            self.queues.remove(queue);
            self.turns.retain(|waiting| waiting != queue);
        }
    }

    /// Adds a task that becomes due later.
    pub fn push_later(&mut self, due: Timestamp, number: u64) {
        self.later.insert((due, number));
    }

    /// Takes a task out that would have become due later.
    pub fn remove_later(&mut self, due: Timestamp, number: u64) {
        self.later.remove(&(due, number));
    }

    /// Takes a task that has become due by `now`, the earliest first.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<u64> {
        let (due, _) = self.later.first()?;
        if *due > now {
            return None;
        }
        self.later.pop_first().map(|(_, number)| number)
    }

    /// When the next task becomes due.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.later.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(ready: &mut Ready) -> Vec<u64> {
        std::iter::from_fn(|| ready.pop()).collect()
    }

    #[test]
    fn starts_go_by_priority_then_due_time_then_submission() {
        let mut ready = Ready::default();
        let queue: Arc<str> = "q".into();
        for (priority, due, number) in [(0, 5, 1), (0, 4, 2), (9, 9, 3), (0, 4, 4), (-1, 0, 5)] {
            ready.push(&queue, Rank::new(priority, Timestamp(due), number));
        }
        assert_eq!(drain(&mut ready), [3, 2, 4, 1, 5]);
        assert_eq!(ready.pop(), None);
    }

    #[test]
    fn queues_take_turns() {
        let mut ready = Ready::default();
        let (flood, other): (Arc<str>, Arc<str>) = ("flood".into(), "other".into());
        for number in 0..4 {
            ready.push(&flood, Rank::new(100, Timestamp(0), number));
        }
        ready.push(&other, Rank::new(0, Timestamp(0), 10));
        assert_eq!(drain(&mut ready), [0, 10, 1, 2, 3]);
    }

    #[test]
    fn what_is_removed_does_not_start() {
        let mut ready = Ready::default();
        let queue: Arc<str> = "q".into();
        let only = Rank::new(0, Timestamp(0), 1);
        ready.push(&queue, only);
        ready.remove(&queue, only);
        ready.remove(&queue, only);
        assert_eq!(ready.pop(), None);
        ready.push(&queue, only);
        assert_eq!(drain(&mut ready), [1]);
    }

    #[test]
    fn later_tasks_become_due_in_the_order_of_their_times() {
        let mut ready = Ready::default();
        for (due, number) in [(30, 1), (10, 2), (20, 3)] {
            ready.push_later(Timestamp(due), number);
        }
        ready.remove_later(Timestamp(20), 3);
        assert_eq!(ready.next_due(), Some(Timestamp(10)));
        assert_eq!(ready.pop_due(Timestamp(9)), None);
        assert_eq!(ready.pop_due(Timestamp(10)), Some(2));
        assert_eq!(ready.pop_due(Timestamp(10)), None);
        assert_eq!(ready.pop_due(Timestamp(99)), Some(1));
    }
}
