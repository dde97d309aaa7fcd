//! Opens a store: starts its threads, and answers when it serves.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    sync::Arc,
};

use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
};

use super::{
    Durability, Settings, Store,
    directory::{Directory, DirectoryError},
    engine::{Closed, LogMover, Message, watch_disk},
    handle::End,
    reader::{self, Readers},
    recovery::{self, Opened, Recovered},
    sqlite::{self, Circumstances, DatabaseError, Location, SqliteJournal, Trust},
};
use crate::{
    admission::Admission,
    events::{HeldOpen, Hub},
    supervisor::{Supervisor, message_of},
};

/// Commands on their way to the engine; a further one waits, in order.
const MAX_MESSAGES: usize = 4_096;

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

/// Opens the store of a data directory, and recovers what the process before
/// left. Must be called within a tokio runtime; answers when the store serves.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(
    settings: &Settings,
    admission: Arc<Admission>,
) -> Result<(Arc<Store>, Hub, Recovered), OpenError> {
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
) -> Result<(Arc<Store>, Hub, Recovered), OpenError> {
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
    let store = Store { engine, readers, hub: hub.clone(), identity, clock, failure, end };
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
