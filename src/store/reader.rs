//! What reads, on threads of its own, beside the engine.
//!
//! A reader sees only what is committed and synced: with a write-ahead log,
//! SQLite lets other connections see a commit after its sync, not before.

use std::{collections::HashMap, sync::Arc, thread};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::{mpsc, oneshot};

use super::{
    Page, Query, Submitted, Task,
    engine::wall_clock,
    identity::Identity,
    record::{self, TaskRecord},
    recovery::waiting_state,
    sqlite::{self, SlotRow},
};
use crate::{
    event::Seq,
    events::{EventBatch, Unreadable},
    task::{Data, Failure, Lifecycle, State, TaskId, Timestamp, WorkerId},
};

/// Rows that are looked at for one page; a rare filter then takes more pages.
pub const MAX_ROWS_PER_PAGE: usize = 10_000;

/// Bytes of payloads and results on one page, so that it stays below the 4 MiB
/// that most clients accept; a page has at least one task.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// Bytes that are read for a page that leaves payloads and results out.
const MAX_SLIM_PAGE_BYTES: usize = 8 << 20;

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
    pub fn start(connections: Vec<Connection>) -> std::io::Result<Self> {
        let (questions, inbox) = mpsc::channel(MAX_QUESTIONS);
        let inbox = Arc::new(std::sync::Mutex::new(inbox));
        for (number, connection) in connections.into_iter().enumerate() {
            let inbox = Arc::clone(&inbox);
            thread::Builder::new()
                .name(format!("store-reader-{number}"))
                .spawn(move || answer(&connection, &inbox))?;
        }
        Ok(Self { questions })
    }

    /// Asks, and waits for the answer. Dropping the future takes the question
    /// back if no thread has begun with it.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    ) -> Result<T, Arc<str>> {
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            if !reply.is_closed() {
                drop(reply.send(question(connection)));
            }
        });
        let gone = || Arc::from("the store is closed");
        self.questions.send(question).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(|error| error.to_string().into())
    }
}

fn answer(connection: &Connection, inbox: &std::sync::Mutex<mpsc::Receiver<Question>>) {
    loop {
        let question = {
            let mut inbox = inbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            inbox.blocking_recv()
        };
        match question {
            Some(question) => question(connection),
            None => return,
        }
    }
}

/// Reads one task; `None` if there is none of this number.
pub fn task(
    connection: &Connection,
    identity: Identity,
    id: TaskId,
) -> Result<Option<Task>, rusqlite::Error> {
    let query = Query { after: id.number() - 1, limit: 1, ..Query::default() };
    let page = scan(connection, identity, &query, Some(id.number()))?;
    Ok(page.tasks.into_iter().next())
}

/// The fingerprint of the submission that a `request_id` was first used for, and
/// its outcome.
pub fn request(
    connection: &Connection,
    identity: Identity,
    request_id: &str,
) -> Result<Option<(Vec<u8>, Submitted)>, rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT request.fingerprint, task.id, task.seq
         FROM request JOIN task ON task.id = request.task WHERE request.id = ?1",
    )?;
    let found = statement.query_row([request_id], |row| {
        Ok((row.get(0)?, identity.task_id(row.get(1)?), Seq(row.get(2)?)))
    });
    let Some((fingerprint, id, seq)) = found.optional()? else { return Ok(None) };
    let state = task(connection, identity, id)?.map(|task| task.lifecycle.state);
    let state = state.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
    Ok(Some((fingerprint, Submitted { task: id, seq, state, existing: true })))
}

/// Reads a page.
pub fn page(
    connection: &Connection,
    identity: Identity,
    query: &Query,
) -> Result<Page, rusqlite::Error> {
    scan(connection, identity, query, None)
}

/// The columns that [`Candidate`] takes, in order. The record is the last of its
/// table, so that SQLite does not read a large one that is not asked for.
const COLUMNS: &str = "
    task.id, task.queue, task.kind, task.created,
    live.due, live.attempt, live.failures, live.crashes, live.cancel_requested,
    live.worker, live.started, live.error_reason, live.error_message,
    finish.state, finish.finished, finish.due, finish.attempt, finish.failures,
    finish.cancel_requested, finish.worker, finish.started,
    finish.error_reason, finish.error_message, finish.result_type,
    task.record, finish.result";

/// Which tables lead the way to the tasks: those that have not ended are few
/// among many, and so are, at times, those that have.
fn source(states: &[State]) -> &'static str {
    let ended = |state: &State| state.is_terminal();
    if states == [State::Running] {
        return "slot JOIN task ON task.id = slot.task LEFT JOIN live ON live.id = task.id
                LEFT JOIN finish ON finish.id = task.id";
    }
    if states.is_empty() || (states.iter().any(ended) && !states.iter().all(ended)) {
        "task LEFT JOIN live ON live.id = task.id LEFT JOIN finish ON finish.id = task.id"
    } else if states.iter().all(ended) {
        "finish JOIN task ON task.id = finish.id LEFT JOIN live ON live.id = task.id"
    } else {
        "live JOIN task ON task.id = live.id LEFT JOIN finish ON finish.id = task.id"
    }
}

fn scan(
    connection: &Connection,
    identity: Identity,
    query: &Query,
    last: Option<u64>,
) -> Result<Page, rusqlite::Error> {
    let source = source(&query.states);
    // The driving table is the first one; its id is the order of the page.
    let id = match source.split(' ').next() {
        Some("slot") => "slot.task",
        Some("live") => "live.id",
        Some("finish") => "finish.id",
        _ => "task.id",
    };
    // Said in the words of the index on the dead letters, so that it is used.
    let dead_letters = match query.states.as_slice() {
        [_, ..] if query.states.iter().all(|state| *state == State::Failed) => {
            "AND finish.state = 2"
        }
        _ => "",
    };
    let sql = format!(
        "SELECT {COLUMNS} FROM {source} WHERE {id} > ?1 AND {id} <= ?2 {dead_letters} ORDER BY {id}"
    );
    // One transaction, so that the slots and the rows are of one moment.
    let snapshot = connection.unchecked_transaction()?;
    let now = wall_clock();
    let running: HashMap<u64, SlotRow> =
        sqlite::slots(connection)?.into_iter().map(|slot| (slot.task, slot)).collect();
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![query.after, last.unwrap_or(i64::MAX as u64)])?;
    let mut page = Page::default();
    let (mut looked_at, mut bytes) = (0, 0);
    let max_bytes = if query.omit_payloads { MAX_SLIM_PAGE_BYTES } else { MAX_PAGE_BYTES };
    while let Some(row) = rows.next()? {
        let candidate = Candidate { row, running: &running, now };
        let number = candidate.number()?;
        looked_at += 1;
        if candidate.matches(query)? {
            let task = candidate.read(identity, query.omit_payloads)?;
            // What is read counts, whether it is shown or not.
            bytes += candidate.bytes()? + task.result.as_ref().map_or(0, Data::len);
            page.tasks.push(task);
        }
        let full = page.tasks.len() >= query.limit || bytes >= max_bytes;
        if full || looked_at >= MAX_ROWS_PER_PAGE {
            page.next = rows.next()?.map(|_| number);
            break;
        }
    }
    drop(rows);
    drop(statement);
    snapshot.finish()?;
    Ok(page)
}

/// A row that may be on the page.
struct Candidate<'a> {
    row: &'a Row<'a>,
    running: &'a HashMap<u64, SlotRow>,
    now: Timestamp,
}

impl Candidate<'_> {
    fn bytes(&self) -> Result<usize, rusqlite::Error> {
        Ok(self.row.get_ref(24)?.as_blob()?.len())
    }

    fn number(&self) -> Result<u64, rusqlite::Error> {
        self.row.get(0)
    }

    fn slot(&self) -> Result<Option<&SlotRow>, rusqlite::Error> {
        Ok(self.running.get(&self.number()?))
    }

    fn state(&self) -> Result<State, rusqlite::Error> {
        if let Some(column) = self.row.get::<_, Option<i64>>(13)? {
            return sqlite::state_from_column(column).ok_or_else(|| damaged(13, "not a state"));
        }
        if self.slot()?.is_some() {
            return Ok(State::Running);
        }
        Ok(waiting_state(Timestamp(self.row.get(4)?), self.now))
    }

    fn matches(&self, query: &Query) -> Result<bool, rusqlite::Error> {
        let named = |column, wanted: &Option<String>| match wanted {
            None => Ok(true),
            Some(wanted) => {
                self.row.get_ref(column).map(|value| value.as_bytes() == Ok(wanted.as_bytes()))
            }
        };
        let state = query.states.is_empty() || query.states.contains(&self.state()?);
        Ok(state && named(1, &query.queue)? && named(2, &query.kind)?)
    }

    fn read(&self, identity: Identity, omit_payloads: bool) -> Result<Task, rusqlite::Error> {
        let row = self.row;
        let state = self.state()?;
        let ended = state.is_terminal();
        let of = |live: usize, finish: usize| if ended { finish } else { live };
        let slot = self.slot()?;
        let mut record = TaskRecord::from_bytes(row.get_ref(24)?.as_blob()?)
            .map_err(|error| damaged(24, &error.to_string()))?;
        let payload = record.take_payload();
        let (timeout, max_attempts) = (record.timeout(), record.max_attempts);
        Ok(Task {
            id: identity.task_id(self.number()?),
            queue: row.get(1)?,
            kind: row.get(2)?,
            payload: if omit_payloads { Data::Empty } else { payload },
            priority: record.priority,
            labels: record.labels,
            request_id: record.request_id,
            timeout,
            max_attempts,
            lifecycle: Lifecycle {
                state,
                attempt: slot.map_or_else(|| row.get(of(5, 16)), |slot| Ok(slot.attempt))?,
                failures: row.get(of(6, 17))?,
                crashes: row.get::<_, Option<u32>>(7)?.unwrap_or(0),
                cancel_requested: row.get(of(8, 18))?,
            },
            created: Timestamp(row.get(3)?),
            due: Timestamp(row.get(of(4, 15))?),
            execution: match slot {
                Some(slot) => Some((slot.worker, slot.started)),
                None => self.execution(of(9, 19))?,
            },
            finished: row.get::<_, Option<i64>>(14)?.map(Timestamp),
            result: if omit_payloads { None } else { self.result()? },
            failure: self.failure(of(11, 21))?,
        })
    }

    fn execution(&self, at: usize) -> Result<Option<(WorkerId, Timestamp)>, rusqlite::Error> {
        let worker: Option<u32> = self.row.get(at)?;
        let started: Option<i64> = self.row.get(at + 1)?;
        Ok(worker.map(WorkerId).zip(started.map(Timestamp)))
    }

    fn failure(&self, at: usize) -> Result<Option<Failure>, rusqlite::Error> {
        let reason: Option<String> = self.row.get(at)?;
        let message: Option<String> = self.row.get(at + 1)?;
        Ok(reason.zip(message).map(|(reason, message)| Failure { reason, message }))
    }

    fn result(&self) -> Result<Option<Data>, rusqlite::Error> {
        let Some(result_type) = self.row.get(23)? else { return Ok(None) };
        let bytes = self.row.get(25)?;
        record::result_from_columns(result_type, bytes)
            .map(Some)
            .ok_or_else(|| damaged(25, "not a result"))
    }
}

fn damaged(column: usize, what: &str) -> rusqlite::Error {
    let what = what.to_owned().into();
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, what)
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
        "SELECT first, last, data FROM event
         WHERE first >= coalesce((SELECT max(first) FROM event WHERE first <= ?1), 0)
         ORDER BY first",
    )?;
    let mut rows = statement.query([after.next().0])?;
    let mut batches = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let (first, last) = (Seq(row.get(0)?), Seq(row.get(1)?));
        if batches.is_empty() && first > after.next() {
            return Ok(Err(Unreadable::Expired(first)));
        }
        let data = Bytes::copy_from_slice(row.get_ref(2)?.as_blob()?);
        bytes += data.len();
        if last > after {
            batches.push(EventBatch::new(first, last, data, Box::default()));
        }
        if bytes >= max_bytes {
            break;
        }
    }
    Ok(Ok(batches))
}
