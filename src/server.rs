//! The composition: bind, open, serve, drain. Readable from top to bottom.
//!
//! Must not know any one request's logic.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tracing::{info, warn};

use crate::{
    admission::{Admission, Limits, Refused},
    config::{Config, Durability},
    drain,
    events::History,
    grpc::{
        self, Admin, ConnectionSettings, Connections, Ending, Feed, Health, Service, Sources,
        Submitter, WatchLimits, WatchSettings, Watchers,
    },
    handler::Registry,
    pool::{self, Pool},
    store::{self, Store},
};

/// A running server. To end it, [`drain`](Self::drain) it; dropping it stops
/// nothing in an orderly way, as a crash would not.
pub struct Server {
    address: SocketAddr,
    admission: Arc<Admission>,
    store: Arc<dyn Store>,
    pool: Pool,
    connections: Connections,
    health: Health,
    ending: Ending,
    switch: drain::Switch,
    store_watch: JoinHandle<()>,
    drain_timeout: Duration,
    cancel_grace: Duration,
}

/// Why a server did not start. One clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be served on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The API's own description cannot be read, which no build ships.
    #[error("the embedded API descriptors are damaged: {0}")]
    Descriptors(#[from] tonic_reflection::server::Error),
}

impl Server {
    /// Binds the address, opens the store, and serves. Must be called within a
    /// tokio runtime, which also runs the handlers.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: &Config, registry: Registry) -> Result<Self, StartError> {
        // Bind first: what is wrong with the address is said before the store
        // is touched, and clients that come early wait instead of failing.
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;

        let admission = Arc::new(Admission::new(Limits {
            book: config.book(),
            queues: config.max_queues,
            room_timeout: config.room_timeout,
        }));
        let (sqlite, hub, recovered) =
            store::open(&store_settings(config), Arc::clone(&admission)).await?;
        let history: Arc<dyn History> = Arc::clone(&sqlite) as _;
        let store: Arc<dyn Store> = sqlite;
        say_what_was_opened(config, recovered);

        let registry = Arc::new(registry);
        let health = Health::serving();
        let pool = Pool::start(&store, &registry, pool_settings(config));
        let switch = drain::Switch::default();
        let submitter = Submitter::new(
            Arc::clone(&store),
            Arc::clone(&admission),
            registry,
            hub.clone(),
            rules(config),
        );
        let feed = Feed { hub, history };
        let sources = Sources { feed, store: Arc::clone(&store), pool: pool.clone() };
        let watchers = Watchers::new(sources, watch_settings(config));
        let admin = Admin::new(
            Arc::clone(&store),
            Arc::clone(&admission),
            pool.clone(),
            watchers.clone(),
            switch.clone(),
        );
        let ending = Ending::default();
        let service = Service::new(Arc::clone(&store), submitter, watchers, ending.clone());
        let routes = grpc::routes(service, admin, health.clone(), config.max_message)?;
        let settings = ConnectionSettings { max_connections: config.max_connections };
        let connections = Connections::serve(listener, routes, settings);
        info!(workers = config.workers, "listening on {address}");

        Ok(Self {
            address,
            store_watch: watch_store(&store, health.clone(), Arc::clone(&admission)),
            admission,
            store,
            pool,
            connections,
            health,
            ending,
            switch,
            drain_timeout: config.drain_timeout,
            cancel_grace: config.cancel_grace,
        })
    }

    /// The address it serves on; tells the port that was given for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns once someone has asked over the wire for the drain; it then is to be
    /// [drained](Self::drain).
    pub fn drain_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        let switch = self.switch.clone();
        async move { switch.requested().await }
    }

    /// Stops taking and starting tasks, lets running ones finish, and ends
    /// within [`Config::drain_timeout`], whatever clients do. In this order:
    ///
    /// 1. health says `NOT_SERVING`, and submitters, waiting ones too, are told
    ///    that the server is draining;
    /// 2. no task starts; those that run go on until shortly before the bound,
    ///    are then signalled, and then stopped and recorded as interrupted;
    /// 3. the store commits what it has, and closes; whoever asked for the drain
    ///    over the wire is told what it left;
    /// 4. watchers get the last events, a final cursor, and `UNAVAILABLE`, and
    ///    whoever waits for a task is told that it has not ended;
    /// 5. connections close, and those that do not are ended.
    pub async fn drain(self) -> drain::Report {
        let plan = DrainPlan::new(Instant::now(), self.drain_timeout, self.cancel_grace);
        self.switch.begun(plan.end_by);
        info!(bound = ?self.drain_timeout, "draining");
        self.health.stop_serving();
        self.admission.close(Refused::Draining);
        self.ending.draining.cancel();
        self.pool.begin_drain();
        match tokio::time::timeout_at(plan.interrupt_at, self.store.drain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the drain could not be recorded"),
            Err(_) => warn!("the disk does not answer: the drain is not recorded yet"),
        }
        let ran = self.pool.drain(plan.interrupt_at, plan.stop_at, plan.give_up_at).await;
        let remaining = tokio::time::timeout_at(plan.close_by, self.store.close()).await.ok();
        let store_failed = self.store.failure().borrow().is_some();
        let report = drain::Report {
            finished: ran.finished,
            interrupted: ran.interrupted,
            remaining: remaining.unwrap_or(0),
            complete: ran.stuck == 0 && remaining.is_some() && !store_failed,
            clients_cut: false,
        };
        // While connections are still there to carry it.
        self.switch.tell(report);
        self.ending.closing.cancel();
        self.health.end_watches();
        let end_by = plan.end_by.min(Instant::now() + LAST_WORDS);
        let all_closed = self.connections.close(end_by).await;
        self.store_watch.abort();
        let report = drain::Report { clients_cut: !all_closed, ..report };
        let drain::Report { finished, interrupted, remaining, complete, clients_cut } = report;
        info!(finished, interrupted, remaining, complete, clients_cut, "drained");
        report
    }
}

/// When each part of a drain ends, at the latest.
#[derive(Clone, Copy, Debug)]
struct DrainPlan {
    /// Running handlers are signalled.
    interrupt_at: Instant,
    /// Handlers that ignored it are dropped.
    stop_at: Instant,
    /// Workers that are still busy are left behind.
    give_up_at: Instant,
    /// The store is closed.
    close_by: Instant,
    /// The last connection is closed.
    end_by: Instant,
}

impl DrainPlan {
    /// A bound below this is taken as this: recording an interruption takes a
    /// moment.
    const SHORTEST: Duration = Duration::from_millis(200);

    fn new(now: Instant, bound: Duration, cancel_grace: Duration) -> Self {
        let bound = bound.max(Self::SHORTEST);
        let end_by = now + bound;
        // A tenth of the time, at most two seconds, is for after the handlers.
        let tail = (bound / 10).min(Duration::from_secs(2));
        let stop_at = end_by - tail;
        let interrupt_at = stop_at - cancel_grace.min(bound / 3);
        Self {
            interrupt_at,
            stop_at,
            give_up_at: stop_at + tail / 4,
            close_by: stop_at + tail / 2,
            end_by,
        }
    }
}

/// How long clients may take, after the store has closed, to read what is left
/// for them. A watcher that needs longer is cut, and continues from its last cursor.
const LAST_WORDS: Duration = Duration::from_secs(5);

fn store_settings(config: &Config) -> store::Settings {
    store::Settings {
        data_dir: config.data_dir.clone(),
        durability: config.durability,
        max_crashes: config.max_crashes,
        disk_reserve: config.disk_reserve,
        retention: config.retention,
        clock: store::WallClock::default(),
    }
}

fn pool_settings(config: &Config) -> pool::Settings {
    pool::Settings {
        workers: config.workers,
        cancel_grace: config.cancel_grace,
        max_result: config.max_result,
    }
}

fn watch_settings(config: &Config) -> WatchSettings {
    let some = |span: Duration| (!span.is_zero()).then_some(span);
    WatchSettings {
        limits: WatchLimits {
            watchers: config.max_watchers,
            per_connection: config.max_watchers_per_connection,
            per_peer: config.max_watchers_per_peer,
        },
        heartbeat: config.heartbeat,
        stall_timeout: some(config.watch_stall_timeout),
        lifetime: some(config.watch_lifetime),
    }
}

fn rules(config: &Config) -> grpc::Rules {
    grpc::Rules { max_payload: config.max_payload }
}

fn say_what_was_opened(config: &Config, recovered: store::Recovered) {
    let store::Recovered { tasks, interrupted } = recovered;
    match config.durability {
        Durability::Fsync => {}
        Durability::Os => warn!("durability is `os`: a power cut loses what was just acknowledged"),
        Durability::Memory => warn!("durability is `memory`: nothing survives the process"),
    }
    let place = match config.durability {
        Durability::Memory => "none, it is in memory".into(),
        Durability::Fsync | Durability::Os => config.data_dir.display().to_string(),
    };
    info!(data_dir = %place, unfinished = tasks, interrupted, "the store is open");
}

/// Lets the health, and whoever waits for room, know when the store has failed.
fn watch_store(
    store: &Arc<dyn Store>,
    health: Health,
    admission: Arc<Admission>,
) -> JoinHandle<()> {
    let mut failure = store.failure();
    tokio::spawn(async move {
        // It ends without a cause when the engine is gone, which is no better.
        let failed = failure.wait_for(Option::is_some).await.is_ok();
        health.stop_serving();
        if failed {
            admission.close(Refused::StoreFailed);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_drain_has_its_time_within_the_bound() {
        let now = Instant::now();
        for (bound, grace) in [(30_000, 5_000), (0, 5_000), (200, 0), (3_600_000, 3_600_000)] {
            let (bound, grace) = (Duration::from_millis(bound), Duration::from_millis(grace));
            let plan = DrainPlan::new(now, bound, grace);
            let order =
                [now, plan.interrupt_at, plan.stop_at, plan.give_up_at, plan.close_by, plan.end_by];
            assert!(order.is_sorted(), "{bound:?} {grace:?}: {plan:?}");
            assert_eq!(plan.end_by, now + bound.max(DrainPlan::SHORTEST));
        }
    }
}
