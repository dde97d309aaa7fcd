//! The connections below the services.
//!
//! Owns accepting, the limit on connections, the handshake's time limit, and
//! their end. The ready-made server waits for ever, at shutdown, on a client
//! that says nothing or never acknowledges; so each connection here is a task
//! that can be ended from below, whatever its client does.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use http::{Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::Semaphore,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, transport::server::TcpConnectInfo};
use tower::{Service, ServiceExt as _};
use tracing::{Instrument as _, debug, info_span, warn};

use super::{
    http2::{self, Http2, RequestBody},
    shares::Shares,
    socket::{Outbox, Received, Socket},
};
use crate::supervisor::Supervisor;

/// How long a client may take to say that it speaks HTTP/2.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection without calls may take to acknowledge that the server
/// closes it.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// What connections are allowed.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Connections at a time; further ones are closed at once.
    pub max_connections: usize,
}

/// All connections of a listener.
#[derive(Debug)]
pub struct Connections {
    tasks: TaskTracker,
    /// No new connections; those there are finish their calls.
    finish: CancellationToken,
    /// All connections end now.
    abort: CancellationToken,
}

impl Connections {
    /// Accepts connections and serves each with a clone of `service`. Accepting is a part of
    /// the server; a connection that panics ends alone.
    pub fn serve<S>(
        listener: TcpListener,
        service: S,
        settings: Settings,
        supervisor: &Supervisor,
    ) -> Self
    where
        S: Service<Request<RequestBody>, Response = Response<Body>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
    {
        let connections = Self {
            tasks: TaskTracker::new(),
            finish: CancellationToken::new(),
            abort: CancellationToken::new(),
        };
        let acceptor = Acceptor {
            tasks: connections.tasks.clone(),
            finish: connections.finish.clone(),
            abort: connections.abort.clone(),
            places: Arc::new(Semaphore::new(settings.max_connections)),
        };
        let accept = supervisor.task("accept-loop", acceptor.accept(listener, service));
        connections.tasks.spawn(accept);
        connections
    }

    /// Stops accepting, and closes every connection once its calls have ended:
    /// at once those that have none. Those that remain at `deadline` are ended.
    /// Tells whether none had to be.
    pub async fn close(&self, deadline: Instant) -> bool {
        self.finish.cancel();
        self.tasks.close();
        let all_closed = tokio::time::timeout_at(deadline, self.tasks.wait()).await.is_ok();
        self.abort.cancel();
        all_closed
    }
}

/// A server that is dropped serves nobody.
impl Drop for Connections {
    fn drop(&mut self) {
        self.finish.cancel();
        self.abort.cancel();
    }
}

#[derive(Clone)]
struct Acceptor {
    tasks: TaskTracker,
    finish: CancellationToken,
    abort: CancellationToken,
    places: Arc<Semaphore>,
}

impl Acceptor {
    async fn accept<S>(self, listener: TcpListener, service: S)
    where
        S: Service<Request<RequestBody>, Response = Response<Body>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
    {
        loop {
            let accepted = select! {
                biased;
                () = self.finish.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            crate::failpoint::hit("accept");
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer, service.clone()),
                Err(error) => {
                    // Out of file descriptors, most likely: give some time to free one.
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn take<S>(&self, stream: TcpStream, peer: SocketAddr, service: S)
    where
        S: Service<Request<RequestBody>, Response = Response<Body>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
    {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return warn!(%peer, "a connection is closed: there are as many as allowed");
        };
        // Small messages must not wait for acknowledgements.
        if let Err(error) = stream.set_nodelay(true) {
            return debug!(%peer, %error, "a connection was gone before it was served");
        }
        let info = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(peer) };
        let shares = Shares::default();
        let service = service.map_request(move |mut request: Request<RequestBody>| {
            request.extensions_mut().insert(info.clone());
            request.extensions_mut().insert(shares.clone());
            request
        });
        // Tokens of its own: shared ones would be locked at every poll of every
        // connection.
        let connection = Self {
            finish: self.finish.child_token(),
            abort: self.abort.child_token(),
            ..self.clone()
        };
        let serve = async move {
            if let Err(error) = connection.serve(stream, service).await {
                debug!(%error, "a connection ended");
            }
            drop(place);
        };
        self.tasks.spawn(serve.instrument(info_span!("connection", %peer)));
    }

    async fn serve<S>(self, stream: TcpStream, service: S) -> Result<(), http2::Error>
    where
        S: Service<Request<RequestBody>, Response = Response<Body>> + Clone + Send + 'static,
        S::Future: Send + 'static,
        S::Error: Send + 'static,
    {
        crate::failpoint::hit("connection");
        let calls = TaskTracker::new();
        let received = Received::default();
        let (socket, outbox) = Socket::new(stream, received.clone());
        let mut connection = Http2::new(socket, received.clone(), service, calls.clone());
        let greeting_due = Instant::now() + HANDSHAKE_TIMEOUT;
        let mut goodbye_due = None;
        let mut written_before = None;
        loop {
            let said_hello = received.has_greeting();
            let finishing = self.finish.is_cancelled();
            select! {
                biased;
                () = self.abort.cancelled() => return Ok(()),
                () = self.finish.cancelled(), if !finishing => {
                    // A client that has not even begun has no calls to finish.
                    if !received.has_greeting() {
                        return Ok(());
                    }
                    connection.close();
                    goodbye_due = Some(Instant::now() + GOODBYE_TIMEOUT);
                }
                () = tokio::time::sleep_until(goodbye_due.unwrap_or(greeting_due)),
                    if goodbye_due.is_some() =>
                {
                    // It had no calls to finish, or has finished them, and does
                    // not acknowledge the end; nor is there more for it to read.
                    let written = outbox.written();
                    if calls.is_empty() && written.is_some() && written == written_before {
                        return Ok(());
                    }
                    written_before = written;
                    goodbye_due = Some(Instant::now() + GOODBYE_TIMEOUT);
                }
                () = tokio::time::sleep_until(greeting_due), if !said_hello => {
                    if !received.has_greeting() {
                        debug!("the client did not say that it speaks HTTP/2 in time");
                        return Ok(());
                    }
                }
                ended = last_in_line(&mut connection, &outbox) => return ended,
            }
        }
    }
}

/// Polls `connection` only after whatever else is ready to run, and then writes out
/// what it has to say.
///
/// A call that ends wakes its connection, and the scheduler would run that next,
/// to write one answer to the socket. Letting it step back once lets the other
/// calls that are ready end first, and the connection then writes all their
/// answers with one system call. On an idle runtime it costs a turn of the
/// scheduler, less than a microsecond.
async fn last_in_line<S>(connection: &mut Http2<S>, outbox: &Outbox) -> Result<(), http2::Error>
where
    S: Service<Request<RequestBody>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    let mut stepped_back = false;
    poll_fn(|cx| {
        if !stepped_back {
            stepped_back = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        stepped_back = false;
        let polled = connection.poll(cx);
        outbox.write_out(cx);
        polled
    })
    .await
}
