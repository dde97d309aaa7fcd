//! The Rust client against `clients/scenarios.json`, which every client's tests run.
//! `clients/README.md` says what the steps mean.

use std::{
    collections::{BTreeSet, HashMap},
    io::Write as _,
    path::Path,
    time::Duration,
};

use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Map, Value};
use taskyard::{
    client::{Client, Error, Seen, Start, Watch, Watcher},
    proto::v1::{
        CancelTaskRequest, Event, EventFilter, EventType, SubmitRequest, SubmitResponse,
        SubmitStreamRequest, Task, WhenFull, submit_ack,
    },
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::support::{PATIENCE, process::Serve, span};

#[derive(Deserialize)]
struct Table {
    scenarios: Vec<Scenario>,
}

#[derive(Deserialize)]
struct Scenario {
    name: String,
    #[serde(default)]
    server: Vec<String>,
    steps: Vec<Map<String, Value>>,
}

type Answer = Result<SubmitResponse, Error>;

/// A watch, and what it saw so far that no step has looked at.
struct Seeing {
    watcher: Watcher,
    is_filtered: bool,
    unread: Vec<Event>,
    last: u64,
    count: u64,
}

struct Stage {
    dir: TempDir,
    address: String,
    settings: Vec<String>,
    server: Option<Serve>,
    client: Client,
    tasks: HashMap<String, SubmitResponse>,
    background: HashMap<String, JoinHandle<Answer>>,
    watches: HashMap<String, Seeing>,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_does_what_every_client_must_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/scenarios.json");
    let text = std::fs::read_to_string(path).expect("the table");
    let table: Table = serde_json::from_str(&text).expect("the table is sound");
    assert!(table.scenarios.len() > 10);
    for scenario in table.scenarios {
        println!("{}", scenario.name);
        let play = tokio::spawn(play(scenario.server, scenario.steps));
        let ended = tokio::time::timeout(PATIENCE, play).await;
        let is_ok = matches!(ended, Ok(Ok(())));
        report(&scenario.name, is_ok);
        assert!(is_ok, "{}: {ended:?}", scenario.name);
    }
}

/// Adds a line to the report that all clients share, if there is one.
fn report(scenario: &str, is_ok: bool) {
    let Some(file) = std::env::var_os("SCENARIO_REPORT") else { return };
    let how = if is_ok { "ok" } else { "failed" };
    let report = std::fs::OpenOptions::new().append(true).create(true).open(file);
    writeln!(report.expect("the report"), "rust\t{scenario}\t{how}").expect("a line");
}

async fn play(settings: Vec<String>, steps: Vec<Map<String, Value>>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = start("127.0.0.1:0", dir.path(), &settings);
    let client = Client::connect(&server.address).await.expect("the server answers");
    let mut stage = Stage {
        address: server.address.clone(),
        server: Some(server),
        dir,
        settings,
        client,
        tasks: HashMap::new(),
        background: HashMap::new(),
        watches: HashMap::new(),
    };
    for step in steps {
        let (name, about) = step.into_iter().next().expect("a step has a name");
        println!("  {name}");
        let step = stage.step(&name, &about);
        match about.get("deadline").or(about.get("timeout")).map(duration) {
            None => step.await,
            Some(bound) => tokio::time::timeout(bound + HANG, step).await.expect("it hangs"),
        }
    }
}

/// What a step may take beyond its deadline or timeout, at the very most.
const HANG: Duration = Duration::from_secs(5);

fn start(listen: &str, dir: &Path, settings: &[String]) -> Serve {
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    Serve::at(listen, &dir.join("data"), &settings)
}

impl Stage {
    async fn step(&mut self, name: &str, about: &Value) {
        match name {
            "submit" => self.submit(about).await,
            "finish" => {
                let name = text(about, "submit");
                let answer = self.background.remove(&name).expect("it was begun").await;
                self.submitted(&name, about, answer.expect("it ends"));
            }
            "submit_and_wait" => {
                let task = self.client.submit_and_wait(request(&about["request"])).await;
                check_task(&task.expect("it ends"), &about["expect"]);
            }
            "submit_and_watch" => self.submit_and_watch(about).await,
            "submit_stream" => self.submit_stream(about).await,
            "wait" => {
                let timeout = about.get("timeout").map(duration);
                let answer = self.client.wait(&self.task(about), timeout).await;
                if let Some(error) = about.get("error") {
                    check_error(&answer.expect_err("there is no answer"), error);
                } else {
                    check_task(&answer.expect("the task"), &about["expect"]);
                }
            }
            "cancel" => self.cancel(about).await,
            "watch" => self.watch(about).await,
            "watch_until" => self.watch_until(about).await,
            "watch_error" => {
                let seeing = self.watches.get_mut(&text(about, "watch")).expect("a watch");
                let status = loop {
                    match seeing.watcher.next().await {
                        Ok(seen) => drop(seen.expect("it ends with an error")),
                        Err(status) => break status,
                    }
                };
                check_error(&status.into(), &about["error"]);
            }
            "stop" => self.stop(about),
            "drain" => self.server.as_ref().expect("a server").signal(Signal::TERM),
            "start" => {
                if let Some(draining) = self.server.take() {
                    draining.end();
                }
                self.server = Some(start(&self.address, self.dir.path(), &self.settings));
            }
            "restart" => {
                self.stop(about);
                self.server = Some(start(&self.address, self.dir.path(), &self.settings));
            }
            "freeze" => self.server.as_ref().expect("a server").signal(Signal::STOP),
            "thaw" => self.server.as_ref().expect("a server").signal(Signal::CONT),
            other => panic!("{other} is no step"),
        }
    }

    fn task(&self, about: &Value) -> String {
        match about.get("task_id") {
            Some(id) => id.as_str().expect("text").to_owned(),
            None => self.tasks[&text(about, "task")].task_id.clone(),
        }
    }

    fn stop(&mut self, about: &Value) {
        let signal = if about["signal"] == "KILL" { Signal::KILL } else { Signal::TERM };
        let server = self.server.take().expect("a server");
        server.signal(signal);
        server.end();
    }

    async fn submit(&mut self, about: &Value) {
        let (client, request) = (self.client.clone(), request(&about["request"]));
        let deadline = about.get("deadline").map(duration);
        let submit = async move {
            match deadline {
                None => client.submit(request).await,
                Some(deadline) => client.submit_within(request, deadline).await,
            }
        };
        let name = about.get("as").and_then(Value::as_str).unwrap_or_default().to_owned();
        if about.get("background").is_some() {
            self.background.insert(name, tokio::spawn(submit));
        } else {
            let answer = submit.await;
            self.submitted(&name, about, answer);
        }
    }

    fn submitted(&mut self, name: &str, about: &Value, answer: Answer) {
        if let Some(error) = about.get("error") {
            check_error(&answer.expect_err("it is refused"), error);
            return;
        }
        let submitted = answer.expect("it is submitted");
        if let Some(expect) = about.get("expect") {
            assert_eq!(Value::from(submitted.existing), expect["existing"]);
            if let Some(same) = expect.get("same_task_as").and_then(Value::as_str) {
                assert_eq!(submitted.task_id, self.tasks[same].task_id);
            }
        }
        self.tasks.insert(name.to_owned(), submitted);
    }

    async fn submit_and_watch(&mut self, about: &Value) {
        let mut watcher = self.client.submit_and_watch(request(&about["request"]));
        let (mut task, mut types) = (None, Vec::new());
        while let Some(seen) = watcher.next().await.expect("it goes on") {
            match seen {
                Seen::Submitted(submitted) => task = Some(submitted.task_id),
                Seen::Events(batch) => {
                    assert!(batch.events.iter().all(|event| Some(&event.task_id) == task.as_ref()));
                    types.extend(batch.events.iter().map(type_name));
                }
                _ => {}
            }
        }
        assert_eq!(Value::from(types), about["expect"]);
    }

    async fn submit_stream(&mut self, about: &Value) {
        let requests = about["requests"].as_array().expect("requests").iter().zip(1..);
        let requests: Vec<_> = requests
            .map(|(json, sequence)| SubmitStreamRequest { sequence, request: Some(request(json)) })
            .collect();
        let stream = self.client.tasks().submit_stream(tokio_stream::iter(requests)).await;
        let mut stream = stream.expect("it begins").into_inner();
        let mut acks = Vec::new();
        while let Some(message) = stream.message().await.expect("acknowledgements") {
            acks.extend(message.acks);
        }
        let expected = about["expect"].as_array().expect("acknowledgements");
        assert_eq!(acks.len(), expected.len());
        for (ack, expect) in acks.into_iter().zip(expected) {
            assert_eq!(Value::from(ack.sequence), expect["sequence"]);
            match ack.result.expect("a result") {
                submit_ack::Result::Ack(_) => assert!(expect.get("code").is_none()),
                submit_ack::Result::Error(status) => check_error(&Error::from(status), expect),
            }
        }
    }

    async fn cancel(&mut self, about: &Value) {
        let request = CancelTaskRequest { task_id: self.task(about) };
        let answer = self.client.tasks().cancel_task(request).await.map_err(Error::from);
        if let Some(error) = about.get("error") {
            check_error(&answer.expect_err("it is refused"), error);
        } else {
            let task = answer.expect("it is cancelled").into_inner().task.expect("the task");
            check_task(&task, about.get("expect").unwrap_or(&Value::Null));
        }
    }

    async fn watch(&mut self, about: &Value) {
        let start = match (about.get("after"), about.get("after_task")) {
            (Some(cursor), _) => Start::After(cursor.as_str().expect("text").into()),
            (_, Some(task)) => {
                Start::After(self.tasks[task.as_str().expect("text")].cursor.clone())
            }
            _ if about["start"] == "OLDEST" => Start::Oldest,
            _ => Start::Live,
        };
        let max_outage = about.get("max_outage").map_or(PATIENCE, duration);
        let filter = about.get("filter").map(filter);
        let is_filtered = filter.is_some();
        let is_live = start == Start::Live;
        let mut watcher = self.client.watch(Watch { filter, max_outage, ..Watch::begin(start) });
        if is_live {
            // From here on nothing is missed.
            let seen = watcher.next().await;
            assert!(matches!(seen, Ok(Some(Seen::Started))), "{seen:?}");
        }
        let seeing = Seeing { watcher, is_filtered, unread: Vec::new(), last: 0, count: 0 };
        self.watches.insert(text(about, "as"), seeing);
    }

    async fn watch_until(&mut self, about: &Value) {
        let task = self.task(about);
        let seeing = self.watches.get_mut(&text(about, "watch")).expect("a watch");
        let is_last = |event: &Event| event.task_id == task && type_name(event) == about["type"];
        while !seeing.unread.iter().any(is_last) {
            let seen = seeing.watcher.next().await.expect("it goes on").expect("it does not end");
            let Seen::Events(batch) = seen else { continue };
            for event in batch.events {
                let follows = event.seq == seeing.last + 1 || seeing.last == 0;
                let is_later = event.seq > seeing.last;
                assert!(
                    follows || (seeing.is_filtered && is_later),
                    "{event:?} after {}",
                    seeing.last
                );
                seeing.last = event.seq;
                seeing.count += 1;
                seeing.unread.push(event);
            }
        }
        let of_task = seeing.unread.iter().filter(|event| event.task_id == task).map(type_name);
        assert_eq!(Value::from(of_task.collect::<Vec<_>>()), about["expect"]);
        if let Some(count) = about.get("expect_all") {
            assert_eq!(Value::from(seeing.count), *count);
        }
        seeing.unread.retain(|event| event.task_id != task);
    }
}

fn text(about: &Value, name: &str) -> String {
    about[name].as_str().unwrap_or_else(|| panic!("no {name} in {about}")).to_owned()
}

/// A duration as protobuf's JSON writes it.
fn duration(value: &Value) -> Duration {
    let seconds = value.as_str().and_then(|text| text.strip_suffix('s')).expect("a duration");
    Duration::from_secs_f64(seconds.parse().expect("seconds"))
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().map(Vec::as_slice).unwrap_or_default();
    texts.iter().map(|text| text.as_str().expect("text").to_owned()).collect()
}

/// A request as protobuf's JSON writes it, with the fields that the table uses.
fn request(json: &Value) -> SubmitRequest {
    let mut request = SubmitRequest::default();
    for (name, value) in json.as_object().expect("a request") {
        let as_text = || value.as_str().expect("text").to_owned();
        match name.as_str() {
            "kind" => request.kind = as_text(),
            "queue" => request.queue = as_text(),
            "requestId" => request.request_id = as_text(),
            "priority" => {
                request.priority = i32::try_from(value.as_i64().expect("a number")).expect("small");
            }
            "labels" => {
                let labels = value.as_object().expect("labels").iter();
                request.labels = labels
                    .map(|(key, value)| (key.clone(), value.as_str().expect("text").into()))
                    .collect();
            }
            "args" => {
                request.payload = Some(taskyard::client::args(value).expect("an object"));
            }
            "timeout" => request.timeout = span(duration(value)),
            "delay" => request.delay = Some(signed(value)),
            "whenFull" => {
                let when_full = WhenFull::from_str_name(&as_text()).expect("a value");
                request.when_full = when_full.into();
            }
            other => panic!("{other}: this test does not read it yet"),
        }
    }
    request
}

fn signed(value: &Value) -> prost_types::Duration {
    let seconds = value.as_str().and_then(|text| text.strip_suffix('s')).expect("a duration");
    prost_types::Duration { seconds: seconds.parse().expect("whole seconds"), nanos: 0 }
}

fn filter(json: &Value) -> EventFilter {
    let types = texts(&json["types"]);
    let number = |name: &String| EventType::from_str_name(name).expect("a type").into();
    EventFilter {
        queues: texts(&json["queues"]),
        types: types.iter().map(number).collect(),
        ..EventFilter::default()
    }
}

fn type_name(event: &Event) -> &'static str {
    event.r#type().as_str_name().trim_start_matches("EVENT_TYPE_")
}

fn check_task(task: &Task, expect: &Value) {
    for (name, value) in expect.as_object().into_iter().flatten() {
        let is: Value = match name.as_str() {
            "state" => task.state().as_str_name().trim_start_matches("TASK_STATE_").into(),
            "attempt" => task.attempt.into(),
            "priority" => task.priority.into(),
            "labels" => serde_json::json!(task.labels),
            "error" => task.error.as_ref().map(|error| error.reason.clone()).into(),
            other => panic!("{other}: this test does not check it yet"),
        };
        assert_eq!(is, *value, "{name} of {task:?}");
    }
}

fn check_error(error: &Error, expect: &Value) {
    let code = match error.code() {
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::Unavailable => "UNAVAILABLE",
        other => panic!("{other:?}: {error}"),
    };
    assert_eq!(expect["code"], code, "{error}");
    if let Some(reason) = expect.get("reason") {
        assert_eq!(*reason, error.reason(), "{error}");
    }
    if let Some(fields) = expect.get("violations") {
        let named: BTreeSet<_> = error.violations().iter().map(|v| v.subject.clone()).collect();
        assert_eq!(serde_json::json!(named), *fields, "{error:?}");
    }
    if expect.get("retry_after").is_some() {
        assert!(error.retry_after().is_some(), "{error:?}");
    }
    for name in texts(&expect["metadata"]) {
        assert!(error.metadata().contains_key(&name), "no {name} in {error:?}");
    }
    // It is one clear sentence, and nothing of the inside.
    let told = error.to_string();
    assert!(!told.is_empty() && !told.contains("Status {") && !told.contains('\n'), "{told}");
}
