//! How watches begin, catch up, meet gaps, and end; and who may watch.

use std::time::{Duration, Instant};

use prost::Message as _;
use taskyard::{
    config::Config,
    proto::v1::{
        Event, EventFilter, EventType, GapPolicy, WatchEventsRequest, WatchEventsResponse,
        WatchStart, Watcher, watch_events_response::Control,
    },
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    self, TestServer, Watch, builtin, reason, submit, task,
    watching::{begin, cursor_of, next, rest, submit_all, until, watchers},
    wire,
};

#[tokio::test]
async fn a_watch_says_once_that_it_has_caught_up_and_ends_if_it_was_to() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
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
    let test_server = TestServer::with(few, builtin()).await;
    let mut client = test_server.client().await;
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
        submit_all(&client, vec![task("noop"); 50]).await;
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
    watch.until(EventType::Succeeded).await;

    let mut stream = begin(&mut client, asked(GapPolicy::Continue)).await;
    let (mut gaps, mut expected, mut seen) = (0, first, 0);
    let mut cursor = after_cursor.clone();
    while let Some(message) = next(&mut stream).await.unwrap() {
        // What is over the bound may go on being trimmed meanwhile.
        if let Some(Control::Gap(gap)) = message.control {
            gaps += 1;
            assert!(gap.missing_events > 0);
            assert_eq!(gap.to_cursor, message.cursor);
            assert_eq!(gap.from_cursor, cursor);
            expected += gap.missing_events;
        }
        cursor = message.cursor;
        for event in message.events {
            assert_eq!(event.seq, expected, "events are missing, and were not said to be");
            expected += 1;
            seen += 1;
        }
    }
    assert!(gaps >= 1 && seen > KEPT / 2, "{gaps} gaps, {seen} events");
    // The oldest is the oldest that is kept: to begin with it is to miss nothing.
    let mut oldest = Watch::oldest(&mut client).await;
    assert!(oldest.event().await.seq > 2);
}

#[tokio::test]
async fn a_watch_that_is_there_for_too_long_is_told_where_to_go_on() {
    let short = |config: &mut Config| config.watch_lifetime = Duration::from_millis(300);
    let test_server = TestServer::with(short, builtin()).await;
    let mut client = test_server.client().await;
    let began = Instant::now();
    let watch = Watch::live(&mut client).await;
    let submitted = client.submit_and_watch(support::sleep("1h")).await.unwrap().into_inner();
    let (_, status, cursor) = watch.rest().await;
    assert!(began.elapsed() >= Duration::from_millis(270), "{:?}", began.elapsed());
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "WATCH_LIFETIME"));
    assert!(status.get_details_retry_info().is_some());
    assert_eq!(cursor_of(&status, "cursor"), cursor);
    let mut submitted = submitted;
    let (messages, status) = rest(&mut submitted).await;
    assert_eq!(reason(&status), "WATCH_LIFETIME");
    assert_eq!(Some(cursor_of(&status, "cursor")), messages.last().map(|m| m.cursor.clone()));
}

#[tokio::test]
async fn the_servers_own_deadline_of_a_watch_says_where_to_go_on() {
    let test_server = TestServer::start().await;
    let (watch, follow) = (WatchEventsRequest::default(), support::sleep("1h"));
    for (method, timeout, request) in [
        ("WatchEvents", "200m", watch.encode_to_vec()),
        ("SubmitAndWatch", "2S", follow.encode_to_vec()),
    ] {
        let path = format!("/taskyard.v1.TaskService/{method}");
        let headers = [("grpc-timeout", timeout)];
        let (address, body) = (test_server.server.local_addr(), wire::framed(&request));
        let (status, said) = wire::call_for(address, &path, &headers, body).await;
        let (code, reason) = (status.code(), reason(&status));
        assert_eq!((code, reason.as_str()), (Code::DeadlineExceeded, "DEADLINE"), "{method}");
        let messages = wire::messages::<WatchEventsResponse>(said);
        let last = messages.last().expect("a message").cursor.clone();
        assert_eq!(cursor_of(&status, "cursor"), last, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_gives_every_watcher_its_last_events_and_a_final_cursor() {
    const WATCHERS: usize = 200;
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let mut watching = tokio::task::JoinSet::new();
    for connection in 0..4 {
        let mut client = test_server.client().await;
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
    let mut all = Watch::live(&mut client).await;
    for _ in 0..20 {
        submit(&mut client, task("noop")).await;
    }
    for _ in 0..20 {
        all.until(EventType::Succeeded).await;
    }
    drop(all);
    let (report, _dir) = test_server.drain().await;
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

#[tokio::test]
async fn watchers_are_limited_for_a_connection_and_for_an_address() {
    let tight = |config: &mut Config| {
        config.max_watchers_per_connection = 2;
        config.max_watchers_per_peer = 3;
    };
    let test_server = TestServer::with(tight, builtin()).await;
    let (mut first, mut second) = (test_server.client().await, test_server.client().await);
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
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
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
        listed = watchers(&test_server).await;
        let is_on = |watcher: &Watcher| watcher.lag_events == 0 && watcher.stalled_for.is_none();
        listed.iter().all(is_on) && listed.len() == 3
    })
    .await;
    let [filtered, all, followed] = &listed[..] else { panic!("{listed:?}") };
    assert!(filtered.watcher < all.watcher && all.watcher < followed.watcher);
    assert!(listed.iter().all(|w| w.peer.starts_with("127.0.0.1:") && w.start_time.is_some()));
    assert!(listed.iter().all(|w| !w.cursor.is_empty()));
    let filter = filtered.filter.as_ref().unwrap();
    assert_eq!((filter.kinds.len(), filter.task_ids.len()), (1, 10));
    assert_eq!((filtered.sent_events, all.sent_events), (0, last.seq));
    assert_eq!(followed.follows_task_id, ack.task_id);
    assert!(followed.sent_events >= 1);
}
