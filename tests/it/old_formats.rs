//! Stores that earlier versions have written are opened, and nothing in them is
//! lost. `tests/data/format-1.db` was left by version 0.1.0 after a kill -9: tasks
//! in every state, two request ids, and one task that was running. `format-2.db` was left
//! in the same way by a version shortly before 0.2.0: it has a task that was redriven, one
//! that was resting before its second attempt, a queue that was paused and one that was
//! configured, too. `format-3.db` is that one, brought to format 3 when that was the present
//! one. `format-4.db` was left by a server of that format after a kill -9: of four tasks that
//! were submitted together to a queue that was paused one was cancelled and one is delayed, and
//! one of another queue was running.

use std::{fs, path::Path, time::Duration};

use taskyard::{
    config::{Config, Retention},
    proto::v1::{
        EventType, ListQueuesRequest, ListTasksRequest, RedriveTaskRequest, SubmitRequest, Task,
        TaskFilter, TaskState,
    },
};
use tempfile::TempDir;

use crate::support::{self, Admin, Client, TestServer, Watch, builtin, get, submit, task, wait};

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

async fn list(client: &mut Client) -> Vec<Task> {
    client.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner().tasks
}

/// How many tasks are counted as ended, without a look at them.
async fn ended(admin: &mut Admin) -> (u64, u64, u64) {
    let queues = admin.list_queues(ListQueuesRequest::default()).await.unwrap().into_inner().queues;
    let counts = queues.into_iter().filter_map(|queue| queue.counts);
    counts.fold((0, 0, 0), |sum, counts| {
        (sum.0 + counts.succeeded, sum.1 + counts.failed, sum.2 + counts.cancelled)
    })
}

#[tokio::test]
async fn format_1_is_brought_to_the_present_one() {
    let mut dir = left_behind("format-1.db");
    // Twice: the second start finds the present format.
    for start in 1..=2 {
        let test_server = TestServer::on(dir, settle, builtin()).await;
        let mut client = test_server.client().await;
        let tasks = list(&mut client).await;
        assert!(tasks.len() >= 7, "{} tasks", tasks.len());
        let count = |state| tasks.iter().filter(|task| task.state() == state).count();
        assert_eq!((count(TaskState::Failed), count(TaskState::Cancelled)), (2, 1));
        let (succeeded, failed, cancelled) = ended(&mut test_server.admin().await).await;
        assert!(succeeded >= 2, "{succeeded}");
        assert_eq!((failed, cancelled), (2, 1));
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
        dir = test_server.drain().await.1;
    }
}

#[tokio::test]
async fn later_formats_are_read_as_they_were_written() {
    for name in ["format-2.db", "format-3.db"] {
        reads_all_of(name).await;
    }
}

async fn reads_all_of(name: &str) {
    let mut dir = left_behind(name);
    for start in 1..=2 {
        // What is of that age is not taken for old, as it was not kept for long.
        let brief = |config: &mut Config| config.drain_timeout = Duration::from_millis(200);
        let test_server = TestServer::on(dir, brief, builtin()).await;
        let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
        let tasks = list(&mut client).await;
        assert_eq!(tasks.len(), 10, "{name}");
        let by_label = |team: &str| {
            let mut of_team = tasks
                .iter()
                .filter(|task| task.labels.get("team").is_some_and(|known| known == team));
            (of_team.next().cloned().expect("a task"), of_team.count())
        };
        let (said, others) = by_label("red");
        assert_eq!((said.state(), others), (TaskState::Succeeded, 0));
        assert!(format!("{:?}", said.result).contains("hello"), "{said:?}");
        let (paused, _) = by_label("green");
        assert_eq!((paused.state(), paused.priority), (TaskState::Queued, 7));
        assert_eq!(by_label("blue").1, 2);
        let (rested, _) = by_label("gold");
        let rested = get(&mut client, &rested.task_id).await;
        let first = &rested.attempts[0];
        assert_eq!(
            (first.attempt, first.error.as_ref().unwrap().reason.as_str()),
            (1, "EXIT_STATUS")
        );
        let redriven = get(&mut client, &tasks[3].task_id).await;
        let attempts: Vec<u32> = redriven.attempts.iter().map(|attempt| attempt.attempt).collect();
        assert_eq!((redriven.state(), attempts), (TaskState::Failed, vec![1, 2]));

        let queues = admin.list_queues(ListQueuesRequest::default()).await.unwrap().into_inner();
        let queue = |name: &str| queues.queues.iter().find(|queue| queue.queue == name).unwrap();
        assert!(queue("slow").paused);
        assert_eq!(queue("mail").settings.as_ref().unwrap().weight, Some(3));
        let counts = queue("mail").counts.unwrap();
        assert_eq!((counts.succeeded, counts.failed), (2, 1));

        let order = SubmitRequest { request_id: "order-7".into(), ..task("noop") };
        assert!(submit(&mut client, order).await.existing);
        let mut watch = Watch::oldest(&mut client).await;
        for seq in 1..=32 {
            assert_eq!(watch.event().await.seq, seq);
        }
        let interrupted = watch.until(EventType::Interrupted).await;
        assert_eq!(interrupted.error.unwrap().reason, "CRASHED", "start {start}");
        dir = test_server.drain().await.1;
    }
}

#[tokio::test]
async fn format_4_is_read_as_it_was_written() {
    let mut dir = left_behind("format-4.db");
    for start in 1..=2 {
        let test_server = TestServer::on(dir, settle, builtin()).await;
        let mut client = test_server.client().await;
        let all = list(&mut client).await;
        assert_eq!(all.len(), 6);
        let waiting = TaskFilter {
            states: vec![TaskState::Scheduled.into(), TaskState::Queued.into()],
            queues: vec!["later".into()],
            ..Default::default()
        };
        for newest_first in [false, true] {
            let filter = Some(waiting.clone());
            let waiting = ListTasksRequest { filter, newest_first, ..Default::default() };
            let waiting = client.list_tasks(waiting).await.unwrap().into_inner().tasks;
            let mut known: Vec<_> =
                waiting.iter().map(|task| (&*task.request_id, task.state())).collect();
            if newest_first {
                known.reverse();
            }
            let queued = TaskState::Queued;
            let expected =
                [("fourth", TaskState::Scheduled), ("first", queued), ("second", queued)];
            assert_eq!(known, expected, "start {start}");
        }
        for (request_id, state) in [("first", TaskState::Queued), ("third", TaskState::Cancelled)] {
            let again = all.iter().find(|task| task.request_id == request_id).expect("a task");
            assert_eq!(again.state(), state, "{again:?}");
        }
        let labelled = all.iter().find(|task| task.request_id == "first").expect("a task");
        assert_eq!(labelled.labels["team"], "red");
        assert_eq!(ended(&mut test_server.admin().await).await, (1, 0, 1));
        let mut watch = Watch::oldest(&mut client).await;
        let interrupted = watch.until(EventType::Interrupted).await;
        assert_eq!(
            (&*interrupted.queue, interrupted.error.unwrap().reason),
            ("long", "CRASHED".into())
        );
        dir = test_server.drain().await.1;
    }
}

#[tokio::test]
async fn a_dead_letter_of_format_1_lives_again() {
    let test_server = TestServer::on(left_behind("format-1.db"), settle, builtin()).await;
    let mut client = test_server.client().await;
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

#[tokio::test]
async fn what_format_1_left_is_counted_trimmed_and_given_back() {
    // All of it ended long ago.
    let trim = |config: &mut Config| {
        config.retention.finished = Duration::ZERO;
        config.retention.failed = Duration::ZERO;
        config.drain_timeout = Duration::from_millis(200);
    };
    let test_server = TestServer::on(left_behind("format-1.db"), trim, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    // One that waited runs by now, and is kept for a moment, too.
    loop {
        let (succeeded, failed, cancelled) = ended(&mut admin).await;
        let listed = list(&mut client).await;
        let still = listed.iter().filter(|task| task.finish_time.is_some()).count();
        if succeeded + failed + cancelled == 0 && still == 0 {
            break;
        }
    }
    // A request id goes with its task.
    let order = SubmitRequest { request_id: "order-7".into(), ..task("noop") };
    assert!(!submit(&mut client, order).await.existing);
    let dir = test_server.drain().await.1;
    let file = support::database(&dir.path().join("taskyard.db"));
    let mode: i64 = file.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap();
    assert_eq!(mode, 2, "it gives space back");
}

#[tokio::test]
async fn a_migration_that_ended_before_its_last_step_is_finished_by_the_next_start() {
    let test_server = TestServer::on(left_behind("format-1.db"), settle, builtin()).await;
    let dir = test_server.drain().await.1;
    // As a crash between the migration and the writing anew leaves it.
    let path = dir.path().join("taskyard.db");
    let file = support::database(&path);
    // The threads that read let go of it a little later.
    let began = std::time::Instant::now();
    while let Err(busy) = file.pragma_update(None, "journal_mode", "DELETE") {
        assert!(began.elapsed() < support::PATIENCE, "{busy}");
        tokio::task::yield_now().await;
    }
    file.pragma_update(None, "auto_vacuum", "NONE").unwrap();
    file.execute_batch("VACUUM").unwrap();
    drop(file);
    let mode = || -> i64 {
        let file = support::database(&path);
        file.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap()
    };
    assert_eq!(mode(), 0);
    let test_server = TestServer::on(dir, settle, builtin()).await;
    assert_eq!(mode(), 2);
    drop(test_server.drain().await);
}
