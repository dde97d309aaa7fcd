//! `taskyard watch` as scripts and people use it: the real binary against a real
//! `serve`, over runs, restarts and crashes.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Stdio},
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::{Said, Serve, signal_to};

fn test_server() -> (TempDir, Serve) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("data"), &[]);
    (dir, serve)
}

#[test]
fn watch_prints_events_and_goes_on_from_a_cursor() {
    let (_dir, serve) = test_server();
    let accepted = serve.run(&["submit", "noop", "--output", "json"]).ends(0).json().remove(0);
    let (id, cursor) = (accepted["task_id"].clone(), accepted["cursor"].clone());
    serve.run(&["wait", id.as_str().expect("a string")]).ends(0);
    let cursor = cursor.as_str().expect("a string");
    let said = serve.run(&["watch", "--after", cursor, "--count", "3", "--output", "json"]).ends(0);
    let events = said.json();
    assert!(events.iter().all(|event| event["task_id"] == id), "{}", said.out);
    assert_eq!(events[2]["type"], "SUCCEEDED");
    assert!(said.err.contains("watch --after"), "{}", said.err);
    assert!(!said.err.contains("same filters"), "{}", said.err);
    let text = serve.run(&["watch", "--from-start", "--count", "3"]).ends(0);
    assert_eq!(text.out.lines().count(), 3, "{}", text.out);
    let filtered = ["watch", "--from-start", "--count", "1", "--type", "STARTED"];
    let said = serve.run(&filtered).ends(0);
    assert!(said.err.contains(" with the same filters"), "{}", said.err);
}

#[test]
fn watch_ends_with_0_when_it_is_asked_to() {
    let (_dir, serve) = test_server();
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = serve
            .command(&["watch", "--from-start"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        out.read_line(&mut String::new()).expect("an event");
        signal_to(&child, signal);
        let said = Said::of(child.wait_with_output().expect("it was started")).ends(0);
        assert!(said.err.contains("taskyard watch --after"), "{}", said.err);
    }
}

#[test]
fn watch_goes_on_when_the_server_is_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let serve = Serve::start(&data, &[]);
    let address = serve.address.clone();
    let mut child = serve
        .command(&["watch", "--from-start", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut events = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut next = || -> Value {
        let line = events.next().expect("an event").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    let mut last = next()["seq"].as_u64().expect("a number");
    serve.signal(Signal::TERM);
    assert_eq!(serve.end().0, Some(0));
    let again = Serve::at(&address, &data, &[]);
    let id = again.submit(&["noop"]);
    loop {
        let event = next();
        let seq = event["seq"].as_u64().expect("a number");
        assert_eq!(seq, last + 1, "no event is missed or comes twice");
        last = seq;
        if event["task_id"] == id.as_str() && event["type"] == "SUCCEEDED" {
            break;
        }
    }
    signal_to(&child, Signal::INT);
    assert_eq!(child.wait().expect("it was started").code(), Some(0));
}

#[test]
fn a_draining_server_ends_a_watch_that_does_not_reconnect_with_4() {
    let (_dir, serve) = test_server();
    let mut child = serve
        .command(&["watch", "--from-start", "--no-reconnect"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    out.read_line(&mut String::new()).expect("an event");
    serve.signal(Signal::TERM);
    let said = Said::of(child.wait_with_output().expect("it was started")).ends(4);
    assert!(said.err.contains("DRAINING"), "{}", said.err);
    assert_eq!(serve.end().0, Some(0));
}

/// A watch that prints JSON, and what it prints.
struct Watching {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(serve: &Serve, args: &[&str]) -> Self {
        let mut child = serve
            .command(&[&["watch", "--output", "json"], args].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    /// The next line, if it has not ended.
    fn next(&mut self) -> Option<Value> {
        let line = self.lines.next()?.expect("text");
        Some(serde_json::from_str(&line).expect("JSON"))
    }

    /// Reads up to the end of a task; the numbers of the events.
    fn up_to_the_end_of(&mut self, task_id: &str) -> Vec<u64> {
        let mut seqs = Vec::new();
        loop {
            let event = self.next().expect("an event");
            seqs.push(event["seq"].as_u64().expect("a number"));
            if event["task_id"] == task_id && event["type"] == "SUCCEEDED" {
                return seqs;
            }
        }
    }

    /// Ends it so; what it told and had still to print.
    fn end(mut self, signal: Signal) -> (Vec<Value>, String) {
        signal_to(&self.child, signal);
        let rest = std::iter::from_fn(|| self.next()).collect();
        let output = self.child.wait_with_output().expect("it was started");
        (rest, String::from_utf8(output.stderr).expect("text"))
    }
}

fn seqs(events: &[Value]) -> impl Iterator<Item = u64> {
    events.iter().map(|event| event["seq"].as_u64().expect("a number"))
}

#[test]
fn a_cursor_file_goes_on_over_runs_and_crashes_of_the_server() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (data, file) = (dir.path().join("data"), dir.path().join("cursor"));
    let file = file.to_str().expect("text");
    let mut serve = Serve::start(&data, &[]);
    let mut seen = Vec::new();
    for crash in [Signal::TERM, Signal::KILL, Signal::TERM] {
        let args = ["--from-start", "--cursor-file", file];
        let mut watching = Watching::start(&serve, &args);
        seen.extend(watching.up_to_the_end_of(&serve.submit(&["noop"])));
        // The watch outlives the server, and is then ended itself.
        serve.signal(crash);
        let address = serve.address.clone();
        serve.end();
        serve = Serve::at(&address, &data, &[]);
        seen.extend(watching.up_to_the_end_of(&serve.submit(&["noop"])));
        let (rest, told) = watching.end(Signal::INT);
        seen.extend(seqs(&rest));
        assert!(told.contains("going on where it had stopped"), "{told}");
        assert!(told.contains(&format!("keep {file}")), "{told}");
    }
    let expected: Vec<u64> = (1..=seen.len() as u64).collect();
    assert_eq!(seen, expected, "no event is missed or comes twice");
}

#[test]
fn a_cursor_file_holds_what_was_printed_when_the_watch_is_killed() {
    let (dir, serve) = test_server();
    let file = dir.path().join("cursor");
    let args = ["--from-start", "--cursor-file", file.to_str().expect("text")];
    let mut watching = Watching::start(&serve, &args);
    let last = watching.up_to_the_end_of(&serve.submit(&["noop"])).pop().expect("events");
    // What it prints at once may be cut off by the kill; what it printed is not lost.
    let (rest, _) = watching.end(Signal::KILL);
    let last = seqs(&rest).last().unwrap_or(last);
    let id = serve.submit(&["noop"]);
    let mut again = Watching::start(&serve, &args);
    let first = again.up_to_the_end_of(&id)[0];
    assert!(first <= last + 1, "{first} after {last}: events were missed");
    assert!(first > 1, "the file held nothing");
    again.end(Signal::INT);
}

#[test]
fn a_count_leaves_the_cursor_within_a_batch() {
    let (dir, serve) = test_server();
    serve.run(&["submit", "noop", "--wait"]).ends(0);
    let file = dir.path().join("cursor");
    let file = file.to_str().expect("text");
    let mut seen = Vec::new();
    for _ in 0..5 {
        let args =
            ["watch", "--from-start", "--cursor-file", file, "--count", "1", "--output", "json"];
        seen.extend(seqs(&serve.run(&args).ends(0).json()));
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
}

#[test]
fn a_cursor_file_of_no_use_is_told_and_left_alone() {
    let (dir, serve) = test_server();
    let other = Serve::start(&dir.path().join("other"), &[]);
    let cursor = other.run(&["submit", "noop", "--output", "json"]).ends(0).json().remove(0);
    let cursor = cursor["cursor"].as_str().expect("a cursor").to_owned();
    let file = dir.path().join("cursor");
    fs::write(&file, &cursor).expect("it can be written");
    let path = file.to_str().expect("text");
    let said = serve.run(&["watch", "--cursor-file", path]).ends(3);
    assert!(said.err.contains("CURSOR_FROM_ANOTHER_STORE"), "{}", said.err);
    assert!(said.err.contains("empty the file to begin anew"), "{}", said.err);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), cursor);

    fs::write(&file, "no cursor\n").expect("it can be written");
    assert!(serve.run(&["watch", "--cursor-file", path]).ends(2).err.contains("holds no cursor"));
    let nowhere = Path::new("/nowhere/at/all");
    let said = serve.run(&["watch", "--cursor-file", nowhere.to_str().expect("text")]).ends(2);
    assert!(said.err.contains("/nowhere/at/all"), "{}", said.err);
}

#[test]
fn flags_choose_the_events() {
    let (_dir, serve) = test_server();
    let mail = serve.submit(&["noop", "--queue", "mail", "--label", "customer=42"]);
    let other = serve.submit(&["sleep", "--args", r#"{"duration":"1ms"}"#]);
    serve.run(&["wait", &mail]).ends(0);
    serve.run(&["wait", &other]).ends(0);
    let watch = |args: &[&str]| {
        let all =
            [&["watch", "--from-start", "--until-caught-up", "--output", "json"], args].concat();
        let events = serve.run(&all).ends(0).json();
        let told =
            |event: &Value| format!("{} {}", event["type"], event["task_id"]).replace('"', "");
        events.iter().map(told).collect::<Vec<_>>()
    };
    let life = |id: &str| ["SUBMITTED", "STARTED", "SUCCEEDED"].map(|name| format!("{name} {id}"));
    assert_eq!(watch(&["--queue", "mail"]), life(&mail));
    assert_eq!(watch(&["--label", "customer=42"]), life(&mail));
    assert_eq!(watch(&["--kind", "sleep"]), life(&other));
    assert_eq!(watch(&["--task", &other]), life(&other));
    assert_eq!(watch(&["--type", "succeeded", "--kind", "noop"]), [format!("SUCCEEDED {mail}")]);
    assert_eq!(watch(&["--queue", "mail", "--kind", "sleep"]), [""; 0]);
    let workers = watch(&["--worker", "worker-1"]);
    assert!(workers[0].starts_with("WORKER_STARTED"), "{workers:?}");
    let labels =
        serve.run(&["watch", "--from-start", "--task", &mail, "--count", "1", "--output", "json"]);
    assert_eq!(labels.json()[0]["labels"]["customer"], "42");
}

#[test]
fn a_followed_task_is_shown_from_its_beginning_to_its_end() {
    let (_dir, serve) = test_server();
    let id = serve.submit(&["sleep", "--args", r#"{"duration":"300ms"}"#]);
    let types = |said: &Said| {
        said.json()
            .iter()
            .map(|event| event["type"].as_str().expect("text").to_owned())
            .collect::<Vec<_>>()
    };
    let args = ["watch", "--follow-task", &id, "--output", "json"];
    for _ in 0..2 {
        // While it runs, and long after.
        let said = serve.run(&args).ends(0);
        assert_eq!(types(&said), ["SUBMITTED", "STARTED", "SUCCEEDED"]);
    }
    let failing = serve.submit(&["sleep", "--args", r#"{"duration":"1h"}"#, "--timeout", "100ms"]);
    let said = serve.run(&["watch", "--follow-task", &failing, "--follow-task", &id]).ends(1);
    assert!(said.err.contains(&format!("task {failing} FAILED")), "{}", said.err);
    assert!(said.err.lines().count() == 1, "there is nothing to go on from: {}", said.err);
    // A redrive makes the end in its history one of many.
    serve.run(&["redrive", &failing]).ends(0);
    let said = serve.run(&["watch", "--follow-task", &failing, "--output", "json"]).ends(1);
    assert_eq!(types(&said)[2..5], ["FAILED", "REDRIVEN", "STARTED"]);

    let said =
        serve.run(&["watch", "--follow-task", "t1nothere", "--follow-task", "t2nothere"]).ends(3);
    assert!(said.err.contains("t1nothere") && said.err.contains("t2nothere"), "{}", said.err);
}

#[test]
fn a_snapshot_tells_what_stands_before_what_happens() {
    let (_dir, serve) = test_server();
    let id = serve.submit(&["noop", "--delay", "1h"]);
    let mut watching = Watching::start(&serve, &["--snapshot"]);
    assert_eq!(watching.next().expect("a line")["snapshot_begun"], true);
    let mut workers = 0;
    let task = loop {
        let line = watching.next().expect("a line");
        if line.get("worker").is_none() {
            break line;
        }
        workers += 1;
    };
    assert_eq!(workers, 2);
    assert_eq!(
        (&task["task"]["task_id"], &task["task"]["state"]),
        (&id.as_str().into(), &"SCHEDULED".into())
    );
    let end = watching.next().expect("a line");
    assert!(end["snapshot_ended"] == true && end["cursor"].is_string(), "{end}");
    serve.run(&["cancel", &id]).ends(0);
    assert_eq!(watching.next().expect("an event")["type"], "CANCELLED");
    watching.end(Signal::INT);
    let text = serve.run(&["watch", "--snapshot", "--until-caught-up"]).ends(0);
    assert!(text.out.contains("worker-1") && text.out.contains("as it stands"), "{}", text.out);
}

#[test]
fn a_gap_ends_a_watch_with_3_or_is_told() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("data"), &["--max-events", "1000"]);
    let accepted = serve.run(&["submit", "noop", "--output", "json"]).ends(0).json().remove(0);
    let cursor = accepted["cursor"].as_str().expect("text").to_owned();
    let tasks = dir.path().join("tasks.ndjson");
    fs::write(&tasks, "{\"kind\":\"noop\"}\n".repeat(500)).expect("it can be written");
    let said = loop {
        serve.run(&["submit", "--from", tasks.to_str().expect("text"), "--wait"]).ends(0);
        let said = serve.run(&["watch", "--after", &cursor, "--until-caught-up"]);
        if said.code != 0 {
            break said;
        }
    };
    let said = said.ends(3);
    assert!(
        said.err.contains("CURSOR_EXPIRED") && said.err.contains("--skip-gaps"),
        "{}",
        said.err
    );
    let args = ["watch", "--after", &cursor, "--until-caught-up", "--skip-gaps"];
    let said = serve.run(&args).ends(0);
    assert!(said.err.contains("no longer kept; going on after them"), "{}", said.err);
    let said = serve.run(&[&args[..], &["--output", "json"]].concat()).ends(0);
    let lines = said.json();
    let missing = lines[0]["gap"]["missing_events"].as_u64().expect("a number");
    let (before, first) = (3, lines[1]["seq"].as_u64().expect("a number"));
    assert!(missing > 0 && first > before, "{}", said.out);
}

/// A span as JSON writes it, in nanoseconds.
fn nanos(span: &Value) -> i128 {
    let text = span.as_str().and_then(|text| text.strip_suffix('s')).expect("a span");
    let (seconds, part) = text.split_once('.').unwrap_or((text, ""));
    let number = |text: &str| text.parse::<i128>().expect("a number");
    number(seconds) * 1_000_000_000 + number(&format!("{part:0<9}"))
}

#[test]
fn an_event_and_its_task_tell_the_same_time_that_it_ran() {
    let (_dir, serve) = test_server();
    let late = ["sleep", "--args", r#"{"duration":"1h"}"#, "--timeout", "20ms"];
    for args in [&["noop"][..], &["sleep", "--args", r#"{"duration":"5ms"}"#], &late] {
        let id = serve.submit(args);
        let followed = serve.run(&["watch", "--follow-task", &id, "--output", "json"]);
        let ran = followed.json().pop().map(|event| nanos(&event["ran"])).expect("an end");
        let task = serve.run(&["get", &id, "--output", "json"]).ends(0).json().remove(0);
        let time = |name: &str| {
            let text = task[name].as_str().expect("a time");
            text.parse::<jiff::Timestamp>().expect("a time").as_nanosecond()
        };
        assert_eq!(ran, time("finish_time") - time("start_time"), "{args:?}: {task}");
    }
}
