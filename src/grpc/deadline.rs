//! How long a caller waits.

use tokio::time::Instant;
use tonic::{Request, Status};

use super::status;

/// When the caller stops waiting, from its `grpc-timeout`.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(pub Instant);

/// The deadline of a call, if it has one.
pub fn deadline_of<T>(request: &Request<T>) -> Option<Instant> {
    request.extensions().get::<Deadline>().map(|deadline| deadline.0)
}

/// Waits until the caller's deadline at the longest.
///
/// # Errors
/// Those of the call; DEADLINE if its outcome is not known by then.
pub async fn within<T>(
    deadline: Option<Instant>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => call.await,
        Some(deadline) => tokio::time::timeout_at(deadline, call)
            .await
            .unwrap_or_else(|_| Err(status::deadline())),
    }
}

/// Returns when the deadline has passed; never, if there is none.
pub async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
