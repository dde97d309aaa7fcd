//! What a client has sent of a request, and nobody has read.
//!
//! The library keeps every frame that arrives as a frame, which costs more than a small
//! message does, and ends a connection that has too many. So a call takes its frames out
//! as they arrive, whether or not its request is being read, and keeps their bytes. The
//! window opens again only as these are read: so it bounds them.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use h2::{FlowControl, RecvStream};
use http::HeaderMap;
use http_body::{Frame, SizeHint};

/// Bytes below which a piece is copied to others, so that their number stays small.
const SMALL: usize = 1 << 10;

/// A request's body, to be read by whoever serves it.
pub struct RequestBody(Arc<Shared>);

/// The other end, which is to be polled for as long as the request may arrive.
pub struct Intake {
    stream: RecvStream,
    shared: Arc<Shared>,
    is_over: bool,
}

struct Shared {
    unread: Mutex<Unread>,
}

struct Unread {
    flow: FlowControl,
    pieces: VecDeque<Bytes>,
    /// Small pieces, joined; they come after the others.
    small: BytesMut,
    end: End,
    reader: Option<Waker>,
    /// Whether there still is somebody to read it.
    is_read: bool,
}

enum End {
    /// More may come.
    Open,
    /// All has come; trailers and errors are told once.
    Told(Option<Result<HeaderMap, h2::Error>>),
}

/// Both ends of a request that arrives.
pub fn body(mut stream: RecvStream) -> (RequestBody, Intake) {
    let unread = Unread {
        flow: stream.flow_control().clone(),
        pieces: VecDeque::new(),
        small: BytesMut::new(),
        end: End::Open,
        reader: None,
        is_read: true,
    };
    let shared = Arc::new(Shared { unread: Mutex::new(unread) });
    (RequestBody(Arc::clone(&shared)), Intake { stream, shared, is_over: false })
}

impl Shared {
    /// Held for a moment, and never across an await.
    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intake {
    /// Takes what has arrived. Ready when nothing more will.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut came = false;
        while !self.is_over {
            let Poll::Ready(piece) = self.stream.poll_data(cx) else { break };
            let end = match piece {
                Some(Ok(piece)) => {
                    self.shared.unread().add(piece);
                    came = true;
                    continue;
                }
                Some(Err(error)) => Some(Err(error)),
                None => match self.stream.poll_trailers(cx) {
                    Poll::Ready(Ok(trailers)) => trailers.map(Ok),
                    Poll::Ready(Err(error)) => Some(Err(error)),
                    Poll::Pending => break,
                },
            };
            self.shared.unread().end = End::Told(end);
            (self.is_over, came) = (true, true);
        }
        if came {
            let reader = self.shared.unread().reader.take();
            if let Some(reader) = reader {
                reader.wake();
            }
        }
        if self.is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A call that was cut is not read to an end that never comes.
impl Drop for Intake {
    fn drop(&mut self) {
        let mut unread = self.shared.unread();
        if !self.is_over {
            unread.end = End::Told(Some(Err(h2::Reason::CANCEL.into())));
        }
        if let Some(reader) = unread.reader.take() {
            drop(unread);
            reader.wake();
        }
    }
}

impl Unread {
    fn add(&mut self, piece: Bytes) {
        if !self.is_read {
            return self.release(piece.len());
        }
        let is_first = self.pieces.is_empty() && self.small.is_empty();
        if is_first || piece.len() >= SMALL {
            if !self.small.is_empty() {
                self.pieces.push_back(self.small.split().freeze());
            }
            self.pieces.push_back(piece);
        } else {
            self.small.extend_from_slice(&piece);
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let piece = match self.pieces.pop_front() {
            Some(piece) => piece,
            None if self.small.is_empty() => return None,
            None => std::mem::take(&mut self.small).freeze(),
        };
        self.release(piece.len());
        Some(piece)
    }

    /// Lets the client send as much again.
    fn release(&mut self, bytes: usize) {
        // Fails only if more is released than came.
        let _ = self.flow.release_capacity(bytes);
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let mut unread = self.0.unread();
        if let Some(piece) = unread.take() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut unread.end {
            End::Told(end) => Poll::Ready(end.take().map(|end| end.map(Frame::trailers))),
            End::Open => {
                if !unread.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
                    unread.reader = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let unread = self.0.unread();
        matches!(unread.end, End::Told(None)) && unread.pieces.is_empty() && unread.small.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// What nobody will read is let go of, and so is what still comes.
impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut unread = self.0.unread();
        unread.is_read = false;
        while unread.take().is_some() {}
    }
}
