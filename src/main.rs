//! The `taskyard` binary: the command line with the built-in kinds of task.

use std::process::ExitCode;

fn main() -> ExitCode {
    taskyard::App::new().run()
}
