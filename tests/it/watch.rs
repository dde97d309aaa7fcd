//! Watching: every event once, in order, whenever one comes.

use std::collections::HashMap;

use taskyard::proto::v1::{
    Event, EventType, WatchEventsRequest, WatchHeartbeat, watch_events_response::Control,
};
use tonic::Code;

use crate::support::{Client, TestServer, Watch, builtin, reason, submit, task, wait};

/// Tasks whose lives make 100,000 events: SUBMITTED, STARTED, SUCCEEDED each.
const TASKS: usize = 33_400;
const EVENTS: u64 = 3 * TASKS as u64;

async fn submit_many(client: &Client, tasks: usize) {
    const IN_FLIGHT: usize = 200;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..IN_FLIGHT {
        let mut client = client.clone();
        let share = tasks / IN_FLIGHT + usize::from(caller < tasks % IN_FLIGHT);
        callers.spawn(async move {
            for _ in 0..share {
                submit(&mut client, task("noop")).await;
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

/// What every watcher must see: no number missing or repeated, and of each task
/// its life in order.
#[derive(Default)]
struct Checker {
    last: u64,
    lives: HashMap<String, Vec<EventType>>,
    ended: usize,
}

impl Checker {
    fn see(&mut self, event: &Event) {
        assert_eq!(event.seq, self.last + 1, "events are missing or repeated");
        self.last = event.seq;
        if !event.task_id.is_empty() {
            self.lives.entry(event.task_id.clone()).or_default().push(event.r#type());
        }
        self.ended += usize::from(event.r#type() == EventType::Succeeded);
    }

    fn check_lives(&self) {
        let life = [EventType::Submitted, EventType::Started, EventType::Succeeded];
        assert_eq!(self.lives.len(), TASKS);
        assert!(self.lives.values().all(|seen| *seen == life));
    }
}

async fn follow_to_the_end(mut watch: Watch) -> Checker {
    let mut checker = Checker::default();
    while checker.ended < TASKS {
        checker.see(&watch.event().await);
    }
    checker.check_lives();
    checker
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_reads_late_and_one_that_reads_at_once_both_see_everything() {
    let settings = |config: &mut taskyard::config::Config| config.workers = 32.try_into().unwrap();
    let test_server = TestServer::with(settings, builtin()).await;
    let mut client = test_server.client().await;
    // Connected from the beginning, on a connection of its own, and not read.
    let mut late_client = test_server.client().await;
    let late = Watch::oldest(&mut late_client).await;
    let prompt = tokio::spawn(follow_to_the_end(Watch::oldest(&mut client).await));
    submit_many(&client, TASKS).await;
    let seen = prompt.await.unwrap();
    assert!(seen.last >= EVENTS);
    let seen_late = follow_to_the_end(late).await;
    assert_eq!(seen_late.lives, seen.lives);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_continues_from_any_cursor_also_after_a_restart() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let mut watch = Watch::oldest(&mut client).await;
    submit_many(&client, 50).await;
    let mut places = Vec::new();
    let mut ended = 0;
    while ended < 50 {
        let message = watch.message().await.unwrap();
        ended += message.events.iter().filter(|e| e.r#type() == EventType::Succeeded).count();
        let last = message.events.last().map_or(0, |event| event.seq);
        places.push((message.cursor, last));
    }
    let (_, dir) = test_server.drain().await;
    let test_server = TestServer::on(dir, |_| {}, builtin()).await;
    let mut client = test_server.client().await;
    for (cursor, last) in places.into_iter().filter(|(_, last)| *last > 0) {
        let mut watch = Watch::after(&mut client, &cursor).await;
        for expected in last + 1..last + 4 {
            assert_eq!(watch.event().await.seq, expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_task_is_missed_after_the_cursor_of_its_submission() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    for _ in 0..20 {
        let submitted = submit(&mut client, task("noop")).await;
        let mut watch = Watch::after(&mut client, &submitted.cursor).await;
        let first = watch.event().await;
        assert_eq!((first.r#type(), first.task_id), (EventType::Submitted, submitted.task_id));
        watch.until(EventType::Succeeded).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_has_heartbeats_with_the_cursor() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let heartbeat_interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let request = WatchEventsRequest { heartbeat_interval, ..Default::default() };
    let mut watch = Watch::begin(&mut client, request).await;
    let cursor = loop {
        let message = watch.message().await.unwrap();
        if message.control == Some(Control::Heartbeat(WatchHeartbeat::default())) {
            break message.cursor;
        }
    };
    let submitted = submit(&mut client, task("noop")).await;
    assert_eq!(submitted.cursor, cursor, "nothing has happened since the heartbeat");
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_limited_and_leaving_makes_room() {
    let test_server = TestServer::with(|config| config.max_watchers = 2, builtin()).await;
    let mut client = test_server.client().await;
    let first = Watch::live(&mut client).await;
    let _second = Watch::live(&mut client).await;
    let refused = client.watch_events(WatchEventsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(reason(&refused), "TOO_MANY_WATCHERS");
    drop(first);
    // The server hears of it when the client's reset arrives.
    loop {
        match client.watch_events(WatchEventsRequest::default()).await {
            Ok(_) => break,
            Err(still) => assert_eq!(reason(&still), "TOO_MANY_WATCHERS"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_event_is_the_oldest_that_is_kept() {
    let few = |config: &mut taskyard::config::Config| config.retention.max_events = 20;
    let mut test_server = TestServer::with(few, builtin()).await;
    for start in 1..=2 {
        let mut client = test_server.client().await;
        let mut last = String::new();
        for _ in 0..30 {
            last = submit(&mut client, task("noop")).await.task_id;
            wait(&mut client, &last).await;
        }
        let mut watch = Watch::oldest(&mut client).await;
        let first = watch.event().await;
        assert!(first.seq > 60, "start {start}: event {} of 90 and more", first.seq);
        let mut before = first;
        while before.task_id != last || before.r#type() != EventType::Succeeded {
            let event = watch.event().await;
            assert_eq!(event.seq, before.seq + 1, "all of them from there on");
            before = event;
        }
        let (_, dir) = test_server.drain().await;
        test_server = TestServer::on(dir, few, builtin()).await;
    }
}
