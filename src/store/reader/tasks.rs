//! Reads tasks: one, or a page of those that match a filter.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Row, params};

use crate::{
    store::{
        Attempt, Filter, MAX_ATTEMPTS_KEPT, Page, Query, Task,
        identity::Identity,
        record::{self, LabelsRecord, TaskRecord},
        recovery::waiting_state,
        sqlite::{self, SlotRow},
    },
    task::{Data, Failure, Lifecycle, State, TaskId, Timestamp, WorkerId},
};

/// Rows that are looked at for one page; a rare filter then takes more pages.
pub const MAX_ROWS_PER_PAGE: usize = 10_000;

/// Bytes of payloads and results on one page, so that it stays below the 4 MiB
/// that most clients accept; a page has at least one task.
const MAX_PAGE_BYTES: usize = 1 << 20;

/// Bytes that are read for a page that leaves payloads and results out.
const MAX_SLIM_PAGE_BYTES: usize = 8 << 20;

type Rows<T> = Result<T, rusqlite::Error>;

/// Reads one task, with its attempts; `None` if there is none of this number. Within a
/// transaction of the caller's.
pub fn task(
    connection: &Connection,
    identity: Identity,
    id: TaskId,
    now: Timestamp,
) -> Rows<Option<Task>> {
    let number = id.number();
    let query = Query { beyond: Some(number - 1), limit: 1, ..Query::default() };
    let page = scan(connection, identity, &query, Some(number), now)?;
    let mut task = page.tasks.into_iter().next();
    if let Some(task) = &mut task {
        task.attempts = attempts(connection, number, task)?;
    }
    Ok(task)
}

/// Where a task stands, within a transaction of the caller's.
pub fn state(
    connection: &Connection,
    identity: Identity,
    id: TaskId,
    now: Timestamp,
) -> Rows<Option<State>> {
    let query = Query { limit: 1, omit_payloads: true, ..Query::default() };
    let page = scan(connection, identity, &query, Some(id.number()), now)?;
    Ok(page.tasks.first().map(|task| task.lifecycle.state))
}

/// Reads a page, at the moment `now` of the wall clock. Within a transaction of the
/// caller's, so that the slots and the rows are of one moment.
pub fn page(
    connection: &Connection,
    identity: Identity,
    query: &Query,
    now: Timestamp,
) -> Rows<Page> {
    scan(connection, identity, query, None, now)
}

/// The executions of a task. The latest one has no row of its own while it runs,
/// or if it ended the task.
fn attempts(connection: &Connection, number: u64, task: &Task) -> Rows<Vec<Attempt>> {
    let mut statement = connection.prepare_cached(
        "SELECT attempt, worker, started, ended, error_reason, error_message
         FROM attempt WHERE task = ?1 ORDER BY attempt",
    )?;
    let rows = statement.query_map([number], |row| {
        Ok(Attempt {
            attempt: row.get(0)?,
            worker: WorkerId(row.get(1)?),
            started: Timestamp(row.get(2)?),
            ended: Some(Timestamp(row.get(3)?)),
            failure: failure_at(row, 4)?,
        })
    })?;
    let mut attempts = rows.collect::<Rows<Vec<_>>>()?;
    let latest = task.lifecycle.attempt;
    let noted = attempts.last().is_some_and(|attempt| attempt.attempt == latest);
    if let (false, Some((worker, started))) = (noted, task.execution) {
        attempts.push(Attempt {
            attempt: latest,
            worker,
            started,
            ended: task.finished,
            failure: task.failure.clone().filter(|_| task.lifecycle.state.is_terminal()),
        });
    }
    let too_many = attempts.len().saturating_sub(MAX_ATTEMPTS_KEPT as usize);
    attempts.drain(..too_many);
    Ok(attempts)
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
    task.request_id, task.labels, task.record, finish.result";

/// Their places that are used more than once.
const LABELS: usize = 25;
const RECORD: usize = 26;
const RESULT: usize = 27;

/// Which tables lead the way to the tasks, the first one's id being the order of
/// the page: those that have not ended are few among many, and so are, at times,
/// those that have.
fn source(filter: &Filter) -> (&'static str, &'static str) {
    let states = &filter.states;
    let ended = |state: &State| state.is_terminal();
    if *states == [State::Running] {
        (
            "slot.task",
            "slot JOIN task ON task.id = slot.task LEFT JOIN live ON live.id = task.id
             LEFT JOIN finish ON finish.id = task.id",
        )
    } else if (states.is_empty() && !filter.finished.is_open())
        || (!states.is_empty() && states.iter().all(ended))
    {
        ("finish.id", "finish JOIN task ON task.id = finish.id LEFT JOIN live ON live.id = task.id")
    } else if states.is_empty() || states.iter().any(ended) {
        (
            "task.id",
            "task LEFT JOIN live ON live.id = task.id LEFT JOIN finish ON finish.id = task.id",
        )
    } else {
        ("live.id", "live JOIN task ON task.id = live.id LEFT JOIN finish ON finish.id = task.id")
    }
}

fn statement(query: &Query) -> String {
    let (id, source) = source(&query.filter);
    // Said in the words of the index on the dead letters, so that it is used.
    let dead_letters = match query.filter.states.as_slice() {
        [_, ..] if query.filter.states.iter().all(|state| *state == State::Failed) => {
            "AND finish.state = 2"
        }
        _ => "",
    };
    let order = if query.newest_first { "DESC" } else { "ASC" };
    format!(
        "SELECT {COLUMNS} FROM {source}
         WHERE {id} > ?1 AND {id} < ?2 {dead_letters} ORDER BY {id} {order}"
    )
}

/// Looks for the tasks of a page, or for the one of this number.
fn scan(
    connection: &Connection,
    identity: Identity,
    query: &Query,
    only: Option<u64>,
    now: Timestamp,
) -> Rows<Page> {
    let running: HashMap<u64, SlotRow> =
        sqlite::slots(connection)?.into_iter().map(|slot| (slot.task, slot)).collect();
    let mut statement = connection.prepare_cached(&statement(query))?;
    // What SQLite counts with.
    let most = i64::MAX.unsigned_abs();
    let beyond = query.beyond.map(|number| number.min(most));
    let (above, below) = match (only, query.newest_first) {
        (Some(number), _) => (number - 1, number + 1),
        (None, false) => (beyond.unwrap_or(0), most),
        (None, true) => (0, beyond.unwrap_or(most)),
    };
    let mut rows = statement.query(params![above, below])?;
    let mut page = Page::default();
    let (mut looked_at, mut bytes) = (0, 0);
    let max_bytes = if query.omit_payloads { MAX_SLIM_PAGE_BYTES } else { MAX_PAGE_BYTES };
    while let Some(row) = rows.next()? {
        let candidate = Candidate { row, running: &running, now };
        let number = candidate.number()?;
        looked_at += 1;
        if candidate.matches(&query.filter)? {
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
    Ok(page)
}

/// A row that may be on the page.
struct Candidate<'a> {
    row: &'a Row<'a>,
    running: &'a HashMap<u64, SlotRow>,
    now: Timestamp,
}

impl Candidate<'_> {
    fn bytes(&self) -> Rows<usize> {
        Ok(self.row.get_ref(RECORD)?.as_blob()?.len())
    }

    fn number(&self) -> Rows<u64> {
        self.row.get(0)
    }

    fn slot(&self) -> Rows<Option<&SlotRow>> {
        Ok(self.running.get(&self.number()?))
    }

    fn state(&self) -> Rows<State> {
        if let Some(column) = self.row.get::<_, Option<i64>>(13)? {
            return sqlite::state_from_column(column).ok_or_else(|| damaged(13, "not a state"));
        }
        if self.slot()?.is_some() {
            return Ok(State::Running);
        }
        Ok(waiting_state(Timestamp(self.row.get(4)?), self.now))
    }

    fn matches(&self, filter: &Filter) -> Rows<bool> {
        let named = |column, wanted: &[String]| -> Rows<bool> {
            let value = self.row.get_ref(column)?.as_str()?;
            Ok(wanted.is_empty() || wanted.iter().any(|wanted| wanted == value))
        };
        let finished = match self.row.get::<_, Option<i64>>(14)? {
            Some(time) => filter.finished.has(Timestamp(time)),
            None => filter.finished.is_open(),
        };
        Ok(finished
            && filter.created.has(Timestamp(self.row.get(3)?))
            && (filter.states.is_empty() || filter.states.contains(&self.state()?))
            && named(1, &filter.queues)?
            && named(2, &filter.kinds)?
            && self.has_labels(filter)?)
    }

    fn has_labels(&self, filter: &Filter) -> Rows<bool> {
        if filter.labels.is_empty() {
            return Ok(true);
        }
        let labels = self.labels()?;
        Ok(filter.labels.iter().all(|(key, value)| labels.get(key) == Some(value)))
    }

    fn labels(&self) -> Rows<BTreeMap<String, String>> {
        LabelsRecord::from_bytes(self.row.get_ref(LABELS)?.as_blob_or_null()?)
            .map_err(|error| damaged(LABELS, &error.to_string()))
    }

    fn read(&self, identity: Identity, omit_payloads: bool) -> Rows<Task> {
        let row = self.row;
        let state = self.state()?;
        let ended = state.is_terminal();
        let of = |live: usize, finish: usize| if ended { finish } else { live };
        let slot = self.slot()?;
        let mut record = TaskRecord::from_bytes(row.get_ref(RECORD)?.as_blob()?)
            .map_err(|error| damaged(RECORD, &error.to_string()))?;
        let payload = record.take_payload();
        let (timeout, max_attempts) = (record.timeout(), record.max_attempts);
        Ok(Task {
            id: identity.task_id(self.number()?),
            queue: row.get(1)?,
            kind: row.get(2)?,
            payload: if omit_payloads { Data::Empty } else { payload },
            priority: record.priority,
            labels: self.labels()?,
            request_id: row.get(24)?,
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
            failure: failure_at(row, of(11, 21))?,
            attempts: Vec::new(),
        })
    }

    fn execution(&self, at: usize) -> Rows<Option<(WorkerId, Timestamp)>> {
        let worker: Option<u32> = self.row.get(at)?;
        let started: Option<i64> = self.row.get(at + 1)?;
        Ok(worker.map(WorkerId).zip(started.map(Timestamp)))
    }

    fn result(&self) -> Rows<Option<Data>> {
        let Some(result_type) = self.row.get(23)? else { return Ok(None) };
        let bytes = self.row.get(RESULT)?;
        record::result_from_columns(result_type, bytes)
            .map(Some)
            .ok_or_else(|| damaged(RESULT, "not a result"))
    }
}

fn failure_at(row: &Row<'_>, at: usize) -> Rows<Option<Failure>> {
    let reason: Option<String> = row.get(at)?;
    let message: Option<String> = row.get(at + 1)?;
    Ok(reason.zip(message).map(|(reason, message)| Failure { reason, message }))
}

fn damaged(column: usize, what: &str) -> rusqlite::Error {
    let what = what.to_owned().into();
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, what)
}
