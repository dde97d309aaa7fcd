//! What stands between the server's process and the command's, in the child after the
//! fork.
//!
//! Owns the only unsafe code of `exec`. Must not allocate, lock or log in the child:
//! another thread may have held the allocator's lock when the process was forked, and
//! nobody is left there to give it back. Everything here is a system call.

#![expect(unsafe_code, reason = "`pre_exec` is unsafe, and so are signal dispositions")]

use std::{io, process::Command};

use rustix::process::setsid;

use crate::process;

/// Lets the command begin in a session of its own, without a controlling terminal,
/// without descriptors but its first three, with every signal as it is by default, and
/// with the limit of open files that the server was started with.
///
/// The session's leader is the child, and the session's first process group has its
/// number. Signals that the server ignores, because whoever started it did, would be
/// ignored by the command too; the standard library unblocks all of them already.
pub fn isolate(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;

    // SAFETY: the closure makes system calls that POSIX or Linux names safe after a
    // fork in a process of several threads: setsid, sigaction, setrlimit, close_range. It owns
    // nothing, so nothing is dropped, and its errors carry no allocation.
    unsafe {
        command.pre_exec(|| {
            setsid()?;
            default_signals();
            process::restore_limits();
            close_others_at_exec()
        });
    }
}

/// Only what is ignored has to be reset: handlers end with the image of the server.
fn default_signals() {
    for number in 1..=libc::SIGRTMAX() {
        // SAFETY: no handler is installed, and the numbers that cannot be changed
        // (SIGKILL, SIGSTOP, those of the C library) are refused without effect.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// What the server opens is closed at exec already; what it inherited open need not be.
#[cfg(target_os = "linux")]
fn close_others_at_exec() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: it only marks descriptors; the standard library's own, by which it hears
    // that exec has failed, stays open until then.
    let done = unsafe { libc::close_range(3, libc::c_uint::MAX, flags) };
    if done == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Linux before 5.11 does not know it, and filters of system calls that are older
        // than it refuse it (EPERM). A command that runs with what whoever started the
        // server left open is better than none.
        Some(libc::ENOSYS | libc::EINVAL | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
fn close_others_at_exec() -> io::Result<()> {
    Ok(())
}
