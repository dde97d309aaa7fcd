//! The exit codes: an interface for scripts, as stable as the flags.
//!
//! Owns the numbers and which gRPC code becomes which. Must not know commands.

use std::process::ExitCode;

use tonic::Code;

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Ok = 0,
    /// A task that was waited for FAILED or was CANCELLED, or some of the lines
    /// of `submit --from` were refused, or `store verify` found damage.
    TaskFailed = 1,
    /// The command line, a file or the configuration is wrong; nothing was sent.
    Usage = 2,
    /// The server refused the request.
    Refused = 3,
    /// The server cannot be reached, or is draining.
    Unavailable = 4,
    /// The queue is full, or another bound of the server is reached.
    Full = 5,
    /// The time given for it was over first.
    TimedOut = 6,
    /// `serve` or `demo` could not start: the port or the data directory is in
    /// use, or the store is damaged.
    NotStarted = 7,
    /// `serve` ended before its drain was complete, or `drain` was told so: the
    /// bound was reached, or a second signal came. Nothing is lost, but what ran was cut off.
    DrainIncomplete = 8,
    /// `serve` or `demo` ended because a part of the server had failed, which is a defect.
    /// Nothing acknowledged is lost. To be started again.
    Failed = 9,
    /// A defect, of the server or of this program.
    Internal = 70,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// The code that stands for an answer of the server.
    pub fn of(code: Code) -> Self {
        match code {
            Code::Ok => Self::Ok,
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Self::Refused,
            Code::Unavailable => Self::Unavailable,
            Code::ResourceExhausted => Self::Full,
            Code::DeadlineExceeded => Self::TimedOut,
            Code::Cancelled | Code::Unknown | Code::Aborted | Code::Internal | Code::DataLoss => {
                Self::Internal
            }
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The same for people, at the end of `--help`.
pub const HELP: &str = "\
Exit codes:
    0  everything asked for was done
    1  a task that was waited for FAILED or was CANCELLED, lines were refused, or
       store verify found damage
    2  wrong usage, bad input or bad configuration; found before anything was sent
    3  the server refused the request
    4  the server cannot be reached, or is draining
    5  the queue is full, or another bound of the server is reached
    6  timed out
    7  serve, demo: could not start (port or data directory in use, store damaged);
       store verify: could not find out whether there is damage
    8  serve, drain: the server ended before its drain was complete
    9  serve, demo: the server failed, which is a defect; it is to be started again
   70  internal error
  130  Ctrl-C";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_server_has_an_exit_code() {
        let table = [
            (Code::Ok, 0),
            (Code::InvalidArgument, 3),
            (Code::NotFound, 3),
            (Code::FailedPrecondition, 3),
            (Code::AlreadyExists, 3),
            (Code::OutOfRange, 3),
            (Code::Unavailable, 4),
            (Code::ResourceExhausted, 5),
            (Code::DeadlineExceeded, 6),
            (Code::Internal, 70),
            (Code::Unknown, 70),
        ];
        for (code, exit) in table {
            assert_eq!(Exit::of(code) as u8, exit, "{code:?}");
        }
    }

    #[test]
    fn the_help_names_every_number() {
        let exits = [
            Exit::Ok,
            Exit::TaskFailed,
            Exit::Usage,
            Exit::Refused,
            Exit::Unavailable,
            Exit::Full,
            Exit::TimedOut,
            Exit::NotStarted,
            Exit::DrainIncomplete,
            Exit::Failed,
            Exit::Internal,
            Exit::Interrupted,
        ];
        for exit in exits {
            let number = format!("{:>5}  ", exit as u8);
            assert!(HELP.lines().any(|line| line.starts_with(&number)), "{exit:?}");
        }
    }
}
