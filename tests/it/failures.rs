//! A defect in each part of the real server, in turn: what its callers hear, how the
//! process ends, and what the next start finds.
#![cfg(debug_assertions)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use taskyard::proto::{
    health::{
        HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
        health_client::HealthClient,
    },
    v1::{
        CancelTaskRequest, DrainRequest, EventType, GetTaskRequest, ListTasksRequest,
        ResizePoolRequest, SubmitRequest, SubmitStreamRequest, TaskState, WaitTaskRequest,
        WatchEventsRequest, WatchStart, admin_service_client::AdminServiceClient,
        submit_request::Payload,
    },
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::{Code, Status, Streaming};

use crate::support::{
    self, Client, Watch, connect, get, process::Serve, reason, sleep, submit, task, wait,
    watching::cursor_of,
};

/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// The exit code of a server that has failed.
const FAILED: i32 = 9;

/// How a test makes a part meet its failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    Submit,
    /// Frees a worker.
    Cancel,
    Read,
    WatchOldest,
    List,
    Resize,
    Connect,
    Drain,
    /// So much that the log is to be moved.
    Write,
    /// It comes there by itself.
    Nothing,
}

/// A part of the server: its failpoint, its name in the log, and what makes it fail.
const PARTS: [(&str, &str, Trigger); 12] = [
    ("engine.group", "store-engine", Trigger::Submit),
    ("engine.publish", "store-engine", Trigger::Submit),
    ("reader.short-lane", "store-short-", Trigger::Read),
    ("reader.history-lane", "store-history-", Trigger::WatchOldest),
    ("reader.list-lane", "store-list-", Trigger::List),
    ("log-mover", "store-log", Trigger::Write),
    ("accept", "accept-loop", Trigger::Connect),
    ("sweeper", "watch-sweeper", Trigger::Nothing),
    ("worker", "worker-", Trigger::Cancel),
    ("watchdog", "watchdog", Trigger::Nothing),
    ("pool", "pool", Trigger::Resize),
    ("guard", "guard", Trigger::Drain),
];

/// A server in which a failpoint panics as soon as the file is there.
fn serve(dir: &Path, failpoint: &str) -> (Serve, PathBuf) {
    let armed = dir.join("armed");
    let mut launcher = Command::new("env");
    launcher.arg(format!("FAILPOINTS={failpoint}=panic:{}", armed.display()));
    let more = ["--queue-max-tasks", "4", "--drain-timeout", "20s"];
    (Serve::under(launcher, &dir.join("data"), &more), armed)
}

async fn client(server: &Serve) -> Client {
    connect(server.address.parse().expect("an address")).await
}

fn named(id: &str, request: SubmitRequest) -> SubmitRequest {
    SubmitRequest { request_id: id.into(), ..request }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

#[track_caller]
fn is_the_failure(who: &str, status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{who}: {status:?}");
    assert_eq!(reason(status), "SERVER_FAILED", "{who}: {status:?}");
}

async fn health_of(server: &Serve) -> Streaming<HealthCheckResponse> {
    let mut health = HealthClient::connect(format!("http://{}", server.address)).await.unwrap();
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    watch
}

/// Both workers are busy, the queue is full, and somebody waits for room. Returns the
/// tasks that were acknowledged, with their request ids.
async fn busy(client: &mut Client) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    let mut watch = Watch::live(client).await;
    for number in 0..6 {
        let id = format!("before-{number}");
        let task = submit(client, named(&id, sleep("1h"))).await;
        acknowledged.push((id, task.task_id));
        // Those that run leave their places.
        if number < 2 {
            watch.until(EventType::Started).await;
        }
    }
    acknowledged
}

/// Makes a part meet its failpoint, and looks at what whoever did it is told. Answers with what
/// a submission is told, if it is one.
async fn meet(
    trigger: Trigger,
    failpoint: &str,
    server: &Serve,
    client: &Client,
    running: &str,
) -> Option<Result<(), Status>> {
    let mut client = client.clone();
    let address = format!("http://{}", server.address);
    let admin = async || AdminServiceClient::connect(address).await.unwrap();
    let task_id = running.to_owned();
    let other = SubmitRequest { queue: "other".into(), ..task("noop") };
    match trigger {
        Trigger::Submit => Some(client.submit(named("trigger", other)).await.map(drop)),
        Trigger::Cancel => {
            let cancelled = client.cancel_task(CancelTaskRequest { task_id }).await;
            cancelled.expect("it runs");
            None
        }
        Trigger::Read => {
            let read = within(failpoint, client.get_task(GetTaskRequest { task_id })).await;
            assert!(read.is_err(), "its reader is gone");
            None
        }
        Trigger::WatchOldest => {
            let start = WatchStart::Oldest.into();
            let oldest = WatchEventsRequest { start, ..Default::default() };
            let watch = client.watch_events(oldest).await.unwrap().into_inner();
            let end = within(failpoint, tokio_stream::StreamExt::collect::<Vec<_>>(watch));
            let end = end.await.pop().expect("an end").expect_err("its reader is gone");
            is_the_failure("who reads the history", &end);
            None
        }
        Trigger::List => {
            let listed = within(failpoint, client.list_tasks(ListTasksRequest::default()));
            assert!(listed.await.is_err(), "its reader is gone");
            None
        }
        Trigger::Resize => {
            let resized = async { admin().await.resize_pool(ResizePoolRequest { size: 1 }).await };
            is_the_failure("who resizes", &within(failpoint, resized).await.unwrap_err());
            None
        }
        Trigger::Connect => {
            drop(TcpStream::connect(&server.address).await);
            None
        }
        Trigger::Drain => {
            let drained = async { admin().await.drain(DrainRequest {}).await };
            let drained = within(failpoint, drained).await;
            is_the_failure("who asked for the drain", &drained.unwrap_err());
            None
        }
        Trigger::Write => {
            // Some 16 MiB. A queue takes four.
            for task in 0..32 {
                let payload = Some(Payload::Data(vec![0; 500_000].into()));
                let queue = format!("other-{}", task / 4);
                let large = SubmitRequest { queue, payload, ..support::task("noop") };
                if client.submit(large).await.is_err() {
                    break;
                }
            }
            None
        }
        Trigger::Nothing => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_fails_ends_the_server_as_failed_and_everybody_hears() {
    for (failpoint, part, trigger) in PARTS {
        let dir = TempDir::new().unwrap();
        let (server, armed) = serve(dir.path(), failpoint);
        let mut client = client(&server).await;
        let acknowledged = busy(&mut client).await;
        let mut health = health_of(&server).await;
        let watch = Watch::live(&mut client).await;
        let spawned = |mut client: Client, request: SubmitRequest| {
            tokio::spawn(async move { client.submit(request).await })
        };
        let in_line = spawned(client.clone(), named("in-line", task("noop")));
        let in_stream = SubmitStreamRequest { sequence: 1, request: Some(task("noop")) };
        let in_stream =
            tokio_stream::StreamExt::chain(tokio_stream::once(in_stream), tokio_stream::pending());
        let mut stream = client.submit_stream(in_stream).await.unwrap().into_inner();
        let waiting = {
            let (mut client, task_id) = (client.clone(), acknowledged[0].1.clone());
            let timeout = support::span(Duration::from_hours(1));
            tokio::spawn(
                async move { client.wait_task(WaitTaskRequest { task_id, timeout }).await },
            )
        };

        fs::write(&armed, "").unwrap();
        let failed = meet(trigger, failpoint, &server, &client, &acknowledged[0].1).await;
        if let Some(failed) = failed {
            is_the_failure("the one whose task it was", &failed.unwrap_err());
        }

        let not_serving = within("the health", health.message()).await.unwrap().unwrap();
        assert_eq!(not_serving.status(), ServingStatus::NotServing, "{failpoint}");
        is_the_failure("the health", &within("the health", health.message()).await.unwrap_err());
        let (_, end, cursor) = within("the watch", watch.rest()).await;
        is_the_failure("the watcher", &end);
        assert_eq!(cursor_of(&end, "cursor"), cursor, "{failpoint}");
        let in_line = within("the line", in_line).await.unwrap();
        let waiting = within("the waiting one", waiting).await.unwrap();
        // What answers them before anything fails: the cancellation the line and who waits,
        // the drain the line and the stream.
        if !matches!(trigger, Trigger::Cancel | Trigger::Drain) {
            is_the_failure("the one in line", &in_line.unwrap_err());
        }
        if trigger != Trigger::Cancel {
            is_the_failure("the one who waits", &waiting.unwrap_err());
        }
        let end = within("the stream", async {
            loop {
                if let Err(end) = stream.message().await {
                    return end;
                }
            }
        });
        let end = end.await;
        if trigger != Trigger::Drain {
            is_the_failure("the stream", &end);
        }

        let (exit, log) = server.end();
        assert_eq!(exit, Some(FAILED), "{failpoint}: {log}");
        let told = log.lines().find(|line| line.contains("the server has failed and ends"));
        let told = told.unwrap_or_else(|| panic!("{failpoint}: {log}"));
        assert!(told.contains(part) && told.contains(failpoint), "{failpoint}: {told}");
        assert!(!log.contains("complete=true") && !log.contains(" drained "), "{log}");
        drop(client);
        nothing_is_lost(dir.path(), failpoint, &acknowledged).await;
    }
}

/// The next start has every task that was acknowledged, and takes what was repeated as
/// the same.
async fn nothing_is_lost(dir: &Path, failpoint: &str, acknowledged: &[(String, String)]) {
    let server = Serve::start(&dir.join("data"), &["--workers", "8"]);
    let mut client = client(&server).await;
    for (id, task_id) in acknowledged {
        let again = submit(&mut client, named(id, sleep("1h"))).await;
        assert!(again.existing && again.task_id == *task_id, "{failpoint}: {id} is lost");
        let found = get(&mut client, task_id).await;
        let is_cancelled = found.state() == TaskState::Cancelled;
        assert_eq!(is_cancelled, failpoint == "worker" && id == "before-0", "{found:?}");
    }
    let new = submit(
        &mut client,
        named("trigger", SubmitRequest { queue: "other".into(), ..task("noop") }),
    )
    .await;
    wait(&mut client, &new.task_id).await;
    drop(client);
    server.signal(Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_one_callers_alone_fails_for_that_caller_alone() {
    for failpoint in ["rpc", "reader.question", "watch", "stream"] {
        let dir = TempDir::new().unwrap();
        let (server, armed) = serve(dir.path(), failpoint);
        let mut client = client(&server).await;
        let mut bystander = Watch::live(&mut client).await;
        let known = submit(&mut client, task("noop")).await;
        wait(&mut client, &known.task_id).await;

        fs::write(&armed, "").unwrap();
        let failed = match failpoint {
            "rpc" => client.submit(task("noop")).await.map(drop),
            "reader.question" => {
                let task_id = known.task_id.clone();
                client.get_task(GetTaskRequest { task_id }).await.map(drop)
            }
            "watch" => match client.watch_events(WatchEventsRequest::default()).await {
                Ok(watch) => watch.into_inner().message().await.map(drop),
                Err(status) => Err(status),
            },
            _ => {
                let one = SubmitStreamRequest { sequence: 1, request: Some(task("noop")) };
                let stream = client.submit_stream(tokio_stream::once(one)).await.unwrap();
                stream.into_inner().message().await.map(drop)
            }
        };
        let failed = failed.expect_err("its own code panicked");
        assert_eq!(failed.code(), Code::Internal, "{failpoint}: {failed:?}");
        assert!(!reason(&failed).is_empty(), "{failpoint}");
        assert!(failed.message().contains("panicked"), "{failpoint}: {failed:?}");
        fs::remove_file(&armed).unwrap();

        let next = submit(&mut client, task("noop")).await;
        wait(&mut client, &next.task_id).await;
        if failpoint != "watch" {
            bystander.until(EventType::Succeeded).await;
        }
        drop((client, bystander));
        server.signal(Signal::TERM);
        let (exit, log) = server.end();
        assert_eq!(exit, Some(0), "{failpoint}: {log}");
        assert!(log.contains(&format!("failpoint {failpoint}")), "it is logged: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_fails_fails_alone() {
    let dir = TempDir::new().unwrap();
    let (server, armed) = serve(dir.path(), "connection");
    let mut before = client(&server).await;
    submit(&mut before, task("noop")).await;
    fs::write(&armed, "").unwrap();
    let address = format!("http://{}", server.address);
    let broken = match HealthClient::connect(address).await {
        Ok(mut health) => health.check(HealthCheckRequest::default()).await.map(drop),
        Err(error) => Err(Status::from_error(error.into())),
    };
    broken.expect_err("its connection is gone");
    fs::remove_file(&armed).unwrap();
    for client in [&mut before, &mut client(&server).await] {
        let next = submit(client, task("noop")).await;
        wait(client, &next.task_id).await;
    }
    drop(before);
    server.signal(Signal::TERM);
    let (exit, log) = server.end();
    assert_eq!(exit, Some(0), "{log}");
    assert!(log.contains("failpoint connection"), "it is logged: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_does_not_answer_is_told_and_all_goes_on_when_it_does() {
    let dir = TempDir::new().unwrap();
    let trap = dir.path().join("trap");
    let mut launcher = Command::new("env");
    launcher.arg(format!("FAILPOINTS=engine.commit=trap:{}", trap.display()));
    let mut server = Serve::under(launcher, &dir.path().join("data"), &[]);
    let mut client = client(&server).await;
    let first = submit(&mut client, task("noop")).await;
    wait(&mut client, &first.task_id).await;
    fs::write(&trap, "").unwrap();
    let waiting = {
        let mut client = client.clone();
        tokio::spawn(async move { submit(&mut client, task("noop")).await })
    };
    let told = tokio::task::block_in_place(|| server.line_with("does not answer"));
    assert!(told.contains("ERROR"), "{told}");
    assert!(!waiting.is_finished(), "it is not on the disk");
    fs::remove_file(&trap).unwrap();
    let taken = within("the submission", waiting).await.unwrap();
    wait(&mut client, &taken.task_id).await;
    tokio::task::block_in_place(|| server.line_with("the disk answers again"));
    drop(client);
    server.signal(Signal::TERM);
    let (exit, log) = server.end();
    assert_eq!(exit, Some(0), "{log}");
}

#[test]
fn a_server_that_fails_at_once_ends_as_failed() {
    for part in ["store-watch", "failure-watch", "main", "disk-watch"] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("armed"), "").unwrap();
        let (server, _) = serve(dir.path(), part);
        let (exit, log) = server.end();
        assert_eq!(exit, Some(FAILED), "{part}: {log}");
        let told = log.lines().any(|line| line.contains("has failed") && line.contains(part));
        assert!(told, "{part}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_own_threads_go_on_after_a_panic() {
    for failpoint in ["log", "log-throttle"] {
        let dir = TempDir::new().unwrap();
        let (server, armed) = serve(dir.path(), failpoint);
        let mut client = client(&server).await;
        fs::write(&armed, "").unwrap();
        // Long enough for either to come by.
        let slow = submit(&mut client, sleep("1500ms")).await;
        wait(&mut client, &slow.task_id).await;
        fs::remove_file(&armed).unwrap();
        drop(client);
        server.signal(Signal::TERM);
        let (exit, log) = server.end();
        assert_eq!(exit, Some(0), "{failpoint}: {log}");
        assert!(log.contains("complete=true"), "{failpoint}: {log}");
        assert!(failpoint == "log" || log.contains("failpoint log-throttle"), "{log}");
    }
}
