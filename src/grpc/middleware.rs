//! What every request passes first: the rules of gRPC over HTTP, its span, its deadline,
//! and, on the way back, the statuses that the gRPC library made by itself.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::{BoxError, Service};
use tracing::{Instrument as _, info_span};

use super::{
    body_timeout::{BodyTimeout, Expected},
    deadline::Deadline,
    large,
    shares::{Call, Reserved, Shares},
    status,
};
use crate::supervisor::message_of;

/// Bytes of a call's metadata, counted as HTTP/2 counts them.
const MAX_METADATA: usize = 16 << 10;
/// What HTTP/2 counts for each header besides its name and value. RFC 9113, 6.5.2.
const HEADER_OVERHEAD: usize = 32;

/// A service behind the middleware.
#[derive(Clone, Debug)]
pub struct Middleware<S> {
    inner: S,
}

impl<S> Middleware<S> {
    /// Puts the middleware before `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, B> Service<Request<B>> for Middleware<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
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
        if let Err(refused) = check(&request) {
            return Box::pin(async { Ok(*refused) });
        }
        let path = request.uri().path().to_owned();
        let span = info_span!("rpc", method = path.trim_start_matches('/'));
        if let Some(timeout) = grpc_timeout(request.headers()) {
            // A timeout beyond what the clock can tell is none.
            if let Some(deadline) = Instant::now().checked_add(timeout) {
                request.extensions_mut().insert(Deadline(deadline));
            }
        }
        let expected = expected(&path);
        let shares = request.extensions().get::<Shares>().cloned();
        let permit = match (expected, &shares) {
            (Expected::Messages, Some(shares)) => match shares.stream() {
                None => return Box::pin(async { Ok(status::too_many_streams().into_http()) }),
                permit => permit,
            },
            _ => None,
        };
        let deadline = request.extensions().get::<Deadline>().map(|deadline| deadline.0);
        let bounded = |body| Body::new(BodyTimeout::new(body, expected, shares.clone(), permit));
        let request = request.map(bounded);
        if let Some((shares, call)) = shares.zip(may_be_large(&path)) {
            // Not called before it has its room.
            let mut inner = self.inner.clone();
            let answer = async move {
                let Ok(room) = shares.response(call, deadline).await else {
                    return Ok(status::no_room_for_response().into_http());
                };
                let response = served(inner.call(request), &path).await?;
                Ok(large::keep(response, room).await)
            };
            return Box::pin(answer.instrument(span));
        }
        let answer = span.in_scope(|| self.inner.call(request));
        let answer = async move {
            let mut response = served(answer, &path).await?;
            Ok(match response.extensions_mut().remove::<Reserved>() {
                Some(room) => large::keep(response, room).await,
                None => response,
            })
        };
        Box::pin(answer.instrument(span))
    }
}

/// The answer of a service. A panic is the call's own: its client is answered, and nobody
/// else concerned.
async fn served(
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
    path: &str,
) -> Result<Response<Body>, Infallible> {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(answered) => Ok(mend(answered?, path)),
        Err(panic) => Ok(status::panicked(&message_of(&*panic)).into_http()),
    }
}

/// What a call does whose response may be large, and is made at once: so it has the room for
/// it before it is begun. Of the others (`None`) `WaitTask`, `CancelTask` and `RedriveTask` take
/// their room when they have waited; the responses of those that submit, or change many tasks or
/// a queue, are small; and streams have bounds of their own.
fn may_be_large(path: &str) -> Option<Call> {
    Some(match path.strip_prefix("/taskyard.v1.")? {
        "TaskService/Submit"
        | "TaskService/SubmitBatch"
        | "TaskService/SubmitStream"
        | "TaskService/SubmitAndWatch"
        | "TaskService/WatchEvents"
        | "TaskService/WaitTask"
        | "TaskService/CancelTask"
        | "TaskService/CancelTasks"
        | "TaskService/RedriveTask"
        | "TaskService/RedriveTasks"
        | "AdminService/UpdateQueue"
        | "AdminService/PauseQueue"
        | "AdminService/ResumeQueue"
        | "AdminService/Drain" => return None,
        "TaskService/ListTasks" => Call::List,
        _ => Call::Lookup,
    })
}

/// Whether a request is one of gRPC, before anything is done for it; the answer if not.
fn check<B>(request: &Request<B>) -> Result<(), Box<Response<Body>>> {
    if request.method() != Method::POST {
        let mut answer = status::not_post(request.method()).into_http();
        *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return Err(Box::new(answer));
    }
    let content_type = request.headers().get(header::CONTENT_TYPE);
    if !content_type.is_some_and(|value| is_grpc(value.as_bytes())) {
        let mut answer = status::not_grpc(content_type).into_http();
        *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Box::new(answer));
    }
    let size = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD);
    let size: usize = size.sum();
    if size > MAX_METADATA {
        return Err(Box::new(status::too_much_metadata(size, MAX_METADATA).into_http()));
    }
    Ok(())
}

/// Whether messages of protobuf come, as this server reads them: `application/grpc`,
/// perhaps with `+proto`, perhaps with parameters.
fn is_grpc(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let kind = kind.trim_ascii();
    kind.eq_ignore_ascii_case(b"application/grpc")
        || kind.eq_ignore_ascii_case(b"application/grpc+proto")
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
    use crate::proto;

    fn timeout(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", text.parse().unwrap());
        grpc_timeout(&headers)
    }

    #[test]
    fn only_protobuf_over_grpc_is_read() {
        for good in ["application/grpc", "application/grpc+proto", "Application/GRPC ; a=b"] {
            assert!(is_grpc(good.as_bytes()), "{good}");
        }
        for wrong in ["", "application/grpc+json", "application/grpc-web", "text/plain", "grpc"] {
            assert!(!is_grpc(wrong.as_bytes()), "{wrong}");
        }
    }

    /// Every method of every service, and whether its clients send more than one message.
    fn methods() -> Vec<(String, bool)> {
        use prost::Message as _;
        let sets = [
            proto::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let files = sets
            .into_iter()
            .flat_map(|set| prost_types::FileDescriptorSet::decode(set).expect("descriptors").file);
        let mut methods = Vec::new();
        for file in files {
            for service in &file.service {
                methods.extend(service.method.iter().map(|method| {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    (path, method.client_streaming())
                }));
            }
        }
        methods
    }

    #[test]
    fn it_is_known_of_every_method_what_is_expected() {
        let methods = methods();
        assert!(methods.len() > 20, "{methods:?}");
        for (path, streams) in methods {
            let wanted = if streams { Expected::Messages } else { Expected::OneMessage };
            assert_eq!(expected(&path), wanted, "{path}");
        }
    }

    /// A request that never comes to its end.
    struct Stuck(Option<Bytes>);

    impl http_body::Body for Stuck {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            match self.0.take() {
                Some(data) => Poll::Ready(Some(Ok(http_body::Frame::data(data)))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_half_sent_ends_whatever_its_service() {
        let reads_all = tower::service_fn(|request: Request<Body>| async move {
            let mut body = std::pin::pin!(request.into_body());
            loop {
                let next =
                    std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx));
                match next.await {
                    Some(Ok(_)) => {}
                    Some(Err(status)) => return Ok::<_, Infallible>(status.into_http()),
                    None => return Ok(Status::ok("").into_http()),
                }
            }
        });
        let mut middleware = Middleware::new(reads_all);
        for (path, _) in methods() {
            // A header, and less than it says.
            let body = Stuck(Some(Bytes::from_static(&[0, 0, 0, 0, 9, 1])));
            let request = Request::post(&path).header("content-type", "application/grpc");
            let answer = middleware.call(request.body(body).unwrap());
            let hour = Duration::from_hours(1);
            let answer = tokio::time::timeout(hour, answer).await.expect(&path).unwrap();
            let status = Status::from_header_map(answer.headers()).expect("a status");
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded, "{path}");
        }
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
