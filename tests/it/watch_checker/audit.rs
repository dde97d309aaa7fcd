//! One reader that sees every event: directly from the server, without a rest.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use taskyard::{
    client::is_lost,
    proto::v1::{Event, WatchEventsRequest, WatchStart},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{support::PATIENCE, watch_checker::load::client};

/// The reader.
pub struct Auditor(JoinHandle<Vec<Event>>);

/// How many events have happened, as far as the auditor knows: at least so many.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Auditor {
    /// Reads from the first event to that with the number which `finished` will tell.
    pub fn begin(
        address: SocketAddr,
        count: Count,
        finished: watch::Receiver<Option<u64>>,
    ) -> Self {
        Self(tokio::spawn(read(address, count, finished)))
    }

    /// All events.
    pub async fn end(self) -> Vec<Event> {
        let audit = tokio::time::timeout(PATIENCE, self.0).await;
        audit.expect("the auditor does not get to the last event").expect("the audit holds")
    }
}

async fn read(
    address: SocketAddr,
    count: Count,
    mut finished: watch::Receiver<Option<u64>>,
) -> Vec<Event> {
    let client = client(address);
    let mut events: Vec<Event> = Vec::new();
    let mut cursor = String::new();
    loop {
        let start = if cursor.is_empty() { WatchStart::Oldest } else { WatchStart::Unspecified };
        let request = WatchEventsRequest {
            after_cursor: cursor.clone(),
            start: start.into(),
            ..WatchEventsRequest::default()
        };
        let mut stream = match client.tasks().watch_events(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                assert!(is_lost(&status), "the auditor was refused: {status:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        loop {
            let is_complete =
                |last: Option<u64>| last.is_some_and(|last| events.len() as u64 >= last);
            if is_complete(*finished.borrow()) {
                return events;
            }
            let message = tokio::select! {
                message = stream.message() => message,
                Ok(()) = finished.changed() => continue,
            };
            let Ok(Some(message)) = message else { break };
            for event in message.events {
                assert_eq!(event.seq, events.len() as u64 + 1, "what was seen was taken back");
                events.push(event);
            }
            count.0.store(events.len() as u64, Ordering::Relaxed);
            cursor = message.cursor;
        }
    }
}
