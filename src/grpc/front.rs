//! What every request passes first: its span, its deadline, and, on the way
//! back, the statuses that the gRPC library made by itself.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, Sleep};
use tonic::{Status, body::Body};
use tower::{BoxError, Service};
use tracing::{Instrument as _, info_span};

use super::{Deadline, status};

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
        let unary = path.starts_with(UNARY_SERVICE);
        let request = request.map(|body| {
            if unary { Body::new(Arriving { body, late: None }) } else { Body::new(body) }
        });
        let answer = span.in_scope(|| self.inner.call(request));
        Box::pin(async move { Ok(mend(answer.await?, &path)) }.instrument(span))
    }
}

/// The service whose requests are one message each.
const UNARY_SERVICE: &str = "/taskyard.v1.TaskService/";

/// How long a request may take to arrive, once it has begun.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A request that must arrive in time: what is there of it takes memory.
struct Arriving<B> {
    body: B,
    /// Begins when the rest has to be waited for, which it mostly has not.
    late: Option<Pin<Box<Sleep>>>,
}

impl<B> http_body::Body for Arriving<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(ARRIVAL_TIMEOUT)));
        ready!(late.as_mut().poll(cx));
        Poll::Ready(Some(Err(Box::new(status::not_arrived(ARRIVAL_TIMEOUT)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
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

    /// A request whose rest never comes.
    struct Silent;

    impl http_body::Body for Silent {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_arrive_is_given_up() {
        let mut body = Box::pin(Arriving { body: Silent, late: None });
        let began = Instant::now();
        let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await;
        let error = frame.expect("an end").expect_err("an error");
        let status = error.downcast_ref::<Status>().expect("a status");
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(began.elapsed().as_secs(), ARRIVAL_TIMEOUT.as_secs());
    }
}
