//! What operators do, over the wire.

use std::time::Duration;

use taskyard::{
    config::Config,
    handler::Registry,
    proto::v1::{
        DrainRequest, DrainResponse, EventType, GetPoolRequest, GetStatsRequest, GetStatsResponse,
        ListQueuesRequest, PauseQueueRequest, Pool, Queue, QueueBlock, QueueSettings, RateLimit,
        ResizePoolRequest, ResumeQueueRequest, SubmitRequest, TaskCounts, TaskState,
        UpdateQueueRequest,
    },
    queue::Overrides,
};
use tonic::{Code, Status};

use crate::support::{
    self, Admin, Client, Gate, PATIENCE, TestServer, Watch, builtin, fields, full_test_server,
    reason, sleep, span, submit, task, wait,
};

fn with_gate() -> (Gate, Registry) {
    let (gate, mut registry) = (Gate::default(), builtin());
    registry.insert("gated", gate.clone());
    (gate, registry)
}

fn queued(request: SubmitRequest, queue: &str) -> SubmitRequest {
    SubmitRequest { queue: queue.into(), ..request }
}

/// Looks until there is what is looked for.
async fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("it does not come")
}

async fn pool(admin: &mut Admin) -> Pool {
    admin.get_pool(GetPoolRequest {}).await.expect("the pool").into_inner().pool.unwrap()
}

async fn resize(admin: &mut Admin, size: u32) -> Result<Pool, Status> {
    Ok(admin.resize_pool(ResizePoolRequest { size }).await?.into_inner().pool.unwrap())
}

async fn queues(admin: &mut Admin) -> Vec<Queue> {
    let all = admin.list_queues(ListQueuesRequest::default()).await.expect("the queues");
    all.into_inner().queues
}

async fn queue(admin: &mut Admin, name: &str) -> Option<Queue> {
    let one = ListQueuesRequest { queue: name.into(), ..Default::default() };
    admin.list_queues(one).await.expect("the queue").into_inner().queues.pop()
}

async fn update(
    admin: &mut Admin,
    queue: &str,
    settings: QueueSettings,
    mask: &[&str],
) -> Result<Queue, Status> {
    let paths: Vec<_> = mask.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(prost_types::FieldMask { paths });
    let request = UpdateQueueRequest { queue: queue.into(), settings: Some(settings), update_mask };
    Ok(admin.update_queue(request).await?.into_inner().queue.unwrap())
}

async fn pause(admin: &mut Admin, queue: &str) -> Result<Queue, Status> {
    let request = PauseQueueRequest { queue: queue.into() };
    Ok(admin.pause_queue(request).await?.into_inner().queue.unwrap())
}

async fn resume(admin: &mut Admin, queue: &str) -> Result<Queue, Status> {
    let request = ResumeQueueRequest { queue: queue.into() };
    Ok(admin.resume_queue(request).await?.into_inner().queue.unwrap())
}

async fn stats(admin: &mut Admin) -> GetStatsResponse {
    admin.get_stats(GetStatsRequest::default()).await.expect("statistics").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_tells_who_runs_what() {
    let (gate, registry) = with_gate();
    let test_server =
        TestServer::with(|config| config.workers = 3.try_into().unwrap(), registry).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    let mut watch = Watch::live(&mut client).await;
    let submitted = submit(&mut client, queued(task("gated"), "q")).await;
    let started = watch.until(EventType::Started).await;
    // The event may be there before the worker has begun.
    let is_busy = |pool: &Pool| pool.workers.iter().any(|worker| worker.execution.is_some());
    let told = until(async || Some(pool(&mut admin).await).filter(is_busy)).await;
    assert_eq!(told.size, 3);
    let names: Vec<_> = told.workers.iter().map(|worker| worker.worker.as_str()).collect();
    assert_eq!(names, ["worker-1", "worker-2", "worker-3"]);
    let mut busy = told.workers.iter().filter(|worker| worker.execution.is_some());
    let (one, none) = (busy.next().expect("one is busy"), busy.next());
    assert!(none.is_none(), "{told:?}");
    assert_eq!(one.worker, started.worker);
    let execution = one.execution.as_ref().unwrap();
    assert_eq!(execution.task_id, submitted.task_id);
    assert_eq!((execution.queue.as_str(), execution.kind.as_str()), ("q", "gated"));
    assert_eq!(execution.attempt, 1);
    assert!(execution.start_time.is_some() && execution.running_for.is_some());
    gate.open();
    wait(&mut client, &submitted.task_id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_changes_its_size_while_it_works() {
    let (gate, registry) = with_gate();
    let test_server =
        TestServer::with(|config| config.workers = 1.try_into().unwrap(), registry).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    let mut watch = Watch::live(&mut client).await;
    for _ in 0..4 {
        submit(&mut client, task("gated")).await;
    }
    watch.until(EventType::Started).await;
    assert_eq!(resize(&mut admin, 3).await.unwrap().size, 3);
    for _ in 0..2 {
        watch.until(EventType::Started).await;
    }
    // Nobody is interrupted: two are to leave when their tasks have ended.
    let shrunk = resize(&mut admin, 1).await.unwrap();
    assert_eq!((shrunk.size, shrunk.workers.len()), (1, 3));
    assert_eq!(shrunk.workers.iter().filter(|worker| worker.leaving).count(), 2);
    gate.open();
    for _ in 0..2 {
        watch.until(EventType::WorkerStopped).await;
    }
    let last = submit(&mut client, task("noop")).await;
    assert_eq!(wait(&mut client, &last.task_id).await.state(), TaskState::Succeeded);
    for wrong in [0, 10_001] {
        let refused = resize(&mut admin, wrong).await.unwrap_err();
        assert_eq!(
            (fields(&refused), reason(&refused)),
            (vec!["size".into()], "INVALID_FIELDS".into())
        );
    }
    assert_eq!(pool(&mut admin).await.size, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_listed_by_name_with_what_is_in_them() {
    let (gate, registry) = with_gate();
    let test_server =
        TestServer::with(|config| config.workers = 1.try_into().unwrap(), registry).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    assert_eq!(queues(&mut admin).await, []);
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, queued(task("gated"), "b")).await;
    watch.until(EventType::Started).await;
    submit(&mut client, queued(task("gated"), "b")).await;
    for name in ["c", "a"] {
        let later = SubmitRequest { delay: span(PATIENCE), ..queued(task("noop"), name) };
        submit(&mut client, later).await;
    }
    let listed = queues(&mut admin).await;
    let names: Vec<_> = listed.iter().map(|queue| queue.queue.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let counts = TaskCounts { running: 1, queued: 1, ..Default::default() };
    assert_eq!(listed[1].counts, Some(counts));
    assert!(listed[1].waiting_bytes > 0 && listed[1].oldest_due_time.is_some());
    assert_eq!(listed[0].counts, Some(TaskCounts { scheduled: 1, ..Default::default() }));
    // Page by page.
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = ListQueuesRequest { page_size: 2, page_token, ..Default::default() };
        let page = admin.list_queues(page).await.unwrap().into_inner();
        seen.extend(page.queues.into_iter().map(|queue| queue.queue));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, names);
    assert_eq!(queue(&mut admin, "b").await.expect("it is there").queue, "b");
    assert_eq!(queue(&mut admin, "nowhere").await, None);
    let wrong = ListQueuesRequest { queue: "No".into(), page_size: -1, page_token: "x".into() };
    let refused = admin.list_queues(wrong).await.unwrap_err();
    assert_eq!(fields(&refused), ["page_size", "page_token", "queue"]);
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_changed_and_go_back_also_over_a_restart() {
    let test_server = TestServer::start().await;
    let mut admin = test_server.admin().await;
    let settings = QueueSettings {
        weight: Some(7),
        max_attempts: Some(3),
        rate_limit: Some(RateLimit { starts_per_second: 2.5, burst: 4 }),
        ..Default::default()
    };
    let changed = update(&mut admin, "q", settings, &[]).await.expect("changed");
    assert_eq!(changed.overridden, ["rate_limit", "weight", "max_attempts"]);
    let now = changed.settings.expect("always set");
    assert_eq!((now.weight, now.max_attempts, now.max_tasks), (Some(7), Some(3), Some(100_000)));
    drop(admin);
    let (_, dir) = test_server.drain().await;
    let test_server = TestServer::on(dir, |_| {}, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    assert_eq!(queue(&mut admin, "q").await.expect("it is kept").settings, Some(now));
    // A task that does not say has the queue's attempts.
    let submitted = submit(&mut client, queued(task("noop"), "q")).await;
    assert_eq!(wait(&mut client, &submitted.task_id).await.max_attempts, 3);
    let reset = update(&mut admin, "q", QueueSettings::default(), &["weight", "rate_limit"]).await;
    let reset = reset.expect("changed");
    assert_eq!(reset.overridden, ["max_attempts"]);
    assert_eq!(reset.settings.unwrap().weight, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_wrong_changes_nothing() {
    let test_server = TestServer::start().await;
    let mut admin = test_server.admin().await;
    let wrong = QueueSettings {
        weight: Some(0),
        max_tasks: Some(0),
        max_attempts: Some(3),
        ..Default::default()
    };
    let refused = update(&mut admin, "No", wrong, &[]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fields(&refused), ["queue", "settings.max_tasks", "settings.weight"]);
    let unknown = update(&mut admin, "q", wrong, &["weight", "colour"]).await.unwrap_err();
    assert_eq!(fields(&unknown), ["update_mask.paths[1]", "settings.weight"]);
    // The configured longest rest is a minute.
    let longer = QueueSettings { initial_backoff: span(2 * PATIENCE), ..Default::default() };
    let refused = update(&mut admin, "q", longer, &[]).await.unwrap_err();
    assert_eq!(fields(&refused), ["settings.max_backoff"]);
    for refused in
        [pause(&mut admin, "").await.unwrap_err(), resume(&mut admin, "No").await.unwrap_err()]
    {
        assert_eq!(fields(&refused), ["queue"]);
    }
    assert_eq!(queues(&mut admin).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_takes_tasks_and_starts_none_also_over_a_restart() {
    let test_server = TestServer::start().await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    let mut watch = Watch::live(&mut client).await;
    for _ in 0..2 {
        let paused = pause(&mut admin, "q").await.expect("paused");
        assert!(paused.paused);
        assert_eq!(paused.block(), QueueBlock::Paused);
    }
    let event = watch.until(EventType::QueuePaused).await;
    assert_eq!((event.queue.as_str(), event.task_id.as_str()), ("q", ""));
    let held = submit(&mut client, queued(task("noop"), "q")).await;
    let other = submit(&mut client, task("noop")).await;
    wait(&mut client, &other.task_id).await;
    assert_eq!(support::get(&mut client, &held.task_id).await.state(), TaskState::Queued);
    drop((client, admin, watch));
    let (_, dir) = test_server.drain().await;
    let test_server = TestServer::on(dir, |_| {}, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    assert!(queue(&mut admin, "q").await.expect("it is kept").paused);
    let other = submit(&mut client, task("noop")).await;
    wait(&mut client, &other.task_id).await;
    assert_eq!(support::get(&mut client, &held.task_id).await.state(), TaskState::Queued);
    let mut watch = Watch::live(&mut client).await;
    for _ in 0..2 {
        assert!(!resume(&mut admin, "q").await.expect("resumed").paused);
    }
    assert_eq!(watch.until(EventType::QueueResumed).await.queue, "q");
    assert_eq!(wait(&mut client, &held.task_id).await.state(), TaskState::Succeeded);
    // Repeating it told nothing: the next event of a queue is another's.
    pause(&mut admin, "z").await.expect("paused");
    loop {
        let event = watch.event().await;
        assert!(event.r#type() != EventType::QueueResumed, "{event:?}");
        if event.r#type() == EventType::QueuePaused {
            assert_eq!(event.queue, "z");
            break;
        }
    }
}

/// Only the queues that are declared may exist.
fn fixed(config: &mut Config) {
    config.fixed_queues = true;
    for name in ["default", "mail"] {
        config.queues.insert(name.into(), Overrides::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_queues_are_fixed_another_is_a_wrong_field() {
    let test_server = TestServer::with(fixed, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    let weight = QueueSettings { weight: Some(2), ..Default::default() };
    for refused in [
        client.submit(queued(task("noop"), "post")).await.unwrap_err(),
        pause(&mut admin, "post").await.unwrap_err(),
        resume(&mut admin, "post").await.unwrap_err(),
        update(&mut admin, "post", weight, &[]).await.unwrap_err(),
    ] {
        assert_eq!(
            (refused.code(), fields(&refused)),
            (Code::InvalidArgument, vec!["queue".into()])
        );
        assert!(refused.message().contains("default, mail"), "{}", refused.message());
    }
    update(&mut admin, "mail", weight, &[]).await.expect("it is declared");
    let submitted = submit(&mut client, queued(task("noop"), "mail")).await;
    assert_eq!(wait(&mut client, &submitted.task_id).await.state(), TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_not_declared_any_more_is_changed_as_long_as_it_is_there() {
    let test_server = TestServer::with(fixed, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    pause(&mut admin, "mail").await.expect("it is declared");
    let held = submit(&mut client, queued(task("noop"), "mail")).await;
    drop((client, admin));
    let (_, dir) = test_server.drain().await;
    let without_mail = |config: &mut Config| {
        fixed(config);
        config.queues.remove("mail");
    };
    let test_server = TestServer::on(dir, without_mail, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    assert!(pause(&mut admin, "mail").await.expect("it is there").paused);
    let weight = QueueSettings { weight: Some(2), ..Default::default() };
    update(&mut admin, "mail", weight, &[]).await.expect("it is there");
    let refused = client.submit(queued(task("noop"), "mail")).await.unwrap_err();
    assert_eq!(fields(&refused), ["queue"], "it takes no new task");
    assert!(!resume(&mut admin, "mail").await.expect("it is there").paused);
    assert_eq!(wait(&mut client, &held.task_id).await.state(), TaskState::Succeeded);
    let refused = pause(&mut admin, "post").await.unwrap_err();
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["queue".into()]));
    assert!(refused.message().contains("fixes the queues: default"), "{}", refused.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_queue_lets_those_in_who_wait() {
    let (test_server, gate, client) = full_test_server(|_| {}).await;
    let mut admin = test_server.admin().await;
    let waiting = tokio::spawn({
        let mut client: Client = client.clone();
        async move { submit(&mut client, task("gated")).await }
    });
    let somebody_waits = |queue: &Queue| queue.waiting_callers > 0;
    until(async || queue(&mut admin, "default").await.filter(somebody_waits)).await;
    let larger = QueueSettings { max_tasks: Some(3), ..Default::default() };
    update(&mut admin, "default", larger, &[]).await.expect("changed");
    tokio::time::timeout(PATIENCE, waiting).await.expect("room").unwrap();
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_follow_from_what_ran() {
    let test_server = TestServer::start().await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    let unmeasured = stats(&mut admin).await;
    assert_eq!(unmeasured.advice.as_ref().unwrap().workers, 0);
    assert_eq!(unmeasured.queues, []);
    for _ in 0..20 {
        let submitted = submit(&mut client, queued(sleep("5ms"), "naps")).await;
        wait(&mut client, &submitted.task_id).await;
    }
    pause(&mut admin, "held").await.expect("paused");
    let told = stats(&mut admin).await;
    let pool = told.pool.expect("always set");
    assert_eq!((pool.workers, pool.counts.unwrap().succeeded), (2, 20));
    assert!(pool.arrival_rate > 0.0 && pool.completion_rate > 0.0 && pool.busy_share > 0.0);
    let service: Duration = pool.mean_service.expect("measured").try_into().unwrap();
    assert!(service >= Duration::from_millis(5), "{service:?}");
    let names: Vec<_> = told.queues.iter().map(|queue| queue.queue.as_str()).collect();
    assert_eq!(names, ["held", "naps"]);
    assert_eq!((told.queues[0].block(), told.queues[0].wait_now), (QueueBlock::Paused, None));
    assert_eq!(told.queues[1].wait_now, span(Duration::ZERO), "a worker is idle");
    let advice = told.advice.expect("always set");
    assert!(advice.workers >= 1 && advice.offered_load > 0.0, "{advice:?}");
    assert_eq!(advice.target_wait, span(Duration::from_secs(1)));
    let wrong = GetStatsRequest { target_wait: span(Duration::ZERO) };
    assert_eq!(fields(&admin.get_stats(wrong).await.unwrap_err()), ["target_wait"]);
}

async fn drain(mut admin: Admin) -> DrainResponse {
    let call = tokio::time::timeout(PATIENCE, admin.drain(DrainRequest {}));
    call.await.expect("the drain hangs").expect("a report").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_who_asks_for_the_drain_gets_the_same_report() {
    let brief = |config: &mut Config| {
        // A tenth of it is for what comes after the handlers: on a slow disk, too.
        config.drain_timeout = Duration::from_secs(6);
        config.cancel_grace = Duration::from_millis(1);
    };
    let test_server = TestServer::with(brief, builtin()).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, sleep("1h")).await;
    watch.until(EventType::Started).await;
    let later = SubmitRequest { delay: span(PATIENCE), ..task("noop") };
    submit(&mut client, later).await;
    let callers = [test_server.admin().await, test_server.admin().await, test_server.admin().await];
    let late = test_server.admin().await;
    let asked = callers.map(|admin| tokio::spawn(drain(admin)));
    tokio::time::timeout(PATIENCE, test_server.server.drain_requested())
        .await
        .expect("it is asked for");
    // One asks when the drain is under way.
    let server = tokio::spawn(test_server.drain());
    watch.until(EventType::Draining).await;
    let late = tokio::spawn(drain(late));
    let expected =
        DrainResponse { finished: 0, interrupted: 1, remaining: Some(2), complete: true };
    for caller in asked.into_iter().chain([late]) {
        assert_eq!(caller.await.unwrap(), expected);
    }
    drop((client, watch));
    let (report, _dir) = server.await.unwrap();
    assert_eq!((report.interrupted, report.remaining, report.complete), (1, Some(2), true));
}
