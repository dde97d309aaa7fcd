//! Batches: each task for itself, or all or none.

use prost::Message as _;
use taskyard::proto::v1::{
    EventType, ListTasksRequest, SubmitBatchRequest, SubmitBatchResponse, SubmitRequest,
    SubmitResponse, TaskState, submit_result::Result as Outcome,
};
use tonic::{Code, Status};
use tonic_types::{RpcStatusExt as _, StatusExt as _};

use crate::support::{
    self, Client, Gate, PATIENCE, TestServer, Watch, builtin, count, fields, full_test_server,
    is_alone, pause, reason, reject, resume, submit, task, until_in_line, wait,
    wire::{call, call_for, framed},
};

const PATH: &str = "/taskyard.v1.TaskService/SubmitBatch";

fn named(kind: &str, request_id: &str) -> SubmitRequest {
    SubmitRequest { request_id: request_id.into(), ..task(kind) }
}

fn later(request: SubmitRequest) -> SubmitRequest {
    SubmitRequest { delay: support::span(PATIENCE), ..request }
}

async fn each(client: &mut Client, requests: Vec<SubmitRequest>) -> Result<Vec<Outcome>, Status> {
    batch(client, requests, false).await
}

async fn together(
    client: &mut Client,
    requests: Vec<SubmitRequest>,
) -> Result<Vec<SubmitResponse>, Status> {
    let outcomes = batch(client, requests, true).await?;
    Ok(outcomes.into_iter().map(|outcome| ack(&outcome)).collect())
}

async fn batch(
    client: &mut Client,
    requests: Vec<SubmitRequest>,
    atomic: bool,
) -> Result<Vec<Outcome>, Status> {
    let call = client.submit_batch(SubmitBatchRequest { requests, atomic });
    let answer = tokio::time::timeout(PATIENCE, call).await.expect("the batch hangs")?;
    let results = answer.into_inner().results;
    Ok(results.into_iter().map(|result| result.result.expect("one is set")).collect())
}

#[track_caller]
fn ack(outcome: &Outcome) -> SubmitResponse {
    match outcome {
        Outcome::Ack(ack) => ack.clone(),
        Outcome::Error(error) => panic!("refused: {error:?}"),
    }
}

#[track_caller]
fn error(outcome: &Outcome) -> (Code, String) {
    match outcome {
        Outcome::Ack(ack) => panic!("taken: {ack:?}"),
        Outcome::Error(error) => {
            let info = error.get_details_error_info().expect("a reason");
            (Code::from(error.code), info.reason)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_its_result_in_order_and_what_is_taken_runs() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let requests = vec![
        task("noop"),
        task("unheard-of"),
        named("noop", "a"),
        SubmitRequest { priority: 9_999, queue: "No".into(), ..task("noop") },
        later(task("noop")),
    ];
    let outcomes = each(&mut client, requests).await.expect("the batch is taken");
    assert_eq!(outcomes.len(), 5);
    for at in [1, 3] {
        assert_eq!(error(&outcomes[at]), (Code::InvalidArgument, "INVALID_FIELDS".into()));
    }
    let Outcome::Error(wrong) = &outcomes[3] else { panic!("{outcomes:?}") };
    let wrong = wrong.get_details_bad_request().expect("the fields").field_violations;
    let wrong: Vec<_> = wrong.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(wrong, ["queue", "priority"], "as Submit names them");
    for at in [0, 2] {
        let ended = wait(&mut client, &ack(&outcomes[at]).task_id).await;
        assert_eq!(ended.state(), TaskState::Succeeded);
    }
    assert_eq!(ack(&outcomes[4]).state(), TaskState::Scheduled);
    assert_eq!(count(&mut client).await, 3);
    // Nothing of a task is missed after its cursor.
    let submitted = ack(&outcomes[2]);
    let mut watch = Watch::after(&mut client, &submitted.cursor).await;
    let first = watch.event().await;
    assert_eq!((first.r#type(), first.task_id), (EventType::Submitted, submitted.task_id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_are_taken_at_once_and_in_order() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let request = |n: i32| later(SubmitRequest { priority: n, ..task("noop") });
    let outcomes = each(&mut client, (1..=1_000).map(request).collect()).await.expect("taken");
    let listed = ListTasksRequest { page_size: 1_000, ..Default::default() };
    let listed = client.list_tasks(listed).await.unwrap().into_inner().tasks;
    assert!(listed.iter().map(|task| task.priority).eq(1..=1_000));
    let acked = outcomes.iter().map(|outcome| ack(outcome).task_id);
    assert!(acked.eq(listed.into_iter().map(|task| task.task_id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_wrong_as_a_whole_enqueues_nothing() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    for atomic in [false, true] {
        let repeated = [
            named("noop", "a"),
            task("noop"),
            named("noop", "a"),
            task("noop"),
            named("noop", "a"),
        ];
        for (requests, wrong) in [
            (vec![], vec!["requests"]),
            (vec![task("noop"); 1_001], vec!["requests"]),
            (repeated.into(), vec!["requests[2].request_id", "requests[4].request_id"]),
        ] {
            let refused = batch(&mut client, requests, atomic).await.unwrap_err();
            assert_eq!(reason(&refused), "INVALID_FIELDS");
            assert_eq!(fields(&refused), wrong);
        }
    }
    assert_eq!(count(&mut client).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn millions_of_requests_take_no_memory_and_are_counted() {
    /// More than a server and its client take; the requests took far more.
    const MOST_MIB: u64 = 200;
    if !is_alone(module_path!(), "millions_of_requests_take_no_memory_and_are_counted") {
        return;
    }
    let test_server = TestServer::start().await;
    let body = framed(&[0x0a, 0x00].repeat(2_000_000));
    let before = peak_mib();
    let refused = call(test_server.server.local_addr(), PATH, &[], body).await;
    assert_eq!(
        (refused.code(), fields(&refused)),
        (Code::InvalidArgument, vec!["requests".into()])
    );
    assert!(refused.message().contains("there are 2000000; at most 1000"), "{refused:?}");
    let grown = peak_mib() - before;
    assert!(grown < MOST_MIB, "{grown} MiB for a message of 4 MB");
}

/// The most memory that this process has had, where that can be told.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() / 1_024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_batch_finds_its_tasks() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let requests: Vec<_> = ["a", "b", "c"].map(|id| later(named("noop", id))).into();
    let first = each(&mut client, requests.clone()).await.expect("taken");
    let again = each(&mut client, requests.clone()).await.expect("found");
    let together = together(&mut client, requests).await.expect("found");
    for ((first, again), atomic) in first.iter().zip(&again).zip(together) {
        let first = SubmitResponse { existing: true, ..ack(first) };
        assert_eq!(ack(again), first);
        assert_eq!(atomic, first);
    }
    assert_eq!(count(&mut client).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_its_queue_gets_in_as_room_comes() {
    let (_test_server, gate, mut client) = full_test_server(|_| {}).await;
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { each(&mut client, vec![task("gated"); 7]).await }
    });
    // Two fit at a time: they must be committed before the others can get in.
    gate.open();
    let outcomes = waiting.await.unwrap().expect("taken");
    for outcome in &outcomes {
        assert_eq!(wait(&mut client, &ack(outcome).task_id).await.state(), TaskState::Succeeded);
    }
    assert_eq!(count(&mut client).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_wait_is_refused_and_the_others_are_not() {
    let (_test_server, gate, mut client) = full_test_server(|_| {}).await;
    let (known, used) = (named("gated", "known"), named("gated", "used"));
    gate.0.add_permits(2);
    let first = submit(&mut client, known.clone()).await;
    submit(&mut client, used.clone()).await;
    let requests = vec![
        reject(task("gated")),
        reject(SubmitRequest { queue: "other".into(), ..task("gated") }),
        reject(named("gated", "new")),
        reject(known),
        reject(SubmitRequest { priority: 1, ..used }),
    ];
    let outcomes = each(&mut client, requests).await.expect("some are taken");
    let full = || (Code::ResourceExhausted, "QUEUE_FULL".into());
    assert_eq!([0, 2].map(|at| error(&outcomes[at])), [full(), full()]);
    assert!(!ack(&outcomes[1]).existing);
    assert_eq!((ack(&outcomes[3]).task_id, ack(&outcomes[3]).existing), (first.task_id, true));
    assert_eq!(error(&outcomes[4]), (Code::AlreadyExists, "REQUEST_ID_REUSED".into()));
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_or_none_names_everything_that_is_wrong() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let requests = vec![
        task("noop"),
        SubmitRequest { priority: -1_001, ..task("unheard-of") },
        task("noop"),
        SubmitRequest { queue: "No".into(), ..task("noop") },
    ];
    let refused = together(&mut client, requests).await.unwrap_err();
    assert_eq!(fields(&refused), ["requests[1].kind", "requests[1].priority", "requests[3].queue"]);
    let many = together(&mut client, vec![task("unheard-of"); 1_000]).await.unwrap_err();
    assert_eq!(reason(&many), "INVALID_FIELDS");
    assert_eq!(count(&mut client).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_taken_or_none() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    submit(&mut client, later(named("noop", "used"))).await;
    let requests = vec![
        later(task("noop")),
        later(SubmitRequest { priority: 3, ..named("noop", "used") }),
        later(SubmitRequest { queue: "other".into(), ..task("noop") }),
    ];
    let refused = together(&mut client, requests.clone()).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::AlreadyExists, "REQUEST_ID_REUSED".into())
    );
    let metadata = refused.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["requests"], "1");
    assert_eq!(count(&mut client).await, 1, "nothing was enqueued");
    let good = vec![requests[0].clone(), requests[2].clone()];
    let acks = together(&mut client, good).await.expect("taken");
    assert_eq!(acks.len(), 2);
    assert_eq!(count(&mut client).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wait_for_room_together() {
    let (_test_server, gate, mut client) = full_test_server(|_| {}).await;
    let refused =
        together(&mut client, vec![task("gated"), reject(task("gated"))]).await.unwrap_err();
    assert_eq!(reason(&refused), "QUEUE_FULL");
    let never = together(&mut client, vec![task("gated"); 3]).await.unwrap_err();
    assert_eq!((never.code(), reason(&never)), (Code::ResourceExhausted, "TOO_LARGE".into()));
    assert_eq!(count(&mut client).await, 3, "nothing was enqueued");
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { together(&mut client, vec![task("gated"); 2]).await }
    });
    gate.open();
    assert_eq!(waiting.await.unwrap().expect("taken").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wait_in_one_line_and_hold_no_place_of_another_queue() {
    let test_server = TestServer::with(|config| config.queue_max_tasks = 2, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    let of = |queue: &str| SubmitRequest { queue: queue.into(), ..task("noop") };
    for queue in ["a", "b"] {
        pause(&mut admin, queue).await;
    }
    let mut first = Vec::new();
    for _ in 0..2 {
        first.push(submit(&mut client, of("b")).await.task_id);
    }
    let waiting = tokio::spawn({
        let (mut client, requests) = (client.clone(), vec![of("a"), of("b"), of("a"), of("c")]);
        async move { together(&mut client, requests).await }
    });
    until_in_line(&mut admin, "b").await;
    // The places of the other queues are theirs who can use them.
    for queue in ["a", "a", "c", "c"] {
        submit(&mut client, reject(of(queue))).await;
    }
    // Let in there, it finds that the next queue is full, and waits there alone.
    resume(&mut admin, "b").await;
    until_in_line(&mut admin, "a").await;
    for task_id in first {
        wait(&mut client, &task_id).await;
    }
    pause(&mut admin, "b").await;
    for _ in 0..2 {
        submit(&mut client, reject(of("b"))).await;
    }
    resume(&mut admin, "a").await;
    until_in_line(&mut admin, "b").await;
    resume(&mut admin, "b").await;
    let acks = waiting.await.unwrap().expect("taken");
    for ack in acks {
        assert_eq!(wait(&mut client, &ack.task_id).await.state(), TaskState::Succeeded);
    }
    assert_eq!(count(&mut client).await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_are_known_need_no_room() {
    let (_test_server, gate, mut client) =
        full_test_server(|config| config.queue_max_tasks = 2).await;
    let requests: Vec<_> = ["a", "b"].map(|id| named("gated", id)).into();
    gate.0.add_permits(2);
    let first = together(&mut client, requests.clone()).await.expect("there is room for two");
    let again = together(&mut client, requests.clone()).await.expect("known");
    for (first, again) in first.into_iter().zip(again) {
        assert_eq!((again.task_id, again.existing), (first.task_id, true));
    }
    let other = vec![requests[0].clone(), SubmitRequest { priority: 4, ..requests[1].clone() }];
    let reused = together(&mut client, other).await.unwrap_err();
    assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    assert_eq!(reused.get_details_error_info().unwrap().metadata["requests"], "1");
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_in_the_line_enqueues_nothing() {
    let (test_server, gate, mut client) = full_test_server(|_| {}).await;
    let request = SubmitBatchRequest { requests: vec![task("gated"); 2], atomic: true };
    let body = framed(&request.encode_to_vec());
    let late = call(test_server.server.local_addr(), PATH, &[("grpc-timeout", "50m")], body).await;
    assert_eq!((late.code(), reason(&late)), (Code::DeadlineExceeded, "DEADLINE".into()));
    assert!(late.message().contains("nothing was enqueued"), "{}", late.message());
    gate.open();
    assert_eq!(count(&mut client).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_in_the_line_ends_the_batch() {
    let (test_server, gate, mut client) = full_test_server(|_| {}).await;
    let free = || SubmitRequest { queue: "other".into(), ..task("gated") };
    let requests = vec![free(), task("unheard-of"), task("gated"), free(), task("unheard-of")];
    let body = framed(&SubmitBatchRequest { requests, atomic: false }.encode_to_vec());
    let address = test_server.server.local_addr();
    let (end, message) = call_for(address, PATH, &[("grpc-timeout", "500m")], body).await;
    assert_eq!(end.code(), Code::Ok, "{end:?}");
    let results = SubmitBatchResponse::decode(&message[5..]).expect("a message").results;
    let outcomes: Vec<_> = results.into_iter().map(|result| result.result.unwrap()).collect();
    let late = || (Code::DeadlineExceeded, "DEADLINE".to_owned());
    assert_eq!(ack(&outcomes[0]).state(), TaskState::Queued, "it was committed in time");
    assert_eq!(error(&outcomes[1]), (Code::InvalidArgument, "INVALID_FIELDS".into()));
    assert_eq!([2, 3, 4].map(|at| error(&outcomes[at])), [late(), late(), late()]);
    // Whatever was handed to the store before this would be there.
    submit(&mut client, free()).await;
    assert_eq!(count(&mut client).await, 5);
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_server_takes_no_batch() {
    let gate = Gate::default();
    let mut registry = support::builtin();
    registry.insert("gated", gate.clone());
    let test_server = TestServer::with(|config| config.drain_timeout = PATIENCE, registry).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, task("gated")).await;
    watch.until(EventType::Started).await;
    let drain = tokio::spawn(test_server.drain());
    watch.until(EventType::Draining).await;
    for atomic in [false, true] {
        let refused = batch(&mut client, vec![task("noop"); 3], atomic).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused)), (Code::Unavailable, "DRAINING".into()));
        assert!(refused.get_details_retry_info().is_some());
    }
    gate.open();
    drop((client, watch));
    assert!(drain.await.unwrap().0.complete);
}
