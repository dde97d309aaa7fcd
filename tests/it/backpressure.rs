//! A full queue: callers wait, in order, or are told when to come back.

use std::time::Duration;

use prost::Message as _;
use taskyard::{
    config::Config,
    proto::v1::{
        ListTasksRequest, SubmitRequest, SubmitResponse, WhenFull, submit_request::Payload,
    },
};
use tokio::task::{JoinHandle, JoinSet};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    Client, PATIENCE, count, full_test_server, queue, reason, reject, submit, task, until_in_line,
    wire::{SUBMIT, call, framed},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_caller_is_told_when_to_come_back() {
    let (_test_server, gate, mut client) = full_test_server(|_| {}).await;
    let refused = client.submit(reject(task("gated"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(reason(&refused), "QUEUE_FULL");
    let after = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    let pushback = refused.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap();
    assert_eq!(pushback.parse::<u128>().unwrap(), after.as_millis());
    assert!(refused.get_details_quota_failure().is_some());
    assert_eq!(count(&mut client).await, 3, "nothing was enqueued");
    // Another queue is not concerned.
    submit(&mut client, reject(SubmitRequest { queue: "other".into(), ..task("gated") })).await;
    gate.0.add_permits(10);
}

/// Submits and waits for room; returns once the server knows of the call.
fn wait_for_room(
    client: &Client,
    request: SubmitRequest,
) -> JoinHandle<Result<SubmitResponse, Status>> {
    let mut client = client.clone();
    tokio::spawn(async move { client.submit(request).await.map(tonic::Response::into_inner) })
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_callers_get_in_one_by_one_as_room_comes() {
    let (_test_server, gate, mut client) = full_test_server(|_| {}).await;
    let mut callers = JoinSet::new();
    for _ in 0..10 {
        let waiting = wait_for_room(&client, task("gated"));
        callers.spawn(async move { waiting.await.unwrap() });
    }
    for started in 1..=10 {
        gate.0.add_permits(1);
        // One place is free, so one caller gets in; the others still wait.
        let got_in = tokio::time::timeout(PATIENCE, callers.join_next()).await.expect("room");
        got_in.unwrap().unwrap().expect("acknowledged");
        assert_eq!(callers.len(), 10 - started);
        assert_eq!(count(&mut client).await, 3 + started);
    }
    gate.0.add_permits(10);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_overtakes_nobody_in_line_though_it_would_fit() {
    let room = |config: &mut Config| {
        (config.queue_max_tasks, config.queue_max_bytes) = (10, 3_000);
    };
    let (test_server, gate, client) = full_test_server(room).await;
    let mut admin = test_server.admin().await;
    let payload = Some(Payload::Data(vec![0; 2_700].into()));
    let large = wait_for_room(&client, SubmitRequest { payload, ..task("gated") });
    until_in_line(&mut admin, "default").await;
    let small = wait_for_room(&client, task("gated"));
    let both = async {
        while queue(&mut admin, "default").await.waiting_callers < 2 {
            assert!(!small.is_finished(), "it has overtaken the large one");
        }
    };
    tokio::time::timeout(PATIENCE, both).await.expect("it stands in line");
    gate.open();
    for taken in [large, small] {
        taken.await.unwrap().expect("it is taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_in_the_line_enqueues_nothing() {
    let (test_server, gate, mut client) = full_test_server(|_| {}).await;
    // A client library would answer by itself first.
    let body = framed(&task("gated").encode_to_vec());
    let late =
        call(test_server.server.local_addr(), SUBMIT, &[("grpc-timeout", "50m")], body).await;
    assert_eq!(late.code(), Code::DeadlineExceeded);
    assert_eq!(reason(&late), "DEADLINE");
    assert!(late.message().contains("nothing was enqueued"), "{}", late.message());
    gate.0.add_permits(10);
    assert_eq!(count(&mut client).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_deadline_is_not_kept_for_ever() {
    let patience = |config: &mut Config| config.room_timeout = Duration::from_millis(50);
    let (_test_server, gate, mut client) = full_test_server(patience).await;
    let refused = client.submit(task("gated")).await.unwrap_err();
    assert_eq!(reason(&refused), "QUEUE_FULL");
    gate.0.add_permits(10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_frees_its_place_and_enqueues_nothing() {
    let (_test_server, gate, mut client) = full_test_server(|_| {}).await;
    for _ in 0..20 {
        wait_for_room(&client, SubmitRequest { priority: 5, ..task("gated") }).abort();
    }
    // A later caller is served though all of them stood before it.
    let last = wait_for_room(&client, task("gated"));
    gate.0.add_permits(1);
    tokio::time::timeout(PATIENCE, last).await.expect("room").unwrap().expect("acknowledged");
    gate.0.add_permits(10);
    let tasks = client.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    // A call may have been made before it was given up; none that waited was.
    assert!(tasks.iter().filter(|task| task.priority == 5).count() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_limited_as_tasks_are() {
    let small = |config: &mut Config| {
        config.queue_max_tasks = 1_000;
        config.queue_max_bytes = 64 << 10;
    };
    let (_test_server, gate, mut client) = full_test_server(small).await;
    let data = |bytes: usize| {
        let data = taskyard::proto::v1::submit_request::Payload::Data(vec![0; bytes].into());
        reject(SubmitRequest { payload: Some(data), ..task("gated") })
    };
    for _ in 0..3 {
        submit(&mut client, data(20 << 10)).await;
    }
    let refused = client.submit(data(20 << 10)).await.unwrap_err();
    assert_eq!(reason(&refused), "QUEUE_FULL");
    let never = client.submit(data(70 << 10)).await.unwrap_err();
    assert_eq!(reason(&never), "TOO_LARGE");
    assert_eq!(never.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
    gate.0.add_permits(10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_needs_no_room() {
    let (test_server, gate, mut client) = full_test_server(|_| {}).await;
    let request = SubmitRequest { request_id: "again".into(), ..task("gated") };
    gate.0.add_permits(1);
    let first = submit(&mut client, request.clone()).await;
    for when_full in [WhenFull::Reject, WhenFull::Wait] {
        let again = SubmitRequest { when_full: when_full.into(), ..request.clone() };
        let again = submit(&mut client, again).await;
        assert_eq!((&again.task_id, again.existing), (&first.task_id, true));
        assert_eq!(again.cursor, first.cursor);
    }
    let other = SubmitRequest { priority: 1, ..reject(request) };
    assert_eq!(reason(&client.submit(other).await.unwrap_err()), "REQUEST_ID_REUSED");
    let new = reject(SubmitRequest { request_id: "new".into(), ..task("gated") });
    assert_eq!(reason(&client.submit(new).await.unwrap_err()), "QUEUE_FULL");
    gate.0.add_permits(10);
    drop(test_server);
}
