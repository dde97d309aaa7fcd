//! Where what is shown comes from: figures that are asked for, events that arrive, and
//! signals.
//!
//! Owns how often is asked, and that all goes on over outages. Must not know what is
//! done with the answers.

use std::{pin::Pin, time::Duration};

use taskyard_client::{Admin, Client, Seen, Start, Watch, Watcher, reason};
use taskyard_proto::v1::{
    EventFilter, GetPoolRequest, GetPoolResponse, GetStatsRequest, GetStatsResponse,
};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout},
};
use tonic::{Response, Status};

use super::super::{exit::Exit, problem::Problem};

/// The longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The rest before a watch is begun anew that the server has refused.
const REFUSED: Duration = Duration::from_secs(5);

/// Asks for the statistics, once.
///
/// # Errors
/// What the server answers, or the lack of an answer.
pub async fn ask_stats(mut admin: Admin) -> Result<GetStatsResponse, Status> {
    in_time(admin.get_stats(GetStatsRequest::default())).await
}

/// Asks for the pool, once.
///
/// # Errors
/// As [`ask_stats`].
pub async fn ask_pool(mut admin: Admin) -> Result<GetPoolResponse, Status> {
    in_time(admin.get_pool(GetPoolRequest {})).await
}

async fn in_time<T>(
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match timeout(ANSWER, answer).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(Status::unavailable("the server does not answer")),
    }
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>>>>;

/// One call again and again, of which one is under way at a time.
pub struct Poll<Client, T> {
    client: Client,
    ask: fn(Client) -> Answer<T>,
    tick: Interval,
    under_way: Option<Answer<T>>,
}

impl<Client: Clone, T> Poll<Client, T> {
    /// Asks at once, then so often.
    pub fn new(every: Duration, client: Client, ask: fn(Client) -> Answer<T>) -> Self {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { client, ask, tick, under_way: None }
    }

    /// The next answer. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`ask_stats`]; the next call asks again.
    pub async fn next(&mut self) -> Result<T, Status> {
        if self.under_way.is_none() {
            self.tick.tick().await;
        }
        let (ask, client) = (self.ask, &self.client);
        let answer = self.under_way.get_or_insert_with(|| ask(client.clone()));
        let told = answer.await;
        self.under_way = None;
        told
    }
}

/// Events from now on, for as long as they are asked for.
pub struct Events {
    client: Client,
    watch: Watch,
    watcher: Watcher,
    /// The watch was refused; it is begun anew then.
    refused_until: Option<Instant>,
}

impl Events {
    /// Those of these queues; of all, if none is named.
    pub fn new(client: Client, queues: Vec<String>) -> Self {
        let filter = EventFilter { queues, ..EventFilter::default() };
        let watch = Watch {
            filter: (!filter.queues.is_empty()).then_some(filter),
            over_gaps: true,
            heartbeat: Duration::from_secs(5),
            max_outage: Duration::MAX,
            ..Watch::begin(Start::Live)
        };
        let watcher = client.watch(watch.clone());
        Self { client, watch, watcher, refused_until: None }
    }

    /// What comes next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The watch was refused. It is begun anew, after a rest.
    pub async fn next(&mut self) -> Result<Seen, Status> {
        if let Some(until) = self.refused_until {
            sleep_until(until).await;
            self.watcher = self.client.watch(self.watch.clone());
            self.refused_until = None;
        }
        let ended = || Status::unavailable("the server ended the stream");
        let seen = self.watcher.next().await.and_then(|seen| seen.ok_or_else(ended));
        if let Err(status) = &seen {
            // Another store, or an older one, has taken its place: all of it is news.
            let is_other = reason(status).is_some_and(|reason| reason.starts_with("CURSOR_"));
            let rest = if is_other { Duration::ZERO } else { REFUSED };
            if is_other {
                self.watch.start = Start::Oldest;
            } else if let Some(cursor) = self.watcher.cursor() {
                // What was shown is not shown again.
                self.watch.start = Start::After(cursor.to_owned());
            }
            self.refused_until = Some(Instant::now() + rest);
        }
        seen
    }
}

/// The signals that end it, each of which would else leave the terminal as it is.
pub struct Stop([Signal; 3]);

impl Stop {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`Exit::Internal`] if the system does not allow it.
    pub fn listen() -> Result<Self, Problem> {
        let listen = |kind| {
            signal(kind)
                .map_err(|wrong| Problem::new(Exit::Internal, format!("cannot hear: {wrong}")))
        };
        Ok(Self([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    /// Returns once there is one. Dropping the future loses nothing.
    pub async fn asked(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
