//! The load: a fixed number of calls in flight, for a fixed time.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{Stream, stream};
use taskyard::proto::v1::{
    SubmitRequest, SubmitStreamRequest, submit_ack, submit_request::Payload,
    task_service_client::TaskServiceClient,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tonic::{Status, transport::Channel};

/// Bytes of a task.
pub const PAYLOAD_BYTES: usize = 200;

/// Before it counts.
const WARM_UP: Duration = Duration::from_millis(500);

/// How the load is spread.
#[derive(Clone, Copy)]
pub struct Shape {
    pub connections: usize,
    pub in_flight: usize,
    /// The tasks go through one stream for each connection, not through calls.
    pub streamed: bool,
}

impl Shape {
    /// As it is asked for: `4x32`, or `stream2x4096`.
    pub fn name(self) -> String {
        let how = if self.streamed { "stream" } else { "" };
        format!("{how}{}x{}", self.connections, self.in_flight)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.streamed { ", streamed" } else { "" };
        write!(f, "{} × {}{how}", self.connections, self.in_flight)
    }
}

/// What came of it.
pub struct Measured {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Keeps calls in flight for `length`.
pub async fn run(
    address: SocketAddr,
    shape: Shape,
    length: Duration,
) -> Result<Measured, Box<dyn std::error::Error>> {
    let load = Load::default();
    let mut callers = load.begin(address, shape).await?;
    tokio::time::sleep(WARM_UP).await;
    load.counting.store(true, Ordering::Relaxed);
    let began = Instant::now();
    tokio::time::sleep(length).await;
    load.counting.store(false, Ordering::Relaxed);
    let took = began.elapsed();
    load.over.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    while let Some(caller) = callers.join_next().await {
        latencies.extend(caller??);
    }
    latencies.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
    let per_second = latencies.len() as f64 / took.as_secs_f64();
    Ok(Measured { per_second, p50: part(&latencies, 0.5), p99: part(&latencies, 0.99) })
}

/// The value below which this part of the sorted values lies; zero if there are none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place among them"
)]
pub fn part(sorted: &[Duration], part: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part) as usize).copied().unwrap_or_default()
}

/// Keeps tasks in flight for `length`; how many were acknowledged a second, in each `step` of it.
pub async fn rates(
    address: SocketAddr,
    shape: Shape,
    length: Duration,
    step: Duration,
) -> Result<Vec<f64>, Box<dyn std::error::Error>> {
    let load = Load::default();
    let mut callers = load.begin(address, shape).await?;
    let (began, mut rates) = (Instant::now(), Vec::new());
    while began.elapsed() < length {
        let (since, before) = (Instant::now(), load.answered.load(Ordering::Relaxed));
        tokio::time::sleep(step).await;
        let answered = load.answered.load(Ordering::Relaxed) - before;
        #[expect(clippy::cast_precision_loss, reason = "a count of tasks")]
        rates.push(answered as f64 / since.elapsed().as_secs_f64());
    }
    load.over.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(rates)
}

/// What all callers know of the load.
#[derive(Clone, Default)]
pub struct Load {
    /// Latencies are of interest.
    counting: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

impl Load {
    /// Tasks that were acknowledged.
    pub fn taken(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Lets the callers end.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Begins it: the callers go on until it is over.
    pub async fn begin(
        &self,
        address: SocketAddr,
        shape: Shape,
    ) -> Result<JoinSet<Result<Vec<Duration>, Status>>, Box<dyn std::error::Error>> {
        let mut callers = JoinSet::new();
        for _ in 0..shape.connections {
            let channel = Channel::from_shared(format!("http://{address}"))?;
            let channel = channel.tcp_nodelay(true).connect().await?;
            let client = TaskServiceClient::new(channel);
            if shape.streamed {
                callers.spawn(stream(client, shape.in_flight, self.clone()));
                continue;
            }
            for _ in 0..shape.in_flight {
                callers.spawn(call(client.clone(), self.clone()));
            }
        }
        Ok(callers)
    }
}

/// What is submitted.
pub fn task() -> SubmitRequest {
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    SubmitRequest {
        kind: "noop".into(),
        payload: Some(Payload::Data(payload)),
        ..Default::default()
    }
}

/// Keeps requests of one stream in flight.
async fn stream(
    mut client: TaskServiceClient<Channel>,
    in_flight: usize,
    load: Load,
) -> Result<Vec<Duration>, Status> {
    let (places, task) = (Arc::new(Semaphore::new(in_flight)), task());
    let (sent, mut waiting) = mpsc::channel(in_flight);
    let (room, ends) = (Arc::clone(&places), Arc::clone(&load.over));
    let requests = requests(room, ends, sent, task);
    let mut acks = client.submit_stream(requests).await?.into_inner();
    let mut latencies = Vec::new();
    while let Some(answer) = acks.message().await? {
        places.add_permits(answer.acks.len());
        load.answered.fetch_add(answer.acks.len() as u64, Ordering::Relaxed);
        let counts = load.counting.load(Ordering::Relaxed);
        for ack in answer.acks {
            let Some(submit_ack::Result::Ack(_)) = ack.result else {
                return Err(Status::internal(format!("{ack:?}")));
            };
            let began: Instant =
                waiting.recv().await.ok_or_else(|| Status::internal("an ack too many"))?;
            if counts {
                latencies.push(began.elapsed());
            }
        }
    }
    Ok(latencies)
}

/// Requests, each when there is room for it in flight, until the load is over.
fn requests(
    room: Arc<Semaphore>,
    over: Arc<AtomicBool>,
    sent: mpsc::Sender<Instant>,
    task: SubmitRequest,
) -> impl Stream<Item = SubmitStreamRequest> + Send + 'static {
    stream::unfold((room, over, sent, task, 0), |(room, over, sent, task, sequence)| async move {
        room.acquire().await.ok()?.forget();
        if over.load(Ordering::Relaxed) {
            return None;
        }
        sent.send(Instant::now()).await.ok()?;
        let request = SubmitStreamRequest { sequence, request: Some(task.clone()) };
        Some((request, (room, over, sent, task, sequence + 1)))
    })
}

async fn call(mut client: TaskServiceClient<Channel>, load: Load) -> Result<Vec<Duration>, Status> {
    let task = task();
    let mut latencies = Vec::new();
    while !load.over.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.submit(task.clone()).await?;
        load.answered.fetch_add(1, Ordering::Relaxed);
        if load.counting.load(Ordering::Relaxed) {
            latencies.push(began.elapsed());
        }
    }
    Ok(latencies)
}
