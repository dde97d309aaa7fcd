//! What was acknowledged to those who caused it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use taskyard::proto::v1::{SubmitRequest, TaskState};

/// A task that was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub queue: String,
    pub kind: String,
    pub labels: BTreeMap<String, String>,
    /// CANCELLED was the answer to a cancellation.
    pub cancelled: bool,
    /// Redrives that were acknowledged, and those whose outcome nobody knows.
    pub redriven: u32,
    pub perhaps_redriven: u32,
    /// A state that it was said to have ended in, at which attempt.
    pub ended: Vec<(TaskState, u32)>,
}

#[derive(Debug, Default)]
struct Book {
    tasks: HashMap<String, Known>,
    /// Pauses of a queue, each followed by a resumption.
    pauses: BTreeMap<String, usize>,
}

/// The book that all clients share.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    /// A submission was acknowledged.
    pub fn submitted(&self, task_id: &str, request: &SubmitRequest) {
        let known = Known {
            queue: request.queue.clone(),
            kind: request.kind.clone(),
            labels: request.labels.clone(),
            ..Known::default()
        };
        let before = self.0.lock().unwrap().tasks.insert(task_id.into(), known);
        assert!(before.is_none(), "{task_id} was given to two submissions");
    }

    /// Notes what else is known of a task.
    pub fn note(&self, task_id: &str, what: impl FnOnce(&mut Known)) {
        what(self.0.lock().unwrap().tasks.get_mut(task_id).expect("a task of ours"));
    }

    /// A queue was paused and resumed.
    pub fn paused_and_resumed(&self, queue: &str) {
        *self.0.lock().unwrap().pauses.entry(queue.into()).or_default() += 1;
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.0.lock().unwrap().tasks.len()
    }

    /// All of it, once nobody writes any more.
    pub fn read(&self) -> (HashMap<String, Known>, BTreeMap<String, usize>) {
        let book = self.0.lock().unwrap();
        (book.tasks.clone(), book.pauses.clone())
    }
}
