//! What makes a store itself: the random marks by which it knows its own task
//! identifiers and cursors.

use std::{hash::Hasher as _, sync::Arc};

use siphasher::sip::SipHasher24;

use crate::task::TaskId;

/// Starts whose keys are remembered at most: of more, the latest share one.
const MAX_STARTS: usize = 1_024;

/// A store's secrets: one that is made when the store is created, and one for the tasks of
/// each start.
///
/// A store that has lost its latest tasks gives their numbers again: after a power cut without
/// syncs, after a damaged log, in a copy that was restored. The ids of the new tasks are others,
/// as the start that gives them has a key of its own; so nobody meets another's task under the
/// id of a lost one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    key: [u8; 16],
    starts: Arc<[Start]>,
}

/// The key of the tasks from a number on, up to those of the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    first: u64,
    key: [u8; 16],
}

/// Bytes of a [`Start`] in the store.
const START: usize = 24;

impl Identity {
    /// Of a new store.
    pub fn random() -> Self {
        Self { key: rand::random(), starts: Arc::default() }
    }

    /// Of the store with this key, and what [`Self::starts`] gave. `None` if that is not what
    /// it gave.
    pub fn from_parts(key: [u8; 16], starts: &[u8]) -> Option<Self> {
        let (starts, rest) = starts.as_chunks::<START>();
        let start = |bytes: &[u8; START]| {
            let (first, key) = bytes.split_first_chunk::<8>()?;
            Some(Start { first: u64::from_be_bytes(*first), key: key.try_into().ok()? })
        };
        let starts = starts.iter().map(start).collect::<Option<Arc<[Start]>>>()?;
        let is_sorted = starts.is_sorted_by(|earlier, later| earlier.first < later.first);
        (rest.is_empty() && is_sorted).then_some(Self { key, starts })
    }

    /// With a key for the tasks from `first` on. The keys of numbers that have no tasks any
    /// more, which `has_tasks` tells of a range, are forgotten.
    ///
    /// # Errors
    /// Those of `has_tasks`.
    pub fn begin_start<E>(
        &self,
        first: u64,
        mut has_tasks: impl FnMut(std::ops::Range<u64>) -> Result<bool, E>,
    ) -> Result<Self, E> {
        let mut starts = Vec::new();
        for (at, start) in self.starts.iter().enumerate() {
            let next = self.starts.get(at + 1).map_or(first, |next| next.first.min(first));
            if start.first < next && has_tasks(start.first..next)? {
                starts.push(*start);
            }
        }
        if starts.len() < MAX_STARTS {
            starts.push(Start { first, key: rand::random() });
        }
        Ok(Self { key: self.key, starts: starts.into() })
    }

    /// The keys of the starts, to be kept in the store.
    pub fn starts(&self) -> Vec<u8> {
        let bytes = |start: &Start| [&start.first.to_be_bytes()[..], &start.key].concat();
        self.starts.iter().flat_map(bytes).collect()
    }

    /// To be kept in the store.
    pub fn key(&self) -> [u8; 16] {
        self.key
    }

    /// The identifier of task `number`.
    pub fn task_id(&self, number: u64) -> TaskId {
        let begun = self.starts.partition_point(|start| start.first <= number);
        let key = begun.checked_sub(1).map_or(&self.key, |at| &self.starts[at].key);
        TaskId::new(number, hash(key, b"task", number))
    }

    /// Whether `id` names a task of this store, existing or not.
    pub fn owns(&self, id: TaskId) -> bool {
        self.task_id(id.number()) == id
    }

    /// The mark that cursors carry.
    pub fn cursor_mark(&self) -> u32 {
        u32::try_from(hash(&self.key, b"cursor", 0) >> 32).unwrap_or_default()
    }
}

fn hash(key: &[u8; 16], domain: &[u8], number: u64) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(domain);
    hasher.write_u64(number);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn begun(store: &Identity, first: u64, newest: u64) -> Identity {
        let has = |range: std::ops::Range<u64>| Ok::<_, Infallible>(range.start <= newest);
        store.begin_start(first, has).unwrap()
    }

    #[test]
    fn a_number_that_is_given_again_has_another_id() {
        let first = begun(&Identity::random(), 1, 0);
        let (kept, lost) = (first.task_id(7), first.task_id(8));
        // Seven tasks are left.
        let second = begun(&first, 8, 7);
        assert_eq!(second.task_id(7), kept);
        assert!(second.owns(kept) && !second.owns(lost));
        assert_ne!(second.task_id(8), lost);
        // So it is if nothing is left of the second start.
        let third = begun(&second, 8, 7);
        assert!(third.owns(kept) && !third.owns(second.task_id(8)));
    }

    #[test]
    fn what_is_kept_in_the_store_is_the_same_store() {
        let key = [7; 16];
        let old = Identity::from_parts(key, &[]).unwrap();
        let mut store = old.clone();
        for first in [3, 5, 9] {
            store = begun(&store, first, first - 1);
        }
        assert_eq!(store.task_id(2), old.task_id(2), "it is older than all starts");
        assert_eq!(Identity::from_parts(key, &store.starts()), Some(store.clone()));
        assert_eq!(Identity::from_parts(key, &store.starts()[1..]), None);
        let unsorted = [store.starts(), store.starts()].concat();
        assert_eq!(Identity::from_parts(key, &unsorted), None);
    }

    #[test]
    fn keys_that_no_task_needs_are_forgotten_and_the_others_bounded() {
        let none = |_| Ok::<_, Infallible>(false);
        let mut store = Identity::random();
        for first in 1..10 {
            store = store.begin_start(first, none).unwrap();
        }
        assert_eq!(store.starts.len(), 1);
        for first in 10..2_000 {
            store = begun(&store, first, first - 1);
        }
        assert_eq!(store.starts.len(), MAX_STARTS);
    }
}
