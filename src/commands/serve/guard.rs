//! The signals that end a server, and the promise that the process ends in time.
//!
//! Owns a thread and a runtime of its own, so that a server that hangs cannot keep it
//! from ending the process; it writes nothing but log lines, which never wait. Must not
//! know what a drain does.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    process, thread,
    time::Duration,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Exit, LAST_RESORT};
use crate::{
    process::Inherited,
    server::FAILED_BOUND,
    supervisor::{Failure, Supervisor},
    telemetry::{self, Throttle},
};

/// How long after a second signal the process goes on, for those who tidy up.
const GRACE: Duration = Duration::from_millis(100);
/// How long the last lines may take to be written.
const LAST_LINES: Duration = Duration::from_millis(200);

/// What the guard has heard.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// The drain is to begin. Whoever begins one without a signal cancels it too.
    pub begin: CancellationToken,
    /// It is to end now; the process ends by itself, a tenth of a second later at the latest.
    pub at_once: CancellationToken,
}

/// Starts the guard. The first SIGTERM, SIGINT or SIGHUP begins the drain, unless
/// somebody else does; the process then ends within `bound`, and soon after a second
/// SIGTERM or SIGINT, with `exit`.
///
/// SIGHUP never cuts a drain off: a terminal that is closed may send several. It is left
/// alone if it was ignored at the start. SIGQUIT has its default effect, a core dump, so that
/// there is a way to get one from a process that hangs. SIGUSR1 and SIGUSR2 do nothing.
///
/// Once the server has failed, the process ends within [`FAILED_BOUND`], and as failed.
///
/// # Errors
/// The system does not let it hear signals, or has no thread for it.
pub fn guard(
    bound: Duration,
    inherited: Inherited,
    exit: Exit,
    supervisor: &Supervisor,
) -> io::Result<Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        let _context = runtime.enter();
        Signals::listen(inherited)?
    };
    let stop = Stop::default();
    let (heard, failed, parts) = (stop.clone(), supervisor.failed(), supervisor.clone());
    supervisor.thread("guard", move || {
        let watch = AssertUnwindSafe(|| {
            runtime.block_on(async {
                tokio::select! {
                    () = has_hung(failed) => Exit::Failed,
                    () = watch_over(signals, &heard, bound) => exit,
                }
            })
        });
        let exit = catch_unwind(watch).unwrap_or_else(|panic| {
            // Whoever serves ends by itself now, or not.
            parts.fail("guard", &*panic);
            thread::sleep(FAILED_BOUND + LAST_RESORT);
            Exit::Failed
        });
        telemetry::flush(LAST_LINES);
        process::exit(exit as i32);
    })?;
    Ok(stop)
}

/// Returns when a server that has failed does not end by itself.
async fn has_hung(failed: impl Future<Output = Failure>) {
    failed.await;
    tokio::time::sleep(FAILED_BOUND + LAST_RESORT).await;
    error!("stopped: the server had failed, and did not end in time");
}

/// Returns when the drain has to end.
async fn watch_over(mut signals: Signals, stop: &Stop, bound: Duration) {
    let mut asked = 0;
    tokio::select! {
        () = stop.begin.cancelled() => {}
        asks = signals.next() => asked += u32::from(asks == Asks::ToStop),
    }
    crate::failpoint::hit("guard");
    stop.begin.cancel();
    let twice = async {
        while asked < 2 {
            asked += u32::from(signals.next().await == Asks::ToStop);
        }
    };
    if tokio::time::timeout(bound, twice).await.is_err() {
        return error!("stopped: the drain did not end in time");
    }
    warn!("stopped by a second signal, before the drain was complete");
    stop.at_once.cancel();
    tokio::time::sleep(GRACE).await;
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    /// A drain; and, if there is one, its end.
    ToStop,
    /// A drain.
    ToDrain,
}

/// Signals that are often sent to daemons and mean nothing here.
static NOTHING: Throttle = Throttle::new("signals came that do nothing");

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Not if it was ignored at the start.
    hangup: Option<Signal>,
    /// They would end the process by default.
    others: [Signal; 2],
}

impl Signals {
    fn listen(inherited: Inherited) -> io::Result<Self> {
        // Heard so that a write beyond `ulimit -f` fails, instead of ending the process;
        // and so that no parent that ignored it lets commands end unnoticed.
        drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
        drop(signal(SignalKind::child())?);
        let hangup = (!inherited.ignores_hangup).then(|| signal(SignalKind::hangup()));
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: hangup.transpose()?,
            others: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    async fn next(&mut self) -> Asks {
        let Self { terminate, interrupt, hangup, others: [first, second] } = self;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Asks::ToStop,
                _ = interrupt.recv() => return Asks::ToStop,
                () = hung_up(hangup) => return Asks::ToDrain,
                _ = first.recv() => {}
                _ = second.recv() => {}
            }
            NOTHING.line(|left_out| info!(left_out, "SIGUSR1 and SIGUSR2 do nothing"));
        }
    }
}

/// Never, if nobody listens.
async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => drop(hangup.recv().await),
        None => std::future::pending().await,
    }
}
