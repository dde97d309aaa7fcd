//! Watchers whose clients do not read: they are ended, cost little, and slow nobody.

use std::time::Duration;

use prost::Message as _;
use taskyard::{
    config::Config,
    proto::v1::{
        EventType, TaskState, WatchEventsRequest, WatchEventsResponse, WatchStart,
        task_service_client::TaskServiceClient, watch_events_response::Control,
    },
};
use tonic::{Code, Streaming, transport::Endpoint};

use crate::support::{
    self, Gate, TestServer, Watch, builtin, get, is_alone, reason, span, submit, task,
    watching::{
        begin, cursor_of, heavy, narrow, narrower, next, rest, submit_all, until, watchers,
    },
    wire,
};

fn oldest() -> WatchEventsRequest {
    WatchEventsRequest { start: WatchStart::Oldest.into(), ..Default::default() }
}

/// Reads what was on its way, and then why it was ended and where to go on.
async fn is_told(stream: &mut Streaming<WatchEventsResponse>, code: Code, why: &str) {
    let (messages, status) = rest(stream).await;
    assert_eq!((status.code(), reason(&status).as_str()), (code, why));
    let last = messages.last().expect("a message").cursor.clone();
    assert_eq!(cursor_of(&status, "cursor"), last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_ended_and_makes_room_and_slows_nobody() {
    let tight = |config: &mut Config| {
        config.max_watchers = 2;
        config.watch_stall_timeout = Duration::from_secs(1);
    };
    let test_server = TestServer::with(tight, builtin()).await;
    let (mut client, mut lazy_client) = (test_server.client().await, narrow(&test_server).await);
    let mut reader = Watch::live(&mut client).await;
    let mut lazy = begin(&mut lazy_client, WatchEventsRequest::default()).await;
    let mut ended = 0;
    for _ in 0..60 {
        submit(&mut client, heavy()).await;
    }
    while ended < 60 {
        ended += usize::from(reader.event().await.r#type() == EventType::Succeeded);
    }
    // It stands where its window ended, and is seen to.
    let mut stalled = None;
    until("nobody is stalled", async || {
        stalled =
            watchers(&test_server).await.into_iter().find(|watcher| watcher.stalled_for.is_some());
        stalled.is_some()
    })
    .await;
    let stalled = stalled.unwrap();
    assert!(stalled.lag_events > 0 && stalled.sent_events > 0, "{stalled:?}");
    until("it keeps its place", async || watchers(&test_server).await.len() == 1).await;
    let _third = Watch::live(&mut client).await;
    // It reads at last: what was on its way, then why it was ended.
    is_told(&mut lazy, Code::ResourceExhausted, "WATCH_STALLED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_even_read_then_is_reset() {
    let tight = |config: &mut Config| config.watch_stall_timeout = Duration::from_secs(1);
    let test_server = TestServer::with(tight, builtin()).await;
    submit_all(&test_server.client().await, vec![heavy(); 60]).await;
    let (address, body) =
        (test_server.server.local_addr(), wire::framed(&oldest().encode_to_vec()));
    let path = "/taskyard.v1.TaskService/WatchEvents";
    let (why, goes_on) = wire::until_reset(address, path, body).await;
    assert_eq!(why, h2::Reason::CANCEL);
    assert!(goes_on, "its connection does not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_ends_for_whoever_does_not_read_too() {
    let short = |config: &mut Config| {
        config.watch_lifetime = Duration::from_secs(1);
        config.watch_stall_timeout = Duration::ZERO;
    };
    let test_server = TestServer::with(short, builtin()).await;
    submit_all(&test_server.client().await, vec![heavy(); 60]).await;
    let mut lazy = begin(&mut narrow(&test_server).await, oldest()).await;
    until("it keeps its place", async || watchers(&test_server).await.is_empty()).await;
    is_told(&mut lazy, Code::Unavailable, "WATCH_LIFETIME").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_does_not_read_is_ended_and_its_task_goes_on() {
    let tight = |config: &mut Config| {
        config.watch_stall_timeout = Duration::from_secs(1);
        config.heartbeat = Duration::from_millis(100);
    };
    let (gate, mut registry) = (Gate::default(), builtin());
    registry.insert("gated", gate.clone());
    let test_server = TestServer::with(tight, registry).await;
    // Room for a few heartbeats.
    let mut client = narrower(&test_server, 1_024).await;
    let mut followed = client.submit_and_watch(task("gated")).await.unwrap().into_inner();
    let Some(Control::Submitted(ack)) = next(&mut followed).await.unwrap().unwrap().control else {
        panic!("no acknowledgement")
    };
    until("it keeps its place", async || watchers(&test_server).await.is_empty()).await;
    is_told(&mut followed, Code::ResourceExhausted, "WATCH_STALLED").await;
    assert_eq!(get(&mut client, &ack.task_id).await.state(), TaskState::Running);
    gate.open();
    assert_eq!(support::wait(&mut client, &ack.task_id).await.state(), TaskState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_is_noticed_wherever_a_watcher_is_stuck() {
    let patient = |config: &mut Config| config.watch_stall_timeout = Duration::ZERO;
    let test_server = TestServer::with(patient, builtin()).await;
    let (client, mut lazy) = (test_server.client().await, narrow(&test_server).await);
    let delay = span(Duration::from_hours(1));
    let waiting = taskyard::proto::v1::SubmitRequest { delay, ..heavy() };
    submit_all(&client, vec![waiting; 60]).await;
    let in_history = begin(&mut lazy, oldest()).await;
    let include_snapshot = WatchEventsRequest { include_snapshot: true, ..Default::default() };
    let in_snapshot = begin(&mut lazy, include_snapshot).await;
    let live = begin(&mut lazy, WatchEventsRequest::default()).await;
    submit_all(&client, vec![heavy(); 60]).await;
    let mut stuck = Vec::new();
    until("they go on", async || {
        stuck = watchers(&test_server).await;
        stuck.iter().filter(|watcher| watcher.stalled_for.is_some()).count() == 3
    })
    .await;
    let told: Vec<_> = stuck.iter().map(|watcher| watcher.cursor.is_empty()).collect();
    assert_eq!(told, [false, true, false], "one of them tells a snapshot");
    drop((in_history, in_snapshot, live));
    until("they keep their places", async || watchers(&test_server).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_that_nobody_reads_do_not_end_the_connection() {
    const UNREAD: usize = 64;
    let test_server = TestServer::start().await;
    let endpoint =
        Endpoint::try_from(format!("http://{}", test_server.server.local_addr())).unwrap();
    // Each takes twelve messages, whatever the time: so that they leave room on the
    // connection for the one that reads.
    let endpoint = endpoint.initial_stream_window_size(12 * 256);
    let endpoint = endpoint.initial_connection_window_size(256 << 10);
    let mut client = TaskServiceClient::new(endpoint.connect().await.unwrap());
    let heartbeat_interval = span(Duration::from_millis(100));
    let request = WatchEventsRequest { heartbeat_interval, ..Default::default() };
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(begin(&mut client, request.clone()).await);
    }
    let mut reader = Watch::begin(&mut client, request).await;
    let mut beats = 0;
    // More small frames than the client's library would bear.
    while beats < 15 {
        let message = reader.message().await.expect("the connection is closed");
        beats += usize::from(matches!(message.control, Some(Control::Heartbeat(_))));
    }
    submit(&mut client, task("noop")).await;
    for stream in &mut unread {
        assert!(next(stream).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_never_read_cost_a_bounded_memory_and_nobody_else() {
    const UNREAD: usize = 50;
    const TASKS: usize = 1_000;
    if !is_alone(module_path!(), "watchers_that_never_read_cost_a_bounded_memory_and_nobody_else") {
        return;
    }
    let settings = |config: &mut Config| {
        config.workers = 16.try_into().unwrap();
        config.durability = taskyard::config::Durability::Os;
    };
    let test_server = TestServer::with(settings, builtin()).await;
    let (mut client, mut lazy) = (test_server.client().await, narrow(&test_server).await);
    let mut reader = Watch::live(&mut client).await;
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(begin(&mut lazy, WatchEventsRequest::default()).await);
    }
    // What they may hold, they hold after the first half.
    let mut before = 0;
    for _ in 0..2 {
        before = resident();
        for _ in 0..TASKS / 50 {
            submit_all(&client, vec![heavy(); 50]).await;
            for _ in 0..50 {
                reader.until(EventType::Succeeded).await;
            }
        }
    }
    // 13 MiB of events more for each of them, had they been kept.
    let grown = resident().saturating_sub(before) >> 20;
    assert!(grown < 32, "{grown} MiB more");
    let reading =
        watchers(&test_server).await.into_iter().filter(|watcher| watcher.lag_events == 0).count();
    assert_eq!(reading, 1, "the one that reads");
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
