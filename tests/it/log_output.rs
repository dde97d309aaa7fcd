//! Whatever becomes of the log, of stdout and of stderr, the server goes on and drains, and
//! a client's command ends with an exit code that is true.

use std::{
    fs::{File, OpenOptions},
    io::{PipeReader, PipeWriter, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use taskyard::proto::v1::{EventType, TaskState};

use crate::support::{
    PATIENCE, Watch, connect, get,
    process::{Serve, signal_to, taskyard},
    sleep, submit, task, wait,
};

/// An address that was free a moment ago, and is left alone: whoever takes any free port
/// takes one of another host.
fn free_address() -> SocketAddr {
    static HOSTS: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, high, low, HOSTS.fetch_add(1, Ordering::Relaxed));
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

/// A server whose log cannot be read for its address, killed when dropped.
struct Mute {
    child: Child,
    address: SocketAddr,
}

impl Mute {
    fn start(data_dir: &Path, stderr: impl Into<Stdio>, more: &[&str]) -> Self {
        Self::of(taskyard(), data_dir, stderr, more)
    }

    fn of(mut command: Command, data_dir: &Path, stderr: impl Into<Stdio>, more: &[&str]) -> Self {
        let address = free_address();
        let child = command
            .args(["serve", "--listen", &address.to_string(), "--workers", "2", "--data-dir"])
            .arg(data_dir)
            .args(more)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the binary runs");
        let mut mute = Self { child, address };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert_eq!(mute.child.try_wait().unwrap(), None, "it ended before it listened");
            assert!(began.elapsed() < PATIENCE, "it does not listen");
            std::thread::yield_now();
        }
        mute
    }

    fn end(mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dev_full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// A pipe that takes nothing any more until somebody reads from it.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let size = rustix::pipe::fcntl_setpipe_size(&writer, 4_096).unwrap();
    writer.write_all(&vec![b'.'; size]).unwrap();
    (reader, writer)
}

/// A pipe whose reader has gone.
fn broken_pipe() -> PipeWriter {
    std::io::pipe().unwrap().1
}

/// Runs a task, then drains while another runs, which ends by itself.
async fn serves_and_drains(data_dir: &Path, stderr: impl Into<Stdio>) {
    let server = Mute::start(data_dir, stderr, &["--log", "debug"]);
    let mut client = connect(server.address).await;
    let first = submit(&mut client, task("noop")).await;
    assert_eq!(wait(&mut client, &first.task_id).await.state(), TaskState::Succeeded);
    let mut watch = Watch::live(&mut client).await;
    let running = submit(&mut client, sleep("300ms")).await;
    watch.until(EventType::Started).await;
    signal_to(&server.child, Signal::TERM);
    assert_eq!(server.end(), Some(0));
    let server = Serve::start(data_dir, &[]);
    let mut client = connect(server.address.parse().unwrap()).await;
    let task = get(&mut client, &running.task_id).await;
    assert_eq!((task.state(), task.attempt), (TaskState::Succeeded, 1), "it was cut off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_on_a_full_disk_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    serves_and_drains(dir.path(), dev_full()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_has_gone_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    serves_and_drains(dir.path(), broken_pipe()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_reader, writer) = full_pipe();
    serves_and_drains(dir.path(), writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_file_that_may_not_grow_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    // 16 MiB in blocks of 512 bytes. A write beyond that sends SIGXFSZ, which ends a process
    // that does nothing about it.
    std::fs::write(&path, vec![b'.'; 16 << 20]).unwrap();
    let log = OpenOptions::new().append(true).open(&path).unwrap();
    let mut limited = Command::new("env");
    limited.args(["--default-signal=XFSZ", "sh", "-c", "ulimit -f 32768; exec \"$@\"", "sh"]);
    limited.arg(env!("CARGO_BIN_EXE_taskyard"));
    let server = Mute::of(limited, &dir.path().join("data"), log, &[]);
    let mut client = connect(server.address).await;
    let ran = submit(&mut client, task("noop")).await;
    assert_eq!(wait(&mut client, &ran.task_id).await.state(), TaskState::Succeeded);
    signal_to(&server.child, Signal::TERM);
    assert_eq!(server.end(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_server_whose_log_nobody_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (_reader, writer) = full_pipe();
    let server = Mute::start(dir.path(), writer, &["--drain-timeout", "1h"]);
    let mut client = connect(server.address).await;
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, sleep("1h")).await;
    watch.until(EventType::Started).await;
    signal_to(&server.child, Signal::TERM);
    watch.until(EventType::Draining).await;
    signal_to(&server.child, Signal::TERM);
    assert_eq!(server.end(), Some(8));
}

#[test]
fn a_start_that_fails_ends_though_nobody_reads_why() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Serve::start(dir.path(), &[]);
    for (stderr, _reader) in [(Stdio::from(dev_full()), None), (broken_pipe().into(), None), {
        let (reader, writer) = full_pipe();
        (writer.into(), Some(reader))
    }] {
        let mut second = taskyard();
        second.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
        let child = second.stderr(stderr).spawn().unwrap();
        let mute = Mute { child, address: ([127, 0, 0, 1], 0).into() };
        assert_eq!(mute.end(), Some(7));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_log_refuses_a_connection_and_takes_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--max-connections", "1"];
    for stderr in [Stdio::from(broken_pipe()), dev_full().into()] {
        let server = Mute::start(dir.path(), stderr, &more);
        for _ in 0..50 {
            drop((TcpStream::connect(server.address), TcpStream::connect(server.address)));
        }
        let began = Instant::now();
        let answers = loop {
            // A place may still be taken by one that has gone.
            match tonic::transport::Endpoint::new(format!("http://{}", server.address))
                .unwrap()
                .connect()
                .await
            {
                Ok(channel) => {
                    let mut client =
                        taskyard::proto::v1::task_service_client::TaskServiceClient::new(channel);
                    if client.submit(task("noop")).await.is_ok() {
                        break true;
                    }
                }
                Err(_) => tokio::task::yield_now().await,
            }
            if began.elapsed() > Duration::from_secs(20) {
                break false;
            }
        };
        assert!(answers, "it is deaf");
        signal_to(&server.child, Signal::TERM);
        assert_eq!(server.end(), Some(0));
    }
}

#[test]
fn a_client_that_is_refused_a_thousand_times_is_a_line_a_second() {
    const TIMES: u64 = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::start(dir.path(), &["--max-connections", "1"]);
    let _only = TcpStream::connect(&server.address).unwrap();
    let began = Instant::now();
    // As many at a time as the listener keeps waiting.
    let mut refused = std::collections::VecDeque::new();
    for _ in 0..TIMES {
        refused.push_back(TcpStream::connect(&server.address).unwrap());
        if refused.len() > 100 {
            refused.pop_front();
        }
    }
    drop(refused);
    server.signal(Signal::TERM);
    let (code, log) = server.end();
    let seconds = began.elapsed().as_secs();
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<_> = log.lines().filter(|line| line.contains("connection")).collect();
    assert!(!lines.is_empty(), "nothing is told: {log}");
    assert!(lines.len() as u64 <= 2 * seconds + 4, "{} lines in {seconds} s: {log}", lines.len());
    // All are counted: each line, and what it left out.
    let left_out = |line: &&str| {
        let (_, rest) = line.split_once("left_out=")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let counted: u64 = lines.iter().filter_map(left_out).sum();
    let told = lines.iter().filter(|line| line.contains("peer=")).count() as u64;
    assert!(counted + told >= TIMES, "{counted} + {told} of {TIMES}: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_were_dropped_are_counted_and_told_when_somebody_reads() {
    for format in ["text", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let (mut reader, writer) = full_pipe();
        let more = ["--log", "trace", "--log-format", format];
        let server = Mute::start(dir.path(), writer, &more);
        let mut client = connect(server.address).await;
        for _ in 0..400 {
            submit(&mut client, task("noop")).await;
        }
        let read = std::thread::spawn(move || {
            let mut log = String::new();
            reader.read_to_string(&mut log).unwrap();
            log
        });
        signal_to(&server.child, Signal::TERM);
        assert_eq!(server.end(), Some(0));
        let log = read.join().unwrap();
        let told = log.lines().find(|line| line.contains("log lines were dropped"));
        let told = told.unwrap_or_else(|| panic!("nothing is told in {} bytes", log.len()));
        if format == "json" {
            let line: serde_json::Value = serde_json::from_str(told).expect("JSON as all others");
            assert!(line["dropped"].as_u64().is_some_and(|dropped| dropped > 0), "{line}");
        }
        assert!(log.lines().any(|line| line.contains("drained")), "the end of it is missing");
    }
}

#[test]
fn a_client_whose_output_cannot_be_written_says_so_in_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::start(dir.path(), &[]);
    server.submit(&["noop"]);
    let commands: [&[&str]; 10] = [
        &["submit", "noop"],
        &["list"],
        &["list", "--output", "json"],
        &["queues"],
        &["workers"],
        &["stats"],
        &["watch", "--from-start", "--until-caught-up"],
        &["pause", "default"],
        &["--help"],
        &["--version"],
    ];
    for args in commands {
        let said = |stdout: Stdio, stderr: Stdio| {
            let mut command = server.command(args);
            let output = command.stdout(stdout).stderr(stderr).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let (code, told) = said(dev_full().into(), Stdio::piped());
        assert_eq!(code, Some(70), "{args:?}: {told}");
        assert!(told.contains("cannot write the output"), "{args:?}: {told}");
        // Whoever reads no further has what it wanted.
        let (code, told) = said(broken_pipe().into(), Stdio::piped());
        assert_eq!((code, told.as_str()), (Some(0), ""), "{args:?}");
        // Both at once, as on a disk that is full.
        assert_eq!(said(dev_full().into(), dev_full().into()).0, Some(70), "{args:?}");
        assert_eq!(said(broken_pipe().into(), broken_pipe().into()).0, Some(0), "{args:?}");
    }
    let mut wrong = server.command(&["get", "nonsense"]);
    let code = wrong.stderr(dev_full()).output().unwrap().status.code();
    assert_eq!(code, Some(3), "what went wrong is told by the code all the same");
}
