//! Events that carry labels, and watchers that want only some of the events.

use std::{collections::BTreeMap, time::Duration};

use taskyard::proto::v1::{
    CancelTaskRequest, Event, EventFilter, EventType, RedriveTaskRequest, SubmitRequest,
    WatchEventsRequest, WatchStart, watch_events_response::Control,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    self, Client, PATIENCE, TestServer, Watch, builtin, reason, span, submit, task,
};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn every_event_of_a_task_has_its_labels_also_after_a_restart_and_a_redrive() {
    use EventType::{Cancelled, Redriven, Started, Submitted, Succeeded};

    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let cursor = Watch::live(&mut client).await.cursor;
    let ours = labels(&[("customer", "42"), ("empty", "")]);
    let delay = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let labelled = SubmitRequest { labels: ours.clone(), delay, ..task("noop") };
    let task_id = submit(&mut client, labelled).await.task_id;
    submit(&mut client, task("noop")).await;

    let test_server = TestServer::on(test_server.drain().await.1, |_| {}, builtin()).await;
    let mut client = test_server.client().await;
    client.cancel_task(CancelTaskRequest { task_id: task_id.clone() }).await.unwrap();
    client.redrive_task(RedriveTaskRequest { task_id: task_id.clone() }).await.unwrap();
    let mut watch = Watch::after(&mut client, &cursor).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&Succeeded) {
        let event = watch.event().await;
        if event.task_id == task_id {
            assert_eq!(event.labels, ours, "{event:?}");
            seen.push(event.r#type());
        } else {
            assert_eq!(event.labels, BTreeMap::new(), "{event:?}");
        }
    }
    assert_eq!(seen, [Submitted, Cancelled, Redriven, Started, Succeeded]);
}

/// Tasks of several queues, kinds and labels, and their ids.
async fn submit_mixture(client: &mut Client, tasks: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for at in 0..tasks {
        let queue = ["default", "mail", "mail2"][at % 3].to_owned();
        let labels = match at % 4 {
            0 => labels(&[("customer", "42"), ("team", "blue")]),
            1 => labels(&[("customer", "4"), ("empty", "")]),
            2 => labels(&[("customer", "42")]),
            _ => BTreeMap::new(),
        };
        let payload = support::args(&[("duration", "0s")]);
        let request =
            if at % 2 == 0 { task("noop") } else { SubmitRequest { payload, ..task("sleep") } };
        ids.push(submit(client, SubmitRequest { queue, labels, ..request }).await.task_id);
    }
    ids
}

fn matches(filter: &EventFilter, event: &Event) -> bool {
    let one_of = |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
    one_of(&filter.queues, &event.queue)
        && one_of(&filter.kinds, &event.kind)
        && one_of(&filter.task_ids, &event.task_id)
        && one_of(&filter.workers, &event.worker)
        && (filter.types.is_empty() || filter.types.contains(&event.r#type))
        && filter.labels.iter().all(|(key, value)| event.labels.get(key) == Some(value))
}

fn filters(ids: &[String]) -> Vec<EventFilter> {
    let some = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let none = EventFilter::default();
    vec![
        EventFilter { queues: some(&["mail"]), ..none.clone() },
        EventFilter { queues: some(&["mail", "default"]), kinds: some(&["sleep"]), ..none.clone() },
        EventFilter {
            task_ids: vec![ids[7].clone(), ids[3].clone(), ids[3].clone()],
            ..none.clone()
        },
        EventFilter {
            task_ids: ids.to_vec(),
            types: vec![EventType::Started.into()],
            ..none.clone()
        },
        EventFilter { workers: some(&["worker-1"]), ..none.clone() },
        EventFilter { labels: labels(&[("customer", "42")]), ..none.clone() },
        EventFilter { labels: labels(&[("customer", "42"), ("team", "blue")]), ..none.clone() },
        EventFilter { labels: labels(&[("empty", "")]), ..none.clone() },
        EventFilter { types: vec![EventType::WorkerStarted.into()], ..none.clone() },
        EventFilter { queues: some(&["nobody"]), ..none },
    ]
}

/// All that a watch shows up to the present, each message with its cursor.
async fn history(client: &mut Client, request: WatchEventsRequest) -> Vec<(String, Vec<Event>)> {
    let request = WatchEventsRequest { stop_when_caught_up: true, ..request };
    let mut stream = client.watch_events(request).await.unwrap().into_inner();
    let (mut messages, mut last) = (Vec::new(), None);
    while let Some(message) = stream.message().await.unwrap() {
        last.clone_from(&message.control);
        messages.push((message.cursor, message.events));
    }
    assert!(matches!(last, Some(Control::CaughtUp(_))), "{last:?}");
    messages
}

fn events(messages: &[(String, Vec<Event>)]) -> Vec<Event> {
    messages.iter().flat_map(|(_, events)| events.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_watcher_sees_just_what_it_asked_for_from_any_cursor_also_after_a_restart() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let start = WatchStart::Oldest.into();
    let mut live = Watch::oldest(&mut client).await;
    let ids = submit_mixture(&mut client, 60).await;
    let mut ended = 0;
    while ended < ids.len() {
        ended += usize::from(live.event().await.r#type() == EventType::Succeeded);
    }
    let test_server = TestServer::on(test_server.drain().await.1, |_| {}, builtin()).await;
    let mut client = test_server.client().await;
    let all = history(&mut client, WatchEventsRequest { start, ..Default::default() }).await;
    let newest = all.last().unwrap().0.clone();
    let all = events(&all);
    assert!(all.len() > 180, "{} events", all.len());
    for filter in filters(&ids) {
        let expected: Vec<_> =
            all.iter().filter(|event| matches(&filter, event)).cloned().collect();
        assert_eq!(expected.is_empty(), filter.queues.contains(&"nobody".into()), "{filter:?}");
        let filtered = WatchEventsRequest { filter: Some(filter), ..Default::default() };
        let told = history(&mut client, WatchEventsRequest { start, ..filtered.clone() }).await;
        // The server has gone on since; what it did is of no interest here.
        assert_eq!(events(&told)[..expected.len()], expected, "{filtered:?}");
        for (at, (cursor, _)) in told.iter().enumerate().step_by(7) {
            let request = WatchEventsRequest { after_cursor: cursor.clone(), ..filtered.clone() };
            let rest = events(&history(&mut client, request).await);
            let expected = events(&told[at + 1..]);
            assert_eq!(rest[..expected.len()], expected, "{cursor} {filtered:?}");
        }
        assert!(!newest.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_come_in_a_burst_miss_nothing_and_see_nothing_twice() {
    const TASKS: usize = 2_000;
    let test_server =
        TestServer::with(|config| config.workers = 16.try_into().unwrap(), builtin()).await;
    let client = test_server.client().await;
    let mut submitter = client.clone();
    let burst = tokio::spawn(async move { submit_mixture(&mut submitter, TASKS).await });
    let mut watchers = tokio::task::JoinSet::new();
    for number in 0..40 {
        let mut client = client.clone();
        let is_live = number % 2 == 0;
        let filter = (number % 4 < 2)
            .then(|| EventFilter { labels: labels(&[("customer", "42")]), ..Default::default() });
        watchers.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 10)).await;
            let start = if is_live { WatchStart::Live } else { WatchStart::Oldest }.into();
            let request =
                WatchEventsRequest { start, filter: filter.clone(), ..Default::default() };
            let mut watch = Watch::begin(&mut client, request).await;
            let (after, mut seen) = (watch.cursor.clone(), Vec::new());
            // The last task ends last or nearly so; its label is one of those wanted.
            let last = loop {
                let event = watch.event().await;
                seen.push(event.clone());
                if event.queue == "the-end" && event.r#type() == EventType::Succeeded {
                    break event;
                }
            };
            (after, filter, seen, last)
        });
    }
    burst.await.unwrap();
    let mut client = client;
    let customer = labels(&[("customer", "42")]);
    let end = SubmitRequest { queue: "the-end".into(), labels: customer, ..task("noop") };
    submit(&mut client, end).await;
    while let Some(watcher) = watchers.join_next().await {
        let (after, filter, seen, last) = watcher.unwrap();
        let request = WatchEventsRequest { after_cursor: after, ..Default::default() };
        let expected: Vec<_> = events(&history(&mut client, request).await)
            .into_iter()
            .filter(|event| event.seq <= last.seq)
            .filter(|event| filter.as_ref().is_none_or(|filter| matches(filter, event)))
            .collect();
        assert_eq!(seen, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_matches_nothing_sends_only_heartbeats_that_advance() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let filter = Some(EventFilter { queues: vec!["nobody".into()], ..Default::default() });
    let heartbeat_interval = span(Duration::from_millis(100));
    let begin = |start: WatchStart| WatchEventsRequest {
        start: start.into(),
        filter: filter.clone(),
        heartbeat_interval,
        ..Default::default()
    };
    submit_mixture(&mut client, 200).await;
    let mut live = Watch::begin(&mut client, begin(WatchStart::Live)).await;
    let mut oldest = Watch::begin(&mut client, begin(WatchStart::Oldest)).await;
    // From the oldest on, so that the last end that it counts is the newest event.
    let mut all = Watch::oldest(&mut client).await;
    submit_mixture(&mut client, 300).await;
    let mut ended = 0;
    while ended < 500 {
        ended += usize::from(all.event().await.r#type() == EventType::Succeeded);
    }
    for watch in [&mut live, &mut oldest] {
        let advances = async {
            let (mut beats, mut caught_up) = (0, 0);
            while beats == 0 || watch.cursor != all.cursor {
                let message = watch.message().await.unwrap();
                assert_eq!(message.events, []);
                match message.control {
                    Some(Control::Heartbeat(_)) => beats += 1,
                    Some(Control::CaughtUp(_)) => caught_up += 1,
                    other => panic!("{other:?}"),
                }
            }
            caught_up
        };
        let caught_up = tokio::time::timeout(PATIENCE, advances).await;
        assert_eq!(caught_up.expect("the heartbeats do not advance"), 1);
    }
}

#[tokio::test]
async fn all_that_is_wrong_with_a_watch_is_named() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let many = |text: &str, count| vec![text.to_owned(); count];
    let filter = EventFilter {
        queues: many("UPPER", 1),
        kinds: many("", 1),
        task_ids: many("garbage", 1),
        types: vec![0, 99, 1],
        workers: many(&"w".repeat(64), 1),
        labels: labels(&[("bad key", "")]),
    };
    let request = WatchEventsRequest {
        after_cursor: "c1".into(),
        include_snapshot: true,
        gap_policy: 7,
        filter: Some(filter),
        ..Default::default()
    };
    let refused = client.watch_events(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "INVALID_FIELDS")
    );
    let named = refused.get_details_bad_request().unwrap().field_violations;
    let named: Vec<_> = named.into_iter().map(|violation| violation.field).collect();
    let expected = [
        "after_cursor",
        "include_snapshot",
        "gap_policy",
        "filter.queues[0]",
        "filter.kinds[0]",
        "filter.task_ids[0]",
        "filter.types[0]",
        "filter.types[1]",
        "filter.workers[0]",
        "filter.labels[\"bad key\"]",
    ];
    assert_eq!(named, expected);

    let filter = EventFilter {
        queues: many("q", 17),
        kinds: many("k", 17),
        task_ids: many(&submit(&mut client, task("noop")).await.task_id, 1_001),
        types: vec![1; 33],
        workers: many("w", 17),
        labels: (0..17).map(|at| (format!("k{at}"), String::new())).collect(),
    };
    let request = WatchEventsRequest { filter: Some(filter), ..Default::default() };
    let refused = client.watch_events(request).await.unwrap_err();
    assert_eq!(refused.get_details_bad_request().unwrap().field_violations.len(), 6);
}
