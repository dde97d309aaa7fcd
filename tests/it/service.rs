//! The life of a task through a real client.

use std::time::Duration;

use taskyard::{
    handler::{Error, Execution, Output, Registry},
    proto::v1::{
        CancelTaskRequest, EventType, ListTasksRequest, RetryPolicy, SubmitRequest, Task,
        TaskFilter, TaskState, WaitTaskRequest,
    },
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::support::{
    self, Client, PATIENCE, TestServer, Watch, builtin, get, reason, sleep, span, submit, task,
    wait,
};

async fn cancel(client: &mut Client, task_id: &str) -> Result<Task, Status> {
    let request = CancelTaskRequest { task_id: task_id.into() };
    Ok(client.cancel_task(request).await?.into_inner().task.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_submitted_run_and_watched() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let mut watch = Watch::oldest(&mut client).await;
    let submitted = submit(&mut client, sleep("1ms")).await;
    let ended = wait(&mut client, &submitted.task_id).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Succeeded, 1));

    let first = watch.until(EventType::Submitted).await;
    let second = watch.event().await;
    let third = watch.event().await;
    assert_eq!(
        [first.r#type(), second.r#type(), third.r#type()],
        [EventType::Submitted, EventType::Started, EventType::Succeeded]
    );
    assert_eq!(third.worker, ended.worker);
    assert!(second.waited.is_some() && third.waited.is_some() && third.ran.is_some());
    let (report, _) = test_server.drain().await;
    assert!(report.complete, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_starts_a_task_in_the_commit_of_its_submission() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    // Once a worker has run something, it waits for more.
    let first = submit(&mut client, task("noop")).await;
    wait(&mut client, &first.task_id).await;
    let submitted = submit(&mut client, sleep("1ms")).await;
    assert_eq!(submitted.state(), TaskState::Running);
}

/// Kinds that end in every way there is.
fn troublesome() -> Registry {
    let mut registry = builtin();
    registry.insert("fails", |_| async { Err(Error::retryable("NO_LUCK", "not today")) });
    registry.insert("cannot", |_| async { Err(Error::permanent("NO_USE", "never")) });
    registry.insert("panics", |execution: Execution| async move {
        assert!(execution.attempt == 0, "on attempt {}", execution.attempt);
        Ok(Output::empty())
    });
    registry.insert("verbose", |_| async { Ok(Output::bytes(vec![0; 2 << 20])) });
    registry.insert("hangs", |_| async { std::future::pending().await });
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_fail_is_an_outcome_and_no_worker_dies_of_it() {
    let one = |config: &mut taskyard::config::Config| config.workers = 1.try_into().unwrap();
    let test_server = TestServer::with(one, troublesome()).await;
    let mut client = test_server.client().await;
    for (kind, expected) in [
        ("fails", "NO_LUCK"),
        ("cannot", "NO_USE"),
        ("panics", "PANIC"),
        ("verbose", "OUTPUT_TOO_LARGE"),
        ("hangs", "TIMEOUT"),
    ] {
        let timeout = if kind == "hangs" { Duration::from_millis(50) } else { PATIENCE };
        let request = SubmitRequest { timeout: span(timeout), ..task(kind) };
        let submitted = submit(&mut client, request).await;
        let ended = wait(&mut client, &submitted.task_id).await;
        assert_eq!(ended.state(), TaskState::Failed, "{kind}");
        let error = ended.error.unwrap();
        assert_eq!(error.reason, expected);
        assert_eq!(ended.worker, "worker-1");
        if kind == "panics" {
            assert!(error.message.contains("on attempt 1"), "{}", error.message);
        }
    }
    let after = submit(&mut client, task("noop")).await;
    assert_eq!(wait(&mut client, &after.task_id).await.state(), TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_tried_again_as_often_as_the_task_says() {
    let test_server = TestServer::with(|_| {}, troublesome()).await;
    let mut client = test_server.client().await;
    let retry = RetryPolicy {
        max_attempts: 3,
        initial_backoff: span(Duration::from_millis(1)),
        max_backoff: span(Duration::from_millis(5)),
    };
    let request = SubmitRequest { retry: Some(retry), ..task("fails") };
    let submitted = submit(&mut client, request.clone()).await;
    let mut watch = Watch::after(&mut client, &submitted.cursor).await;
    for attempt in 1..=2 {
        let retried = watch.until(EventType::RetryScheduled).await;
        assert_eq!(retried.attempt, attempt);
        assert!(retried.next_due_time.is_some());
    }
    assert_eq!(watch.until(EventType::Failed).await.attempt, 3);
    // A permanent error is not tried again.
    let submitted = submit(&mut client, SubmitRequest { kind: "cannot".into(), ..request }).await;
    assert_eq!(wait(&mut client, &submitted.task_id).await.attempt, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_task_is_cancelled_at_once_and_never_runs() {
    let test_server = TestServer::with(|_| {}, troublesome()).await;
    let mut client = test_server.client().await;
    let delay = span(Duration::from_hours(1));
    let later = submit(&mut client, SubmitRequest { delay, ..task("noop") }).await;
    assert_eq!(later.state(), TaskState::Scheduled);
    for _ in 0..2 {
        let cancelled = cancel(&mut client, &later.task_id).await.unwrap();
        assert_eq!((cancelled.state(), cancelled.attempt), (TaskState::Cancelled, 0));
    }
    let done = submit(&mut client, task("noop")).await;
    wait(&mut client, &done.task_id).await;
    let refused = cancel(&mut client, &done.task_id).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(reason(&refused), "TASK_ENDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_is_signalled_then_stopped_and_a_success_wins() {
    let mut registry = troublesome();
    registry.insert("obeys", |execution: Execution| async move {
        execution.cancelled().await;
        Err(Error::retryable("STOPPED", "as asked"))
    });
    registry.insert("finishes", |execution: Execution| async move {
        execution.cancelled().await;
        Ok(Output::empty())
    });
    let short = |config: &mut taskyard::config::Config| {
        config.cancel_grace = Duration::from_millis(50);
    };
    let test_server = TestServer::with(short, registry).await;
    let mut client = test_server.client().await;
    for (kind, ends) in [
        ("obeys", TaskState::Cancelled),
        ("hangs", TaskState::Cancelled),
        ("finishes", TaskState::Succeeded),
    ] {
        let retry = Some(RetryPolicy { max_attempts: 5, ..Default::default() });
        let submitted = submit(&mut client, SubmitRequest { retry, ..task(kind) }).await;
        let mut watch = Watch::after(&mut client, &submitted.cursor).await;
        watch.until(EventType::Started).await;
        let asked = cancel(&mut client, &submitted.task_id).await.unwrap();
        // It may have obeyed before this was read.
        assert!(asked.cancel_requested, "{asked:?}");
        let ended = wait(&mut client, &submitted.task_id).await;
        assert_eq!((ended.state(), ended.attempt), (ends, 1), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_makes_one_task_under_concurrency_and_over_restarts() {
    let test_server = TestServer::start().await;
    let client = test_server.client().await;
    let request = SubmitRequest { request_id: "order 1".into(), ..sleep("1ms") };
    let mut callers = JoinSet::new();
    for _ in 0..200 {
        let (mut client, request) = (client.clone(), request.clone());
        callers.spawn(async move { submit(&mut client, request).await });
    }
    let answers = callers.join_all().await;
    let id = answers[0].task_id.clone();
    assert!(answers.iter().all(|answer| answer.task_id == id));
    assert_eq!(answers.iter().filter(|answer| !answer.existing).count(), 1);
    assert!(answers.iter().all(|answer| answer.cursor == answers[0].cursor));

    let (_, dir) = test_server.drain().await;
    let test_server = TestServer::on(dir, |_| {}, builtin()).await;
    let mut client = test_server.client().await;
    let again = submit(&mut client, request.clone()).await;
    assert_eq!((again.task_id, again.existing), (id.clone(), true));
    let other = SubmitRequest { priority: 1, ..request };
    let refused = client.submit(other).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
    assert!(refused.message().contains(&id), "{}", refused.message());
    let all = client.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.tasks.len(), 1, "nothing else was enqueued");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_with_the_task_or_with_the_timeout() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let long = submit(&mut client, sleep("1h")).await;
    let request =
        |timeout| WaitTaskRequest { task_id: long.task_id.clone(), timeout: span(timeout) };
    let now = client.wait_task(request(Duration::ZERO)).await.unwrap().into_inner();
    assert_eq!(now.task.unwrap().state(), TaskState::Running);
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let (mut client, request) = (client.clone(), request(PATIENCE));
        waiting.spawn(async move { client.wait_task(request).await });
    }
    cancel(&mut client, &long.task_id).await.unwrap();
    for answer in waiting.join_all().await {
        let task = answer.unwrap().into_inner().task.unwrap();
        assert_eq!(task.state(), TaskState::Cancelled);
    }
    let mut late = tonic::Request::new(request(PATIENCE));
    let next = submit(&mut client, sleep("1h")).await;
    late.get_mut().task_id = next.task_id;
    late.set_timeout(Duration::from_millis(50));
    let late = client.wait_task(late).await.unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
}

async fn list(client: &mut Client, request: ListTasksRequest) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTasksRequest { page_token, ..request.clone() };
        let page = client.list_tasks(request).await.unwrap().into_inner();
        tasks.extend(page.tasks);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return tasks;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_paged_in_the_order_of_submission() {
    let test_server = TestServer::with(|_| {}, troublesome()).await;
    let mut client = test_server.client().await;
    let mut ids = Vec::new();
    for number in 0..25 {
        let kind = if number % 5 == 0 { "cannot" } else { "noop" };
        let queue = if number % 2 == 0 { "even" } else { "odd" };
        let request = SubmitRequest { queue: queue.into(), ..task(kind) };
        ids.push(submit(&mut client, request).await.task_id);
    }
    for id in &ids {
        wait(&mut client, id).await;
    }
    let delay = span(Duration::from_hours(1));
    let later = submit(&mut client, SubmitRequest { delay, ..task("noop") }).await.task_id;
    let of = |tasks: Vec<Task>| tasks.into_iter().map(|task| task.task_id).collect::<Vec<_>>();
    let paged = |page_size| ListTasksRequest { page_size, ..Default::default() };
    let all = [&ids[..], std::slice::from_ref(&later)].concat();
    for page_size in [0, 1, 7, 26, 1_000_000] {
        assert_eq!(of(list(&mut client, paged(page_size)).await), all);
    }
    let filtered = |states: &[TaskState], queue: &str, kind: &str| ListTasksRequest {
        filter: Some(TaskFilter {
            states: states.iter().map(|state| (*state).into()).collect(),
            queues: Some(queue.to_owned()).filter(|queue| !queue.is_empty()).into_iter().collect(),
            kinds: Some(kind.to_owned()).filter(|kind| !kind.is_empty()).into_iter().collect(),
            ..Default::default()
        }),
        page_size: 2,
        ..Default::default()
    };
    let failed = list(&mut client, filtered(&[TaskState::Failed], "", "")).await;
    assert_eq!(of(failed), [0, 5, 10, 15, 20].map(|at: usize| ids[at].clone()));
    let failed_even = list(&mut client, filtered(&[TaskState::Failed], "even", "cannot")).await;
    assert_eq!(of(failed_even), [0, 10, 20].map(|at: usize| ids[at].clone()));
    let live = list(&mut client, filtered(&[TaskState::Scheduled], "", "")).await;
    assert_eq!(of(live), [later.as_str()]);
    let running = submit(&mut client, sleep("1h")).await.task_id;
    let mut watch = Watch::oldest(&mut client).await;
    while watch.until(EventType::Started).await.task_id != running {}
    let runs = list(&mut client, filtered(&[TaskState::Running], "", "sleep")).await;
    assert_eq!(of(runs), [running]);
    let both = [TaskState::Scheduled, TaskState::Failed];
    assert_eq!(list(&mut client, filtered(&both, "", "")).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_comes_back_as_it_was_submitted() {
    let mut registry = builtin();
    registry.insert("echo", |execution: Execution| async move { Ok(Output(execution.payload)) });
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let request = SubmitRequest {
        payload: support::args(&[("name", "Grüße"), ("empty", "")]),
        queue: "mail".into(),
        priority: -7,
        labels: [("customer".to_owned(), "42".to_owned())].into(),
        timeout: span(Duration::from_millis(1_500)),
        request_id: "r".into(),
        ..task("echo")
    };
    let submitted = submit(&mut client, request.clone()).await;
    let ended = wait(&mut client, &submitted.task_id).await;
    assert_eq!(ended, get(&mut client, &submitted.task_id).await);
    assert_eq!((ended.queue, ended.priority, ended.labels), ("mail".into(), -7, request.labels));
    assert_eq!((ended.timeout, ended.request_id), (request.timeout, "r".into()));
    let taskyard::proto::v1::submit_request::Payload::Args(sent) = request.payload.unwrap() else {
        panic!()
    };
    assert_eq!(ended.payload, Some(taskyard::proto::v1::task::Payload::Args(sent.clone())));
    let result = ended.result.unwrap().output;
    let json = prost_types::Value { kind: Some(prost_types::value::Kind::StructValue(sent)) };
    assert_eq!(result, Some(taskyard::proto::v1::task_result::Output::Json(json)));
}
