//! A task that is handed in and followed to its end by one call.

use std::time::Duration;

use taskyard::{
    config::Config,
    handler::{Error, Execution, Output, Registry},
    proto::v1::{
        CancelTaskRequest, Event, EventType, RetryPolicy, SubmitRequest, SubmitResponse,
        WatchEventsResponse, watch_events_response::Control,
    },
};
use tokio::task::JoinSet;
use tonic::{Code, Status, Streaming};

use EventType::{Cancelled, Failed, RetryScheduled, Started, Submitted, Succeeded};

use crate::support::{
    self, Client, Gate, PATIENCE, TestServer, Watch, builtin, count, get, reason, sleep, span,
    submit, task, wait,
};

/// A task that is followed.
struct Following {
    stream: Streaming<WatchEventsResponse>,
    task: SubmitResponse,
    cursor: String,
}

impl Following {
    async fn begin(client: &mut Client, request: SubmitRequest) -> Result<Self, Status> {
        let stream = client.submit_and_watch(request).await?.into_inner();
        let mut following = Self { stream, task: SubmitResponse::default(), cursor: String::new() };
        let first = following.message().await?.expect("a first message");
        let Some(Control::Submitted(task)) = first.control else { panic!("{first:?}") };
        assert_eq!((&first.cursor, first.events.len()), (&task.cursor, 0));
        following.task = task;
        Ok(following)
    }

    /// The next message; `None` at a good end.
    async fn message(&mut self) -> Result<Option<WatchEventsResponse>, Status> {
        let next = tokio::time::timeout(PATIENCE, self.stream.message());
        let message = next.await.expect("the stream hangs")?;
        if let Some(message) = &message {
            self.cursor.clone_from(&message.cursor);
        }
        Ok(message)
    }

    /// The events to a good end: all of this task, and in order.
    async fn rest(&mut self) -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        while let Some(message) = self.message().await.expect("a good end") {
            assert!(message.control.is_none() || message.events.is_empty());
            events.extend(message.events);
        }
        assert!(events.iter().all(|event| event.task_id == self.task.task_id));
        assert!(events.is_sorted_by_key(|event| event.seq));
        events
    }

    async fn types_rest(&mut self) -> Vec<EventType> {
        self.rest().await.iter().map(Event::r#type).collect()
    }
}

fn named(request: SubmitRequest, id: &str) -> SubmitRequest {
    SubmitRequest { request_id: id.into(), ..request }
}

fn with_gate() -> (Gate, Registry) {
    let (gate, mut registry) = (Gate::default(), builtin());
    registry.insert("gated", gate.clone());
    (gate, registry)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_acknowledgement_comes_first_and_then_this_tasks_life() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    // Others come and go at the same time.
    let noise = tokio::spawn({
        let mut client = client.clone();
        async move {
            for _ in 0..300 {
                submit(&mut client, task("noop")).await;
            }
        }
    });
    for _ in 0..50 {
        let mut following = Following::begin(&mut client, task("noop")).await.unwrap();
        assert!(!following.task.existing);
        assert_eq!(following.types_rest().await, [Submitted, Started, Succeeded]);
    }
    noise.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_followed_at_once() {
    let many = |config: &mut Config| {
        config.workers = 8.try_into().unwrap();
        config.max_watchers_per_connection = 200;
    };
    let test_server = TestServer::with(many, builtin()).await;
    let client = test_server.client().await;
    let mut followers = JoinSet::new();
    for _ in 0..200 {
        let mut client = client.clone();
        followers.spawn(async move {
            let mut following = Following::begin(&mut client, task("noop")).await.unwrap();
            following.types_rest().await
        });
    }
    while let Some(seen) = followers.join_next().await {
        assert_eq!(seen.unwrap(), [Submitted, Started, Succeeded]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_followed_through_its_retries_to_its_failure() {
    let mut registry = builtin();
    let fails = |_: Execution| async { Err::<Output, _>(Error::retryable("NO_LUCK", "again")) };
    registry.insert("fails", fails);
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let backoff = span(Duration::from_millis(1));
    let retry = RetryPolicy { max_attempts: 3, initial_backoff: backoff, max_backoff: backoff };
    let request = SubmitRequest { retry: Some(retry), ..task("fails") };
    let mut following = Following::begin(&mut client, request).await.unwrap();
    let events = following.rest().await;
    let types: Vec<_> = events.iter().map(Event::r#type).collect();
    let again = [Started, RetryScheduled];
    assert_eq!(types, [&[Submitted][..], &again, &again, &[Started, Failed]].concat());
    assert_eq!(events.last().unwrap().attempt, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cursor_leads_on_where_the_stream_stopped() {
    let (gate, registry) = with_gate();
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let mut following = Following::begin(&mut client, task("gated")).await.unwrap();
    let mut last = Submitted;
    while last != Started {
        let message = following.message().await.unwrap().expect("more");
        last = message.events.last().map_or(last, Event::r#type);
    }
    // Leaving does not cancel it.
    let Following { cursor, task: followed, .. } = following;
    gate.open();
    assert_eq!(wait(&mut client, &followed.task_id).await.attempt, 1);
    let mut watch = Watch::after(&mut client, &cursor).await;
    let next = watch.until(Succeeded).await;
    assert_eq!(next.task_id, followed.task_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_follows_the_same_task_from_its_first_event() {
    let (gate, registry) = with_gate();
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let request = named(task("gated"), "once");
    let first = submit(&mut client, request.clone()).await;
    for _ in 0..100 {
        submit(&mut client, SubmitRequest { queue: "other".into(), ..task("noop") }).await;
    }
    // While it runs.
    let mut again = Following::begin(&mut client, request.clone()).await.unwrap();
    assert_eq!((&again.task.task_id, again.task.existing), (&first.task_id, true));
    assert_eq!(again.task.cursor, first.cursor);
    gate.open();
    assert_eq!(again.types_rest().await, [Submitted, Started, Succeeded]);
    // When it has ended, and in another process.
    let mut after = Following::begin(&mut client, request.clone()).await.unwrap();
    assert_eq!(after.types_rest().await, [Submitted, Started, Succeeded]);
    drop((client, again, after));
    let (_, dir) = test_server.drain().await;
    let test_server = TestServer::on(dir, |_| {}, with_gate().1).await;
    let mut client = test_server.client().await;
    let mut after = Following::begin(&mut client, request.clone()).await.unwrap();
    assert_eq!(after.task.task_id, first.task_id);
    assert_eq!(after.types_rest().await, [Submitted, Started, Succeeded]);
    // Another task under its name is refused before any message.
    let other = SubmitRequest { priority: 1, ..request };
    let refused = Following::begin(&mut client, other).await.err().expect("a refusal");
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_is_an_end() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let request = SubmitRequest { delay: span(PATIENCE), ..task("noop") };
    let mut following = Following::begin(&mut client, request).await.unwrap();
    let cancel = CancelTaskRequest { task_id: following.task.task_id.clone() };
    client.cancel_task(cancel).await.expect("cancelled");
    assert_eq!(following.types_rest().await, [Submitted, Cancelled]);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_has_heartbeats_and_the_noise_of_others_is_silence() {
    let beat = |config: &mut Config| config.heartbeat = Duration::from_millis(100);
    let test_server = TestServer::with(beat, builtin()).await;
    let mut client = test_server.client().await;
    let request = SubmitRequest { delay: span(PATIENCE), ..task("noop") };
    let mut following = Following::begin(&mut client, request).await.unwrap();
    let noise = tokio::spawn({
        let mut client = client.clone();
        async move {
            loop {
                submit(&mut client, task("noop")).await;
            }
        }
    });
    let (mut beats, mut last) = (0, String::new());
    while beats < 3 {
        let message = following.message().await.unwrap().expect("it has not ended");
        if matches!(message.control, Some(Control::Heartbeat(_))) {
            beats += 1;
            assert_ne!(message.cursor, last, "the cursor passes what is not shown");
            last = message.cursor;
        }
    }
    noise.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_watchers_and_one_too_many_enqueues_nothing() {
    let test_server = TestServer::with(|config| config.max_watchers = 1, builtin()).await;
    let mut client = test_server.client().await;
    let _watch = Watch::live(&mut client).await;
    let refused = Following::begin(&mut client, task("noop")).await.err().expect("a refusal");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(reason(&refused), "TOO_MANY_WATCHERS");
    assert_eq!(count(&mut client).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_room_is_no_watcher_yet() {
    let tight = |config: &mut Config| {
        config.max_watchers = 1;
        config.queue_max_tasks = 1;
    };
    let test_server = TestServer::with(tight, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    support::pause(&mut admin, "q").await;
    let request = SubmitRequest { queue: "q".into(), ..task("noop") };
    let first = submit(&mut client, request.clone()).await;
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { Following::begin(&mut client, request).await.map(|_| ()) }
    });
    support::until_in_line(&mut admin, "q").await;
    let watch = Watch::live(&mut client).await;
    support::resume(&mut admin, "q").await;
    let refused = waiting.await.unwrap().expect_err("one watcher too many");
    assert_eq!(reason(&refused), "TOO_MANY_WATCHERS");
    wait(&mut client, &first.task_id).await;
    assert_eq!(count(&mut client).await, 1, "nothing was enqueued");
    drop(watch);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_before_any_message_and_takes_no_place() {
    let test_server = TestServer::with(|config| config.max_watchers = 1, builtin()).await;
    let mut client = test_server.client().await;
    for _ in 0..3 {
        let refused = client.submit_and_watch(task("unheard-of")).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_FIELDS");
    }
    let mut following = Following::begin(&mut client, task("noop")).await.unwrap();
    assert_eq!(following.rest().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_the_last_word_and_the_next_process_goes_on() {
    let brief = |config: &mut Config| {
        config.drain_timeout = Duration::from_millis(500);
        config.cancel_grace = Duration::from_millis(1);
    };
    let test_server = TestServer::with(brief, builtin()).await;
    let mut client = test_server.client().await;
    let request = named(sleep("1h"), "long");
    let mut following = Following::begin(&mut client, request.clone()).await.unwrap();
    let drain = tokio::spawn(test_server.drain());
    let mut types = Vec::new();
    let last = loop {
        let message = following.message().await.unwrap().expect("it has not ended");
        types.extend(message.events.iter().map(Event::r#type));
        if let Some(control) = message.control {
            break control;
        }
    };
    assert!(matches!(last, Control::Draining(_)), "{last:?}");
    let status = following.message().await.unwrap_err();
    assert_eq!((status.code(), reason(&status)), (Code::Unavailable, "DRAINING".into()));
    assert_eq!(types.first(), Some(&Submitted));
    assert!(!types.contains(&Succeeded));
    let task_id = following.task.task_id.clone();
    drop((client, following));
    let (_, dir) = drain.await.unwrap();
    let test_server = TestServer::on(dir, |_| {}, builtin()).await;
    let mut client = test_server.client().await;
    let mut again = Following::begin(&mut client, request).await.unwrap();
    assert_eq!(again.task.task_id, task_id);
    let cancel = CancelTaskRequest { task_id: task_id.clone() };
    client.cancel_task(cancel).await.expect("cancelled");
    let seen = again.types_rest().await;
    assert_eq!((seen.first(), seen.last()), (Some(&Submitted), Some(&Cancelled)));
    assert!(get(&mut client, &task_id).await.finish_time.is_some());
}
