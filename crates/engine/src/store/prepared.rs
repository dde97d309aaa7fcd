//! A submission, made ready in the caller's own time: what can be computed
//! before the engine is, so that its one thread does only what must be in order.

use std::sync::Arc;

use crate::{
    admission::{Handoff, Permit},
    store::{
        Submission,
        journal::Labels,
        record::{LabelsRecord, TaskRecord},
    },
    task::{Due, NewTask},
};

/// A task as the engine needs it, its permit, and its row.
#[derive(Debug)]
pub struct Prepared {
    pub queue: Arc<str>,
    pub kind: Arc<str>,
    pub priority: i32,
    pub due: Due,
    pub max_attempts: u32,
    pub request_id: Option<Arc<str>>,
    pub fingerprint: [u8; 16],
    pub permit: Permit,
    /// See [`TaskRecord`].
    pub record: Vec<u8>,
    /// See [`LabelsRecord`].
    pub labels: Labels,
}

impl Prepared {
    /// Encodes the row. What is in it goes here, and not on the engine's thread.
    pub fn new(submission: Submission, permit: Permit) -> Self {
        let Submission { task, fingerprint } = submission;
        Self {
            record: TaskRecord::of(&task).to_bytes(),
            labels: LabelsRecord::to_bytes(&task.labels).map(Vec::into_boxed_slice),
            request_id: task.request_id.map(Arc::from),
            queue: task.queue,
            kind: task.kind,
            priority: task.priority,
            due: task.due,
            max_attempts: task.retry.max_attempts,
            fingerprint,
            permit,
        }
    }

    /// Encodes the rows of several; with what keeps those in line behind them.
    pub fn all(tasks: Vec<(Submission, Permit)>) -> (Vec<Self>, Vec<Handoff>) {
        let mut handoff = Vec::new();
        let prepared = tasks.into_iter().map(|(submission, mut permit)| {
            handoff.extend(permit.take_handoff());
            Self::new(submission, permit)
        });
        (prepared.collect(), handoff)
    }
}

/// Bytes that a task takes of its queue's limit: its payload and what is kept
/// around it, roughly as on disk.
pub fn weight(task: &NewTask) -> u64 {
    const ROW_OVERHEAD: usize = 100;
    let labels: usize = task.labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    let request_id = task.request_id.as_ref().map_or(0, String::len);
    let names = task.kind.len() + task.queue.len();
    (task.body.len() + labels + request_id + names + ROW_OVERHEAD) as u64
}
