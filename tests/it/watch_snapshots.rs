//! Watches that begin with the tasks as they stand.

use std::{collections::BTreeSet, time::Duration};

use taskyard::{
    config::Config,
    proto::v1::{
        EventFilter, EventType, SubmitRequest, TaskState, WatchEventsRequest,
        watch_events_response::Control,
    },
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    self, Client, TestServer, Watch, builtin, reason, span, submit, task,
    watching::{begin, heavy, narrow, next, rest, submit_all, until, watchers},
};

/// More tasks than a client is sent that does not read.
const MANY: usize = 200;

async fn submit_many(client: &Client) {
    let delay = span(Duration::from_hours(1));
    submit_all(client, vec![SubmitRequest { delay, ..heavy() }; MANY]).await;
}

fn snapshot() -> WatchEventsRequest {
    WatchEventsRequest { include_snapshot: true, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_and_what_follows_are_the_whole_truth() {
    let gate = support::Gate::default();
    let mut registry = builtin();
    registry.insert("gated", gate.clone());
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let mut live = Watch::live(&mut client).await;
    let mut all = BTreeSet::new();
    for at in 0..700 {
        let queue = ["a", "b"][at % 2].to_owned();
        let submitted = submit(&mut client, SubmitRequest { queue, ..task("gated") }).await;
        all.extend((at % 2 == 0).then_some(submitted.task_id));
    }
    submit(&mut client, task("noop")).await;
    live.until(EventType::Started).await;
    let request = WatchEventsRequest {
        include_snapshot: true,
        filter: Some(EventFilter { queues: vec!["a".into()], ..Default::default() }),
        ..Default::default()
    };
    let mut stream = begin(&mut client, request).await;
    let started = next(&mut stream).await.unwrap().unwrap();
    assert!(matches!(started.control, Some(Control::Started(_))) && started.cursor.is_empty());
    gate.0.add_permits(50);
    let (mut alive, mut workers, mut parts) = (BTreeSet::new(), 0, 0);
    loop {
        let message = next(&mut stream).await.unwrap().unwrap();
        match message.control.unwrap() {
            Control::Snapshot(part) => {
                assert_eq!(message.cursor, "", "there is nothing to resume after");
                parts += 1;
                workers += part.workers.len();
                for task in part.tasks {
                    assert!(task.finish_time.is_none() && task.queue == "a");
                    assert!(alive.insert(task.task_id), "it is shown twice");
                }
            }
            Control::SnapshotEnd(_) => {
                assert_ne!(message.cursor, "");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(workers, 2);
    assert!(parts >= 3, "{parts} parts for up to 350 tasks");
    // Whatever is not shown had ended by then: it is one of the fifty.
    let mut early = BTreeSet::new();
    while early.len() < 50 {
        let ended = live.until(EventType::Succeeded).await;
        early.extend((ended.kind == "gated").then_some(ended.task_id));
    }
    assert!(alive.is_subset(&all));
    assert!(all.difference(&alive).all(|task| early.contains(task)), "a task is not shown");
    // None had ended before the cursor: all ends are told after it.
    gate.open();
    let mut ended = BTreeSet::new();
    while ended.len() < all.len() {
        let message = next(&mut stream).await.unwrap().unwrap();
        for event in message.events {
            assert_eq!(event.queue, "a");
            if event.r#type() == EventType::Succeeded {
                assert!(ended.insert(event.task_id), "it ends twice");
            }
        }
    }
    assert_eq!(ended, all);

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
async fn a_snapshot_that_breaks_off_has_no_cursor() {
    let stalls: fn(&mut Config) = |config| config.watch_stall_timeout = Duration::from_secs(1);
    let is_over: fn(&mut Config) = |config| config.watch_lifetime = Duration::from_secs(1);
    for (limit, code, why) in [
        (stalls, Code::ResourceExhausted, "WATCH_STALLED"),
        (is_over, Code::Unavailable, "WATCH_LIFETIME"),
    ] {
        let test_server = TestServer::with(limit, builtin()).await;
        submit_many(&test_server.client().await).await;
        let mut stream = begin(&mut narrow(&test_server).await, snapshot()).await;
        until("it keeps its place", async || {
            let listed = watchers(&test_server).await;
            assert!(listed.iter().all(|watcher| watcher.cursor.is_empty()), "{listed:?}");
            listed.is_empty()
        })
        .await;
        let (messages, status) = rest(&mut stream).await;
        assert_eq!((status.code(), reason(&status).as_str()), (code, why));
        assert!(status.get_details_error_info().unwrap().metadata.is_empty(), "{status:?}");
        let mut shown = 0;
        for message in messages {
            assert_eq!(message.cursor, "");
            match message.control {
                Some(Control::Snapshot(part)) => shown += part.tasks.len(),
                Some(Control::Started(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(shown > 0 && shown < MANY, "{shown} tasks");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_in_the_middle_of_a_snapshot_waits_for_its_rest() {
    let test_server = TestServer::start().await;
    let (mut client, mut lazy) = (test_server.client().await, narrow(&test_server).await);
    submit_many(&client).await;
    let mut stream = begin(&mut lazy, snapshot()).await;
    let drain = tokio::spawn(test_server.drain());
    let mut late = 0;
    until("it does not drain", async || {
        let is_drained = client.submit(task("noop")).await.is_err();
        late += usize::from(!is_drained);
        is_drained
    })
    .await;
    let (messages, status) = rest(&mut stream).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "DRAINING"));
    let (mut shown, mut is_complete, mut drains) = (0, false, 0);
    let last = messages.last().expect("a message").clone();
    for message in messages {
        assert_eq!(message.cursor.is_empty(), !is_complete && !is_end(message.control.as_ref()));
        is_complete |= is_end(message.control.as_ref());
        if let Some(Control::Snapshot(part)) = message.control {
            shown += part.tasks.len();
        }
        drains += message.events.iter().filter(|e| e.r#type() == EventType::Draining).count();
    }
    assert_eq!((is_complete, drains), (true, 1));
    // Tasks that came while it was read may be among them.
    assert!((MANY..=MANY + late).contains(&shown), "{shown} of {MANY}, and {late} late ones");
    assert!(matches!(last.control, Some(Control::Draining(_))), "{last:?}");
    let (report, _dir) = drain.await.unwrap();
    assert!(report.complete, "{report:?}");
}

fn is_end(control: Option<&Control>) -> bool {
    matches!(control, Some(Control::SnapshotEnd(_)))
}
