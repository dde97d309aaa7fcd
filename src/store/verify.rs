//! Looks through a store that no server has open, and tells all that is wrong with it.
//!
//! Changes nothing: a database with a write-ahead log is copied, with its log, and the copy
//! is looked through. Must not repair, and must not guess.

use std::{fmt, fmt::Write as _, fs, io, path::Path, path::PathBuf};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::config::Durability;

use super::{
    DirectoryError,
    directory::Directory,
    sqlite::{self, Damage, Table},
};

/// Problems that are told one by one; further ones are counted.
const MAX_TOLD: usize = 1_000;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Which file.
    pub database: PathBuf,
    /// Rows that were compared with their checksums.
    pub rows: u64,
    /// Commits that are in the write-ahead log only.
    pub commits_in_log: u64,
    /// What is wrong, each with its place; at most a thousand.
    pub problems: Vec<String>,
    /// Further problems.
    pub more: u64,
}

impl Verified {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, problem: impl fmt::Display) {
        if self.problems.len() < MAX_TOLD {
            self.problems.push(problem.to_string());
        } else {
            self.more += 1;
        }
    }
}

/// Why a store cannot be looked through.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is none.
    #[error("there is no store in {0}")]
    NoStore(PathBuf),
    /// The data directory cannot be used, or a server has it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The files cannot be read or copied.
    #[error("the store in {path} cannot be read: {source}")]
    Unreadable {
        /// Which data directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has no checksums yet.
    #[error(
        "the store has format {0}, and only format {FORMAT} has checksums; a start of the server brings it to that",
        FORMAT = sqlite::FORMAT
    )]
    Format(i32),
    /// It is not ours.
    #[error("the database is not one of taskyard's")]
    NotOurs,
}

/// Looks through the store in a data directory.
///
/// # Errors
/// [`VerifyError`]. What is wrong with the store is no error, but told.
pub fn verify(data_dir: &Path) -> Result<Verified, VerifyError> {
    let database = data_dir.join("taskyard.db");
    if !database.is_file() {
        return Err(VerifyError::NoStore(data_dir.to_owned()));
    }
    let held = Directory::acquire(data_dir)?;
    let unreadable = |source| VerifyError::Unreadable { path: data_dir.to_owned(), source };
    let mut found = Verified { database: database.clone(), ..Verified::default() };
    let scan = sqlite::scan_log(&database).map_err(unreadable)?;
    found.commits_in_log = scan.commits;
    let has_log = scan.bytes > 0;
    // Judged as a start would.
    if scan.is_damaged(held.trust(Durability::Fsync)) {
        let log = database.with_extension("db-wal");
        found.add(sqlite::LogDamage { log, scan });
    }
    let copy = if has_log { Some(copy_of(&database).map_err(unreadable)?) } else { None };
    let readable = copy.as_ref().map_or(database.clone(), |dir| dir.path().join("taskyard.db"));
    match look_through(&readable, copy.is_none(), &mut found) {
        Ok(()) => {}
        Err(Stopped::Error(error)) => return Err(error),
        Err(Stopped::Sqlite(error)) => found.add(format!("it cannot be read any further: {error}")),
    }
    Ok(found)
}

/// A database and its log as they are, elsewhere.
fn copy_of(database: &Path) -> io::Result<TempDir> {
    let dir = tempfile::tempdir()?;
    fs::copy(database, dir.path().join("taskyard.db"))?;
    fs::copy(database.with_extension("db-wal"), dir.path().join("taskyard.db-wal"))?;
    Ok(dir)
}

/// Why it goes no further.
enum Stopped {
    Error(VerifyError),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Stopped {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn look_through(database: &Path, immutable: bool, found: &mut Verified) -> Result<(), Stopped> {
    let connection = open(database, immutable)?;
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application != sqlite::APPLICATION_ID {
        return Err(Stopped::Error(VerifyError::NotOurs));
    }
    let format: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format != sqlite::FORMAT {
        return Err(Stopped::Error(VerifyError::Format(format)));
    }
    let mut structure = connection.prepare("PRAGMA integrity_check(1000)")?;
    let mut rows = structure.query([])?;
    while let Some(row) = rows.next()? {
        let told: String = row.get(0)?;
        if told != "ok" {
            found.add(format!("the structure of the database: {told}"));
        }
    }
    for table in Table::ALL {
        // What cannot be read of one table says nothing of the others.
        if let Err(error) = rows_of(&connection, table, found) {
            found.add(format!("table {} cannot be read to its end: {error}", table.name()));
        }
    }
    for (what, sql) in BETWEEN {
        if let Err(error) = between(&connection, what, sql, found) {
            found.add(format!("{what}: cannot be found out: {error}"));
        }
    }
    Ok(())
}

/// A file that nothing changes meanwhile, or a copy of our own.
fn open(database: &Path, immutable: bool) -> Result<Connection, rusqlite::Error> {
    if !immutable {
        return Connection::open(database);
    }
    let mut escaped = String::new();
    for byte in database.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                escaped.push(char::from(*byte));
            }
            other => {
                let _ = write!(escaped, "%{other:02X}");
            }
        }
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
}

fn rows_of(
    connection: &Connection,
    table: Table,
    found: &mut Verified,
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(&format!("SELECT * FROM {}", table.name()))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        found.rows += 1;
        if let Err(error) = sqlite::check(row, 0, table) {
            match Damage::in_error(&error) {
                Some(damage) => found.add(damage.what_is_wrong()),
                None => return Err(error),
            }
        }
    }
    Ok(())
}

/// What must hold between the tables: each row that these find is one that breaks it.
const BETWEEN: [(&str, &str); 10] = [
    (
        "a task that neither lives nor has ended, or both",
        "SELECT id FROM task WHERE (id IN (SELECT id FROM live)) = (id IN (SELECT id FROM finish))",
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
        "SELECT worker FROM slot WHERE task NOT IN (SELECT id FROM live)",
    ),
    (
        "a request_id of a task that is not there, or of another",
        "SELECT request.id FROM request LEFT JOIN task ON task.id = request.task
         WHERE task.request_id IS NOT request.id",
    ),
    (
        "a task whose request_id is not known",
        "SELECT id FROM task WHERE request_id NOT IN (SELECT id FROM request)",
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
    found: &mut Verified,
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
