//! One connection of HTTP/2: its calls, its pings, its end.
//!
//! Owns the windows. What a client sends ahead is taken out of the library at once and
//! kept as bytes ([`incoming`]), so that flow control alone pushes a client back, whatever
//! the size of its messages; what it does not read stays with the call ([`outgoing`]).
//! Must not know gRPC.

mod call;
mod incoming;
mod keep_alive;
mod outgoing;

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::server::{Builder, Connection, Handshake};
use http::{Request, Response};
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tower::Service;
use tracing::Instrument as _;

pub use call::EndsByItself;
pub use incoming::RequestBody;
pub use outgoing::StallLimit;

use self::keep_alive::KeepAlive;
use super::{
    calls,
    socket::{Received, Socket},
};

/// Calls at a time on one connection; further ones wait at the client.
pub const MAX_CONCURRENT_CALLS: u32 = 256;
/// Bytes of one call that may be on their way before the server has read them.
const CALL_WINDOW: u32 = 64 << 10;
/// The same of all calls of a connection: more than they can have, so that calls which
/// are not read never hold up others on their connection.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// What frames of less than 256 bytes may cost that were received and not yet taken out
/// of the library, each 256 less its bytes. They are taken out in the same turn, so this
/// only has to bear one turn: the smallest messages that a connection's calls may have on
/// their way, of five bytes each.
const SMALL_FRAME_BUDGET: usize = 1 << 30;
/// Bytes of a request's headers that are read, so that they can be refused in words; larger
/// ones are refused by HTTP, with 431.
const MAX_HEADER_BYTES: u32 = 128 << 10;
/// Bytes of one call's answer that were handed to the library and not yet to the socket.
const MAX_SEND_BUFFER: usize = 64 << 10;
/// A silent connection is asked for a sign of life after this long, and closed
/// if none comes within it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Errors of a client for which single calls are reset, before the connection ends.
const MAX_ERRORS: usize = 1024;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client broke the protocol, or is gone.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// The client gave no sign of life.
    #[error("the client did not answer a ping within {KEEP_ALIVE:?}")]
    Silent,
}

/// A connection, which is to be polled until it ends.
pub struct Http2<S> {
    state: State,
    service: S,
    calls: TaskTracker,
    received: Received,
    stall_limit: StallLimit,
    /// It is to end once its calls have.
    is_closing: bool,
}

enum State {
    Handshaking(Handshake<Socket, Bytes>),
    Serving(Connection<Socket, Bytes>, Option<KeepAlive>),
}

impl<S> Http2<S>
where
    S: Service<Request<RequestBody>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    /// Serves a connection with `service`. Its calls are spawned on `calls`; an answer that
    /// is not taken ends as `stall_limit` says.
    pub fn new(
        (socket, received): (Socket, Received),
        service: S,
        calls: TaskTracker,
        stall_limit: StallLimit,
    ) -> Self {
        let handshake = Builder::new()
            .initial_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .data_frame_budget(SMALL_FRAME_BUDGET)
            .max_concurrent_streams(MAX_CONCURRENT_CALLS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_send_buffer_size(MAX_SEND_BUFFER)
            .max_local_error_reset_streams(Some(MAX_ERRORS))
            .handshake(socket);
        let state = State::Handshaking(handshake);
        Self { state, service, calls, received, stall_limit, is_closing: false }
    }

    /// Takes no further calls, and ends once those there are have ended.
    pub fn close(&mut self) {
        self.is_closing = true;
        if let State::Serving(connection, _) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Goes on as far as possible without waiting. Ready when the connection has ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            match &mut self.state {
                State::Handshaking(handshake) => {
                    let mut connection = ready!(std::pin::Pin::new(handshake).poll(cx))?;
                    let pings = connection.ping_pong();
                    let keep_alive = pings.map(|pings| KeepAlive::new(pings, KEEP_ALIVE));
                    if self.is_closing {
                        connection.graceful_shutdown();
                    }
                    self.state = State::Serving(connection, keep_alive);
                }
                State::Serving(connection, keep_alive) => {
                    if let Some(keep_alive) = keep_alive {
                        keep_alive.poll(self.received.bytes(), cx).map_err(|_| Error::Silent)?;
                    }
                    let Some(accepted) = ready!(connection.poll_accept(cx)) else {
                        return Poll::Ready(Ok(()));
                    };
                    let (request, respond) = accepted?;
                    let (head, stream) = request.into_parts();
                    let (body, intake) = incoming::body(stream);
                    let answer = self.service.call(Request::from_parts(head, body));
                    let call = call::answer(intake, answer, respond, self.stall_limit.clone());
                    self.calls.spawn(calls::serve(call).in_current_span());
                }
            }
        }
    }
}
