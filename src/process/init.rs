//! The duties of process 1.
//!
//! In a container the server may be the first process. What loses its parent there
//! becomes a child of process 1, and stays as a zombie until that has waited for it. A
//! process that waits for whatever ends would take the exit statuses of its own commands
//! from those who wait for them; handlers may start programs that nobody here knows of.
//! So process 1 is a process of its own: it starts the server as its only child that
//! matters, hands on the signals that it gets, and waits for everything.
//!
//! Must not know the server.

use std::{
    env, io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, ExitStatus},
};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, child_subreaper, getpid, kill_process,
    set_child_subreaper, wait,
};
use tokio::signal::unix::{SignalKind, signal};

use super::signals::Inherited;

/// Signals that process 1 hands on.
const HANDED_ON: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Where this process adopts orphans, lets another process go on as the server, and
/// returns with its exit code once it has ended. `None` where there is nothing to do:
/// the caller is the server.
///
/// Process 1 starts the same program with the same arguments once more. A process that
/// was made a *subreaper* by whoever started it stops to be one.
///
/// # Errors
/// The program cannot be started, or its end cannot be waited for.
pub fn serve_beside_orphans(inherited: Inherited) -> io::Result<Option<u8>> {
    if matches!(child_subreaper(), Ok(Some(_))) {
        let _ = set_child_subreaper(None);
    }
    if getpid() != Pid::INIT {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // What is ignored stays so in the server, as long as nobody here hears it.
    let handed_on =
        HANDED_ON.into_iter().filter(|signal| *signal != Signal::HUP || !inherited.ignores_hangup);
    runtime.block_on(reap_beside(again()?, handed_on)).map(Some)
}

/// This program, with its arguments.
fn again() -> io::Result<Command> {
    let mut args = env::args_os();
    let name = args.next().unwrap_or_default();
    let mut command = Command::new(env::current_exe()?);
    command.arg0(name).args(args);
    // A terminal's Ctrl-C goes to process 1 alone, which hands it on; the server would
    // else hear it twice, and a second signal ends it at once.
    command.process_group(0);
    Ok(command)
}

async fn reap_beside(
    mut command: Command,
    handed_on: impl Iterator<Item = Signal>,
) -> io::Result<u8> {
    // Before the first child is there, so that nothing is missed.
    let mut ends = signal(SignalKind::child())?;
    let mut signals = handed_on
        .map(|number| signal(SignalKind::from_raw(number.as_raw())).map(|heard| (number, heard)))
        .collect::<io::Result<Vec<_>>>()?;
    let server = command.spawn()?;
    let server = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
    let server = server.ok_or_else(|| io::Error::other("the server has no process id"))?;
    loop {
        let heard = std::future::poll_fn(|cx| {
            for (number, heard) in &mut signals {
                if heard.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(Some(*number));
                }
            }
            ends.poll_recv(cx).map(|_| None)
        });
        match heard.await {
            // One that has just ended needs none.
            Some(number) => drop(kill_process(server, number)),
            None => {
                if let Some(status) = reap(server)? {
                    return Ok(code(status));
                }
            }
        }
    }
}

/// Waits for all that have ended; the status of the server if it is among them.
fn reap(server: Pid) -> io::Result<Option<WaitStatus>> {
    while let Some((ended, status)) = wait(WaitOptions::NOHANG)? {
        if ended == server {
            return Ok(Some(status));
        }
    }
    Ok(None)
}

/// As shells tell it.
fn code(status: WaitStatus) -> u8 {
    let status = ExitStatus::from_raw(status.as_raw());
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
