//! One call: the request arrives, is served, and its answer goes out.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;
use http_body::Body as _;
use tonic::body::Body;
use tracing::debug;

use super::{
    incoming::Intake,
    outgoing::{Outgoing, StallLimit},
};
use crate::grpc::shares::Held;

/// An extension of a response that has an end of its own if it is not read.
#[derive(Clone, Copy, Debug)]
pub struct EndsByItself;

/// How long the rest of a request is still taken, and dropped, that was answered before
/// it had come to its end: for what is on its way. Its client sends no more when it has
/// the answer.
const LINGER: Duration = Duration::from_secs(1);

/// Serves one call to its end.
pub async fn answer<E>(
    mut intake: Intake,
    served: impl Future<Output = Result<Response<Body>, E>>,
    mut respond: SendResponse<Bytes>,
    stall_limit: StallLimit,
) {
    let mut has_all = false;
    // Leaves nothing of the service behind, as its answer may wait for the client.
    let response = {
        let mut served = pin!(served);
        poll_fn(|cx| {
            has_all = has_all || intake.poll(cx).is_ready();
            match served.as_mut().poll(cx) {
                Poll::Ready(response) => Poll::Ready(response.ok()),
                Poll::Pending => respond.poll_reset(cx).map(|_| None),
            }
        })
        .await
    };
    // Its client is gone.
    let Some(response) = response else { return };
    let (mut head, body) = response.into_parts();
    let room = head.extensions.remove::<Held>();
    let stall_limit = Some(stall_limit).filter(|_| head.extensions.get::<EndsByItself>().is_none());
    let is_whole = body.is_end_stream();
    let stream = match respond.send_response(Response::from_parts(head, ()), is_whole) {
        Ok(stream) => stream,
        Err(error) => return debug!(%error, "a call could not be answered"),
    };
    if !is_whole {
        let mut outgoing = Outgoing::new(stream, body, stall_limit, room);
        let sent = poll_fn(|cx| {
            has_all = has_all || intake.poll(cx).is_ready();
            outgoing.poll(cx)
        });
        if let Err(error) = sent.await {
            return debug!(%error, "an answer was not taken");
        }
    }
    if !has_all {
        // Whether it came in time or not, nobody waits for it.
        let _ = tokio::time::timeout(LINGER, poll_fn(|cx| intake.poll(cx))).await;
    }
}
