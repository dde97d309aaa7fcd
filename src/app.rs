//! The builder with which a program adds kinds of its own and becomes a server.

use std::process::ExitCode;

use taskyard_cli::Program;

use crate::{
    commands,
    handler::{Handler, Registry},
};

/// A Taskyard program: the built-in command line with further kinds of task.
#[derive(Debug, Default)]
pub struct App {
    registry: Registry,
    program: Program,
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

    /// Calls it by a name of its own in help, `--version` and hints; `taskyard` unless set.
    #[must_use]
    pub fn name(mut self, name: &'static str) -> Self {
        self.program.name = name;
        self
    }

    /// Gives it a version of its own, such as `env!("CARGO_PKG_VERSION")`; `--version` then
    /// tells both, its own first. Taskyard's alone unless set.
    #[must_use]
    pub fn version(mut self, version: &'static str) -> Self {
        self.program.version = Some(version);
        self
    }

    /// Reads the command line and does what it says. See `--help`, and
    /// [`crate::Exit`] for the exit codes.
    #[must_use]
    pub fn run(self) -> ExitCode {
        commands::run(self.registry, self.program)
    }
}
