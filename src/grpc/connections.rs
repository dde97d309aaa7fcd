//! The connections below the services.
//!
//! Owns accepting, the handshake's time limit, and the end of connections;
//! `connection_slots` knows how many there may be. The ready-made server waits for ever,
//! at shutdown, on a client that says nothing or never acknowledges; so each connection
//! here is a task that can be ended from below, whatever its client does.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, transport::server::TcpConnectInfo};
use tower::{Service, ServiceExt as _};
use tracing::{Instrument as _, debug, error, info_span, warn};

use super::{
    connection_slots::{ConnectionSlots, Limits, SlotService},
    http2::{self, Http2, RequestBody, StallLimit},
    shares::Budgets,
    socket::{CoalescingWriter, Received, Socket},
};
use crate::{supervisor::Supervisor, telemetry::Throttle};

/// How long a client may take to say that it speaks HTTP/2.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection without calls may take to acknowledge that the server
/// closes it.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long nothing is accepted when that failed, most likely for want of descriptors:
/// whoever comes waits in the system's queue meanwhile.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Lines that clients can cause at will.
static CROWDED: Throttle = Throttle::new("connections found no place");
static NOT_ACCEPTED: Throttle = Throttle::new("connections could not be accepted");
static BROKEN: Throttle = Throttle::new("connections could not be served for a defect");

/// What connections are allowed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many there may be.
    pub limits: Limits,
    /// What the calls of all connections may keep of requests and responses.
    pub budgets: Budgets,
    /// How long a response may not be taken, before its call is reset.
    pub response_stall_timeout: Duration,
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
            slots: ConnectionSlots::new(settings.limits),
            settings,
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
    slots: ConnectionSlots,
    settings: Settings,
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
                Ok((stream, peer)) => {
                    // One connection's defect must not leave the process deaf.
                    let take = || self.take(stream, peer, service.clone());
                    if catch_unwind(AssertUnwindSafe(take)).is_err() {
                        BROKEN.line(|left_out| error!(%peer, left_out, "a connection is lost"));
                    }
                }
                Err(error) if concerns_one_connection(&error) => {
                    debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    NOT_ACCEPTED.line(|left_out| {
                        warn!(%error, left_out, "cannot accept connections; they wait");
                    });
                    tokio::time::sleep(ACCEPT_AGAIN).await;
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
        crate::failpoint::hit("connections.take");
        // Tokens of its own: shared ones would be locked at every poll of every
        // connection.
        let connection = Self {
            finish: self.finish.child_token(),
            abort: self.abort.child_token(),
            ..self.clone()
        };
        let slot = self.slots.take(peer.ip()).or_else(|crowded| {
            // Ended at once when another needs the slot: a goodbye would wait for calls that
            // never end, and for as long the connection would count nowhere.
            let for_operator = self.slots.take_for_operator(peer.ip(), &connection.abort);
            let closed = for_operator.is_none();
            CROWDED.line(|left_out| {
                warn!(%peer, closed, left_out, "a connection finds no place: {crowded}");
            });
            for_operator.ok_or(())
        });
        let Ok(slot) = slot else { return };
        // Small messages must not wait for acknowledgements.
        if let Err(error) = stream.set_nodelay(true) {
            return debug!(%peer, %error, "a connection was gone before it was served");
        }
        let info = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(peer) };
        let shares = self.settings.budgets.share();
        let service = service.map_request(move |mut request: Request<RequestBody>| {
            request.extensions_mut().insert(info.clone());
            request.extensions_mut().insert(shares.clone());
            request
        });
        let service = SlotService::new(service, slot, connection.finish.clone());
        let serve = async move {
            if let Err(error) = connection.serve(stream, service).await {
                debug!(%error, "a connection ended");
            }
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
        let (socket, writer) = Socket::new(stream, received.clone());
        let stall_limit = StallLimit {
            timeout: self.settings.response_stall_timeout,
            pressure: self.settings.budgets.pressure(),
        };
        let ends = (socket, received.clone());
        let mut connection = Http2::new(ends, service, calls.clone(), stall_limit);
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
                    let written = writer.written();
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
                ended = last_in_line(&mut connection, &writer) => return ended,
            }
        }
    }
}

/// Whether the next one can be accepted at once.
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Polls `connection` only after whatever else is ready to run, and then writes out
/// what it has to say.
///
/// A call that ends wakes its connection, and the scheduler would run that next,
/// to write one answer to the socket. Letting it step back once lets the other
/// calls that are ready end first, and the connection then writes all their
/// answers with one system call. On an idle runtime it costs a turn of the
/// scheduler, less than a microsecond.
async fn last_in_line<S>(
    connection: &mut Http2<S>,
    writer: &CoalescingWriter,
) -> Result<(), http2::Error>
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
        writer.write_out(cx);
        polled
    })
    .await
}
