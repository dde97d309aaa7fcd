//! What reads, on threads of its own, beside the engine.
//!
//! A reader sees only what is committed and synced: with a write-ahead log,
//! SQLite lets other connections see a commit after its sync, not before.

mod tasks;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::sync::{mpsc, oneshot};

use super::{
    Error, Submitted,
    identity::Identity,
    sqlite::{self, Damage, Table},
};
use crate::{
    event::Seq,
    events::{EventBatch, Unreadable},
    supervisor::{Supervisor, message_of},
    task::Timestamp,
};

pub use tasks::{MAX_ROWS_PER_PAGE, output, page, task};

/// Questions that wait for a thread; further ones wait for a place.
const MAX_QUESTIONS: usize = 256;

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// Threads that answer questions, each with a connection.
#[derive(Clone, Debug)]
pub struct Readers {
    questions: mpsc::Sender<Question>,
}

impl Readers {
    /// Starts one thread per connection. They end when the last clone of this
    /// is dropped.
    pub fn start(connections: Vec<Connection>, supervisor: &Supervisor) -> std::io::Result<Self> {
        let (questions, inbox) = mpsc::channel(MAX_QUESTIONS);
        let inbox = Arc::new(std::sync::Mutex::new(inbox));
        for (number, connection) in connections.into_iter().enumerate() {
            let inbox = Arc::clone(&inbox);
            let name = format!("store-reader-{number}");
            supervisor.thread(name, move || answer(&connection, &inbox))?;
        }
        Ok(Self { questions })
    }

    /// Asks, and waits for the answer. Dropping the future takes the question
    /// back if no thread has begun with it. A question that panics is its asker's error,
    /// and nobody else's: it holds nothing but a transaction, which ends with it.
    pub async fn ask<T: Send + 'static>(
        &self,
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
        self.questions.send(question).await.map_err(|_| Unanswered::Crashed)?;
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
}

impl From<rusqlite::Error> for Unanswered {
    fn from(error: rusqlite::Error) -> Self {
        let failed = || Self::Failed(error.to_string().into());
        Damage::in_error(&error).map_or_else(failed, Self::Damaged)
    }
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Damaged(damage) => Self::Damaged(damage),
            Unanswered::Failed(cause) => Self::Unreadable(cause),
            Unanswered::Crashed => Self::Crashed("store-reader panicked".into()),
        }
    }
}

impl From<Unanswered> for Unreadable {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Damaged(damage) => Self::Damaged(damage.to_string()),
            other => Self::Broken(Error::from(other).to_string()),
        }
    }
}

fn answer(connection: &Connection, inbox: &std::sync::Mutex<mpsc::Receiver<Question>>) {
    loop {
        let question = {
            let mut inbox = inbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            inbox.blocking_recv()
        };
        crate::failpoint::hit("reader");
        match question {
            Some(question) => question(connection),
            None => return,
        }
    }
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
    identity: Identity,
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
    let Some((fingerprint, id, seq)) = found.optional()? else { return Ok(None) };
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
