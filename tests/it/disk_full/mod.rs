//! A disk that is full is an ordinary day: new tasks are kept out while there is little
//! room, what is there goes on, and all goes on by itself when there is room again.
//!
//! On a real small file system, which takes root or user namespaces.

mod small_disk;
use std::{
    io::BufRead as _,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use small_disk::SmallDisk;
use taskyard::proto::{
    health::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
    v1::{
        CancelTaskRequest, Event, EventType, RedriveTaskRequest, SubmitRequest, SubmitResponse,
        TaskState, WatchEventsRequest, WatchStart, submit_request::Payload,
    },
};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    Client, PATIENCE, connect, get,
    process::{Said, Serve},
    reason, sleep, span, submit, task, wait,
};

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

/// Does what blocks, with the server; which is killed if that takes too long.
async fn with_server<T: Send + 'static>(
    server: Serve,
    what: impl FnOnce(Serve) -> T + Send + 'static,
) -> T {
    let id = i32::try_from(server.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let mut doing = tokio::task::spawn_blocking(|| what(server));
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut doing).await {
        return done.expect("no panic");
    }
    kill_process(id, Signal::KILL).expect("it is there");
    panic!("it takes too long: {:?}", doing.await.map(drop));
}

/// Reads the log until it says so.
fn until_logged(mut server: Serve, what: &str) -> Serve {
    let mut line = String::new();
    while !line.contains(what) {
        line.clear();
        let read = server.log.read_line(&mut line).expect("the log is text");
        assert!(read > 0, "the server ended without saying {what:?}");
    }
    server
}

/// A task that needs room on the disk.
fn large(number: usize) -> SubmitRequest {
    let payload = Some(Payload::Data(vec![7; 100_000].into()));
    SubmitRequest { payload, ..named(&format!("large-{number}"), task("noop")) }
}

/// Callers who wait for the disk, and the server that has told so.
async fn stuck(disk: &SmallDisk, server: Serve) -> (Serve, JoinSet<Result<String, Status>>) {
    disk.fill(0);
    let mut callers = JoinSet::new();
    for number in 0..8 {
        let mut client = client_of(&server).await;
        callers.spawn(async move {
            let answer = client.submit(large(number)).await;
            answer.map(|answer| answer.into_inner().task_id)
        });
    }
    let told = |server| until_logged(server, "the disk refuses what is written");
    (with_server(server, told).await, callers)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_everything_waits_and_then_goes_on_by_itself() {
    let disk = SmallDisk::of(24 * MIB);
    let server = serve(&disk, "0");
    let mut client = client_of(&server).await;
    // These end while the disk is full.
    let mut before = Vec::new();
    for _ in 0..2 {
        before.push(submit(&mut client, sleep("500ms")).await.task_id);
    }
    let (server, mut callers) = stuck(&disk, server).await;
    let refused = client.submit(task("noop")).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "WRITE_REFUSED")
    );
    assert!(is_serving(&server).await, "it comes back by itself");
    get(&mut client, &before[0]).await;

    disk.make_room();
    while let Some(answer) = callers.join_next().await {
        match answer.expect("no caller panics") {
            Ok(task_id) => before.push(task_id),
            // It came when the others were stuck already.
            Err(status) => assert_eq!(reason(&status), "WRITE_REFUSED"),
        }
    }
    assert!(before.len() > 2, "nobody was stuck");
    before.push(taken(&mut client, task("noop")).await.task_id);
    for task_id in &before {
        assert_eq!(wait(&mut client, task_id).await.state(), TaskState::Succeeded);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));

    let server = serve(&disk, "0");
    let mut client = client_of(&server).await;
    for task_id in &before {
        assert_eq!(get(&mut client, task_id).await.state(), TaskState::Succeeded);
    }
    let events = history(&mut client).await;
    let numbered = (1..).zip(&events).all(|(number, event)| event.seq == number);
    assert!(numbered, "the events have a gap");
    let ends = events.iter().filter(|event| event.r#type() == EventType::Succeeded);
    assert_eq!(ends.count(), before.len(), "each has ended once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_on_a_full_disk_ends_by_its_bound_and_loses_nothing() {
    let disk = SmallDisk::of(24 * MIB);
    let server = serve(&disk, "0");
    let mut client = client_of(&server).await;
    let acknowledged = submit(&mut client, later()).await.task_id;
    let (server, callers) = stuck(&disk, server).await;
    server.signal(Signal::TERM);
    let (code, log) = with_server(server, Serve::end).await;
    assert_eq!(code, Some(8), "{log}");
    for answer in callers.join_all().await {
        // None of it was acknowledged.
        answer.unwrap_err();
    }

    disk.make_room();
    let server = serve(&disk, "0");
    let mut client = client_of(&server).await;
    assert_eq!(get(&mut client, &acknowledged).await.state(), TaskState::Scheduled);
    // Whoever does not know asks again, and gets one task.
    let task_id = submit(&mut client, large(0)).await.task_id;
    assert_eq!(submit(&mut client, large(0)).await.task_id, task_id);
    assert_eq!(wait(&mut client, &task_id).await.state(), TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_says_so_and_succeeds_when_there_is_room() {
    let disk = SmallDisk::of(24 * MIB);
    let server = serve(&disk, "0");
    let task_id = submit(&mut client_of(&server).await, later()).await.task_id;
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    disk.fill(0);
    let mut command = disk.enter();
    command.arg(env!("CARGO_BIN_EXE_taskyard")).args(["serve", "--listen", "127.0.0.1:0"]);
    command.arg("--data-dir").arg(disk.inside().join("data"));
    let said = Said::of(command.output().expect("it runs")).ends(7);
    assert!(said.err.contains("full"), "{}", said.err);
    disk.make_room();
    let server = serve(&disk, "0");
    let mut client = client_of(&server).await;
    assert_eq!(get(&mut client, &task_id).await.state(), TaskState::Scheduled);
}

/// All events.
async fn history(client: &mut Client) -> Vec<Event> {
    let (start, stop_when_caught_up) = (WatchStart::Oldest.into(), true);
    let request = WatchEventsRequest { start, stop_when_caught_up, ..Default::default() };
    let mut stream = client.watch_events(request).await.expect("a watch").into_inner();
    let mut events = Vec::new();
    while let Some(message) = stream.message().await.expect("the events can be read") {
        events.extend(message.events);
    }
    events
}
