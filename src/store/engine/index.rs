//! What the engine knows, in memory, of the tasks that have not ended.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admitted,
    store::ready::Rank,
    task::{Budget, Lifecycle, Timestamp, WorkerId},
};

/// A task that has not ended. Its payload stays on disk.
#[derive(Debug)]
pub struct Entry {
    pub life: Lifecycle,
    pub queue: Arc<str>,
    pub kind: Arc<str>,
    pub priority: i32,
    pub max_attempts: u32,
    pub due: Timestamp,
    pub bytes: u64,
    /// Its place in the queue, while it waits.
    pub place: Option<Admitted>,
    /// Its execution, while it runs.
    pub execution: Option<Box<Execution>>,
}

/// The execution of a running task.
#[derive(Debug)]
pub struct Execution {
    pub worker: WorkerId,
    pub started: Timestamp,
    pub waited: Duration,
    pub cancel: CancellationToken,
}

impl Entry {
    pub fn rank(&self, number: u64) -> Rank {
        Rank::new(self.priority, self.due, number)
    }

    pub fn budget(&self, max_crashes: u32) -> Budget {
        Budget { max_attempts: self.max_attempts, max_crashes }
    }

    /// Its execution as rows tell of it.
    pub fn execution_columns(&self) -> Option<(WorkerId, Timestamp)> {
        self.execution.as_ref().map(|execution| (execution.worker, execution.started))
    }
}

/// All tasks that have not ended, by number.
#[derive(Debug, Default)]
pub struct Index {
    entries: HashMap<u64, Entry>,
    names: HashSet<Arc<str>>,
}

/// Names of queues and kinds that are kept to be shared between tasks.
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

    /// One allocation for all tasks that have the same queue or kind.
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
