//! JSON as arguments and as results: what is accepted comes back as it was, in every message,
//! and what could not is refused by name before anything happens.

use std::io::Write as _;

use prost_types::{ListValue, Struct, Value, value::Kind};
use taskyard::{
    handler::{Error, Execution, Output, Registry},
    proto::v1::{
        EventType, ListTasksRequest, SubmitBatchRequest, SubmitRequest, SubmitStreamRequest, Task,
        TaskState, WatchEventsRequest, submit_ack, submit_request::Payload, submit_result, task,
        task_result::Output as Returned,
    },
    task::Data,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    Client, TestServer, Watch, builtin, fields, get,
    process::{Said, Serve, run, taskyard},
    reason, submit, task, wait,
};

/// As docs/design.md has it.
const MAX_DEPTH: usize = 20;

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn object(inner: Value) -> Struct {
    Struct { fields: [("a".to_owned(), inner)].into() }
}

fn one() -> Value {
    value(Kind::NumberValue(1.0))
}

/// Objects in one another, `depth` of them.
fn objects(depth: usize) -> Struct {
    (1..depth).fold(object(one()), |inner, _| object(value(Kind::StructValue(inner))))
}

/// An object with lists in one another, `depth` in all.
fn lists(depth: usize) -> Struct {
    let list = |inner, _| value(Kind::ListValue(ListValue { values: vec![inner] }));
    object((1..depth).fold(one(), list))
}

fn with(kind: &str, args: Struct) -> SubmitRequest {
    SubmitRequest { payload: Some(Payload::Args(args)), ..task(kind) }
}

fn args_of(task: &Task) -> Option<&Struct> {
    match &task.payload {
        Some(task::Payload::Args(args)) => Some(args),
        _ => None,
    }
}

fn result_of(task: &Task) -> Option<&Kind> {
    match task.result.as_ref()?.output.as_ref()? {
        Returned::Json(value) => value.kind.as_ref(),
        Returned::Data(_) => None,
    }
}

/// Returns its arguments.
async fn echo(execution: Execution) -> Result<Output, Error> {
    Ok(Output(execution.payload))
}

/// Returns the text of its argument `text`, as if it were JSON.
async fn say(execution: Execution) -> Result<Output, Error> {
    let text: String = execution.arg("text")?;
    Ok(Output(Data::Json(text.into())))
}

async fn test_server() -> (TestServer, Client) {
    let mut registry: Registry = builtin();
    registry.insert("echo", echo);
    registry.insert("say", say);
    let test_server = TestServer::with(|_| {}, registry).await;
    let client = test_server.client().await;
    (test_server, client)
}

/// How a task that says `text` ended.
async fn said(client: &mut Client, text: &str) -> Task {
    let args =
        Struct { fields: [("text".to_owned(), value(Kind::StringValue(text.into())))].into() };
    let submitted = submit(client, with("say", args)).await;
    wait(client, &submitted.task_id).await
}

#[tokio::test]
async fn what_nests_as_deep_as_it_may_comes_back_in_every_message() {
    let (_test_server, mut client) = test_server().await;
    let mut watch = Watch::live(&mut client).await;
    for args in [objects(MAX_DEPTH), lists(MAX_DEPTH)] {
        let id = submit(&mut client, with("echo", args.clone())).await.task_id;
        watch.until(EventType::Succeeded).await;
        let mut shown = vec![get(&mut client, &id).await, wait(&mut client, &id).await];
        let page = client.list_tasks(ListTasksRequest::default()).await.expect("a page");
        let tasks = page.into_inner().tasks;
        shown.extend(tasks.into_iter().filter(|task| task.task_id == id));
        assert_eq!(shown.len(), 3);
        for task in &shown {
            assert_eq!(args_of(task), Some(&args));
            assert_eq!(result_of(task), Some(&Kind::StructValue(args.clone())));
        }
    }
    // Waiting tasks, as a watcher is shown them.
    let later = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    submit(&mut client, SubmitRequest { delay: later, ..with("echo", objects(MAX_DEPTH)) }).await;
    let request = WatchEventsRequest { include_snapshot: true, ..Default::default() };
    let mut watch = Watch::begin(&mut client, request).await;
    while watch.message().await.expect("a snapshot").cursor.is_empty() {}
}

#[tokio::test]
async fn arguments_that_nest_too_deep_are_refused_by_name() {
    let (_test_server, mut client) = test_server().await;
    // Deeper than may be; than any message can be read; and than anybody can mean.
    for depth in [MAX_DEPTH + 1, 33, 34, 49, 500] {
        for args in [objects(depth), lists(depth)] {
            let status = client.submit(with("echo", args)).await.expect_err("too deep");
            assert_eq!(status.code(), Code::InvalidArgument, "{depth}: {status:?}");
            assert_eq!(reason(&status), "INVALID_FIELDS", "{depth}: {status:?}");
            let named = fields(&status);
            assert!(named.len() == 1 && named[0].starts_with("args.a"), "{named:?}");
            assert!(status.message().contains("at most 20"), "{}", status.message());
        }
    }
    let page = client.list_tasks(ListTasksRequest::default()).await.expect("a page").into_inner();
    assert!(page.tasks.is_empty());
}

#[tokio::test]
async fn what_nests_too_deep_spoils_nothing_for_its_neighbours() {
    let (_test_server, mut client) = test_server().await;
    let requests = || vec![task("noop"), with("echo", objects(200)), task("noop")];
    let batch = SubmitBatchRequest { requests: requests(), atomic: false };
    let results = client.submit_batch(batch).await.expect("one result each").into_inner().results;
    let is_taken: Vec<_> = results
        .iter()
        .map(|result| matches!(result.result, Some(submit_result::Result::Ack(_))))
        .collect();
    assert_eq!(is_taken, [true, false, true]);
    let batch = SubmitBatchRequest { requests: requests(), atomic: true };
    let status = client.submit_batch(batch).await.expect_err("all or none");
    assert!(fields(&status)[0].starts_with("requests[1].args.a"), "{status:?}");

    let items = (1..).zip(requests());
    let items: Vec<_> = items
        .map(|(sequence, request)| SubmitStreamRequest { sequence, request: Some(request) })
        .collect();
    let stream = client.submit_stream(tokio_stream::iter(items)).await.expect("it begins");
    let (mut stream, mut acks) = (stream.into_inner(), Vec::new());
    while let Some(message) = stream.message().await.expect("the stream goes on") {
        acks.extend(message.acks);
    }
    let is_taken: Vec<_> = acks
        .iter()
        .map(|ack| (ack.sequence, matches!(ack.result, Some(submit_ack::Result::Ack(_)))))
        .collect();
    assert_eq!(is_taken, [(1, true), (2, false), (3, true)]);
}

#[tokio::test]
async fn a_result_that_clients_could_not_read_is_a_permanent_failure_that_says_so() {
    let (_test_server, mut client) = test_server().await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let cases = [
        (nested(MAX_DEPTH + 1), "is nested too deep; at most 20"),
        (nested(5_000), "is nested too deep; at most 20"),
        (r#"{"id":9007199254740993}"#.into(), "result.id: 9007199254740993 cannot be carried"),
        ("{".into(), "is not JSON"),
        ("NaN".into(), "is not JSON"),
    ];
    for (text, told) in cases {
        let task = said(&mut client, &text).await;
        assert_eq!((task.state(), task.attempt), (TaskState::Failed, 1), "{text:.40}");
        let error = task.error.expect("it failed");
        assert_eq!(error.reason, "INVALID_OUTPUT");
        assert!(error.message.contains(told), "{}", error.message);
    }
    let most = said(&mut client, &nested(MAX_DEPTH)).await;
    assert_eq!(most.state(), TaskState::Succeeded);
}

#[tokio::test]
async fn zero_keeps_its_sign_there_and_back() {
    let (_test_server, mut client) = test_server().await;
    let args = object(value(Kind::NumberValue(-0.0)));
    let submitted = submit(&mut client, with("echo", args)).await;
    let task = wait(&mut client, &submitted.task_id).await;
    let Some(Kind::StructValue(result)) = result_of(&task) else { panic!("{task:?}") };
    for object in [args_of(&task).expect("its arguments"), result] {
        let Some(Kind::NumberValue(zero)) = object.fields["a"].kind else { panic!("{object:?}") };
        assert_eq!(zero.to_bits(), (-0.0_f64).to_bits());
    }
}

#[tokio::test]
async fn numbers_that_json_has_no_form_for_are_refused_wherever_they_stand() {
    let (_test_server, mut client) = test_server().await;
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let list = ListValue { values: vec![one(), value(Kind::NumberValue(number))] };
        let args = object(value(Kind::ListValue(list)));
        let status = client.submit(with("echo", args)).await.expect_err("no JSON");
        assert_eq!(fields(&status), ["args.a[1]"]);
        assert!(status.get_error_details().error_info().is_some());
    }
}

fn serve() -> (tempfile::TempDir, Serve) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("data"), &[]);
    (dir, serve)
}

/// `submit --from -` with this on its stdin.
fn submit_lines(serve: &Serve, lines: &str) -> Said {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(lines.as_bytes()).expect("written");
    serve.run(&["submit", "--from", file.path().to_str().expect("a path")])
}

#[test]
fn a_name_given_twice_is_refused_at_every_depth() {
    let (_dir, serve) = serve();
    for args in [
        ["--args", r#"{"a":1,"a":2}"#, "--priority", "0"],
        ["--args", r#"{"a":[{"b":1,"b":1}]}"#, "--priority", "0"],
        ["--label", "a=1", "--label", "a=2"],
    ] {
        let said = serve.run(&[&["submit", "noop"], &args[..]].concat()).ends(2);
        assert!(said.err.contains("twice"), "{}", said.err);
    }
    for line in [
        r#"{"kind":"noop","labels":{"a":"1","a":"2"}}"#,
        r#"{"kind":"noop","args":{"a":{"b":1,"b":2}}}"#,
        r#"{"kind":"noop","retry":{"max_attempts":1,"max_attempts":2}}"#,
    ] {
        let said = submit_lines(&serve, line);
        assert!(said.code != 0 && said.out.is_empty(), "{line}: {}", said.out);
        assert!(said.err.contains("is given twice"), "{}", said.err);
    }
    assert!(serve.run(&["list"]).ends(0).out.lines().count() <= 1, "nothing was submitted");
}

#[test]
fn a_number_that_would_become_another_is_refused_before_it_is_sent() {
    // The last but one is read as a float by most readers of JSON, and would be no error.
    for number in ["9007199254740993", "18446744073709551616", "-9223372036854775809"] {
        let args = format!(r#"{{"id":{number}}}"#);
        let said = run(&["submit", "noop", "--args", &args, "--server", "127.0.0.1:1"]).ends(2);
        assert!(said.err.contains(&format!("args.id: {number}")), "{}", said.err);
        assert!(said.err.contains("send it as a string"), "{}", said.err);
    }
}

#[test]
fn arguments_are_shown_as_they_were_submitted() {
    let (_dir, serve) = serve();
    let args = r#"{"a":-0.0,"b":9007199254740991,"c":1e+300,"d":[0.1,-7]}"#;
    let id = serve.submit(&["noop", "--args", args]);
    let shown = serve.run(&["get", &id, "--output", "json"]).ends(0);
    assert!(shown.out.contains(&format!(r#""args":{args}"#)), "{}", shown.out);
    assert!(serve.run(&["get", &id]).ends(0).out.contains(args));
}

#[test]
fn the_last_time_that_there_is_is_a_time() {
    let (_dir, serve) = serve();
    serve.submit(&["noop"]);
    let last = "9999-12-31T23:59:59Z";
    let listed = serve.run(&["list", "--created-before", last, "--output", "json"]).ends(0);
    assert_eq!(listed.json().len(), 1);
    // It is a time, and too far ahead: it is the server that says so.
    let said = serve.run(&["submit", "noop", "--run-at", last]);
    assert!(said.code != 0 && said.err.contains("366 d ahead"), "{}", said.err);
}

#[test]
fn a_variable_that_is_empty_counts_as_unset() {
    // Nobody answers at the default address, or a server does that has no such task.
    let said = taskyard().args(["get", "t1"]).env("TASKYARD_SERVER", "").output();
    let said = Said::of(said.expect("the binary runs"));
    assert_ne!(said.code, 2, "{}", said.err);
    let said = taskyard().args(["get", "t1"]).env("TASKYARD_SERVER", "127.0.0.1:1").output();
    let said = Said::of(said.expect("the binary runs")).ends(4);
    assert!(said.err.contains("127.0.0.1:1"), "{}", said.err);
    run(&["get", "t1", "--server", ""]).ends(2);
}

#[test]
fn a_file_of_lines_may_begin_with_a_byte_order_mark() {
    let (_dir, serve) = serve();
    let said = submit_lines(&serve, "\u{feff}{\"kind\":\"noop\"}\n{\"kind\":\"noop\"}\n").ends(0);
    assert_eq!(said.out.lines().count(), 2, "{}", said.err);
}
