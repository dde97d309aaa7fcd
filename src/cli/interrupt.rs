//! Ctrl-C, for commands that tidy up.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{exit::Exit, problem::Problem};

/// Hears Ctrl-C from its making on, also while nobody waits for it.
pub struct CtrlC {
    interrupt: Signal,
    terminate: Option<Signal>,
}

impl CtrlC {
    /// Begins to listen; from now on Ctrl-C no longer ends the process by itself.
    ///
    /// # Errors
    /// [`Exit::Internal`] if the system does not allow it.
    pub fn listen() -> Result<Self, Problem> {
        Ok(Self { interrupt: hear(SignalKind::interrupt())?, terminate: None })
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
