//! Tasks that failed: why is told, and they live again when someone says so.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use taskyard::{
    handler::{Error, Execution, Output, Registry},
    proto::v1::{
        CancelTaskRequest, EventType, RedriveTaskRequest, RedriveTasksRequest, RetryPolicy,
        SubmitRequest, Task, TaskFilter, TaskState,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    Client, TestServer, Watch, builtin, get, reason, sleep, span, submit, task, wait,
};

/// A kind that fails until it is mended.
fn broken() -> (Registry, Arc<AtomicBool>) {
    let mended = Arc::new(AtomicBool::new(false));
    let (mut registry, switch) = (builtin(), Arc::clone(&mended));
    registry.insert("brittle", move |execution: Execution| {
        let mended = switch.load(Ordering::SeqCst);
        async move {
            let message = format!("broke on attempt {}", execution.attempt);
            if mended { Ok(Output::empty()) } else { Err(Error::retryable("BROKEN", message)) }
        }
    });
    (registry, mended)
}

fn brittle() -> SubmitRequest {
    let retry = RetryPolicy {
        max_attempts: 2,
        initial_backoff: span(Duration::from_millis(1)),
        max_backoff: span(Duration::from_millis(1)),
    };
    SubmitRequest { retry: Some(retry), ..task("brittle") }
}

async fn redrive(client: &mut Client, task_id: &str) -> Result<Task, Status> {
    let request = RedriveTaskRequest { task_id: task_id.into() };
    Ok(client.redrive_task(request).await?.into_inner().task.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_redriven_with_its_history_and_all_of_its_budget() {
    let (registry, mended) = broken();
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let submitted = submit(&mut client, brittle()).await;
    let failed = wait(&mut client, &submitted.task_id).await;
    assert_eq!((failed.state(), failed.attempt), (TaskState::Failed, 2));

    redrive(&mut client, &submitted.task_id).await.unwrap();
    let again = wait(&mut client, &submitted.task_id).await;
    assert_eq!((again.state(), again.attempt), (TaskState::Failed, 4), "two more attempts");

    mended.store(true, Ordering::SeqCst);
    redrive(&mut client, &submitted.task_id).await.unwrap();
    let ended = wait(&mut client, &submitted.task_id).await;
    assert_eq!((ended.state(), ended.attempt, ended.error), (TaskState::Succeeded, 5, None));
    let attempts: Vec<_> = ended.attempts.iter().map(|attempt| attempt.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5], "no number is used twice");
    for attempt in &ended.attempts {
        assert!(attempt.worker.starts_with("worker-"), "{attempt:?}");
        let (start, end) = (attempt.start_time.unwrap(), attempt.end_time.unwrap());
        assert!((start.seconds, start.nanos) <= (end.seconds, end.nanos), "{attempt:?}");
        let message = attempt.error.as_ref().map(|error| error.message.clone());
        let expected = format!("broke on attempt {}", attempt.attempt);
        assert_eq!(message, (attempt.attempt < 5).then_some(expected));
    }

    let mut watch = Watch::after(&mut client, &submitted.cursor).await;
    for expected in [
        EventType::Submitted,
        EventType::Started,
        EventType::RetryScheduled,
        EventType::Started,
        EventType::Failed,
        EventType::Redriven,
        EventType::Started,
        EventType::RetryScheduled,
        EventType::Started,
        EventType::Failed,
        EventType::Redriven,
        EventType::Started,
        EventType::Succeeded,
    ] {
        assert_eq!(watch.event().await.r#type(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_failed_or_was_cancelled_is_redriven() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let done = submit(&mut client, task("noop")).await;
    wait(&mut client, &done.task_id).await;
    let refused = redrive(&mut client, &done.task_id).await.unwrap_err();
    let said = (refused.code(), reason(&refused));
    assert_eq!(said, (Code::FailedPrecondition, "TASK_SUCCEEDED".into()));
    assert!(refused.get_details_precondition_failure().is_some());

    let delay = span(Duration::from_hours(1));
    let later = submit(&mut client, SubmitRequest { delay, ..task("noop") }).await;
    let refused = redrive(&mut client, &later.task_id).await.unwrap_err();
    let said = (refused.code(), reason(&refused));
    assert_eq!(said, (Code::FailedPrecondition, "TASK_NOT_ENDED".into()));

    // A delay is not waited for twice.
    client.cancel_task(CancelTaskRequest { task_id: later.task_id.clone() }).await.unwrap();
    redrive(&mut client, &later.task_id).await.unwrap();
    assert_eq!(wait(&mut client, &later.task_id).await.state(), TaskState::Succeeded);

    let other = if done.task_id.ends_with('0') { '1' } else { '0' };
    let unknown = format!("{}{other}", &done.task_id[..done.task_id.len() - 1]);
    let refused = redrive(&mut client, &unknown).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::NotFound, "TASK_NOT_FOUND".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven_by_filter_step_by_step() {
    let (registry, mended) = broken();
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let mut letters = BTreeSet::new();
    for number in 0..25 {
        let labels = [("part".to_owned(), (number % 2).to_string())].into();
        let submitted = submit(&mut client, SubmitRequest { labels, ..brittle() }).await;
        letters.insert((number % 2, submitted.task_id));
    }
    for (_, id) in &letters {
        assert_eq!(wait(&mut client, id).await.state(), TaskState::Failed);
    }
    mended.store(true, Ordering::SeqCst);
    let filter =
        TaskFilter { labels: [("part".to_owned(), "0".to_owned())].into(), ..Default::default() };
    let (mut redriven, mut page_token) = (0, String::new());
    loop {
        let request =
            RedriveTasksRequest { filter: Some(filter.clone()), page_size: 4, page_token };
        let step = client.redrive_tasks(request).await.unwrap().into_inner();
        assert!(step.redriven <= 4);
        redriven += step.redriven;
        page_token = step.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(redriven, 13);
    for (part, id) in &letters {
        let expected = if *part == 0 { TaskState::Succeeded } else { TaskState::Failed };
        assert_eq!(wait(&mut client, id).await.state(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_into_a_full_queue_says_so_and_changes_nothing() {
    let (registry, _) = broken();
    let test_server = TestServer::with(
        |config| {
            config.workers = 1.try_into().unwrap();
            config.queue_max_tasks = 1;
        },
        registry,
    )
    .await;
    let mut client = test_server.client().await;
    let letter = submit(&mut client, brittle()).await;
    wait(&mut client, &letter.task_id).await;
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, sleep("1h")).await;
    watch.until(EventType::Started).await;
    submit(&mut client, sleep("1h")).await;
    let refused = redrive(&mut client, &letter.task_id).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "QUEUE_FULL")
    );
    let filter = TaskFilter { kinds: vec!["brittle".into()], ..Default::default() };
    let by_filter = RedriveTasksRequest { filter: Some(filter), ..Default::default() };
    let refused = client.redrive_tasks(by_filter).await.unwrap_err();
    assert_eq!(reason(&refused), "QUEUE_FULL");
    assert_eq!(get(&mut client, &letter.task_id).await.state(), TaskState::Failed);
}
