//! What is left of a command of `exec` that did not succeed, and what is told of commands
//! that cannot be started: by the real binary.

use std::{fs, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{Said, Serve, run};

/// A file that declares these commands, each a script of the shell.
fn declare(dir: &Path, scripts: &[(&str, &str, &str)]) -> String {
    let declared = scripts.iter().map(|(name, more, script)| {
        let script = script.replace('{', "{{").replace('}', "}}");
        format!("[exec.{name}]\ncommand = [\"sh\", \"-c\", {script:?}]\n{more}\n")
    });
    let config = dir.join("taskyard.toml");
    fs::write(&config, declared.collect::<String>()).unwrap();
    config.to_str().unwrap().to_owned()
}

fn submit(server: &Serve, command: &str, more: &[&str]) -> String {
    let args = json!({ "command": command }).to_string();
    server.submit(&[&["exec", "--args", &args], more].concat())
}

fn ended(server: &Serve, id: &str) -> Value {
    let said = server.run(&["wait", id, "--output", "json"]).ends(1);
    said.json().remove(0)
}

fn logs(server: &Serve, args: &[&str]) -> Said {
    server.run(&[&["logs"], args].concat())
}

#[test]
fn a_failure_keeps_what_was_printed_within_its_bound() {
    let dir = TempDir::new().unwrap();
    let speak = "echo out $TASKYARD_ATTEMPT; printf 'err\\377' >&2; exit 3";
    let noise = "for i in 1 2 3 4 5 6 7 8; do echo noise-$i; echo fuss-$i >&2; done; kill -9 $$";
    let scripts =
        [("talk", "", speak), ("noise", "max_output = \"16B\"", noise), ("good", "", "echo good")];
    let config = declare(dir.path(), &scripts);
    let server = Serve::start(&dir.path().join("data"), &["--config", &config]);

    let id = submit(&server, "talk", &["--max-attempts", "2"]);
    let task = ended(&server, &id);
    let kept = json!({"stdout": "out 2\n", "stderr": "err\u{fffd}", "exit_status": 3});
    assert_eq!(task["attempts"][1]["output"], kept, "{task}");
    let raw = server.command(&["logs", &id]).output().unwrap();
    assert_eq!(raw.stdout, b"out 2\n");
    assert!(raw.stderr.starts_with(b"err\xff"), "byte for byte: {raw:?}");
    let first = server.command(&["logs", &id, "--attempt", "1"]).output().unwrap();
    assert_eq!(first.stdout, b"out 1\n");
    let none = logs(&server, &[&id, "--attempt", "3"]).ends(3);
    assert!(none.err.contains("its latest is 2"), "{}", none.err);

    let id = submit(&server, "noise", &[]);
    let output = &ended(&server, &id)["attempts"][0]["output"];
    assert_eq!(output["stdout"], "noise-7\nnoise-8\n", "the end of it");
    assert_eq!((&output["stdout_dropped_bytes"], &output["exit_signal"]), (&json!(48), &json!(9)));
    let said = logs(&server, &[&id]).ends(0);
    assert!(said.err.contains("48 bytes of stdout before this were not kept"), "{}", said.err);
    assert!(said.err.contains("fuss-8\n") && !said.err.contains("fuss-1"), "{}", said.err);
    assert!(said.err.contains("killed by signal 9"), "{}", said.err);

    let id = submit(&server, "good", &[]);
    server.run(&["wait", &id]).ends(0);
    let said = logs(&server, &[&id]).ends(3);
    assert!(said.err.contains("succeeded"), "{}", said.err);
    // It is on disk.
    let listed = server.run(&["list", "--state", "failed", "--output", "json"]).ends(0).json();
    assert!(listed.iter().all(|task| task["attempts"].is_null()), "not in lists");
    server.signal(Signal::KILL);
}

#[test]
fn a_timeout_is_told_politely_first_and_keeps_what_was_printed() {
    let dir = TempDir::new().unwrap();
    let polite = "trap 'echo polite; exit 0' TERM; echo begun; sleep 1000 & wait";
    let stubborn = "trap '' TERM; echo begun; while :; do sleep 0.05; done";
    let config = declare(dir.path(), &[("polite", "", polite), ("stubborn", "", stubborn)]);
    let more = ["--config", &config, "--cancel-grace", "1s"];
    let server = Serve::start(&dir.path().join("data"), &more);
    for (command, printed, told) in [
        ("polite", "begun\npolite\n", "exit status 0"),
        ("stubborn", "begun\n", "killed, as it did not end in time"),
    ] {
        let id = submit(&server, command, &["--timeout", "1s"]);
        let task = ended(&server, &id);
        assert_eq!(task["error"]["reason"], "TIMEOUT", "{task}");
        let said = logs(&server, &[&id]).ends(0);
        assert_eq!(said.out, printed);
        assert!(said.err.contains(told), "{}", said.err);
    }
    server.signal(Signal::KILL);
}

#[test]
fn commands_that_cannot_be_started_are_told_at_start_and_all_at_once() {
    let dir = TempDir::new().unwrap();
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let config = dir.path().join("taskyard.toml");
    let text = format!(
        "[exec.a]\ncommand = [\"no-such-program\"]\n\
         [exec.b]\ncommand = [\"true\"]\nworking_dir = \"/nowhere\"\n\
         [exec.c]\ncommand = [{plain:?}]\n\
         [exec.d]\ncommand = [\"./gone\", \"{{x}}\"]\n\
         [exec.e]\ncommand = [\"true\"]\n"
    );
    fs::write(&config, text).unwrap();
    let data = dir.path().join("data");
    let (config, data_dir) = (config.to_str().unwrap(), data.to_str().unwrap());
    let args = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir, "--config", config];
    let said = run(&args).ends(2);
    for wrong in [
        "[exec.a] command: there is no program \"no-such-program\" in /",
        "[exec.b] working_dir: there is no directory \"/nowhere\"",
        "is not an executable file",
        "[exec.d] command: there is no program \"./gone\"",
    ] {
        assert!(said.err.contains(wrong), "{wrong:?} is not in {}", said.err);
    }
    assert!(!said.err.contains("exec.e") && !data.exists(), "{}", said.err);
}

#[test]
fn stdin_is_what_the_task_says() {
    let dir = TempDir::new().unwrap();
    let config = declare(dir.path(), &[("cat", "", "cat")]);
    let server = Serve::start(&dir.path().join("data"), &["--config", &config]);
    for (args, printed) in
        [(r#"{"command":"cat","stdin":"two\nlines"}"#, "two\nlines"), (r#"{"command":"cat"}"#, "")]
    {
        let said = server.run(&["submit", "exec", "--args", args, "--wait"]).ends(0);
        let result: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(result["stdout"], printed);
    }
    server.signal(Signal::KILL);
}
