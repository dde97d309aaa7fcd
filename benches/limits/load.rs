//! The load: a fixed number of calls in flight, for a fixed time.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use taskyard::proto::v1::{
    SubmitRequest, submit_request::Payload, task_service_client::TaskServiceClient,
};
use tokio::task::JoinSet;
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
}

impl Shape {
    /// As it is asked for: `4x32`.
    pub fn name(self) -> String {
        format!("{}x{}", self.connections, self.in_flight)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.connections, self.in_flight)
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
    let counting = Arc::new(AtomicBool::new(false));
    let over = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..shape.connections {
        let channel =
            Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?;
        for _ in 0..shape.in_flight {
            let client = TaskServiceClient::new(channel.clone());
            callers.spawn(call(client, Arc::clone(&counting), Arc::clone(&over)));
        }
    }
    tokio::time::sleep(WARM_UP).await;
    counting.store(true, Ordering::Relaxed);
    let began = Instant::now();
    tokio::time::sleep(length).await;
    counting.store(false, Ordering::Relaxed);
    let took = began.elapsed();
    over.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    while let Some(caller) = callers.join_next().await {
        latencies.extend(caller??);
    }
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    #[expect(clippy::cast_precision_loss, reason = "a count of calls")]
    let per_second = latencies.len() as f64 / took.as_secs_f64();
    Ok(Measured { per_second, p50: at(50), p99: at(99) })
}

async fn call(
    mut client: TaskServiceClient<Channel>,
    counting: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
) -> Result<Vec<Duration>, Status> {
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut latencies = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let task = SubmitRequest {
            kind: "noop".into(),
            payload: Some(Payload::Data(payload.clone())),
            ..Default::default()
        };
        let began = Instant::now();
        client.submit(task).await?;
        if counting.load(Ordering::Relaxed) {
            latencies.push(began.elapsed());
        }
    }
    Ok(latencies)
}
