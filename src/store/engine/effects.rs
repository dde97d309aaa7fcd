//! What a commit causes, once it has happened: and only then.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Admitted,
    store::{Assignment, Error, Submitted, Turn},
};

/// Where an answer goes. Whoever asked may have gone.
pub type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// One consequence of a group.
#[derive(Debug)]
pub enum Effect {
    /// A submission has its outcome.
    Submitted(Reply<Submitted>, Result<Submitted, Error>),
    /// A command without a value has its outcome.
    Done(Reply<()>, Result<(), Error>),
    /// A worker executes this next.
    Assign(Reply<Turn>, Box<Assignment>),
    /// A worker leaves.
    Stop(Reply<Turn>),
    /// A handler should stop.
    Signal(CancellationToken),
    /// A place in a queue is free.
    Vacate(Admitted),
}

impl Effect {
    /// The group is on disk.
    pub fn perform(self) {
        // A reply whose receiver has gone is of no consequence: the change is
        // committed, and whoever asks again is told.
        match self {
            Self::Submitted(reply, outcome) => drop(reply.send(outcome)),
            Self::Done(reply, outcome) => drop(reply.send(outcome)),
            Self::Assign(reply, assignment) => drop(reply.send(Ok(Turn::Run(*assignment)))),
            Self::Stop(reply) => drop(reply.send(Ok(Turn::Stop))),
            Self::Signal(cancel) => cancel.cancel(),
            Self::Vacate(place) => drop(place),
        }
    }

    /// The group is lost.
    pub fn fail(self, cause: &Arc<str>) {
        let error = Error::Failed(Arc::clone(cause));
        match self {
            Self::Submitted(reply, _) => drop(reply.send(Err(error))),
            Self::Done(reply, _) => drop(reply.send(Err(error))),
            Self::Assign(reply, _) | Self::Stop(reply) => drop(reply.send(Err(error))),
            Self::Signal(_) | Self::Vacate(_) => {}
        }
    }
}
