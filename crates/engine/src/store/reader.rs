//! What reads, on threads of its own, beside the engine.
//!
//! A reader sees only what is committed and synced: with a write-ahead log,
//! SQLite lets other connections see a commit after its sync, not before.
//!
//! There are three lanes, each with threads of its own, so that what is short waits for
//! nothing that is long. In the lane of the lists whoever asks takes turns with others.

mod lists;
mod live_numbers;
mod tasks;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::{mpsc, oneshot};

use self::lists::Lists;
use super::{
    Asker, Error, Submitted,
    identity::Identity,
    journal::Damage,
    sqlite::{self, Table},
};
use crate::{
    event::Seq,
    events::{EventBatch, Unreadable},
    supervisor::{Supervisor, message_of},
    task::Timestamp,
};

#[cfg(test)]
pub use live_numbers::LiveNumbers;
pub use tasks::{MAX_ROWS_PER_PAGE, output, page, task};

/// Questions of a lane that wait for a thread; further ones wait for a place.
const MAX_QUESTIONS: usize = 256;

/// Threads of each lane.
const THREADS_OF_LANE: usize = 2;

/// Threads that read, each with a connection.
pub const THREADS: usize = 3 * THREADS_OF_LANE;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// What a question has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Others that look something up by its key.
    Short,
    /// Other parts of the history, each of bounded size. A watcher asks for one at a time.
    History,
    /// Other pages of lists; of each asker, one. A page looks at up to
    /// [`MAX_ROWS_PER_PAGE`] rows.
    List(Asker),
}

/// Threads that answer questions, each with a connection.
#[derive(Clone, Debug)]
pub struct Readers {
    short: mpsc::Sender<Question>,
    history: mpsc::Sender<Question>,
    lists: Arc<OpenLists>,
}

/// Closes the lane of the lists when nobody can ask any more.
#[derive(Debug, Default)]
struct OpenLists(Arc<Lists>);

impl Drop for OpenLists {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Readers {
    /// Starts the threads, with one of [`THREADS`] connections each. They end when the last
    /// clone of this is dropped.
    pub fn start(connections: Vec<Connection>, supervisor: &Supervisor) -> std::io::Result<Self> {
        let mut connections = connections.into_iter();
        let mut of_lane = || connections.by_ref().take(THREADS_OF_LANE).collect::<Vec<_>>();
        let short = start_lane("short", of_lane(), supervisor)?;
        let history = start_lane("history", of_lane(), supervisor)?;
        let lists = Arc::new(OpenLists::default());
        for (number, connection) in of_lane().into_iter().enumerate() {
            let lists = Arc::clone(&lists.0);
            spawn("list", number, connection, supervisor, move || lists.next())?;
        }
        Ok(Self { short, history, lists })
    }

    /// Asks, and waits for the answer. Dropping the future takes the question
    /// back if no thread has begun with it. A question that panics is its asker's error,
    /// and nobody else's: it holds nothing but a transaction, which ends with it.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn ask<T: Send + 'static>(
        &self,
        lane: Lane,
        question: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            if !reply.is_closed() {
                let asked = AssertUnwindSafe(|| {
                    crate::failpoint::hit("reader.question");
                    question(connection)
                });
                drop(reply.send(match catch_unwind(asked) {
                    Ok(answer) => answer.map_err(Unanswered::from),
                    Err(panic) => {
                        let cause = format!("the question panicked: {}", message_of(&*panic));
                        Err(Unanswered::Failed(cause.into()))
                    }
                }));
            }
        });
        let gone = |_| Unanswered::Crashed;
        // Gone with this future: then the question need not wait any longer.
        let waits = Arc::new(());
        match lane {
            Lane::Short => self.short.send(question).await.map_err(gone)?,
            Lane::History => self.history.send(question).await.map_err(gone)?,
            Lane::List(asker) => {
                let pushed = self.lists.0.push(asker, question, Arc::downgrade(&waits));
                pushed.map_err(|lists::TooMany| Unanswered::TooManyLists)?;
            }
        }
        answer.await.map_err(|_| Unanswered::Crashed)?
    }
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// A row that it needs is damaged.
    Damaged(Damage),
    /// The disk refused, or the question panicked.
    Failed(Arc<str>),
    /// The thread that was to answer has panicked.
    Crashed,
    /// As many lists wait as may, of the asker's address or of all.
    TooManyLists,
}

impl From<rusqlite::Error> for Unanswered {
    fn from(error: rusqlite::Error) -> Self {
        let failed = || Self::Failed(error.to_string().into());
        Damage::in_error(&error).map_or_else(failed, Self::Damaged)
    }
}

/// Why a question stays without an answer.
const CRASHED: &str = "a thread that reads panicked";

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Damaged(damage) => Self::Damaged(damage),
            Unanswered::Failed(cause) => Self::Unreadable(cause),
            Unanswered::Crashed => Self::Crashed(CRASHED.into()),
            Unanswered::TooManyLists => Self::TooManyLists,
        }
    }
}

impl From<Unanswered> for Unreadable {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Damaged(damage) => Self::Damaged(damage.to_string()),
            Unanswered::Crashed => Self::Crashed(CRASHED.into()),
            other => Self::Broken(Error::from(other).to_string()),
        }
    }
}

/// Starts the threads of a lane in which nobody is passed over.
fn start_lane(
    lane: &str,
    connections: Vec<Connection>,
    supervisor: &Supervisor,
) -> std::io::Result<mpsc::Sender<Question>> {
    let (questions, inbox) = mpsc::channel(MAX_QUESTIONS);
    let inbox = Arc::new(Mutex::new(inbox));
    for (number, connection) in connections.into_iter().enumerate() {
        let inbox: Arc<Mutex<mpsc::Receiver<Question>>> = Arc::clone(&inbox);
        spawn(lane, number, connection, supervisor, move || {
            inbox.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
        })?;
    }
    Ok(questions)
}

/// Starts a thread that answers the questions that `next` gives, to the last one.
fn spawn(
    lane: &str,
    number: usize,
    connection: Connection,
    supervisor: &Supervisor,
    next: impl Fn() -> Option<Question> + Send + 'static,
) -> std::io::Result<()> {
    let failpoint = format!("reader.{lane}-lane");
    let answer = move || {
        while let Some(question) = next() {
            crate::failpoint::hit(&failpoint);
            question(&connection);
        }
    };
    supervisor.thread(format!("store-{lane}-{number}"), answer)
}

/// Asks a question within one transaction, so that all that it reads is of one
/// moment; tells also which event was the newest then.
pub fn at_one_moment<T>(
    connection: &Connection,
    question: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
) -> Result<(Seq, T), rusqlite::Error> {
    let snapshot = connection.unchecked_transaction()?;
    let found = question(connection)?;
    let newest = sqlite::newest_event(connection)?;
    snapshot.finish()?;
    Ok((newest, found))
}

/// The fingerprint of the submission that a `request_id` was first used for, and
/// its outcome. Within a transaction of the caller's.
pub fn request(
    connection: &Connection,
    identity: &Identity,
    request_id: &str,
    now: Timestamp,
) -> Result<Option<(Vec<u8>, Submitted)>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT request.*, task.* FROM request JOIN task ON task.id = request.task
         WHERE request.id = ?1",
    )?;
    let found = statement.query_row([request_id], |row| {
        let task = 1 + Table::Request.columns();
        sqlite::check(row, 0, Table::Request)?;
        sqlite::check(row, task, Table::Task)?;
        Ok((row.get(3)?, identity.task_id(row.get(2)?), Seq(row.get(task + 2)?)))
    });
    let found = found.optional();
    let found =
        found.map_err(|error| Damage::met_at(Table::Request, format!("{request_id:?}"), error))?;
    let Some((fingerprint, id, seq)) = found else { return Ok(None) };
    let state = tasks::state(connection, identity, id, now)?;
    let submitted = |state| Submitted { task: id, seq, state, existing: true };
    Ok(state.map(|state| (fingerprint, submitted(state))))
}

/// What [`events_after`] found.
pub type Found = Result<Vec<EventBatch>, Unreadable>;

/// The batches with the events after `after`: at least one, if there is one.
pub fn events_after(
    connection: &Connection,
    after: Seq,
    max_bytes: usize,
) -> Result<Found, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM event
         WHERE first >= coalesce((SELECT max(first) FROM event WHERE first <= ?1), 0)
         ORDER BY first",
    )?;
    let mut rows = statement.query([after.next().0])?;
    let mut batches = Vec::new();
    let mut bytes = 0;
    // The event that the next row begins with, once one was seen.
    let mut expected: Option<Seq> = None;
    while let Some(row) = rows.next()? {
        let (first, last) = (Seq(row.get(1)?), Seq(row.get(2)?));
        if expected.is_none() && first > after.next() {
            return Ok(Err(Unreadable::Expired(first)));
        }
        let checked = sqlite::check(row, 0, Table::Event).and_then(|()| match expected {
            Some(expected) if expected != first => {
                let missing = format!("the events {} to {} are missing", expected.0, first.0 - 1);
                Err(Damage::new(Table::Event, expected.0, missing).into())
            }
            _ => Ok(()),
        });
        // What comes before it is handed out; whoever goes on is told.
        match checked {
            Err(_) if !batches.is_empty() => break,
            checked => checked?,
        }
        expected = Some(last.next());
        let data = Bytes::copy_from_slice(row.get_ref(4)?.as_blob()?);
        if last > after {
            bytes += data.len();
            batches.push(EventBatch::new(first, last, data, Box::default()));
        }
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(Ok(batches))
}
