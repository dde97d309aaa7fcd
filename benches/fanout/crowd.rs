//! Watchers, spread over connections, that read as fast as they can.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use taskyard::{
    client::{Client, Seen, Start, Watch},
    proto::v1::EventFilter,
};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::http2::{Connection, Error, Windows};

/// Watchers on one connection.
pub const PER_CONNECTION: usize = 100;
/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_mins(1);

const PATH: &str = "/taskyard.v1.TaskService/WatchEvents";

/// How far the watchers of one connection are.
#[derive(Default)]
struct Progress {
    /// Watchers that have had their first message.
    begun: AtomicUsize,
    /// Events, of all of them.
    events: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
    /// Events of the one that is behind the others.
    least: AtomicU64,
}

/// What was delivered, to all watchers together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivered {
    pub events: u64,
    pub messages: u64,
    pub bytes: u64,
}

/// Watchers that read.
pub struct Crowd {
    watchers: usize,
    progress: Vec<Arc<Progress>>,
    readers: JoinSet<Error>,
    /// Told whenever one has got further.
    further: Arc<Notify>,
}

impl Crowd {
    /// Opens all watches, and waits until each has begun.
    pub async fn open(address: SocketAddr, watchers: usize) -> Result<Self, Error> {
        let further = Arc::new(Notify::new());
        // The number that the first event has, for each of them.
        let first = Arc::new(AtomicU64::new(0));
        let mut crowd = Self { watchers, progress: Vec::new(), readers: JoinSet::new(), further };
        let mut left = watchers;
        while left > 0 {
            let count = left.min(PER_CONNECTION);
            left -= count;
            let connection = Connection::open(address, PATH, count, Windows::Largest).await?;
            let progress = Arc::new(Progress::default());
            crowd.progress.push(Arc::clone(&progress));
            let (first, further) = (Arc::clone(&first), Arc::clone(&crowd.further));
            crowd.readers.spawn(async move {
                let Err(error) = read(connection, &progress, &first, &further).await;
                further.notify_one();
                error
            });
        }
        let begun = |crowd: &Self| {
            let count = |progress: &Arc<Progress>| progress.begun.load(Relaxed);
            crowd.progress.iter().map(count).sum::<usize>() == crowd.watchers
        };
        crowd.until(begun, "watches did not begin").await?;
        Ok(crowd)
    }

    pub fn watchers(&self) -> usize {
        self.watchers
    }

    /// The events that every watcher has.
    pub fn least(&self) -> u64 {
        let least = self.progress.iter().map(|progress| progress.least.load(Relaxed));
        least.min().unwrap_or_default()
    }

    pub fn delivered(&self) -> Delivered {
        let mut sum = Delivered::default();
        for progress in &self.progress {
            sum.events += progress.events.load(Relaxed);
            sum.messages += progress.messages.load(Relaxed);
            sum.bytes += progress.bytes.load(Relaxed);
        }
        sum
    }

    /// Returns when a watcher has got further since the last call.
    pub async fn further(&self) {
        self.further.notified().await;
    }

    /// An error, if a watcher had one.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.readers.try_join_next() {
            Some(ended) => Err(ended?),
            None => Ok(()),
        }
    }

    /// Waits for what comes about as the watchers read.
    pub async fn until(
        &mut self,
        reached: impl Fn(&Self) -> bool,
        otherwise: &str,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.check()?;
            if reached(self) {
                return Ok(());
            }
            let waits = tokio::time::timeout_at(deadline, self.further.notified()).await;
            waits.map_err(|_| format!("within {PATIENCE:?}, {otherwise}"))?;
        }
    }
}

/// Reads until something is wrong.
async fn read(
    mut connection: Connection,
    progress: &Progress,
    first: &AtomicU64,
    further: &Notify,
) -> Result<std::convert::Infallible, Error> {
    loop {
        connection.read().await?;
        let (mut sum, mut least, mut begun) = (Delivered::default(), u64::MAX, 0);
        for counter in connection.counters() {
            begun += usize::from(counter.messages > 0);
            least = least.min(counter.events);
            sum.events += counter.events;
            sum.messages += counter.messages;
            sum.bytes += counter.bytes;
            if counter.events > 0 && counter.first != first.load(Relaxed) {
                let others = first.compare_exchange(0, counter.first, Relaxed, Relaxed);
                if others.is_err_and(|others| others != counter.first) {
                    return Err("watchers began with different events".into());
                }
            }
        }
        progress.events.store(sum.events, Relaxed);
        progress.messages.store(sum.messages, Relaxed);
        progress.bytes.store(sum.bytes, Relaxed);
        if progress.least.swap(least, Relaxed) != least
            || progress.begun.swap(begun, Relaxed) != begun
        {
            further.notify_one();
        }
    }
}

/// Connections with one watcher each that read nothing after its first message.
pub struct Stalled {
    _connections: Vec<Connection>,
}

impl Stalled {
    pub async fn open(address: SocketAddr, watchers: usize) -> Result<Self, Error> {
        let mut connections = Vec::with_capacity(watchers);
        for _ in 0..watchers {
            let mut connection = Connection::open(address, PATH, 1, Windows::Default).await?;
            let begins = async {
                while connection.counters().any(|counter| counter.messages == 0) {
                    connection.read().await?;
                }
                Ok::<_, Error>(())
            };
            let begins = tokio::time::timeout(PATIENCE, begins).await;
            begins.map_err(|_| format!("within {PATIENCE:?}, a watch did not begin"))??;
            connections.push(connection);
        }
        Ok(Self { _connections: connections })
    }
}

/// Watchers on one connection whose filter lets nothing through.
pub struct Filtered {
    /// Each ends only when it should not.
    watchers: JoinSet<String>,
}

impl Filtered {
    pub async fn open(address: SocketAddr, watchers: usize) -> Result<Self, Error> {
        let mut all = JoinSet::new();
        if watchers > 0 {
            let client = Client::connect(&address.to_string()).await?;
            for _ in 0..watchers {
                let queues = vec!["nobody-submits-here".into()];
                let filter = Some(EventFilter { queues, ..EventFilter::default() });
                let mut watcher = client.watch(Watch { filter, ..Watch::begin(Start::Live) });
                if !matches!(watcher.next().await, Ok(Some(Seen::Started))) {
                    return Err("a watch with a filter did not begin".into());
                }
                all.spawn(async move {
                    loop {
                        match watcher.next().await {
                            Ok(Some(Seen::CaughtUp | Seen::Heartbeat)) => {}
                            other => break format!("{other:?} passed a filter for nothing"),
                        }
                    }
                });
            }
        }
        Ok(Self { watchers: all })
    }

    /// An error, if a watcher saw anything.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.watchers.try_join_next() {
            Some(ended) => Err(ended?.into()),
            None => Ok(()),
        }
    }
}
