//! The commands for operators: the real binary against a real `serve`, by exit
//! codes, stdout and stderr.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{Said, Serve, run, signal_to};

/// A server with two workers.
fn test_server(more: &[&str]) -> (TempDir, Serve) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("data"), more);
    (dir, serve)
}

/// What a command prints as JSON, one value a line.
fn told(serve: &Serve, args: &[&str]) -> Vec<Value> {
    serve.run(&[args, &["--output", "json"]].concat()).ends(0).json()
}

/// The only value that a command prints.
fn told_one(serve: &Serve, args: &[&str]) -> Value {
    let mut values = told(serve, args);
    assert_eq!(values.len(), 1, "{args:?}: {values:?}");
    values.remove(0)
}

fn ids(tasks: &[Value]) -> Vec<&str> {
    tasks.iter().map(|task| task["task_id"].as_str().expect("an id")).collect()
}

/// Submits a task that fails within milliseconds, waits for that, and returns its id.
fn failed(serve: &Serve, more: &[&str]) -> String {
    let late = ["sleep", "--args", r#"{"duration":"1h"}"#, "--timeout", "5ms"];
    let id = serve.submit(&[&late, more].concat());
    serve.run(&["wait", &id]).ends(1);
    id
}

#[test]
fn wrong_usage_is_2_before_anything_is_sent() {
    let wrong: [&[&str]; 11] = [
        &["configure", "mail"],
        &["configure", "mail", "--weight", "2", "--reset", "weight"],
        &["configure", "mail", "--rate", "none", "--burst", "2"],
        &["redrive", "--queue", "q"],
        &["redrive", "t1", "--all"],
        &["cancel", "--all", "--label", "a=1", "--label", "a=2"],
        &["resize", "0"],
        &["list", "--created-since", "yesterday"],
        &["stats", "--watch", "1ms"],
        &["top", "--interval", "1ms"],
        &["top"],
    ];
    for args in wrong {
        // Nobody answers there: it would be 4 if it came so far.
        let said = run(&[args, &["--server", "127.0.0.1:1"]].concat()).ends(2);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{args:?}: {}", said.err);
    }
}

#[test]
fn a_changed_setting_holds_over_a_restart_until_it_is_reset() {
    let (dir, serve) = test_server(&[]);
    let changed = ["configure", "mail", "--max-tasks", "1", "--rate", "30/m", "--burst", "5"];
    let said = serve.run(&changed).ends(0);
    let words = said.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in ["max_tasks 1 operator", "rate_limit 30/m, burst 5 operator"] {
        assert!(words.contains(line), "{line}: {}", said.out);
    }
    serve.submit(&["noop", "--queue", "mail", "--delay", "1h"]);
    let full = ["submit", "noop", "--queue", "mail", "--delay", "1h", "--reject-when-full"];
    serve.run(&full).ends(5);
    serve.signal(Signal::TERM);
    assert_eq!(serve.end().0, Some(0));

    let serve = Serve::start(&dir.path().join("data"), &[]);
    let mail = told_one(&serve, &["queues", "mail"]);
    assert_eq!(mail["overridden"], json!(["max_tasks", "rate_limit"]));
    assert_eq!(mail["settings"]["rate_limit"], json!({ "starts_per_second": 0.5, "burst": 5 }));
    serve.run(&full).ends(5);
    let mail = told_one(&serve, &["configure", "mail", "--reset", "max-tasks"]);
    assert_eq!(mail["overridden"], json!(["rate_limit"]));
    assert_eq!(mail["settings"]["max_tasks"], 100_000);
    serve.run(&full).ends(0);
    let mail = told_one(&serve, &["configure", "mail", "--reset", "all"]);
    assert_eq!(mail["overridden"], json!([]));
}

#[test]
fn every_bound_that_is_broken_is_told_at_once() {
    let (_dir, serve) = test_server(&[]);
    let said = serve
        .run(&["configure", "mail", "--weight", "0", "--max-tasks", "0", "--max-attempts", "101"])
        .ends(3);
    for field in ["weight", "max_tasks", "max_attempts"] {
        assert!(said.err.contains(field), "{field}: {}", said.err);
    }
    let said = serve.run(&["queues", "mail"]).ends(3);
    assert!(said.err.contains("no queue \"mail\""), "{}", said.err);
}

#[test]
fn a_paused_queue_starts_nothing_until_it_is_resumed() {
    let (dir, serve) = test_server(&[]);
    let said = serve.run(&["pause", "mail", "news"]).ends(0);
    assert_eq!(said.out.matches("paused").count(), 2, "{}", said.out);
    let id = serve.submit(&["noop", "--queue", "mail"]);
    serve.run(&["submit", "noop", "--wait"]).ends(0);
    assert_eq!(told_one(&serve, &["get", &id])["state"], "QUEUED");
    serve.signal(Signal::TERM);
    assert_eq!(serve.end().0, Some(0));

    let serve = Serve::start(&dir.path().join("data"), &[]);
    serve.run(&["submit", "noop", "--wait"]).ends(0);
    assert_eq!(told_one(&serve, &["get", &id])["state"], "QUEUED");
    let mail = told_one(&serve, &["queues", "mail"]);
    assert_eq!((&mail["paused"], &mail["block"]), (&json!(true), &json!("PAUSED")));
    let names: Vec<_> = told(&serve, &["queues"]).iter().map(|q| q["queue"].clone()).collect();
    assert_eq!(names, ["default", "mail", "news"]);
    serve.run(&["resume", "mail"]).ends(0);
    serve.run(&["wait", &id]).ends(0);
    let said = serve.run(&["pause", "Bad", "news"]).ends(3);
    assert!(said.err.contains("Bad") && said.out.contains("news"), "{}", said.err);
}

#[test]
fn events_tell_of_pauses() {
    let (_dir, serve) = test_server(&[]);
    serve.run(&["pause", "mail"]).ends(0);
    serve.run(&["resume", "mail"]).ends(0);
    // Two workers have started before.
    let said = serve.run(&["watch", "--from-start", "--count", "4"]).ends(0);
    assert!(said.out.contains("QUEUE_PAUSED     queue mail"), "{}", said.out);
    assert!(said.out.contains("QUEUE_RESUMED    queue mail"), "{}", said.out);
}

#[test]
fn workers_show_what_they_run_and_resize_changes_their_number() {
    let (_dir, serve) = test_server(&[]);
    let id = serve.submit(&["sleep", "--args", r#"{"duration":"1h"}"#]);
    let deadline = Instant::now() + Duration::from_mins(1);
    let busy = loop {
        assert!(Instant::now() < deadline, "no worker runs the task");
        let workers = told(&serve, &["workers"]);
        assert_eq!(workers.len(), 2, "{workers:?}");
        if let Some(busy) = workers.into_iter().find(|worker| worker.get("execution").is_some()) {
            break busy;
        }
    };
    assert_eq!(busy["execution"]["task_id"], id.as_str());
    assert_eq!(busy["execution"]["kind"], "sleep");
    let said = serve.run(&["workers"]).ends(0);
    assert!(said.out.contains(&id) && said.out.contains("idle"), "{}", said.out);
    let said = serve.run(&["resize", "5"]).ends(0);
    assert_eq!(said.out, "the pool has 5 workers\n");
    assert_eq!(told(&serve, &["workers"]).len(), 5);
    // The one that sleeps stays: the others are enough to go.
    let said = serve.run(&["resize", "1"]).ends(0);
    assert!(said.out.contains("1 worker"), "{}", said.out);
    assert_eq!(told_one(&serve, &["get", &id])["state"], "RUNNING");
    serve.run(&["cancel", &id]).ends(0);
}

#[test]
fn stats_are_a_screen_and_json() {
    let (_dir, serve) = test_server(&[]);
    let said = serve.run(&["stats"]).ends(0);
    assert!(said.out.starts_with("pool ") && said.out.contains("\nadvice "), "{}", said.out);
    serve.run(&["submit", "noop", "--wait"]).ends(0);
    let stats = told_one(&serve, &["stats", "--target-wait", "250ms"]);
    assert_eq!(stats["pool"]["workers"], 2);
    assert_eq!(stats["pool"]["counts"]["succeeded"], 1);
    assert_eq!(stats["advice"]["target_wait"], "0.25s");
    assert_eq!(stats["queues"][0]["queue"], "default");
    serve.run(&["stats", "--target-wait", "25h"]).ends(3);
    let said = serve.run(&["stats"]).ends(0);
    assert!(said.out.lines().any(|line| line.starts_with("default ")), "{}", said.out);
}

#[test]
fn stats_go_on_until_ctrl_c() {
    let (_dir, serve) = test_server(&[]);
    let mut child = serve
        .command(&["stats", "--watch", "100ms", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    for _ in 0..2 {
        let line = lines.next().expect("a screen").expect("text");
        let stats: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(stats["pool"]["workers"], 2);
    }
    signal_to(&child, Signal::INT);
    Said::of(child.wait_with_output().expect("it was started")).ends(0);
}

#[test]
fn failed_tasks_are_redriven_by_filter() {
    let (_dir, serve) = test_server(&[]);
    let first = failed(&serve, &["--label", "a=1"]);
    let second = failed(&serve, &["--label", "a=1", "--queue", "mail"]);
    let other = failed(&serve, &["--label", "a=2"]);
    let chosen = ["--label", "a=1", "--queue", "mail", "--queue", "default", "--kind", "sleep"];
    let listed = told(&serve, &[&["list", "--state", "failed"][..], &chosen].concat());
    assert_eq!(ids(&listed), [&first, &second]);
    let redrive = [&["redrive", "--all", "--since", "1h"][..], &chosen].concat();
    assert_eq!(told_one(&serve, &redrive), json!({ "redriven": 2, "complete": true }));
    for id in [&first, &second] {
        serve.run(&["wait", id]).ends(1);
        let task = told_one(&serve, &["get", id]);
        assert_eq!((&task["attempt"], &task["attempts"][1]["attempt"]), (&json!(2), &json!(2)));
    }
    assert_eq!(told_one(&serve, &["get", &other])["attempt"], 1);
    let said = serve.run(&["get", &first]).ends(0);
    assert!(said.out.contains("ATTEMPT  WORKER"), "{}", said.out);
    let said = serve.run(&["redrive", "--all", "--label", "a=3"]).ends(0);
    assert_eq!(said.out, "0 tasks redriven\n");
}

#[test]
fn tasks_are_redriven_by_their_ids() {
    let (_dir, serve) = test_server(&[]);
    let (first, second) = (failed(&serve, &[]), failed(&serve, &[]));
    let said = serve.run(&["redrive", &first, "nonsense", &second]).ends(3);
    assert!(said.out.contains(&first) && said.out.contains(&second), "{}", said.out);
    assert!(said.err.contains("nonsense"), "{}", said.err);
    for id in [&first, &second] {
        serve.run(&["wait", id]).ends(1);
        assert_eq!(told_one(&serve, &["get", id])["attempt"], 2);
    }
    let done = serve.submit(&["noop"]);
    serve.run(&["wait", &done]).ends(0);
    let said = serve.run(&["redrive", &done]).ends(3);
    assert!(said.err.contains("TASK_SUCCEEDED"), "{}", said.err);
}

#[test]
fn a_redrive_waits_for_room_unless_told_otherwise() {
    let (_dir, serve) = test_server(&["--queue-max-tasks", "1"]);
    let id = failed(&serve, &["--queue", "mail"]);
    serve.run(&["pause", "mail"]).ends(0);
    let filler = serve.submit(&["noop", "--queue", "mail"]);
    let said = serve.run(&["redrive", "--all", "--no-wait"]).ends(5);
    assert!(said.out == "0 tasks redriven\n" && said.err.contains("mail"), "{}", said.err);
    serve.run(&["redrive", &id, "--no-wait"]).ends(5);
    serve.run(&["redrive", "--all", "--timeout", "50ms"]).ends(6);
    serve.run(&["redrive", &id, "--timeout", "50ms"]).ends(6);
    let waiting = serve
        .command(&["redrive", "--all"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    serve.run(&["resume", "mail"]).ends(0);
    serve.run(&["wait", &filler]).ends(0);
    let said = Said::of(waiting.wait_with_output().expect("it was started")).ends(0);
    assert_eq!(said.out, "1 task redriven\n", "{}", said.err);
    serve.run(&["wait", &id]).ends(1);
    assert_eq!(told_one(&serve, &["get", &id])["attempt"], 2);
}

#[test]
fn tasks_that_have_not_ended_are_cancelled_by_filter() {
    let (_dir, serve) = test_server(&[]);
    for label in ["a=1", "a=1", "a=2"] {
        serve.submit(&["noop", "--delay", "1h", "--label", label]);
    }
    let done = serve.submit(&["noop", "--label", "a=1"]);
    serve.run(&["wait", &done]).ends(0);
    let cancel = ["cancel", "--all", "--label", "a=1"];
    assert_eq!(told_one(&serve, &cancel), json!({ "cancelled": 2, "complete": true }));
    assert_eq!(told(&serve, &["list", "--state", "cancelled"]).len(), 2);
    serve.run(&["cancel", "--all"]).ends(2);
    assert_eq!(serve.run(&["cancel", "--all", "--yes"]).ends(0).out, "1 task cancelled\n");
    assert_eq!(told_one(&serve, &["get", &done])["state"], "SUCCEEDED");
}

#[test]
fn a_list_is_narrowed_and_turned_round() {
    let (_dir, serve) = test_server(&[]);
    let first = serve.submit(&["noop", "--label", "a=1", "--label", "b=1"]);
    let second = serve.submit(&["noop", "--label", "a=1", "--queue", "mail"]);
    let third = serve.submit(&["sleep", "--args", r#"{"duration":"1ms"}"#, "--queue", "news"]);
    for id in [&first, &second, &third] {
        serve.run(&["wait", id]).ends(0);
    }
    let list = |args: &[&str]| {
        let listed = told(&serve, &[&["list"], args].concat());
        ids(&listed).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list(&["--newest-first"]), [&*third, &*second, &*first]);
    assert_eq!(list(&["--newest-first", "--limit", "1"]), [&*third]);
    assert_eq!(list(&["--label", "a=1"]), [&*first, &*second]);
    assert_eq!(list(&["--label", "a=1", "--label", "b=1"]), [&*first]);
    assert_eq!(list(&["--queue", "mail", "--queue", "news"]), [&*second, &*third]);
    assert_eq!(list(&["--kind", "sleep", "--kind", "exec"]), [&*third]);
    assert_eq!(list(&["--created-since", "1h", "--finished-since", "1h"]).len(), 3);
    assert!(list(&["--created-before", "1h"]).is_empty());
    assert!(list(&["--finished-before", "1h"]).is_empty());
}

#[test]
fn drain_ends_the_server_and_reports() {
    let (_dir, serve) = test_server(&["--drain-timeout", "1s"]);
    let id = serve.submit(&["sleep", "--args", r#"{"duration":"1h"}"#]);
    serve.submit(&["noop", "--delay", "1h"]);
    let said = serve.run(&["drain"]).ends(2);
    assert!(said.err.contains("--yes"), "{}", said.err);
    assert_eq!(told_one(&serve, &["get", &id])["state"], "RUNNING");
    assert_eq!(
        told_one(&serve, &["drain", "--yes"]),
        json!({ "finished": 0, "interrupted": 1, "remaining": 2, "complete": true })
    );
    assert_eq!(serve.end().0, Some(0));
}

#[test]
fn the_kinds_that_a_server_executes_are_listed() {
    let (_dir, serve) = test_server(&[]);
    assert_eq!(serve.run(&["kinds"]).ends(0).out, "exec\nnoop\nsleep\n");
    assert_eq!(told(&serve, &["kinds"])[1], json!({ "kind": "noop" }));
}

#[test]
fn a_setting_that_nobody_touched_is_a_default() {
    let (_dir, serve) = test_server(&["--max-attempts", "3"]);
    let said = serve.run(&["configure", "mail", "--weight", "2"]).ends(0);
    let words = said.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in ["max_tasks 100000 default", "max_attempts 3 configuration", "weight 2 operator"] {
        assert!(words.contains(line), "{line}: {}", said.out);
    }
}
