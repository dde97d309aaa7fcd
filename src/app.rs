//! The builder with which a program adds kinds of its own and becomes a server.

use std::process::ExitCode;

use crate::handler::{Handler, Registry};

/// A Taskyard program: the built-in command line with further kinds of task.
#[derive(Debug, Default)]
pub struct App {
    registry: Registry,
}

impl App {
    /// A program that knows the built-in kinds `noop`, `sleep` and `exec`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kind of task. One of the same name is replaced, a built-in too.
    #[must_use]
    pub fn handler(mut self, kind: &str, handler: impl Handler) -> Self {
        self.registry.insert(kind, handler);
        self
    }

    /// Reads the command line and does what it says. See `--help`, and
    /// [`crate::cli`] for the exit codes.
    #[must_use]
    pub fn run(self) -> ExitCode {
        crate::cli::run(self.registry)
    }
}
