//! The drain: it ends within its bound, whatever clients do, and loses nothing.

use std::time::{Duration, Instant};

use taskyard::{
    handler::{Execution, Output},
    proto::v1::{
        EventType, SubmitRequest, TaskState, WaitTaskRequest, WatchEventsRequest, WhenFull,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;

use crate::support::{
    self, Gate, PATIENCE, TestServer, Watch, builtin, connect, get, reason, sleep, submit, task,
    wait,
};

#[tokio::test(flavor = "multi_thread")]
async fn running_tasks_finish_and_watchers_hear_of_it_and_of_the_drain() {
    let gate = Gate::default();
    let mut registry = builtin();
    registry.insert("gated", gate.clone());
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::oldest(&mut client).await;
    let submitted = submit(&mut client, task("gated")).await;
    watch.until(EventType::Started).await;

    let drain = tokio::spawn(test_server.drain());
    watch.until(EventType::Draining).await;
    let refused = client.submit(task("noop")).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "DRAINING"));
    gate.open();
    let (events, ended, cursor) = watch.rest().await;
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unavailable, "DRAINING"));
    let of_task = events.iter().find(|event| event.task_id == submitted.task_id).unwrap();
    assert_eq!(of_task.r#type(), EventType::Succeeded);
    assert_eq!(events.last().unwrap().r#type(), EventType::WorkerStopped);
    let (report, dir) = drain.await.unwrap();
    assert!(report.complete, "{report:?}");
    assert_eq!((report.finished, report.interrupted, report.remaining), (1, 0, Some(0)));

    // The final cursor continues at the next start, without a gap.
    let last = events.last().unwrap().seq;
    let test_server = TestServer::on(dir, |_| {}, builtin()).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::after(&mut client, &cursor).await;
    let next = watch.event().await;
    assert_eq!((next.seq, next.r#type()), (last + 1, EventType::WorkerStarted));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_finish_is_interrupted_and_runs_again_at_the_next_start() {
    let mut registry = builtin();
    registry.insert("obstinate", |_| async { std::future::pending().await });
    let short = |config: &mut taskyard::config::Config| {
        config.drain_timeout = Duration::from_secs(5);
        config.cancel_grace = Duration::from_millis(200);
    };
    let test_server = TestServer::with(short, registry).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::oldest(&mut client).await;
    let obstinate = submit(&mut client, task("obstinate")).await;
    let obedient = submit(&mut client, sleep("1h")).await;
    for _ in 0..2 {
        watch.until(EventType::Started).await;
    }
    let waiting = submit(&mut client, sleep("1h")).await;
    let (report, dir) = test_server.drain().await;
    assert!(report.complete, "{report:?}");
    assert_eq!((report.interrupted, report.remaining), (2, Some(3)));
    let (events, ..) = watch.rest().await;
    let interrupted: Vec<_> =
        events.iter().filter(|event| event.r#type() == EventType::Interrupted).collect();
    assert_eq!(interrupted.len(), 2);
    assert!(interrupted.iter().all(|event| event.error.as_ref().unwrap().reason == "DRAINED"));

    let mut registry = builtin();
    registry.insert("obstinate", |_| async { Ok(Output::empty()) });
    registry.insert("sleep", |_| async { Ok(Output::empty()) });
    let test_server = TestServer::on(dir, short, registry).await;
    let mut client = test_server.client().await;
    for (id, attempt) in [(&obstinate, 2), (&obedient, 2), (&waiting, 1)] {
        let ended = wait(&mut client, &id.task_id).await;
        assert_eq!((ended.state(), ended.attempt), (TaskState::Succeeded, attempt));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_obeys_the_signal_with_a_success_has_succeeded() {
    let mut registry = builtin();
    registry.insert("obeys", |execution: Execution| async move {
        execution.cancelled().await;
        Output::json("saved")
    });
    let test_server =
        TestServer::with(|config| config.drain_timeout = Duration::from_secs(3), registry).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, task("obeys")).await;
    watch.until(EventType::Started).await;
    let (report, _) = test_server.drain().await;
    assert_eq!((report.finished, report.interrupted, report.remaining), (1, 0, Some(0)));
    let (events, ..) = watch.rest().await;
    assert!(events.iter().any(|event| event.r#type() == EventType::Succeeded));
}

/// A client that reads nothing: its receive window stays full.
async fn watch_without_reading(address: std::net::SocketAddr) -> impl Sized {
    let mut client = connect(address).await;
    let start = taskyard::proto::v1::WatchStart::Oldest.into();
    let request = WatchEventsRequest { start, ..Default::default() };
    client.watch_events(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_can_hold_a_drain_up_beyond_its_bound() {
    let bound = Duration::from_secs(3);
    let mut registry = builtin();
    registry.insert("pending", |_| async { std::future::pending().await });
    let full = move |config: &mut taskyard::config::Config| {
        config.drain_timeout = bound;
        config.queue_max_tasks = 50;
        config.cancel_grace = Duration::from_millis(100);
    };
    let test_server = TestServer::with(full, registry).await;
    let address = test_server.server.local_addr();
    let mut client = test_server.client().await;

    // Says nothing at all; sends half a greeting; greets and then never acknowledges.
    let silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0").await.unwrap();
    let mut deaf = TcpStream::connect(address).await.unwrap();
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let unread = watch_without_reading(address).await;

    // The queue is full, and callers wait for room.
    let mut acknowledged = Vec::new();
    for _ in 0..52 {
        acknowledged.push(submit(&mut client, task("pending")).await.task_id);
    }
    let reject = SubmitRequest { when_full: WhenFull::Reject.into(), ..task("pending") };
    let full = client.submit(reject).await.unwrap_err();
    assert_eq!(reason(&full), "QUEUE_FULL");
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut client = client.clone();
        callers.spawn(async move { client.submit(task("pending")).await });
    }
    let mut watch = Watch::oldest(&mut client).await;
    watch.until(EventType::Started).await;

    let began = Instant::now();
    let (report, dir) = test_server.drain().await;
    let took = began.elapsed();
    assert!(took < bound + Duration::from_secs(2), "a bound of {bound:?} took {took:?}");
    assert_eq!(report.remaining, Some(52));
    while let Some(caller) = callers.join_next().await {
        let refused = caller.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    }
    let (.., ended, _) = watch.rest().await;
    assert_eq!(reason(&ended), "DRAINING");
    drop((silent, half, deaf, unread));

    // What was acknowledged is there, and nothing else.
    let mut registry = builtin();
    registry.insert("pending", |_| async { Ok(Output::empty()) });
    let test_server = TestServer::on(dir, full_again, registry).await;
    let mut client = test_server.client().await;
    for id in &acknowledged {
        assert_eq!(wait(&mut client, id).await.state(), TaskState::Succeeded);
    }
    let last = acknowledged.last().unwrap();
    assert_eq!(get(&mut client, last).await.attempt, 1);
}

fn full_again(config: &mut taskyard::config::Config) {
    config.queue_max_tasks = 50;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_task_is_told_that_the_server_goes() {
    let test_server = TestServer::with(|config| config.drain_timeout = PATIENCE, builtin()).await;
    let mut client = test_server.client().await;
    let delay = support::span(Duration::from_hours(1));
    let later = submit(&mut client, SubmitRequest { delay, ..task("noop") }).await;
    let mut watch = Watch::live(&mut client).await;
    let mut waiting = client.clone();
    let request = WaitTaskRequest { task_id: later.task_id, timeout: None };
    let waiting = tokio::spawn(async move { waiting.wait_task(request).await });
    // The call before this one on the same connection has arrived.
    submit(&mut client, task("noop")).await;
    watch.until(EventType::Succeeded).await;
    let drained = tokio::time::timeout(PATIENCE / 2, test_server.drain()).await;
    assert!(drained.expect("it ends long before the bound").0.complete);
    let told = waiting.await.unwrap().unwrap_err();
    assert_eq!((told.code(), reason(&told).as_str()), (Code::Unavailable, "DRAINING"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_calls_that_acknowledges_nothing_is_not_waited_for() {
    let test_server = TestServer::with(|config| config.drain_timeout = PATIENCE, builtin()).await;
    let mut deaf = TcpStream::connect(test_server.server.local_addr()).await.unwrap();
    deaf.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // Its greeting has arrived when the server's settings come back.
    deaf.read_exact(&mut [0; 9]).await.unwrap();
    let drained = tokio::time::timeout(PATIENCE / 2, test_server.drain()).await;
    let (report, _) = drained.expect("it ends long before the bound");
    assert!(report.complete && !report.clients_cut, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_closed_as_soon_as_the_server_drains() {
    let test_server = TestServer::with(|config| config.drain_timeout = PATIENCE, builtin()).await;
    let mut silent = TcpStream::connect(test_server.server.local_addr()).await.unwrap();
    // The connection is served once another, later one is.
    let mut client = test_server.client().await;
    submit(&mut client, task("noop")).await;
    let drain = tokio::spawn(test_server.drain());
    let mut nothing = [0; 1];
    let read = tokio::time::timeout(PATIENCE / 2, silent.read(&mut nothing)).await;
    // A server may have sent its settings; what counts is that it ends.
    drop(read.expect("closed long before the bound"));
    drop(client);
    assert!(drain.await.unwrap().0.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_dropped_serves_nobody() {
    let TestServer { server, dir } = TestServer::start().await;
    let address = server.local_addr();
    let mut client = connect(address).await;
    submit(&mut client, task("noop")).await;
    drop(server);
    let gone = tokio::time::timeout(PATIENCE, async {
        while client.submit(task("noop")).await.is_ok() || TcpStream::connect(address).await.is_ok()
        {
            tokio::task::yield_now().await;
        }
    });
    gone.await.expect("it takes tasks that nobody runs");
    drop(dir);
}
