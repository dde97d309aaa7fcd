//! A disk that is full is an ordinary day: new tasks are kept out while there is little
//! room, what is there goes on, and all goes on by itself when there is room again.
//!
//! On a real small file system, which takes root or user namespaces.

mod small_disk;
#[path = "../support/mod.rs"]
mod support;

use std::{
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use small_disk::SmallDisk;
use support::{
    Client, PATIENCE, connect, get, process::Serve, reason, sleep, span, submit, task, wait,
};
use taskyard::proto::{
    health::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
    v1::{
        CancelTaskRequest, RedriveTaskRequest, SubmitRequest, SubmitResponse, TaskState,
        submit_request::Payload,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const MIB: u64 = 1 << 20;

fn serve(disk: &SmallDisk, reserve: &str) -> Serve {
    let data_dir = disk.inside().join("data");
    Serve::under(disk.enter(), &data_dir, &["--drain-timeout", "5s", "--disk-reserve", reserve])
}

async fn client_of(server: &Serve) -> Client {
    connect(server.address.parse().expect("an address")).await
}

fn named(request_id: &str, request: SubmitRequest) -> SubmitRequest {
    SubmitRequest { request_id: request_id.into(), ..request }
}

/// A task that waits for long and needs no worker.
fn later() -> SubmitRequest {
    SubmitRequest { delay: span(Duration::from_hours(1)), ..task("noop") }
}

/// Submits until it is refused. The disk is looked at every second.
async fn refused(client: &mut Client) -> Status {
    let began = Instant::now();
    loop {
        match client.submit(later()).await {
            Ok(_) => assert!(began.elapsed() < PATIENCE, "it is never refused"),
            Err(status) => return status,
        }
    }
}

/// Submits until it is taken again.
async fn taken(client: &mut Client, request: SubmitRequest) -> SubmitResponse {
    let began = Instant::now();
    loop {
        match client.submit(request.clone()).await {
            Ok(answer) => return answer.into_inner(),
            Err(status) => assert!(began.elapsed() < PATIENCE, "it stays refused: {status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn is_serving(server: &Serve) -> bool {
    let mut health = HealthClient::connect(format!("http://{}", server.address)).await.unwrap();
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    answer.status() == ServingStatus::Serving
}

async fn cancel(client: &mut Client, task_id: &str) {
    let request = CancelTaskRequest { task_id: task_id.into() };
    client.cancel_task(request).await.expect("cancelled");
    assert_eq!(wait(client, task_id).await.state(), TaskState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_reserve_new_tasks_are_refused_and_the_others_go_on() {
    let disk = SmallDisk::of(64 * MIB);
    let server = serve(&disk, "16MiB");
    let mut client = client_of(&server).await;
    let running = submit(&mut client, named("running", sleep("1h"))).await.task_id;
    let ending = submit(&mut client, sleep("300ms")).await.task_id;
    let waiting = submit(&mut client, named("waiting", sleep("1h"))).await.task_id;
    disk.fill(8 * MIB);

    let low = refused(&mut client).await;
    assert_eq!((low.code(), reason(&low).as_str()), (Code::ResourceExhausted, "DISK_LOW"));
    let delay = low.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(delay.is_some_and(|delay| delay > Duration::ZERO), "{low:?}");
    assert!(is_serving(&server).await, "who has tasks that run must reach it");
    // What is known is answered, and what is there ends in every way.
    let again = submit(&mut client, named("waiting", sleep("1h"))).await;
    assert!(again.existing && again.task_id == waiting);
    assert_eq!(wait(&mut client, &ending).await.state(), TaskState::Succeeded);
    cancel(&mut client, &waiting).await;
    cancel(&mut client, &running).await;
    // A dead letter loses nothing by lying a little longer.
    let redrive = RedriveTaskRequest { task_id: waiting.clone() };
    let low = client.redrive_task(redrive).await.unwrap_err();
    assert_eq!(reason(&low), "DISK_LOW");

    // A little more than the reserve is too little to begin again.
    disk.make_room();
    disk.fill(17 * MIB);
    assert_eq!(reason(&client.submit(task("noop")).await.unwrap_err()), "DISK_LOW");
    disk.make_room();
    let later = taken(&mut client, task("noop")).await.task_id;
    assert_eq!(wait(&mut client, &later).await.state(), TaskState::Succeeded);
    server.signal(Signal::TERM);
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.matches("the disk is nearly full").count(), 1, "{log}");
    assert_eq!(log.matches("the disk has room").count(), 1, "{log}");
}
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_stops_the_store_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    // No file may grow beyond 2 MiB (4,096 blocks of 512 bytes), as on a full disk.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$@\"", "sh"]);
    let server = Serve::under(limited, &data_dir, &["--workers", "1"]);
    let mut client = connect(server.address.parse().unwrap()).await;
    let data = Payload::Data(vec![7; 50_000].into());
    let delay = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let large = SubmitRequest { payload: Some(data), delay, ..task("noop") };
    let mut acknowledged = Vec::new();
    let refused = loop {
        match client.submit(large.clone()).await {
            Ok(answer) => acknowledged.push(answer.into_inner().task_id),
            Err(refused) => break refused,
        }
        assert!(acknowledged.len() < 1_000, "the limit does not limit");
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STORE_FAILED"));
    assert!(acknowledged.len() > 10);
    // It stays so for small tasks too, while reading goes on.
    let again = client.submit(task("noop")).await.unwrap_err();
    assert_eq!(reason(&again), "STORE_FAILED");
    assert_eq!(get(&mut client, &acknowledged[0]).await.state(), TaskState::Scheduled);
    let mut health = HealthClient::connect(format!("http://{}", server.address)).await.unwrap();
    let status = loop {
        // The health hears of it right after the first refusal.
        let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        if answer.status() != ServingStatus::Serving {
            break answer.status();
        }
    };
    assert_eq!(status, ServingStatus::NotServing);
    server.signal(rustix::process::Signal::TERM);
    server.end();

    let server = Serve::start(&data_dir, &[]);
    let mut client = connect(server.address.parse().unwrap()).await;
    for id in &acknowledged {
        assert_eq!(get(&mut client, id).await.state(), TaskState::Scheduled);
    }
    client.submit(task("noop")).await.expect("it takes tasks again");
}
