//! Opens a store, and carries commands and questions to its threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rusqlite::Connection;
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
};

use super::{
    Dispatch, Error, Finished, Output, Overview, Page, Query, QueueChange, Store, Submission,
    Submitted, Task,
    clock::WallClock,
    directory::{Directory, DirectoryError},
    engine::{Closed, LogMover, Message, Reply, watch_disk},
    identity::Identity,
    prepared::Prepared,
    reader::{self, Lane, Readers},
    recovery::{self, Opened, Recovered},
    sqlite::{self, Circumstances, DatabaseError, Location, SqliteJournal, Trust},
};
use crate::store::{Durability, Retention};
use crate::{
    admission::{Admission, Permit},
    event::Seq,
    events::{BoxFuture, EventBatch, HeldOpen, History, Hub, Unreadable},
    supervisor::{Supervisor, message_of},
    task::{State, TaskId, WorkerId},
};

/// Commands on their way to the engine; a further one waits, in order.
const MAX_MESSAGES: usize = 4_096;

/// How long a command whose answer was dropped waits to be told why. That is told as soon
/// as the engine's thread has let go of everything.
const VERDICT: Duration = Duration::from_secs(5);

/// Where a store is and how it behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory; made if need be.
    pub data_dir: PathBuf,
    /// What an OK answer survives.
    pub durability: Durability,
    /// Crashes in a row that fail a task, at least 1.
    pub max_crashes: u32,
    /// Bytes that are to be free on the disk for a new task to be taken; 0 for none.
    pub disk_reserve: u64,
    /// What is kept of what has ended, and for how long.
    pub retention: Retention,
    /// Bytes that the write-ahead log may have.
    pub max_log: u64,
    /// To start although durable commits are lost, with what is whole; what is damaged is
    /// kept beside it.
    pub accept_loss: bool,
    /// The clock by which tasks become due.
    pub clock: WallClock,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The database cannot be used.
    #[error("the database {path} cannot be used: {cause}; no task in it was changed")]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The threads cannot be started.
    #[error("cannot start a thread of the store: {0}")]
    Thread(#[from] std::io::Error),
}

/// [`Store`] on SQLite.
#[derive(Debug)]
pub struct SqliteStore {
    engine: mpsc::Sender<Message>,
    readers: Readers,
    hub: Hub,
    identity: Identity,
    clock: WallClock,
    failure: watch::Receiver<Option<Arc<str>>>,
    end: watch::Receiver<Option<End>>,
}

/// How the engine's thread has ended.
#[derive(Clone, Debug)]
enum End {
    /// It was closed, or never began.
    Closed,
    /// It panicked, with this message.
    Crashed(Arc<str>),
}

/// Opens the store of a data directory, and recovers what the process before
/// left. Must be called within a tokio runtime; answers when the store serves.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(
    settings: &Settings,
    admission: Arc<Admission>,
) -> Result<(Arc<SqliteStore>, Hub, Recovered), OpenError> {
    open_under(settings, admission, &Supervisor::default()).await
}

/// The same, with threads that are parts of this supervisor.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_under(
    settings: &Settings,
    admission: Arc<Admission>,
    supervisor: &Supervisor,
) -> Result<(Arc<SqliteStore>, Hub, Recovered), OpenError> {
    let (directory, location) = match settings.durability {
        Durability::Memory => {
            (None, Location::Memory(format!("taskyard-{:x}", rand::random::<u64>())))
        }
        Durability::Fsync | Durability::Os => {
            let directory = Directory::acquire(&settings.data_dir)?;
            let file = directory.database();
            (Some(directory), Location::File(file))
        }
    };
    let path = match &location {
        Location::File(path) => path.clone(),
        Location::Memory(_) => PathBuf::from("(in memory)"),
    };
    let unusable =
        |error: DatabaseError| OpenError::Database { path: path.clone(), cause: error.to_string() };
    let (engine, inbox) = mpsc::channel(MAX_MESSAGES);
    let start = EngineStart {
        location: location.clone(),
        settings: settings.clone(),
        admission,
        directory,
    };
    let (ending, end) = watch::channel(None);
    let opened = start.spawn(inbox, ending, supervisor)?.await;
    let opened = opened.unwrap_or_else(|_| {
        Err(DatabaseError::Damaged("the thread that read it ended unexpectedly".into()))
    });
    let Opened { identity, hub, failure, recovered } = opened.map_err(unusable)?;
    let connections = (0..reader::THREADS).map(|_| sqlite::open_reader(&location));
    let connections = connections.collect::<Result<_, _>>().map_err(unusable)?;
    let readers = Readers::start(connections, supervisor)?;
    let clock = settings.clock.clone();
    let store = SqliteStore { engine, readers, hub: hub.clone(), identity, clock, failure, end };
    Ok((Arc::new(store), hub, recovered))
}

struct EngineStart {
    location: Location,
    settings: Settings,
    admission: Arc<Admission>,
    directory: Option<Directory>,
}

impl EngineStart {
    /// Starts the thread that owns the writing connection.
    fn spawn(
        self,
        inbox: mpsc::Receiver<Message>,
        ending: watch::Sender<Option<End>>,
        supervisor: &Supervisor,
    ) -> std::io::Result<oneshot::Receiver<Result<Opened, DatabaseError>>> {
        let (reply, opened) = oneshot::channel();
        let (runtime, parts) = (runtime::Handle::current(), supervisor.clone());
        supervisor.thread("store-engine", move || {
            let mut reply = Some(reply);
            let mut open = None;
            let served =
                AssertUnwindSafe(|| self.serve(inbox, &runtime, &parts, &mut reply, &mut open));
            let served = catch_unwind(served).unwrap_or_else(|panic| {
                // Told before anybody can find out by an end that looks orderly.
                let cause: Arc<str> =
                    format!("store-engine panicked: {}", message_of(&*panic)).into();
                if let Some((hub, _)) = &open {
                    hub.fail(Arc::clone(&cause));
                }
                ending.send_replace(Some(End::Crashed(cause)));
                resume_unwind(panic)
            });
            ending.send_replace(Some(End::Closed));
            // Whoever is told of its end finds the directory free.
            match (served, reply) {
                (Ok(Some(closed)), _) => closed.tell(),
                (Err(error), Some(reply)) => drop(reply.send(Err(error))),
                _ => {}
            }
        })?;
        Ok(opened)
    }

    /// Opens, tells so, and serves to the end. Closes the database, then lets go
    /// of the directory.
    fn serve(
        self,
        inbox: mpsc::Receiver<Message>,
        runtime: &runtime::Handle,
        supervisor: &Supervisor,
        reply: &mut Option<oneshot::Sender<Result<Opened, DatabaseError>>>,
        open: &mut Option<(Hub, Option<HeldOpen>)>,
    ) -> Result<Option<Closed>, DatabaseError> {
        let Settings { durability, accept_loss, .. } = self.settings;
        let mut directory = self.directory;
        let prior = directory.as_ref().map(|directory| directory.trust(durability));
        let circumstances = Circumstances {
            trust: prior.unwrap_or(Trust::SameBoot),
            had_store: directory.as_ref().is_some_and(Directory::had_store),
            accept_loss,
        };
        let connection = sqlite::open_writer(&self.location, durability, circumstances)
            .inspect_err(|error| note_failed_sync(directory.as_ref(), error.is_failed_sync()))?;
        if let Some(directory) = &mut directory {
            directory.begins_anew(durability, &sqlite::identity(&connection)?)?;
        }
        let directory = directory.map(Arc::new);
        let journal = Box::new(SqliteJournal::new(&connection, self.location.path())?);
        let (mut engine, opened) =
            recovery::recover(journal, self.location.path(), self.admission, &self.settings)?;
        engine.directory.clone_from(&directory);
        if self.location.path().is_some() {
            let log = sqlite::open_log(&self.location)?;
            let mover = LogMover::start(move || log.move_into_database(), supervisor)?;
            engine.log_keeper.leave_to(mover);
        }
        *open = Some((opened.hub.clone(), opened.hub.hold_open()));
        if let Some(reply) = reply.take() {
            drop(reply.send(Ok(opened)));
        }
        let watch = watch_disk(Arc::downgrade(&engine.disk));
        // It ends with the engine.
        runtime.spawn(supervisor.task("disk-watch", watch));
        let failure = engine.failure.subscribe();
        let closed = engine.run(inbox, runtime);
        // What a failed sync left of the log is for recovery to judge.
        if failure.borrow().is_none() {
            let folded = sqlite::fold_log(&connection);
            note_failed_sync(
                directory.as_deref(),
                folded.is_err_and(|error| error.is_failed_sync()),
            );
        }
        Ok(closed)
    }
}

/// For the next start, if there is a directory that can tell it.
fn note_failed_sync(directory: Option<&Directory>, has_failed: bool) {
    if let (Some(directory), true) = (directory, has_failed) {
        directory.note_failed_sync();
    }
}

impl SqliteStore {
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
    async fn read<T: Send + 'static>(
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

impl Store for SqliteStore {
    fn submit(&self, task: Submission, permit: Permit) -> BoxFuture<'_, Result<Submitted, Error>> {
        let mut prepared = Box::new(Prepared::new(task, permit));
        let handoff = prepared.permit.take_handoff();
        Box::pin(self.submission(handoff, |reply| Message::Submit(prepared, reply)))
    }

    fn submit_all(
        &self,
        tasks: Vec<(Submission, Permit)>,
    ) -> BoxFuture<'_, Result<Vec<Result<Submitted, Error>>, Error>> {
        let (prepared, handoff) = Prepared::all(tasks);
        Box::pin(self.submission(handoff, |reply| Message::SubmitAll(prepared, reply)))
    }

    fn submit_atomic(
        &self,
        tasks: Vec<(Submission, Permit)>,
    ) -> BoxFuture<'_, Result<Vec<Submitted>, Error>> {
        let (prepared, handoff) = Prepared::all(tasks);
        Box::pin(self.submission(handoff, |reply| Message::SubmitAtomic(prepared, reply)))
    }

    fn repeated(
        &self,
        request_id: String,
        fingerprint: [u8; 16],
    ) -> BoxFuture<'_, Result<Option<Submitted>, Error>> {
        let identity = self.identity.clone();
        Box::pin(async move {
            let now = self.clock.now();
            let question = move |connection: &_| {
                crate::failpoint::hit("reader.request");
                reader::request(connection, &identity, &request_id, now)
            };
            match self.read(Lane::Short, question).await? {
                None => Ok(None),
                Some((known, submitted)) if known == fingerprint => Ok(Some(submitted)),
                Some((_, submitted)) => Err(Error::RequestIdReused(submitted.task)),
            }
        })
    }

    fn cancel(
        &self,
        tasks: Vec<TaskId>,
        among: Vec<State>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), Error>>, Error>> {
        Box::pin(self.command(move |reply| Message::Cancel(tasks, among, reply)))
    }

    fn redrive(
        &self,
        tasks: Vec<TaskId>,
        among: Vec<State>,
    ) -> BoxFuture<'_, Result<Vec<Result<(), Error>>, Error>> {
        Box::pin(self.command(move |reply| Message::Redrive(tasks, among, reply)))
    }

    fn retire(&self, workers: Vec<WorkerId>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.command(move |reply| Message::Retire(workers, reply)))
    }

    fn change_queue(
        &self,
        queue: Arc<str>,
        change: QueueChange,
    ) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.command(move |reply| Message::Change(queue, change, reply)))
    }

    fn overview(&self, queue: Option<Arc<str>>) -> BoxFuture<'_, Result<Overview, Error>> {
        Box::pin(self.command(move |reply| Message::Overview(queue, reply)))
    }

    fn join(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.command(move |reply| Message::Join(worker, reply)))
    }

    fn next_dispatch(
        &self,
        worker: WorkerId,
        finished: Option<Finished>,
    ) -> BoxFuture<'_, Result<Dispatch, Error>> {
        let finished = finished.map(Box::new);
        Box::pin(self.command(move |reply| Message::NextDispatch(worker, finished, reply)))
    }

    fn leave(&self, worker: WorkerId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.command(move |reply| Message::Leave(worker, reply)))
    }

    fn drain(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.command(Message::Drain))
    }

    fn close(&self) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async {
            let (reply, remaining) = oneshot::channel();
            if self.engine.send(Message::Close(reply)).await.is_ok()
                && let Ok(remaining) = remaining.await
            {
                return Ok(remaining);
            }
            Err(self.ended().await)
        })
    }

    fn get(&self, id: TaskId) -> BoxFuture<'_, Result<Task, Error>> {
        let identity = self.identity.clone();
        Box::pin(async move {
            let now = self.clock.now();
            if !identity.owns(id) {
                return Err(Error::NotFound(id));
            }
            let task = move |connection: &_| reader::task(connection, &identity, id, now);
            self.read(Lane::Short, task).await?.ok_or(Error::NotFound(id))
        })
    }

    fn output(
        &self,
        id: TaskId,
        attempt: Option<u32>,
    ) -> BoxFuture<'_, Result<Option<(u32, Output)>, Error>> {
        Box::pin(async move {
            if !self.identity.owns(id) {
                return Err(Error::NotFound(id));
            }
            let output = move |connection: &_| reader::output(connection, id.number(), attempt);
            self.read(Lane::Short, output).await
        })
    }

    fn list(&self, query: Query) -> BoxFuture<'_, Result<Page, Error>> {
        let identity = self.identity.clone();
        Box::pin(async move {
            let now = self.clock.now();
            let lane = Lane::List(query.asker);
            let page = move |connection: &_| {
                crate::failpoint::hit("reader.list");
                reader::page(connection, &identity, &query, now)
            };
            self.read(lane, page).await
        })
    }

    fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.failure.clone()
    }
}

impl History for SqliteStore {
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
