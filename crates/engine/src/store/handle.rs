//! What the rest of the server asks of the store: the handle that carries commands to the
//! engine's thread and questions to the readers.
//!
//! A command that only the engine knows how to decide is one method here, and one of
//! [`Engine`] that decides it.

use std::{sync::Arc, time::Duration};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Dispatch, Error, Finished, Output, Overview, Page, Query, QueueChange, Submission, Submitted,
    Task,
    clock::WallClock,
    engine::{Decided, Engine, Message, Reply},
    identity::Identity,
    prepared::Prepared,
    reader::{self, Lane, Readers},
};
use crate::{
    admission::Permit,
    event::Seq,
    events::{BoxFuture, EventBatch, History, Hub, Unreadable},
    task::{State, TaskId, WorkerId},
};

/// How long a command whose answer was dropped waits to be told why. That is told as soon
/// as the engine's thread has let go of everything.
const VERDICT: Duration = Duration::from_secs(5);

/// A durable store of tasks and their events.
///
/// Every method that changes something answers only once the change, and the
/// events that tell it, are committed; dropping its future does not undo the
/// command if it was already taken. Every method answers [`Error::Crashed`] once its part of
/// the store has failed.
#[derive(Debug)]
pub struct Store {
    pub(super) engine: mpsc::Sender<Message>,
    pub(super) readers: Readers,
    pub(super) hub: Hub,
    pub(super) identity: Identity,
    pub(super) clock: WallClock,
    pub(super) failure: watch::Receiver<Option<Arc<str>>>,
    pub(super) end: watch::Receiver<Option<End>>,
}

/// How the engine's thread has ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It was closed, or never began.
    Closed,
    /// It panicked, with this message.
    Crashed(Arc<str>),
}

impl Store {
    /// Takes a task. `permit` is given back when the task starts or ends.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`], [`Error::Draining`], [`Error::Failed`],
    /// [`Error::Damaged`].
    pub fn submit(
        &self,
        task: Submission,
        permit: Permit,
    ) -> BoxFuture<'_, Result<Submitted, Error>> {
        let mut prepared = Box::new(Prepared::new(task, permit));
        let handoff = prepared.permit.take_handoff();
        // Boxed, so that the caller's future stays small.
        Box::pin(self.submission(handoff, |reply| Message::Submit(prepared, reply)))
    }

    /// Takes several tasks, in order and in one commit. The outer result is the
    /// commit's; each task has its own within.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`]; of a task [`Error::RequestIdReused`],
    /// [`Error::Damaged`].
    pub async fn submit_all(
        &self,
        tasks: Vec<(Submission, Permit)>,
    ) -> Result<Vec<Result<Submitted, Error>>, Error> {
        let (prepared, handoff) = Prepared::all(tasks);
        self.submission(handoff, |reply| Message::SubmitAll(prepared, reply)).await
    }

    /// Takes all of these tasks, in order and in one commit, or none.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`], [`Error::NotAll`] with what is
    /// wrong with each task that keeps the others out.
    pub async fn submit_atomic(
        &self,
        tasks: Vec<(Submission, Permit)>,
    ) -> Result<Vec<Submitted>, Error> {
        let (prepared, handoff) = Prepared::all(tasks);
        self.submission(handoff, |reply| Message::SubmitAtomic(prepared, reply)).await
    }

    /// The outcome of a submission whose `request_id` is known already; it needs
    /// no permit. `None` if the `request_id` is new.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`], [`Error::Unreadable`], [`Error::Damaged`].
    pub async fn repeated(
        &self,
        request_id: String,
        fingerprint: [u8; 16],
    ) -> Result<Option<Submitted>, Error> {
        let (identity, now) = (self.identity.clone(), self.clock.now());
        let question = move |connection: &_| {
            crate::failpoint::hit("reader.request");
            reader::request(connection, &identity, &request_id, now)
        };
        match self.ask(Lane::Short, question).await? {
            None => Ok(None),
            Some((known, submitted)) if known == fingerprint => Ok(Some(submitted)),
            Some((_, submitted)) => Err(Error::RequestIdReused(submitted.task)),
        }
    }

    /// Cancels tasks that wait, and signals the handlers of those that run, in
    /// one commit; of those, only tasks that stand in one of the states `among`, if
    /// any are named. Each has its own result, in order.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`]; of a task [`Error::NotFound`],
    /// [`Error::Ended`], [`Error::Moved`], [`Error::Damaged`].
    pub async fn cancel(
        &self,
        tasks: Vec<TaskId>,
        among: Vec<State>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        self.command(move |reply| Message::cancel(tasks, among, reply)).await
    }

    /// Puts tasks that have failed or were cancelled back into their queues, in
    /// one commit; of those, only tasks that stand in one of the states `among`, if
    /// any are named. Each has its own result, in order; after the first that finds
    /// its queue full, the others of that queue find it so too.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`]; of a task [`Error::NotFound`],
    /// [`Error::Ended`] (it has succeeded), [`Error::NotEnded`], [`Error::NoRoom`],
    /// [`Error::Moved`], [`Error::Damaged`].
    pub async fn redrive(
        &self,
        tasks: Vec<TaskId>,
        among: Vec<State>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        self.command(move |reply| Message::redrive(tasks, among, reply)).await
    }

    /// Records that a worker has joined the pool.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`].
    pub async fn join(&self, worker: WorkerId) -> Result<(), Error> {
        self.command(move |reply| Message::join(worker, reply)).await
    }

    /// A worker asks for its next dispatch: records how its last execution ended, if it had one,
    /// and answers with the next task as soon as there is one. The start of
    /// that task is committed then. A worker has one such call at a time.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub async fn next_dispatch(
        &self,
        worker: WorkerId,
        finished: Option<Finished>,
    ) -> Result<Dispatch, Error> {
        let finished = finished.map(Box::new);
        self.command(move |reply| Message::NextDispatch(worker, finished, reply)).await
    }

    /// Records that a worker has left the pool.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`].
    pub async fn leave(&self, worker: WorkerId) -> Result<(), Error> {
        self.command(move |reply| Message::leave(worker, reply)).await
    }

    /// Answers the next call for a dispatch of these workers, or the one that they wait in, with
    /// [`Dispatch::Stop`].
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`].
    pub async fn retire(&self, workers: Vec<WorkerId>) -> Result<(), Error> {
        let retire = move |engine: &mut Engine<'_>| {
            for worker in workers {
                engine.retire(worker);
            }
            Ok(Ok(()))
        };
        self.operate(0, retire).await
    }

    /// Changes a queue: holds also over restarts.
    ///
    /// # Errors
    /// [`Error::Draining`], [`Error::Failed`], [`Error::WrongBackoffs`],
    /// [`Error::NoRoom`] if it would be one queue too many.
    pub async fn change_queue(&self, queue: Arc<str>, change: QueueChange) -> Result<(), Error> {
        self.command(move |reply| Message::change(queue, change, reply)).await
    }

    /// How the queues stand, in the order of their names: all of them, or only
    /// the one of this name, if it exists.
    ///
    /// # Errors
    /// [`Error::Draining`] once the store is closed, [`Error::Failed`].
    pub async fn overview(&self, queue: Option<Arc<str>>) -> Result<Overview, Error> {
        self.command(move |reply| Message::Overview(queue, reply)).await
    }

    /// Starts no task from now on, refuses new ones, and answers workers that
    /// wait for a dispatch with [`Dispatch::Stop`].
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub async fn drain(&self) -> Result<(), Error> {
        let drain = |engine: &mut Engine<'_>| {
            engine.drain();
            Ok(Ok(()))
        };
        self.operate(0, drain).await
    }

    /// Commits what was taken, then closes: tails end, and every later command
    /// fails with [`Error::Draining`]. Reading goes on. Answers with how many
    /// tasks have not ended, running ones included.
    ///
    /// # Errors
    /// [`Error::Draining`] if it was closed before, [`Error::Crashed`].
    pub async fn close(&self) -> Result<u64, Error> {
        let (reply, remaining) = oneshot::channel();
        if self.engine.send(Message::Close(reply)).await.is_ok()
            && let Ok(remaining) = remaining.await
        {
            return Ok(remaining);
        }
        Err(self.ended().await)
    }

    /// Reads one task.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unreadable`], [`Error::Damaged`].
    pub async fn get(&self, id: TaskId) -> Result<Task, Error> {
        if !self.identity.owns(id) {
            return Err(Error::NotFound(id));
        }
        let (identity, now) = (self.identity.clone(), self.clock.now());
        let task = move |connection: &_| reader::task(connection, &identity, id, now);
        self.ask(Lane::Short, task).await?.ok_or(Error::NotFound(id))
    }

    /// Reads what an execution of a task wrote: this attempt, or the latest of which
    /// anything was kept. `None` if nothing was.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unreadable`], [`Error::Damaged`].
    pub async fn output(
        &self,
        id: TaskId,
        attempt: Option<u32>,
    ) -> Result<Option<(u32, Output)>, Error> {
        if !self.identity.owns(id) {
            return Err(Error::NotFound(id));
        }
        let output = move |connection: &_| reader::output(connection, id.number(), attempt);
        self.ask(Lane::Short, output).await
    }

    /// Reads a page of tasks in the order of submission, or in the reverse.
    /// Without their attempts.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::Damaged`], [`Error::TooManyLists`].
    pub async fn list(&self, query: Query) -> Result<Page, Error> {
        let (identity, now) = (self.identity.clone(), self.clock.now());
        let lane = Lane::List(query.asker);
        let page = move |connection: &_| {
            crate::failpoint::hit("reader.list");
            reader::page(connection, &identity, &query, now)
        };
        self.ask(lane, page).await
    }

    /// The cause, once the disk has failed to sync and the store takes no more.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.failure.clone()
    }

    /// Has the engine decide something that may change this many tasks.
    async fn operate<T, F>(&self, tasks: usize, decide: F) -> Result<T, Error>
    where
        T: std::fmt::Debug + Send + 'static,
        F: FnOnce(&mut Engine<'_>) -> Decided<T> + Send + 'static,
    {
        self.command(move |reply| Message::operation(tasks, decide, reply)).await
    }

    /// Sends a command, waiting for room, and then waits for its outcome.
    async fn command<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Error> {
        self.submission((), message).await
    }

    /// A command with tasks. Whoever waits in a line behind them is let in (`handoff` is
    /// dropped) once the engine has them in its order.
    async fn submission<E, T>(
        &self,
        handoff: E,
        message: impl FnOnce(Reply<T>) -> Message,
    ) -> Result<T, Error> {
        let (reply, outcome) = oneshot::channel();
        let sent = self.engine.send(message(reply)).await;
        drop(handoff);
        if sent.is_ok()
            && let Ok(outcome) = outcome.await
        {
            return outcome;
        }
        Err(self.ended().await)
    }

    /// Why a command has no answer: the engine has ended, or is about to.
    async fn ended(&self) -> Error {
        let mut end = self.end.clone();
        let told = tokio::time::timeout(VERDICT, end.wait_for(Option::is_some)).await;
        let told = told.map(|told| told.ok().and_then(|end| end.clone()));
        match told {
            Ok(Some(End::Closed)) => Error::Draining,
            Ok(Some(End::Crashed(cause))) => Error::Crashed(cause),
            Ok(None) | Err(_) => Error::Crashed("store-engine dropped a command".into()),
        }
    }

    /// Asks a reader, and answers when all that it has seen is published: whoever is
    /// told how a task stands finds the events of it.
    async fn ask<T: Send + 'static>(
        &self,
        lane: Lane,
        question: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let question = move |connection: &_| reader::at_one_moment(connection, question);
        let (newest, found) = self.readers.ask(lane, question).await?;
        match self.hub.published(newest).await {
            Ok(()) => Ok(found),
            Err(never) => Err(match self.ended().await {
                crashed @ Error::Crashed(_) => crashed,
                _ => Error::Unreadable(never.to_string().into()),
            }),
        }
    }
}

impl History for Store {
    fn read(
        &self,
        after: Seq,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<EventBatch>, Unreadable>> {
        Box::pin(async move {
            let events = move |connection: &_| reader::events_after(connection, after, max_bytes);
            self.readers.ask(Lane::History, events).await?
        })
    }
}
