//! The composition: bind, open, serve, drain. Readable from top to bottom.
//!
//! Must not know any one request's logic.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use crate::{
    admission::{Admission, Limits, Refused},
    config::{Config, Durability},
    drain,
    events::{History, Hub},
    grpc::{
        self, Admin, Budgets, ConnectionLimits, ConnectionSettings, Connections, Feed, Health,
        Service, ShutdownTokens, Sources, Submitter, WatchLimits, WatchSettings, Watchers,
    },
    handler::Registry,
    pool::{self, WorkerPool},
    store::{self, Store},
    supervisor::{Failure, Supervisor},
};

/// A running server. To end it, [`drain`](Self::drain) it; dropping it stops
/// nothing in an orderly way, as a crash would not.
pub struct Server {
    address: SocketAddr,
    admission: Arc<Admission>,
    store: Arc<Store>,
    pool: WorkerPool,
    connections: Connections,
    health: Health,
    shutdown: ShutdownTokens,
    switch: drain::Switch,
    failing: Failing,
    supervisor: Supervisor,
    /// They end with the server.
    _watches: [AbortOnDropHandle<()>; 2],
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
    /// The threads for handlers cannot be started.
    #[error("cannot start threads for the handlers: {0}")]
    Threads(io::Error),
    /// The API's own description cannot be read, which no build ships.
    #[error("the embedded API descriptors are damaged: {0}")]
    Descriptors(#[from] prost::DecodeError),
}

impl Server {
    /// Binds the address, opens the store, and serves. Must be called within a
    /// tokio runtime. The handlers have threads of their own.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: &Config, registry: Registry) -> Result<Self, StartError> {
        Self::start_under(config, registry, Supervisor::default()).await
    }

    /// The same, with a supervisor that somebody else listens to as well.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_under(
        config: &Config,
        registry: Registry,
        supervisor: Supervisor,
    ) -> Result<Self, StartError> {
        // Bind first: what is wrong with the address is said before the store
        // is touched, and clients that come early wait instead of failing.
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;

        let admission = Arc::new(Admission::new(Limits {
            queue_config: config.queue_config(),
            queues: config.max_queues,
            room_timeout: config.room_timeout,
        }));
        let (store, hub, recovered) =
            store::open_under(&store_settings(config), Arc::clone(&admission), &supervisor).await?;
        let history: Arc<dyn History> = Arc::clone(&store) as _;
        say_what_was_opened(config, recovered);

        let registry = Arc::new(registry);
        let health = Health::serving();
        let pool = WorkerPool::start(&store, &registry, pool_settings(config), &supervisor)
            .map_err(StartError::Threads)?;
        let switch = drain::Switch::default();
        let submitter = Submitter::new(
            Arc::clone(&store),
            Arc::clone(&admission),
            registry,
            hub.clone(),
            rules(config),
        );
        let feed = Feed { hub: hub.clone(), history };
        let sources = Sources { feed, store: Arc::clone(&store), pool: pool.clone() };
        let watchers = Watchers::new(sources, watch_settings(config), &supervisor);
        let admin = Admin::new(
            Arc::clone(&store),
            Arc::clone(&admission),
            pool.clone(),
            watchers.clone(),
            switch.clone(),
        );
        let shutdown =
            ShutdownTokens { supervisor: supervisor.clone(), ..ShutdownTokens::default() };
        let service = Service::new(Arc::clone(&store), submitter, watchers, shutdown.clone());
        let routes = grpc::routes(service, admin, health.clone(), &shutdown, config.max_message)?;
        let settings = connection_settings(config);
        let connections = Connections::serve(listener, routes, settings, &supervisor);
        info!(workers = config.workers, "listening on {address}");

        let failing = Failing {
            health: health.clone(),
            admission: Arc::clone(&admission),
            shutdown: shutdown.clone(),
            hub: hub.clone(),
        };
        Ok(Self {
            address,
            _watches: [
                watch_store(
                    &store,
                    health.clone(),
                    Arc::clone(&admission),
                    (pool.clone(), config.cancel_grace),
                    &supervisor,
                ),
                failing.watch(&supervisor),
            ],
            failing,
            admission,
            store,
            pool,
            connections,
            health,
            shutdown,
            switch,
            supervisor,
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

    /// Returns once a part of the server has failed: a defect, after which the server is not
    /// to be trusted. Callers are told so from then on. It then is to be
    /// [drained](Self::drain), which is short, and to be started anew, best as another process.
    pub fn failed(&self) -> impl Future<Output = Failure> + Send + use<> {
        self.supervisor.failed()
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
    ///
    /// If the server has [failed](Self::failed), before or meanwhile, running tasks are
    /// signalled at once, and the report is not `complete`; if before, all of it takes at
    /// most [`FAILED_BOUND`].
    pub async fn drain(self) -> drain::Report {
        let _hurry = self.hurry_when_failed();
        let bound = match self.supervisor.failure() {
            None => self.drain_timeout,
            Some(failure) => {
                self.failing.tell(&failure);
                FAILED_BOUND.min(self.drain_timeout)
            }
        };
        let plan = DrainPlan::new(Instant::now(), bound, self.cancel_grace);
        self.switch.begun(plan.end_by);
        info!(?bound, "draining");
        self.health.stop_serving();
        self.admission.close(Refused::Draining);
        self.shutdown.draining.cancel();
        self.pool.begin_drain();
        match tokio::time::timeout_at(plan.interrupt_at, self.store.drain()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the drain could not be recorded"),
            Err(_) => warn!("the disk does not answer: the drain is not recorded yet"),
        }
        let told = AbortOnDropHandle::new(tokio::spawn(tell_who_runs(self.pool.clone(), plan)));
        let ran = self.pool.drain(plan.interrupt_at, plan.stop_at, plan.give_up_at).await;
        drop(told);
        let closed = tokio::time::timeout_at(plan.close_by, self.store.close()).await;
        let store_failed = self.store.failure().borrow().is_some();
        // One that has failed counts what it could not commit.
        let remaining = closed.ok().and_then(Result::ok).filter(|_| !store_failed);
        let failure = self.supervisor.failure();
        let report = drain::Report {
            finished: ran.finished,
            interrupted: ran.interrupted,
            remaining,
            complete: ran.stuck == 0 && remaining.is_some() && failure.is_none(),
            clients_cut: false,
        };
        // While connections are still there to carry it.
        self.switch.tell(failure.clone().map_or(Ok(report), Err));
        self.shutdown.closing.cancel();
        self.health.end_watches(failure.clone());
        let end_by = plan.end_by.min(Instant::now() + LAST_WORDS);
        let all_closed = self.connections.close(end_by).await;
        let report = drain::Report { clients_cut: !all_closed, ..report };
        say_how_it_ended(&report, failure.as_ref(), remaining.is_some());
        report
    }

    /// Once the server has failed, no execution is waited for any longer than it takes to
    /// stop it in an orderly way: so that its interruption is recorded, if that can be.
    fn hurry_when_failed(&self) -> AbortOnDropHandle<()> {
        let (pool, failed) = (self.pool.clone(), self.supervisor.failed());
        let grace = self.cancel_grace.min(FAILED_GRACE);
        AbortOnDropHandle::new(tokio::spawn(async move {
            failed.await;
            pool.interrupt();
            tokio::time::sleep(grace).await;
            pool.stop_handlers();
        }))
    }
}

/// How often a drain tells who still runs.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// Executions that are named then.
const MAX_NAMED: usize = 10;

/// Tells again and again who still runs, and how long it may; until nobody does.
async fn tell_who_runs(pool: WorkerPool, plan: DrainPlan) {
    let mut tick = tokio::time::interval(TOLD_EVERY);
    loop {
        tick.tick().await;
        let running: Vec<_> =
            pool.status().workers.into_iter().filter_map(|worker| worker.running).collect();
        if running.is_empty() {
            return;
        }
        let name = |running: &pool::Running| {
            let pool::Running { task, kind, running_for, .. } = running;
            format!("{task} ({kind}, for {} s)", running_for.as_secs())
        };
        let mut named: Vec<_> = running.iter().take(MAX_NAMED).map(name).collect();
        if running.len() > MAX_NAMED {
            named.push(format!("{} more", running.len() - MAX_NAMED));
        }
        let left = |until: Instant| until.saturating_duration_since(Instant::now()).as_secs();
        info!(
            running = running.len(),
            "waiting for {}; interrupted in {} s, ended in {} s",
            named.join(", "),
            left(plan.interrupt_at),
            left(plan.end_by),
        );
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

/// How long a server that has failed may take to end.
pub const FAILED_BOUND: Duration = Duration::from_secs(3);

/// How long handlers have, of that, to obey their signal.
const FAILED_GRACE: Duration = Duration::from_secs(1);

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
        max_log: config.max_log,
        accept_loss: config.accept_loss,
    }
}

fn pool_settings(config: &Config) -> pool::Settings {
    pool::Settings {
        workers: config.workers,
        cancel_grace: config.cancel_grace,
        max_result: config.max_result,
    }
}

fn connection_settings(config: &Config) -> ConnectionSettings {
    ConnectionSettings {
        limits: ConnectionLimits {
            connections: config.max_connections,
            per_address: config.max_connections_per_address,
        },
        budgets: Budgets::new(config.max_request_bytes, config.max_response_bytes),
        response_stall_timeout: config.response_stall_timeout,
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

fn say_how_it_ended(report: &drain::Report, failure: Option<&Failure>, store_closed: bool) {
    let drain::Report { finished, interrupted, remaining, complete, clients_cut } = *report;
    match failure {
        None => {
            let remaining = remaining.map_or("unknown".into(), |tasks| tasks.to_string());
            info!(finished, interrupted, %remaining, complete, clients_cut, "drained");
        }
        Some(failure) => {
            error!(finished, interrupted, store_closed, clients_cut, %failure, "ended by a failure");
        }
    }
}

/// Lets the health, whoever waits for room, and what runs know when the store has failed: what
/// comes of an execution then is not kept, and its task runs again.
fn watch_store(
    store: &Arc<Store>,
    health: Health,
    admission: Arc<Admission>,
    (pool, cancel_grace): (WorkerPool, Duration),
    supervisor: &Supervisor,
) -> AbortOnDropHandle<()> {
    let mut failure = store.failure();
    let watch = async move {
        crate::failpoint::hit("store-watch");
        // It ends without a cause when the engine is gone: that is the supervisor's.
        if failure.wait_for(Option::is_some).await.is_ok() {
            health.stop_serving();
            admission.close(Refused::StoreFailed);
            pool.interrupt();
            tokio::time::sleep(cancel_grace).await;
            pool.stop_handlers();
        }
    };
    AbortOnDropHandle::new(tokio::spawn(supervisor.task("store-watch", watch)))
}

/// Who has to know that a part of the server has failed.
#[derive(Clone)]
struct Failing {
    health: Health,
    admission: Arc<Admission>,
    shutdown: ShutdownTokens,
    hub: Hub,
}

impl Failing {
    /// Tells the health, whoever waits for room, streams of submissions, and watches that
    /// end from now on.
    fn tell(&self, failure: &Failure) {
        self.health.stop_serving();
        self.admission.close(Refused::ServerFailed);
        self.hub.fail(failure.to_string().into());
        self.shutdown.draining.cancel();
    }

    fn watch(&self, supervisor: &Supervisor) -> AbortOnDropHandle<()> {
        let (all, failed) = (self.clone(), supervisor.failed());
        let watch = async move {
            crate::failpoint::hit("failure-watch");
            all.tell(&failed.await);
        };
        AbortOnDropHandle::new(tokio::spawn(supervisor.task("failure-watch", watch)))
    }
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
