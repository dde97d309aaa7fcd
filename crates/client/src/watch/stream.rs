//! One stream of messages: opening it, and noticing that it is dead.

use std::{pin::Pin, time::Duration};

use taskyard_proto::v1::{SubmitRequest, WatchEventsRequest, WatchEventsResponse};
use tokio::{select, time::Instant};
use tonic::{Status, Streaming};

use super::super::Tasks;

/// Silence beyond two heartbeats that is taken for an outage, and how long the server may
/// take to answer a call: it, or the way to it, may be slow.
const GRACE: Duration = Duration::from_secs(5);

/// How a stream broke.
pub enum Broken {
    /// By this status.
    Status(Status),
    /// Without a word: its connection cannot be trusted any more.
    Silent,
}

impl From<Status> for Broken {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// What is asked for.
pub enum Ask {
    /// A watch, with this heartbeat.
    Watch(WatchEventsRequest, Duration),
    /// A task that is submitted and followed. It may wait for room, and its heartbeat is
    /// the server's: keep-alive alone notices a server that has gone.
    Follow(SubmitRequest),
}

type Opening = Pin<Box<dyn Future<Output = Result<Streaming<WatchEventsResponse>, Broken>> + Send>>;

/// A stream, or none.
pub enum Stream {
    /// There is none.
    Closed,
    /// It is asked for, or rested before.
    Opening(Opening, Option<Duration>),
    /// It stands.
    Open {
        /// What it tells.
        messages: Box<Streaming<WatchEventsResponse>>,
        /// The silence that is too long, if any is.
        limit: Option<Duration>,
        /// Since when it has been listened to in vain.
        silent_since: Option<Instant>,
    },
}

impl Stream {
    /// Asks for a stream, not before `backoff_until`; a watch has to be answered within the
    /// grace and by `try_until`.
    pub fn open(
        mut client: Tasks,
        ask: Ask,
        backoff_until: Option<Instant>,
        try_until: Option<Instant>,
    ) -> Self {
        let limit = match &ask {
            Ask::Watch(_, heartbeat) => Some(heartbeat.saturating_mul(2).saturating_add(GRACE)),
            Ask::Follow(_) => None,
        };
        let opening = Box::pin(async move {
            if let Some(backoff_until) = backoff_until {
                tokio::time::sleep_until(backoff_until).await;
            }
            match ask {
                Ask::Follow(request) => Ok(client.submit_and_watch(request).await?.into_inner()),
                Ask::Watch(request, _) => {
                    let grace = Instant::now() + GRACE;
                    let until = try_until.map_or(grace, |until| until.min(grace));
                    let answer = tokio::time::timeout_at(until, client.watch_events(request)).await;
                    Ok(answer.map_err(|_| Broken::Silent)??.into_inner())
                }
            }
        });
        Self::Opening(opening, limit)
    }

    /// Its next message; `None` if the server ended it well. The future may be dropped:
    /// what is under way is kept.
    pub async fn message(&mut self) -> Result<Option<WatchEventsResponse>, Broken> {
        loop {
            match self {
                Self::Closed => return Ok(None),
                Self::Opening(opening, limit) => {
                    let messages = Box::new(opening.await?);
                    *self = Self::Open { messages, limit: *limit, silent_since: None };
                }
                Self::Open { messages, limit, silent_since } => {
                    let since = *silent_since.get_or_insert_with(Instant::now);
                    let too_long = limit.and_then(|limit| since.checked_add(limit));
                    let message = select! {
                        biased;
                        message = messages.message() => message?,
                        () = passed(too_long) => return Err(Broken::Silent),
                    };
                    *silent_since = None;
                    return Ok(message);
                }
            }
        }
    }
}

/// Completes at that moment; never, if there is none.
async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
