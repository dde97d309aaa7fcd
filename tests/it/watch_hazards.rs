//! Watchers in great numbers, of great slowness, and of events in great numbers, against
//! the real server in a process of its own, whose memory is looked at.
//!
//! What is a million or ten million here takes minutes without optimisation, so a test
//! runs a bounded part of it. All of it:
//!
//! `WATCH_HAZARD_EVENTS=10000000 cargo test --release --test it watch_hazards -- --nocapture --test-threads 1`

use std::{fs, net::SocketAddr, time::Duration};

use rustix::process::Signal;
use taskyard::{
    events::Cursor,
    proto::v1::{
        Event, EventFilter, EventType, SubmitRequest, SubmitStreamRequest, WatchEventsRequest,
        WatchEventsResponse, submit_ack, watch_events_response::Control,
    },
};
use tokio::task::JoinSet;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming, transport::Endpoint};

use crate::support::{self, Client, PATIENCE, connect, process::Serve, reason, span, submit, task};

/// Events in all of a test that has very many.
fn events() -> u64 {
    let all = std::env::var("WATCH_HAZARD_EVENTS").ok().and_then(|text| text.parse().ok());
    all.unwrap_or(60_000)
}

/// Events of a task that does nothing, and succeeds.
const EVENTS_OF_A_TASK: u64 = 3;

/// A server that lets anybody watch, however slowly, and keeps all events.
fn serve(dir: &tempfile::TempDir) -> Serve {
    let more = [
        // A worker does one task for each commit, so that few are slow.
        ("--workers", "64"),
        ("--max-watchers", "20000"),
        ("--max-watchers-per-peer", "20000"),
        ("--watch-stall-timeout", "0s"),
        ("--max-events", "100000000"),
    ];
    let more: Vec<_> = more.into_iter().flat_map(|(name, value)| [name, value]).collect();
    Serve::start(&dir.path().join("data"), &more)
}

fn address(server: &Serve) -> SocketAddr {
    server.address.parse().expect("an address")
}

/// Bytes of memory that the process holds.
fn memory(server: &Serve) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id()));
    let status = status.expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("KiB");
    kib << 10
}

/// Submits so many tasks by a stream, and waits until the last one has ended.
async fn run_tasks(client: &mut Client, tasks: u64) {
    let (sender, requests) = tokio::sync::mpsc::channel(1024);
    tokio::spawn(async move {
        for sequence in 1..=tasks {
            let request = SubmitStreamRequest { sequence, request: Some(task("noop")) };
            if sender.send(request).await.is_err() {
                return;
            }
        }
    });
    let mut acks = client
        .submit_stream(ReceiverStream::new(requests))
        .await
        .expect("the stream begins")
        .into_inner();
    let mut last = None;
    while let Some(message) = acks.next().await {
        for ack in message.expect("acknowledgements").acks {
            match ack.result {
                Some(submit_ack::Result::Ack(ack)) => last = Some(ack.task_id),
                other => panic!("{other:?}"),
            }
        }
    }
    support::wait(client, &last.expect("tasks")).await;
}

/// A client that takes no more than 64 KiB that it has not read.
async fn narrow(address: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let narrow = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    Client::new(narrow.connect().await.expect("the server answers"))
}

async fn watch(client: &mut Client, request: WatchEventsRequest) -> Streaming<WatchEventsResponse> {
    client.watch_events(request).await.expect("the watch begins").into_inner()
}

async fn message(
    stream: &mut Streaming<WatchEventsResponse>,
) -> Result<WatchEventsResponse, Status> {
    let next = tokio::time::timeout(PATIENCE, stream.message()).await;
    Ok(next.expect("the watch hangs")?.expect("a watch never ends with OK"))
}

fn number(cursor: &str) -> u64 {
    cursor.parse::<Cursor>().expect("a cursor").seq().0
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_never_read_cost_their_window_and_lose_nothing() {
    const WATCHERS: u64 = 20;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = serve(&dir);
    let mut client = connect(address(&server)).await;
    // What the server keeps for itself is in use before it is looked at.
    let tasks = events() / EVENTS_OF_A_TASK / 2;
    run_tasks(&mut client, tasks).await;
    let before = memory(&server);

    let mut streams = Vec::new();
    for _ in 0..WATCHERS {
        // A connection of their own, as what one does not read is in the way of others;
        // with a small window, so that it is full of the first events.
        let mut client = narrow(address(&server)).await;
        let mut stream = watch(&mut client, WatchEventsRequest::default()).await;
        let from = number(&message(&mut stream).await.expect("it begins").cursor);
        streams.push((stream, from));
    }
    run_tasks(&mut client, tasks).await;
    let each = memory(&server).saturating_sub(before) / WATCHERS;
    println!("{} events passed; {} KiB for each who did not read", events(), each >> 10);
    // What passed is more than twice as much for each: 75 bytes for each event.
    assert!(each < 1 << 20, "{each} bytes for each who did not read");

    // Read at last, all of it is there: by one to the end, by the others at the beginning.
    let last = number(&submit(&mut client, task("noop")).await.cursor);
    for (place, (mut stream, from)) in streams.into_iter().enumerate() {
        let upto = if place == 0 { last } else { from + 5_000.min(tasks) };
        let mut next = from + 1;
        while next <= upto {
            for event in message(&mut stream).await.expect("events").events {
                assert_eq!(event.seq, next, "watcher {place}");
                next += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_matches_nothing_is_never_stuck() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = serve(&dir);
    let mut client = connect(address(&server)).await;
    let filter = EventFilter { queues: vec!["rare".into()], ..EventFilter::default() };
    let request = WatchEventsRequest {
        filter: Some(filter),
        heartbeat_interval: span(Duration::from_millis(100)),
        ..WatchEventsRequest::default()
    };
    let mut stream = watch(&mut client, request).await;
    let mut other = client.clone();
    let tasks = events() / EVENTS_OF_A_TASK / 10;
    let load = tokio::spawn(async move { run_tasks(&mut other, tasks).await });
    // While the others' events pass, its cursor goes on, and gets to the end of them.
    let (mut advances, mut cursor) = (0_u64, 0);
    let mut last = None;
    while last.is_none_or(|last| cursor < last) {
        if load.is_finished() && last.is_none() {
            last = Some(number(&submit(&mut client, task("noop")).await.cursor));
        }
        let heartbeat = message(&mut stream).await.expect("a heartbeat");
        assert!(heartbeat.events.is_empty(), "{heartbeat:?}");
        let now = number(&heartbeat.cursor);
        assert!(now >= cursor, "the cursor went back from {cursor} to {now}");
        advances += u64::from(now > cursor);
        cursor = now;
    }
    load.await.expect("the others are served");
    println!("{} events passed; the cursor advanced {advances} times", tasks * EVENTS_OF_A_TASK);

    let rare = SubmitRequest { queue: "rare".into(), ..task("noop") };
    let rare = submit(&mut client, rare).await;
    let found = async {
        loop {
            if let Some(event) = message(&mut stream).await.expect("more").events.pop() {
                return event;
            }
        }
    };
    let event = tokio::time::timeout(PATIENCE, found).await.expect("it is stuck");
    assert_eq!(event.task_id, rare.task_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_watchers_on_a_hundred_connections_see_the_same() {
    const CONNECTIONS: u64 = 100;
    const EACH: u64 = 100;
    const TASKS: u64 = 3;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = serve(&dir);
    let mut client = connect(address(&server)).await;
    let before = memory(&server);
    let mut watching = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = connect(address(&server)).await;
        for _ in 0..EACH {
            let mut stream = watch(&mut client, WatchEventsRequest::default()).await;
            message(&mut stream).await.expect("it begins");
            watching.spawn(async move {
                let mut seen: Vec<Event> = Vec::new();
                while seen.iter().filter(|event| event.r#type() == EventType::Succeeded).count()
                    < usize::try_from(TASKS).expect("it fits")
                {
                    seen.extend(message(&mut stream).await.expect("events").events);
                }
                // On a busy machine the last worker may join after the first watcher.
                let of_tasks = seen.into_iter().filter(|event| !event.task_id.is_empty());
                of_tasks.map(|event| (event.seq, event.task_id)).collect::<Vec<_>>()
            });
        }
    }
    let each = memory(&server).saturating_sub(before) / (CONNECTIONS * EACH);
    println!("{each} bytes for each of {} idle watchers", CONNECTIONS * EACH);
    assert!(each < 20_000, "{each} bytes for each idle watcher");
    for _ in 0..TASKS {
        submit(&mut client, task("noop")).await;
    }
    let all = tokio::time::timeout(PATIENCE, watching.join_all()).await.expect("somebody is stuck");
    assert_eq!(all.len() as u64, CONNECTIONS * EACH);
    assert_eq!(all[0].len() as u64, TASKS * EVENTS_OF_A_TASK);
    assert!(all.iter().all(|seen| *seen == all[0]), "somebody saw something else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_tells_a_thousand_watchers_everything() {
    const CONNECTIONS: u64 = 10;
    const EACH: u64 = 100;
    const TASKS: usize = 20;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = serve(&dir);
    let mut client = connect(address(&server)).await;
    let mut watching = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = connect(address(&server)).await;
        for number in 0..EACH {
            // Every fifth sees nothing but the end.
            let types = vec![EventType::Draining.into()];
            let filter = (number % 5 == 0).then(|| EventFilter { types, ..EventFilter::default() });
            let is_filtered = filter.is_some();
            let request = WatchEventsRequest { filter, ..WatchEventsRequest::default() };
            let mut stream = watch(&mut client, request).await;
            message(&mut stream).await.expect("it begins");
            watching.spawn(async move { (is_filtered, to_the_end(stream).await) });
        }
    }
    for _ in 0..TASKS {
        let submitted = submit(&mut client, task("noop")).await;
        support::wait(&mut client, &submitted.task_id).await;
    }
    server.signal(Signal::TERM);
    let all = tokio::time::timeout(PATIENCE, watching.join_all()).await.expect("somebody is stuck");
    assert_eq!(server.end().0, Some(0), "the drain was complete");
    assert_eq!(all.len() as u64, CONNECTIONS * EACH);
    let cursor = &all[0].1.last.cursor;
    for (is_filtered, Ended { events, last, status }) in &all {
        assert_eq!((status.code(), &*reason(status)), (Code::Unavailable, "DRAINING"));
        assert!(matches!(last.control, Some(Control::Draining(_))), "{last:?}");
        assert_eq!(&last.cursor, cursor, "one final cursor for all");
        let count = |kind| events.iter().filter(|event| event.r#type() == kind).count();
        let ends = if *is_filtered { 0 } else { TASKS };
        assert_eq!((count(EventType::Succeeded), count(EventType::Draining)), (ends, 1));
    }
}

/// All that a watcher saw.
struct Ended {
    events: Vec<Event>,
    last: WatchEventsResponse,
    status: Status,
}

async fn to_the_end(mut stream: Streaming<WatchEventsResponse>) -> Ended {
    let (mut events, mut last) = (Vec::new(), WatchEventsResponse::default());
    loop {
        match message(&mut stream).await {
            Ok(message) => {
                events.extend(message.events.iter().cloned());
                last = message;
            }
            Err(status) => return Ended { events, last, status },
        }
    }
}
