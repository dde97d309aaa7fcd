//! A disk that changes what was written to it. Whatever column of whatever table it
//! changes, the store says so, with the place, or gives what was written; it never
//! gives anything else.

use std::{path::Path, sync::Arc, time::Duration};

use rusqlite::{Connection, types::Value};
use taskyard::{
    admission::{Admission, Limits},
    config::{Durability, Retention},
    event::Seq,
    events::{History as _, Hub, Unreadable},
    queue::{Overrides, QueueConfig},
    store::{
        Dispatch, Error, Exit, Filter, Finished, Outcome, Output, OutputStream, Query, QueueChange,
        Settings, Store, Submission, Submitted, Task, WallClock, open, weight,
    },
    task::{Data, Due, Failure, NewTask, RetryPolicy, State, TaskBody, TaskId, WorkerId},
};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support;

const PATIENCE: Duration = Duration::from_mins(1);
const FINGERPRINT: [u8; 16] = [7; 16];

struct Opened {
    store: Arc<Store>,
    hub: Hub,
    gate: Arc<Admission>,
}

async fn open_in(dir: &Path) -> Result<Opened, String> {
    let limits =
        Limits { queue_config: QueueConfig::default(), queues: 100, room_timeout: PATIENCE };
    let gate = Arc::new(Admission::new(limits));
    let settings = Settings {
        data_dir: dir.to_owned(),
        durability: Durability::Os,
        max_crashes: 3,
        retention: Retention::default(),
        clock: WallClock::default(),
        disk_reserve: 0,
        max_log: 512 << 20,
        accept_loss: false,
    };
    match open(&settings, Arc::clone(&gate)).await {
        Ok((store, hub, _)) => Ok(Opened { store, hub, gate }),
        Err(refused) => Err(refused.to_string()),
    }
}

fn new_task(queue: &str, request_id: &str) -> NewTask {
    NewTask {
        kind: "work".into(),
        queue: queue.into(),
        body: TaskBody {
            timeout: Duration::from_secs(9),
            ..Data::Json(r#"{"a":1}"#.into()).into()
        },
        priority: 1,
        due: Due::Now,
        retry: RetryPolicy {
            max_attempts: 2,
            initial_backoff: Duration::from_millis(1),
            max_backoff: Duration::from_millis(1),
        },
        labels: [("team".to_owned(), "blue".to_owned())].into(),
        request_id: Some(request_id.into()),
    }
}

fn failed(text: &'static str) -> Outcome {
    let failure = Failure::new("BROKEN", text);
    Outcome::Failed { failure, permanent: false, retry_after: Duration::ZERO }
}

fn output(text: &'static str) -> Output {
    let stdout = OutputStream { bytes: text.as_bytes().into(), dropped: 3 };
    Output { stdout, stderr: OutputStream::default(), exit: Some(Exit::Code(1)) }
}

impl Opened {
    async fn submit(&self, task: NewTask) -> Result<Submitted, Error> {
        let place = self.gate.try_admit(&task.queue, weight(&task)).expect("there is room");
        self.store.submit(Submission { task, fingerprint: FINGERPRINT }, place).await
    }

    async fn next(&self, finished: Option<Finished>) -> Finished {
        let dispatch = timeout(PATIENCE, self.store.next_dispatch(WorkerId(1), finished)).await;
        let Ok(Ok(Dispatch::Run(given))) = dispatch else { panic!("{dispatch:?}") };
        let outcome = Outcome::Succeeded(Data::Json(r#"{"b":2}"#.into()));
        let (task, attempt, ran) = (given.task, given.attempt, Duration::from_millis(5));
        Finished { task, attempt, outcome, ran, output: None }
    }

    async fn close(self) {
        self.store.drain().await.unwrap();
        drop(self.store.close().await);
    }

    async fn events(&self) -> Result<Vec<u8>, Unreadable> {
        let (mut after, mut all) = (Seq(0), Vec::new());
        while after < self.hub.newest() {
            let batches = self.store.read(after, 1).await?;
            assert!(
                !batches.is_empty(),
                "nothing comes after {after:?} of {:?}",
                self.hub.newest()
            );
            for batch in batches {
                after = batch.last();
                all.extend_from_slice(batch.data());
            }
        }
        Ok(all)
    }
}

/// What a store says of what is in it.
struct Ledger {
    tasks: Vec<Task>,
    outputs: Vec<Option<(u32, Output)>>,
    events: Vec<u8>,
    repeated: Vec<(String, Submitted)>,
}

/// A store with something in every table: a success, a failure with two executions, one
/// that was redriven, a task that waits, one that is delayed, and one that was running
/// when the process ended; and a queue that is paused. Once more as that process left it.
async fn full_store() -> (TempDir, TempDir, Ledger) {
    let dir = tempfile::tempdir().unwrap();
    let harness = open_in(dir.path()).await.unwrap();
    let mut submitted = Vec::new();
    for key in ["succeeds", "fails", "lives again"] {
        submitted.push((key.to_owned(), harness.submit(new_task("a", key)).await.unwrap()));
    }
    let mut next = harness.next(None).await;
    for (outcome, kept) in [
        (next.outcome.clone(), None),
        (failed("first"), Some(output("one"))),
        (failed("first"), None),
        (failed("second"), Some(output("two"))),
        (failed("second"), None),
    ] {
        next = Finished { outcome, output: kept, ..next };
        if next.attempt == 2 && next.task == submitted[2].1.task {
            break;
        }
        next = harness.next(Some(next)).await;
    }
    harness.store.retire(vec![WorkerId(1)]).await.unwrap();
    assert!(matches!(
        harness.store.next_dispatch(WorkerId(1), Some(next)).await,
        Ok(Dispatch::Stop)
    ));
    harness.store.leave(WorkerId(1)).await.unwrap();
    let again = harness.store.redrive(vec![submitted[2].1.task], Vec::new()).await.unwrap();
    assert_eq!(again, [Ok(())]);
    let running = harness.next(None).await;
    assert_eq!(running.task, submitted[2].1.task);
    harness.store.change_queue("b".into(), QueueChange::Pause).await.unwrap();
    let mine = Overrides { weight: Some(3), ..Overrides::default() };
    let mine = QueueChange::Settings(vec![taskyard::queue::Field::Weight], Box::new(mine));
    harness.store.change_queue("b".into(), mine).await.unwrap();
    for (key, due) in [("waits", Due::Now), ("later", Due::After(Duration::from_hours(9)))] {
        let task = NewTask { due, ..new_task("b", key) };
        submitted.push((key.to_owned(), harness.submit(task).await.unwrap()));
    }
    // Of two that were submitted together one has ended, and the other waits.
    let together = ["one", "other"].map(|key| {
        let task = new_task("b", key);
        let permit = harness.gate.try_admit(&task.queue, weight(&task)).expect("there is room");
        (Submission { task, fingerprint: FINGERPRINT }, permit)
    });
    let taken = harness.store.submit_all(together.into()).await.unwrap();
    let taken: Vec<Submitted> = taken.into_iter().map(Result::unwrap).collect();
    harness.store.cancel(vec![taken[0].task], Vec::new()).await.unwrap();
    submitted.extend(["one", "other"].map(str::to_owned).into_iter().zip(taken));
    harness.close().await;
    let crashed = copy_of(&dir);

    // As the next process has it.
    let harness = open_in(dir.path()).await.unwrap();
    let ledger = ledger(&harness, submitted).await;
    harness.close().await;
    (dir, crashed, ledger)
}

async fn ledger(harness: &Opened, submitted: Vec<(String, Submitted)>) -> Ledger {
    let (mut tasks, mut outputs, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    for (key, submitted) in submitted {
        tasks.push(harness.store.get(submitted.task).await.unwrap());
        outputs.push(harness.store.output(submitted.task, None).await.unwrap());
        let again = harness.store.repeated(key.clone(), FINGERPRINT).await.unwrap();
        repeated.push((key, again.expect("it is known")));
    }
    let events = harness.events().await.unwrap();
    Ledger { tasks, outputs, events, repeated }
}

/// What a change of the disk led to.
#[derive(Debug, Default)]
struct Seen {
    damage: Vec<String>,
    missing: usize,
}

impl Seen {
    /// What is read is what was written, or said to be damaged; or it is not there,
    /// if what it is found by was changed.
    fn compare<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        read: Result<Option<T>, String>,
        written: &T,
    ) {
        match read {
            Ok(Some(read)) => assert_eq!(read, *written, "{what}"),
            Ok(None) => self.missing += 1,
            Err(damage) => self.damage.push(damage),
        }
    }
}

fn told<T>(read: Result<T, Error>) -> Result<Option<T>, String> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(Error::Damaged(damage)) => Err(damage.to_string()),
        Err(other) => panic!("{other:?}"),
    }
}

/// Reads all there is, in all ways.
async fn look(dir: &Path, ledger: &Ledger) -> Seen {
    let mut seen = Seen::default();
    let harness = match open_in(dir).await {
        Ok(harness) => harness,
        Err(refused) => {
            seen.damage.push(refused);
            return seen;
        }
    };
    for ((task, output), (key, submitted)) in
        ledger.tasks.iter().zip(&ledger.outputs).zip(&ledger.repeated)
    {
        let read = told(harness.store.get(task.id).await);
        // An execution that lies under another number is missing here.
        let known = |task: &Task| -> Vec<_> {
            let known = task.attempts.iter();
            known.map(|run| (run.attempt, run.ended.is_some(), run.output.is_some())).collect()
        };
        match read {
            Ok(Some(read)) if known(&read) != known(task) => seen.missing += 1,
            read => seen.compare("a task", read, task),
        }
        let read = told(harness.store.output(task.id, None).await).map(Option::flatten);
        match output {
            // Without the latest, the one before it is.
            Some(output) => match read {
                Ok(Some((attempt, _))) if attempt < output.0 => seen.missing += 1,
                read => seen.compare("an output", read, output),
            },
            // The output of another task may lie here.
            None => match read {
                Err(damage) => seen.damage.push(damage),
                read => assert_eq!(read, Ok(None)),
            },
        }
        let again = told(harness.store.repeated(key.clone(), FINGERPRINT).await);
        seen.compare("a request", again.map(Option::flatten), submitted);
    }
    let ids: Vec<TaskId> = ledger.tasks.iter().map(|task| task.id).collect();
    for states in [vec![], vec![State::Succeeded, State::Failed], vec![State::Queued]] {
        let meant = |task: &Task| states.is_empty() || states.contains(&task.lifecycle.state);
        let written: Vec<TaskId> =
            ledger.tasks.iter().filter(|task| meant(task)).map(|task| task.id).collect();
        let filter = Filter { states: states.clone(), ..Filter::default() };
        let page = harness.store.list(Query { filter, limit: 100, ..Query::default() }).await;
        let page = page.map(|page| {
            let listed = page.tasks.into_iter().map(|task| task.id);
            (listed.filter(|id| ids.contains(id)).collect::<Vec<_>>(), page.damaged)
        });
        if let Ok((listed, damaged)) = &page
            && !damaged.is_empty()
        {
            // It keeps no other task from being listed. A row under another key concerns two.
            let named = |id: &TaskId| damaged.iter().any(|(named, _)| named == id);
            let others: Vec<TaskId> = written.iter().copied().filter(|id| !named(id)).collect();
            let others_listed = listed.iter().all(|id| others.contains(id));
            assert!(damaged.len() <= 2 && others_listed, "{damaged:?}: {listed:?} {others:?}");
            // What lies under another key now is missing where it was.
            seen.missing += others.len() - listed.len();
            seen.damage.extend(damaged.iter().map(|(_, damage)| damage.to_string()));
            continue;
        }
        match told(page.map(|(listed, _)| listed)) {
            // A row under another number is missing here, and in no list under that one.
            Ok(Some(listed)) if listed != written => seen.missing += 1,
            read => seen.compare("a list", read, &written),
        }
    }
    let events = match harness.events().await {
        Ok(events) => Ok(Some(events[..ledger.events.len()].to_vec())),
        Err(Unreadable::Damaged(damage)) => Err(damage),
        Err(Unreadable::Expired(_)) => Ok(None),
        Err(other) => panic!("{other:?}"),
    };
    seen.compare("the events", events, &ledger.events);
    // What concerns one task stops nobody. None that lives is cancelled by this.
    let cancelled = harness.store.cancel(ids, vec![State::Succeeded]).await;
    assert!(cancelled.is_ok(), "the store has stopped: {cancelled:?}");
    harness.close().await;
    seen
}

fn copy_of(dir: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("taskyard.db"), copy.path().join("taskyard.db")).unwrap();
    copy
}

fn database(dir: &TempDir) -> Connection {
    support::database(&dir.path().join("taskyard.db"))
}

/// The tables with their columns, without the checksums.
fn columns(connection: &Connection) -> Vec<(String, Vec<String>)> {
    let list = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let tables = list("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
    let of = |table: String| {
        let sql = format!("SELECT name FROM pragma_table_info('{table}') WHERE name <> 'sum'");
        (table, list(&sql))
    };
    tables.into_iter().map(of).collect()
}

/// Another value of the same type, where there is one.
fn other(value: Value, column: &str) -> Value {
    match value {
        Value::Integer(number) => Value::Integer(number ^ 1),
        Value::Text(text) => Value::Text(format!("{text}x")),
        Value::Blob(mut bytes) => match bytes.first_mut() {
            Some(first) => {
                *first ^= 0x20;
                Value::Blob(bytes)
            }
            None => Value::Blob(vec![0]),
        },
        _ if column.starts_with("error") => Value::Text("x".into()),
        _ if ["result", "labels"].contains(&column) => Value::Blob(vec![0]),
        _ if column == "request_id" => Value::Text("x".into()),
        _ => Value::Integer(1),
    }
}

/// Changes this column of every row in turn, each in a copy of its own.
async fn change_each(dir: &TempDir, ledger: &Ledger, table: &str, column: &str) {
    let rows: u32 = database(dir)
        .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
        .unwrap();
    assert!(rows > 0, "nothing is in {table}");
    for row in 0..rows {
        let copy = copy_of(dir);
        let connection = database(&copy);
        let sum: i64 = connection
            .query_row(&format!("SELECT sum FROM {table} LIMIT 1 OFFSET {row}"), [], |row| {
                row.get(0)
            })
            .unwrap();
        let before: Value = connection
            .query_row(&format!("SELECT {column} FROM {table} WHERE sum = {sum}"), [], |row| {
                row.get(0)
            })
            .unwrap();
        let after = other(before.clone(), column);
        let sql = format!("UPDATE OR REPLACE {table} SET {column} = ?1 WHERE sum = {sum}");
        assert_eq!(connection.execute(&sql, [&after]).unwrap(), 1);
        drop(connection);
        let looked = timeout(PATIENCE, look(copy.path(), ledger)).await;
        let seen = looked.unwrap_or_else(|_| panic!("{table}.{column} of row {row}: no answer"));
        let what = format!("{table}.{column} of row {row}: {before:?} became {after:?}");
        let named = format!("of table {table} is damaged");
        // What only trimming looks at, and what an execution of the past wrote before
        // the latest one, is told by `store verify`.
        let unseen = table == "ended" || (table == "output" && seen.damage.is_empty());
        let told = seen.damage.iter().any(|damage| damage.contains(&named));
        assert!(told || unseen || seen.missing > 0, "{what}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_disk_changes_is_told_and_never_given_out() {
    let (dir, crashed, ledger) = full_store().await;
    let connection = database(&dir);
    for (table, columns) in columns(&connection) {
        for column in columns {
            // Only a process that ended in the middle of something leaves slots.
            let dir = if table == "slot" { &crashed } else { &dir };
            change_each(dir, &ledger, &table, &column).await;
        }
    }
}

/// Its labels are read when the next process records that it was interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_task_that_was_running_fails_alone_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let harness = open_in(dir.path()).await.unwrap();
    let damaged = harness.submit(new_task("a", "runs")).await.unwrap().task;
    let other = harness.submit(new_task("a", "waits")).await.unwrap().task;
    assert_eq!(harness.next(None).await.task, damaged);
    harness.close().await;
    let changed = "UPDATE task SET created = created + 1 WHERE request_id = 'runs'";
    assert_eq!(database(&dir).execute(changed, []).unwrap(), 1);
    let harness = open_in(dir.path()).await.expect("the store is opened");
    assert!(matches!(harness.store.get(damaged).await, Err(Error::Damaged(_))));
    assert_eq!(harness.next(None).await.task, other, "the damaged one has failed");
    harness.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_nobody_has_open_is_looked_through_and_left_as_it_is() {
    let (dir, crashed, _) = full_store().await;
    for whole in [&dir, &crashed] {
        let before = std::fs::read(whole.path().join("taskyard.db")).unwrap();
        let found = taskyard::store::verify(whole.path()).unwrap();
        assert!(found.is_whole() && found.rows > 20, "{found:?}");
        assert_eq!(std::fs::read(whole.path().join("taskyard.db")).unwrap(), before);
    }
    for (table, columns) in columns(&database(&dir)) {
        for column in columns {
            let home = if table == "slot" { &crashed } else { &dir };
            let copy = copy_of(home);
            let connection = database(&copy);
            let first = format!("SELECT sum, {column} FROM {table} LIMIT 1");
            let (sum, before): (i64, Value) =
                connection.query_row(&first, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            let sql = format!("UPDATE OR REPLACE {table} SET {column} = ?1 WHERE sum = {sum}");
            connection.execute(&sql, [&other(before, &column)]).unwrap();
            drop(connection);
            let found = taskyard::store::verify(copy.path()).unwrap();
            let named = format!("of table {table} is damaged");
            let told = found.problems.iter().any(|problem| problem.contains(&named));
            assert!(told, "{table}.{column}: {found:?}");
        }
    }
    // What no checksum can tell: rows that are gone.
    let copy = copy_of(&dir);
    database(&copy).execute_batch("DELETE FROM finish WHERE id = 1").unwrap();
    let found = taskyard::store::verify(copy.path()).unwrap();
    let missing = "a task that neither lives nor has ended, or both: 1";
    assert!(found.problems.iter().any(|problem| problem == missing), "{found:?}");
    // A server that has it open keeps others out.
    let harness = open_in(dir.path()).await.unwrap();
    assert!(taskyard::store::verify(dir.path()).is_err());
    harness.close().await;
}
