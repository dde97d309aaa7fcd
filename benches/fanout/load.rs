//! The load: tasks that are submitted, and the deliveries of their events.
//!
//! What is submitted runs ahead of the slowest watcher by a bounded number of events.
//! So the watchers set the pace, and none of them is ever so far behind that it has
//! to read history.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use taskyard::proto::v1::{
    SubmitBatchRequest, SubmitRequest, submit_request::Payload, submit_result,
    task_service_client::TaskServiceClient,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    crowd::{Crowd, Delivered},
    http2::Error,
    process::Usage,
};

/// Tasks of one batch, unless other is asked for: the events of one commit, and of one
/// message at least.
pub const BATCH: usize = 100;
/// As the service has it.
pub const MAX_BATCH: usize = 1_000;
/// From so many watchers on, the fan-out is the limit: one batch is submitted at a
/// time, so that both servers send the same messages.
const MANY: usize = 1_000;
/// Batches that are submitted at a time to fewer, whose limit is how fast tasks are
/// stored: several go into one commit.
const MAX_CALLS: usize = 8;
/// Deliveries that may be outstanding: some hundred megabytes in all buffers together.
const MAX_OUTSTANDING: usize = 2_000_000;
/// Batches that the slowest watcher may be behind: a fraction of those that a server
/// keeps for it.
const MAX_BEHIND: usize = 32;
/// Before it counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub per_second: f64,
    /// Tasks submitted in that time.
    pub tasks_per_second: f64,
    pub events_per_message: f64,
    pub bytes_per_event: f64,
    /// Processor time of the server for each delivery, if that is known.
    pub server_ns: Option<f64>,
    pub client_ns: Option<f64>,
}

/// Submits for `length`, as fast as the watchers read; then waits until all of them
/// have all of it.
pub async fn run(
    address: SocketAddr,
    server: u32,
    crowd: &mut Crowd,
    batch: usize,
    length: Duration,
) -> Result<Measured, Error> {
    let client = TaskServiceClient::connect(format!("http://{address}")).await?;
    let behind = (MAX_OUTSTANDING / crowd.watchers() / batch).clamp(2, MAX_BEHIND) as u64;
    let mut publisher = Publisher {
        client,
        calls: JoinSet::new(),
        max_calls: if crowd.watchers() < MANY { MAX_CALLS } else { 1 },
        batch,
        submitted: 0,
        ahead: behind * batch as u64,
    };
    publisher.publish(crowd, WARM_UP).await?;
    let (before, usage) = (crowd.delivered(), Usage::now(server));
    let began = Instant::now();
    publisher.publish(crowd, length).await?;
    let (after, used) = (crowd.delivered(), Usage::now(server));
    let took = began.elapsed();

    let events = publisher.finish().await?;
    crowd.until(|crowd| crowd.least() >= events, "watchers did not get all events").await?;
    // No more than all: then each has all, and its counter found no gap.
    if crowd.delivered().events != events * crowd.watchers() as u64 {
        return Err("watchers got more events than there are".into());
    }
    Ok(measured(before, after, took, usage.zip(used), crowd.watchers()))
}

#[expect(clippy::cast_precision_loss, reason = "counts of events")]
fn measured(
    before: Delivered,
    after: Delivered,
    took: Duration,
    usage: Option<(Usage, Usage)>,
    watchers: usize,
) -> Measured {
    let events = (after.events - before.events) as f64;
    let per_second = events / took.as_secs_f64();
    let nanos = |of: fn(Usage) -> Duration| {
        usage.map(|(before, after)| of(after).saturating_sub(of(before)).as_nanos() as f64 / events)
    };
    Measured {
        per_second,
        tasks_per_second: per_second / watchers as f64,
        events_per_message: events / (after.messages - before.messages) as f64,
        bytes_per_event: (after.bytes - before.bytes) as f64 / events,
        server_ns: nanos(|usage| usage.server),
        client_ns: nanos(|usage| usage.client),
    }
}

struct Publisher {
    client: TaskServiceClient<Channel>,
    calls: JoinSet<Result<(), Error>>,
    max_calls: usize,
    /// Tasks of each call.
    batch: usize,
    /// Tasks of all calls that were begun: each makes one event.
    submitted: u64,
    /// Events by which they may be ahead of the slowest watcher.
    ahead: u64,
}

impl Publisher {
    /// Submits for so long.
    async fn publish(&mut self, crowd: &mut Crowd, length: Duration) -> Result<(), Error> {
        let batch = self.batch as u64;
        let over = tokio::time::sleep(length);
        tokio::pin!(over);
        loop {
            crowd.check()?;
            while let Some(call) = self.calls.try_join_next() {
                call??;
            }
            while self.calls.len() < self.max_calls
                && self.submitted + batch <= crowd.least() + self.ahead
            {
                self.submitted += batch;
                self.calls.spawn(submit(self.client.clone(), self.batch));
            }
            tokio::select! {
                () = &mut over => return Ok(()),
                () = crowd.further() => {}
                Some(call) = self.calls.join_next() => call??,
            }
        }
    }

    /// Waits for the calls that were begun; returns the events of all.
    async fn finish(mut self) -> Result<u64, Error> {
        while let Some(call) = self.calls.join_next().await {
            call??;
        }
        Ok(self.submitted)
    }
}

async fn submit(mut client: TaskServiceClient<Channel>, batch: usize) -> Result<(), Error> {
    let payload = Some(Payload::Data(bytes::Bytes::from_static(b"nothing to do")));
    let task = SubmitRequest { kind: "noop".into(), payload, ..Default::default() };
    let request = SubmitBatchRequest { requests: vec![task; batch], atomic: true };
    let results = client.submit_batch(request).await?.into_inner().results;
    let is_taken = |result: &submit_result::Result| matches!(result, submit_result::Result::Ack(_));
    if results.len() != batch || !results.iter().flat_map(|result| &result.result).all(is_taken) {
        return Err(format!("tasks were refused: {results:?}").into());
    }
    Ok(())
}
