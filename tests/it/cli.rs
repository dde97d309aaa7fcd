//! The command line as scripts and people use it: the real binary against a
//! real `serve`, by its exit codes, its stdout and its stderr.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::process::{Said, Serve, run, signal_to, taskyard};

fn test_server() -> (TempDir, Serve) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("data"), &[]);
    (dir, serve)
}

#[test]
fn the_help_tells_the_exit_codes() {
    let said = run(&["--help"]).ends(0);
    assert!(said.out.contains("Exit codes:") && said.err.is_empty(), "{}", said.out);
    assert!(run(&["submit", "--help"]).ends(0).out.contains("--reject-when-full"));
}

#[test]
fn wrong_usage_is_2() {
    let wrong: [&[&str]; 6] = [
        &[],
        &["dance"],
        &["submit", "noop", "--delay", "soon"],
        &["submit", "noop", "--args", "[1]"],
        &["submit", "--from", "/nowhere/at/all"],
        &["get", "t1", "--server", "https://example.org"],
    ];
    for args in wrong {
        let said = run(args).ends(2);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{args:?}: {}", said.err);
    }
}

#[test]
fn a_missing_server_is_4_and_says_how_to_start_one() {
    let said = run(&["get", "t1", "--server", "127.0.0.1:1"]).ends(4);
    assert!(said.err.contains("http://127.0.0.1:1"), "{}", said.err);
    assert!(said.err.contains("taskyard serve"), "{}", said.err);
}

#[test]
fn submit_prints_the_id_and_get_shows_the_task() {
    let (_dir, serve) = test_server();
    let id = serve.submit(&["noop", "--label", "a=b", "--priority", "-3", "--request-id", "r7"]);
    assert_eq!(
        serve.submit(&["noop", "--label", "a=b", "--priority", "-3", "--request-id", "r7"]),
        id
    );
    serve.run(&["wait", &id]).ends(0);
    let said = serve.run(&["get", &id]).ends(0);
    for word in [&id, "SUCCEEDED", "noop", "a=b", "r7"] {
        assert!(said.out.contains(word), "{word}: {}", said.out);
    }
    let task = serve.run(&["get", &id, "--output", "json"]).ends(0).json().remove(0);
    assert_eq!(task["state"], "SUCCEEDED");
    assert_eq!(task["priority"], -3);
    assert_eq!(task["labels"]["a"], "b");
}

#[test]
fn submit_and_wait_tells_how_it_ended() {
    let (_dir, serve) = test_server();
    serve.run(&["submit", "sleep", "--args", r#"{"duration":"1ms"}"#, "--wait"]).ends(0);
    let late = ["submit", "sleep", "--args", r#"{"duration":"1h"}"#, "--timeout", "5ms", "--wait"];
    let said = serve.run(&late).ends(1);
    assert!(said.err.contains("FAILED") && said.err.contains("TIMEOUT"), "{}", said.err);
}

#[test]
fn a_refusal_is_3_and_names_what_is_wrong() {
    let (_dir, serve) = test_server();
    let said = serve.run(&["submit", "nosuch", "--priority", "9999"]).ends(3);
    assert!(said.err.contains("kind") && said.err.contains("priority"), "{}", said.err);
    serve.run(&["submit", "noop", "--request-id", "r"]).ends(0);
    let said = serve.run(&["submit", "noop", "--request-id", "r", "--priority", "1"]).ends(3);
    assert!(said.err.contains("REQUEST_ID_REUSED"), "{}", said.err);
    serve.run(&["get", "nonsense"]).ends(3);
    serve.run(&["watch", "--after", "nonsense"]).ends(3);
}

#[test]
fn a_full_queue_is_5() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("data"), &["--queue-max-tasks", "1"]);
    serve.submit(&["noop", "--delay", "1h"]);
    let said = serve.run(&["submit", "noop", "--delay", "1h", "--reject-when-full"]).ends(5);
    assert!(said.err.contains("QUEUE_FULL"), "{}", said.err);
}

#[test]
fn wait_ends_with_6_when_its_time_is_over() {
    let (_dir, serve) = test_server();
    let id = serve.submit(&["sleep", "--args", r#"{"duration":"1h"}"#]);
    let said = serve.run(&["wait", &id, "--timeout", "50ms"]).ends(6);
    assert!(said.err.contains(&id), "{}", said.err);
    serve.run(&["cancel", &id]).ends(0);
    let said = serve.run(&["wait", &id]).ends(1);
    assert!(said.err.contains("CANCELLED"), "{}", said.err);
    let done = serve.submit(&["noop"]);
    serve.run(&["wait", &done]).ends(0);
    let said = serve.run(&["cancel", &done]).ends(3);
    assert!(said.err.contains("TASK_ENDED"), "{}", said.err);
}

#[test]
fn list_filters_and_limits() {
    let (_dir, serve) = test_server();
    let ids: Vec<_> = (0..5).map(|_| serve.submit(&["noop", "--delay", "1h"])).collect();
    let said = serve.run(&["list"]).ends(0);
    assert_eq!(said.out.lines().count(), 6, "{}", said.out);
    assert!(ids.iter().all(|id| said.out.contains(id)), "{}", said.out);
    let listed = |args: &[&str]| {
        let said = serve.run(&[&["list", "--output", "json"], args].concat()).ends(0);
        said.json().iter().map(|task| task["task_id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&["--limit", "2"]), ids[..2]);
    assert_eq!(listed(&["--limit", "0", "--state", "scheduled"]), ids[..]);
    assert!(listed(&["--state", "failed"]).is_empty());
    assert!(listed(&["--queue", "other"]).is_empty());
}

#[test]
fn many_lines_become_tasks_in_their_order() {
    let (dir, serve) = test_server();
    let file = dir.path().join("tasks.ndjson");
    let line = |number| format!("{{\"kind\":\"noop\",\"requestId\":\"r{number}\"}}\n");
    fs::write(&file, (0..300).map(line).collect::<String>()).expect("a file");
    let file = file.to_str().expect("its name is UTF-8");
    let first = serve.run(&["submit", "--from", file, "--wait"]).ends(0);
    assert_eq!(first.out.lines().count(), 300);
    assert!(first.err.contains("300 succeeded"), "{}", first.err);
    // The same again finds the same tasks, in the same order.
    let again = serve.run(&["submit", "--from", file, "--wait"]).ends(0);
    assert_eq!(again.out, first.out);
    assert!(again.err.contains("300 known before"), "{}", again.err);
}

#[test]
fn bad_lines_are_told_by_number_and_the_others_go_on() {
    let (_dir, serve) = test_server();
    let mut child = serve
        .command(&["submit", "--from", "-", "--wait"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let lines = "{\"kind\":\"noop\"}\n{\"knd\":\"noop\"}\n\n{\"kind\":\"nosuch\"}\n\
                 {\"kind\":\"sleep\",\"args\":{\"duration\":\"1h\"},\"timeout\":\"5ms\"}\n";
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(lines.as_bytes()).expect("it reads");
    drop(stdin);
    let said = Said::of(child.wait_with_output().expect("it was started")).ends(1);
    assert_eq!(said.out.lines().count(), 2, "{}", said.out);
    for told in ["line 2: unknown key \"knd\"", "line 4: ", "line 5: task ", "1 failed"] {
        assert!(said.err.contains(told), "{told}: {}", said.err);
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let (_dir, serve) = test_server();
    serve.submit(&["noop"]);
    for args in
        [&["watch", "--from-start"][..], &["list"], &["watch", "--from-start", "--output", "json"]]
    {
        let mut child = serve
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        drop(child.stdout.take());
        let said = Said::of(child.wait_with_output().expect("it was started")).ends(0);
        assert!(said.err.is_empty(), "{args:?}: {}", said.err);
    }
}

#[test]
fn serve_drains_on_a_signal_and_tasks_survive() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    for signal in [Signal::TERM, Signal::INT] {
        let serve = Serve::start(&data, &["--drain-timeout", "1s"]);
        let id = serve.submit(&["sleep", "--args", r#"{"duration":"1h"}"#]);
        serve.signal(signal);
        assert_eq!(serve.end().0, Some(0));
        let again = Serve::start(&data, &["--drain-timeout", "1s"]);
        again.run(&["get", &id]).ends(0);
        again.run(&["cancel", &id]).ends(0);
    }
}

#[test]
fn a_second_signal_ends_serve_at_once_with_8() {
    let (_dir, mut serve) = test_server();
    serve.submit(&["sleep", "--args", r#"{"duration":"1h"}"#]);
    serve.signal(Signal::TERM);
    let mut line = String::new();
    while !line.contains("draining") {
        line.clear();
        assert!(serve.log.read_line(&mut line).expect("text") > 0, "it ended early");
    }
    serve.signal(Signal::TERM);
    let (code, log) = serve.end();
    assert_eq!(code, Some(8), "{log}");
    assert!(log.contains("second signal"), "{log}");
}

#[test]
fn serve_that_cannot_start_is_7() {
    let (dir, serve) = test_server();
    let other = dir.path().join("other");
    let other = other.to_str().expect("its name is UTF-8");
    let said = run(&["serve", "--listen", &serve.address, "--data-dir", other]).ends(7);
    assert!(said.err.contains(&serve.address), "{}", said.err);
    let data = dir.path().join("data");
    let data = data.to_str().expect("its name is UTF-8");
    run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", data]).ends(7);
}

#[test]
fn bad_settings_are_2_and_all_are_told() {
    let said = run(&["serve", "--workers", "none", "--drain-timeout", "soon"]).ends(2);
    assert!(said.err.contains("--workers") && said.err.contains("--drain-timeout"), "{}", said.err);
}

fn directory(files: usize) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for number in 0..files {
        fs::write(dir.path().join(format!("{number:03}")), "x").expect("a file");
    }
    dir
}

#[test]
fn the_demo_works_on_every_file() {
    let dir = directory(7);
    let dir = dir.path().to_str().expect("its name is UTF-8");
    let said = run(&["demo", dir, "--workers", "2"]).ends(0);
    for word in ["7 tasks: 7 succeeded", "worker-1", "worker-2", "p99", "taskyard serve"] {
        assert!(said.out.contains(word), "{word}: {}", said.out);
    }
    let said = run(&["demo", dir, "--max-files", "3"]).ends(0);
    assert!(said.out.contains("3 tasks") && said.err.contains("--max-files"), "{}", said.err);
}

#[test]
fn the_demo_says_what_it_cannot_work_on() {
    let dir = directory(0);
    let dir = dir.path().to_str().expect("its name is UTF-8");
    assert!(run(&["demo", dir]).ends(2).err.contains("no files"));
    assert!(run(&["demo", "/nowhere/at/all"]).ends(2).err.contains("no such directory"));
}

#[test]
fn the_demo_drains_on_ctrl_c_and_ends_with_130() {
    let dir = directory(200);
    // A checksum program that takes its time, and says that it has begun.
    let bin = tempfile::tempdir().expect("a temporary directory");
    let program = bin.path().join("sha256sum");
    fs::write(&program, "#!/bin/sh\n/bin/sleep 1\n").expect("a file");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, executable).expect("it is ours");
    let mut child = taskyard()
        .arg("demo")
        .arg(dir.path())
        .env("PATH", bin.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut err = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    while !line.contains("running") {
        line.clear();
        assert!(err.read_line(&mut line).expect("text") > 0, "it ended early");
    }
    signal_to(&child, Signal::INT);
    assert_eq!(child.wait().expect("it was started").code(), Some(130));
}

#[test]
fn what_is_mistyped_is_told_with_what_was_meant() {
    let (_dir, serve) = test_server();
    serve.submit(&["noop", "--queue", "mail"]);
    let said = serve.run(&["submit", "slepe"]).ends(3);
    assert!(said.err.contains("no handler for \"slepe\"; did you mean sleep? "), "{}", said.err);
    let meant = "there is no queue \"mial\"; did you mean mail?";
    let commands: [&[&str]; 4] = [
        &["list", "--queue", "mial"],
        &["watch", "--queue", "mial", "--until-caught-up"],
        &["cancel", "--all", "--queue", "mial"],
        &["redrive", "--all", "--queue", "mial"],
    ];
    for args in commands {
        let said = serve.run(args).ends(0);
        assert!(said.err.contains(meant), "{args:?}: {}", said.err);
    }
    assert!(serve.run(&["queues", "mial"]).ends(3).err.contains(meant));
    let said = serve.run(&["list", "--queue", "mail", "--kind", "noop"]).ends(0);
    assert!(said.err.is_empty(), "{}", said.err);
    let said = serve.run(&["list", "--kind", "nop"]).ends(0);
    assert!(
        said.err.contains("the server has no kind \"nop\"; did you mean noop?"),
        "{}",
        said.err
    );
    for (args, meant) in [
        (&["list", "--state", "runing"][..], "did you mean running?"),
        (&["watch", "--type", "worker_startd"], "did you mean worker_started?"),
        (&["submit", "--qeue", "q", "noop"], "--queue"),
    ] {
        let said = serve.run(args).ends(2);
        assert!(said.err.contains(meant), "{args:?}: {}", said.err);
    }
    let said = serve.run(&["pause", "mial"]).ends(0);
    assert!(said.err.contains("there was no queue \"mial\"; did you mean mail?"), "{}", said.err);
}

#[test]
fn no_message_is_written_for_programmers() {
    let wrong: [(&[&str], i32, &str); 7] = [
        (&["resize", "0"], 2, "0 is not between 1 and 10,000"),
        (&["list", "--limit", "many"], 2, "\"many\" is not a whole number"),
        (&["demo", "--workers", "0"], 2, "0 is not between 1 and 10,000"),
        (&["submit", "noop", "--max-attempts", "0"], 2, "0 is not between 1 and 100"),
        (&["get", "t1", "--server", "127.0.0.1:1"], 4, "connection refused"),
        (&["submit", "--from", "/nowhere"], 2, "/nowhere: no such file or directory"),
        (&["serve", "--config", "/nowhere"], 2, "no such file or directory"),
    ];
    for (args, code, right) in wrong {
        let said = run(args).ends(code);
        assert!(said.err.contains(right), "{args:?}: {}", said.err);
        for rust in ["os error", "..=", "found in string", "non-zero"] {
            assert!(!said.err.contains(rust), "{args:?}: {}", said.err);
        }
    }
}

#[test]
fn an_address_in_use_names_its_holder_and_the_flag() {
    let (dir, serve) = test_server();
    let address = serve.address.trim_start_matches("http://");
    let other = dir.path().join("other");
    let other = other.to_str().expect("a path");
    let said = run(&["serve", "--listen", address, "--data-dir", other]).ends(7);
    assert!(said.err.contains(address) && said.err.contains("--listen"), "{}", said.err);
    let holder = format!("held by taskyard (process {})", serve.child.id());
    assert!(said.err.contains(&holder), "{}", said.err);
}

#[test]
fn several_tasks_are_shown_and_waited_for() {
    let (_dir, serve) = test_server();
    let ids = ["1ms", "2ms"]
        .map(|span| serve.submit(&["sleep", "--args", &format!(r#"{{"duration":"{span}"}}"#)]));
    let said = serve.run(&["wait", &ids[0], &ids[1], "--output", "json"]).ends(0);
    let waited: Vec<_> = said.json().iter().map(|task| task["task_id"].clone()).collect();
    assert_eq!(waited, ids);
    let said = serve.run(&["get", &ids[0], "t1", &ids[1]]).ends(3);
    assert!(ids.iter().all(|id| said.out.contains(id.as_str())), "{}", said.out);
    assert!(said.err.contains("t1: "), "{}", said.err);
    let late = serve.submit(&["sleep", "--args", r#"{"duration":"1h"}"#, "--timeout", "5ms"]);
    serve.run(&["wait", &late, &ids[0]]).ends(1);
    let never = serve.submit(&["noop", "--delay", "1h"]);
    let said = serve.run(&["wait", &never, &ids[0], "--timeout", "20ms"]).ends(6);
    assert!(said.out.contains(&ids[0]), "{}", said.out);
}

#[test]
fn a_server_is_not_asked_for_where_there_is_none() {
    assert!(run(&["get", "--help"]).ends(0).out.contains("--server"));
    for args in [&["serve", "--help"][..], &["demo", "--help"], &["completions", "--help"]] {
        let said = run(args).ends(0);
        assert!(!said.out.contains("--server"), "{args:?}: {}", said.out);
    }
    let said = run(&["--server", "localhost:1", "man"]).ends(2);
    assert!(said.err.contains("--server means nothing to man"), "{}", said.err);
    // An empty variable counts as one that is not set.
    let mut command = taskyard();
    command.env("TASKYARD_SERVER", "").args(["get", "t1", "-s", "127.0.0.1:1"]);
    let said = Said::of(command.output().expect("the binary runs")).ends(4);
    assert!(said.err.contains("127.0.0.1:1"), "{}", said.err);
}

#[test]
fn shells_and_readers_of_manuals_get_theirs() {
    for shell in ["bash", "zsh", "fish"] {
        let said = run(&["completions", shell]).ends(0);
        assert!(said.out.contains("reject-when-full"), "{shell}: {}", said.out);
    }
    let said = run(&["man"]).ends(0);
    assert!(said.out.contains(".TH taskyard 1") && said.out.contains("redrive"), "{}", said.out);
    let dir = tempfile::tempdir().expect("a temporary directory");
    run(&["man", "--dir", dir.path().to_str().expect("a path")]).ends(0);
    assert!(dir.path().join("taskyard-submit.1").exists());
}

#[test]
fn an_interrupted_import_goes_on_and_submits_nothing_twice() {
    let (_dir, serve) = test_server();
    let mut child = serve
        .command(&["submit", "--from", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut input = child.stdin.take().expect("it is piped");
    let lines = "{\"kind\":\"noop\"}\n\n{\"kind\":\"noop\"}\n";
    input.write_all(lines.as_bytes()).expect("it is read");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut ids = String::new();
    for _ in 0..2 {
        out.read_line(&mut ids).expect("an id");
    }
    signal_to(&child, Signal::INT);
    let said = Said::of(child.wait_with_output().expect("it was started")).ends(130);
    drop(input);
    assert!(said.err.contains("it stopped after line 3; "), "{}", said.err);
    let last = said.err.lines().last().expect("a line");
    let (_, command) = last.split_once(": taskyard ").expect("a command");
    let args: Vec<_> = command.split(' ').collect();
    assert_eq!(args[..4], ["submit", "--from", "-", "--request-id-prefix"]);

    let mut again = serve
        .command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let more = format!("{lines}{{\"kind\":\"noop\"}}\n");
    again.stdin.take().expect("it is piped").write_all(more.as_bytes()).expect("it is read");
    let said = Said::of(again.wait_with_output().expect("it was started")).ends(0);
    assert!(said.out.starts_with(&ids) && said.out.lines().count() == 3, "{}", said.out);
    assert!(said.err.contains("(2 known before)"), "{}", said.err);
    assert!(!said.err.contains("request-id-prefix"), "{}", said.err);
}

#[test]
fn request_ids_of_an_import_are_its_prefix_and_the_lines() {
    let (dir, serve) = test_server();
    let file = dir.path().join("tasks.ndjson");
    fs::write(&file, "{\"kind\":\"noop\"}\n{\"kind\":\"nop\"}\n").expect("a file");
    let file = file.to_str().expect("a path");
    let args = ["submit", "--from", file, "--request-id-prefix", "orders 7"];
    let said = serve.run(&args).ends(1);
    let command = format!(": taskyard submit --from {file} --request-id-prefix 'orders 7'");
    assert!(said.err.trim_end().ends_with(&command), "{}", said.err);
    let id = said.out.trim();
    let task = serve.run(&["get", id, "--output", "json"]).ends(0).json().remove(0);
    assert_eq!(task["request_id"], "orders 7-1");
    // Mended in its place.
    fs::write(file, "{\"kind\":\"noop\"}\n{\"kind\":\"noop\"}\n").expect("a file");
    let said = serve.run(&args).ends(0);
    assert!(said.out.starts_with(id) && said.err.contains("(1 known before)"), "{}", said.err);
    assert_eq!(serve.run(&["list", "--output", "json"]).ends(0).json().len(), 2);
}

#[test]
fn a_task_that_is_no_longer_waited_for_goes_on() {
    let (_dir, serve) = test_server();
    let mut child = serve
        .command(&["submit", "sleep", "--args", r#"{"duration":"1h"}"#, "--wait"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let mut err = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut told = String::new();
    err.read_line(&mut told).expect("its id");
    let id = told.trim().strip_prefix("task ").expect("its id").to_owned();
    signal_to(&child, Signal::INT);
    assert_eq!(child.wait().expect("it was started").code(), Some(130));
    let rest: Vec<_> = err.lines().map(|line| line.expect("text")).collect();
    let rest = rest.join("\n");
    assert!(rest.contains(&format!("task {id} goes on")), "{rest}");
    assert!(rest.contains(&format!("taskyard wait {id}")), "{rest}");
    let task = serve.run(&["get", &id, "--output", "json"]).ends(0).json().remove(0);
    assert_eq!(task["cancel_requested"], false);
    let mut child = serve.command(&["wait", &id]).stderr(Stdio::piped()).spawn().expect("it runs");
    // Whether it is waited for yet or not: it says so, and ends.
    std::thread::yield_now();
    while !signals_are_heard(&child) {
        std::thread::yield_now();
    }
    signal_to(&child, Signal::INT);
    let mut said = String::new();
    let mut err = child.stderr.take().expect("it is piped");
    std::io::Read::read_to_string(&mut err, &mut said).expect("text");
    assert_eq!(child.wait().expect("it was started").code(), Some(130), "{said}");
    assert!(said.contains("the tasks go on"), "{said}");
}

/// Whether Ctrl-C no longer ends a process by itself.
fn signals_are_heard(child: &std::process::Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it is there");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
    u64::from_str_radix(caught.trim(), 16).expect("a mask") & (1 << (Signal::INT.as_raw() - 1)) != 0
}

#[test]
fn a_drain_tells_who_still_runs() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let more = ["--drain-timeout", "10s", "--cancel-grace", "0s"];
    let serve = Serve::start(&dir.path().join("data"), &more);
    let id = serve.submit(&["sleep", "--args", r#"{"duration":"1h"}"#]);
    serve
        .run(&["watch", "--from-start", "--type", "started", "--task", &id, "--count", "1"])
        .ends(0);
    let said = serve.run(&["drain", "--yes"]).ends(0);
    assert!(said.err.contains("1 task still runs, at most "), "{}", said.err);
    assert!(said.err.contains(&format!("{id} (sleep, for ")), "{}", said.err);
    let (code, log) = serve.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains(&format!("waiting for {id} (sleep, for ")), "{log}");
}
