//! What this program is called: `taskyard`, or the name of the program that is built on it.
//!
//! Owns the name and the version that help, `--version` and hints tell. Must not know
//! commands.

use std::sync::OnceLock;

/// The version of the crate.
const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The name and version of a program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What people call it by.
    pub name: &'static str,
    /// Its own version; `None` for that of the crate.
    pub version: Option<&'static str>,
}

impl Default for Program {
    fn default() -> Self {
        Self { name: "taskyard", version: None }
    }
}

impl Program {
    /// What `--version` tells after the name.
    pub fn version_text(self) -> String {
        match self.version {
            None => OWN_VERSION.to_owned(),
            Some(version) => format!("{version} (taskyard {OWN_VERSION})"),
        }
    }

    /// Makes it the program of this process. Only the first time counts.
    pub fn set(self) {
        let _ = PROGRAM.set(self);
    }
}

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// The name of this process's program, for hints that name a command.
pub fn name() -> &'static str {
    PROGRAM.get().copied().unwrap_or_default().name
}
