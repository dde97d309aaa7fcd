//! Bytes that calls may keep of what clients have not sent to its end, and of what they have
//! not read; for each connection, and for all of them.
//!
//! A large request has its room before more of it is received than a window, and gives it up
//! when it has arrived. A response that may be large has the most that it can take of its
//! connection's room before it is made, then what it does take, also of everybody's, and gives
//! that up when HTTP/2 has taken the last of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Calls on one connection at a time that send more than one message, as each may be held
/// up for as long as it likes: what the server keeps of one is bounded, and this bounds
/// what it keeps of all.
pub const MAX_STREAMS: usize = 32;
/// Bytes of large requests of one connection that have not arrived whole.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Bytes of responses of one connection that were not sent.
pub const MAX_RESPONSE_BYTES: usize = 32 << 20;
/// Bytes of them that may be of lists, which wait for a turn to be read, so that the others
/// have the rest.
pub const MAX_LIST_BYTES: usize = 16 << 20;
/// Bytes that a response may have, as long as it is not known how many: few are larger.
pub const LARGE_RESPONSE: usize = 4 << 20;
/// Bytes up to which a message needs no room.
pub const SMALL: usize = 64 << 10;
/// How long a call waits for room.
pub const ROOM_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a response that is made waits for those that others do not read to be reset.
pub const RESET_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes of one permit.
const UNIT: usize = 1 << 10;

/// What a call does whose response may be large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// It looks something up.
    Lookup,
    /// It goes through many tasks, and may wait for long before it is its turn.
    List,
    /// It has changed something, or will at once: it has all of its room, also of everybody's,
    /// before it makes its response, as it may not be refused after.
    Change,
}

/// There is no room, and there was none in time.
#[derive(Debug)]
pub struct NoRoom;

/// The room of the whole process.
#[derive(Clone, Debug)]
pub struct Budgets {
    requests: Arc<Semaphore>,
    responses: Arc<Semaphore>,
    /// Of all responses together.
    response_units: u32,
    pressure: Pressure,
}

/// Whether somebody waits for room that is taken by responses which are not read.
#[derive(Clone, Debug, Default)]
pub struct Pressure(Arc<AtomicUsize>);

impl Pressure {
    /// Whether somebody does.
    pub fn is_felt(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// Somebody does, until this is dropped.
    fn feel(&self) -> Felt {
        self.0.fetch_add(1, Ordering::Relaxed);
        Felt(self.clone())
    }
}

struct Felt(Pressure);

impl Drop for Felt {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Budgets {
    /// Room for so many bytes of requests and of responses.
    pub fn new(requests: u64, responses: u64) -> Self {
        let semaphore = |bytes: u64| {
            let units = usize::try_from(bytes).unwrap_or(usize::MAX) / UNIT;
            Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)))
        };
        Self {
            requests: semaphore(requests),
            responses: semaphore(responses),
            response_units: u32::try_from(responses / UNIT as u64).unwrap_or(u32::MAX),
            pressure: Pressure::default(),
        }
    }

    /// What a new connection has of it.
    pub fn share(&self) -> Shares {
        Shares {
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            requests: Arc::new(Semaphore::new(MAX_REQUEST_BYTES / UNIT)),
            responses: Arc::new(Semaphore::new(MAX_RESPONSE_BYTES / UNIT)),
            lists: Arc::new(Semaphore::new(MAX_LIST_BYTES / UNIT)),
            all: self.clone(),
        }
    }

    /// Room of everybody's for a response; those that are not read hear that somebody waits.
    async fn response(&self, units: u32) -> Result<OwnedSemaphorePermit, NoRoom> {
        if let Ok(permit) = Arc::clone(&self.responses).try_acquire_many_owned(units) {
            return Ok(permit);
        }
        let _felt = self.pressure.feel();
        acquired(&self.responses, units).await
    }

    /// Whether somebody waits for the room that unread responses take.
    pub fn pressure(&self) -> Pressure {
        self.pressure.clone()
    }
}

/// The room of one connection; its calls have it in their extensions.
#[derive(Clone, Debug)]
pub struct Shares {
    streams: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    responses: Arc<Semaphore>,
    lists: Arc<Semaphore>,
    all: Budgets,
}

/// Room that is given up when it is dropped.
#[derive(Debug)]
pub struct Room {
    _permits: Permits,
}

/// Permits of the connection and of the process.
#[derive(Debug, Default)]
struct Permits {
    connection: Option<OwnedSemaphorePermit>,
    lists: Option<OwnedSemaphorePermit>,
    process: Option<OwnedSemaphorePermit>,
}

impl Permits {
    /// Gives up all that is more than so many units.
    fn shrink(&mut self, units: u32) {
        let permits = [&mut self.connection, &mut self.lists, &mut self.process];
        for permit in permits.into_iter().flatten() {
            let surplus = permit.num_permits().saturating_sub(units as usize);
            drop(permit.split(surplus));
        }
    }
}

/// The room of a response that is being made. A clone is the same room.
#[derive(Clone, Debug)]
pub struct Reserved {
    permits: Arc<Mutex<Option<Permits>>>,
    all: Budgets,
}

/// The room of a response that is made, until it is sent. A clone is the same room.
#[derive(Clone, Debug)]
pub struct Held(#[expect(dead_code, reason = "it is given up when it is dropped")] Arc<Room>);

impl Shares {
    /// A permit for a call that sends messages; `None` if there are as many as may be. It is
    /// given up when dropped.
    pub fn stream(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.streams).try_acquire_owned().ok()
    }

    /// Room for a request of so many bytes.
    ///
    /// # Errors
    /// If there was none in time.
    pub async fn request(self, bytes: usize) -> Result<Room, NoRoom> {
        let units = units(bytes);
        let acquire = async {
            let connection = self.requests.acquire_many_owned(units).await;
            let process = self.all.requests.acquire_many_owned(units).await;
            // They are never closed.
            Ok(Room {
                _permits: Permits {
                    connection: Some(connection.map_err(|_| NoRoom)?),
                    process: Some(process.map_err(|_| NoRoom)?),
                    ..Permits::default()
                },
            })
        };
        tokio::time::timeout(ROOM_TIMEOUT, acquire).await.unwrap_or(Err(NoRoom))
    }

    /// Room for a response whose size is not known.
    ///
    /// # Errors
    /// If there was none in time, or by `deadline`.
    pub async fn response(
        &self,
        call: Call,
        deadline: Option<Instant>,
    ) -> Result<Reserved, NoRoom> {
        let latest = Instant::now() + ROOM_TIMEOUT;
        let latest = deadline.map_or(latest, |deadline| deadline.min(latest));
        let acquired = tokio::time::timeout_at(latest, self.acquire(call)).await;
        let permits = Arc::new(Mutex::new(Some(acquired.map_err(|_| NoRoom)??)));
        Ok(Reserved { permits, all: self.all.clone() })
    }

    /// First of what is narrowest, so that who waits there keeps nothing from the others.
    async fn acquire(&self, call: Call) -> Result<Permits, NoRoom> {
        let units = units(LARGE_RESPONSE);
        let mut permits = Permits::default();
        if call == Call::List {
            permits.lists = Some(acquired(&self.lists, units).await?);
        }
        permits.connection = Some(acquired(&self.responses, units).await?);
        if call == Call::Change {
            let units = units.min(self.all.response_units);
            permits.process = Some(self.all.response(units).await?);
        }
        Ok(permits)
    }
}

impl Reserved {
    /// Keeps what a response of so many bytes takes, until it is sent; nothing for a small
    /// one.
    ///
    /// # Errors
    /// If all of the process's room is taken, and nothing of it was given up in time.
    pub async fn keep(self, bytes: usize) -> Result<Option<Held>, NoRoom> {
        let permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut permits) = permits.filter(|_| bytes > SMALL) else { return Ok(None) };
        permits.shrink(units(bytes));
        if permits.process.is_none() {
            // One that is larger than all of the process's room has all of it.
            let units = units(bytes).min(self.all.response_units);
            let acquire = self.all.response(units);
            let acquired = tokio::time::timeout(RESET_TIMEOUT, acquire).await;
            permits.process = Some(acquired.map_err(|_| NoRoom)??);
        }
        Ok(Some(Held(Arc::new(Room { _permits: permits }))))
    }
}

async fn acquired(from: &Arc<Semaphore>, units: u32) -> Result<OwnedSemaphorePermit, NoRoom> {
    // They are never closed.
    Arc::clone(from).acquire_many_owned(units).await.map_err(|_| NoRoom)
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_its_share_and_leaves_the_rest_to_others() {
        let budgets = Budgets::new(64 << 20, 64 << 20);
        let (one, other) = (budgets.share(), budgets.share());
        let mut taken = Vec::new();
        for _ in 0..MAX_REQUEST_BYTES / LARGE_RESPONSE {
            taken.push(one.clone().request(LARGE_RESPONSE).await.expect("room"));
        }
        assert!(one.clone().request(LARGE_RESPONSE).await.is_err(), "more than its share");
        assert!(other.request(LARGE_RESPONSE).await.is_ok(), "another's share");
        taken.pop();
        assert!(one.request(LARGE_RESPONSE).await.is_ok(), "it was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_takes_what_it_needs_and_says_when_there_is_none() {
        let budgets = Budgets::new(1 << 20, 3 << 20);
        let shares = budgets.share();
        let whole = async || shares.response(Call::Lookup, None).await.expect("room");
        assert!(whole().await.keep(SMALL).await.expect("room").is_none(), "it is small");
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(whole().await.keep(1 << 20).await.expect("room"));
        }
        let reserved = whole().await;
        let waits = tokio::spawn(reserved.keep(1 << 20));
        tokio::task::yield_now().await;
        assert!(budgets.pressure().is_felt());
        assert!(waits.await.unwrap().is_err());
        assert!(!budgets.pressure().is_felt());
        held.pop();
        assert!(whole().await.keep(1 << 20).await.expect("room").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn lists_leave_room_for_the_other_calls() {
        let shares = Budgets::new(1 << 20, 64 << 20).share();
        let mut lists = Vec::new();
        while let Ok(list) = shares.response(Call::List, None).await {
            lists.push(list);
        }
        assert_eq!(lists.len(), MAX_LIST_BYTES / LARGE_RESPONSE);
        let others = (MAX_RESPONSE_BYTES - MAX_LIST_BYTES) / LARGE_RESPONSE;
        let mut lookups = Vec::new();
        for _ in 0..others {
            lookups.push(shares.response(Call::Lookup, None).await.expect("room"));
        }
        lists.pop();
        assert!(shares.response(Call::List, None).await.is_ok(), "it was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_something_has_all_its_room_before() {
        let budgets = Budgets::new(1 << 20, 4 << 20);
        let (shares, others) = (budgets.share(), budgets.share());
        let lookup = others.response(Call::Lookup, None).await.expect("room");
        let unread = lookup.keep(1 << 20).await.expect("room");
        assert!(shares.response(Call::Change, None).await.is_err(), "refused before it is done");
        drop(unread);
        let change = shares.response(Call::Change, None).await.expect("room");
        let lookup = others.response(Call::Lookup, None).await.expect("room");
        assert!(lookup.keep(1 << 20).await.is_err(), "the change has it all");
        assert!(change.keep(LARGE_RESPONSE).await.expect("it has its room").is_some());
    }
}
