//! Looks through a whole database: its structure, every row, and what must hold between the
//! tables.
//!
//! Owns what *whole* means. Must not repair, and must not guess.

use std::fmt;

use rusqlite::Connection;

use super::{Table, packs, sum::check};
use crate::store::journal::Damage;

/// Problems that are told one by one; further ones are counted.
const MAX_TOLD: usize = 1_000;

/// What is wrong with a database, each with its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Rows that were compared with their checksums.
    pub rows: u64,
    /// What is wrong; the first thousand.
    pub problems: Vec<String>,
    /// Further problems.
    pub more: u64,
    /// The structure in which SQLite holds the rows is among it: anything may come of it.
    pub is_torn: bool,
}

impl Findings {
    /// One more problem.
    pub fn add(&mut self, problem: impl fmt::Display) {
        if self.problems.len() < MAX_TOLD {
            self.problems.push(problem.to_string());
        } else {
            self.more += 1;
        }
    }

    fn add_torn(&mut self, problem: impl fmt::Display) {
        self.is_torn = true;
        self.add(problem);
    }

    /// How many problems there are.
    pub fn count(&self) -> u64 {
        self.problems.len() as u64 + self.more
    }
}

/// The first format with checksums.
pub const FIRST_CHECKED: i32 = 3;

/// Looks at everything, and adds what is wrong to `found`. The database has this format, from
/// [`FIRST_CHECKED`] to the present one.
///
/// # Errors
/// It cannot be looked at at all.
pub fn look_through(
    connection: &Connection,
    format: i32,
    found: &mut Findings,
) -> Result<(), rusqlite::Error> {
    let has_packs = format > 3;
    let mut structure = connection.prepare("PRAGMA integrity_check(1000)")?;
    let mut rows = structure.query([])?;
    while let Some(row) = rows.next()? {
        let told: String = row.get(0)?;
        if told != "ok" {
            found.add_torn(format!("the structure of the database: {told}"));
        }
    }
    let of_packs = |table: &Table| matches!(table, Table::Pack | Table::Unpacked);
    for table in Table::ALL.into_iter().filter(|table| has_packs || !of_packs(table)) {
        // What cannot be read of one table says nothing of the others.
        if let Err(error) = rows_of(connection, table, found) {
            found.add_torn(format!("table {} cannot be read to its end: {error}", table.name()));
        }
    }
    let packed = if has_packs { PACKED } else { NOTHING_PACKED };
    for (what, sql) in BETWEEN {
        let sql = &format!("{packed} {sql}");
        if let Err(error) = between(connection, what, sql, found) {
            found.add_torn(format!("{what}: cannot be found out: {error}"));
        }
    }
    Ok(())
}

fn rows_of(
    connection: &Connection,
    table: Table,
    found: &mut Findings,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {}", table.name()))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found.rows += 1;
        let checked = check(row, 0, table).and_then(|()| match table {
            Table::Pack => packs::all_heads(row).map(drop),
            _ => Ok(()),
        });
        if let Err(error) = checked {
            match Damage::in_error(&error) {
                Some(damage) => found.add(damage.what_is_wrong()),
                None => return Err(error),
            }
        }
    }
    Ok(())
}

/// The tasks that are in packs, as a table.
const PACKED: &str = "WITH RECURSIVE
    bit(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM bit WHERE n < 63),
    packed(id) AS MATERIALIZED (
        SELECT pack.first + n FROM pack LEFT JOIN unpacked ON unpacked.first = pack.first, bit
        WHERE (((pack.tasks & ~coalesce(unpacked.tasks, 0)) >> n) & 1) = 1)";

/// The same, of a format without packs.
const NOTHING_PACKED: &str =
    "WITH packed(id) AS (SELECT 0 WHERE 0), pack(first) AS (SELECT 0 WHERE 0),
     unpacked(first) AS (SELECT 0 WHERE 0)";

/// What must hold between the tables: each row that these find is one that breaks it.
const BETWEEN: [(&str, &str); 12] = [
    (
        "a task that neither lives nor has ended, or both",
        "SELECT id FROM task WHERE (id IN (SELECT id FROM live)) + (id IN (SELECT id FROM finish))
         + (id IN (SELECT id FROM packed)) <> 1",
    ),
    (
        "a task that waits as it was submitted, and is not there",
        "SELECT id FROM packed WHERE id NOT IN (SELECT id FROM task)",
    ),
    (
        "tasks that left a pack that is not there",
        "SELECT first FROM unpacked WHERE first NOT IN (SELECT first FROM pack)",
    ),
    (
        "the changing part of a task that is not there",
        "SELECT id FROM live WHERE id NOT IN (SELECT id FROM task)",
    ),
    (
        "the end of a task that is not there",
        "SELECT id FROM finish WHERE id NOT IN (SELECT id FROM task)",
    ),
    (
        "a worker that runs a task that does not live",
        "SELECT worker FROM slot WHERE task NOT IN (SELECT id FROM live UNION SELECT id FROM packed)",
    ),
    (
        "a request_id of a task that is not there, or of another",
        "SELECT request.id FROM request LEFT JOIN task ON task.id = request.task
         WHERE task.request_id IS NOT request.id",
    ),
    (
        "a task whose request_id is not known",
        "SELECT id FROM task
         WHERE request_id IS NOT NULL AND request_id NOT IN (SELECT id FROM request)",
    ),
    (
        "an execution of a task that is not there",
        "SELECT task FROM attempt WHERE task NOT IN (SELECT id FROM task)
         UNION SELECT task FROM output WHERE task NOT IN (SELECT id FROM task)",
    ),
    (
        "events that are missing before this one",
        "SELECT first FROM (SELECT first, lag(last) OVER (ORDER BY first) AS before FROM event)
         WHERE first <> before + 1",
    ),
    (
        "a count of ended tasks that is wrong, of the queue",
        "SELECT coalesce(tally.queue, counted.queue) FROM
         (SELECT queue, state, count(*) AS tasks, sum(finish.bytes) AS bytes FROM finish
          JOIN task ON task.id = finish.id GROUP BY queue, state) AS counted
         FULL JOIN (SELECT * FROM tally WHERE tasks > 0) AS tally
         ON tally.queue = counted.queue AND tally.state = counted.state
         WHERE tally.tasks IS NOT counted.tasks OR tally.bytes IS NOT counted.bytes",
    ),
    (
        "an ended task that will not be trimmed",
        "SELECT id FROM finish WHERE ended NOT IN (SELECT id FROM ended)",
    ),
];

fn between(
    connection: &Connection,
    what: &str,
    sql: &str,
    found: &mut Findings,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            rusqlite::types::ValueRef::Text(text) => {
                format!("{:?}", String::from_utf8_lossy(text))
            }
            other => format!("{other:?}"),
        };
        found.add(format!("{what}: {key}"));
    }
    Ok(())
}
