//! Another program has the database locked: the store waits for it, and says so.

use std::{path::Path, time::Duration};

use rusqlite::Connection;

use crate::support::{PATIENCE, connect, database, process::Serve, task};

fn lock(dir: &Path) -> Connection {
    let theirs = database(&dir.join("taskyard.db"));
    theirs.busy_timeout(PATIENCE).unwrap();
    theirs.execute_batch("BEGIN IMMEDIATE").unwrap();
    theirs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_from_outside_is_waited_out() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::start(dir.path(), &[]);
    let mut client = connect(server.address.parse().unwrap()).await;
    client.submit(task("noop")).await.expect("taken");
    let theirs = lock(dir.path());
    let mut waiting = client.clone();
    let mut submitting = tokio::spawn(async move { waiting.submit(task("noop")).await });
    // Several times as long as the store waits at once.
    let early = tokio::time::timeout(Duration::from_secs(2), &mut submitting).await;
    assert!(early.is_err(), "nothing can be committed: {early:?}");
    theirs.execute_batch("ROLLBACK").unwrap();
    drop(theirs);
    let answer = tokio::time::timeout(PATIENCE, submitting).await.expect("the lock is gone");
    answer.unwrap().expect("it is committed after all");
    client.submit(task("noop")).await.expect("and all goes on");
    server.signal(rustix::process::Signal::TERM);
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("another program has locked the database"), "{log}");
    assert!(log.contains("the database is free again"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_within_its_bound_although_nothing_can_be_committed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::start(dir.path(), &["--drain-timeout", "1s"]);
    let client = connect(server.address.parse().unwrap()).await;
    let theirs = lock(dir.path());
    let mut waiting = client.clone();
    let submitting = tokio::spawn(async move { waiting.submit(task("noop")).await });
    server.signal(rustix::process::Signal::TERM);
    // It has its own bound, and that of the guard.
    let (code, log) = server.end();
    assert_eq!(code, Some(8), "{log}");
    assert!(submitting.await.unwrap().is_err(), "it was not committed");
    drop(theirs);
    let server = Serve::start(dir.path(), &[]);
    server.submit(&["noop"]);
}
