//! Lists by filter, and what is done to all that match: cancelled, redriven.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use taskyard::{
    config::Config,
    handler::{Error, Execution, Output, Registry},
    proto::v1::{
        CancelTaskRequest, CancelTasksRequest, EventType, ListTasksRequest, RedriveTaskRequest,
        RedriveTasksRequest, RedriveTasksResponse, SubmitRequest, Task, TaskFilter, TaskState,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    self, Client, PATIENCE, TestServer, Watch, builtin, fields, get, reason, span, submit, task,
    wait,
};

fn later(request: SubmitRequest) -> SubmitRequest {
    SubmitRequest { delay: span(PATIENCE), ..request }
}

fn queued(kind: &str, queue: &str) -> SubmitRequest {
    SubmitRequest { queue: queue.into(), ..task(kind) }
}

fn of_queue(queue: &str) -> TaskFilter {
    TaskFilter { queues: vec![queue.into()], ..Default::default() }
}

fn of_states(states: &[TaskState]) -> TaskFilter {
    let states = states.iter().map(|state| *state as i32).collect();
    TaskFilter { states, ..Default::default() }
}

async fn list(client: &mut Client, filter: TaskFilter, newest_first: bool) -> Vec<Task> {
    let (mut tasks, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = ListTasksRequest {
            filter: Some(filter.clone()),
            page_size: 2,
            page_token,
            newest_first,
            ..Default::default()
        };
        let page = client.list_tasks(page).await.expect("a page").into_inner();
        tasks.extend(page.tasks);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return tasks;
        }
    }
}

fn priorities(tasks: &[Task]) -> Vec<i32> {
    tasks.iter().map(|task| task.priority).collect()
}

/// Cancels all that match, in steps; how many that were.
async fn cancel(client: &mut Client, filter: TaskFilter, page_size: i32) -> u32 {
    let (mut cancelled, mut page_token) = (0, String::new());
    loop {
        let step = CancelTasksRequest { filter: Some(filter.clone()), page_size, page_token };
        let step = client.cancel_tasks(step).await.expect("a step").into_inner();
        cancelled += step.cancelled;
        page_token = step.next_page_token;
        if page_token.is_empty() {
            return cancelled;
        }
    }
}

async fn redrive(
    client: &mut Client,
    filter: TaskFilter,
    page_size: i32,
    page_token: &str,
) -> Result<RedriveTasksResponse, Status> {
    let page_token = page_token.into();
    let step = RedriveTasksRequest { filter: Some(filter), page_size, page_token };
    Ok(client.redrive_tasks(step).await?.into_inner())
}

async fn redrive_one(client: &mut Client, task_id: &str) -> Result<Task, Status> {
    let request = RedriveTaskRequest { task_id: task_id.into() };
    Ok(client.redrive_task(request).await?.into_inner().task.expect("always set"))
}

/// A kind that fails until it is mended.
#[derive(Clone, Default)]
struct Fault(Arc<AtomicBool>);

impl Fault {
    fn mend(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn registry(&self) -> Registry {
        let mended = Arc::clone(&self.0);
        let mut registry = builtin();
        registry.insert("faulty", move |_: Execution| {
            let mended = mended.load(Ordering::Relaxed);
            let failed = || Error::permanent("BROKEN", "it is not mended");
            async move { if mended { Ok(Output::empty()) } else { Err(failed()) } }
        });
        registry
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_what_matches_in_either_order() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    for priority in 0..7 {
        let queue = if priority % 2 == 0 { "even" } else { "odd" };
        let labels = [("third".to_owned(), (priority % 3).to_string())].into();
        submit(&mut client, later(SubmitRequest { priority, labels, ..queued("noop", queue) }))
            .await;
    }
    let ended = submit(&mut client, SubmitRequest { priority: 9, ..task("noop") }).await;
    let ended = wait(&mut client, &ended.task_id).await;
    for (filter, expected) in [
        (TaskFilter::default(), &[0, 1, 2, 3, 4, 5, 6, 9][..]),
        (of_queue("odd"), &[1, 3, 5]),
        (
            TaskFilter { queues: vec!["odd".into(), "default".into()], ..of_queue("") },
            &[1, 3, 5, 9],
        ),
        (of_states(&[TaskState::Succeeded]), &[9]),
        (of_states(&[TaskState::Succeeded, TaskState::Scheduled]), &[0, 1, 2, 3, 4, 5, 6, 9]),
        (TaskFilter { kinds: vec!["sleep".into()], ..Default::default() }, &[]),
        (
            TaskFilter {
                labels: [("third".to_owned(), "0".to_owned())].into(),
                ..of_queue("even")
            },
            &[0, 6],
        ),
        (TaskFilter { created_from: ended.create_time, ..Default::default() }, &[9]),
        (
            TaskFilter { created_before: ended.create_time, ..Default::default() },
            &[0, 1, 2, 3, 4, 5, 6],
        ),
        (TaskFilter { finished_from: ended.finish_time, ..Default::default() }, &[9]),
        (TaskFilter { finished_before: ended.finish_time, ..Default::default() }, &[]),
    ] {
        assert_eq!(
            priorities(&list(&mut client, filter.clone(), false).await),
            expected,
            "{filter:?}"
        );
        let reversed: Vec<_> = expected.iter().rev().copied().collect();
        assert_eq!(priorities(&list(&mut client, filter, true).await), reversed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_match_are_cancelled_step_by_step() {
    let test_server =
        TestServer::with(|config| config.workers = 1.try_into().unwrap(), builtin()).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::live(&mut client).await;
    let ended = submit(&mut client, queued("noop", "q")).await;
    wait(&mut client, &ended.task_id).await;
    let running = SubmitRequest { queue: "q".into(), ..support::sleep("1h") };
    let running = submit(&mut client, running).await;
    watch.until(EventType::Started).await;
    watch.until(EventType::Started).await;
    for _ in 0..5 {
        submit(&mut client, later(queued("noop", "q"))).await;
    }
    submit(&mut client, later(queued("noop", "other"))).await;
    assert_eq!(cancel(&mut client, of_queue("q"), 2).await, 6);
    let stopped = wait(&mut client, &running.task_id).await;
    assert_eq!(stopped.state(), TaskState::Cancelled);
    assert_eq!(get(&mut client, &ended.task_id).await.state(), TaskState::Succeeded);
    assert_eq!(list(&mut client, of_states(&[TaskState::Scheduled]), false).await.len(), 1);
    assert_eq!(cancel(&mut client, of_queue("q"), 0).await, 0, "there is nothing left");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_many_must_say_which() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let kept = submit(&mut client, later(task("noop"))).await;
    for filter in [None, Some(TaskFilter::default()), Some(of_states(&[TaskState::Unspecified]))] {
        let step = CancelTasksRequest { filter: filter.clone(), ..Default::default() };
        let refused = client.cancel_tasks(step).await.unwrap_err();
        assert_eq!(fields(&refused), ["filter"]);
        let step = RedriveTasksRequest { filter, ..Default::default() };
        let refused = client.redrive_tasks(step).await.unwrap_err();
        assert_eq!(fields(&refused).last().map(String::as_str), Some("filter"));
    }
    // What has ended cannot be cancelled: that is meant otherwise, too.
    let ended = of_states(&[TaskState::Failed, TaskState::Cancelled]);
    let step = CancelTasksRequest { filter: Some(ended), ..Default::default() };
    assert_eq!(fields(&client.cancel_tasks(step).await.unwrap_err()), ["filter.states"]);
    let wrong = of_states(&[TaskState::Failed, TaskState::Running]);
    let refused = redrive(&mut client, wrong, -1, "x").await.unwrap_err();
    assert_eq!(fields(&refused), ["filter.states[1]", "page_token", "page_size"]);
    assert_eq!(get(&mut client, &kept.task_id).await.state(), TaskState::Scheduled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_of_use_for_its_own_query_only() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    for _ in 0..3 {
        submit(&mut client, later(queued("noop", "q"))).await;
    }
    let first =
        ListTasksRequest { filter: Some(of_queue("q")), page_size: 1, ..Default::default() };
    let page_token = client.list_tasks(first.clone()).await.unwrap().into_inner().next_page_token;
    let next = ListTasksRequest { page_token: page_token.clone(), ..first };
    for other in [
        ListTasksRequest { newest_first: true, ..next.clone() },
        ListTasksRequest { filter: Some(of_queue("other")), ..next.clone() },
        ListTasksRequest { filter: None, ..next.clone() },
    ] {
        assert_eq!(fields(&client.list_tasks(other).await.unwrap_err()), ["page_token"]);
    }
    let step = CancelTasksRequest { filter: Some(of_queue("q")), page_size: 1, page_token };
    assert_eq!(fields(&client.cancel_tasks(step).await.unwrap_err()), ["page_token"]);
    assert_eq!(client.list_tasks(next).await.unwrap().into_inner().tasks.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_lives_again_with_its_history() {
    let fault = Fault::default();
    let test_server = TestServer::with(|_| {}, fault.registry()).await;
    let mut client = test_server.client().await;
    let submitted = submit(&mut client, task("faulty")).await;
    assert_eq!(wait(&mut client, &submitted.task_id).await.state(), TaskState::Failed);
    fault.mend();
    let mut watch = Watch::live(&mut client).await;
    redrive_one(&mut client, &submitted.task_id).await.expect("redriven");
    assert_eq!(watch.until(EventType::Redriven).await.task_id, submitted.task_id);
    let ended = wait(&mut client, &submitted.task_id).await;
    assert_eq!((ended.state(), ended.attempt), (TaskState::Succeeded, 2));
    let attempts: Vec<_> = ended.attempts.iter().map(|attempt| attempt.attempt).collect();
    assert_eq!(attempts, [1, 2]);
    assert_eq!(ended.attempts[0].error.as_ref().expect("it failed").reason, "BROKEN");
    assert_eq!(ended.attempts[1].error, None);
    // What has succeeded, or has not ended, is not redriven.
    let refused = redrive_one(&mut client, &submitted.task_id).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "TASK_SUCCEEDED".into())
    );
    assert!(refused.get_details_precondition_failure().is_some());
    let waiting = submit(&mut client, later(task("noop"))).await;
    let refused = redrive_one(&mut client, &waiting.task_id).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "TASK_NOT_ENDED".into())
    );
    let cancelled = CancelTaskRequest { task_id: waiting.task_id.clone() };
    client.cancel_task(cancelled).await.expect("cancelled");
    redrive_one(&mut client, &waiting.task_id).await.expect("a cancelled one can be");
    assert_eq!(wait(&mut client, &waiting.task_id).await.state(), TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_redriven_as_far_as_there_is_room() {
    let fault = Fault::default();
    // The pool is as large as one task, and the queue as two.
    let tight = |config: &mut Config| {
        config.workers = 1.try_into().unwrap();
        config.queue_max_tasks = 2;
    };
    let gate = support::Gate::default();
    let mut registry = fault.registry();
    registry.insert("gated", gate.clone());
    let test_server = TestServer::with(tight, registry).await;
    let mut client = test_server.client().await;
    for _ in 0..5 {
        let submitted = submit(&mut client, queued("faulty", "q")).await;
        assert_eq!(wait(&mut client, &submitted.task_id).await.state(), TaskState::Failed);
    }
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, queued("gated", "busy")).await;
    watch.until(EventType::Started).await;
    let first = redrive(&mut client, of_queue("q"), 0, "").await.expect("two have room");
    assert_eq!((first.redriven, first.full_queue.as_str()), (2, "q"));
    let token = first.next_page_token;
    assert!(!token.is_empty());
    let full = redrive(&mut client, of_queue("q"), 0, &token).await.unwrap_err();
    assert_eq!((full.code(), reason(&full)), (Code::ResourceExhausted, "QUEUE_FULL".into()));
    let failed = list(&mut client, of_states(&[TaskState::Failed]), false).await;
    let full = redrive_one(&mut client, &failed[0].task_id).await.unwrap_err();
    assert_eq!(reason(&full), "QUEUE_FULL");
    assert!(full.get_details_retry_info().is_some());
    // With room, it goes on where it stopped.
    fault.mend();
    gate.open();
    let mut token = token;
    let mut redriven = first.redriven;
    while !token.is_empty() {
        match redrive(&mut client, of_queue("q"), 0, &token).await {
            Ok(step) => {
                redriven += step.redriven;
                token = step.next_page_token;
            }
            Err(full) => assert_eq!(reason(&full), "QUEUE_FULL"),
        }
    }
    assert_eq!(redriven, 5);
    for task in list(&mut client, of_queue("q"), false).await {
        assert_eq!(wait(&mut client, &task.task_id).await.state(), TaskState::Succeeded);
    }
}
