//! What a call answers, handed to its client as far as that reads it.
//!
//! A message is given to the library a part at a time, as much as the client's windows
//! take, and the next one is asked for when all of the last one was taken. So a client
//! that does not read costs one message, and what the library has for the socket.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;
use http_body::Body as _;
use tonic::body::Body;

/// Bytes for which a call asks the window at a time.
const MAX_PART: usize = super::MAX_SEND_BUFFER;

/// An answer on its way.
pub struct Outgoing {
    stream: SendStream<Bytes>,
    body: Body,
    /// What is left of the message that was asked for.
    left: Bytes,
}

impl Outgoing {
    /// Begins to send `body`.
    pub fn new(stream: SendStream<Bytes>, body: Body) -> Self {
        Self { stream, body, left: Bytes::new() }
    }

    /// Sends what the client takes. Ready when all was handed over, or nobody wants it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        loop {
            if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
                return Poll::Ready(reset.and_then(|reason| Err(reason.into())));
            }
            ready!(self.poll_hand_over(cx))?;
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(self.stream.send_data(Bytes::new(), true));
            };
            let Ok(frame) = frame else {
                // The library of gRPC makes a status of every error.
                self.stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return Poll::Ready(Ok(()));
            };
            match frame.into_data() {
                Ok(data) => self.left = data,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(self.stream.send_trailers(trailers));
                    }
                }
            }
        }
    }

    /// Hands over what is left, as far as the windows take it.
    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while !self.left.is_empty() {
            self.stream.reserve_capacity(self.left.len().min(MAX_PART));
            let taken = self.stream.capacity().min(self.left.len());
            if taken > 0 {
                self.stream.send_data(self.left.split_to(taken), false)?;
                continue;
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(capacity) => drop(capacity?),
                None => return Poll::Ready(Err(h2::Reason::CANCEL.into())),
            }
        }
        // Not the last slice of a large message.
        self.left = Bytes::new();
        Poll::Ready(Ok(()))
    }
}
