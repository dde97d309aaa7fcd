//! All watchers: who they are, how many there may be, and who no longer reads.
//!
//! Its lock is taken when a watcher comes or goes, by whoever lists them, and by the
//! sweeper; never for a message.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use tokio::time::Instant;
use tonic::Status;

use super::{
    close::CloseReason,
    guard::{Entry, WatchGuard, WatcherInfo},
};
use crate::{
    event::Seq,
    events::Hub,
    grpc::{
        connection_slots::Address,
        convert,
        status::{self, WatcherLimit},
    },
    proto::v1,
    telemetry::Throttle,
};

/// As many as watch may stop reading.
static UNREAD: Throttle = Throttle::new("watchers do not read, and are ended");

/// Watchers that are listed.
const MAX_LISTED: usize = 10_000;
/// Bytes of filters in one list; the filters beyond are left out.
const MAX_LISTED_FILTERS: usize = 1 << 20;
/// How often it is looked at who reads.
const SWEEP: Duration = Duration::from_secs(1);
/// The same, at the most often.
const LEAST_SWEEP: Duration = Duration::from_millis(10);
/// How long a client that did not read has to take its status, before its stream is
/// reset.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// How many watchers there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all.
    pub watchers: usize,
    /// On one connection.
    pub per_connection: usize,
    /// From one address.
    pub per_peer: usize,
}

/// All watchers of a server.
pub struct Registry {
    hub: Hub,
    limits: Limits,
    next: AtomicU64,
    watchers: Mutex<Watchers>,
}

#[derive(Default)]
struct Watchers {
    entries: BTreeMap<u64, Listed>,
    per_connection: HashMap<SocketAddr, usize>,
    per_peer: HashMap<Address, usize>,
}

/// A watcher, and when it was last seen to read.
struct Listed {
    entry: Arc<Entry>,
    asks: u64,
    /// Since when it has something to read, and does not.
    stalled: Option<Instant>,
}

impl Listed {
    fn copy(&self) -> (Arc<Entry>, Option<Instant>) {
        (Arc::clone(&self.entry), self.stalled)
    }

    /// Notes whether it has something to read and does not; why it is to be ended, if it
    /// is. One that reads comes to its end by itself.
    fn look(&mut self, now: Instant, stall_timeout: Option<Duration>) -> Option<CloseReason> {
        let (turn, limit) = (&self.entry.turn, self.entry.limit());
        let asks = turn.asks();
        let Some(limit) = limit.filter(|_| !turn.is_servers() && asks == self.asks) else {
            (self.asks, self.stalled) = (asks, None);
            return None;
        };
        let since = *self.stalled.get_or_insert(now);
        let over = limit.filter(|(at, _)| *at <= now).map(|(_, end)| end);
        let is_stalled = stall_timeout.is_some_and(|timeout| now - since >= timeout);
        over.or(is_stalled.then_some(CloseReason::Stalled))
    }
}

impl Registry {
    /// A registry without watchers.
    pub fn new(hub: Hub, limits: Limits) -> Self {
        Self { hub, limits, next: AtomicU64::new(1), watchers: Mutex::default() }
    }

    /// The cursor after event `seq`; empty if there is none to resume after.
    pub fn cursor(&self, seq: Option<Seq>) -> String {
        seq.map(|seq| self.hub.cursor(seq).to_string()).unwrap_or_default()
    }

    /// Registers one more.
    ///
    /// # Errors
    /// `TOO_MANY_WATCHERS`, and which of the limits it is.
    pub fn register(self: &Arc<Self>, who: WatcherInfo) -> Result<WatchGuard, Status> {
        let peer = who.peer;
        let mut watchers = self.lock();
        self.check(&watchers, peer).map_err(status::too_many_watchers)?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry::new(id, who));
        entry.stats.begin(self.hub.newest());
        let listed = Listed { entry: Arc::clone(&entry), asks: 0, stalled: None };
        watchers.entries.insert(id, listed);
        if let Some(peer) = peer {
            *watchers.per_connection.entry(peer).or_default() += 1;
            *watchers.per_peer.entry(Address::of(peer.ip())).or_default() += 1;
        }
        drop(watchers);
        Ok(WatchGuard::new(entry, Arc::clone(self)))
    }

    fn check(&self, registered: &Watchers, peer: Option<SocketAddr>) -> Result<(), WatcherLimit> {
        let Limits { watchers, per_connection, per_peer } = self.limits;
        if registered.entries.len() >= watchers {
            return Err(WatcherLimit::Server(watchers));
        }
        let Some(peer) = peer else { return Ok(()) };
        if registered.per_connection.get(&peer).is_some_and(|count| *count >= per_connection) {
            return Err(WatcherLimit::Connection(per_connection));
        }
        if registered.per_peer.get(&Address::of(peer.ip())).is_some_and(|count| *count >= per_peer)
        {
            return Err(WatcherLimit::Peer(peer.ip(), per_peer));
        }
        Ok(())
    }

    /// Removes a watcher, if that was not done before.
    pub(super) fn remove(&self, entry: &Entry) {
        self.lock().remove(entry);
    }

    /// The watchers as they stand, the oldest first.
    pub fn list(&self) -> v1::ListWatchersResponse {
        let (newest, now) = (self.hub.newest(), Instant::now());
        let mut filters = 0;
        let mut shown = |(entry, stalled): (Arc<Entry>, Option<Instant>)| {
            let stats = &entry.stats;
            let filter = entry.filter.clone().filter(|filter| {
                filters += filter.encoded_len();
                filters <= MAX_LISTED_FILTERS
            });
            v1::Watcher {
                watcher: entry.id,
                peer: entry.peer.map(|peer| peer.to_string()).unwrap_or_default(),
                start_time: Some(entry.began.into()),
                cursor: self.cursor(stats.handed()),
                lag_events: newest.0.saturating_sub(stats.read().0),
                stalled_for: stalled.map(|since| convert::duration(now - since)),
                reads_history: stats.reads_history(),
                sent_events: stats.sent(),
                filter,
                follows_task_id: entry.follows.get().map(ToString::to_string).unwrap_or_default(),
            }
        };
        // Copied first, so that nobody waits for the words.
        let entries: Vec<_> =
            self.lock().entries.values().take(MAX_LISTED).map(Listed::copy).collect();
        let watchers = entries.into_iter().map(&mut shown).collect();
        v1::ListWatchersResponse { watchers, newest_cursor: self.cursor(Some(newest)) }
    }

    /// Notes who has something to read and does not read; takes those off the list
    /// who did not for `stall_timeout`, or beyond their own time.
    fn sweep(
        &self,
        now: Instant,
        stall_timeout: Option<Duration>,
    ) -> Vec<(Arc<Entry>, CloseReason)> {
        let mut watchers = self.lock();
        let looked = watchers.entries.values_mut().filter_map(|listed| {
            let end = listed.look(now, stall_timeout)?;
            Some((Arc::clone(&listed.entry), end))
        });
        let ended: Vec<_> = looked.collect();
        for (entry, _) in &ended {
            watchers.remove(entry);
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watchers {
    fn remove(&mut self, entry: &Entry) {
        if self.entries.remove(&entry.id).is_none() {
            return;
        }
        let Some(peer) = entry.peer else { return };
        leave(&mut self.per_connection, &peer);
        leave(&mut self.per_peer, &Address::of(peer.ip()));
    }
}

fn leave<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Ends watchers that do not read, for `stall_timeout` or beyond their own time, until
/// the registry is gone. One for all of them: a watcher that waits costs no task.
pub async fn sweep(registry: Weak<Registry>, stall_timeout: Option<Duration>) {
    let tick = stall_timeout.map_or(SWEEP, |timeout| SWEEP.min(timeout / 4).max(LEAST_SWEEP));
    // Ended, and not told yet: at most those that were registered within the last words.
    let mut ended: Vec<(Instant, Arc<Entry>)> = Vec::new();
    loop {
        tokio::time::sleep(tick).await;
        crate::failpoint::hit("sweeper");
        let Some(registry) = registry.upgrade() else { return };
        let now = Instant::now();
        for (entry, end) in registry.sweep(now, stall_timeout) {
            let cursor = registry.cursor(entry.stats.handed());
            UNREAD.line(|left_out| {
                tracing::info!(
                    watcher = entry.id,
                    peer = ?entry.peer,
                    %cursor,
                    ?end,
                    left_out,
                    "a watcher does not read, and is ended"
                );
            });
            entry.stop(end);
            ended.push((now, entry));
        }
        ended.retain(|(since, entry)| {
            let is_gone = Arc::strong_count(entry) == 1;
            let is_due = now - *since >= LAST_WORDS;
            if is_due && !is_gone {
                entry.cut();
            }
            !is_due && !is_gone
        });
    }
}

#[cfg(test)]
mod tests;
