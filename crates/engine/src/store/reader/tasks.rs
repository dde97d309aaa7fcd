//! Reads tasks: one, or a page of those that match a filter.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::live_numbers::LiveNumbers;
use prost::DecodeError;
use rusqlite::{Connection, OptionalExtension as _, Row, params, types::ValueRef};

use crate::{
    store::{
        Attempt, Filter, MAX_ATTEMPTS_KEPT, MAX_OUTPUTS_READ, Output, Page, Query, Task,
        identity::Identity,
        journal::{Damage, LiveHead, SlotRow},
        record::{self, LabelsRecord, OutputRecord, TaskRecord},
        recovery::waiting_state,
        sqlite::{self, PackReader, Table},
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

/// What leads the way to the tasks of a page.
enum Way {
    /// A table with others beside it, in the order of this column.
    Rows { id: &'static str, source: &'static str },
    /// The numbers of those that have not ended.
    Numbers,
}

/// One task, with what is known of it.
const ONE: &str =
    "task LEFT JOIN live ON live.id = task.id LEFT JOIN finish ON finish.id = task.id";

/// Those that have not ended are few among many, and so are, at times, those that have.
fn way(filter: &Filter) -> Way {
    let states = &filter.states;
    let ended = |state: &State| state.is_terminal();
    if *states == [State::Running] {
        Way::Rows {
            id: "slot.task",
            source: "slot JOIN task ON task.id = slot.task LEFT JOIN live ON live.id = task.id
                     LEFT JOIN finish ON finish.id = task.id",
        }
    } else if (states.is_empty() && !filter.finished.is_open())
        || (!states.is_empty() && states.iter().all(ended))
    {
        Way::Rows {
            id: "finish.id",
            source: "finish JOIN task ON task.id = finish.id LEFT JOIN live ON live.id = task.id",
        }
    } else if states.is_empty() || states.iter().any(ended) {
        Way::Rows { id: "task.id", source: ONE }
    } else {
        Way::Numbers
    }
}

fn statement(query: &Query, id: &str, source: &str) -> String {
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
    let running = sqlite::slots(connection)?.into_iter().map(|slot| (slot.task, slot)).collect();
    // What SQLite counts with.
    let most = i64::MAX.unsigned_abs();
    let beyond = query.beyond.map(|number| number.min(most));
    let (above, below) = match (only, query.newest_first) {
        (Some(number), _) => (number - 1, number + 1),
        (None, false) => (beyond.unwrap_or(0), most),
        (None, true) => (0, beyond.unwrap_or(most)),
    };
    let packs = PackReader::new(connection);
    let mut scan = Scan {
        identity,
        query,
        running,
        packs,
        now,
        page: Page::default(),
        looked_at: 0,
        bytes: 0,
    };
    match way(&query.filter) {
        Way::Rows { id, source } => {
            let mut statement = connection.prepare_cached(&statement(query, id, source))?;
            let mut rows = statement.query(params![above, below])?;
            while let Some(row) = rows.next()? {
                let number = scan.look_at(row)?;
                if scan.is_full() {
                    scan.page.next = rows.next()?.map(|_| number);
                    break;
                }
            }
        }
        Way::Numbers => {
            let sql = format!("SELECT task.*, live.*, finish.* FROM {ONE} WHERE task.id = ?1");
            let mut statement = connection.prepare_cached(&sql)?;
            let mut numbers = LiveNumbers::new(connection, (above, below), query.newest_first);
            while let Some(number) = numbers.next()? {
                let mut rows = statement.query([number])?;
                if let Some(row) = rows.next()? {
                    scan.look_at(row)?;
                }
                if scan.is_full() {
                    scan.page.next = numbers.next()?.map(|_| number);
                    break;
                }
            }
        }
    }
    Ok(scan.page)
}

/// A page that is being filled.
struct Scan<'a> {
    identity: &'a Identity,
    query: &'a Query,
    running: HashMap<u64, SlotRow>,
    packs: PackReader<'a>,
    now: Timestamp,
    page: Page,
    looked_at: usize,
    bytes: usize,
}

impl Scan<'_> {
    /// Puts a task on the page if it matches; returns its number.
    fn look_at(&mut self, row: &Row<'_>) -> Rows<u64> {
        let number: u64 = row.get(TASK + 1)?;
        self.looked_at += 1;
        let found = Candidate::of(row, &self.running, &mut self.packs, self.now);
        match found.and_then(|found| found.shown(self.identity, self.query)) {
            Ok(None) => {}
            Ok(Some((task, read))) => {
                self.bytes += read;
                self.page.tasks.push(task);
            }
            Err(error) => match Damage::of_row(&error) {
                Some(damage) => self.page.damaged.push((self.identity.task_id(number), damage)),
                None => return Err(error),
            },
        }
        Ok(number)
    }

    fn is_full(&self) -> bool {
        let max_bytes = if self.query.omit_payloads { MAX_SLIM_PAGE_BYTES } else { MAX_PAGE_BYTES };
        let found = self.page.tasks.len() + self.page.damaged.len();
        found >= self.query.limit || self.bytes >= max_bytes || self.looked_at >= MAX_ROWS_PER_PAGE
    }
}

/// A row that may be on the page.
struct Candidate<'a> {
    row: &'a Row<'a>,
    running: &'a HashMap<u64, SlotRow>,
    /// It waits as it was submitted, and has a row in none of the other tables.
    packed: Option<LiveHead>,
    now: Timestamp,
}

impl<'a> Candidate<'a> {
    /// Compares the checksums: also of what the filter will not let through, as
    /// nothing can be said of a task that is damaged, not even that it does not match.
    fn of(
        row: &'a Row<'a>,
        running: &'a HashMap<u64, SlotRow>,
        packs: &mut PackReader<'_>,
        now: Timestamp,
    ) -> Rows<Self> {
        let mut candidate = Self { row, running, packed: None, now };
        sqlite::check(row, TASK, Table::Task)?;
        let (lives, ended) = (candidate.has(LIVE)?, candidate.has(FINISH)?);
        if lives {
            sqlite::check(row, LIVE, Table::Live)?;
        }
        if ended {
            sqlite::check(row, FINISH, Table::Finish)?;
        }
        let number = candidate.number()?;
        if lives && ended {
            return Err(Damage::new(Table::Task, number, "it lives and has ended").into());
        }
        if !lives && !ended {
            candidate.packed = packs.head(number)?;
            if candidate.packed.is_none() {
                return Err(Damage::new(Table::Task, number, "it neither lives nor ended").into());
            }
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
        let (due, interval) = if let Some(head) = &self.packed {
            (head.due, head.interval)
        } else {
            let interval = self.row.get::<_, Option<u64>>(LIVE + 6)?;
            (Timestamp(self.row.get(LIVE + 5)?), interval.map(Duration::from_micros))
        };
        Ok(waiting_state(due, interval, self.now))
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
        // Of one that waits as it was submitted there is nothing to count.
        let count = |at| row.get::<_, Option<u32>>(at).map(Option::unwrap_or_default);
        let slot = self.slot()?;
        let mut record = TaskRecord::from_bytes(row.get_ref(RECORD)?.as_blob()?)
            .map_err(|error| self.damaged(Table::Task, &error.to_string()))?;
        let mut body = record.take_body();
        if omit_payloads {
            body.payload = Data::Empty;
        }
        Ok(Task {
            id: identity.task_id(self.number()?),
            queue: row.get(QUEUE)?,
            kind: row.get(KIND)?,
            body,
            priority: record.priority,
            labels: self.labels()?,
            request_id: row.get(TASK + 6)?,
            max_attempts: record.max_attempts,
            lifecycle: Lifecycle {
                state,
                attempt: slot.map_or_else(|| count(of(9, 5)), |slot| Ok(slot.attempt))?,
                failures: count(of(10, 6))?,
                crashes: count(LIVE + 11)?,
                cancel_requested: row.get::<_, Option<bool>>(of(12, 7))?.unwrap_or(false),
            },
            created: Timestamp(row.get(CREATED)?),
            due: match &self.packed {
                Some(head) => head.due,
                None => Timestamp(row.get(of(5, 4))?),
            },
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
