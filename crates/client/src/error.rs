//! What went wrong, in words for programs and for people.

use std::{collections::HashMap, fmt, time::Duration};

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    root_cause,
    status::{Pushback, is_lost, is_own_deadline, pushback},
};

/// One thing that is wrong with a request, or with the state of what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, such as `retry.max_attempts`, or the thing in question, such as a task.
    pub subject: String,
    /// What is wrong with it.
    pub description: String,
}

/// Why a call failed: the status of the server, or of the way to it, taken apart.
#[derive(Clone, Debug)]
pub struct Error {
    status: Status,
    reason: String,
    metadata: HashMap<String, String>,
    violations: Vec<Violation>,
}

impl Error {
    /// The gRPC code. A deadline that passed on this side is `DEADLINE_EXCEEDED`, and a
    /// lost connection `UNAVAILABLE`, whatever the transport made of them.
    pub fn code(&self) -> Code {
        if is_own_deadline(&self.status) {
            Code::DeadlineExceeded
        } else if is_lost(&self.status) {
            Code::Unavailable
        } else {
            self.status.code()
        }
    }

    /// The server's reason, such as `QUEUE_FULL`: stable, to be compared by programs.
    /// Empty if no Taskyard answered.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What goes with the reason, by name: such as the `cursor` to go on after.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Everything that is wrong with the request.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How long the server asks to wait before another try.
    pub fn retry_after(&self) -> Option<Duration> {
        match pushback(&self.status) {
            Pushback::After(rest) => Some(rest),
            Pushback::Unsaid | Pushback::Never => None,
        }
    }

    /// The status as it came.
    pub fn status(&self) -> &Status {
        &self.status
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        let (reason, metadata) = info.map(|info| (info.reason, info.metadata)).unwrap_or_default();
        let fields = status.get_details_bad_request().into_iter().flat_map(|bad| {
            let violation = |v: tonic_types::FieldViolation| (v.field, v.description);
            bad.field_violations.into_iter().map(violation)
        });
        let preconditions = status.get_details_precondition_failure().into_iter().flat_map(|bad| {
            let violation = |v: tonic_types::PreconditionViolation| (v.subject, v.description);
            bad.violations.into_iter().map(violation)
        });
        let violations = fields
            .chain(preconditions)
            .map(|(subject, description)| Violation { subject, description })
            .collect();
        Self { status, reason, metadata, violations }
    }
}

/// One task's own status in a batch or in a stream.
impl From<tonic_types::Status> for Error {
    fn from(status: tonic_types::Status) -> Self {
        let (code, details) = (Code::from(status.code), status.encode_to_vec());
        Status::with_details(code, status.message, details.into()).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::error::Error as _;
        if is_own_deadline(&self.status) {
            return f.write_str("the deadline passed before the server answered");
        }
        if is_lost(&self.status) && self.status.source().is_some() {
            let cause = root_cause(&self.status);
            return write!(f, "the connection to the server was lost: {cause}");
        }
        match self.status.message().trim() {
            "" => write!(f, "the server answered {:?} without a message", self.status.code())?,
            message => f.write_str(message)?,
        }
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    #[test]
    fn everything_has_its_name() {
        let mut details =
            ErrorDetails::with_error_info("INVALID_FIELDS", "taskyard", [("a".into(), "b".into())]);
        let wrong = [FieldViolation::new("kind", "is required")];
        details.set_bad_request(wrong);
        details.set_retry_info(Some(Duration::from_millis(7)));
        let status = Status::with_error_details(Code::InvalidArgument, "kind is wrong", details);
        let error = Error::from(status);
        assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, "INVALID_FIELDS"));
        assert_eq!(error.metadata()["a"], "b");
        assert_eq!(error.retry_after(), Some(Duration::from_millis(7)));
        let (subject, description) = ("kind".into(), "is required".into());
        assert_eq!(error.violations(), [Violation { subject, description }]);
        assert_eq!(error.to_string(), "kind is wrong (INVALID_FIELDS)");
    }

    #[test]
    fn what_happened_on_this_side_is_told_as_what_it_is() {
        let late = Error::from(Status::cancelled("Timeout expired"));
        assert_eq!((late.code(), late.reason()), (Code::DeadlineExceeded, ""));
        let mut status = Status::unknown("h2 protocol error");
        status.set_source(Arc::new(std::io::Error::other("connection reset")));
        let lost = Error::from(status);
        assert_eq!(lost.code(), Code::Unavailable);
        assert_eq!(lost.to_string(), "the connection to the server was lost: connection reset");
    }
}
