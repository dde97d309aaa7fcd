//! Declared commands, run for real. All that is assumed of the machine is a
//! POSIX shell and its usual companions.

use std::{future::Future, os::unix::fs::PermissionsExt, path::Path, pin::pin, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::handler::args::testing::execution;

fn declared(command: &[&str]) -> ExecCommand {
    ExecCommand {
        command: command.iter().map(ToString::to_string).collect(),
        working_dir: None,
        env: BTreeMap::new(),
        max_output: ExecCommand::DEFAULT_MAX_OUTPUT,
    }
}

fn exec(command: ExecCommand) -> Exec {
    Exec::new(BTreeMap::from([("it".into(), command)])).expect("well declared")
}

/// A handler with the command `it`, a shell script that takes no arguments.
fn script(script: &str) -> Exec {
    exec(declared(&["sh", "-c", &script.replace('{', "{{").replace('}', "}}")]))
}

async fn result_of(exec: &Exec, args: &str) -> Value {
    let output = exec.run(execution(args)).await.expect("succeeds");
    let Output(Data::Json(text)) = output else { panic!("{output:?} is not JSON") };
    serde_json::from_str(&text).expect("JSON")
}

async fn run(text: &str) -> Value {
    result_of(&script(text), r#"{"command":"it"}"#).await
}

async fn failure_of(exec: &Exec) -> (String, String, bool) {
    let error = exec.run(execution(r#"{"command":"it"}"#)).await.expect_err("fails");
    (error.failure.reason, error.failure.message, error.permanent)
}

fn fields(exec: &Exec, args: &str) -> Vec<String> {
    let violations = exec.check(&Data::Json(args.into())).expect_err("refused");
    violations.into_iter().map(|violation| violation.field).collect()
}

/// Asks again and again, for at most ten seconds.
async fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.unwrap_or_else(|_| panic!("{what}"))
}

/// The process id that a script has written, followed by a line break.
fn written_pid(file: &Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.strip_suffix('\n')?.parse().ok()
}

/// Dead, or dead but for being reaped by whoever adopted it.
fn is_dead(pid: u32) -> Option<()> {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return Some(()) };
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.starts_with(['Z', 'X']).then_some(())
}

/// A script that starts a process which would run for long, writes its id to
/// the file `pid`, and goes on.
fn with_grandchild(directory: &TempDir, redirect: &str, then: &str) -> Exec {
    let script = format!("sleep 1000 {redirect} & echo $! > pid.new; mv pid.new pid; {then}");
    let working_dir = Some(directory.path().into());
    exec(ExecCommand { working_dir, ..declared(&["sh", "-c", &script]) })
}

/// Drives `running` until the script has written the id of its grandchild.
async fn until_started(running: impl Future + Unpin, directory: &TempDir) -> u32 {
    let file = directory.path().join("pid");
    tokio::select! {
        _ = running => panic!("ended too early"),
        pid = eventually("the script has started", || written_pid(&file)) => pid,
    }
}

#[tokio::test]
async fn the_result_has_both_outputs() {
    assert_eq!(
        run("echo out; echo err >&2").await,
        json!({
            "exit_code": 0,
            "stdout": "out\n", "stdout_truncated": false,
            "stderr": "err\n", "stderr_truncated": false,
        })
    );
}

#[tokio::test]
async fn output_beyond_the_limit_is_read_and_dropped() {
    let result = run("yes | head -c 10000000; echo done >&2").await;
    assert_eq!(result["stdout"].as_str().map(str::len), Some(64 << 10));
    assert_eq!(result["stdout_truncated"], true);
    assert_eq!(result["stdout_dropped_bytes"], 10_000_000 - (64 << 10));
    assert_eq!(result["stderr"], "done\n");
}

#[tokio::test]
async fn the_largest_result_is_as_large_as_declared() {
    let worst = r"head -c 100000 /dev/zero; head -c 100000 /dev/zero >&2";
    let output = script(worst).run(execution(r#"{"command":"it"}"#)).await.expect("succeeds");
    let limit = ExecCommand::max_result_size(ExecCommand::DEFAULT_MAX_OUTPUT);
    assert!((limit - 1024..=limit).contains(&output.0.len()), "{} of {limit}", output.0.len());
}

#[tokio::test]
async fn a_failing_command_is_told_with_its_last_words() {
    let failure = failure_of(&script("echo first >&2; echo >&2; echo last >&2; exit 3")).await;
    assert_eq!(failure, ("EXIT_STATUS".into(), "exit status 3: first\nlast".into(), false));
    let failure = failure_of(&script("exit 255")).await;
    assert_eq!(failure, ("EXIT_STATUS".into(), "exit status 255".into(), false));
}

#[tokio::test]
async fn a_killed_command_is_told_with_the_signal() {
    let failure = failure_of(&script("echo oh >&2; kill -9 $$")).await;
    assert_eq!(failure, ("SIGNAL".into(), "killed by SIGKILL: oh".into(), false));
}

#[tokio::test]
async fn what_cannot_be_started_fails_for_good_unless_it_is_gone() {
    let (reason, message, permanent) = failure_of(&exec(declared(&["/does/not/exist"]))).await;
    assert_eq!((reason.as_str(), permanent), ("SPAWN_FAILED", false));
    assert!(message.starts_with("cannot start \"/does/not/exist\": "), "{message}");
    let nowhere = ExecCommand { working_dir: Some("/nowhere".into()), ..declared(&["true"]) };
    let (reason, message, permanent) = failure_of(&exec(nowhere)).await;
    assert_eq!((reason.as_str(), permanent), ("SPAWN_FAILED", false));
    assert!(message.starts_with("cannot start \"true\" in \"/nowhere\": "), "{message}");
    let (reason, _, permanent) = failure_of(&exec(declared(&["/"]))).await;
    assert_eq!((reason.as_str(), permanent), ("SPAWN_FAILED", true));

    // The system's own search hands it to sh, as a shell would.
    let directory = TempDir::new().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "echo no interpreter named").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let formless = exec(declared(&[script.to_str().unwrap()]));
    let printed = result_of(&formless, r#"{"command":"it"}"#).await;
    assert_eq!(printed["stdout"], "no interpreter named\n");

    // Each is within the limit of one argument; together they are beyond that of all.
    let long = "x".repeat(120_000);
    let many: Vec<&str> = std::iter::once("true").chain((0..90).map(|_| &*long)).collect();
    let (reason, message, permanent) = failure_of(&exec(declared(&many))).await;
    assert_eq!((reason.as_str(), permanent), ("SPAWN_FAILED", true), "{message}");
}

#[tokio::test]
async fn values_are_neither_split_nor_interpreted() {
    let exec = exec(declared(&["printf", "<%s>", "{a}", "x{b}y{a}", "{c}", "{d}"]));
    let args = json!({"command": "it", "args": {
        "a": "; rm -rf / $HOME `id` *", "b": "{a} \"q\" 'q'\n", "c": true, "d": 3.0,
    }});
    let result = result_of(&exec, &args.to_string()).await;
    assert_eq!(
        result["stdout"],
        "<; rm -rf / $HOME `id` *><x{a} \"q\" 'q'\ny; rm -rf / $HOME `id` *><true><3>"
    );
}

#[tokio::test]
async fn stdin_is_the_text_or_nothing() {
    let cat = exec(declared(&["cat"]));
    let args = json!({"command": "it", "stdin": "é".repeat(30_000)});
    let result = result_of(&cat, &args.to_string()).await;
    assert_eq!(result["stdout"], args["stdin"]);
    assert_eq!(result_of(&cat, r#"{"command":"it"}"#).await["stdout"], "");
}

#[tokio::test]
async fn a_command_need_not_read_its_stdin() {
    let args = json!({"command": "it", "stdin": "x".repeat(1_000_000)});
    assert_eq!(result_of(&exec(declared(&["true"])), &args.to_string()).await["exit_code"], 0);
}

#[tokio::test]
async fn the_environment_is_clean() {
    let env = BTreeMap::from([("OWN".into(), "a b".into()), ("HOME".into(), "/elsewhere".into())]);
    let command = ExecCommand { env, ..declared(&["env"]) };
    let result = result_of(&exec(command), r#"{"command":"it"}"#).await;
    let lines = result["stdout"].as_str().expect("text").lines().collect::<Vec<_>>();
    for expected in
        ["OWN=a b", "HOME=/elsewhere", "TASKYARD_TASK_ID=t100000000", "TASKYARD_ATTEMPT=1"]
    {
        assert!(lines.contains(&expected), "{expected} is not in {lines:?}");
    }
    let known = ["OWN", "PATH", "HOME", "LANG", "TZ", "TASKYARD_TASK_ID", "TASKYARD_ATTEMPT"];
    let foreign = std::env::vars_os().any(|(name, _)| !known.iter().any(|known| name == *known));
    assert!(foreign, "this test proves nothing: its own environment is as clean");
    for line in lines {
        let name = line.split('=').next().unwrap_or_default();
        assert!(known.contains(&name), "{line}");
    }
}

#[tokio::test]
async fn dropping_the_attempt_kills_all_that_it_started() {
    let directory = TempDir::new().expect("a directory");
    let exec = with_grandchild(&directory, "", "wait");
    let mut running = Box::pin(exec.run(execution(r#"{"command":"it"}"#)));
    let grandchild = until_started(&mut running, &directory).await;
    assert_eq!(is_dead(grandchild), None);
    drop(running);
    eventually("the grandchild is dead", || is_dead(grandchild)).await;
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipes_does_not_hold_up_the_task() {
    let directory = TempDir::new().expect("a directory");
    let exec = with_grandchild(&directory, "", "echo done");
    let running = result_of(&exec, r#"{"command":"it"}"#);
    let result = tokio::time::timeout(Duration::from_secs(30), running).await.expect("returns");
    assert_eq!(result["stdout"], "done\n");
    let grandchild = written_pid(&directory.path().join("pid")).expect("written");
    eventually("the grandchild is dead", || is_dead(grandchild)).await;
}

#[tokio::test]
async fn a_grandchild_in_silence_is_killed_too() {
    let directory = TempDir::new().expect("a directory");
    let exec = with_grandchild(&directory, "< /dev/null > /dev/null 2>&1", "true");
    result_of(&exec, r#"{"command":"it"}"#).await;
    let grandchild = written_pid(&directory.path().join("pid")).expect("written");
    eventually("the grandchild is dead", || is_dead(grandchild)).await;
}

#[tokio::test]
async fn a_cancellation_terminates_the_whole_group() {
    let directory = TempDir::new().expect("a directory");
    // The leader does not end by itself: it waits for its child, which must get the signal.
    let exec = with_grandchild(&directory, "", "trap 'wait; exit 0' TERM; wait");
    let execution = execution(r#"{"command":"it"}"#);
    let cancel = execution.cancel.clone();
    let mut running = pin!(exec.run(execution));
    let grandchild = until_started(&mut running, &directory).await;
    cancel.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(30), running).await.expect("returns");
    let error = ended.expect_err("cancelled, though the status is 0");
    assert_eq!((error.failure.reason.as_str(), error.permanent), ("CANCELLED", false));
    eventually("the grandchild is dead", || is_dead(grandchild)).await;
}

#[test]
fn everything_wrong_with_a_task_is_said_at_once() {
    let exec = exec(declared(&["printf", "{a}", "{b}", "{c}", "{d}", "{a}"]));
    let args = json!({
        "command": "it",
        "args": {"a": null, "b": [], "c": "\0", "e": 1},
        "stdin": 3,
        "shell": true,
    });
    assert_eq!(
        fields(&exec, &args.to_string()),
        [
            "args.shell",
            "args.stdin",
            "args.args.e",
            "args.args.a",
            "args.args.b",
            "args.args.c",
            "args.args.d"
        ]
    );
    assert_eq!(
        fields(&exec, r#"{"args":[],"stdin":1}"#),
        ["args.stdin", "args.command", "args.args"]
    );
    let long = json!({"command": "it", "args": {"a": "x".repeat(131_072), "b": 1, "c": 1, "d": 1}});
    assert_eq!(fields(&exec, &long.to_string()), ["args.args"]);
}

#[test]
fn an_unknown_command_is_answered_with_the_known_ones() {
    let described = |exec: &Exec, command: &str| {
        let args = json!({ "command": command }).to_string();
        let violations = exec.check(&Data::Json(args.into())).expect_err("refused");
        assert_eq!((violations.len(), violations[0].field.as_str()), (1, "args.command"));
        violations[0].description.clone()
    };
    let commands = ["build", "checksum"].map(|name| (name.to_owned(), declared(&["true"])));
    let exec = Exec::new(BTreeMap::from(commands)).expect("well declared");
    assert_eq!(
        described(&exec, "deploy"),
        "\"deploy\" is not declared; declared are build, checksum"
    );
    assert_eq!(
        described(&exec, "chekcsum"),
        "\"chekcsum\" is not declared; did you mean checksum?"
    );
    let none = described(&Exec::default(), "deploy");
    assert!(none.contains("[exec.NAME]"), "{none}");
}

#[test]
fn a_declaration_that_cannot_run_is_refused() {
    let refused = |command: &[&str]| {
        Exec::new(BTreeMap::from([("it".into(), declared(command))])).expect_err("refused")
    };
    assert_eq!(refused(&[]), DeclarationError::NoProgram("it".into()));
    assert_eq!(refused(&["{a}"]), DeclarationError::ProgramIsOpen("it".into()));
    assert!(matches!(refused(&["a", "{"]), DeclarationError::Template { .. }));
}

#[test]
fn a_whole_number_that_may_have_been_another_is_refused_by_name() {
    let exec = exec(declared(&["echo", "{id}"]));
    // 3889108265204450001, as whoever sends a double sends it; and 2^53, which 2^53 + 1 becomes.
    for number in ["3.88910826520445e18", "9007199254740992.0", "-1e300"] {
        let args = format!(r#"{{"command":"it","args":{{"id":{number}}}}}"#);
        let violations = exec.check(&Data::Json(args.into())).expect_err(number);
        assert_eq!(violations[0].field, "args.args.id");
        assert!(violations[0].description.contains("send it as a string"), "{violations:?}");
    }
}

#[tokio::test]
async fn numbers_are_given_in_decimal() {
    let exec = exec(declared(&["echo", "{n}"]));
    for (number, text) in [
        ("9007199254740991", "9007199254740991"),
        ("-7", "-7"),
        ("1e15", "1000000000000000"),
        ("0.25", "0.25"),
        ("-0.0", "-0"),
    ] {
        let args = format!(r#"{{"command":"it","args":{{"n":{number}}}}}"#);
        assert_eq!(result_of(&exec, &args).await["stdout"], format!("{text}\n"));
    }
}
