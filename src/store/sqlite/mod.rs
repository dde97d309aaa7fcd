//! The schema, the connections, and what is read at start; `writer` has the
//! statements that write.
//!
//! On disk (format 1):
//!
//! | table | a row is | written |
//! |---|---|---|
//! | `meta` | one fact about the store | when it is made |
//! | `incarnation` | one process start | at start |
//! | `task` | a task as submitted; never changes | at submission |
//! | `live` | the changing part of a task that has not ended | at submission, at the end of an attempt, at a cancellation; deleted at the end |
//! | `slot` | a worker that runs a task | at a start; deleted when the worker is idle |
//! | `finish` | how a task ended | at the end |
//! | `request` | an idempotency key | at submission |
//! | `dead_letter` | an index of the tasks that FAILED | at such an end |
//! | `event` | **all** events of one commit, encoded as they are sent | at every commit |
//!
//! Few rows make a fast store: the start of a task writes no row of its own,
//! only its worker's slot, and only once per commit. A task is running if and
//! only if a slot names it. Times are microseconds since the Unix epoch.

mod writer;

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, config::DbConfig, params};

use super::identity::Identity;
use crate::{
    config::Durability,
    event::Seq,
    events::Incarnation,
    task::{State, Timestamp, WorkerId},
};

pub use writer::{FinishRow, Writer};

/// "task" in ASCII: marks the file as ours.
const APPLICATION_ID: i32 = 0x7461_736b;
/// The format that this code reads and writes.
const FORMAT: i32 = 1;
/// Earlier SQLite can lose committed data when a write-ahead log is reset.
const OLDEST_SQLITE: i32 = 3_051_003;

const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE incarnation (
    id INTEGER PRIMARY KEY, mark INTEGER NOT NULL, first_seq INTEGER NOT NULL,
    started INTEGER NOT NULL
) STRICT;
CREATE TABLE task (
    id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, created INTEGER NOT NULL,
    queue TEXT NOT NULL, kind TEXT NOT NULL, record BLOB NOT NULL
) STRICT;
CREATE TABLE live (
    id INTEGER PRIMARY KEY, queue TEXT NOT NULL, kind TEXT NOT NULL,
    priority INTEGER NOT NULL, due INTEGER NOT NULL, bytes INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL, attempt INTEGER NOT NULL, failures INTEGER NOT NULL,
    crashes INTEGER NOT NULL, cancel_requested INTEGER NOT NULL,
    worker INTEGER, started INTEGER, error_reason TEXT, error_message TEXT
) STRICT;
CREATE TABLE slot (
    worker INTEGER PRIMARY KEY, task INTEGER NOT NULL, attempt INTEGER NOT NULL,
    started INTEGER NOT NULL
) STRICT;
CREATE TABLE finish (
    id INTEGER PRIMARY KEY, state INTEGER NOT NULL, finished INTEGER NOT NULL,
    due INTEGER NOT NULL, attempt INTEGER NOT NULL, failures INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL, worker INTEGER, started INTEGER,
    result_type INTEGER, result BLOB, error_reason TEXT, error_message TEXT
) STRICT;
CREATE INDEX dead_letter ON finish (id) WHERE state = 2;
CREATE TABLE request (
    id TEXT PRIMARY KEY, task INTEGER NOT NULL, fingerprint BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE event (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, data BLOB NOT NULL
) STRICT;
";

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
    #[error("it is empty or gone, and its write-ahead log {0} is not; restore it, or remove both")]
    Orphaned(std::path::PathBuf),
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a record in it is damaged: {0}")]
    Damaged(String),
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
    if format == 0 {
        create(&connection)?;
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
    connection.execute_batch(SCHEMA)?;
    connection.execute("INSERT INTO meta VALUES ('key', ?1)", params![key])?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}

/// The store's secret.
pub fn identity(connection: &Connection) -> Result<Identity, DatabaseError> {
    let key: Vec<u8> =
        connection.query_row("SELECT value FROM meta WHERE key = 'key'", [], |row| row.get(0))?;
    let key = key.try_into().map_err(|_| DatabaseError::Damaged("the store's key".into()))?;
    Ok(Identity::from_key(key))
}

/// All process starts, in order.
pub fn incarnations(connection: &Connection) -> Result<Vec<Incarnation>, DatabaseError> {
    let mut statement =
        connection.prepare("SELECT mark, first_seq FROM incarnation ORDER BY id")?;
    let rows = statement
        .query_map([], |row| Ok(Incarnation { mark: row.get(0)?, first: Seq(row.get(1)?) }))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A task's place among those that have not ended.
#[derive(Debug)]
pub struct LiveRow {
    pub number: u64,
    pub queue: String,
    pub kind: String,
    pub priority: i32,
    pub due: Timestamp,
    pub bytes: u64,
    pub max_attempts: u32,
    pub attempt: u32,
    pub failures: u32,
    pub crashes: u32,
    pub cancel_requested: bool,
}

/// Gives every task that has not ended to `each`, in the order of submission.
pub fn each_live(
    connection: &Connection,
    mut each: impl FnMut(LiveRow),
) -> Result<(), DatabaseError> {
    let mut statement = connection.prepare(
        "SELECT id, queue, kind, priority, due, bytes, max_attempts, attempt, failures, crashes,
                cancel_requested FROM live ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(LiveRow {
            number: row.get(0)?,
            queue: row.get(1)?,
            kind: row.get(2)?,
            priority: row.get(3)?,
            due: Timestamp(row.get(4)?),
            bytes: row.get(5)?,
            max_attempts: row.get(6)?,
            attempt: row.get(7)?,
            failures: row.get(8)?,
            crashes: row.get(9)?,
            cancel_requested: row.get(10)?,
        });
    }
    Ok(())
}

/// A worker that runs a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRow {
    pub worker: WorkerId,
    pub task: u64,
    pub attempt: u32,
    pub started: Timestamp,
}

/// All workers that run a task.
pub fn slots(connection: &Connection) -> Result<Vec<SlotRow>, rusqlite::Error> {
    let mut statement =
        connection.prepare_cached("SELECT worker, task, attempt, started FROM slot")?;
    let rows = statement.query_map([], |row| {
        Ok(SlotRow {
            worker: WorkerId(row.get(0)?),
            task: row.get(1)?,
            attempt: row.get(2)?,
            started: Timestamp(row.get(3)?),
        })
    })?;
    rows.collect()
}

/// Number of the newest task, and of the newest event.
pub fn newest(connection: &Connection) -> Result<(u64, Seq), DatabaseError> {
    let task: Option<u64> =
        connection.query_row("SELECT max(id) FROM task", [], |row| row.get(0))?;
    let event: Option<u64> = connection
        .query_row("SELECT last FROM event ORDER BY first DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok((task.unwrap_or(0), Seq(event.unwrap_or(0))))
}

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
