//! The schema and the connections; `journal` has how a group is committed, `statements` how its
//! rows are written, and `start` what is read at start.
//!
//! On disk (format 4; `migrate` makes it from earlier ones). Every row has a checksum
//! (`sum`), which every read compares:
//!
//! | table | a row is | written |
//! |---|---|---|
//! | `meta` | one fact about the store | when it is made |
//! | `incarnation` | one process start | at start |
//! | `task` | a task as submitted; never changes | at submission |
//! | `pack` | what decides the turns of up to 64 tasks that wait as they were submitted | at submission; deleted when they have all changed or ended |
//! | `unpacked` | which tasks of a pack have changed or ended since | at such a change; deleted with the pack |
//! | `live` | the changing part of a task that has not ended, and is not as it was submitted | at the end of an attempt, at a cancellation, at a redrive; deleted at the end |
//! | `slot` | a worker that runs a task | at a start; deleted when the worker is idle |
//! | `finish` | how a task ended | at the end; deleted by a redrive |
//! | `attempt` | an execution that did not end its task | when the task waits again |
//! | `output` | what an execution wrote, if it is kept | when the execution ends |
//! | `request` | an idempotency key | at submission |
//! | `dead_letter` | an index of the tasks that FAILED | at such an end |
//! | `event` | **all** events of one commit, encoded as they are sent | at every commit |
//! | `ended` | the numbers of **all** tasks that ended in one commit | at such a commit |
//! | `tally` | how many tasks of a queue have ended in one way, and are kept | at such a commit |
//! | `queue` | what an operator has changed about a queue | at such a change |
//!
//! Few rows make a fast store: the start of a task writes no row of its own,
//! only its worker's slot, and only once per commit. A task is running if and
//! only if a slot names it. Times are microseconds since the Unix epoch, but for
//! `uptime`: that is how long the store had been running, over all process starts,
//! when the row was written, and what retention goes by.
//!
//! `live.interval` tells what kind of due time a task has: NULL if it is a time of the
//! wall clock (`run_at`), and otherwise how long the task was to wait until then (its
//! delay or its backoff), which is 0 if it may start at once.
//!
//! What has ended is trimmed in the order of `ended` and `event`, the oldest
//! first. `finish.ended` names the row of `ended` that a task is trimmed with: a
//! number in another row, of a task that was redriven, is passed over.

mod create;
mod fault;
mod integrity;
mod journal;
mod log;
mod lookups;
mod memory;
mod migrate;
mod numbers;
mod opening;
mod packs;
mod schema;
mod start;
mod statements;
mod sum;
mod wal;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::journal::{Damage, Fault, JournalError};
use crate::{store::Durability, task::State};

pub use integrity::{FIRST_CHECKED, Findings, look_through};
pub use journal::SqliteJournal;
pub use log::{CHECKPOINT_PAGES, LogConnection};
pub use opening::{Circumstances, LogDamage, log_of, scan_log, wait_out};
pub use packs::{MAX_TASKS as MAX_PACKED, PackReader, numbers as packed_numbers};
pub use schema::Table;
#[cfg(test)]
pub use start::incarnations;
pub use start::{identity, newest_event, slots};
pub use sum::check;
pub use wal::{Scan, Trust};

/// "task" in ASCII: marks the file as ours.
pub const APPLICATION_ID: i32 = 0x7461_736b;
/// The format that this code reads and writes.
pub const FORMAT: i32 = 4;
/// Earlier SQLite can lose committed data when a write-ahead log is reset.
const OLDEST_SQLITE: i32 = 3_051_003;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("this build contains SQLite {0}, which can lose data; 3.51.3 or newer is needed")]
    SqliteTooOld(&'static str),
    #[error("it is a database of another program")]
    NotOurs,
    #[error(
        "its format is {0}, and this version of taskyard reads up to {FORMAT}; use a newer one"
    )]
    TooNew(i32),
    #[error("its format is {0}, which no version of taskyard has written; restore a copy")]
    UnknownFormat(i32),
    #[error("it is empty or gone, and its write-ahead log {0} is not; restore it, or remove both")]
    Orphaned(PathBuf),
    #[error(
        "it is empty or gone, with its write-ahead log, and there was a store here before; \
         restore both, or start once with --accept-loss, which begins a new store"
    )]
    Gone,
    #[error("{0}")]
    LogDamaged(Box<LogDamage>),
    #[error("without what was lost it is not whole either ({0}); restore a copy")]
    NotWhole(String),
    #[error("another program has locked it; close that, and start again")]
    Locked,
    #[error("its write-ahead log cannot be written and synced, so what is in it is not sure: {0}")]
    Unproven(io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Sqlite(rusqlite::Error),
    #[error("{0}")]
    Row(#[from] Damage),
    #[error("{0}")]
    Journal(JournalError),
    #[error("a record in it is damaged: {0}")]
    Damaged(String),
}

impl DatabaseError {
    /// Whether the disk has failed to sync what was written.
    pub fn is_failed_sync(&self) -> bool {
        match self {
            Self::Unproven(_) => true,
            Self::Sqlite(error) => fault::of(error) == Fault::Sync,
            Self::Journal(error) => error.fault() == Fault::Sync,
            _ => false,
        }
    }
}

impl From<JournalError> for DatabaseError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Damaged(damage) => Self::Row(damage),
            error @ JournalError::Failed { .. } => Self::Journal(error),
        }
    }
}

impl From<DatabaseError> for JournalError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Journal(error) => error,
            DatabaseError::Row(damage) => Self::Damaged(damage),
            DatabaseError::Sqlite(error) => error.into(),
            other => Self::Failed { fault: Fault::Other, cause: other.to_string().into() },
        }
    }
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        Damage::in_error(&error).map_or_else(|| Self::Sqlite(error), Self::Row)
    }
}

/// Where a database is.
#[derive(Clone, Debug)]
pub enum Location {
    File(std::path::PathBuf),
    /// Shared by the connections of this process under this name.
    Memory(String),
}

impl Location {
    /// Its file, if it has one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Memory(_) => None,
        }
    }
}

/// How long a connection of a store in memory waits for another one's lock, and a reader
/// for whatever is in its way.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the writing connection waits for a lock at a time, which only another program
/// can hold. Whoever asks for it decides whether it goes on waiting.
const LOCK_STEP: Duration = Duration::from_millis(250);

/// Opens the writing connection, of a database that is whole and really on the disk, and
/// has the present format; makes a new one where there is none.
///
/// # Errors
/// See [`DatabaseError`]. Nothing of the database and its log is changed if it is not
/// ours, or damaged, or of a newer format.
pub fn open_writer(
    location: &Location,
    durability: Durability,
    circumstances: Circumstances,
) -> Result<Connection, DatabaseError> {
    memory::configure();
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(DatabaseError::SqliteTooOld(rusqlite::version()));
    }
    let loss = match location {
        Location::File(path) => opening::examine(path, circumstances)?,
        Location::Memory(_) => None,
    };
    let connection = connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    if let Location::File(path) = location {
        connection.busy_timeout(LOCK_STEP)?;
        keep_log_at_close(&connection, opening::has_log(path)?)?;
    }
    let format = opening::wait_out(|| format_columns(&connection)).and_then(known_format)?;
    keep_log_at_close(&connection, true)?;
    if let Some(loss) = loss {
        loss.accept(&connection, format)?;
    }
    let (journal, synchronous) = match durability {
        Durability::Fsync => ("WAL", "FULL"),
        Durability::Os => ("WAL", "NORMAL"),
        Durability::Memory => ("MEMORY", "OFF"),
    };
    if format == 0 {
        create::allow_giving_back(&connection)?;
    }
    opening::wait_out(|| connection.pragma_update(None, "journal_mode", journal))?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    // Where a plain sync does not reach the disk (macOS), ask for one that does.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    // The engine moves the log into the database, outside of any commit.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    if let Location::File(path) = location {
        opening::prove(&connection, path)?;
    }
    match format {
        0 => create::fill(&connection)?,
        FORMAT => {}
        older => migrate::migrate(&connection, older)?,
    }
    if matches!(location, Location::File(_)) {
        migrate::allow_giving_back(&connection)?;
    }
    Ok(connection)
}

/// Whether closing leaves the log as it is. Closing would move the log of a database that
/// is refused into it, or one whose sync has failed: that is for the next start to judge.
fn keep_log_at_close(connection: &Connection, keep: bool) -> Result<(), DatabaseError> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)?;
    Ok(())
}

/// Moves the write-ahead log into the database and empties it, so that after an
/// orderly end the one file is all there is to copy. If a reader is in the way,
/// the log stays, and the next start reads it.
///
/// # Errors
/// Another than that: the log stays, too.
pub fn fold_log(connection: &Connection) -> Result<(), DatabaseError> {
    const PATIENCE: Duration = Duration::from_millis(200);
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    let folded = connection
        .busy_timeout(PATIENCE)
        .and_then(|()| connection.query_row(sql, [], |row| row.get::<_, bool>(0)));
    if folded.inspect_err(|error| tracing::warn!(%error, "the write-ahead log stays as it is"))? {
        tracing::info!("somebody reads the database: the write-ahead log stays");
    }
    Ok(())
}

/// Opens a connection that reads.
pub fn open_reader(location: &Location) -> Result<Connection, DatabaseError> {
    let connection = connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true)?;
    keep_log_at_close(&connection, true)?;
    // SQLite opens its files at the first read: now, not when there are no descriptors.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

/// Opens a connection that moves the write-ahead log into the database, and syncs as the
/// writing one does.
pub fn open_log(location: &Location) -> Result<LogConnection, DatabaseError> {
    let connection = open_reader(location)?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    Ok(LogConnection::new(connection))
}

fn connect(location: &Location, flags: OpenFlags) -> Result<Connection, DatabaseError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = match location {
        // An absolute path is never taken for a URI; `file:name` would be.
        Location::File(path) => Connection::open_with_flags(std::path::absolute(path)?, flags)?,
        Location::Memory(name) => Connection::open_with_flags(
            Path::new(&format!("file:/{name}?vfs=memdb")),
            flags | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI,
        )?,
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// How many tables there are, whose they are, and their format.
fn format_columns(connection: &Connection) -> Result<(i64, i32, i32), rusqlite::Error> {
    let tables =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let format = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok((tables, application, format))
}

/// The format of the database; 0 for an empty one.
fn known_format(columns: (i64, i32, i32)) -> Result<i32, DatabaseError> {
    match columns {
        (0, 0, 0) => Ok(0),
        (_, APPLICATION_ID, format @ 1..=FORMAT) => Ok(format),
        (_, APPLICATION_ID, unknown @ ..=0) => Err(DatabaseError::UnknownFormat(unknown)),
        (_, APPLICATION_ID, newer) => Err(DatabaseError::TooNew(newer)),
        _ => Err(DatabaseError::NotOurs),
    }
}

/// Writes one fact about the store, in place of what was known of it.
fn put_meta(connection: &Connection, key: &str, value: &[u8]) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(&Table::Meta.insert("INSERT OR REPLACE"))?;
    sum::write(&mut statement, Table::Meta, &sum::values![key, value])
}

#[cfg(test)]
mod tests;

/// `finish.state`.
fn state_column(state: State) -> i64 {
    match state {
        State::Scheduled | State::Queued | State::Running => 0,
        State::Succeeded => 1,
        State::Failed => 2,
        State::Cancelled => 3,
    }
}

/// The reverse of [`state_column`].
pub fn state_from_column(column: i64) -> Option<State> {
    match column {
        1 => Some(State::Succeeded),
        2 => Some(State::Failed),
        3 => Some(State::Cancelled),
        _ => None,
    }
}
