//! What a process has from whoever started it: signals that are blocked or ignored, few
//! descriptors, orphans to wait for. None of it changes what the server does.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use taskyard::proto::v1::{
    EventType, RetryPolicy, SubmitRequest, Task, TaskState, submit_request::Payload,
    task_result::Output,
};

use crate::support::{
    self, Client, PATIENCE, Watch, connect, get,
    process::{Said, Serve, taskyard},
    sleep, submit, task, wait,
};

/// A file that declares a shell script as the command `it`, with `$1` being the directory.
fn declared(dir: &Path, script: &str) -> PathBuf {
    let config = dir.join("taskyard.toml");
    let dir = dir.to_str().unwrap();
    fs::write(
        &config,
        format!("[exec.it]\ncommand = [\"sh\", \"-c\", {script:?}, \"sh\", {dir:?}]\n"),
    )
    .unwrap();
    config
}

fn it() -> SubmitRequest {
    SubmitRequest { payload: support::args(&[("command", "it")]), ..task("exec") }
}

fn stdout_of(task: &Task) -> String {
    assert_eq!(task.state(), TaskState::Succeeded, "{:?}", task.error);
    let result = task.result.as_ref().and_then(|result| result.output.as_ref());
    let Some(Output::Json(value)) = result else { panic!("no result: {task:?}") };
    let Some(prost_types::value::Kind::StructValue(fields)) = &value.kind else { panic!() };
    match &fields.fields["stdout"].kind {
        Some(prost_types::value::Kind::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// `env` with these options, which becomes the server.
fn env(options: &[&str]) -> Command {
    let mut env = Command::new("env");
    env.args(options);
    env
}

async fn client_of(server: &Serve) -> Client {
    connect(server.address.parse().unwrap()).await
}

async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_closed_drains_the_server() {
    let dir = tempfile::tempdir().unwrap();
    // Whoever runs the tests may have it ignored.
    let server = Serve::under(env(&["--default-signal=HUP"]), dir.path(), &[]);
    let mut client = client_of(&server).await;
    let mut watch = Watch::live(&mut client).await;
    let running = submit(&mut client, sleep("300ms")).await;
    watch.until(EventType::Started).await;
    server.signal(Signal::HUP);
    watch.until(EventType::Draining).await;
    // The shell may say it, and then the system: neither cuts the drain off.
    server.signal(Signal::HUP);
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    let server = Serve::start(dir.path(), &[]);
    let mut client = client_of(&server).await;
    let task = get(&mut client, &running.task_id).await;
    assert_eq!((task.state(), task.attempt), (TaskState::Succeeded, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn under_nohup_a_terminal_that_is_closed_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::under(env(&["--ignore-signal=HUP"]), dir.path(), &[]);
    let mut client = client_of(&server).await;
    server.signal(Signal::HUP);
    // Nor do the signals with which daemons are often told to look at their files.
    server.signal(Signal::USR1);
    server.signal(Signal::USR2);
    let first = submit(&mut client, task("noop")).await;
    assert_eq!(wait(&mut client, &first.task_id).await.state(), TaskState::Succeeded);
    server.signal(Signal::TERM);
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("do nothing"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_that_the_parent_blocks_or_ignores_are_heard() {
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status";
    for how in ["block", "ignore"] {
        let names = ["TERM", "INT", "CHLD", "USR1", "QUIT", "PIPE", "ALRM"];
        let options = names.map(|name| format!("--{how}-signal={name}"));
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        for ends in [Signal::TERM, Signal::INT] {
            let dir = tempfile::tempdir().unwrap();
            let config = declared(dir.path(), script);
            let more = ["--config", config.to_str().unwrap()];
            let server = Serve::under(env(&options), &dir.path().join("data"), &more);
            let mut client = client_of(&server).await;
            // Commands end, and have nothing of it.
            let ran = submit(&mut client, it()).await;
            let seen = stdout_of(&wait(&mut client, &ran.task_id).await);
            for line in seen.lines() {
                let (_, set) = line.split_once(":\t").expect("a set of signals");
                // Two are the C library's own, and no program can change them.
                let set = u64::from_str_radix(set, 16).unwrap() & !(0b11 << 31);
                assert_eq!(set, 0, "{how}: {seen}");
            }
            assert_eq!(seen.lines().count(), 2, "{seen}");
            server.signal(ends);
            let (code, log) = server.end();
            assert_eq!(code, Some(0), "{how}: {log}");
        }
    }
}

/// `unshare`, as whoever may do it.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--pid", "--fork", "--kill-child"]);
    unshare
}

fn children(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let numbers = listed.split_whitespace().map(|number| number.parse().unwrap());
    numbers.filter_map(Pid::from_raw).collect()
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

fn pid_of(server: &Serve) -> Pid {
    Pid::from_raw(server.child.id().try_into().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn process_1_waits_for_orphans_and_leaves_commands_to_those_who_wait_for_them() {
    const TASKS: usize = 20;
    let dir = tempfile::tempdir().unwrap();
    // Leaves a process behind, in a session of its own, which outlives the command.
    let script = "setsid sh -c ': > \"$1/$2.begun\"; sleep 0.2; : > \"$1/$2\"' \
                  sh \"$1\" \"$TASKYARD_TASK_ID\" >/dev/null 2>&1 & \
                  while [ ! -e \"$1/$TASKYARD_TASK_ID.begun\" ]; do sleep 0.01; done; exit 3";
    let config = declared(dir.path(), script);
    let more = ["--config", config.to_str().unwrap()];
    let server = Serve::under(unshare(), &dir.path().join("data"), &more);
    let first = *children(pid_of(&server)).first().expect("process 1");
    let mut client = client_of(&server).await;
    let mut ids = Vec::new();
    for _ in 0..TASKS {
        ids.push(submit(&mut client, it()).await.task_id);
    }
    for id in &ids {
        let task = wait(&mut client, id).await;
        let error = task.error.expect("it fails");
        assert_eq!((error.reason.as_str(), task.attempt), ("EXIT_STATUS", 1), "{error:?}");
        assert!(error.message.contains('3'), "{error:?}");
    }
    eventually("the orphans do not end", async || {
        ids.iter().all(|id| dir.path().join(id).exists())
    })
    .await;
    eventually("there are zombies", async || !children(first).into_iter().any(is_zombie)).await;
    // What it is told, it tells the server; and its end is the server's.
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, sleep("1h")).await;
    watch.until(EventType::Started).await;
    kill_process(first, Signal::TERM).unwrap();
    watch.until(EventType::Draining).await;
    kill_process(first, Signal::TERM).unwrap();
    let (code, log) = server.end();
    assert_eq!(code, Some(8), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn process_1_drains_with_the_exit_code_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::under(unshare(), dir.path(), &[]);
    let first = *children(pid_of(&server)).first().expect("process 1");
    kill_process(first, Signal::INT).unwrap();
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("drained"), "{log}");
}

/// A shell with these limits of open files, which becomes the server.
fn limited(soft: &str, hard: &str) -> Command {
    let mut limited = Command::new("sh");
    let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$@\"");
    limited.args(["-c", &script, "sh"]);
    limited
}

#[test]
fn a_limit_that_cannot_hold_the_connections_is_refused_with_the_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let start = |connections: &str| {
        let mut command = limited("256", "256");
        command.arg(env!("CARGO_BIN_EXE_taskyard"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--max-connections", connections]);
        Said::of(command.arg("--data-dir").arg(dir.path().join("data")).output().unwrap())
    };
    let said = start("1000").ends(2);
    for part in ["max_connections = 1000", "limit of this process is 256", "at most 176", "ulimit"]
    {
        assert!(said.err.contains(part), "{part:?} is not in {}", said.err);
    }
    start("177").ends(2);
    assert!(!dir.path().join("data").exists(), "it has begun");
    // What it says would be right is right.
    let server = Serve::under(limited("256", "256"), dir.path(), &["--max-connections", "176"]);
    server.submit(&["noop", "--wait"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_is_raised_for_the_server_and_not_for_commands() {
    let dir = tempfile::tempdir().unwrap();
    let config = declared(dir.path(), "ulimit -Sn; ulimit -Hn");
    let more = ["--config", config.to_str().unwrap()];
    let server = Serve::under(limited("128", "2048"), &dir.path().join("data"), &more);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.child.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().collect::<Vec<_>>(), ["2048", "2048", "files"]);
    let held: Vec<_> = (0..300).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    let mut client = client_of(&server).await;
    let ran = submit(&mut client, it()).await;
    assert_eq!(stdout_of(&wait(&mut client, &ran.task_id).await), "128\n2048\n");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_connections_wait_commands_are_tried_again_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = declared(dir.path(), "echo done");
    let more =
        ["--config", config.to_str().unwrap(), "--initial-backoff", "1ms", "--max-backoff", "1ms"];
    let server = Serve::start(&dir.path().join("data"), &more);
    let pid = pid_of(&server);
    let mut client = client_of(&server).await;
    let ran = submit(&mut client, it()).await;
    assert_eq!(stdout_of(&wait(&mut client, &ran.task_id).await), "done\n");
    // None is left: the lowest number that is free is beyond the limit.
    let open = fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap();
    let open: std::collections::HashSet<u64> =
        open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let free = (0..1_000).find(|number| !open.contains(number)).unwrap();
    let limit = |current| Rlimit { current, ..rustix::process::getrlimit(Resource::Nofile) };
    let before = prlimit(Some(pid), Resource::Nofile, limit(Some(free))).unwrap();

    let waits = TcpStream::connect(&server.address).expect("the system takes it");
    let retry = Some(RetryPolicy { max_attempts: 100, ..Default::default() });
    let short = submit(&mut client, SubmitRequest { retry, ..it() }).await;
    let mut errors = HashMap::<String, usize>::new();
    eventually("it is not tried again", async || {
        // Everything that reads goes on meanwhile.
        let task = get(&mut client, &short.task_id).await;
        assert_ne!(task.state(), TaskState::Failed, "{:?}", task.error);
        for attempt in task.attempts {
            if let Some(error) = attempt.error {
                *errors.entry(error.reason).or_default() += 1;
            }
        }
        support::count(&mut client).await;
        !errors.is_empty()
    })
    .await;
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["OUT_OF_DESCRIPTORS"]);
    let large =
        SubmitRequest { payload: Some(Payload::Data(vec![7; 1 << 20].into())), ..task("noop") };
    submit(&mut client, large).await;

    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    assert_eq!(stdout_of(&wait(&mut client, &short.task_id).await), "done\n");
    drop(waits);
    let mut another = client_of(&server).await;
    submit(&mut another, task("noop")).await;
    server.signal(Signal::TERM);
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("cannot accept connections"), "{log}");
}

/// A process to which the orphans below it come, which becomes the server.
fn subreaper() -> Command {
    let script = "import ctypes, os, sys\n\
                  assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0\n\
                  os.execvp(sys.argv[1], sys.argv[1:])";
    let mut python = Command::new("python3");
    python.args(["-c", script]);
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_made_a_subreaper_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let script = "setsid sh -c ': > \"$1/begun\"; sleep 0.2; : > \"$1/done\"' sh \"$1\" \
                  >/dev/null 2>&1 & while [ ! -e \"$1/begun\" ]; do sleep 0.01; done";
    let config = declared(dir.path(), script);
    let more = ["--config", config.to_str().unwrap()];
    let server = Serve::under(subreaper(), &dir.path().join("data"), &more);
    let mut client = client_of(&server).await;
    let ran = submit(&mut client, it()).await;
    stdout_of(&wait(&mut client, &ran.task_id).await);
    eventually("the orphan does not end", async || dir.path().join("done").exists()).await;
    // It may have ended a moment before it was given up.
    eventually("there is a zombie", async || children(pid_of(&server)).is_empty()).await;
}

#[test]
fn the_demo_ends_though_its_terminal_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "text").unwrap();
    for stderr in [
        fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into(),
        std::process::Stdio::from(std::io::pipe().unwrap().1),
    ] {
        let mut demo = taskyard();
        demo.arg("demo").arg(dir.path()).stderr(stderr);
        assert_eq!(demo.output().unwrap().status.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_nobody_reads_can_be_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "text").unwrap();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    let size = rustix::pipe::fcntl_setpipe_size(&writer, 4_096).unwrap();
    writer.write_all(&vec![b'.'; size]).unwrap();
    let mut demo = taskyard();
    let mut demo = demo.arg("demo").arg(dir.path()).stderr(writer).spawn().unwrap();
    let status = format!("/proc/{}/status", demo.id());
    let hears = |number: u32| {
        let status = fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
        u64::from_str_radix(caught, 16).unwrap() & 1 << (number - 1) != 0
    };
    eventually("it does not hear SIGINT", async || hears(2)).await;
    let mut ended = None;
    eventually("it cannot be interrupted", async || {
        // Each is one more; two are enough.
        let _ = kill_process(Pid::from_child(&demo), Signal::INT);
        ended = demo.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert_eq!(ended.unwrap().code(), Some(130));
}
