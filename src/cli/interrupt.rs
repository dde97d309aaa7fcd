//! Ctrl-C, for commands that tidy up.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{exit::Exit, problem::Problem};

/// Hears Ctrl-C from its making on, also while nobody waits for it.
pub struct CtrlC(Signal);

impl CtrlC {
    /// Begins to listen; from now on Ctrl-C no longer ends the process by itself.
    ///
    /// # Errors
    /// [`Exit::Internal`] if the system does not allow it.
    pub fn listen() -> Result<Self, Problem> {
        let cannot = |wrong| Problem::new(Exit::Internal, format!("cannot hear Ctrl-C: {wrong}"));
        signal(SignalKind::interrupt()).map(Self).map_err(cannot)
    }

    /// Returns once it is pressed. Dropping the future loses nothing.
    pub async fn pressed(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
