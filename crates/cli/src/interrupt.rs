//! Ctrl-C, for commands that tidy up.

use std::io;

use rustix::{
    process::getpgrp,
    termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{exit::Exit, problem::Problem};

/// Hears Ctrl-C from its making on, also while nobody waits for it.
pub struct CtrlC {
    interrupt: Signal,
    terminate: Option<Signal>,
    _echo: Option<NoEcho>,
}

impl CtrlC {
    /// Begins to listen; from now on Ctrl-C no longer ends the process by itself.
    ///
    /// # Errors
    /// [`Exit::Internal`] if the system does not allow it.
    pub fn listen() -> Result<Self, Problem> {
        Ok(Self {
            interrupt: hear(SignalKind::interrupt())?,
            terminate: None,
            _echo: NoEcho::begin(),
        })
    }

    /// The same with SIGTERM, which says as much to a command that runs for days.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub fn or_term() -> Result<Self, Problem> {
        Ok(Self { terminate: Some(hear(SignalKind::terminate())?), ..Self::listen()? })
    }

    /// Returns once it is pressed. Dropping the future loses nothing.
    pub async fn pressed(&mut self) {
        let terminated = async {
            match &mut self.terminate {
                Some(signal) => signal.recv().await,
                None => None,
            }
        };
        tokio::select! {
            Some(()) = self.interrupt.recv() => {}
            Some(()) = terminated => {}
            else => std::future::pending().await,
        }
    }
}

fn hear(kind: SignalKind) -> Result<Signal, Problem> {
    signal(kind)
        .map_err(|wrong| Problem::new(Exit::Internal, format!("cannot hear signals: {wrong}")))
}

/// The terminal does not write `^C` when it is pressed: in the midst of a progress bar, whose
/// lines reach to the right edge, that would move everything down by a line and leave a part
/// of the bar behind. Ends when dropped.
pub struct NoEcho {
    before: Termios,
}

impl NoEcho {
    /// `None` where there is no terminal, or it belongs to another job: one in the background
    /// that touches it is stopped.
    pub fn begin() -> Option<Self> {
        let stdin = io::stdin();
        if !is_ours() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHOCTL);
        tcsetattr(&stdin, OptionalActions::Now, &quiet).ok()?;
        Some(Self { before })
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        if is_ours() {
            // A terminal that has gone needs nothing back.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        }
    }
}

/// Whether stdin is a terminal, and this process in its foreground.
fn is_ours() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground == getpgrp())
}
