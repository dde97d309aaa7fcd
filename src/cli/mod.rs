//! The command line.

use std::process::ExitCode;

use crate::handler::Registry;

/// Reads the command line and does what it says.
#[must_use]
pub fn run(_own: Registry) -> ExitCode {
    ExitCode::SUCCESS
}
