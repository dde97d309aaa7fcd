//! The connections below the services.
//!
//! Owns accepting, the limit on connections, the handshake's time limit, and
//! their end. The ready-made server waits for ever, at shutdown, on a client
//! that says nothing or never acknowledges; so each connection here is a task
//! that can be ended from below, whatever its client does.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
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
    calls,
    socket::{Outbox, Socket},
};

/// How long a client may take to say that it speaks HTTP/2.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection without calls may take to acknowledge that the server
/// closes it.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Calls at a time on one connection; further ones wait at the client.
const MAX_CONCURRENT_CALLS: u32 = 256;
/// Bytes of a request's headers.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// A silent connection is asked for a sign of life after this long, and closed
/// if none comes within it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Bytes that one stream keeps to be sent.
const MAX_SEND_BUFFER: usize = 1 << 20;

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
    /// Accepts connections and serves each with a clone of `service`.
    pub fn serve<S>(listener: TcpListener, service: S, settings: Settings) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
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
        connections.tasks.spawn(acceptor.accept(listener, service));
        connections
    }

    /// Stops accepting, and closes every connection once its calls have ended:
    /// at once those that have none. Those that remain at `deadline` are ended.
    /// Tells whether none had to be.
    pub async fn close(self, deadline: Instant) -> bool {
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
        S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        loop {
            let accepted = select! {
                biased;
                () = self.finish.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
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
        S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return warn!(%peer, "a connection is closed: there are as many as allowed");
        };
        // Small messages must not wait for acknowledgements.
        if let Err(error) = stream.set_nodelay(true) {
            return debug!(%peer, %error, "a connection was gone before it was served");
        }
        let info = TcpConnectInfo { local_addr: stream.local_addr().ok(), remote_addr: Some(peer) };
        let service = service.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(info.clone());
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

    async fn serve<S>(self, stream: TcpStream, service: S) -> Result<(), hyper::Error>
    where
        S: Service<Request<Incoming>, Response = Response<Body>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let calls = TaskTracker::new();
        let greeted = Arc::new(AtomicBool::new(false));
        let (socket, outbox) = Socket::new(stream, Arc::clone(&greeted));
        let mut connection = pin!(
            http2::Builder::new(Tracked(calls.clone()))
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_CONCURRENT_CALLS)
                .max_header_list_size(MAX_HEADER_BYTES)
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .max_send_buf_size(MAX_SEND_BUFFER)
                .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service))
        );
        let greeting_due = Instant::now() + HANDSHAKE_TIMEOUT;
        let mut goodbye_due = None;
        let mut written_before = None;
        loop {
            let said_hello = greeted.load(Ordering::Relaxed);
            let finishing = self.finish.is_cancelled();
            select! {
                biased;
                () = self.abort.cancelled() => return Ok(()),
                () = self.finish.cancelled(), if !finishing => {
                    // A client that has not even begun has no calls to finish.
                    if !greeted.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    connection.as_mut().graceful_shutdown();
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
                    if !greeted.load(Ordering::Relaxed) {
                        debug!("the client did not say that it speaks HTTP/2 in time");
                        return Ok(());
                    }
                }
                ended = last_in_line(connection.as_mut(), &outbox) => return ended,
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
async fn last_in_line<F: Future>(mut connection: Pin<&mut F>, outbox: &Outbox) -> F::Output {
    let mut stepped_back = false;
    poll_fn(|cx| {
        if !stepped_back {
            stepped_back = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        stepped_back = false;
        let polled = connection.as_mut().poll(cx);
        outbox.write_out(cx);
        polled
    })
    .await
}

/// Spawns what a connection needs where it is waited for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(calls::serve(future).in_current_span());
    }
}
