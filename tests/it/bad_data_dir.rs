//! A server that cannot start says why in one sentence, and leaves everything
//! as it was.

use std::{collections::BTreeMap, fs, path::Path};

use taskyard::{config::Config, server::Server};
use tempfile::TempDir;

use crate::support::{self, TestServer, config, sleep, submit, wait};

async fn refusal(config: &Config) -> String {
    let error = match Server::start(config, support::builtin()).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    };
    assert!(!error.contains('\n') && error.len() < 400, "one sentence: {error}");
    error
}

/// Everything in a directory but the lock and SQLite's index of the log, which
/// are no part of the data.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| name != "LOCK" && name != "taskyard.db-shm")
        .collect()
}

/// The directory of a store that was closed in an orderly way, all of it in one
/// file.
async fn closed_store() -> TempDir {
    let dir = drained_store().await;
    let whole = tempfile::tempdir().unwrap();
    let database = support::database(&dir.path().join("taskyard.db"));
    let moved = database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
    assert_eq!(moved, Ok(0), "the log is moved into the database");
    fs::copy(dir.path().join("taskyard.db"), whole.path().join("taskyard.db")).unwrap();
    whole
}

async fn drained_store() -> TempDir {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    for _ in 0..20 {
        let submitted = submit(&mut client, sleep("0s")).await;
        wait(&mut client, &submitted.task_id).await;
    }
    drop(client);
    test_server.drain().await.1
}

/// A server does not start on this database, names it and the cause, and
/// changes nothing.
async fn refuses_database(dir: &Path, cause: &str) {
    let before = contents(dir);
    let error = refusal(&config(dir)).await;
    let path = dir.join("taskyard.db").display().to_string();
    assert!(error.contains(&path) && error.contains(cause), "{error}");
    let after = contents(dir);
    let names = |contents: &BTreeMap<String, _>| contents.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    assert!(after == before, "the contents have changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_told_who_has_the_directory() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let first = submit(&mut client, sleep("0s")).await;
    wait(&mut client, &first.task_id).await;
    let before = contents(test_server.dir.path());
    let error = refusal(&config(test_server.dir.path())).await;
    assert!(error.contains(&test_server.dir.path().display().to_string()), "{error}");
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    assert!(contents(test_server.dir.path()) == before, "the contents have changed");
    // The first one goes on, and when it has gone, the next one may come.
    let second = submit(&mut client, sleep("0s")).await;
    wait(&mut client, &second.task_id).await;
    drop(client);
    let (_, dir) = test_server.drain().await;
    let next = TestServer::on(dir, |_| {}, support::builtin()).await;
    wait(&mut next.client().await, &second.task_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for garbage in [&b"garbage"[..], &[0xa5; 10_000], &[0; 4_096]] {
        fs::write(dir.path().join("taskyard.db"), garbage).unwrap();
        refuses_database(dir.path(), "not a database").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_refused() {
    let dir = closed_store().await;
    let path = dir.path().join("taskyard.db");
    let whole = fs::read(&path).unwrap();
    for length in [whole.len() / 2, 4_096, 1_000] {
        fs::write(&path, &whole[..length]).unwrap();
        refuses_database(dir.path(), "").await;
    }
    let mut scribbled = whole.clone();
    scribbled[200..4_096].fill(0xff);
    fs::write(&path, scribbled).unwrap();
    refuses_database(dir.path(), "").await;
    // Whole again, it is as good as before.
    fs::write(&path, whole).unwrap();
    TestServer::on(dir, |_| {}, support::builtin()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_program_is_refused() {
    for journal in ["DELETE", "WAL"] {
        let dir = tempfile::tempdir().unwrap();
        let theirs = support::database(&dir.path().join("taskyard.db"));
        theirs.pragma_update(None, "journal_mode", journal).unwrap();
        theirs.execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();
        drop(theirs);
        refuses_database(dir.path(), "another program").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_format_is_refused() {
    let dir = closed_store().await;
    let path = dir.path().join("taskyard.db");
    support::database(&path).pragma_update(None, "user_version", 5).unwrap();
    refuses_database(dir.path(), "format is 5, and this version of taskyard reads up to 4").await;
    for none in [0, -7] {
        support::database(&path).pragma_update(None, "user_version", none).unwrap();
        let told = format!("format is {none}, which no version of taskyard has written");
        refuses_database(dir.path(), &told).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_store_that_crashed_is_left_to_the_newer_version() {
    let dir = closed_store().await;
    let newer = support::database(&dir.path().join("taskyard.db"));
    newer.pragma_update(None, "user_version", 5).unwrap();
    // As a crash leaves it: with a log that was not moved into the database.
    let crashed = tempfile::tempdir().unwrap();
    for name in ["taskyard.db", "taskyard.db-wal"] {
        fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
    }
    drop(newer);
    refuses_database(crashed.path(), "format is 5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_database_is_gone_is_not_thrown_away() {
    let dir = closed_store().await;
    let path = dir.path().join("taskyard.db");
    let database = support::database(&path);
    database.pragma_update(None, "user_version", 1).unwrap();
    let orphaned = tempfile::tempdir().unwrap();
    fs::copy(dir.path().join("taskyard.db-wal"), orphaned.path().join("taskyard.db-wal")).unwrap();
    refuses_database(orphaned.path(), "write-ahead log").await;
    fs::write(orphaned.path().join("taskyard.db"), "").unwrap();
    refuses_database(orphaned.path(), "write-ahead log").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "theirs").unwrap();
    for path in [file.join("below"), file.clone(), "/dev/null/below".into()] {
        let error = refusal(&config(&path)).await;
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains("data directory"), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_before_anything_is_touched() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir.path().join("new"));
    config.listen = taken.local_addr().unwrap();
    let error = refusal(&config).await;
    assert!(error.contains(&config.listen.to_string()) && error.contains("in use"), "{error}");
    assert!(!config.data_dir.exists());
}

fn short(config: &mut Config) {
    config.drain_timeout = std::time::Duration::from_millis(500);
    config.cancel_grace = std::time::Duration::ZERO;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_fails_its_task_and_no_other() {
    let test_server = TestServer::with(short, support::builtin()).await;
    let mut client = test_server.client().await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(submit(&mut client, sleep("1h")).await.task_id);
    }
    let (_, dir) = test_server.drain().await;
    let database = support::database(&dir.path().join("taskyard.db"));
    let damaged = database.execute("UPDATE task SET record = x'ffff' WHERE id = 3", ()).unwrap();
    assert_eq!(damaged, 1);
    drop(database);
    let mut registry = support::builtin();
    registry.insert("sleep", taskyard::handler::Noop);
    let test_server = TestServer::on(dir, |_| {}, registry).await;
    let mut client = test_server.client().await;
    for healthy in [0, 1, 3].map(|at: usize| &tasks[at]) {
        wait(&mut client, healthy).await;
    }
    let mut watch = support::Watch::oldest(&mut client).await;
    let failed = watch.until(taskyard::proto::v1::EventType::Failed).await;
    assert_eq!(failed.task_id, tasks[2]);
    assert_eq!(failed.error.unwrap().reason, "RECORD_DAMAGED");
}
