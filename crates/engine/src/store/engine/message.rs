//! What is asked of the engine.

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;

use super::{
    Effect, Engine, GroupError,
    effects::{Reply, refuse},
};
use crate::{
    store::{Dispatch, Error, Finished, Outcome, Overview, Submitted, prepared::Prepared},
    task::WorkerId,
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
    /// A worker reports, and asks for work.
    NextDispatch(WorkerId, Option<Box<Finished>>, Reply<Dispatch>),
    /// Tell how the queues stand.
    Overview(Option<Arc<str>>, Reply<Overview>),
    /// Whatever else is asked for.
    Operation(Operation),
    /// Commit what has come, and end. Answers with the tasks that remain.
    Close(oneshot::Sender<u64>),
}

/// Something that is decided on the engine's thread, in the order in which it arrived, and
/// answered once it is committed.
#[derive(Debug)]
pub struct Operation {
    decide: Box<dyn Decide>,
    /// Tasks that it may change.
    tasks: usize,
}

impl Operation {
    /// `decide` is given the engine between two commands; `tasks` is how many it may change.
    pub fn new<T, F>(tasks: usize, decide: F, reply: Reply<T>) -> Self
    where
        T: fmt::Debug + Send + 'static,
        F: FnOnce(&mut Engine<'_>) -> Decided<T> + Send + 'static,
    {
        Self { decide: Box::new(Undecided { decide, reply }), tasks }
    }

    /// Decides it. Its answer is an effect of the group.
    pub fn apply(self, engine: &mut Engine<'_>) -> Result<(), GroupError> {
        self.decide.decide(engine)
    }
}

/// What a command comes to; or why nothing can be decided any more.
pub type Decided<T> = Result<Result<T, Error>, GroupError>;

trait Decide: fmt::Debug + Send {
    fn decide(self: Box<Self>, engine: &mut Engine<'_>) -> Result<(), GroupError>;
    fn refuse(self: Box<Self>, cause: &Arc<str>);
}

struct Undecided<F, T> {
    decide: F,
    reply: Reply<T>,
}

impl<F, T> fmt::Debug for Undecided<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undecided").finish_non_exhaustive()
    }
}

impl<T, F> Decide for Undecided<F, T>
where
    T: fmt::Debug + Send + 'static,
    F: FnOnce(&mut Engine<'_>) -> Decided<T> + Send,
{
    fn decide(self: Box<Self>, engine: &mut Engine<'_>) -> Result<(), GroupError> {
        let Self { decide, reply } = *self;
        let (outcome, decided) = match decide(engine) {
            Ok(outcome) => (outcome, Ok(())),
            // Whoever waits is told with the rest of the group, which fails.
            Err(failed) => (Err(Error::Draining), Err(failed)),
        };
        engine.group.effects.push(Effect::Answer(Box::new((reply, outcome))));
        decided
    }

    fn refuse(self: Box<Self>, cause: &Arc<str>) {
        refuse(self.reply, cause);
    }
}

/// Bytes that a task takes on the disk besides its record, its labels and its events.
const AROUND: usize = 160;

impl Message {
    /// As [`crate::store::Store`] asks for it.
    #[cfg(test)]
    pub fn changed(queue: &str, change: crate::store::QueueChange, reply: Reply<()>) -> Self {
        let queue = queue.to_owned();
        let decide = move |engine: &mut Engine<'_>| Ok(engine.change_queue(&queue, change));
        Self::Operation(Operation::new(0, decide, reply))
    }

    /// Bytes that it makes the engine write, roughly; without events, which are counted
    /// when they are there.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Submit(prepared, _) => rows_of(prepared),
            Self::SubmitAll(all, _) | Self::SubmitAtomic(all, _) => all.iter().map(rows_of).sum(),
            Self::Operation(operation) => operation.tasks * AROUND,
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
            Self::Operation(operation) => operation.decide.refuse(cause),
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
