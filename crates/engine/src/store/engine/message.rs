//! What is asked of the engine.

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;

use super::{
    Effect, Engine, GroupError,
    effects::{Reply, refuse},
};
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
    /// Decides it. Its answer is an effect of the group.
    pub fn apply(self, engine: &mut Engine<'_>) -> Result<(), GroupError> {
        self.decide.decide(engine)
    }
}

/// The outcome of each of several tasks.
pub type Each = Vec<Result<(), Error>>;

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
        // Its path names the command.
        f.write_str(std::any::type_name::<F>())
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
    /// End tasks, of those in these states.
    pub fn cancel(tasks: Vec<TaskId>, among: Vec<State>, reply: Reply<Each>) -> Self {
        let count = tasks.len();
        Self::operation(count, move |engine| engine.cancel_all(tasks, &among), reply)
    }

    /// Let tasks live again, of those in these states.
    pub fn redrive(tasks: Vec<TaskId>, among: Vec<State>, reply: Reply<Each>) -> Self {
        let count = tasks.len();
        Self::operation(count, move |engine| engine.redrive_all(tasks, &among), reply)
    }

    /// A worker joins the pool.
    pub fn join(worker: WorkerId, reply: Reply<()>) -> Self {
        Self::operation(1, move |engine| engine.join(worker), reply)
    }

    /// A worker has left the pool.
    pub fn leave(worker: WorkerId, reply: Reply<()>) -> Self {
        Self::operation(1, move |engine| engine.leave(worker), reply)
    }

    /// Change a queue.
    pub fn change(queue: Arc<str>, change: QueueChange, reply: Reply<()>) -> Self {
        Self::operation(0, move |engine| Ok(engine.change_queue(&queue, change)), reply)
    }

    /// Decide something that may change this many tasks.
    pub fn operation<T, F>(tasks: usize, decide: F, reply: Reply<T>) -> Self
    where
        T: fmt::Debug + Send + 'static,
        F: FnOnce(&mut Engine<'_>) -> Decided<T> + Send + 'static,
    {
        Self::Operation(Operation { decide: Box::new(Undecided { decide, reply }), tasks })
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
