//! `serve`: the server as a process.
//!
//! Owns signals and the promise that the process ends in time. Must not know
//! what the server does in between.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    process, thread,
    time::Duration,
};

use clap::{ArgMatches, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    exit::Exit,
    holder::{Holder, holder},
    output::{error, printable},
    problem::Problem,
};
use crate::{
    config::{self, Config},
    handler::{Exec, Handler, Noop, Registry, Sleep},
    server::{FAILED_BOUND, Server, StartError},
    supervisor::{self, Failure, Supervisor},
    telemetry,
};

/// How long after the drain's bound the process is ended from outside.
const LAST_RESORT: Duration = Duration::from_secs(1);

/// Adds the settings' flags.
pub fn with_args(command: Command) -> Command {
    command.args(config::args())
}

/// Serves until a signal, or until someone asks for the drain, then drains. A server that
/// has failed ends by itself, with [`Exit::Failed`].
///
/// # Errors
/// [`Exit::Usage`] for bad settings, [`Exit::NotStarted`] if it cannot start.
pub fn run(matches: &ArgMatches, own: Registry) -> Result<Exit, Problem> {
    let config = settings(matches)?;
    let registry = with_built_ins(own, &config)?;
    let internal = |wrong: std::io::Error| Problem::new(Exit::Internal, wrong.to_string());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(internal)?;
    let supervisor = Supervisor::default();
    let stop = guard(config.drain_timeout + LAST_RESORT, &supervisor).map_err(internal)?;
    let serve = serve(&config, registry, stop, supervisor.clone());
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(serve)));
    // What still hangs ends with the process.
    runtime.shutdown_background();
    ended.unwrap_or_else(|panic| {
        supervisor.fail("main", &*panic);
        Ok(Exit::Failed)
    })
}

/// Reads the settings, and begins to log as they say.
fn settings(matches: &ArgMatches) -> Result<Config, Problem> {
    let config = config::load(matches, std::env::vars_os())
        .map_err(|problems| Problem::usage(problems.to_string()))?;
    telemetry::init(&config.log, config.log_format)
        .map_err(|wrong| Problem::usage(wrong.to_string()))?;
    supervisor::log_panics();
    Ok(config)
}

/// The built-in kinds, but for those that the program replaced by its own.
///
/// # Errors
/// [`Exit::Usage`] if a command is declared wrongly.
pub fn with_built_ins(mut own: Registry, config: &Config) -> Result<Registry, Problem> {
    let exec = Exec::new(config.exec.clone()).map_err(|wrong| Problem::usage(wrong.to_string()))?;
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
    let server = started.map_err(not_started)?;
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

/// Starts the thread that listens for SIGTERM and SIGINT, on a runtime of its
/// own, so that a server that hangs cannot keep it from ending the process.
///
/// The first signal cancels the token, unless someone else does; the process then
/// ends within `bound`, and at once on a second signal. Once the server has failed it
/// ends within [`FAILED_BOUND`], and as failed.
fn guard(bound: Duration, supervisor: &Supervisor) -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _context = runtime.enter();
        Signals::listen()?
    };
    let (token, failed) = (stop.clone(), supervisor.failed());
    let parts = supervisor.clone();
    supervisor.thread("guard", move || {
        let watch =
            AssertUnwindSafe(|| runtime.block_on(watch_over(signals, token, bound, failed)));
        let exit = catch_unwind(watch).unwrap_or_else(|panic| {
            // Whoever serves ends by itself now, or not.
            parts.fail("guard", &*panic);
            thread::sleep(FAILED_BOUND + LAST_RESORT);
            Exit::Failed
        });
        process::exit(exit as i32);
    })?;
    Ok(stop)
}

/// Returns when the process is to end at once, and as what.
async fn watch_over(
    mut signals: Signals,
    stop: CancellationToken,
    bound: Duration,
    failed: impl Future<Output = Failure>,
) -> Exit {
    let failed = async {
        failed.await;
        tokio::time::sleep(FAILED_BOUND + LAST_RESORT).await;
        error("stopped: the server had failed, and did not end in time");
        Exit::Failed
    };
    let drained = async {
        let by_signal = tokio::select! {
            () = signals.next() => true,
            () = stop.cancelled() => false,
        };
        crate::failpoint::hit("guard");
        stop.cancel();
        let second = async {
            if !by_signal {
                signals.next().await;
            }
            signals.next().await;
        };
        match tokio::time::timeout(bound, second).await {
            Ok(()) => error("stopped by a second signal, before the drain was complete"),
            Err(_) => error("stopped: the drain did not end in time"),
        }
        Exit::DrainIncomplete
    };
    tokio::select! {
        exit = failed => exit,
        exit = drained => exit,
    }
}

/// The signals that ask a server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
