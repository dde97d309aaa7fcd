//! A submission, made ready in the caller's own time: what can be computed
//! before the engine is, so that its one thread does only what must be in order.

use crate::{
    admission::{Handoff, Permit},
    store::{
        Submission,
        record::{LabelsRecord, TaskRecord},
    },
    task::NewTask,
};

/// A task, its permit, and its row.
#[derive(Debug)]
pub struct Prepared {
    pub task: NewTask,
    pub fingerprint: [u8; 16],
    pub permit: Permit,
    pub record: Vec<u8>,
    pub labels: Option<Vec<u8>>,
}

impl Prepared {
    /// Encodes the row.
    pub fn new(submission: Submission, permit: Permit) -> Self {
        let Submission { task, fingerprint } = submission;
        let record = TaskRecord::of(&task).to_bytes();
        let labels = LabelsRecord::to_bytes(&task.labels);
        Self { task, fingerprint, permit, record, labels }
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
    (task.payload.len() + labels + request_id + names + ROW_OVERHEAD) as u64
}
