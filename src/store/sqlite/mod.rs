//! The schema, the connections, and what is read at start; `writer` has the
//! statements that write.
//!
//! On disk (format 3; `migrate` makes it from earlier ones). Every row has a checksum
//! (`sum`), which every read compares:
//!
//! | table | a row is | written |
//! |---|---|---|
//! | `meta` | one fact about the store | when it is made |
//! | `incarnation` | one process start | at start |
//! | `task` | a task as submitted; never changes | at submission |
//! | `live` | the changing part of a task that has not ended | at submission, at the end of an attempt, at a cancellation; deleted at the end |
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

mod lookups;
mod migrate;
mod redo;
mod schema;
mod start;
mod sum;
mod upkeep;
mod writer;

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::identity::Identity;
use crate::{config::Durability, task::State};

pub use lookups::{FinishedTask, WrittenLive};
pub use schema::Table;
pub use start::{
    LiveRow, SlotRow, each_live, identity, incarnations, newest, newest_batch, newest_ended,
    newest_event, queues, slots, tallies, uptime,
};
pub use sum::{Damage, check};
pub use upkeep::EndedRow;
pub use writer::{AttemptRow, FinishRow, LiveColumns, TaskRow, Writer};

/// "task" in ASCII: marks the file as ours.
const APPLICATION_ID: i32 = 0x7461_736b;
/// The format that this code reads and writes.
const FORMAT: i32 = 3;
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
    #[error("its format is {0}, from which this version of taskyard knows no way")]
    UnknownFormat(i32),
    #[error("it is empty or gone, and its write-ahead log {0} is not; restore it, or remove both")]
    Orphaned(std::path::PathBuf),
    #[error("{0}")]
    Sqlite(rusqlite::Error),
    #[error("{0}")]
    Row(#[from] Damage),
    #[error("a record in it is damaged: {0}")]
    Damaged(String),
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

/// How long a connection waits for a lock that another one of this process
/// holds. With a write-ahead log there is none to wait for, except in memory.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pages of the write-ahead log (4 KiB each) after which a commit moves them
/// into the database.
const CHECKPOINT_PAGES: u32 = 4_000;

/// Opens the writing connection, and makes the schema in a new database.
pub fn open_writer(
    location: &Location,
    durability: Durability,
) -> Result<Connection, DatabaseError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(DatabaseError::SqliteTooOld(rusqlite::version()));
    }
    let has_log = check_log(location)?;
    let connection = connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Closing would move the log of a database that is refused into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, has_log)?;
    let format = check_format(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    if format == 0 {
        // Only a database without tables takes it as it is.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let (journal, synchronous) = match durability {
        Durability::Fsync => ("WAL", "FULL"),
        Durability::Os => ("WAL", "NORMAL"),
        Durability::Memory => ("MEMORY", "OFF"),
    };
    connection.pragma_update(None, "journal_mode", journal)?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    // Where a plain sync does not reach the disk (macOS), ask for one that does.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    match format {
        0 => create(&connection)?,
        FORMAT => {}
        older => migrate::migrate(&connection, older)?,
    }
    if matches!(location, Location::File(_)) {
        migrate::allow_giving_back(&connection)?;
    }
    Ok(connection)
}

/// Moves the write-ahead log into the database and empties it, so that after an
/// orderly end the one file is all there is to copy. If a reader is in the way,
/// the log stays, and the next start reads it.
pub fn fold_log(connection: &Connection) {
    const PATIENCE: Duration = Duration::from_millis(200);
    let folded = connection
        .busy_timeout(PATIENCE)
        .and_then(|()| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
    if let Err(error) = folded {
        tracing::debug!(%error, "the write-ahead log stays as it is");
    }
}

/// Opens a connection that reads.
pub fn open_reader(location: &Location) -> Result<Connection, DatabaseError> {
    let connection = connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true)?;
    // SQLite opens its files at the first read: now, not when there are no descriptors.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn connect(location: &Location, flags: OpenFlags) -> Result<Connection, DatabaseError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = match location {
        Location::File(path) => Connection::open_with_flags(path, flags)?,
        Location::Memory(name) => Connection::open_with_flags(
            Path::new(&format!("file:/{name}?vfs=memdb")),
            flags | OpenFlags::SQLITE_OPEN_URI,
        )?,
    };
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// Tells whether there is a write-ahead log. Refuses one without a database:
/// SQLite would take it for a leftover and delete it, with all that was
/// committed to it.
fn check_log(location: &Location) -> Result<bool, DatabaseError> {
    let Location::File(path) = location else { return Ok(false) };
    let mut log = path.clone().into_os_string();
    log.push("-wal");
    let has_bytes = |path: &Path| path.metadata().is_ok_and(|found| found.len() > 0);
    match (has_bytes(path), has_bytes(log.as_ref())) {
        (false, true) => Err(DatabaseError::Orphaned(log.into())),
        (_, has_log) => Ok(has_log),
    }
}

/// The format of the database; 0 for a new one.
fn check_format(connection: &Connection) -> Result<i32, DatabaseError> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let format: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match (tables, application, format) {
        (0, 0, 0) => Ok(0),
        (_, APPLICATION_ID, 1..=FORMAT) => Ok(format),
        (_, APPLICATION_ID, newer) => Err(DatabaseError::TooNew(newer)),
        _ => Err(DatabaseError::NotOurs),
    }
}

fn create(connection: &Connection) -> Result<(), DatabaseError> {
    let key = Identity::random().key();
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(schema::SCHEMA)?;
    put_meta(connection, "key", &key)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// Writes one fact about the store, in place of what was known of it.
fn put_meta(connection: &Connection, key: &str, value: &[u8]) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(&Table::Meta.insert("INSERT OR REPLACE"))?;
    sum::write(&mut statement, Table::Meta, &sum::values![key, value])
}

/// Whether the disk has refused to be written to, which may pass: there is no room, or a
/// write has failed. After a failed sync nothing can be known of the disk, so that is no
/// such error.
pub fn is_refused_write(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{
        SQLITE_FULL, SQLITE_IOERR_SHMMAP, SQLITE_IOERR_SHMOPEN, SQLITE_IOERR_SHMSIZE,
        SQLITE_IOERR_TRUNCATE, SQLITE_IOERR_WRITE,
    };
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(
        code,
        Some(
            SQLITE_FULL
                | SQLITE_IOERR_WRITE
                | SQLITE_IOERR_TRUNCATE
                | SQLITE_IOERR_SHMOPEN
                | SQLITE_IOERR_SHMSIZE
                | SQLITE_IOERR_SHMMAP
        )
    )
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
