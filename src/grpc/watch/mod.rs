//! Watch streams: a tail of the events, with heartbeats, as responses.
//!
//! A stream holds a cursor and at most one response. It is asked for the next
//! one only when the connection has room for it, so a client that does not read
//! costs nothing but its connection. Owns who may watch, and for how long; must not
//! know how events are stored or encoded.

mod close;
mod follow;
mod guard;
mod heartbeat;
mod registry;
mod snapshot;
mod stats;
mod turn;
mod watcher;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use self::{
    close::{Limit, closed, limit},
    follow::{Follower, Life},
    guard::WatcherInfo,
    heartbeat::HeartbeatTimer,
    registry::Registry,
    snapshot::Snapshot,
    watcher::{Terms, Watcher},
};
use super::{
    convert::{Watch, WatchStart},
    status,
};
use crate::{
    event::Seq,
    events::{EventFilter, EventFilterSpec, History, Hub, Tail},
    pool::WorkerPool,
    proto::v1,
    store::{Asker, Store, Submitted},
    supervisor::Supervisor,
    task::TaskId,
};

pub use close::CloseReason;
pub use follow::Past;
pub use guard::{WatchGuard, WatchStream};
pub use registry::Limits;

/// Tasks of a filter that are shown to whoever lists the watchers.
const MAX_SHOWN_TASKS: usize = 10;

/// How watchers are kept.
#[derive(Clone, Copy, Debug)]
pub struct WatchSettings {
    /// How many there may be.
    pub limits: Limits,
    /// Silence before a heartbeat, unless they ask for another.
    pub heartbeat: Duration,
    /// How long one may not read although it could; `None` for ever.
    pub stall_timeout: Option<Duration>,
    /// How long one may be there; `None` for ever.
    pub lifetime: Option<Duration>,
}

/// Where watchers have the events from.
#[derive(Clone)]
pub struct Feed {
    /// New ones.
    pub hub: Hub,
    /// Past ones.
    pub history: Arc<dyn History>,
}

/// Where watchers have what they tell.
#[derive(Clone)]
pub struct Sources {
    /// What happens.
    pub feed: Feed,
    /// Tasks as they stand.
    pub store: Arc<Store>,
    /// The pool as it stands.
    pub pool: WorkerPool,
}

impl Feed {
    /// The events after `after`, or only those to come.
    fn tail(&self, after: Option<Seq>) -> Tail {
        self.hub.follow(after, Arc::clone(&self.history))
    }
}

/// All watchers of a server.
#[derive(Clone)]
pub struct Watchers {
    sources: Sources,
    settings: WatchSettings,
    registry: Arc<Registry>,
    /// Ends with the last clone.
    _sweeper: Arc<AbortOnDropHandle<()>>,
}

impl Watchers {
    /// Nobody yet. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(sources: Sources, settings: WatchSettings, supervisor: &Supervisor) -> Self {
        let registry = Arc::new(Registry::new(sources.feed.hub.clone(), settings.limits));
        let sweep = registry::sweep(Arc::downgrade(&registry), settings.stall_timeout);
        let sweep = supervisor.task("watch-sweeper", sweep);
        let sweeper = Arc::new(AbortOnDropHandle::new(tokio::spawn(sweep)));
        Self { sources, settings, registry, _sweeper: sweeper }
    }

    pub(super) fn hub(&self) -> &Hub {
        &self.sources.feed.hub
    }

    /// The watchers as they stand.
    pub(super) fn list(&self) -> v1::ListWatchersResponse {
        self.registry.list()
    }

    /// Begins a watch.
    pub(super) fn watch(
        &self,
        watch: Watch,
        peer: Option<SocketAddr>,
        deadline: Option<Instant>,
    ) -> Result<WatchStream, Status> {
        let hub = self.hub();
        let after = match watch.start {
            WatchStart::Live => None,
            WatchStart::Oldest => Some(hub.oldest().previous()),
            WatchStart::After(cursor) => {
                Some(hub.resolve(cursor).map_err(|wrong| status::cursor(wrong, hub))?)
            }
        };
        let heartbeat = watch.heartbeat.unwrap_or(self.settings.heartbeat);
        let guard =
            self.registry.register(WatcherInfo { peer, filter: shown(&watch.filter_spec) })?;
        let tail = self.tail(after);
        let terms = Terms {
            snapshot: watch
                .snapshot
                .then(|| Snapshot::new(&self.sources, &watch.filter_spec, Asker(peer))),
            filter: EventFilter::new(watch.filter_spec),
            stop_when_caught_up: watch.stop_when_caught_up,
            over_gaps: watch.over_gaps,
            from_oldest: watch.start == WatchStart::Oldest,
        };
        let stats = Arc::clone(guard.stats());
        let (feed, timer) = (self.sources.feed.clone(), HeartbeatTimer::new(heartbeat));
        let limit = self.limit(deadline);
        let steps = Watcher::begin(tail, terms, feed, stats, timer, closed(limit));
        Ok(guard.take(steps, limit))
    }

    /// Registers a watcher who will follow a task.
    pub(super) fn register(&self, peer: Option<SocketAddr>) -> Result<WatchGuard, Status> {
        self.registry.register(WatcherInfo { peer, filter: None })
    }

    /// The events after `after`, or only those to come.
    pub(super) fn tail(&self, after: Option<Seq>) -> Tail {
        self.sources.feed.tail(after)
    }

    /// Follows a task that was submitted while `tail` was open.
    pub(super) fn follow_new(
        &self,
        task: &Submitted,
        ack: v1::SubmitResponse,
        tail: Tail,
        deadline: Option<Instant>,
        guard: WatchGuard,
    ) -> WatchStream {
        let life = Life { task: task.task, tail, past: Past::default() };
        self.follow(life, ack, deadline, guard)
    }

    /// Follows a task from before, from its first event that is still kept.
    /// `past` tells whether it had ended.
    pub(super) fn follow_existing(
        &self,
        task: &Submitted,
        ack: v1::SubmitResponse,
        past: Past,
        deadline: Option<Instant>,
        guard: WatchGuard,
    ) -> WatchStream {
        let past = Past { newest: self.hub().newest(), ..past };
        let tail = self.tail(Some(task.seq.previous()));
        self.follow(Life { task: task.task, tail, past }, ack, deadline, guard)
    }

    fn follow(
        &self,
        life: Life,
        ack: v1::SubmitResponse,
        deadline: Option<Instant>,
        guard: WatchGuard,
    ) -> WatchStream {
        guard.follows(life.task);
        let Feed { hub, history } = self.sources.feed.clone();
        let timer = HeartbeatTimer::new(self.settings.heartbeat);
        let stats = Arc::clone(guard.stats());
        let limit = self.limit(deadline);
        let steps = Follower::begin(life, ack, (hub, history), stats, timer, closed(limit));
        guard.take(steps, limit)
    }

    fn limit(&self, deadline: Option<Instant>) -> Limit {
        limit(deadline, self.settings.lifetime)
    }
}

/// What is kept of a filter to be shown, if there is one: it may name very many tasks.
fn shown(filter_spec: &EventFilterSpec) -> Option<v1::EventFilter> {
    (*filter_spec != EventFilterSpec::default()).then(|| v1::EventFilter {
        queues: filter_spec.queues.clone(),
        kinds: filter_spec.kinds.clone(),
        task_ids: filter_spec.tasks.iter().take(MAX_SHOWN_TASKS).map(TaskId::to_string).collect(),
        types: filter_spec.types.clone(),
        workers: filter_spec.workers.clone(),
        labels: filter_spec.labels.clone(),
    })
}
