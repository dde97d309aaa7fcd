//! What a commit causes, once it has happened: and only then.

use std::{fmt, sync::Arc};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Permit, QueueHandle},
    queue::Settings,
    store::{Assignment, Dispatch, Error, Submitted},
    task::WorkerId,
};

/// Where an answer goes. Whoever asked may have gone.
pub type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// One consequence of a group.
#[derive(Debug)]
pub enum Effect {
    /// A submission has its outcome.
    Submitted(Reply<Submitted>, Result<Submitted, Error>),
    /// Submissions that came together have their outcomes.
    SubmittedAll(
        Reply<Vec<Result<Submitted, Error>>>,
        Result<Vec<Result<Submitted, Error>>, Error>,
    ),
    /// Submissions that had to go together have one outcome.
    SubmittedAtomic(Reply<Vec<Submitted>>, Result<Vec<Submitted>, Error>),
    /// An operation has its outcome.
    Answer(Box<dyn Answer>),
    /// A worker executes this next.
    Assign(WorkerId, Reply<Dispatch>, Box<Assignment>),
    /// A worker leaves.
    Stop(Reply<Dispatch>),
    /// A handler should stop.
    Signal(CancellationToken),
    /// A permit of a queue is given back.
    ReleasePermit(Permit),
    /// A queue has other settings.
    Configure(QueueHandle, Settings),
}

impl Effect {
    /// The group is on disk. Tells which worker was given a task and could not be told.
    pub fn perform(self) -> Option<WorkerId> {
        // A reply whose receiver has gone is of no consequence: the change is
        // committed, and whoever asks again is told.
        match self {
            Self::Submitted(reply, outcome) => drop(reply.send(outcome)),
            Self::SubmittedAll(reply, outcomes) => drop(reply.send(outcomes)),
            Self::SubmittedAtomic(reply, outcome) => drop(reply.send(outcome)),
            Self::Answer(answer) => answer.send(),
            Self::Assign(worker, reply, assignment) => {
                return reply.send(Ok(Dispatch::Run(*assignment))).is_err().then_some(worker);
            }
            Self::Stop(reply) => drop(reply.send(Ok(Dispatch::Stop))),
            Self::Signal(cancel) => cancel.cancel(),
            Self::ReleasePermit(permit) => drop(permit),
            Self::Configure(queue, settings) => queue.configure(settings),
        }
        None
    }

    /// The group is lost.
    pub fn fail(self, cause: &Arc<str>) {
        match self {
            Self::Submitted(reply, _) => refuse(reply, cause),
            Self::SubmittedAll(reply, _) => refuse(reply, cause),
            Self::SubmittedAtomic(reply, _) => refuse(reply, cause),
            Self::Answer(answer) => answer.refuse(cause),
            Self::Assign(_, reply, _) | Self::Stop(reply) => refuse(reply, cause),
            Self::Signal(_) | Self::ReleasePermit(_) | Self::Configure(..) => {}
        }
    }
}

/// An outcome and where it goes, whatever its type.
pub trait Answer: fmt::Debug + Send {
    /// What it answers to is committed.
    fn send(self: Box<Self>);

    /// What it answers to is lost.
    fn refuse(self: Box<Self>, cause: &Arc<str>);
}

impl<T: fmt::Debug + Send> Answer for (Reply<T>, Result<T, Error>) {
    fn send(self: Box<Self>) {
        let (reply, outcome) = *self;
        drop(reply.send(outcome));
    }

    fn refuse(self: Box<Self>, cause: &Arc<str>) {
        refuse(self.0, cause);
    }
}

/// Tells that the store has failed.
pub fn refuse<T>(reply: Reply<T>, cause: &Arc<str>) {
    drop(reply.send(Err(Error::Failed(Arc::clone(cause)))));
}
