//! What a status says about another try.

use std::{error::Error as _, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How the generated client begins a status of its own that has no source.
const NOT_READY: &str = "Service was not ready";

/// Whether the connection broke, rather than the server answering: worth
/// another try. Statuses that this side made carry their cause as a source;
/// those that came over the wire never do.
pub fn is_lost(status: &Status) -> bool {
    let made_here = status.source().is_some() || status.message().starts_with(NOT_READY);
    status.code() == Code::Unavailable || (made_here && !is_own_deadline(status))
}

/// What the server says about another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Nothing: back off as seems fit.
    Unsaid,
    /// After this long.
    After(Duration),
    /// Not to try again.
    Never,
}

/// Reads the pushback from the metadata or, without it, from the details.
pub fn pushback(status: &Status) -> Pushback {
    let Some(value) = status.metadata().get("grpc-retry-pushback-ms") else {
        return retry_info(status).map_or(Pushback::Unsaid, Pushback::After);
    };
    let millis = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    millis.map_or(Pushback::Never, |millis| Pushback::After(Duration::from_millis(millis)))
}

fn retry_info(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// tonic answers a deadline that passed on this side with CANCELLED.
pub fn is_own_deadline(status: &Status) -> bool {
    status.code() == Code::Cancelled && status.message() == "Timeout expired"
}

/// The reason that the server gives, such as `QUEUE_FULL`: stable, to be compared by
/// programs.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use super::*;

    #[test]
    fn a_negative_pushback_forbids_another_try() {
        let mut status = Status::unavailable("gone");
        assert_eq!(pushback(&status), Pushback::Unsaid);
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", tonic::metadata::MetadataValue::from_static("250"));
        assert_eq!(pushback(&status), Pushback::After(Duration::from_millis(250)));
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", tonic::metadata::MetadataValue::from_static("-1"));
        assert_eq!(pushback(&status), Pushback::Never);
    }

    #[test]
    fn what_the_server_answered_is_no_lost_connection() {
        let mut status = Status::unknown("h2 protocol error");
        assert!(!is_lost(&status));
        status.set_source(Arc::new(io::Error::other("connection reset")));
        assert!(is_lost(&status));
        assert!(!is_lost(&Status::cancelled("Timeout expired")));
        // As of a connection that HTTP/2 closed with ENHANCE_YOUR_CALM.
        let mut calm = Status::resource_exhausted("too many frames");
        assert!(!is_lost(&calm));
        calm.set_source(Arc::new(io::Error::other("h2")));
        assert!(is_lost(&calm));
        assert!(is_lost(&Status::unavailable("")));
    }

    #[test]
    fn a_reason_is_told_by_name() {
        let details = tonic_types::ErrorDetails::with_error_info("QUEUE_FULL", "taskyard", []);
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        assert_eq!(reason(&status).as_deref(), Some("QUEUE_FULL"));
        assert_eq!(reason(&Status::internal("")), None);
    }
}
