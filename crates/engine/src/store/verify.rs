//! Looks through a store that no server has open, and tells all that is wrong with it.
//!
//! Changes nothing, not even `LOCK`: a database with a write-ahead log is copied, with its
//! log, and the copy is looked through. Must not know what is looked for.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::store::Durability;

use super::{
    DirectoryError,
    directory::Directory,
    sqlite::{self, Findings},
};

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
    /// It has no checksums yet, or is of a later version.
    #[error(
        "the store has format {0}; this version looks through those of format {FIRST} to {FORMAT}: \
         a start of the server brings an earlier one to that",
        FIRST = sqlite::FIRST_CHECKED,
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
    if !data_dir.is_dir() {
        return Err(VerifyError::NoStore(data_dir.to_owned()));
    }
    let held = Directory::look_into(data_dir)?;
    let database = held.database();
    if !database.is_file() {
        return Err(VerifyError::NoStore(data_dir.to_owned()));
    }
    let unreadable = |source| VerifyError::Unreadable { path: data_dir.to_owned(), source };
    let mut found = Findings::default();
    let scan = sqlite::scan_log(&database).map_err(unreadable)?;
    let (has_log, commits_in_log) = (scan.bytes > 0, scan.commits);
    // Judged as a start would.
    if scan.is_damaged(held.trust(Durability::Fsync)) {
        let log = sqlite::log_of(&database);
        found.add(sqlite::LogDamage { log, scan });
    }
    let copy = if has_log { Some(copy_of(&database).map_err(unreadable)?) } else { None };
    let readable = copy.as_ref().map_or(database.clone(), |dir| dir.path().join(COPY));
    match look_through(&readable, copy.is_none(), &mut found) {
        Ok(()) => {}
        Err(Stopped::Error(error)) => return Err(error),
        Err(Stopped::Sqlite(error)) => found.add(format!("it cannot be read any further: {error}")),
    }
    let Findings { rows, problems, more, .. } = found;
    Ok(Verified { database, rows, commits_in_log, problems, more })
}

/// The name of a copy.
const COPY: &str = "taskyard.db";

/// A database and its log as they are, elsewhere.
fn copy_of(database: &Path) -> io::Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let copy = dir.path().join(COPY);
    fs::copy(database, &copy)?;
    fs::copy(sqlite::log_of(database), sqlite::log_of(&copy))?;
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

fn look_through(database: &Path, immutable: bool, found: &mut Findings) -> Result<(), Stopped> {
    let connection = open(database, immutable)?;
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application != sqlite::APPLICATION_ID {
        return Err(Stopped::Error(VerifyError::NotOurs));
    }
    let format: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if !(sqlite::FIRST_CHECKED..=sqlite::FORMAT).contains(&format) {
        return Err(Stopped::Error(VerifyError::Format(format)));
    }
    Ok(sqlite::look_through(&connection, format, found)?)
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
