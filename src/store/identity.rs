//! What makes a store itself: the random marks by which it knows its own task
//! identifiers and cursors.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use crate::task::TaskId;

/// A store's secret, made when the store is created and kept in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    key: [u8; 16],
}

impl Identity {
    /// Of a new store.
    pub fn random() -> Self {
        Self { key: rand::random() }
    }

    /// Of the store with this key.
    pub fn from_key(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// To be kept in the store.
    pub fn key(&self) -> [u8; 16] {
        self.key
    }

    /// The identifier of task `number`.
    pub fn task_id(&self, number: u64) -> TaskId {
        TaskId::new(number, self.hash(b"task", number))
    }

    /// Whether `id` names a task of this store, existing or not.
    pub fn owns(&self, id: TaskId) -> bool {
        self.task_id(id.number()) == id
    }

    /// The mark that cursors carry.
    pub fn cursor_mark(&self) -> u32 {
        u32::try_from(self.hash(b"cursor", 0) >> 32).unwrap_or_default()
    }

    fn hash(&self, domain: &[u8], number: u64) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(domain);
        hasher.write_u64(number);
        hasher.finish()
    }
}
