//! What is asked of the engine.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::effects::{Reply, refuse};
use crate::{
    store::{
        Dispatch, Error, Finished, Outcome, Overview, QueueChange, Submitted, prepared::Prepared,
    },
    task::{State, TaskId, WorkerId},
};

/// A command and where its answer goes.
#[derive(Debug)]
pub enum Message {
    /// Take a task.
    Submit(Box<Prepared>, Reply<Submitted>),
    /// Take tasks, each for itself.
    SubmitAll(Vec<Prepared>, Reply<Vec<Result<Submitted, Error>>>),
    /// Take tasks, all or none.
    SubmitAtomic(Vec<Prepared>, Reply<Vec<Submitted>>),
    /// End tasks, of those in these states.
    Cancel(Vec<TaskId>, Vec<State>, Reply<Vec<Result<(), Error>>>),
    /// Let tasks live again, of those in these states.
    Redrive(Vec<TaskId>, Vec<State>, Reply<Vec<Result<(), Error>>>),
    /// A worker reports, and asks for work.
    NextDispatch(WorkerId, Option<Box<Finished>>, Reply<Dispatch>),
    /// A worker joins the pool.
    Join(WorkerId, Reply<()>),
    /// Workers are to leave.
    Retire(Vec<WorkerId>, Reply<()>),
    /// A worker has left the pool.
    Leave(WorkerId, Reply<()>),
    /// Change a queue.
    Change(Arc<str>, QueueChange, Reply<()>),
    /// Tell how the queues stand.
    Overview(Option<Arc<str>>, Reply<Overview>),
    /// Start nothing more.
    Drain(Reply<()>),
    /// Commit what has come, and end. Answers with the tasks that remain.
    Close(oneshot::Sender<u64>),
}

/// Bytes that a task takes on the disk besides its record, its labels and its events.
const AROUND: usize = 160;

impl Message {
    /// Bytes that it makes the engine write, roughly; without events, which are counted
    /// when they are there.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Submit(prepared, _) => rows_of(prepared),
            Self::SubmitAll(all, _) | Self::SubmitAtomic(all, _) => all.iter().map(rows_of).sum(),
            Self::Cancel(tasks, ..) | Self::Redrive(tasks, ..) => tasks.len() * AROUND,
            Self::NextDispatch(_, Some(finished), _) => rows_of_end(finished),
            _ => 0,
        }
    }

    /// Answers with the cause for which nothing is done any more. A `Close` is
    /// handed back.
    pub fn refuse(self, cause: &Arc<str>) -> Option<oneshot::Sender<u64>> {
        match self {
            Self::Submit(_, reply) => refuse(reply, cause),
            Self::SubmitAll(_, reply) => refuse(reply, cause),
            Self::SubmitAtomic(_, reply) => refuse(reply, cause),
            Self::Cancel(.., reply) | Self::Redrive(.., reply) => refuse(reply, cause),
            Self::Join(_, reply)
            | Self::Retire(_, reply)
            | Self::Leave(_, reply)
            | Self::Change(_, _, reply)
            | Self::Drain(reply) => refuse(reply, cause),
            Self::Overview(_, reply) => refuse(reply, cause),
            Self::NextDispatch(_, _, reply) => refuse(reply, cause),
            Self::Close(reply) => return Some(reply),
        }
        None
    }
}

/// Bytes of the rows that tell how an execution ended.
fn rows_of_end(finished: &Finished) -> usize {
    let result = match &finished.outcome {
        Outcome::Succeeded(result) => result.len(),
        _ => 0,
    };
    let output = finished.output.as_ref();
    let output = output.map_or(0, |output| output.stdout.bytes.len() + output.stderr.bytes.len());
    result + output + AROUND
}

/// Bytes of a new task's rows: that of the task and that of the events have its labels.
fn rows_of(prepared: &Prepared) -> usize {
    prepared.record.len() + 2 * prepared.labels.as_deref().map_or(0, <[u8]>::len) + AROUND
}
