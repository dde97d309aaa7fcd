//! `serve`: the server as a process.
//!
//! Owns signals and the promise that the process ends in time. Must not know
//! what the server does in between.

use std::{process, thread, time::Duration};

use clap::{ArgMatches, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{exit::Exit, output::error, problem::Problem};
use crate::{
    config::{self, Config},
    handler::{Exec, Handler, Noop, Registry, Sleep},
    server::{Server, StartError},
    telemetry,
};

/// How long after the drain's bound the process is ended from outside.
const LAST_RESORT: Duration = Duration::from_secs(1);

/// Adds the settings' flags.
pub fn with_args(command: Command) -> Command {
    command.args(config::args())
}

/// Serves until a signal, or until someone asks for the drain, then drains.
///
/// # Errors
/// [`Exit::Usage`] for bad settings, [`Exit::NotStarted`] if it cannot start.
pub fn run(matches: &ArgMatches, own: Registry) -> Result<Exit, Problem> {
    let config = settings(matches)?;
    let registry = with_built_ins(own, &config)?;
    let internal = |wrong: std::io::Error| Problem::new(Exit::Internal, wrong.to_string());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(internal)?;
    let stop = guard(config.drain_timeout + LAST_RESORT).map_err(internal)?;
    let ended = runtime.block_on(serve(&config, registry, stop));
    // What still hangs ends with the process.
    runtime.shutdown_background();
    ended
}

/// Reads the settings, and begins to log as they say.
fn settings(matches: &ArgMatches) -> Result<Config, Problem> {
    let config = config::load(matches, std::env::vars_os())
        .map_err(|problems| Problem::usage(problems.to_string()))?;
    telemetry::init(&config.log, config.log_format)
        .map_err(|wrong| Problem::usage(wrong.to_string()))?;
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
) -> Result<Exit, Problem> {
    let server = Server::start(config, registry).await.map_err(not_started)?;
    tokio::select! {
        () = stop.cancelled() => {}
        // The guard then watches over the drain as after a signal.
        () = server.drain_requested() => stop.cancel(),
    }
    let report = server.drain().await;
    Ok(if report.complete { Exit::Ok } else { Exit::DrainIncomplete })
}

/// What `serve` and `demo` say when there is no server.
#[expect(clippy::needless_pass_by_value, reason = "it is where the error ends")]
pub fn not_started(error: StartError) -> Problem {
    Problem::new(Exit::NotStarted, error.to_string())
}

/// Starts the thread that listens for SIGTERM and SIGINT, on a runtime of its
/// own, so that a server that hangs cannot keep it from ending the process.
///
/// The first signal cancels the token, unless someone else does; the process then
/// ends within `bound`, and at once on a second signal.
fn guard(bound: Duration) -> std::io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::listen()?
    };
    thread::Builder::new().name("guard".into()).spawn(move || {
        runtime.block_on(async {
            let by_signal = tokio::select! {
                () = signals.next() => true,
                () = token.cancelled() => false,
            };
            token.cancel();
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
        });
        process::exit(Exit::DrainIncomplete as i32);
    })?;
    Ok(stop)
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
