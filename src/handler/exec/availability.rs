//! Whether a declared command could be started, as the system would look for it.
//!
//! Looked at when the server starts, so that a name that is misspelt is told to the operator
//! and not to the first task. Must not know tasks.

use std::{
    ffi::OsString,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use taskyard_text::quoted;

use super::Command;

/// Where programs are looked for by a process without a `PATH`.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What is wrong with the program or the directory of the command `name`, as a sentence.
pub fn missing(name: &str, command: &Command) -> Option<String> {
    let at = |key: &str, wrong: String| Some(format!("[exec.{name}] {key}: {wrong}"));
    if let Some(directory) = &command.working_dir {
        let shown = quoted(&directory.to_string_lossy());
        match directory.metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return at("working_dir", format!("{shown} is no directory")),
            Err(_) => {
                return at("working_dir", format!("there is no directory {shown}; make it first"));
            }
        }
    }
    let program = &command.program;
    let shown = quoted(program);
    if program.contains('/') {
        // The process is in its directory when the program is looked for.
        let path = command.working_dir.as_deref().unwrap_or(Path::new("")).join(program);
        return match usable(&path) {
            Usable::Yes => None,
            Usable::NotExecutable => {
                at("command", format!("{shown} is not an executable file; see chmod +x"))
            }
            Usable::Absent => at("command", format!("there is no program {shown}")),
        };
    }
    let path = search_path(command);
    let found = || std::env::split_paths(&path).map(|dir| usable(&in_dir(command, &dir, program)));
    if found().any(|usable| usable == Usable::Yes) {
        return None;
    }
    let shown_path = path.to_string_lossy();
    if found().any(|usable| usable == Usable::NotExecutable) {
        return at("command", format!("{shown} in {shown_path} is not an executable file"));
    }
    at("command", format!("there is no program {shown} in {shown_path}; write its path"))
}

fn in_dir(command: &Command, dir: &Path, program: &str) -> PathBuf {
    command.working_dir.as_deref().unwrap_or(Path::new("")).join(dir).join(program)
}

/// The command's own `PATH`, or the server's, which it inherits.
fn search_path(command: &Command) -> OsString {
    let own = command.env.get("PATH").map(OsString::from);
    own.or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| DEFAULT_PATH.into())
}

#[derive(PartialEq, Eq)]
enum Usable {
    Yes,
    NotExecutable,
    Absent,
}

fn usable(path: &Path) -> Usable {
    match path.metadata() {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Usable::Yes,
        Ok(_) => Usable::NotExecutable,
        Err(_) => Usable::Absent,
    }
}
