//! Reads tasks: one, or a page of those that match a filter.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use prost::DecodeError;
use rusqlite::{Connection, OptionalExtension as _, Row, params, types::ValueRef};

use crate::{
    store::{
        Attempt, Filter, MAX_ATTEMPTS_KEPT, MAX_OUTPUTS_READ, Output, Page, Query, Task,
        identity::Identity,
        journal::{Damage, SlotRow},
        record::{self, LabelsRecord, OutputRecord, TaskRecord},
        recovery::waiting_state,
        sqlite::{self, Table},
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
    identity: &Identity,
    id: TaskId,
    now: Timestamp,
) -> Rows<Option<Task>> {
    let number = id.number();
    let query = Query { beyond: Some(number - 1), limit: 1, ..Query::default() };
    let at = |table| move |error| Damage::met_at(table, number, error);
    let page = scan(connection, identity, &query, Some(number), now).map_err(at(Table::Task))?;
    let mut task = only(page)?;
    if let Some(task) = &mut task {
        task.attempts = attempts(connection, number, task).map_err(at(Table::Attempt))?;
    }
    Ok(task)
}

/// Where a task stands, within a transaction of the caller's.
pub fn state(
    connection: &Connection,
    identity: &Identity,
    id: TaskId,
    now: Timestamp,
) -> Rows<Option<State>> {
    let query = Query { limit: 1, omit_payloads: true, ..Query::default() };
    let page = scan(connection, identity, &query, Some(id.number()), now)?;
    Ok(only(page)?.map(|task| task.lifecycle.state))
}

/// The task that was looked for by its number.
fn only(page: Page) -> Rows<Option<Task>> {
    match page.damaged.into_iter().next() {
        Some((_, damage)) => Err(damage.into()),
        None => Ok(page.tasks.into_iter().next()),
    }
}

/// Reads a page, at the moment `now` of the wall clock. Within a transaction of the
/// caller's, so that the slots and the rows are of one moment.
pub fn page(
    connection: &Connection,
    identity: &Identity,
    query: &Query,
    now: Timestamp,
) -> Rows<Page> {
    scan(connection, identity, query, None, now)
}

/// The executions of a task. The latest one has no row of its own while it runs,
/// or if it ended the task.
fn attempts(connection: &Connection, number: u64, task: &Task) -> Rows<Vec<Attempt>> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM attempt WHERE task = ?1 ORDER BY attempt")?;
    let rows = statement.query_map([number], |row| {
        sqlite::check(row, 0, Table::Attempt)?;
        Ok(Attempt {
            attempt: row.get(2)?,
            worker: WorkerId(row.get(3)?),
            started: Timestamp(row.get(4)?),
            ended: Some(Timestamp(row.get(5)?)),
            failure: failure_at(row, 6)?,
            output: None,
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
            output: None,
        });
    }
    let too_many = attempts.len().saturating_sub(MAX_ATTEMPTS_KEPT as usize);
    attempts.drain(..too_many);
    add_outputs(connection, number, &mut attempts)?;
    Ok(attempts)
}

/// The latest outputs, as many as there is room for.
fn add_outputs(connection: &Connection, number: u64, attempts: &mut [Attempt]) -> Rows<()> {
    let mut statement =
        connection.prepare_cached("SELECT * FROM output WHERE task = ?1 ORDER BY attempt DESC")?;
    let mut rows = statement.query([number])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        bytes += row.get_ref(3)?.as_blob()?.len();
        if bytes > MAX_OUTPUTS_READ && bytes > row.get_ref(3)?.as_blob()?.len() {
            break;
        }
        let (attempt, output) = output_at(row)?;
        if let Some(attempt) = attempts.iter_mut().find(|known| known.attempt == attempt) {
            attempt.output = Some(output);
        }
    }
    Ok(())
}

/// What an execution of a task wrote: this one, or the latest of which anything was kept.
pub fn output(
    connection: &Connection,
    number: u64,
    attempt: Option<u32>,
) -> Rows<Option<(u32, Output)>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM output WHERE task = ?1 AND (?2 IS NULL OR attempt = ?2)
         ORDER BY attempt DESC LIMIT 1",
    )?;
    let output = statement.query_row(params![number, attempt], output_at).optional();
    output.map_err(|error| Damage::met_at(Table::Output, number, error))
}

fn output_at(row: &Row<'_>) -> Rows<(u32, Output)> {
    sqlite::check(row, 0, Table::Output)?;
    let attempt = row.get(2)?;
    let wrong = |error: DecodeError| {
        let key = format!("{}, {attempt}", row.get::<_, u64>(1).unwrap_or_default());
        Damage::new(Table::Output, key, error.to_string())
    };
    let output = OutputRecord::from_bytes(row.get_ref(3)?.as_blob()?).map_err(wrong)?;
    Ok((attempt, output))
}

/// Where the columns of the tables begin that [`Candidate`] takes, each as it is on
/// disk: the checksum, the number, and so on.
const TASK: usize = 0;
const LIVE: usize = TASK + 1 + Table::Task.columns();
const FINISH: usize = LIVE + 1 + Table::Live.columns();

/// Columns of a task.
const CREATED: usize = TASK + 3;
const QUEUE: usize = TASK + 4;
const KIND: usize = TASK + 5;
const LABELS: usize = TASK + 7;
const RECORD: usize = TASK + 8;

/// Columns of a task's end.
const FINISHED: usize = FINISH + 3;
const RESULT_TYPE: usize = FINISH + 14;
const RESULT: usize = FINISH + 15;

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
        "SELECT task.*, live.*, finish.* FROM {source}
         WHERE {id} > ?1 AND {id} < ?2 {dead_letters} ORDER BY {id} {order}"
    )
}

/// Looks for the tasks of a page, or for the one of this number.
fn scan(
    connection: &Connection,
    identity: &Identity,
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
        let number: u64 = row.get(TASK + 1)?;
        looked_at += 1;
        match Candidate::of(row, &running, now).and_then(|found| found.shown(identity, query)) {
            Ok(None) => {}
            Ok(Some((task, read))) => {
                bytes += read;
                page.tasks.push(task);
            }
            Err(error) => match Damage::of_row(&error) {
                Some(damage) => page.damaged.push((identity.task_id(number), damage)),
                None => return Err(error),
            },
        }
        let found = page.tasks.len() + page.damaged.len();
        let full = found >= query.limit || bytes >= max_bytes;
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

impl<'a> Candidate<'a> {
    /// Compares the checksums: also of what the filter will not let through, as
    /// nothing can be said of a task that is damaged, not even that it does not match.
    fn of(row: &'a Row<'a>, running: &'a HashMap<u64, SlotRow>, now: Timestamp) -> Rows<Self> {
        let candidate = Self { row, running, now };
        sqlite::check(row, TASK, Table::Task)?;
        let (lives, ended) = (candidate.has(LIVE)?, candidate.has(FINISH)?);
        if lives {
            sqlite::check(row, LIVE, Table::Live)?;
        }
        if ended {
            sqlite::check(row, FINISH, Table::Finish)?;
        }
        if lives == ended {
            let what = if lives { "it lives and has ended" } else { "it neither lives nor ended" };
            return Err(Damage::new(Table::Task, candidate.number()?, what).into());
        }
        Ok(candidate)
    }

    /// The task, if it matches, and the bytes that were read for it, whether they are shown or
    /// not.
    fn shown(&self, identity: &Identity, query: &Query) -> Rows<Option<(Task, usize)>> {
        if !self.matches(&query.filter)? {
            return Ok(None);
        }
        let task = self.read(identity, query.omit_payloads)?;
        let bytes = self.bytes()? + task.result.as_ref().map_or(0, Data::len);
        Ok(Some((task, bytes)))
    }

    /// Whether there is a row of the table whose columns begin here.
    fn has(&self, table: usize) -> Rows<bool> {
        Ok(self.row.get_ref(table)? != ValueRef::Null)
    }

    fn bytes(&self) -> Rows<usize> {
        Ok(self.row.get_ref(RECORD)?.as_blob()?.len())
    }

    fn number(&self) -> Rows<u64> {
        self.row.get(TASK + 1)
    }

    fn slot(&self) -> Rows<Option<&SlotRow>> {
        Ok(self.running.get(&self.number()?))
    }

    fn state(&self) -> Rows<State> {
        if self.has(FINISH)? {
            let state = sqlite::state_from_column(self.row.get(FINISH + 2)?);
            return state.ok_or_else(|| self.damaged(Table::Finish, "it tells of no end"));
        }
        if self.slot()?.is_some() {
            return Ok(State::Running);
        }
        let interval = self.row.get::<_, Option<u64>>(LIVE + 6)?.map(Duration::from_micros);
        Ok(waiting_state(Timestamp(self.row.get(LIVE + 5)?), interval, self.now))
    }

    fn damaged(&self, table: Table, what: &str) -> rusqlite::Error {
        Damage::new(table, self.number().unwrap_or_default(), what).into()
    }

    fn matches(&self, filter: &Filter) -> Rows<bool> {
        let named = |column, wanted: &[String]| -> Rows<bool> {
            let value = self.row.get_ref(column)?.as_str()?;
            Ok(wanted.is_empty() || wanted.iter().any(|wanted| wanted == value))
        };
        let finished = match self.finished()? {
            Some(time) => filter.finished.has(time),
            None => filter.finished.is_open(),
        };
        Ok(finished
            && filter.created.has(Timestamp(self.row.get(CREATED)?))
            && (filter.states.is_empty() || filter.states.contains(&self.state()?))
            && named(QUEUE, &filter.queues)?
            && named(KIND, &filter.kinds)?
            && self.has_labels(filter)?)
    }

    fn finished(&self) -> Rows<Option<Timestamp>> {
        Ok(self.row.get::<_, Option<i64>>(FINISHED)?.map(Timestamp))
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
            .map_err(|error| self.damaged(Table::Task, &error.to_string()))
    }

    fn read(&self, identity: &Identity, omit_payloads: bool) -> Rows<Task> {
        let row = self.row;
        let state = self.state()?;
        let ended = state.is_terminal();
        let of = |live: usize, finish: usize| if ended { FINISH + finish } else { LIVE + live };
        let slot = self.slot()?;
        let mut record = TaskRecord::from_bytes(row.get_ref(RECORD)?.as_blob()?)
            .map_err(|error| self.damaged(Table::Task, &error.to_string()))?;
        let payload = record.take_payload();
        let (timeout, max_attempts) = (record.timeout(), record.max_attempts);
        Ok(Task {
            id: identity.task_id(self.number()?),
            queue: row.get(QUEUE)?,
            kind: row.get(KIND)?,
            payload: if omit_payloads { Data::Empty } else { payload },
            priority: record.priority,
            labels: self.labels()?,
            request_id: row.get(TASK + 6)?,
            timeout,
            max_attempts,
            lifecycle: Lifecycle {
                state,
                attempt: slot.map_or_else(|| row.get(of(9, 5)), |slot| Ok(slot.attempt))?,
                failures: row.get(of(10, 6))?,
                crashes: row.get::<_, Option<u32>>(LIVE + 11)?.unwrap_or(0),
                cancel_requested: row.get(of(12, 7))?,
            },
            created: Timestamp(row.get(CREATED)?),
            due: Timestamp(row.get(of(5, 4))?),
            execution: match slot {
                Some(slot) => Some((slot.worker, slot.started)),
                None => self.execution(of(13, 10))?,
            },
            finished: self.finished()?,
            result: if omit_payloads { None } else { self.result()? },
            failure: failure_at(row, of(15, 12))?,
            attempts: Vec::new(),
        })
    }

    fn execution(&self, at: usize) -> Rows<Option<(WorkerId, Timestamp)>> {
        let worker: Option<u32> = self.row.get(at)?;
        let started: Option<i64> = self.row.get(at + 1)?;
        Ok(worker.map(WorkerId).zip(started.map(Timestamp)))
    }

    fn result(&self) -> Rows<Option<Data>> {
        let Some(result_type) = self.row.get(RESULT_TYPE)? else { return Ok(None) };
        let bytes = self.row.get(RESULT)?;
        record::result_from_columns(result_type, bytes)
            .map(Some)
            .ok_or_else(|| self.damaged(Table::Finish, "its result is of no known type"))
    }
}

fn failure_at(row: &Row<'_>, at: usize) -> Rows<Option<Failure>> {
    let reason: Option<String> = row.get(at)?;
    let message: Option<String> = row.get(at + 1)?;
    Ok(reason.zip(message).map(|(reason, message)| Failure { reason, message }))
}
