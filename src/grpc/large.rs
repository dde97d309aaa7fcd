//! Responses that may be large: how large one is, before its client is told that it comes.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use tonic::{Status, body::Body};

use super::{shares::Reserved, status};

/// A response that has room for what it takes; if there is none, the refusal instead of it.
pub async fn keep(response: Response<Body>, reserved: Reserved) -> Response<Body> {
    let (mut head, mut body) = response.into_parts();
    // The one message of the response, which is there, but encoded only now.
    let first = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    let bytes = match &first {
        Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
        _ => 0,
    };
    match reserved.keep(bytes).await {
        Ok(Some(room)) => drop(head.extensions.insert(room)),
        Ok(None) => {}
        Err(_) => return status::no_room_for_response().into_http(),
    }
    Response::from_parts(head, Body::new(Begun { first, rest: body }))
}

/// A body of which the first frame was read.
struct Begun {
    first: Option<Result<Frame<Bytes>, Status>>,
    rest: Body,
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
