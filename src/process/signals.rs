//! Signal masks and dispositions that the process has inherited.
//!
//! Owns the only unsafe code of `process`. A parent that blocks SIGTERM, as some
//! supervisors and test harnesses do for themselves, would else start a server that
//! cannot be drained; one that ignores SIGCHLD, a server whose commands never end.
//! Must be called before the process has threads, which inherit the mask.

#![expect(unsafe_code, reason = "signal masks and dispositions have no safe interface")]

use std::{mem::MaybeUninit, ptr};

/// What is to be known of what was inherited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// SIGHUP was ignored, as `nohup` does: the process is to outlive its terminal.
    pub ignores_hangup: bool,
}

/// Unblocks every signal, and lets those that are ignored have their default effect
/// again; but for SIGHUP, which stays as it is, and SIGPIPE, which Rust programs ignore.
pub fn reset() -> Inherited {
    set_mask(false);
    for number in 1..=libc::SIGRTMAX() {
        if number != libc::SIGHUP && number != libc::SIGPIPE && is_ignored(number) {
            // SAFETY: SIG_DFL is no handler, so no code of ours runs in one.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    }
    Inherited { ignores_hangup: is_ignored(libc::SIGHUP) }
}

/// Blocks every signal for the calling thread: others hear them. It may write to a
/// terminal from the background (`stty tostop`) without being stopped, which would stop
/// the whole process.
pub fn hear_no_signals() {
    set_mask(true);
}

fn set_mask(blocked: bool) {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is written in full before it is read, and both calls only read and
    // write what they are given; neither fails with these arguments.
    unsafe {
        if blocked {
            libc::sigfillset(set.as_mut_ptr());
        } else {
            libc::sigemptyset(set.as_mut_ptr());
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), ptr::null_mut());
    }
}

fn is_ignored(number: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one; all zeros is a
    // valid value of it, if the call fails as for a number that is no signal.
    let action = unsafe {
        libc::sigaction(number, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}
