//! Handlers that block their threads, in the real server, and what goes on all the same.
#![cfg(debug_assertions)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use bytes::BytesMut;
use prost::Message as _;
use rustix::process::Signal;
use taskyard::{
    config::Config,
    handler::{Error, Execution, Handler, Output, Violation},
    proto::{
        health::{
            HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
        },
        v1::{
            CancelTaskRequest, EventType, GetPoolRequest, ResizePoolRequest, SubmitBatchRequest,
            SubmitRequest, SubmitStreamRequest, SubmitStreamResponse, Task, TaskState,
            admin_service_client::AdminServiceClient, submit_ack, submit_result,
        },
    },
    task::Data,
};
use tempfile::TempDir;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::support::{
    self, Client, TestServer, Watch, builtin, connect, fields, get, pause,
    process::Serve,
    reject, sleep, span, submit, task, wait,
    wire::{call_for, framed, messages},
};

const STREAM: &str = "/taskyard.v1.TaskService/SubmitStream";
/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server whose `noop` blocks its thread while the file is there.
fn serve(dir: &Path, more: &[&str]) -> (Serve, PathBuf) {
    let trap = dir.join("trap");
    fs::write(&trap, "").unwrap();
    let mut launcher = Command::new("env");
    launcher.arg(format!("FAILPOINTS=noop=trap:{}", trap.display()));
    let more = [&["--cancel-grace", "100ms"], more].concat();
    (Serve::under(launcher, &dir.join("data"), &more), trap)
}

async fn client(server: &Serve) -> Client {
    connect(server.address.parse().expect("an address")).await
}

/// Handlers that block their threads, and have begun to.
async fn block(client: &mut Client, count: usize, request: &SubmitRequest) -> Vec<String> {
    let mut watch = Watch::live(client).await;
    let mut tasks = Vec::new();
    for _ in 0..count {
        tasks.push(submit(client, request.clone()).await.task_id);
        watch.until(EventType::Started).await;
    }
    tasks
}

fn reason(task: &Task) -> &str {
    task.error.as_ref().map_or("", |error| &error.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn they_hold_up_neither_calls_nor_timers_nor_others_nor_the_drain() {
    let dir = TempDir::new().unwrap();
    // A tenth of it is for what comes after the handlers, also on a busy machine.
    let more = ["--workers", "8", "--drain-timeout", "20s"];
    let (server, trap) = serve(dir.path(), &more);
    let mut client = client(&server).await;
    let calm = async {
        let blocked = block(&mut client, 7, &task("noop")).await;
        let mut health = HealthClient::connect(format!("http://{}", server.address)).await.unwrap();
        let status = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(status.status(), ServingStatus::Serving);
        // On the one worker that is left, after a delay, with a timer of its own.
        let delay = span(Duration::from_millis(20));
        let timed = SubmitRequest { delay, ..sleep("20ms") };
        let timed = submit(&mut client, timed).await;
        assert_eq!(wait(&mut client, &timed.task_id).await.state(), TaskState::Succeeded);
        let timeout = SubmitRequest { timeout: span(Duration::from_millis(50)), ..sleep("1h") };
        let timeout = submit(&mut client, timeout).await;
        assert_eq!(reason(&wait(&mut client, &timeout.task_id).await), "TIMEOUT");
        blocked
    };
    let blocked = tokio::time::timeout(PATIENCE, calm).await.expect("the server hangs");
    drop(client);
    server.signal(Signal::TERM);
    let (exit, log) = server.end();
    assert_eq!(exit, Some(0), "{log}");
    assert!(log.contains("interrupted=7") && log.contains("complete=true"), "{log}");

    // An interruption, not a crash that counts.
    fs::remove_file(trap).unwrap();
    let server = Serve::start(&dir.path().join("data"), &["--max-crashes", "1"]);
    let mut client = self::client(&server).await;
    for task_id in blocked {
        assert_eq!(wait(&mut client, &task_id).await.state(), TaskState::Succeeded);
    }
    drop(client);
    server.signal(Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn their_attempts_are_judged_without_them() {
    let dir = TempDir::new().unwrap();
    let (server, trap) = serve(dir.path(), &["--workers", "1"]);
    let mut client = client(&server).await;

    let timeout = span(Duration::from_millis(100));
    let short = SubmitRequest { timeout, ..task("noop") };
    let overdue = block(&mut client, 1, &short).await.remove(0);
    let ended = wait(&mut client, &overdue).await;
    assert_eq!((ended.state(), reason(&ended)), (TaskState::Failed, "TIMEOUT"), "{ended:?}");

    let cancelled = block(&mut client, 1, &task("noop")).await.remove(0);
    let cancel = CancelTaskRequest { task_id: cancelled.clone() };
    client.cancel_task(cancel).await.expect("it runs");
    assert_eq!(wait(&mut client, &cancelled).await.state(), TaskState::Cancelled);

    // The worker goes on, and what they return now has no effect.
    fs::remove_file(trap).unwrap();
    let next = submit(&mut client, task("noop")).await;
    let next = wait(&mut client, &next.task_id).await;
    assert_eq!((next.state(), &*next.worker), (TaskState::Succeeded, "worker-1"));
    assert_eq!(get(&mut client, &overdue).await, ended);
    drop(client);
    server.signal(Signal::TERM);
    let (exit, log) = server.end();
    assert_eq!(exit, Some(0), "{log}");
}

async fn until_pool_is_empty(admin: &mut AdminServiceClient<Channel>) {
    let leaving = async {
        loop {
            let pool = admin.get_pool(GetPoolRequest {}).await.unwrap().into_inner().pool.unwrap();
            if pool.workers.is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, leaving).await.expect("workers are there still");
}

/// Each blocks one of the 512 threads that handlers have in all.
#[tokio::test(flavor = "multi_thread")]
async fn when_all_threads_are_blocked_attempts_are_judged_and_work_goes_on_when_one_returns() {
    const THREADS: usize = 512;
    let dir = TempDir::new().unwrap();
    let (server, trap) = serve(dir.path(), &["--workers", "512"]);
    let mut client = client(&server).await;
    let timeout = span(Duration::from_secs(5));
    let short = SubmitRequest { timeout, ..task("noop") };
    let requests = vec![short; THREADS];
    let batch = SubmitBatchRequest { requests, ..SubmitBatchRequest::default() };
    let results = client.submit_batch(batch).await.expect("there is room").into_inner().results;
    assert_eq!(results.len(), THREADS);
    for result in results {
        let Some(submit_result::Result::Ack(taken)) = result.result else { panic!("{result:?}") };
        let ended = wait(&mut client, &taken.task_id).await;
        assert_eq!((ended.state(), reason(&ended)), (TaskState::Failed, "TIMEOUT"), "{ended:?}");
    }
    // Whoever came to threads that are all blocked would be given tasks and run none.
    let address = format!("http://{}", server.address);
    let mut admin = AdminServiceClient::connect(address).await.unwrap();
    until_pool_is_empty(&mut admin).await;
    let smaller = ResizePoolRequest { size: 100 };
    let pool = admin.resize_pool(smaller).await.expect("resized").into_inner().pool.unwrap();
    assert_eq!((pool.size, pool.workers.len()), (100, 0), "{pool:?}");
    let next = submit(&mut client, task("noop")).await;
    fs::remove_file(trap).unwrap();
    let next = wait(&mut client, &next.task_id).await;
    assert_eq!(next.state(), TaskState::Succeeded);
    drop(client);
    server.signal(Signal::TERM);
    let (exit, log) = server.end();
    assert_eq!(exit, Some(0), "{log}");
}

/// More workers than threads share these, and one that is blocked costs none of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_shares_its_threads_keeps_its_workers() {
    const WORKERS: usize = 600;
    let dir = TempDir::new().unwrap();
    let (server, trap) = serve(dir.path(), &["--workers", "600"]);
    let mut client = client(&server).await;
    let timeout = span(Duration::from_millis(100));
    let short = SubmitRequest { timeout, ..task("noop") };
    let blocked = block(&mut client, 1, &short).await.remove(0);
    assert_eq!(reason(&wait(&mut client, &blocked).await), "TIMEOUT");
    let address = format!("http://{}", server.address);
    let mut admin = AdminServiceClient::connect(address).await.unwrap();
    let mut workers = async || {
        let pool = admin.get_pool(GetPoolRequest {}).await.unwrap().into_inner().pool.unwrap();
        pool.workers.len()
    };
    assert_eq!(workers().await, WORKERS);
    fs::remove_file(trap).unwrap();
    let next = submit(&mut client, task("noop")).await;
    assert_eq!(wait(&mut client, &next.task_id).await.state(), TaskState::Succeeded);
    assert_eq!(workers().await, WORKERS);
    drop(client);
    server.signal(Signal::TERM);
    let (exit, log) = server.end();
    assert_eq!(exit, Some(0), "{log}");
}

/// Blocks in its check until the test lets it go on.
#[derive(Clone)]
struct Asks {
    began: mpsc::Sender<()>,
    go_on: Arc<Mutex<mpsc::Receiver<()>>>,
}

/// Checks that have begun, and what lets all of them go on when it is dropped.
struct Blocked {
    began: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
}

impl Asks {
    fn new() -> (Self, Blocked) {
        let (began, checks) = mpsc::channel();
        let (release, go_on) = mpsc::channel();
        let go_on = Arc::new(Mutex::new(go_on));
        (Self { began, go_on }, Blocked { began: checks, release })
    }
}

impl Blocked {
    fn wait_for(&self, checks: usize) {
        for _ in 0..checks {
            tokio::task::block_in_place(|| self.began.recv_timeout(PATIENCE)).expect("it begins");
        }
    }
}

impl Handler for Asks {
    fn check(&self, _payload: &Data) -> Result<(), Vec<Violation>> {
        self.began.send(()).expect("the test waits");
        let _ = self.go_on.lock().expect("no panic").recv();
        Ok(())
    }

    async fn run(&self, _execution: Execution) -> Result<Output, Error> {
        Ok(Output::empty())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checks_that_block_hold_up_nobody_but_their_callers() {
    const BLOCKED: usize = 6;
    let (asks, checks) = Asks::new();
    let mut registry = builtin();
    registry.insert("asks", asks);
    let server = TestServer::with(|_| {}, registry).await;
    let mut client = server.client().await;
    let mut blocked = tokio::task::JoinSet::new();
    for _ in 0..BLOCKED {
        // Of each connection one call after the other is read.
        let mut client = server.client().await;
        blocked.spawn(async move { submit(&mut client, task("asks")).await.task_id });
    }
    // More than there are threads that serve callers.
    checks.wait_for(BLOCKED);
    let other = async {
        let done = submit(&mut client, task("noop")).await;
        wait(&mut client, &done.task_id).await
    };
    let other = tokio::time::timeout(PATIENCE, other).await.expect("callers are held up");
    assert_eq!(other.state(), TaskState::Succeeded);
    assert!(blocked.try_join_next().is_none(), "they are checked still");
    drop(checks.release);
    for task_id in blocked.join_all().await {
        assert_eq!(wait(&mut client, &task_id).await.state(), TaskState::Succeeded);
    }
}

async fn refusal(client: &mut Client, kind: &str) -> Status {
    let submitted = tokio::time::timeout(PATIENCE, client.submit(task(kind))).await;
    submitted.expect("it is being checked").unwrap_err()
}

/// 64 of a kind, and 256 of all kinds, as more would take the threads of timers and sockets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_checks_block_at_a_time_than_may() {
    const OF_KIND: usize = 64;
    const KINDS: [&str; 4] = ["asks-1", "asks-2", "asks-3", "asks-4"];
    let (asks, checks) = Asks::new();
    let mut registry = builtin();
    for kind in KINDS.into_iter().chain(["asks-5"]) {
        registry.insert(kind, asks.clone());
    }
    let server = TestServer::with(|_| {}, registry).await;
    let mut client = server.client().await;
    let mut blocked = tokio::task::JoinSet::new();
    for (at, kind) in KINDS.into_iter().enumerate() {
        let mut block = async |kind: &'static str, count: usize| {
            for _ in 0..count {
                let mut client = server.client().await;
                blocked.spawn(async move { submit(&mut client, task(kind)).await.task_id });
            }
            checks.wait_for(count);
        };
        block(kind, OF_KIND).await;
        let refused = refusal(&mut client, kind).await;
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert_eq!(support::reason(&refused), "TOO_MANY_CHECKS");
        let retry = refused.get_details_retry_info().and_then(|info| info.retry_delay);
        assert!(retry.is_some(), "{refused:?}");
        if at == 0 {
            // Alone in a batch, which is as good as none; beside others, each for itself.
            let requests = vec![task("noop"), task(kind), task("no-such-kind")];
            let batch = SubmitBatchRequest { requests, ..Default::default() };
            let results = client.submit_batch(batch.clone()).await.unwrap().into_inner().results;
            let codes: Vec<_> = results
                .into_iter()
                .map(|result| match result.result.unwrap() {
                    submit_result::Result::Ack(_) => Code::Ok,
                    submit_result::Result::Error(error) => error.code.into(),
                })
                .collect();
            assert_eq!(codes, [Code::Ok, Code::ResourceExhausted, Code::InvalidArgument]);
            // What is wrong for good is told first.
            let mut atomic = SubmitBatchRequest { atomic: true, ..batch };
            let invalid = client.submit_batch(atomic.clone()).await.unwrap_err();
            assert_eq!(fields(&invalid), ["requests[2].kind"]);
            atomic.requests.pop();
            let refused = client.submit_batch(atomic).await.unwrap_err();
            assert_eq!(support::reason(&refused), "TOO_MANY_CHECKS");
            assert!(refused.message().starts_with("requests[1]: "), "{refused:?}");
        }
    }
    // It has none of its own under way.
    let refused = refusal(&mut client, "asks-5").await;
    assert_eq!(support::reason(&refused), "TOO_MANY_CHECKS");
    // The others are served.
    let done = submit(&mut client, task("noop")).await;
    assert_eq!(wait(&mut client, &done.task_id).await.state(), TaskState::Succeeded);
    drop(checks.release);
    assert_eq!(blocked.join_all().await.len(), KINDS.len() * OF_KIND);
    let done = submit(&mut client, task("asks-5")).await;
    assert_eq!(wait(&mut client, &done.task_id).await.state(), TaskState::Succeeded);
}

/// Requests of a stream that arrive together are all checked before any has a permit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_blocks_in_a_stream_keeps_no_permit_from_others() {
    let (asks, checks) = Asks::new();
    let mut registry = builtin();
    registry.insert("asks", asks);
    let one = |config: &mut Config| config.queue_max_tasks = 1;
    let server = TestServer::with(one, registry).await;
    let (mut client, mut admin) = (server.client().await, server.admin().await);
    pause(&mut admin, "default").await;
    let mut body = BytesMut::new();
    for kind in ["noop", "asks"] {
        let request = Some(reject(task(kind)));
        let request = SubmitStreamRequest { request, ..Default::default() };
        body.extend_from_slice(&framed(&request.encode_to_vec()));
    }
    let (address, body) = (server.server.local_addr(), body.freeze());
    let stream = tokio::spawn(async move { call_for(address, STREAM, &[], body).await });
    checks.wait_for(1);
    // It gets the place that the first one of the stream would have.
    submit(&mut client, reject(task("noop"))).await;
    drop(checks.release);
    let (status, responses) = stream.await.expect("no panic");
    assert_eq!(status.code(), Code::Ok, "{status:?}");
    let responses: Vec<SubmitStreamResponse> = messages(responses);
    let acknowledged: Vec<_> = responses.into_iter().flat_map(|response| response.acks).collect();
    assert_eq!(acknowledged.len(), 2, "{acknowledged:?}");
    for ack in acknowledged {
        let Some(submit_ack::Result::Error(error)) = ack.result else { panic!("taken") };
        assert_eq!(error.code, Code::ResourceExhausted as i32, "{error:?}");
    }
}

/// Panics when it is to check a payload.
struct Careless;

impl Handler for Careless {
    fn check(&self, payload: &Data) -> Result<(), Vec<Violation>> {
        panic!("a careless look at {} bytes", payload.len());
    }

    async fn run(&self, _execution: Execution) -> Result<Output, Error> {
        Ok(Output::empty())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_panics_is_an_answer() {
    let mut registry = builtin();
    registry.insert("careless", Careless);
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let refused = client.submit(task("careless")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert_eq!(fields(&refused), ["payload"]);
    assert!(refused.message().contains("a careless look"), "{refused:?}");

    let requests = vec![task("noop"), task("careless")];
    let batch = SubmitBatchRequest { requests, ..Default::default() };
    let results = client.submit_batch(batch).await.unwrap().into_inner().results;
    let outcomes: Vec<_> = results.into_iter().map(|result| result.result.unwrap()).collect();
    assert!(matches!(outcomes[0], submit_result::Result::Ack(_)), "{outcomes:?}");
    assert!(matches!(outcomes[1], submit_result::Result::Error(_)), "{outcomes:?}");
    drop(client);
    assert!(test_server.drain().await.0.complete);
}
