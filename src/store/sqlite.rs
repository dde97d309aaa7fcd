//! The schema, the connections, and the statements that write.
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

use std::{path::Path, time::Duration};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension as _, Statement, config::DbConfig, params,
};

use super::{identity::Identity, record};
use crate::{
    config::Durability,
    event::Seq,
    events::{EventBatch, Incarnation},
    task::{Data, Failure, Lifecycle, State, Timestamp, WorkerId},
};

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

/// An execution, as rows tell of it.
pub type ExecutionColumns = Option<(WorkerId, Timestamp)>;

/// The end of a task.
#[derive(Debug)]
pub struct FinishRow<'a> {
    pub number: u64,
    pub life: Lifecycle,
    pub finished: Timestamp,
    pub due: Timestamp,
    pub execution: ExecutionColumns,
    pub result: Option<&'a Data>,
    pub failure: Option<&'a Failure>,
}

/// The statements that write, prepared once. All of them belong between
/// [`Writer::begin`] and [`Writer::commit`].
pub struct Writer<'c> {
    connection: &'c Connection,
    begin: Statement<'c>,
    commit: Statement<'c>,
    insert_task: Statement<'c>,
    insert_live: Statement<'c>,
    update_live: Statement<'c>,
    request_cancel: Statement<'c>,
    delete_live: Statement<'c>,
    put_slot: Statement<'c>,
    delete_slot: Statement<'c>,
    insert_finish: Statement<'c>,
    insert_request: Statement<'c>,
    insert_event: Statement<'c>,
    select_request: Statement<'c>,
    select_record: Statement<'c>,
    select_seq: Statement<'c>,
    select_finish: Statement<'c>,
    select_execution: Statement<'c>,
}

type Rows<T> = Result<T, rusqlite::Error>;

impl<'c> Writer<'c> {
    pub fn new(connection: &'c Connection) -> Rows<Self> {
        let prepare = |sql| connection.prepare(sql);
        Ok(Self {
            connection,
            begin: prepare("BEGIN")?,
            commit: prepare("COMMIT")?,
            insert_task: prepare("INSERT INTO task VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?,
            insert_live: prepare(
                "INSERT INTO live VALUES
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, 0, 0, 0, NULL, NULL, NULL, NULL)",
            )?,
            update_live: prepare(
                "UPDATE live SET due = ?2, attempt = ?3, failures = ?4, crashes = ?5,
                 cancel_requested = ?6, worker = ?7, started = ?8, error_reason = ?9,
                 error_message = ?10 WHERE id = ?1",
            )?,
            request_cancel: prepare("UPDATE live SET cancel_requested = 1 WHERE id = ?1")?,
            delete_live: prepare("DELETE FROM live WHERE id = ?1")?,
            put_slot: prepare("INSERT OR REPLACE INTO slot VALUES (?1, ?2, ?3, ?4)")?,
            delete_slot: prepare("DELETE FROM slot WHERE worker = ?1")?,
            insert_finish: prepare(
                "INSERT INTO finish VALUES
                 (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?,
            insert_request: prepare("INSERT INTO request VALUES (?1, ?2, ?3)")?,
            insert_event: prepare("INSERT INTO event VALUES (?1, ?2, ?3)")?,
            select_request: prepare("SELECT task, fingerprint FROM request WHERE id = ?1")?,
            select_record: prepare("SELECT record FROM task WHERE id = ?1")?,
            select_seq: prepare("SELECT seq FROM task WHERE id = ?1")?,
            select_finish: prepare("SELECT state FROM finish WHERE id = ?1")?,
            select_execution: prepare("SELECT worker, started FROM live WHERE id = ?1")?,
        })
    }

    pub fn begin(&mut self) -> Rows<()> {
        self.begin.execute([]).map(drop)
    }

    /// Commits; with fsync, returns when the disk has it.
    pub fn commit(&mut self) -> Rows<()> {
        self.commit.execute([]).map(drop)
    }

    /// Gives up what was begun, as well as that is possible.
    pub fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    pub fn insert_incarnation(&mut self, incarnation: Incarnation, now: Timestamp) -> Rows<()> {
        self.connection
            .execute(
                "INSERT INTO incarnation (mark, first_seq, started) VALUES (?1, ?2, ?3)",
                params![incarnation.mark, incarnation.first.0, now.0],
            )
            .map(drop)
    }

    pub fn insert_task(
        &mut self,
        number: u64,
        seq: Seq,
        created: Timestamp,
        (queue, kind): (&str, &str),
        record: &[u8],
    ) -> Rows<()> {
        let row = params![number, seq.0, created.0, queue, kind, record];
        self.insert_task.execute(row).map(drop)
    }

    pub fn insert_live(
        &mut self,
        number: u64,
        (queue, kind): (&str, &str),
        priority: i32,
        due: Timestamp,
        bytes: u64,
        max_attempts: u32,
    ) -> Rows<()> {
        let row = params![number, queue, kind, priority, due.0, bytes, max_attempts];
        self.insert_live.execute(row).map(drop)
    }

    pub fn update_live(
        &mut self,
        number: u64,
        life: Lifecycle,
        due: Timestamp,
        execution: ExecutionColumns,
        failure: Option<&Failure>,
    ) -> Rows<()> {
        self.update_live
            .execute(params![
                number,
                due.0,
                life.attempt,
                life.failures,
                life.crashes,
                life.cancel_requested,
                execution.map(|(worker, _)| worker.0),
                execution.map(|(_, started)| started.0),
                failure.map(|failure| &failure.reason),
                failure.map(|failure| &failure.message),
            ])
            .map(drop)
    }

    /// Marks a running task, and leaves what is known of earlier attempts.
    pub fn request_cancel(&mut self, number: u64) -> Rows<()> {
        self.request_cancel.execute([number]).map(drop)
    }

    pub fn put_slot(&mut self, slot: SlotRow) -> Rows<()> {
        let row = params![slot.worker.0, slot.task, slot.attempt, slot.started.0];
        self.put_slot.execute(row).map(drop)
    }

    pub fn delete_slot(&mut self, worker: WorkerId) -> Rows<()> {
        self.delete_slot.execute([worker.0]).map(drop)
    }

    /// Moves a task from those that live to those that have ended.
    pub fn finish(&mut self, row: &FinishRow<'_>) -> Rows<()> {
        self.delete_live.execute([row.number])?;
        let (result_type, result) = row.result.map(record::result_columns).unzip();
        self.insert_finish
            .execute(params![
                row.number,
                state_column(row.life.state),
                row.finished.0,
                row.due.0,
                row.life.attempt,
                row.life.failures,
                row.life.cancel_requested,
                row.execution.map(|(worker, _)| worker.0),
                row.execution.map(|(_, started)| started.0),
                result_type,
                result,
                row.failure.map(|failure| &failure.reason),
                row.failure.map(|failure| &failure.message),
            ])
            .map(drop)
    }

    pub fn insert_request(&mut self, id: &str, task: u64, fingerprint: [u8; 16]) -> Rows<()> {
        self.insert_request.execute(params![id, task, fingerprint]).map(drop)
    }

    pub fn insert_events(&mut self, batch: &EventBatch) -> Rows<()> {
        let data: &[u8] = batch.data();
        self.insert_event.execute(params![batch.first().0, batch.last().0, data]).map(drop)
    }

    /// The task that a `request_id` made, and the fingerprint of the request.
    pub fn request(&mut self, id: &str) -> Rows<Option<(u64, Vec<u8>)>> {
        self.select_request.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()
    }

    /// A task's record, if it is there.
    pub fn record(&mut self, number: u64) -> Rows<Option<Vec<u8>>> {
        self.select_record.query_row([number], |row| row.get(0)).optional()
    }

    /// The number of a task's SUBMITTED event.
    pub fn submitted_seq(&mut self, number: u64) -> Rows<Seq> {
        self.select_seq.query_row([number], |row| row.get(0)).map(Seq)
    }

    /// The latest execution of a task that waits.
    pub fn last_execution(&mut self, number: u64) -> Rows<ExecutionColumns> {
        self.select_execution.query_row([number], |row| {
            let (worker, started): (Option<u32>, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok(worker.map(WorkerId).zip(started.map(Timestamp)))
        })
    }

    /// How a task has ended, if it has.
    pub fn finished_state(&mut self, number: u64) -> Rows<Option<State>> {
        let state = self.select_finish.query_row([number], |row| row.get(0)).optional()?;
        Ok(state.and_then(state_from_column))
    }
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
