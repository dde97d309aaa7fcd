//! From earlier formats to the present one.
//!
//! A migration is one transaction: a crash in it leaves the database as it was.

use rusqlite::{Connection, params};

use super::{APPLICATION_ID, DatabaseError, FORMAT, upkeep::pack};
use crate::store::clock::WallClock;

/// Numbers in one row of `ended` that a migration makes.
const ENDED_ROW: usize = 1_000;

/// Format 1 had no retention, no history of attempts and no settings of queues.
const FROM_1: &str = "
ALTER TABLE task RENAME TO task_1;
CREATE TABLE task (
    id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, created INTEGER NOT NULL,
    queue TEXT NOT NULL, kind TEXT NOT NULL, request_id TEXT, record BLOB NOT NULL
) STRICT;
INSERT INTO task SELECT task_1.id, seq, created, queue, kind, request.id, record
    FROM task_1 LEFT JOIN (SELECT task, min(id) AS id FROM request GROUP BY task) AS request
    ON request.task = task_1.id ORDER BY task_1.id;
ALTER TABLE finish RENAME TO finish_1;
CREATE TABLE finish (
    id INTEGER PRIMARY KEY, state INTEGER NOT NULL, finished INTEGER NOT NULL,
    due INTEGER NOT NULL, attempt INTEGER NOT NULL, failures INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL, bytes INTEGER NOT NULL,
    worker INTEGER, started INTEGER, error_reason TEXT, error_message TEXT,
    result_type INTEGER, result BLOB
) STRICT;
INSERT INTO finish SELECT finish_1.id, state, finished, due, attempt, failures, cancel_requested,
    length(task.record) + length(task.kind) + length(task.queue) + 100
        + coalesce(length(result), 0),
    worker, started, error_reason, error_message, result_type, result
    FROM finish_1 JOIN task ON task.id = finish_1.id ORDER BY finish_1.id;
DROP TABLE finish_1;
DROP TABLE task_1;
CREATE INDEX dead_letter ON finish (id) WHERE state = 2;
ALTER TABLE event RENAME TO event_1;
CREATE TABLE event (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, time INTEGER NOT NULL, data BLOB NOT NULL
) STRICT;
INSERT INTO event SELECT first, last, ?, data FROM event_1 ORDER BY first;
DROP TABLE event_1;
CREATE TABLE attempt (
    task INTEGER NOT NULL, attempt INTEGER NOT NULL, worker INTEGER NOT NULL,
    started INTEGER NOT NULL, ended INTEGER NOT NULL, error_reason TEXT, error_message TEXT,
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE ended (
    id INTEGER PRIMARY KEY, failed INTEGER NOT NULL, time INTEGER NOT NULL, tasks BLOB NOT NULL
) STRICT;
CREATE TABLE tally (
    queue TEXT NOT NULL, state INTEGER NOT NULL, tasks INTEGER NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (queue, state)
) STRICT, WITHOUT ROWID;
INSERT INTO tally SELECT task.queue, finish.state, count(*), sum(finish.bytes)
    FROM finish JOIN task ON task.id = finish.id GROUP BY task.queue, finish.state;
CREATE TABLE queue (
    name TEXT PRIMARY KEY, paused INTEGER NOT NULL, overrides BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Makes the present format from `format`, which is an earlier one.
pub fn migrate(connection: &Connection, format: i32) -> Result<(), DatabaseError> {
    tracing::info!(from = format, to = FORMAT, "the store is being brought to the present format");
    connection.execute_batch("BEGIN IMMEDIATE")?;
    // The tables are taken apart by hand; nothing refers to them by name.
    let now = WallClock::default().now().0;
    connection.execute_batch(&FROM_1.replacen('?', &now.to_string(), 1))?;
    insert_ended(connection)?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    connection.execute_batch("COMMIT")?;
    // Takes effect by the VACUUM, which can be done again after a crash in it.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.execute_batch("VACUUM")?;
    Ok(())
}

/// The order in which what has ended is trimmed.
fn insert_ended(connection: &Connection) -> Result<(), DatabaseError> {
    for failed in [false, true] {
        let mut select = connection
            .prepare("SELECT id, finished FROM finish WHERE (state = 2) = ?1 ORDER BY finished")?;
        let mut insert =
            connection.prepare("INSERT INTO ended (failed, time, tasks) VALUES (?1, ?2, ?3)")?;
        let mut rows = select.query([failed])?;
        let (mut tasks, mut newest) = (Vec::new(), 0_i64);
        loop {
            let row = rows.next()?;
            if row.is_none() || tasks.len() == ENDED_ROW {
                if !tasks.is_empty() {
                    insert.execute(params![failed, newest, pack(&tasks)])?;
                }
                tasks.clear();
            }
            let Some(row) = row else { break };
            tasks.push(row.get(0)?);
            newest = row.get(1)?;
        }
    }
    Ok(())
}
