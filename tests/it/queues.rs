//! Queues of their own: shares of the pool, limits, pauses, and defaults.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use taskyard::{
    config::Config,
    handler::{Error, Registry},
    proto::v1::{
        EventType, ListQueuesRequest, PauseQueueRequest, Queue, QueueBlock, QueueSettings,
        RateLimit, ResumeQueueRequest, RetryPolicy, SubmitRequest, SubmitResponse, TaskState,
        UpdateQueueRequest, WhenFull,
    },
    queue::{Overrides, Rate},
};
use tonic::Code;

use crate::support::{
    self, Admin, Client, Gate, TestServer, Watch, builtin, fields, reason, span, submit, task, wait,
};

/// A configuration that says something of one queue.
fn declare(queue: &'static str, overrides: Overrides) -> impl FnOnce(&mut Config) {
    move |config| {
        config.queues.insert(queue.to_owned(), overrides);
    }
}

fn in_queue(queue: &str, kind: &str) -> SubmitRequest {
    SubmitRequest { queue: queue.into(), ..task(kind) }
}

/// A server with one worker, that a task of kind `gated` keeps busy until the
/// gate lets it go.
async fn held(change: impl FnOnce(&mut Config)) -> (TestServer, Gate, Client, Watch) {
    let gate = Gate::default();
    let mut registry = builtin();
    registry.insert("gated", gate.clone());
    let test_server = TestServer::with(
        |config| {
            config.workers = 1.try_into().unwrap();
            change(config);
        },
        registry,
    )
    .await;
    let mut client = test_server.client().await;
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, in_queue("gate", "gated")).await;
    watch.until(EventType::Started).await;
    (test_server, gate, client, watch)
}

/// The queues of the next tasks that start.
async fn starts(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut queues = Vec::new();
    while queues.len() < count {
        queues.push(watch.until(EventType::Started).await.queue);
    }
    queues
}

async fn status(admin: &mut Admin, queue: &str) -> Queue {
    let request = ListQueuesRequest { queue: queue.into(), ..Default::default() };
    let mut queues = admin.list_queues(request).await.unwrap().into_inner().queues;
    assert_eq!(queues.len(), 1, "{queues:?}");
    queues.remove(0)
}

async fn update(admin: &mut Admin, queue: &str, settings: QueueSettings) -> Queue {
    let settings = Some(settings);
    let request = UpdateQueueRequest { queue: queue.into(), settings, update_mask: None };
    admin.update_queue(request).await.unwrap().into_inner().queue.unwrap()
}

async fn pause(admin: &mut Admin, queue: &str) {
    let request = PauseQueueRequest { queue: queue.into() };
    assert!(admin.pause_queue(request).await.unwrap().into_inner().queue.unwrap().paused);
}

async fn resume(admin: &mut Admin, queue: &str) {
    let request = ResumeQueueRequest { queue: queue.into() };
    assert!(!admin.resume_queue(request).await.unwrap().into_inner().queue.unwrap().paused);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_share_the_pool_by_their_weights() {
    let heavy = Overrides { weight: Some(3), ..Overrides::default() };
    let (_test_server, gate, mut client, mut watch) = held(declare("heavy", heavy)).await;
    for queue in ["heavy", "light"] {
        for _ in 0..60 {
            submit(&mut client, in_queue(queue, "noop")).await;
        }
    }
    gate.open();
    let starts = starts(&mut watch, 80).await;
    for window in starts.chunks(4) {
        let of_heavy = window.iter().filter(|queue| *queue == "heavy").count();
        assert_eq!(of_heavy, 3, "{starts:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_queue_does_not_starve_another() {
    let (_test_server, gate, mut client, mut watch) = held(|_| {}).await;
    for _ in 0..500 {
        let flood = SubmitRequest { priority: 1_000, ..in_queue("flood", "noop") };
        submit(&mut client, flood).await;
    }
    submit(&mut client, in_queue("other", "noop")).await;
    gate.open();
    let first = starts(&mut watch, 3).await;
    assert!(first.contains(&"other".to_owned()), "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn within_a_queue_starts_go_by_priority_then_due_time_then_submission_under_load() {
    let (_test_server, gate, mut client, mut watch) = held(|_| {}).await;
    let mut expected = Vec::new();
    for number in 0..300_i32 {
        let priority = number * 7 % 5 - 2;
        let submitted = submit(&mut client, SubmitRequest { priority, ..task("noop") }).await;
        expected.push((-priority, number, submitted.task_id));
    }
    expected.sort();
    gate.open();
    for (_, _, task_id) in expected {
        assert_eq!(watch.until(EventType::Started).await.task_id, task_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_takes_tasks_starts_none_and_stays_paused_over_a_restart() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let mut control = test_server.admin().await;
    let mut watch = Watch::live(&mut client).await;
    for _ in 0..2 {
        pause(&mut control, "mail").await;
    }
    let paused = watch.until(EventType::QueuePaused).await;
    assert_eq!((paused.queue.as_str(), paused.task_id.as_str()), ("mail", ""));
    let waiting = submit(&mut client, in_queue("mail", "noop")).await;
    assert_eq!(waiting.state(), TaskState::Queued);
    for _ in 0..20 {
        let other = submit(&mut client, in_queue("other", "noop")).await;
        assert_eq!(wait(&mut client, &other.task_id).await.state(), TaskState::Succeeded);
    }
    let mail = status(&mut control, "mail").await;
    assert_eq!((mail.paused, mail.block()), (true, QueueBlock::Paused));
    assert_eq!(mail.counts.unwrap().queued, 1);

    let (_, dir) = test_server.drain().await;
    let test_server = TestServer::on(dir, |_| {}, builtin()).await;
    let (mut client, mut control) = (test_server.client().await, test_server.admin().await);
    let mut watch = Watch::after(&mut client, &watch.cursor).await;
    assert!(status(&mut control, "mail").await.paused);
    let other = submit(&mut client, in_queue("other", "noop")).await;
    wait(&mut client, &other.task_id).await;
    assert_eq!(support::get(&mut client, &waiting.task_id).await.state(), TaskState::Queued);
    for _ in 0..2 {
        resume(&mut control, "mail").await;
    }
    assert_eq!(wait(&mut client, &waiting.task_id).await.state(), TaskState::Succeeded);
    assert_eq!(watch.until(EventType::QueueResumed).await.queue, "mail");
    let next = watch.until(EventType::Started).await;
    assert_eq!(next.task_id, waiting.task_id, "one event each, however often it is asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_of_a_queue_run_than_may_and_the_rest_of_the_pool_is_the_others() {
    let gate = Gate::default();
    let mut registry = builtin();
    registry.insert("gated", gate.clone());
    let limited = Overrides { max_running: Some(Some(2)), ..Overrides::default() };
    let test_server = TestServer::with(
        |config| {
            config.workers = 4.try_into().unwrap();
            config.queues.insert("limited".into(), limited);
        },
        registry,
    )
    .await;
    let (mut client, mut control) = (test_server.client().await, test_server.admin().await);
    let mut watch = Watch::live(&mut client).await;
    for _ in 0..5 {
        submit(&mut client, in_queue("limited", "gated")).await;
    }
    assert_eq!(starts(&mut watch, 2).await, ["limited", "limited"]);
    for _ in 0..10 {
        let other = submit(&mut client, in_queue("other", "noop")).await;
        wait(&mut client, &other.task_id).await;
    }
    let queue = status(&mut control, "limited").await;
    let counts = queue.counts.unwrap();
    assert_eq!((counts.running, counts.queued, queue.block()), (2, 3, QueueBlock::MaxRunning));
    // One more may run: it starts at once.
    update(&mut control, "limited", QueueSettings { max_running: Some(3), ..Default::default() })
        .await;
    while watch.until(EventType::Started).await.queue != "limited" {}
    assert_eq!(status(&mut control, "limited").await.counts.unwrap().running, 3);
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_lets_a_burst_through_and_holds_back_what_follows() {
    let hourly = Rate { per_second: 1.0 / 3600.0, burst: 3 };
    let slow = Overrides { rate: Some(Some(hourly)), ..Overrides::default() };
    let test_server = TestServer::with(declare("slow", slow), builtin()).await;
    let (mut client, mut control) = (test_server.client().await, test_server.admin().await);
    let mut tasks: Vec<SubmitResponse> = Vec::new();
    for _ in 0..5 {
        tasks.push(submit(&mut client, in_queue("slow", "noop")).await);
    }
    for task in &tasks[..3] {
        wait(&mut client, &task.task_id).await;
    }
    let other = submit(&mut client, in_queue("other", "noop")).await;
    wait(&mut client, &other.task_id).await;
    let queue = status(&mut control, "slow").await;
    assert_eq!((queue.block(), queue.counts.unwrap().queued), (QueueBlock::RateLimit, 2));
    // Without a limit they start.
    let unlimited = RateLimit { starts_per_second: 0.0, burst: 0 };
    let settings = QueueSettings { rate_limit: Some(unlimited), ..Default::default() };
    let queue = update(&mut control, "slow", settings).await;
    assert_eq!(queue.overridden, ["rate_limit"]);
    for task in &tasks {
        assert_eq!(wait(&mut client, &task.task_id).await.state(), TaskState::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_queue_can_be_changed_while_callers_wait_and_outlive_a_restart() {
    let (test_server, gate, mut client, _) = held(|_| {}).await;
    let mut control = test_server.admin().await;
    update(&mut control, "small", QueueSettings { max_tasks: Some(1), ..Default::default() }).await;
    submit(&mut client, in_queue("small", "noop")).await;
    let reject = SubmitRequest { when_full: WhenFull::Reject.into(), ..in_queue("small", "noop") };
    let full = client.submit(reject.clone()).await.unwrap_err();
    assert_eq!(reason(&full), "QUEUE_FULL");
    let mut caller = test_server.client().await;
    let waiting = tokio::spawn(async move { submit(&mut caller, in_queue("small", "noop")).await });
    while status(&mut control, "small").await.waiting_callers == 0 {}
    update(&mut control, "small", QueueSettings { max_tasks: Some(2), ..Default::default() }).await;
    waiting.await.unwrap();
    gate.open();

    let (_, dir) = test_server.drain().await;
    let test_server = TestServer::on(dir, |_| {}, builtin()).await;
    let mut control = test_server.admin().await;
    let small = status(&mut control, "small").await;
    assert_eq!(small.settings.unwrap().max_tasks, Some(2));
    assert_eq!(small.overridden, ["max_tasks"]);
    // Named without a value, it goes back to what is configured.
    let reset = UpdateQueueRequest {
        queue: "small".into(),
        settings: None,
        update_mask: Some(prost_types::FieldMask { paths: vec!["max_tasks".into()] }),
    };
    let small = control.update_queue(reset).await.unwrap().into_inner().queue.unwrap();
    assert_eq!(small.settings.unwrap().max_tasks, Some(100_000));
    assert_eq!(small.overridden, [] as [&str; 0]);
}

/// A kind that never succeeds.
fn failing() -> Registry {
    let mut registry = builtin();
    registry.insert("fails", |_| async { Err(Error::retryable("NO_LUCK", "not today")) });
    registry
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_says_how_often_its_tasks_are_tried_unless_they_do() {
    let patient = Overrides {
        max_attempts: Some(3),
        initial_backoff: Some(Duration::from_millis(1)),
        max_backoff: Some(Duration::from_millis(2)),
        attempt_timeout: Some(Duration::from_secs(7)),
        ..Overrides::default()
    };
    let test_server = TestServer::with(declare("patient", patient), failing()).await;
    let mut client = test_server.client().await;
    let by_queue = submit(&mut client, in_queue("patient", "fails")).await;
    let ended = wait(&mut client, &by_queue.task_id).await;
    assert_eq!((ended.attempt, ended.max_attempts), (3, 3));
    assert_eq!(ended.timeout, span(Duration::from_secs(7)));
    let retry = Some(RetryPolicy { max_attempts: 2, ..Default::default() });
    let by_task =
        submit(&mut client, SubmitRequest { retry, ..in_queue("patient", "fails") }).await;
    assert_eq!(wait(&mut client, &by_task.task_id).await.attempt, 2, "with the queue's backoff");
    let elsewhere = submit(&mut client, task("fails")).await;
    assert_eq!(wait(&mut client, &elsewhere.task_id).await.attempt, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_queues_are_fixed_others_are_refused_by_name() {
    let test_server = TestServer::with(
        |config| {
            config.fixed_queues = true;
            config.queues.insert("mail".into(), Overrides::default());
        },
        builtin(),
    )
    .await;
    let (mut client, mut control) = (test_server.client().await, test_server.admin().await);
    submit(&mut client, in_queue("mail", "noop")).await;
    for queue in ["other", ""] {
        let refused = client.submit(in_queue(queue, "noop")).await.unwrap_err();
        assert_eq!(
            (refused.code(), fields(&refused)),
            (Code::InvalidArgument, vec!["queue".into()])
        );
    }
    let request = PauseQueueRequest { queue: "other".into() };
    let refused = control.pause_queue(request).await.unwrap_err();
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["queue".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_those_of_the_tasks_that_there_are() {
    let (test_server, gate, mut client, _) = held(|_| {}).await;
    let mut control = test_server.admin().await;
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, queue) in ["a", "b", "a", "a", "b"].into_iter().enumerate() {
        let delay = (at % 2 == 1).then(|| span(Duration::from_hours(1))).flatten();
        submit(&mut client, SubmitRequest { delay, ..in_queue(queue, "noop") }).await;
        *expected.entry(queue).or_default() += 1;
    }
    let all = control.list_queues(ListQueuesRequest::default()).await.unwrap().into_inner().queues;
    let names: Vec<_> = all.iter().map(|queue| queue.queue.as_str()).collect();
    assert_eq!(names, ["a", "b", "gate"]);
    for queue in &all[..2] {
        let counts = queue.counts.as_ref().unwrap();
        assert_eq!(counts.scheduled + counts.queued, expected[queue.queue.as_str()]);
        assert!(queue.waiting_bytes > 0);
    }
    assert_eq!(all[2].counts.as_ref().unwrap().running, 1);
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_waiting_submitter_starves_whoever_else_submits() {
    let (test_server, gate, mut client, _) = held(|config| config.queue_max_tasks = 3).await;
    for _ in 0..3 {
        submit(&mut client, in_queue("full", "noop")).await;
    }
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut control = test_server.admin().await;
    let mut callers = Vec::new();
    for number in 0..30_u64 {
        let (mut caller, order) = (test_server.client().await, Arc::clone(&order));
        callers.push(tokio::spawn(async move {
            let submitted = submit(&mut caller, in_queue("full", "noop")).await;
            order.lock().unwrap().push((submitted.task_id, number));
        }));
        // One after the other, so that it is known who came first.
        while status(&mut control, "full").await.waiting_callers <= number {}
    }
    gate.open();
    for caller in callers {
        caller.await.unwrap();
    }
    let mut order = order.lock().unwrap().clone();
    // Task ids go up with the order in which tasks were taken.
    order.sort_by_key(|(id, _)| id.parse::<taskyard::task::TaskId>().unwrap().number());
    let numbers: Vec<u64> = order.into_iter().map(|(_, number)| number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}
