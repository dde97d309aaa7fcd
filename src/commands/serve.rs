//! `serve`: the server as a process.
//!
//! Owns what the process is given at its start and how it ends; [`guard`] hears the
//! signals. Must not know what the server does in between.

mod guard;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use taskyard_cli::{
    Exit,
    output::{note, printable},
    problem::Problem,
};
use tokio_util::sync::CancellationToken;

use super::holder::{Holder, holder};
use crate::{
    config::{self, Config},
    grpc::OPERATOR_CONNECTIONS,
    handler::{Exec, Handler, Noop, Registry, Sleep},
    process::{self, Inherited, Shortage},
    server::{Server, StartError},
    supervisor::Supervisor,
    telemetry,
};

pub use guard::{Stop, guard};

/// Not a setting: it must be said at each start.
const ACCEPT_LOSS: &str = "accept-loss";

/// How long after the drain's bound the process is ended from outside.
pub const LAST_RESORT: Duration = Duration::from_secs(1);

/// How long the log may take, at the end of the process, to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Adds the settings' flags.
pub fn with_args(command: Command) -> Command {
    command.args(config::args()).arg(
        Arg::new(ACCEPT_LOSS).long(ACCEPT_LOSS).action(ArgAction::SetTrue).help(
            "Start although the store is damaged, without what is lost; keeps the damaged files",
        ),
    )
}

/// Serves until a signal, or until someone asks for the drain, then drains. A server that
/// has failed ends by itself, with [`Exit::Failed`].
///
/// # Errors
/// [`Exit::Usage`] for bad settings, [`Exit::NotStarted`] if it cannot start.
pub fn run(matches: &ArgMatches, own: Registry) -> Result<Exit, Problem> {
    let inherited = prepare_process();
    let mut config = settings(matches)?;
    config.accept_loss = matches.get_flag(ACCEPT_LOSS);
    let ended = run_with(&config, own, inherited);
    telemetry::flush(LAST_LINES);
    ended
}

fn run_with(config: &Config, own: Registry, inherited: Inherited) -> Result<Exit, Problem> {
    let registry = with_built_ins(own, config)?;
    secure_descriptors(config)?;
    let internal = |wrong: std::io::Error| Problem::new(Exit::Internal, wrong.to_string());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(internal)?;
    let supervisor = Supervisor::default();
    let bound = config.drain_timeout + LAST_RESORT;
    let stop = guard(bound, inherited, Exit::DrainIncomplete, &supervisor).map_err(internal)?;
    let serve = serve(config, registry, stop.begin, supervisor.clone());
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(serve)));
    // What still hangs ends with the process.
    runtime.shutdown_background();
    ended.unwrap_or_else(|panic| {
        supervisor.fail("main", &*panic);
        Ok(Exit::Failed)
    })
}

/// Puts in order what the process has inherited. Does not return in process 1, whose
/// only work it is to start the server and to wait for orphans.
pub fn prepare_process() -> Inherited {
    let inherited = process::reset_signals();
    match process::serve_beside_orphans(inherited) {
        Ok(None) => {}
        Ok(Some(code)) => std::process::exit(code.into()),
        Err(wrong) => note(format!(
            "warning: this is process 1, and nobody waits for what ends without a parent: {wrong}"
        )),
    }
    inherited
}

/// Descriptors beside those of connections and commands: the store's files, the standard
/// streams, the runtimes, and some for what handlers open.
const OTHER_DESCRIPTORS: u64 = 64;
/// A command's three pipes, and the descriptor by which its end is noticed.
const DESCRIPTORS_OF_COMMAND: u64 = 4;

/// Makes sure that the process may open as many files as the settings ask for.
///
/// # Errors
/// [`Exit::Usage`] if the limit is too low and cannot be raised.
pub fn secure_descriptors(config: &Config) -> Result<(), Problem> {
    let commands = if config.exec.is_empty() { 0 } else { u64::from(config.workers.get()) };
    let connections = config.max_connections as u64;
    let others = OTHER_DESCRIPTORS + OPERATOR_CONNECTIONS + commands * DESCRIPTORS_OF_COMMAND;
    let need = connections.saturating_add(others);
    process::secure_descriptors(need).map_err(|Shortage { limit }| {
        let wrong = format!(
            "max_connections = {connections} needs {need} open files, {others} of them for the \
             store, commands and the like; the limit of this process is {limit}"
        );
        let raise = "raise the limit (ulimit -n, LimitNOFILE=, --ulimit nofile=)";
        Problem::usage(wrong).hint(&match limit.checked_sub(others) {
            Some(room @ 1..) => format!("lower max_connections to at most {room}, or {raise}"),
            _ => raise.to_owned(),
        })
    })
}

/// Reads the settings, and begins to log as they say.
fn settings(matches: &ArgMatches) -> Result<Config, Problem> {
    let config = config::load(matches, std::env::vars_os())
        .map_err(|problems| Problem::usage(problems.to_string()))?;
    telemetry::init(&config.log, config.log_format)
        .map_err(|wrong| Problem::usage(wrong.to_string()))?;
    telemetry::log_panics();
    Ok(config)
}

/// The built-in kinds, but for those that the program replaced by its own.
///
/// # Errors
/// [`Exit::Usage`] if a command is declared wrongly, or cannot be started as things stand.
pub fn with_built_ins(mut own: Registry, config: &Config) -> Result<Registry, Problem> {
    let exec = Exec::new(config.exec.clone()).map_err(|wrong| Problem::usage(wrong.to_string()))?;
    if own.kind("exec").is_none() {
        let missing = exec.missing();
        if !missing.is_empty() {
            return Err(Problem::usage(missing.join("\n")));
        }
    }
    add(&mut own, "noop", Noop);
    add(&mut own, "sleep", Sleep);
    add(&mut own, "exec", exec);
    Ok(own)
}

fn add(registry: &mut Registry, kind: &str, handler: impl Handler) {
    if registry.kind(kind).is_none() {
        registry.insert(kind, handler);
    }
}

async fn serve(
    config: &Config,
    registry: Registry,
    stop: CancellationToken,
    supervisor: Supervisor,
) -> Result<Exit, Problem> {
    let started = Server::start_under(config, registry, supervisor.clone()).await;
    let server = match started {
        Ok(server) => server,
        // A part that panicked at the start is a defect, whatever the start makes of it.
        Err(_) if supervisor.failure().is_some() => return Ok(Exit::Failed),
        Err(error) => return Err(not_started(error)),
    };
    crate::failpoint::hit("main");
    tokio::select! {
        () = stop.cancelled() => {}
        // The guard knows it too.
        _ = server.failed() => {}
        // The guard then watches over the drain as after a signal.
        () = server.drain_requested() => stop.cancel(),
    }
    let report = server.drain().await;
    Ok(match supervisor.failure() {
        Some(_) => Exit::Failed,
        None if report.complete => Exit::Ok,
        None => Exit::DrainIncomplete,
    })
}

/// What `serve` and `demo` say when there is no server.
#[expect(clippy::needless_pass_by_value, reason = "it is where the error ends")]
pub fn not_started(error: StartError) -> Problem {
    let problem = Problem::new(Exit::NotStarted, error.to_string());
    let StartError::Listen { address, source } = &error else { return problem };
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            let problem = match holder(*address) {
                Some(Holder { pid, name }) => {
                    problem.hint(&format!("it is held by {} (process {pid})", printable(&name)))
                }
                None => problem,
            };
            problem.hint("write another address with --listen; port 0 takes a free one")
        }
        io::ErrorKind::AddrNotAvailable => {
            problem.hint("--listen takes an address of this machine; 0.0.0.0 is all of them")
        }
        io::ErrorKind::PermissionDenied => {
            problem.hint("ports below 1024 are often reserved; write another with --listen")
        }
        _ => problem,
    }
}
