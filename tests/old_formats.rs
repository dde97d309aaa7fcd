//! Stores that earlier versions have written are opened, and nothing in them is
//! lost. `tests/data/format-1.db` was left by version 0.1.0 after a kill -9: tasks
//! in every state, two request ids, and one task that was running.

mod support;

use std::{fs, path::Path, time::Duration};

use support::{Watch, Yard, builtin, get, submit, task, wait};
use taskyard::{
    config::{Config, Retention},
    proto::v1::{
        EventType, ListTasksRequest, RedriveTaskRequest, SubmitRequest, TaskFilter, TaskState,
    },
};
use tempfile::TempDir;

/// The newest event that it has.
const NEWEST_EVENT: u64 = 21;

fn left_behind(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    fs::copy(file, dir.path().join("taskyard.db")).unwrap();
    dir
}

/// However old it is by now; and with a task that runs until it is interrupted.
fn settle(config: &mut Config) {
    let ages = Duration::from_hours(10 * 365 * 24);
    config.retention = Retention { finished: ages, failed: ages, events: ages, ..config.retention };
    config.drain_timeout = Duration::from_millis(200);
}

#[tokio::test]
async fn format_1_is_brought_to_the_present_one() {
    let mut dir = left_behind("format-1.db");
    // Twice: the second start finds the present format.
    for start in 1..=2 {
        let yard = Yard::on(dir, settle, builtin()).await;
        let mut client = yard.client().await;
        let all = ListTasksRequest::default();
        let tasks = client.list_tasks(all).await.unwrap().into_inner().tasks;
        assert!(tasks.len() >= 7, "{} tasks", tasks.len());
        let count = |state| tasks.iter().filter(|task| task.state() == state).count();
        assert_eq!((count(TaskState::Failed), count(TaskState::Cancelled)), (2, 1));
        let mail = TaskFilter { queues: vec!["mail".into()], ..Default::default() };
        let mail = ListTasksRequest { filter: Some(mail), ..Default::default() };
        let mail = client.list_tasks(mail).await.unwrap().into_inner().tasks;
        assert_eq!(mail.len(), 2, "{mail:?}");
        assert_eq!(mail[0].labels["team"], "blue");

        // What was known by its request_id still is.
        let order = SubmitRequest { request_id: "order-7".into(), ..task("noop") };
        let known = submit(&mut client, order).await;
        assert!(known.existing);
        assert_eq!(get(&mut client, &known.task_id).await.request_id, "order-7");

        // All events are there, in order, and go on.
        let mut watch = Watch::oldest(&mut client).await;
        for seq in 1..=NEWEST_EVENT {
            assert_eq!(watch.event().await.seq, seq);
        }
        let interrupted = watch.until(EventType::Interrupted).await;
        assert_eq!(interrupted.error.unwrap().reason, "CRASHED", "start {start}");
        let new = submit(&mut client, SubmitRequest { priority: 9, ..task("noop") }).await;
        while watch.until(EventType::Submitted).await.task_id != new.task_id {}
        dir = yard.drain().await.1;
    }
}

#[tokio::test]
async fn a_dead_letter_of_format_1_lives_again() {
    let yard = Yard::on(left_behind("format-1.db"), settle, builtin()).await;
    let mut client = yard.client().await;
    let failed = TaskFilter { states: vec![TaskState::Failed.into()], ..Default::default() };
    let failed = ListTasksRequest { filter: Some(failed), ..Default::default() };
    let failed = client.list_tasks(failed).await.unwrap().into_inner().tasks;
    let request = RedriveTaskRequest { task_id: failed[1].task_id.clone() };
    client.redrive_task(request).await.unwrap();
    // This server has no handler for it: it fails again, with its history.
    let ended = wait(&mut client, &failed[1].task_id).await;
    assert_eq!(ended.error.unwrap().reason, "UNKNOWN_KIND");
    assert_eq!(ended.attempts.last().map(|attempt| attempt.attempt), Some(3));
    assert_eq!(ended.attempts[0].attempt, 2, "format 1 remembered only the latest");
}
