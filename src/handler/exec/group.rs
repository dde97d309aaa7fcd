//! A process and everything that it starts.
//!
//! Owns the process group, from its start to the death of its last member. Must
//! not know tasks.
//!
//! The group is the first of a session of its own, which has no terminal: a command that
//! asks its user something fails at once, and Ctrl-C at the server's terminal reaches no
//! command.
//!
//! A group is signalled by a number: the process id of its leader, our child.
//! The system gives that number away again once no process and no group has it,
//! and a signal would then hit strangers. It cannot do so while the leader has
//! ended but has not been reaped. So the leader is not reaped before the last
//! signal was sent: its end is noticed without reaping it (`waitid` with
//! `WNOWAIT`), then what is left of the group is killed, and only then is the
//! leader reaped. That is why `tokio`'s `Child::wait` is not used, nor any other
//! way to wait that reaps.

use std::{future::Future, io, pin::pin, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    signal::unix::{SignalKind, signal},
};

use super::{capture::Capture, child};

/// How long the pipes are read after the leader has ended, in case that another
/// process of the group holds them open.
const LINGER: Duration = Duration::from_millis(500);

/// A process group. Dropping it kills every process in it.
#[derive(Debug)]
pub struct Group {
    child: Child,
    /// The child's process id and the group's number; `None` once the child has
    /// been reaped, after which nothing may be signalled.
    leader: Option<Pid>,
}

/// How a group ended.
#[derive(Debug)]
pub struct Ended {
    /// How its leader did.
    pub status: ExitStatus,
    /// Whether it was asked to, with SIGTERM, before its leader ended.
    pub terminated: bool,
}

impl Group {
    /// Starts `command` as the leader of a new session, and so of a new group.
    ///
    /// # Errors
    /// What the system says if it cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        child::isolate(command.as_std_mut());
        let child = command.spawn()?;
        let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, leader })
    }

    /// Gives the leader `stdin`, captures what the group prints, and returns when
    /// the leader has ended and what it left of the group has been killed. Sends
    /// SIGTERM to the group once `cancelled` is ready.
    ///
    /// # Errors
    /// What the system says if the leader cannot be waited for.
    pub async fn run(
        &mut self,
        stdin: Option<&str>,
        stdout: &mut Capture,
        stderr: &mut Capture,
        cancelled: impl Future<Output = ()>,
    ) -> io::Result<Ended> {
        let input = self.child.stdin.take().zip(stdin);
        let (output, errors) = (self.child.stdout.take(), self.child.stderr.take());
        let mut talk = pin!(async {
            tokio::join!(feed(input), stdout.read(output), stderr.read(errors));
        });
        let mut end = pin!(end_of(self.leader));
        let mut cancelled = pin!(cancelled);
        let (mut terminated, mut silent) = (false, false);
        loop {
            tokio::select! {
                // The end comes first: who was done before the cancellation has succeeded.
                biased;
                ended = &mut end => {
                    ended.inspect_err(|_| self.leader = None)?;
                    break;
                }
                () = &mut cancelled, if !terminated => {
                    self.signal(Signal::TERM);
                    terminated = true;
                }
                () = &mut talk, if !silent => silent = true,
            }
        }
        if !silent {
            // Too late is as good as ended: what was captured until then counts.
            let _ = tokio::time::timeout(LINGER, talk).await;
        }
        Ok(Ended { status: self.reap()?, terminated })
    }

    /// Kills what is left of the group, then reaps its leader, which has ended.
    fn reap(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.leader = None;
        let status = self.child.try_wait()?;
        status.ok_or_else(|| io::Error::other("it has ended, and its status is not there"))
    }

    /// Signals every process of the group. One that ended meanwhile needs none,
    /// and other failures leave nothing else to try.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.leader {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    /// Nobody waits any more: the runtime reaps the leader later.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Returns once the child has ended, and does not reap it.
///
/// The system says with SIGCHLD that some child has ended; whether it was this
/// one is asked then. The signal is listened for before the first question, so
/// that no end is missed.
async fn end_of(child: Option<Pid>) -> io::Result<()> {
    let child = child.ok_or_else(|| io::Error::other("it has no process id"))?;
    let mut ends = signal(SignalKind::child())?;
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(child), ended)?.is_none() {
        ends.recv().await;
    }
    Ok(())
}

/// Writes all of the input and closes it. A reader that wants no more of it is
/// free to do so.
async fn feed(input: Option<(ChildStdin, &str)>) {
    if let Some((mut pipe, text)) = input {
        let _ = pipe.write_all(text.as_bytes()).await;
    }
}
