//! Why a command ended early, in words for people.
//!
//! Owns the one message that a failed command prints, and how a gRPC status
//! becomes it. Must not know any one command.

use std::{fmt::Write as _, io};

use taskyard_client::{Error, Violation, is_lost, is_own_deadline};
use taskyard_text::without_error_numbers;
use tonic::Status;

use super::{exit::Exit, output::printable, units::span};

/// A command ends here.
#[derive(Debug, PartialEq, Eq)]
pub enum Problem {
    /// Whoever read our output has gone, as `head` does: not an error.
    OutputClosed,
    /// Something to tell.
    Told {
        /// How the process ends.
        exit: Exit,
        /// One sentence, then perhaps further lines.
        message: String,
    },
}

impl Problem {
    /// A problem of this kind, in these words.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told { exit, message: without_error_numbers(&message.into()) }
    }

    /// The command line or a file is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            Self::OutputClosed => Exit::Ok,
            Self::Told { exit, .. } => *exit,
        }
    }

    /// Adds a line below what is told.
    #[must_use]
    pub fn hint(mut self, line: &str) -> Self {
        if let Self::Told { message, .. } = &mut self {
            message.push_str("\n  ");
            message.push_str(&without_error_numbers(line));
        }
        self
    }

    /// What is told; empty if nothing is.
    pub fn message(&self) -> &str {
        match self {
            Self::OutputClosed => "",
            Self::Told { message, .. } => message,
        }
    }
}

/// Writing to stdout failed.
impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::new(Exit::Internal, format!("cannot write the output: {error}")),
        }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        Self::new(exit_of(&status), told(&status))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        error.status().clone().into()
    }
}

fn exit_of(status: &Status) -> Exit {
    if is_own_deadline(status) {
        Exit::TimedOut
    } else if is_lost(status) {
        Exit::Unavailable
    } else {
        Exit::of(status.code())
    }
}

/// A status in words: message, reason, when to retry, then every violation on
/// a line of its own.
pub fn told(status: &Status) -> String {
    let error = Error::from(status.clone());
    let mut text = printable(&error.to_string());
    if let Some(rest) = error.retry_after() {
        let _ = write!(text, "; retry in {}", span(rest));
    }
    for Violation { subject, description } in error.violations() {
        let line = format!("{}: {}", printable(subject), printable(description));
        // A message may name its only violation in full already.
        if !text.contains(&line) && description != status.message() {
            let _ = write!(text, "\n  {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tonic::Code;
    use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

    use super::*;

    #[test]
    fn a_full_queue_says_why_and_when_to_retry() {
        let mut details = ErrorDetails::with_error_info("QUEUE_FULL", "taskyard", []);
        details.set_retry_info(Some(Duration::from_millis(1200)));
        let status = Status::with_error_details(
            Code::ResourceExhausted,
            "the queue \"default\" is full",
            details,
        );
        let problem = Problem::from(status);
        assert_eq!(problem.exit(), Exit::Full);
        assert_eq!(problem.message(), "the queue \"default\" is full (QUEUE_FULL); retry in 1.2 s");
    }

    #[test]
    fn every_violation_has_a_line() {
        let details = ErrorDetails::with_bad_request(vec![
            FieldViolation::new("kind", "is required"),
            FieldViolation::new("priority", "must be at most 1000"),
        ]);
        let status =
            Status::with_error_details(Code::InvalidArgument, "2 fields are wrong", details);
        let problem = Problem::from(status);
        assert_eq!(problem.exit(), Exit::Refused);
        assert_eq!(
            problem.message(),
            "2 fields are wrong\n  kind: is required\n  priority: must be at most 1000"
        );
    }

    #[test]
    fn a_violation_is_not_told_twice() {
        let details = ErrorDetails::with_bad_request_violation("kind", "is required");
        let status =
            Status::with_error_details(Code::InvalidArgument, "kind: is required", details);
        assert_eq!(told(&status), "kind: is required");
    }

    #[test]
    fn a_broken_connection_is_not_a_defect() {
        let mut status = Status::unknown("h2 protocol error");
        assert_eq!(Problem::from(status.clone()).exit(), Exit::Internal);
        status.set_source(Arc::new(io::Error::other("connection reset")));
        assert!(is_lost(&status));
        assert_eq!(Problem::from(status).exit(), Exit::Unavailable);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let problem = Problem::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(problem, Problem::OutputClosed);
        assert_eq!(problem.exit(), Exit::Ok);
    }
}
