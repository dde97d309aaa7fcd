//! The real binary, as a process.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStderr, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The binary, untouched by the variables of whoever runs the tests.
pub fn taskyard() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskyard"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TASKYARD_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// What a command said and how it ended.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ends by itself"),
            out: String::from_utf8(output.stdout).expect("stdout is text"),
            err: String::from_utf8(output.stderr).expect("stderr is text"),
        }
    }

    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// Each line of stdout as JSON.
    pub fn json(&self) -> Vec<Value> {
        let value = |line| serde_json::from_str(line).expect("every line is JSON");
        self.out.lines().map(value).collect()
    }
}

pub fn run(args: &[&str]) -> Said {
    Said::of(taskyard().args(args).output().expect("the binary runs"))
}

/// `serve` on a free port, killed when dropped.
pub struct Serve {
    pub child: Child,
    pub log: BufReader<ChildStderr>,
    pub address: String,
}

impl Serve {
    pub fn start(data_dir: &Path, more: &[&str]) -> Self {
        Self::at("127.0.0.1:0", data_dir, more)
    }

    pub fn at(listen: &str, data_dir: &Path, more: &[&str]) -> Self {
        Self::spawn(taskyard(), listen, data_dir, more)
    }

    /// By a command of the binary that was prepared.
    pub fn by(command: Command, data_dir: &Path, more: &[&str]) -> Self {
        Self::spawn(command, "127.0.0.1:0", data_dir, more)
    }

    /// As the arguments of `launcher`, which becomes the server.
    pub fn under(mut launcher: Command, data_dir: &Path, more: &[&str]) -> Self {
        launcher.arg(env!("CARGO_BIN_EXE_taskyard"));
        Self::spawn(launcher, "127.0.0.1:0", data_dir, more)
    }

    fn spawn(mut command: Command, listen: &str, data_dir: &Path, more: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--listen", listen, "--data-dir"])
            .arg(data_dir)
            .args(if more.contains(&"--workers") { &[][..] } else { &["--workers", "2"] })
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let address = bound_address(&mut log);
        Self { child, log, address }
    }

    pub fn run(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().expect("the binary runs"))
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = taskyard();
        command.env("TASKYARD_SERVER", &self.address).args(args);
        command
    }

    /// Submits and returns the id.
    pub fn submit(&self, args: &[&str]) -> String {
        let said = self.run(&[&["submit"], args].concat()).ends(0);
        said.out.trim().to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        signal_to(&self.child, signal);
    }

    /// The next line of the log that has this in it. Blocks the thread.
    pub fn line_with(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.log.read_line(&mut line).expect("the log is text");
            assert!(read > 0, "it ended, and did not say {words:?}");
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Waits for the end, and returns the exit code and the rest of the log.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.log.read_to_string(&mut log).expect("the log is text");
        (self.child.wait().expect("it was started").code(), log)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn bound_address(log: &mut impl std::io::BufRead) -> String {
    let mut seen = String::new();
    loop {
        let start = seen.len();
        let read = log.read_line(&mut seen).expect("the log is text");
        assert!(read > 0, "it ended before it listened: {seen}");
        if let Some((_, rest)) = seen[start..].split_once("listening on ") {
            return rest.split_whitespace().next().expect("an address").to_owned();
        }
    }
}

pub fn signal_to(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("the process is there");
}
