//! kill -9 while a task backs off: it is tried again after the restart, when its
//! rest has ended, under its next attempt number.

use std::{fs, time::Duration};

use rustix::process::Signal;
use taskyard::proto::v1::{EventType, RetryPolicy, SubmitRequest, TaskState};

use crate::support::{PATIENCE, Watch, args, connect, get, process::Serve, span, submit, task};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_backs_off_at_a_kill_is_tried_again_after_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("taskyard.toml");
    fs::write(&config, "[exec.fail]\ncommand = [\"false\"]\n").unwrap();
    let data = dir.path().join("data");
    let serve = || Serve::start(&data, &["--config", config.to_str().unwrap()]);
    let server = serve();
    let mut client = connect(server.address.parse().unwrap()).await;
    let retry = RetryPolicy {
        max_attempts: 3,
        initial_backoff: span(Duration::from_millis(300)),
        max_backoff: span(Duration::from_millis(300)),
    };
    let request =
        SubmitRequest { payload: args(&[("command", "fail")]), retry: Some(retry), ..task("exec") };
    let submitted = submit(&mut client, request).await;
    let mut watch = Watch::after(&mut client, &submitted.cursor).await;
    let resting = watch.until(EventType::RetryScheduled).await;
    let due = resting.next_due_time.expect("it says when");
    server.signal(Signal::KILL);
    drop(server);

    let server = serve();
    let mut client = connect(server.address.parse().unwrap()).await;
    let mut watch = Watch::after(&mut client, &watch.cursor).await;
    let again = watch.until(EventType::Started).await;
    assert_eq!((again.task_id.as_str(), again.attempt), (&*submitted.task_id, 2));
    let started = again.time.unwrap();
    assert!((started.seconds, started.nanos) >= (due.seconds, due.nanos), "not before its time");
    let failed = tokio::time::timeout(PATIENCE, watch.until(EventType::Failed)).await.unwrap();
    assert_eq!(failed.attempt, 3);
    let task = get(&mut client, &submitted.task_id).await;
    assert_eq!((task.state(), task.attempts.len()), (TaskState::Failed, 3));
    assert!(task.attempts.iter().all(|attempt| attempt.error.is_some()), "{:?}", task.attempts);
}
