//! The limit of open files.
//!
//! Owns raising it, refusing one that is too low, and giving commands the one that the
//! server was started with. Must not know what needs files.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit that the process was started with, once it was changed.
static ORIGINAL: OnceLock<Rlimit> = OnceLock::new();

/// There cannot be as many open files as are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Open files that the process may have at most.
    pub limit: u64,
}

/// Raises the soft limit to the hard one, as high as the system lets it.
///
/// # Errors
/// Even so the process may have fewer than `need` open files.
pub fn secure(need: u64) -> Result<(), Shortage> {
    let original = getrlimit(Resource::Nofile);
    let _ = ORIGINAL.set(original);
    for current in [original.maximum, Some(need)] {
        let is_more = current.is_none_or(|new| original.current.is_some_and(|old| old < new));
        let raised = Rlimit { current, maximum: original.maximum };
        // Not every system takes its own hard limit; what is needed is tried then.
        if is_more && setrlimit(Resource::Nofile, raised).is_ok() {
            break;
        }
    }
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < need => Err(Shortage { limit }),
        _ => Ok(()),
    }
}

/// Gives the calling process the limit that this one was started with. For a child
/// between fork and exec: programs that use `select`, or close all files that they could
/// have, do not expect a high one. Only a system call.
pub fn restore() {
    if let Some(original) = ORIGINAL.get() {
        // Lowering the soft limit is always allowed.
        let _ = setrlimit(Resource::Nofile, *original);
    }
}
