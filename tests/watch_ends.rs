//! How watches begin, catch up, meet gaps, and end; and who may watch.

mod support;

use std::time::{Duration, Instant};

use support::{Client, PATIENCE, Watch, Yard, builtin, reason, span, submit, task};
use taskyard::{
    config::Config,
    proto::v1::{
        Event, EventFilter, EventType, GapPolicy, ListWatchersRequest, SubmitRequest, TaskState,
        WatchEventsRequest, WatchEventsResponse, WatchStart, Watcher,
        task_service_client::TaskServiceClient, watch_events_response::Control,
    },
};
use tonic::{Code, Status, Streaming, transport::Endpoint};
use tonic_types::StatusExt as _;

async fn next(
    stream: &mut Streaming<WatchEventsResponse>,
) -> Result<Option<WatchEventsResponse>, Status> {
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("the watch hangs")
}

async fn begin(client: &mut Client, request: WatchEventsRequest) -> Streaming<WatchEventsResponse> {
    client.watch_events(request).await.expect("a watch").into_inner()
}

async fn watchers(yard: &Yard) -> Vec<Watcher> {
    let mut admin = yard.admin().await;
    admin.list_watchers(ListWatchersRequest {}).await.unwrap().into_inner().watchers
}

/// Asks again until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn cursor_of(status: &Status, key: &str) -> String {
    status.get_details_error_info().unwrap().metadata[key].clone()
}

/// A task whose events are large.
fn heavy() -> SubmitRequest {
    let label = |at| (format!("label-{at}"), "x".repeat(255));
    SubmitRequest { labels: (0..16).map(label).collect(), ..task("noop") }
}

/// A client on a connection of its own, which takes no more than it must.
async fn narrow(yard: &Yard) -> Client {
    let endpoint = Endpoint::try_from(format!("http://{}", yard.server.local_addr())).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535);
    TaskServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(8 << 20)
}

#[tokio::test]
async fn a_watch_says_once_that_it_has_caught_up_and_ends_if_it_was_to() {
    let yard = Yard::start().await;
    let mut client = yard.client().await;
    submit(&mut client, task("noop")).await;
    Watch::oldest(&mut client).await.until(EventType::Succeeded).await;
    for start in [WatchStart::Live, WatchStart::Oldest] {
        let request = WatchEventsRequest { start: start.into(), ..Default::default() };
        let stop = WatchEventsRequest { stop_when_caught_up: true, ..request.clone() };
        let mut stream = begin(&mut client, stop).await;
        let Some(Control::Started(started)) = next(&mut stream).await.unwrap().unwrap().control
        else {
            panic!("not started")
        };
        let mut last = WatchEventsResponse::default();
        while let Some(message) = next(&mut stream).await.unwrap() {
            last = message;
        }
        assert!(matches!(last.control, Some(Control::CaughtUp(_))), "{last:?}");
        assert_eq!(last.cursor, started.newest_cursor);

        let mut watch = Watch::begin(&mut client, request).await;
        let mut caught_up = 0;
        submit(&mut client, task("noop")).await;
        loop {
            let message = watch.message().await.unwrap();
            caught_up += usize::from(matches!(message.control, Some(Control::CaughtUp(_))));
            if caught_up > 0 && message.events.iter().any(|e| e.r#type() == EventType::Succeeded) {
                break;
            }
        }
        assert_eq!(caught_up, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_an_error_or_is_told_as_the_watcher_wishes() {
    const KEPT: u64 = 1_000;
    let few = |config: &mut Config| {
        config.retention.max_events = KEPT;
        config.retention.events = Duration::from_hours(1);
    };
    let yard = Yard::with(few, builtin()).await;
    let mut client = yard.client().await;
    let after_cursor = submit(&mut client, task("noop")).await.cursor;
    let first = Watch::oldest(&mut client).await.until(EventType::Submitted).await.seq;
    let asked = |gap_policy: GapPolicy| WatchEventsRequest {
        after_cursor: after_cursor.clone(),
        gap_policy: gap_policy.into(),
        stop_when_caught_up: true,
        ..Default::default()
    };
    let mut refused = None;
    until("the first events are still there", async || {
        let mut submitters = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let mut client = client.clone();
            submitters.spawn(async move { drop(submit(&mut client, task("noop")).await) });
        }
        submitters.join_all().await;
        let mut stream = begin(&mut client, asked(GapPolicy::Unspecified)).await;
        while refused.is_none() {
            match next(&mut stream).await {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(status) => refused = Some(status),
            }
        }
        true
    })
    .await;
    let refused = refused.unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
    assert_ne!(cursor_of(&refused, "oldest_cursor"), after_cursor);
    let mut watch = Watch::after(&mut client, &cursor_of(&refused, "newest_cursor")).await;
    submit(&mut client, task("noop")).await;
    watch.event().await;

    let mut stream = begin(&mut client, asked(GapPolicy::Continue)).await;
    let (mut gaps, mut expected, mut seen) = (0, first, 0);
    while let Some(message) = next(&mut stream).await.unwrap() {
        if let Some(Control::Gap(gap)) = message.control {
            gaps += 1;
            assert!(gap.missing_events > 0);
            assert_eq!(gap.to_cursor, message.cursor);
            assert_eq!(gap.from_cursor, after_cursor, "the first gap");
            expected += gap.missing_events;
        }
        for event in message.events {
            assert_eq!(event.seq, expected, "events are missing, and were not said to be");
            expected += 1;
            seen += 1;
        }
    }
    assert!(gaps == 1 && seen > KEPT / 2, "{gaps} gaps, {seen} events");
    // The oldest is the oldest that is kept: to begin with it is to miss nothing.
    let mut oldest = Watch::oldest(&mut client).await;
    assert!(oldest.event().await.seq > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_is_ended_and_makes_room_and_slows_nobody() {
    let tight = |config: &mut Config| {
        config.max_watchers = 2;
        config.watch_stall_timeout = Duration::from_secs(2);
    };
    let yard = Yard::with(tight, builtin()).await;
    let (mut client, mut lazy_client) = (yard.client().await, narrow(&yard).await);
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
        stalled = watchers(&yard).await.into_iter().find(|watcher| watcher.stalled_for.is_some());
        stalled.is_some()
    })
    .await;
    let stalled = stalled.unwrap();
    assert!(stalled.lag_events > 0 && stalled.sent_events > 0, "{stalled:?}");
    until("it keeps its place", async || watchers(&yard).await.len() == 1).await;
    let _third = Watch::live(&mut client).await;
    // It reads at last: what was on its way, then why it was ended.
    let mut last = String::new();
    let status = loop {
        match next(&mut lazy).await {
            Ok(Some(message)) => last = message.cursor,
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::ResourceExhausted, "WATCH_STALLED")
    );
    assert_eq!(cursor_of(&status, "cursor"), last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_even_read_then_is_reset() {
    let tight = |config: &mut Config| config.watch_stall_timeout = Duration::from_secs(1);
    let yard = Yard::with(tight, builtin()).await;
    let (mut client, mut lazy_client) = (yard.client().await, narrow(&yard).await);
    let mut lazy = begin(&mut lazy_client, WatchEventsRequest::default()).await;
    for _ in 0..60 {
        submit(&mut client, heavy()).await;
    }
    until("it keeps its place", async || watchers(&yard).await.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = loop {
        match next(&mut lazy).await {
            Ok(message) => assert!(message.is_some(), "it ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Cancelled, "{status:?}");
    // Its connection goes on.
    submit(&mut lazy_client, task("noop")).await;
}

#[tokio::test]
async fn a_watch_that_is_there_for_too_long_is_told_where_to_go_on() {
    let short = |config: &mut Config| config.watch_lifetime = Duration::from_millis(300);
    let yard = Yard::with(short, builtin()).await;
    let mut client = yard.client().await;
    let began = Instant::now();
    let watch = Watch::live(&mut client).await;
    let submitted = client.submit_and_watch(support::sleep("1h")).await.unwrap().into_inner();
    let (_, status, cursor) = watch.rest().await;
    assert!(began.elapsed() >= Duration::from_millis(270), "{:?}", began.elapsed());
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "WATCH_LIFETIME"));
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(cursor_of(&status, "cursor"), cursor);
    let mut submitted = submitted;
    let status = loop {
        if let Err(status) = next(&mut submitted).await {
            break status;
        }
    };
    assert_eq!(reason(&status), "WATCH_LIFETIME");
}

#[tokio::test]
async fn watchers_are_limited_for_a_connection_and_for_an_address() {
    let tight = |config: &mut Config| {
        config.max_watchers_per_connection = 2;
        config.max_watchers_per_peer = 3;
    };
    let yard = Yard::with(tight, builtin()).await;
    let (mut first, mut second) = (yard.client().await, yard.client().await);
    let one = Watch::live(&mut first).await;
    let _two = first.submit_and_watch(support::sleep("1h")).await.unwrap();
    let refused = first.watch_events(WatchEventsRequest::default()).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::ResourceExhausted, "TOO_MANY_WATCHERS")
    );
    assert!(refused.message().contains("2 watchers are on this connection"), "{refused:?}");
    let _three = Watch::live(&mut second).await;
    let refused = second.watch_events(WatchEventsRequest::default()).await.unwrap_err();
    assert!(refused.message().contains("3 watchers are connected from 127.0.0.1"), "{refused:?}");
    drop(one);
    until("the place is not free", async || {
        second.watch_events(WatchEventsRequest::default()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn the_watchers_are_listed_with_what_they_do() {
    let yard = Yard::start().await;
    let mut client = yard.client().await;
    let task_id = submit(&mut client, task("noop")).await.task_id;
    support::wait(&mut client, &task_id).await;
    let filter = EventFilter {
        task_ids: vec![task_id; 20],
        kinds: vec!["noop".into()],
        ..Default::default()
    };
    let request = WatchEventsRequest { filter: Some(filter), ..Default::default() };
    let _filtered = Watch::begin(&mut client, request).await;
    let mut all = Watch::oldest(&mut client).await;
    let mut followed = client.submit_and_watch(support::sleep("1h")).await.unwrap().into_inner();
    let Some(Control::Submitted(ack)) = next(&mut followed).await.unwrap().unwrap().control else {
        panic!("no acknowledgement")
    };
    let mut last = Event::default();
    while last.task_id != ack.task_id || last.r#type() != EventType::Started {
        last = all.event().await;
    }
    let mut listed = Vec::new();
    until("they do not get on", async || {
        listed = watchers(&yard).await;
        listed.iter().all(|watcher| watcher.lag_events == 0) && listed.len() == 3
    })
    .await;
    let [filtered, all, followed] = &listed[..] else { panic!("{listed:?}") };
    assert!(filtered.watcher < all.watcher && all.watcher < followed.watcher);
    assert!(listed.iter().all(|w| w.peer.starts_with("127.0.0.1:") && w.start_time.is_some()));
    assert!(listed.iter().all(|w| w.stalled_for.is_none() && !w.cursor.is_empty()));
    let filter = filtered.filter.as_ref().unwrap();
    assert_eq!((filter.kinds.len(), filter.task_ids.len()), (1, 10));
    assert_eq!((filtered.sent_events, all.sent_events), (0, last.seq));
    assert_eq!(followed.follows_task_id, ack.task_id);
    assert!(followed.sent_events >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_what_follows_are_the_whole_truth() {
    let gate = support::Gate::default();
    let mut registry = builtin();
    registry.insert("gated", gate.clone());
    let yard = Yard::with(|_| {}, registry).await;
    let mut client = yard.client().await;
    let mut live = Watch::live(&mut client).await;
    for at in 0..700 {
        let queue = ["a", "b"][at % 2].to_owned();
        submit(&mut client, SubmitRequest { queue, ..task("gated") }).await;
    }
    submit(&mut client, task("noop")).await;
    live.until(EventType::Started).await;
    let request = WatchEventsRequest {
        include_snapshot: true,
        filter: Some(EventFilter { queues: vec!["a".into()], ..Default::default() }),
        ..Default::default()
    };
    let mut stream = begin(&mut client, request).await;
    assert!(matches!(next(&mut stream).await.unwrap().unwrap().control, Some(Control::Started(_))));
    gate.0.add_permits(50);
    let (mut alive, mut workers, mut parts) = (std::collections::BTreeMap::new(), 0, 0);
    loop {
        let message = next(&mut stream).await.unwrap().unwrap();
        match message.control.unwrap() {
            Control::Snapshot(part) => {
                parts += 1;
                workers += part.workers.len();
                for task in part.tasks {
                    assert!(task.finish_time.is_none() && task.queue == "a");
                    let known = alive.insert(task.task_id.clone(), task.state());
                    assert_eq!(known, None, "it is shown twice");
                }
            }
            Control::SnapshotEnd(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(workers, 2);
    assert!(parts >= 3, "{parts} parts for up to 350 tasks");
    assert!(alive.len() >= 300, "{} tasks", alive.len());
    gate.open();
    while !alive.is_empty() {
        let message = next(&mut stream).await.unwrap().unwrap();
        for event in message.events {
            assert_eq!(event.queue, "a");
            if event.r#type() == EventType::Succeeded {
                alive.remove(&event.task_id);
            }
        }
    }

    // By name: one that waits, one that has ended, and one of nobody.
    let delay = span(Duration::from_hours(1));
    let waiting = submit(&mut client, SubmitRequest { delay, ..task("noop") }).await.task_id;
    let ended = submit(&mut client, task("noop")).await.task_id;
    support::wait(&mut client, &ended).await;
    let task_ids = vec![ended, waiting.clone(), "tzzzz00000000".into()];
    let request = WatchEventsRequest {
        include_snapshot: true,
        stop_when_caught_up: true,
        filter: Some(EventFilter { task_ids, ..Default::default() }),
        ..Default::default()
    };
    let mut stream = begin(&mut client, request).await;
    let mut shown = Vec::new();
    while let Some(message) = next(&mut stream).await.unwrap() {
        if let Some(Control::Snapshot(part)) = message.control {
            shown.extend(part.tasks.into_iter().map(|task| (task.state(), task.task_id)));
        }
    }
    assert_eq!(shown, [(TaskState::Scheduled, waiting)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_that_nobody_reads_do_not_end_the_connection() {
    const UNREAD: usize = 64;
    let yard = Yard::start().await;
    let endpoint = Endpoint::try_from(format!("http://{}", yard.server.local_addr())).unwrap();
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
    while beats < 12 {
        let message = reader.message().await.expect("the connection is closed");
        beats += usize::from(matches!(message.control, Some(Control::Heartbeat(_))));
    }
    submit(&mut client, task("noop")).await;
    for stream in &mut unread {
        assert!(next(stream).await.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_gives_every_watcher_its_last_events_and_a_final_cursor() {
    const WATCHERS: usize = 200;
    let yard = Yard::start().await;
    let mut client = yard.client().await;
    let mut watching = tokio::task::JoinSet::new();
    for connection in 0..4 {
        let mut client = yard.client().await;
        for number in 0..WATCHERS / 4 {
            let filter = (number % 5 == 0).then(|| EventFilter {
                types: vec![EventType::Draining.into()],
                ..Default::default()
            });
            let is_filtered = filter.is_some();
            let request = WatchEventsRequest { filter, ..Default::default() };
            let watch = Watch::begin(&mut client, request).await;
            watching.spawn(async move { (connection, is_filtered, watch.rest().await) });
        }
    }
    for _ in 0..20 {
        submit(&mut client, task("noop")).await;
    }
    let (report, _dir) = yard.drain().await;
    assert!(report.complete && !report.clients_cut, "{report:?}");
    let mut cursors = std::collections::BTreeSet::new();
    let mut count = 0;
    while let Some(watched) = watching.join_next().await {
        let (connection, is_filtered, (events, status, cursor)) = watched.unwrap();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
        let drains = events.iter().filter(|event| event.r#type() == EventType::Draining).count();
        assert_eq!(drains, 1, "connection {connection}");
        let ended = events.iter().filter(|e| e.r#type() == EventType::Succeeded).count();
        assert_eq!(ended, if is_filtered { 0 } else { 20 });
        cursors.insert(cursor);
        count += 1;
    }
    assert_eq!((count, cursors.len()), (WATCHERS, 1), "one final cursor for all: {cursors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_never_read_cost_a_bounded_memory_and_nobody_else() {
    const UNREAD: usize = 50;
    const TASKS: usize = 1_000;
    let crew = |config: &mut Config| {
        config.workers = 16.try_into().unwrap();
        config.durability = taskyard::config::Durability::Os;
    };
    let yard = Yard::with(crew, builtin()).await;
    let (mut client, mut lazy) = (yard.client().await, narrow(&yard).await);
    let mut reader = Watch::live(&mut client).await;
    let mut unread = Vec::new();
    for _ in 0..UNREAD {
        unread.push(begin(&mut lazy, WatchEventsRequest::default()).await);
    }
    let before = resident();
    let mut submitters = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let mut client = client.clone();
        submitters.spawn(async move {
            for _ in 0..TASKS / 10 {
                submit(&mut client, heavy()).await;
            }
        });
    }
    let mut ended = 0;
    while ended < TASKS {
        ended += usize::from(reader.event().await.r#type() == EventType::Succeeded);
    }
    submitters.join_all().await;
    // 15 MB of events for each of them, had they been kept.
    let grown = resident().saturating_sub(before) >> 20;
    assert!(grown < 150, "{grown} MiB more");
    let reading =
        watchers(&yard).await.into_iter().filter(|watcher| watcher.lag_events == 0).count();
    assert_eq!(reading, 1, "the one that reads");
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
