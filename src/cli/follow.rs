//! Follows the events of a server, across its restarts.
//!
//! Owns the cursor, and with it the promise to go on exactly where a broken
//! stream ended. Must not know what the events are read for.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, Streaming};

use super::{
    client::{Client, backoff},
    problem::{Pushback, is_lost, pushback},
};
use crate::proto::v1::{
    Event, WatchEventsRequest, WatchEventsResponse, WatchStart, watch_events_response::Control,
};

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// With the next event.
    Live,
    /// With the oldest event that is kept.
    Oldest,
    /// After this cursor.
    Cursor(String),
}

/// What a follower sees.
#[derive(Debug)]
pub enum Seen {
    /// Events, perhaps none.
    Events(Batch),
    /// The server began to drain; the stream is about to be lost.
    Draining,
    /// The stream broke. It is tried again; told once until it stands again.
    Lost(Status),
}

/// Events that arrived together.
#[derive(Debug, Default)]
pub struct Batch {
    /// In commit order.
    pub events: Vec<Event>,
    /// Resume after it, and these events come again; empty at the very start.
    pub before: String,
    /// Resume after it, and what follows comes next.
    pub after: String,
}

/// A stream of events that stands up again.
pub struct Follower {
    client: Client,
    from: From,
    stream: Option<Streaming<WatchEventsResponse>>,
    patience: Duration,
    outage: Option<Outage>,
}

/// A follower at work; stops when dropped.
pub struct Following {
    seen: mpsc::Receiver<Result<Seen, Status>>,
    _task: AbortOnDropHandle<()>,
}

impl Following {
    /// What comes next. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`Follower::next`].
    pub async fn next(&mut self) -> Result<Seen, Status> {
        let ended = || Err(Status::internal("the follower has ended"));
        self.seen.recv().await.unwrap_or_else(ended)
    }
}

/// Since when there has been no stream.
struct Outage {
    failures: u32,
    since: Instant,
    next_try: Instant,
}

impl Follower {
    /// Follows from there on. An outage longer than `patience` ends it; with
    /// none, the first one does.
    pub fn new(client: Client, from: From, patience: Duration) -> Self {
        Self { client, from, stream: None, patience, outage: None }
    }

    /// The cursor to resume after, once there is one.
    pub fn cursor(&self) -> Option<&str> {
        match &self.from {
            From::Cursor(cursor) => Some(cursor),
            From::Live | From::Oldest => None,
        }
    }

    /// Follows in a task of its own, up to 16 messages ahead of its reader.
    pub fn spawn(mut self) -> Following {
        let (sender, seen) = mpsc::channel(16);
        let task = tokio::spawn(async move {
            loop {
                let next = self.next().await;
                let over = next.is_err();
                if sender.send(next).await.is_err() || over {
                    return;
                }
            }
        });
        Following { seen, _task: AbortOnDropHandle::new(task) }
    }

    /// What comes next. Dropping the future loses no event, but a stream that
    /// was being opened is opened anew: where other things happen all the time,
    /// [`Self::spawn`] is better.
    ///
    /// # Errors
    /// What the server answered, if trying again is of no use or the patience
    /// is over.
    pub async fn next(&mut self) -> Result<Seen, Status> {
        loop {
            let arrived = match &mut self.stream {
                Some(stream) => stream.message().await,
                None => match self.open().await {
                    Ok(()) => continue,
                    Err(status) => Err(status),
                },
            };
            let status = match arrived {
                Ok(Some(message)) => return Ok(self.take(message)),
                Ok(None) => Status::unavailable("the server ended the stream"),
                Err(status) => status,
            };
            if self.lose(&status)? {
                return Ok(Seen::Lost(status));
            }
        }
    }

    async fn open(&mut self) -> Result<(), Status> {
        if let Some(outage) = &self.outage {
            tokio::time::sleep_until(outage.next_try).await;
        }
        let request = request(&self.from);
        self.stream = Some(self.client.watch_events(request).await?.into_inner());
        Ok(())
    }

    fn take(&mut self, message: WatchEventsResponse) -> Seen {
        self.outage = None;
        let before = self.cursor().unwrap_or_default().to_owned();
        if !message.cursor.is_empty() {
            self.from = From::Cursor(message.cursor.clone());
        }
        match message.control {
            Some(Control::Draining(_)) => Seen::Draining,
            _ => Seen::Events(Batch { events: message.events, before, after: message.cursor }),
        }
    }

    /// Notes an outage; whether it is a new one. Ends if it is of no use to wait.
    fn lose(&mut self, status: &Status) -> Result<bool, Status> {
        self.stream = None;
        let now = Instant::now();
        let (failures, since) =
            self.outage.as_ref().map_or((1, now), |outage| (outage.failures + 1, outage.since));
        let rest = match pushback(status) {
            Pushback::Unsaid => backoff(failures),
            Pushback::After(asked) => asked.max(Duration::from_millis(10)),
            Pushback::Never => return Err(status.clone()),
        };
        let next_try = now + rest;
        if !is_lost(status) || next_try > since + self.patience {
            return Err(status.clone());
        }
        self.outage = Some(Outage { failures, since, next_try });
        Ok(failures == 1)
    }
}

fn request(from: &From) -> WatchEventsRequest {
    let (after_cursor, start) = match from {
        From::Live => (String::new(), WatchStart::Live),
        From::Oldest => (String::new(), WatchStart::Oldest),
        From::Cursor(cursor) => (cursor.clone(), WatchStart::Unspecified),
    };
    WatchEventsRequest { after_cursor, start: start.into(), ..WatchEventsRequest::default() }
}

#[cfg(test)]
mod tests {
    use tonic::transport::Endpoint;

    use super::*;

    fn follower(patience: Duration) -> Follower {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        Follower::new(Client::new(channel), From::Live, patience)
    }

    fn message(cursor: &str) -> WatchEventsResponse {
        WatchEventsResponse { cursor: cursor.into(), ..WatchEventsResponse::default() }
    }

    #[tokio::test]
    async fn it_resumes_after_the_last_message() {
        let mut follower = follower(Duration::from_mins(1));
        assert_eq!(request(&follower.from).start(), WatchStart::Live);
        follower.take(message("c1"));
        follower.take(message("c2"));
        assert_eq!(follower.cursor(), Some("c2"));
        let resumed = request(&follower.from);
        assert_eq!(resumed.after_cursor, "c2");
        assert_eq!(resumed.start(), WatchStart::Unspecified);
    }

    #[tokio::test]
    async fn an_outage_is_told_once() {
        let mut follower = follower(Duration::from_mins(1));
        let gone = Status::unavailable("gone");
        assert!(follower.lose(&gone).is_ok_and(|new| new));
        assert!(follower.lose(&gone).is_ok_and(|new| !new));
        follower.take(message("c1"));
        assert!(follower.lose(&gone).is_ok_and(|new| new));
    }

    #[tokio::test]
    async fn without_patience_the_first_outage_ends_it() {
        assert!(follower(Duration::ZERO).lose(&Status::unavailable("gone")).is_err());
    }

    #[tokio::test]
    async fn a_refusal_ends_it() {
        let mut follower = follower(Duration::from_mins(1));
        assert!(follower.lose(&Status::out_of_range("gone")).is_err());
    }
}
