//! `exec`: runs a command that the operator declared.
//!
//! Owns the kind: which commands there are, and how the end of one becomes an
//! outcome. [`plan`] checks a task's arguments and fills them in, [`child`] is what a
//! process has from the server and what not, [`group`] runs it and everything that it
//! starts, [`capture`] keeps what it prints.
//! Must not know how commands are written in a configuration file.

mod availability;
mod capture;
mod child;
mod group;
mod plan;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use rustix::{io::Errno, process::Signal};
use serde_json::json;
use taskyard_text::{
    quoted,
    template::{self, Template},
};

use self::{capture::Capture, group::Group, plan::Plan};
use super::{Error, Execution, Handler, Output, Transcript, Violation, Written, args};
use crate::{config::ExecCommand, task::Data};

/// Variables that a command inherits from the server, if the server has them.
const INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// Runs declared commands, for tasks with the arguments
/// `{"command": "checksum", "args": {"file": "Cargo.toml"}, "stdin": "…"}`.
///
/// `command` names a declared command. `args` has a value for each of its
/// placeholders: a string, a number or a boolean. `stdin`, a string, is what the
/// command can read; nothing, if it is missing. There is no shell, and a value
/// never becomes more than one argument, or a part of one.
///
/// The command runs in a session and a process group of its own, without a terminal:
/// reading `/dev/tty` fails at once. It has no open files but its first three, and no
/// signal is ignored or blocked. It is given no variables but PATH, HOME, LANG and TZ,
/// those declared for it, `TASKYARD_TASK_ID` and `TASKYARD_ATTEMPT`. When it ends, what it left running in its group is
/// killed. A cancellation, and the end of its time, send SIGTERM to the group; if the
/// command has not ended after the grace period, the group is killed. A process that
/// leaves the group, as a daemon does with `setsid`, is beyond reach.
///
/// The result of exit status 0 is a JSON object: `exit_code`, `stdout` and
/// `stderr`, `stdout_truncated` and `stderr_truncated`, and, where it applies,
/// `stdout_dropped_bytes` and `stdout_not_utf8` (invalid bytes are then replaced
/// by U+FFFD), the same for stderr.
///
/// If it does not succeed, the end of both outputs, and how it ended, are kept with the
/// attempt.
///
/// Otherwise the error's reason is one of `EXIT_STATUS`, `SIGNAL`, `CANCELLED`,
/// all retryable; `SPAWN_FAILED`, permanent unless the system was short of
/// something, or the program is gone (it was there at the server's start); `OUT_OF_DESCRIPTORS`, retryable, if there may be no more open files; `INVALID_ARGS`, permanent, if the declaration has changed since the
/// task was accepted; `IO`, retryable, if the process cannot be waited for.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    commands: BTreeMap<String, Command>,
}

/// A declared command.
#[derive(Clone, Debug)]
struct Command {
    program: String,
    arguments: Vec<Template>,
    working_dir: Option<PathBuf>,
    env: BTreeMap<String, String>,
    max_output: usize,
}

/// Why a command cannot be declared so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeclarationError {
    /// There is no program.
    #[error("the command {0} has no program")]
    NoProgram(String),
    /// A task could choose the program.
    #[error("the command {0} has a placeholder in its program")]
    ProgramIsOpen(String),
    /// A placeholder is malformed.
    #[error("the command {name}: {wrong}")]
    Template {
        /// Which command.
        name: String,
        /// What is wrong with it; the sentence names what would be right.
        wrong: String,
    },
}

impl Exec {
    /// A handler for these commands, by name; with none, every task is refused.
    ///
    /// # Errors
    /// The first command that has no program, a placeholder in its program, or a
    /// malformed one. What [`crate::config::load`] returned has none of these.
    pub fn new(declared: BTreeMap<String, ExecCommand>) -> Result<Self, DeclarationError> {
        let commands = declared.into_iter().map(|(name, command)| {
            let command = Command::new(&name, command)?;
            Ok((name, command))
        });
        Ok(Self { commands: commands.collect::<Result<_, _>>()? })
    }

    /// What keeps declared commands from being started as things stand: programs and
    /// directories that are not there or cannot be used. All of it, a sentence each.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.commands
            .iter()
            .filter_map(|(name, command)| availability::missing(name, command))
            .collect()
    }
}

impl Command {
    fn new(name: &str, declared: ExecCommand) -> Result<Self, DeclarationError> {
        let malformed = |wrong: template::Error| DeclarationError::Template {
            name: name.into(),
            wrong: wrong.to_string(),
        };
        let mut parts = declared.command.iter().map(|part| Template::parse(part));
        let program = parts.next().ok_or_else(|| DeclarationError::NoProgram(name.into()))?;
        let program = program.map_err(malformed)?;
        if program.names().next().is_some() {
            return Err(DeclarationError::ProgramIsOpen(name.into()));
        }
        Ok(Self {
            program: program.fill(|_| ""),
            arguments: parts.collect::<Result<_, _>>().map_err(malformed)?,
            working_dir: declared.working_dir,
            env: declared.env,
            max_output: declared.max_output,
        })
    }
}

impl Handler for Exec {
    fn check(&self, payload: &Data) -> Result<(), Vec<Violation>> {
        Plan::new(&self.commands, payload).map(drop)
    }

    fn check_may_block(&self) -> bool {
        false
    }

    async fn run(&self, execution: Execution) -> Result<Output, Error> {
        let plan =
            Plan::new(&self.commands, &execution.payload).map_err(|wrong| args::refused(&wrong))?;
        let mut group =
            Group::spawn(prepare(&plan, &execution)).map_err(|e| not_started(&plan, &e))?;
        let mut captured = Captured::new(plan.command.max_output, execution.written.clone());
        let Captured { stdout, stderr, status, .. } = &mut captured;
        let ended =
            group
                .run(plan.stdin.as_deref(), stdout, stderr, execution.cancelled())
                .await
                .map_err(|error| Error::retryable("IO", format!("cannot wait for it: {error}")))?;
        *status = Some(ended.status);
        if ended.terminated {
            return Err(Error::retryable("CANCELLED", "stopped with SIGTERM"));
        }
        outcome(ended.status, stdout, stderr)
    }
}

/// What a command prints. Left for its attempt when it is dropped, as it is also if the
/// command is killed with its handler.
struct Captured {
    stdout: Capture,
    stderr: Capture,
    status: Option<ExitStatus>,
    written: Written,
}

impl Captured {
    fn new(limit: usize, written: Written) -> Self {
        let [stdout, stderr] = [Capture::new(limit), Capture::new(limit)];
        Self { stdout, stderr, status: None, written }
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        let (stdout, stderr) = (self.stdout.end(), self.stderr.end());
        self.written.leave(Transcript { stdout, stderr, status: self.status });
    }
}

/// The process to start.
fn prepare(plan: &Plan, execution: &Execution) -> tokio::process::Command {
    let command = plan.command;
    let mut process = tokio::process::Command::new(&command.program);
    let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    process
        .args(&plan.arguments)
        .env_clear()
        .envs(inherited)
        .envs(&command.env)
        .env("TASKYARD_TASK_ID", execution.task.to_string())
        .env("TASKYARD_ATTEMPT", execution.attempt.to_string())
        .stdin(if plan.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(directory) = &command.working_dir {
        process.current_dir(directory);
    }
    process
}

/// What is wrong with the command or its declaration will be so at the next
/// attempt; a shortage of processes, memory or files may pass.
fn not_started(plan: &Plan, error: &std::io::Error) -> Error {
    let program = quoted(&plan.command.program);
    let message = match &plan.command.working_dir {
        None => format!("cannot start {program}: {error}"),
        Some(dir) => {
            format!("cannot start {program} in {}: {error}", quoted(&dir.to_string_lossy()))
        }
    };
    // It was there when the server started: it is being replaced, most likely.
    let gone = [ErrorKind::NotFound, ErrorKind::ExecutableFileBusy];
    let short = [ErrorKind::WouldBlock, ErrorKind::OutOfMemory, ErrorKind::ResourceBusy];
    let may_pass = [&gone[..], &short].concat();
    // EMFILE and ENFILE have no kind of their own.
    let files = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    if files.contains(&error.raw_os_error()) {
        Error::retryable("OUT_OF_DESCRIPTORS", message)
    } else if may_pass.contains(&error.kind()) {
        Error::retryable("SPAWN_FAILED", message)
    } else {
        Error::permanent("SPAWN_FAILED", message)
    }
}

fn outcome(status: ExitStatus, stdout: &Capture, stderr: &Capture) -> Result<Output, Error> {
    match (status.code(), status.signal()) {
        (Some(0), _) => {
            let mut result = serde_json::Map::from_iter([("exit_code".to_owned(), json!(0))]);
            stdout.describe("stdout", &mut result);
            stderr.describe("stderr", &mut result);
            Output::json(&result)
        }
        (Some(code), _) => {
            Err(Error::retryable("EXIT_STATUS", with_end_of(stderr, format!("exit status {code}"))))
        }
        (None, Some(signal)) => Err(Error::retryable(
            "SIGNAL",
            with_end_of(stderr, format!("killed by {}", signal_name(signal))),
        )),
        (None, None) => Err(Error::retryable("IO", format!("ended without a status: {status}"))),
    }
}

/// The message, and the last words on stderr if there are any.
fn with_end_of(stderr: &Capture, message: String) -> String {
    match stderr.last_lines() {
        lines if lines.is_empty() => message,
        lines => format!("{message}: {lines}"),
    }
}

/// The signals that commonly end a process.
const SIGNALS: [(Signal, &str); 10] = [
    (Signal::HUP, "SIGHUP"),
    (Signal::INT, "SIGINT"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::ILL, "SIGILL"),
    (Signal::ABORT, "SIGABRT"),
    (Signal::FPE, "SIGFPE"),
    (Signal::KILL, "SIGKILL"),
    (Signal::SEGV, "SIGSEGV"),
    (Signal::PIPE, "SIGPIPE"),
    (Signal::TERM, "SIGTERM"),
];

fn signal_name(number: i32) -> String {
    let known = SIGNALS.iter().find(|(signal, _)| signal.as_raw() == number);
    known.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

#[cfg(test)]
mod tests;
