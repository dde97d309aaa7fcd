//! From earlier formats to the present one.
//!
//! A migration is one transaction: a crash in it leaves the database as it was.

use rusqlite::{Connection, params};

use super::{
    APPLICATION_ID, DatabaseError, FORMAT,
    numbers::pack,
    schema::{ADDED_BY_4, FORMAT_3, Table},
    sum,
};
use crate::store::{clock::WallClock, record::LabelsRecord};

/// Numbers in one row of `ended` that a migration makes.
const ENDED_ROW: usize = 1_000;

/// Format 1 had no retention, no history of attempts and no settings of queues.
const FROM_1: &str = "
ALTER TABLE task RENAME TO task_1;
CREATE TABLE task (
    id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, created INTEGER NOT NULL,
    queue TEXT NOT NULL, kind TEXT NOT NULL, request_id TEXT, labels BLOB, record BLOB NOT NULL
) STRICT;
INSERT INTO task SELECT task_1.id, seq, created, queue, kind, request.id, NULL, record
    FROM task_1 LEFT JOIN (SELECT task, min(id) AS id FROM request GROUP BY task) AS request
    ON request.task = task_1.id ORDER BY task_1.id;
ALTER TABLE finish RENAME TO finish_1;
CREATE TABLE finish (
    id INTEGER PRIMARY KEY, state INTEGER NOT NULL, finished INTEGER NOT NULL,
    due INTEGER NOT NULL, attempt INTEGER NOT NULL, failures INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL, bytes INTEGER NOT NULL, ended INTEGER NOT NULL,
    worker INTEGER, started INTEGER, error_reason TEXT, error_message TEXT,
    result_type INTEGER, result BLOB
) STRICT;
INSERT INTO finish SELECT finish_1.id, state, finished, due, attempt, failures, cancel_requested,
    length(task.record) + length(task.kind) + length(task.queue) + 100
        + coalesce(length(result), 0), 0,
    worker, started, error_reason, error_message, result_type, result
    FROM finish_1 JOIN task ON task.id = finish_1.id ORDER BY finish_1.id;
ALTER TABLE live ADD COLUMN labels BLOB;
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

/// The tables of format 2, and how their rows are read as those of format 3: which has
/// checksums, the outputs of executions, what kind of due time a task has, and the
/// store's uptime in place of times of the wall clock. What is there at the change
/// counts as written at the change: nothing is trimmed early for it.
const FROM_2: [(Table, &str); 12] = [
    (Table::Meta, "SELECT key, value FROM meta_2"),
    (Table::Incarnation, "SELECT id, mark, first_seq, started FROM incarnation_2 ORDER BY id"),
    (
        Table::Task,
        "SELECT id, seq, created, queue, kind, request_id, labels, record FROM task_2 ORDER BY id",
    ),
    // A delay cannot be told from a time any more; a backoff began when the attempt ended.
    (
        Table::Live,
        "SELECT live_2.id, live_2.queue, live_2.kind, priority, due,
            CASE WHEN attempt = 0 THEN iif(due <= created, 0, NULL)
            ELSE (SELECT max(0, due - max(ended)) FROM attempt_2 WHERE attempt_2.task = live_2.id)
            END,
            bytes, max_attempts, attempt, failures, crashes, cancel_requested, worker, started,
            error_reason, error_message, live_2.labels
         FROM live_2 JOIN task_2 ON task_2.id = live_2.id ORDER BY live_2.id",
    ),
    (Table::Slot, "SELECT worker, task, attempt, started FROM slot_2"),
    (
        Table::Finish,
        "SELECT id, state, finished, due, attempt, failures, cancel_requested, bytes, ended,
            worker, started, error_reason, error_message, result_type, result
         FROM finish_2 ORDER BY id",
    ),
    (Table::Request, "SELECT id, task, fingerprint FROM request_2 ORDER BY id"),
    (
        Table::Attempt,
        "SELECT task, attempt, worker, started, ended, error_reason, error_message
         FROM attempt_2 ORDER BY task, attempt",
    ),
    (Table::Event, "SELECT first, last, 0, data FROM event_2 ORDER BY first"),
    (Table::Ended, "SELECT id, failed, 0, tasks FROM ended_2 ORDER BY id"),
    (Table::Tally, "SELECT queue, state, tasks, bytes FROM tally_2"),
    (Table::Queue, "SELECT name, paused, overrides FROM queue_2"),
];

/// Makes the present format from `format`, which is an earlier one.
pub fn migrate(connection: &Connection, format: i32) -> Result<(), DatabaseError> {
    tracing::info!(from = format, to = FORMAT, "the store is being brought to the present format");
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for step in format..FORMAT {
        match step {
            1 => from_1(connection)?,
            2 => from_2(connection)?,
            // Every task that has not ended has a row in `live`, as those may have that are there.
            3 => connection.execute_batch(ADDED_BY_4)?,
            unknown => return Err(DatabaseError::UnknownFormat(unknown)),
        }
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    connection.execute_batch("COMMIT")?;
    Ok(())
}

fn from_1(connection: &Connection) -> Result<(), DatabaseError> {
    // The tables are taken apart by hand; nothing refers to them by name.
    let now = WallClock::default().now().0;
    connection.execute_batch(&FROM_1.replacen('?', &now.to_string(), 1))?;
    insert_ended(connection)?;
    insert_labels(connection)
}

fn from_2(connection: &Connection) -> Result<(), DatabaseError> {
    connection.execute_batch("DROP INDEX dead_letter")?;
    for (table, _) in FROM_2 {
        let name = table.name();
        connection.execute_batch(&format!("ALTER TABLE {name} RENAME TO {name}_2"))?;
    }
    connection.execute_batch(FORMAT_3)?;
    for (table, select) in FROM_2 {
        let mut insert = connection.prepare(&table.insert("INSERT"))?;
        let mut select = connection.prepare(select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let values = (0..table.columns()).map(|column| row.get_ref(column));
            let values: Vec<_> = values.collect::<Result<_, _>>()?;
            sum::write(&mut insert, table, &values)?;
        }
    }
    for (table, _) in FROM_2 {
        connection.execute_batch(&format!("DROP TABLE {}_2", table.name()))?;
    }
    Ok(())
}

/// Lets the database give space back, which it can only after it was written anew
/// with that setting. A failure is of no harm: free space is used again, and the
/// next start tries once more.
pub fn allow_giving_back(connection: &Connection) -> Result<(), DatabaseError> {
    const INCREMENTAL: i64 = 2;
    let mode: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
    if mode == INCREMENTAL {
        return Ok(());
    }
    let written = connection
        .pragma_update(None, "auto_vacuum", "INCREMENTAL")
        .and_then(|()| connection.execute_batch("VACUUM"));
    if let Err(error) = written {
        tracing::warn!(%error, "the store cannot give space back until it can be written anew");
    }
    Ok(())
}

/// The order in which what has ended is trimmed.
fn insert_ended(connection: &Connection) -> Result<(), DatabaseError> {
    for failed in [false, true] {
        let mut select = connection
            .prepare("SELECT id, finished FROM finish WHERE (state = 2) = ?1 ORDER BY finished")?;
        let rows = select.query_map([failed], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let ended: Vec<(u64, i64)> = rows.collect::<Result<_, _>>()?;
        for chunk in ended.chunks(ENDED_ROW) {
            let tasks: Vec<u64> = chunk.iter().map(|(task, _)| *task).collect();
            let newest = chunk.last().map_or(0, |(_, finished)| *finished);
            connection.execute(
                "INSERT INTO ended (failed, time, tasks) VALUES (?1, ?2, ?3)",
                params![failed, newest, pack(&tasks)],
            )?;
            let row = connection.last_insert_rowid();
            for task in tasks {
                connection
                    .prepare_cached("UPDATE finish SET ended = ?2 WHERE id = ?1")?
                    .execute(params![task, row])?;
            }
        }
    }
    Ok(())
}

/// Labels were a part of the record.
fn insert_labels(connection: &Connection) -> Result<(), DatabaseError> {
    let mut select = connection.prepare("SELECT id, record FROM task")?;
    let mut rows = select.query([])?;
    let mut labelled = Vec::new();
    while let Some(row) = rows.next()? {
        // A damaged record is told when its task is read.
        let labels =
            LabelsRecord::from_format_1(row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?);
        labelled.extend(labels.map(|labels| (row.get::<_, u64>(0), labels)));
    }
    for (task, labels) in labelled {
        let task = task?;
        for table in ["task", "live"] {
            connection
                .prepare_cached(&format!("UPDATE {table} SET labels = ?2 WHERE id = ?1"))?
                .execute(params![task, labels])?;
        }
    }
    Ok(())
}
