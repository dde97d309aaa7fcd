//! A submission, made ready in the caller's own time: what can be computed
//! before the engine is, so that its one thread does only what must be in order.

use crate::{
    admission::{Admitted, Entering},
    store::{
        Submission,
        record::{LabelsRecord, TaskRecord},
    },
    task::NewTask,
};

/// A task, its place, and its row.
#[derive(Debug)]
pub struct Prepared {
    pub task: NewTask,
    pub fingerprint: [u8; 16],
    pub place: Admitted,
    pub record: Vec<u8>,
    pub labels: Option<Vec<u8>>,
}

impl Prepared {
    /// Encodes the row.
    pub fn new(submission: Submission, place: Admitted) -> Self {
        let Submission { task, fingerprint } = submission;
        let record = TaskRecord::of(&task).to_bytes();
        let labels = LabelsRecord::to_bytes(&task.labels);
        Self { task, fingerprint, place, record, labels }
    }

    /// Encodes the rows of several; with what keeps those in line behind them.
    pub fn all(tasks: Vec<(Submission, Admitted)>) -> (Vec<Self>, Vec<Entering>) {
        let mut entering = Vec::new();
        let prepared = tasks.into_iter().map(|(submission, mut place)| {
            entering.extend(place.take_entering());
            Self::new(submission, place)
        });
        (prepared.collect(), entering)
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
