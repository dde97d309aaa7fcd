//! Every bad request gets one clear error that names every offending field,
//! and costs nothing: afterwards the server works as before.
#![expect(clippy::unnecessary_wraps, reason = "what message fields take")]

use prost_types::{Duration as Span, ListValue, Struct, Timestamp, Value, value::Kind};
use taskyard::proto::v1::{
    CancelTaskRequest, GetTaskRequest, ListTasksRequest, RetryPolicy, SubmitRequest, TaskFilter,
    TaskState, WaitTaskRequest, WatchEventsRequest, WatchStart, submit_request::Payload,
};
use tonic::{Code, Status};

use crate::support::{
    self, Client, TestServer, args, fields, reason, sleep, span, submit, task, wait,
};

const DAY: i64 = 86_400;

fn seconds(seconds: i64) -> Option<Span> {
    Some(Span { seconds, nanos: 0 })
}

fn nanos(seconds: i64, nanos: i32) -> Option<Span> {
    Some(Span { seconds, nanos })
}

fn now() -> i64 {
    Timestamp::from(std::time::SystemTime::now()).seconds
}

fn retry(change: impl FnOnce(&mut RetryPolicy)) -> SubmitRequest {
    let mut policy = RetryPolicy::default();
    change(&mut policy);
    SubmitRequest { retry: Some(policy), ..task("noop") }
}

fn with(change: impl FnOnce(&mut SubmitRequest)) -> SubmitRequest {
    let mut request = task("noop");
    change(&mut request);
    request
}

fn value(name: &str, kind: Kind) -> Option<Payload> {
    let fields = [(name.to_owned(), Value { kind: Some(kind) })];
    Some(Payload::Args(Struct { fields: fields.into() }))
}

fn label(key: &str, value: &str) -> SubmitRequest {
    with(|task| drop(task.labels.insert(key.into(), value.into())))
}

/// A normal task still runs, and it is the only one: nothing was half applied.
async fn works_as_before(client: &mut Client) {
    let submitted = submit(client, sleep("1ms")).await;
    assert_eq!(wait(client, &submitted.task_id).await.state(), TaskState::Succeeded);
}

/// The fields that an answer to a bad submission names.
async fn refused(client: &mut Client, request: SubmitRequest) -> Vec<String> {
    let shown = format!("{request:.300?}");
    let status = client.submit(request).await.expect_err(&shown);
    invalid(&status)
}

fn invalid(status: &Status) -> Vec<String> {
    assert_eq!((status.code(), &*reason(status)), (Code::InvalidArgument, "INVALID_FIELDS"));
    fields(status)
}

fn wrong_kinds_and_payloads() -> Vec<(SubmitRequest, &'static str)> {
    let bytes = Some(Payload::Data("1s".into()));
    let number = |number| value("n", Kind::NumberValue(number));
    let duration = |kind| SubmitRequest { payload: value("duration", kind), ..task("sleep") };
    let list = ListValue { values: vec![Value { kind: Some(Kind::NumberValue(f64::NAN)) }] };
    vec![
        (task(""), "kind"),
        (task("no-such-kind"), "kind"),
        (task(&"k".repeat(64)), "kind"),
        (task(&"\u{1}".repeat(1_000)), "kind"),
        (task("sleep"), "args.duration"),
        (SubmitRequest { payload: bytes, ..task("sleep") }, "args"),
        (duration(Kind::NumberValue(1.0)), "args.duration"),
        (duration(Kind::NullValue(0)), "args.duration"),
        (duration(Kind::StructValue(Struct::default())), "args.duration"),
        (sleep("-1s"), "args.duration"),
        (sleep("soon"), "args.duration"),
        (sleep("25h"), "args.duration"),
        (with(|task| task.payload = number(f64::NAN)), "args.n"),
        (with(|task| task.payload = number(f64::INFINITY)), "args.n"),
        (with(|task| task.payload = number(f64::NEG_INFINITY)), "args.n"),
        (with(|task| task.payload = value("deep", Kind::ListValue(list))), "args.deep[0]"),
        (with(|task| task.payload = Some(Payload::Data(vec![0; 1_001].into()))), "data"),
        (with(|task| task.payload = args(&[("a", &"x".repeat(1_000))])), "args"),
    ]
}

fn wrong_times() -> Vec<(SubmitRequest, &'static str)> {
    let mut cases = Vec::new();
    let no_durations = [
        seconds(-1),
        seconds(i64::MIN),
        seconds(i64::MAX),
        nanos(0, -1),
        nanos(1, -1),
        nanos(1, 1_000_000_000),
        nanos(0, i32::MAX),
        nanos(-1, 1),
    ];
    for wrong in no_durations {
        cases.push((with(|task| task.delay = wrong), "delay"));
        cases.push((with(|task| task.timeout = wrong), "timeout"));
        cases.push((retry(|retry| retry.initial_backoff = wrong), "retry.initial_backoff"));
        cases.push((retry(|retry| retry.max_backoff = wrong), "retry.max_backoff"));
    }
    for too_short in [seconds(0), nanos(0, 999_999)] {
        cases.push((with(|task| task.timeout = too_short), "timeout"));
        cases.push((retry(|retry| retry.initial_backoff = too_short), "retry.initial_backoff"));
    }
    let at = |seconds, nanos| with(|task| task.run_at = Some(Timestamp { seconds, nanos }));
    cases.extend([
        (with(|task| task.delay = nanos(366 * DAY, 1)), "delay"),
        (with(|task| task.timeout = nanos(30 * DAY, 1)), "timeout"),
        (retry(|retry| retry.initial_backoff = nanos(DAY, 1)), "retry.initial_backoff"),
        (retry(|retry| retry.max_backoff = nanos(DAY, 1)), "retry.max_backoff"),
        (
            retry(|retry| {
                retry.initial_backoff = seconds(10);
                retry.max_backoff = seconds(9);
            }),
            "retry.max_backoff",
        ),
        (at(now(), -1), "run_at"),
        (at(now(), 1_000_000_000), "run_at"),
        (at(i64::MAX, 0), "run_at"),
        (at(i64::MIN, 0), "run_at"),
        (at(now() + 367 * DAY, 0), "run_at"),
        (
            with(|task| {
                task.delay = seconds(1);
                task.run_at = Some(Timestamp::default());
            }),
            "run_at",
        ),
    ]);
    cases
}

fn wrong_names_and_numbers() -> Vec<(SubmitRequest, &'static str)> {
    let mut cases = Vec::new();
    for queue in ["Upper", "-a", ".a", "_a", "a b", "a/b", "é", "a\n", "a\0", &"q".repeat(64)] {
        cases.push((with(|task| task.queue = queue.into()), "queue"));
    }
    for priority in [1_001, -1_001, i32::MAX, i32::MIN] {
        cases.push((with(|task| task.priority = priority), "priority"));
    }
    for attempts in [101, u32::MAX] {
        cases.push((retry(|retry| retry.max_attempts = attempts), "retry.max_attempts"));
    }
    for id in [&*"r".repeat(129), "a\nb", "\0", "\u{7f}", "\u{85}"] {
        cases.push((with(|task| task.request_id = id.into()), "request_id"));
    }
    for when_full in [3, -1, i32::MAX] {
        cases.push((with(|task| task.when_full = when_full), "when_full"));
    }
    let many = (0..17).map(|n| (n.to_string(), String::new())).collect();
    cases.extend([
        (with(|task| task.labels = many), "labels"),
        (label("", "v"), r#"labels[""]"#),
        (label("a b", "v"), r#"labels["a b"]"#),
        (label("k", &"v".repeat(256)), r#"labels["k"]"#),
    ]);
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_is_named() {
    let test_server =
        TestServer::with(|config| config.max_payload = 1_000, support::builtin()).await;
    let mut client = test_server.client().await;
    let cases = wrong_kinds_and_payloads()
        .into_iter()
        .chain(wrong_times())
        .chain(wrong_names_and_numbers());
    let mut normal = 0;
    for (request, field) in cases {
        let shown = format!("{request:.300?}");
        assert_eq!(refused(&mut client, request).await, [field], "{shown}");
        works_as_before(&mut client).await;
        normal += 1;
    }
    let all = ListTasksRequest { page_size: 1_000, ..Default::default() };
    let listed = client.list_tasks(all).await.unwrap().into_inner().tasks;
    assert_eq!(listed.len(), normal, "nothing that was refused is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_just_within_the_bounds_is_taken() {
    let test_server =
        TestServer::with(|config| config.max_payload = 1_000, support::builtin()).await;
    let mut client = test_server.client().await;
    let labels = (0..16).map(|n| (format!("{n:063}"), "v".repeat(255))).collect();
    for request in [
        with(|task| task.delay = seconds(366 * DAY)),
        with(|task| task.run_at = Some(Timestamp { seconds: -62_135_596_800, nanos: 0 })),
        with(|task| task.run_at = Some(Timestamp { seconds: now() + 366 * DAY - 60, nanos: 0 })),
        with(|task| task.timeout = seconds(30 * DAY)),
        with(|task| task.timeout = nanos(0, 1_000_000)),
        with(|task| task.priority = 1_000),
        with(|task| task.priority = -1_000),
        with(|task| task.queue = "q".repeat(63)),
        with(|task| task.request_id = "é".repeat(64)),
        with(|task| task.labels = labels),
        with(|task| task.payload = Some(Payload::Data(vec![0; 1_000].into()))),
        retry(|retry| {
            retry.max_attempts = 100;
            retry.initial_backoff = seconds(DAY);
            retry.max_backoff = seconds(DAY);
        }),
        retry(|retry| retry.initial_backoff = seconds(DAY)),
    ] {
        submit(&mut client, request).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_is_named_in_one_answer() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let request = SubmitRequest {
        kind: "nope".into(),
        queue: "No".into(),
        priority: 5_000,
        delay: seconds(-1),
        timeout: seconds(-1),
        retry: Some(RetryPolicy {
            max_attempts: 101,
            initial_backoff: seconds(-1),
            max_backoff: seconds(-1),
        }),
        labels: [(" ".to_owned(), String::new())].into(),
        request_id: "\n".repeat(129),
        when_full: 9,
        payload: value("n", Kind::NumberValue(f64::NAN)),
        ..Default::default()
    };
    let mut named = refused(&mut client, request).await;
    named.sort();
    named.dedup();
    let all = [
        "args.n",
        "delay",
        "kind",
        "labels[\" \"]",
        "priority",
        "queue",
        "request_id",
        "retry.initial_backoff",
        "retry.max_attempts",
        "retry.max_backoff",
        "timeout",
        "when_full",
    ];
    assert_eq!(named, all);
    works_as_before(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_times_are_both_looked_at_and_contradict_each_other() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let none = Timestamp { seconds: i64::MAX, nanos: 0 };
    for (delay, run_at, named) in [
        (seconds(1), Timestamp::default(), vec!["run_at"]),
        (seconds(1), none, vec!["run_at", "run_at"]),
        (seconds(-1), Timestamp::default(), vec!["run_at", "delay"]),
        (seconds(-1), none, vec!["run_at", "delay", "run_at"]),
    ] {
        let request = with(|task| (task.delay, task.run_at) = (delay, Some(run_at)));
        assert_eq!(refused(&mut client, request).await, named);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_violations_fit_into_one_status() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    for key in [" ", "é", "\u{1}", "🦀"] {
        let key = key.repeat(40);
        let labels = (0..1_000).map(|n| (format!("{n}{key}"), String::new())).collect();
        let status = client.submit(with(|task| task.labels = labels)).await.unwrap_err();
        let named = invalid(&status);
        assert!(named.len() > 5, "{named:?}");
        assert_eq!(named[0], "labels");
        assert!(status.message().starts_with("at least 100 fields are invalid"), "{status:?}");
        // As it travels: percent-encoded, and in base 64.
        let headers = status.clone().into_http::<()>();
        let bytes: usize = headers.headers().iter().map(|(k, v)| k.as_str().len() + v.len()).sum();
        assert!(bytes < 8 << 10, "{bytes} bytes of headers are more than clients take");
    }
    works_as_before(&mut client).await;
}

/// How the three calls that take a task's id answer this one.
async fn ask_for(client: &mut Client, task_id: &str) -> [Status; 3] {
    let task_id = || task_id.to_owned();
    let get = client.get_task(GetTaskRequest { task_id: task_id() }).await.unwrap_err();
    let wait = WaitTaskRequest { task_id: task_id(), timeout: None };
    let wait = client.wait_task(wait).await.unwrap_err();
    let cancel = client.cancel_task(CancelTaskRequest { task_id: task_id() }).await.unwrap_err();
    [get, wait, cancel]
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_name_no_task_of_this_store() {
    let (test_server, other) = (TestServer::start().await, TestServer::start().await);
    let mut client = test_server.client().await;
    let theirs = submit(&mut other.client().await, task("noop")).await.task_id;
    // The same number here: only the tag tells the two tasks apart.
    let ours = submit(&mut client, task("noop")).await.task_id;
    assert_ne!(theirs, ours);
    let guessed = format!("t2{}", &ours[2..]);
    for id in [&theirs, &guessed, "tzzzz00000000"] {
        for status in ask_for(&mut client, id).await {
            assert_eq!((status.code(), &*reason(&status)), (Code::NotFound, "TASK_NOT_FOUND"));
        }
    }
    for id in ["", "garbage", &ours.to_uppercase(), "t", "\0", &"t".repeat(100_000)] {
        for status in ask_for(&mut client, id).await {
            assert_eq!(invalid(&status), ["task_id"]);
        }
    }
    for timeout in [seconds(-1), nanos(DAY, 1)] {
        let request = WaitTaskRequest { task_id: ours.clone(), timeout };
        assert_eq!(invalid(&client.wait_task(request).await.unwrap_err()), ["timeout"]);
    }
    works_as_before(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_that_lead_nowhere() {
    let (test_server, other) = (TestServer::start().await, TestServer::start().await);
    let mut client = test_server.client().await;
    let theirs = submit(&mut other.client().await, task("noop")).await.cursor;
    let ours = submit(&mut client, task("noop")).await.cursor;
    let past_end = format!("{}zzzzz", &ours[..13]);
    let another_history = format!("{}000000{}", &ours[..7], &ours[13..]);
    for (cursor, code, expected) in [
        (&theirs, Code::FailedPrecondition, "CURSOR_FROM_ANOTHER_STORE"),
        (&another_history, Code::FailedPrecondition, "CURSOR_FROM_ANOTHER_HISTORY"),
        (&past_end, Code::OutOfRange, "CURSOR_PAST_END"),
    ] {
        let request = WatchEventsRequest { after_cursor: cursor.clone(), ..Default::default() };
        let status = client.watch_events(request).await.expect_err(cursor);
        assert_eq!((status.code(), &*reason(&status)), (code, expected));
    }
    let oldest = WatchStart::Oldest.into();
    let watch = |cursor: &str, start, heartbeat_interval| WatchEventsRequest {
        after_cursor: cursor.into(),
        start,
        heartbeat_interval,
        ..Default::default()
    };
    for (request, named) in [
        (watch("garbage", 0, None), &["after_cursor"][..]),
        (watch(&"c".repeat(100_000), 0, None), &["after_cursor"]),
        (watch(&ours, oldest, None), &["start"]),
        (watch("", 7, None), &["start"]),
        (watch("", 0, seconds(0)), &["heartbeat_interval"]),
        (watch("", 0, nanos(0, 99_999_999)), &["heartbeat_interval"]),
        (watch("", 0, seconds(3_601)), &["heartbeat_interval"]),
        (watch("", 0, seconds(-1)), &["heartbeat_interval"]),
        (watch("x", 9, seconds(-1)), &["heartbeat_interval", "start", "start", "after_cursor"]),
    ] {
        let status = client.watch_events(request).await.unwrap_err();
        assert_eq!(invalid(&status), named);
    }
    works_as_before(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_none() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    for _ in 0..3 {
        submit(&mut client, SubmitRequest { delay: span(support::PATIENCE), ..task("noop") }).await;
    }
    let first = ListTasksRequest { page_size: 1, ..Default::default() };
    let token = client.list_tasks(first).await.unwrap().into_inner().next_page_token;
    let list =
        |page_token: &str| ListTasksRequest { page_token: page_token.into(), ..Default::default() };
    let filtered = |page_token: &str, set: fn(&mut TaskFilter)| {
        let mut filter = TaskFilter::default();
        set(&mut filter);
        ListTasksRequest { filter: Some(filter), ..list(page_token) }
    };
    for (request, field) in [
        (list("garbage"), "page_token"),
        (list("p"), "page_token"),
        (list("é".repeat(20).as_str()), "page_token"),
        (list(&format!("{token}fffffffffffffffff")), "page_token"),
        (list(&format!("{}ffffffffffffffff", &token[..9])), "page_token"),
        (filtered(&token, |filter| filter.kinds = vec!["noop".into()]), "page_token"),
        (filtered(&token, |filter| filter.states = vec![1]), "page_token"),
        (ListTasksRequest { newest_first: true, ..list(&token) }, "page_token"),
        (ListTasksRequest { page_size: -1, ..list("") }, "page_size"),
        (filtered("", |filter| filter.states = vec![1, 99]), "filter.states[1]"),
        (filtered("", |filter| filter.queues = vec!["No".into()]), "filter.queues[0]"),
    ] {
        let shown = format!("{request:?}");
        let status = client.list_tasks(request).await.expect_err(&shown);
        assert_eq!(invalid(&status), [field], "{shown}");
    }
    assert_eq!(client.list_tasks(list(&token)).await.unwrap().into_inner().tasks.len(), 2);
    works_as_before(&mut client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_repeats_costs_no_more_for_it() {
    use prost_types::{ListValue, Struct, Value, value::Kind};
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    // A long name above very many small values.
    let list = ListValue { values: vec![Value { kind: None }; 300_000] };
    let list = Value { kind: Some(Kind::ListValue(list)) };
    let fields = Struct { fields: [("x".repeat(1 << 20), list)].into() };
    let large = with(|task| task.payload = Some(Payload::Args(fields)));
    let answer = tokio::time::timeout(support::PATIENCE, client.submit(large)).await;
    assert!(answer.expect("it takes no time to speak of").is_err());
    // The same state, and no state at all, a million times.
    for state in [TaskState::Failed as i32, 77] {
        let filter = TaskFilter { states: vec![state; 1_000_000], ..Default::default() };
        let request = ListTasksRequest { filter: Some(filter), ..Default::default() };
        let refused = client.list_tasks(request).await.unwrap_err();
        assert_eq!(invalid(&refused)[0], "filter.states");
    }
    works_as_before(&mut client).await;
}
