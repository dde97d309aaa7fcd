//! What the engine knows, in memory, of the tasks that have not ended.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::mix::ClassId;
use crate::{
    admission::Permit,
    store::{
        journal::{LiveRow, WrittenLive},
        ready::{DueTimer, QueueId, ReadyKey},
    },
    task::{Budget, Lifecycle, Timestamp, WorkerId},
};

/// A task that has not ended. Its payload and its labels stay on disk.
#[derive(Debug)]
pub struct Entry {
    pub life: Lifecycle,
    pub queue: QueueId,
    pub kind: Arc<str>,
    /// Its queue and kind, for the forecast of waits.
    pub class: Option<ClassId>,
    pub priority: i32,
    pub max_attempts: u32,
    /// When it may start, or might have, by the wall clock.
    pub due: Timestamp,
    /// What makes it due, while it is SCHEDULED; then since when it is, by the clock
    /// that does not step.
    pub timer: DueTimer,
    pub bytes: u64,
    /// It has labels.
    pub has_labels: bool,
    /// Its permit in the queue, while it waits.
    pub permit: Option<Permit>,
    /// Its execution, while it runs.
    pub execution: Option<Box<Execution>>,
}

/// The execution of a running task.
#[derive(Debug)]
pub struct Execution {
    pub worker: WorkerId,
    pub started: Timestamp,
    pub waited: Duration,
    /// The task's labels as its events carry them, if it has any.
    pub labels: Option<Box<[u8]>>,
    pub cancel: CancellationToken,
}

impl Entry {
    pub fn ready_key(&self, number: u64) -> ReadyKey {
        ReadyKey::new(self.priority, self.timer.time(), number)
    }

    pub fn budget(&self, max_crashes: u32) -> Budget {
        Budget { max_attempts: self.max_attempts, max_crashes }
    }

    /// Its row, with what is not known in memory.
    pub fn row(&self, number: u64, queue: &Arc<str>, written: WrittenLive) -> LiveRow {
        let WrittenLive { interval, execution, failure, labels } = written;
        LiveRow {
            number,
            queue: Arc::clone(queue),
            kind: Arc::clone(&self.kind),
            priority: self.priority,
            due: self.due,
            interval,
            bytes: self.bytes,
            max_attempts: self.max_attempts,
            life: self.life,
            execution,
            failure,
            labels,
        }
    }

    /// Its execution as rows tell of it.
    pub fn execution_columns(&self) -> Option<(WorkerId, Timestamp)> {
        self.execution.as_ref().map(|execution| (execution.worker, execution.started))
    }
}

/// Hashes task numbers, which are given out one by one: nobody can choose them
/// so as to collide. Multiplication by 2^64 / φ spreads neighbours (Knuth, The
/// Art of Computer Programming, volume 3, 6.4).
#[derive(Clone, Copy, Debug, Default)]
pub struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// A map by task number.
pub type ByNumber<T> = HashMap<u64, T, BuildHasherDefault<NumberHasher>>;

/// All tasks that have not ended, by number.
#[derive(Debug, Default)]
pub struct Index {
    entries: ByNumber<Entry>,
    names: HashSet<Arc<str>>,
}

/// Names of kinds that are kept to be shared between tasks.
const MAX_NAMES: usize = 4_096;

impl Index {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn get(&self, number: u64) -> Option<&Entry> {
        self.entries.get(&number)
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&number)
    }

    pub fn insert(&mut self, number: u64, entry: Entry) {
        self.entries.insert(number, entry);
    }

    pub fn remove(&mut self, number: u64) -> Option<Entry> {
        self.entries.remove(&number)
    }

    /// One allocation for all tasks that have the same kind.
    pub fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        if self.names.len() >= MAX_NAMES {
            self.names.retain(|name| Arc::strong_count(name) > 1);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}
