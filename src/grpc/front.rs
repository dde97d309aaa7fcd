//! What every request passes first: its span, its deadline, and, on the way
//! back, the statuses that the gRPC library made by itself.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::{BoxError, Service};
use tracing::{Instrument as _, info_span};

use super::{
    arrival::{Arriving, Expected},
    deadline::Deadline,
    shares::Shares,
    status,
};
use crate::supervisor::message_of;

/// A service behind the front.
#[derive(Clone, Debug)]
pub struct Front<S> {
    inner: S,
}

impl<S> Front<S> {
    /// Puts the front before `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for Front<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let span = info_span!("rpc", method = path.trim_start_matches('/'));
        if let Some(timeout) = grpc_timeout(request.headers()) {
            // A timeout beyond what the clock can tell is none.
            if let Some(deadline) = Instant::now().checked_add(timeout) {
                request.extensions_mut().insert(Deadline(deadline));
            }
        }
        let expected = expected(&path);
        let place = match (expected, request.extensions().get::<Shares>()) {
            (Expected::Messages, Some(shares)) => match shares.stream() {
                None => return Box::pin(async { Ok(status::too_many_streams().into_http()) }),
                place => place,
            },
            _ => None,
        };
        let request = request.map(|body| Body::new(Arriving::new(body, expected, place)));
        let answer = span.in_scope(|| self.inner.call(request));
        // A panic is the call's own: its client is answered, and nobody else concerned.
        let answer = AssertUnwindSafe(answer).catch_unwind();
        let answer = async move {
            match answer.await {
                Ok(answered) => Ok(mend(answered?, &path)),
                Err(panic) => Ok(status::panicked(&message_of(&*panic)).into_http()),
            }
        };
        Box::pin(answer.instrument(span))
    }
}

/// What a call sends.
fn expected(path: &str) -> Expected {
    match path {
        "/taskyard.v1.TaskService/SubmitStream"
        | "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Expected::Messages,
        _ => Expected::OneMessage,
    }
}

fn mend(response: Response<Body>, path: &str) -> Response<Body> {
    // Only an answer without a body has its status in the headers.
    if !response.headers().contains_key("grpc-status") {
        return response;
    }
    let status = Status::from_header_map(response.headers());
    match status.and_then(|status| status::repaired(&status, path)) {
        Some(repaired) => repaired.into_http(),
        None => response,
    }
}

/// The value of `grpc-timeout`: up to eight digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        grpc_timeout(&headers)
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(timeout("0n"), Some(Duration::ZERO));
        for wrong in ["", "S", "1", "123456789S", "-1S", "1x", "1.5S", "+1S"] {
            assert_eq!(timeout(wrong), None, "{wrong:?}");
        }
    }
}
