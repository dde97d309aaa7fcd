//! What fan-out costs without sockets: the services are called in this process, and
//! their responses drained, one after the other, on one thread.
//!
//! So the time of one batch is the server's own: the broadcast, the watcher, the
//! message, its encoding, and its frame.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf as _, BytesMut};
use http_body::Body as _;
use taskyard::{
    admission::{Admission, Limits},
    config::{Config, Durability},
    drain::Switch,
    event::{Event, EventType, Seq, Subject},
    events::{self, CursorCodec, Encoder, EventBatch, History, Incarnation, Publisher, Unreadable},
    grpc::{
        self, Admin, Feed, Health, Middleware, Rules, Service, ShutdownTokens, Sources, Submitter,
        WatchLimits, WatchSettings, Watchers,
    },
    handler::Registry,
    pool::{self, WorkerPool},
    store::{self, Store, WallClock},
    supervisor::Supervisor,
    task::{TaskId, Timestamp},
};
use tonic::{body::Body, service::Routes};

use crate::{http2::Error, naive::Naive, servers::Kind};

/// Watchers beside a single one.
pub const WATCHERS: usize = 1_000;

/// What a batch costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// To one watcher alone.
    pub alone: Duration,
    /// To each of many, beyond the first.
    pub additional: Duration,
}

impl Cost {
    /// Deliveries to many watchers, on one thread, of batches of so many events.
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    pub fn per_second(self, batch: usize) -> f64 {
        batch as f64 / self.additional.as_secs_f64()
    }
}

/// Measures one server with batches of so many events, for `length` in all.
pub async fn cost(kind: Kind, batch: usize, length: Duration) -> Result<Cost, Error> {
    let mut times = [Duration::ZERO; 2];
    for (time, watchers) in times.iter_mut().zip([1, WATCHERS]) {
        *time = match kind {
            Kind::Naive => {
                let naive = Naive::new();
                let publish = || naive.publish((0..batch).map(|_| "noop".to_owned()));
                time_of_a_batch(naive.clone(), publish, (watchers, batch), length / 2).await?
            }
            Kind::Taskyard => {
                let (service, mut source, store) = taskyard_service().await?;
                let publish = || source.publish(batch);
                let time = time_of_a_batch(service, publish, (watchers, batch), length / 2).await;
                drop(store.close().await);
                time?
            }
        };
    }
    let [alone, all] = times;
    let beyond = u32::try_from(WATCHERS - 1)?;
    Ok(Cost { alone, additional: all.saturating_sub(alone) / beyond })
}

/// What it takes to copy the bytes of such a batch into a new buffer.
pub fn time_of_a_copy(batch: usize, length: Duration) -> Duration {
    let mut encoder = Encoder::new(Seq(1_000_000));
    push_batch(&mut encoder, batch);
    let batches = encoder.take_all();
    let began = Instant::now();
    let mut copies = 0;
    while began.elapsed() < length {
        for _ in 0..100 {
            let mut copy = BytesMut::with_capacity(64 << 10);
            for batch in &batches {
                copy.extend_from_slice(batch.data());
            }
            std::hint::black_box(&copy);
            copies += 1;
        }
    }
    began.elapsed() / copies
}

/// The mean time in which a batch is published and has come out of all responses.
async fn time_of_a_batch<S>(
    mut service: S,
    mut publish: impl FnMut(),
    (watchers, batch): (usize, usize),
    length: Duration,
) -> Result<Duration, Error>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error: std::fmt::Debug>,
{
    let mut responses = Vec::with_capacity(watchers);
    for _ in 0..watchers {
        // One message without fields.
        let message = Body::new("\0\0\0\0\0".to_owned());
        let request = http::Request::post("http://localhost/taskyard.v1.TaskService/WatchEvents")
            .header("content-type", "application/grpc")
            .body(message)?;
        let response = service.call(request).await.map_err(|error| format!("{error:?}"))?;
        responses.push(response.into_body());
    }
    drain(&mut responses).await?;
    let (began, mut batches, mut bytes) = (Instant::now(), 0, 0);
    while began.elapsed() < length {
        publish();
        bytes += drain(&mut responses).await?;
        batches += 1;
    }
    let took = began.elapsed();
    // An event has more than 32 bytes: fewer would be fewer events.
    if bytes < batches as usize * watchers * batch * 32 {
        return Err("watchers did not get all events".into());
    }
    Ok(took / batches)
}

/// Reads whatever the responses have, without waiting; returns its bytes.
async fn drain(responses: &mut [Body]) -> Result<usize, Error> {
    // Whoever is not ready is asked again after the next batch, so nobody needs to be
    // woken; and nothing else runs on this thread, so nobody need give way.
    let drained = poll_fn(|_| {
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = 0;
        for response in &mut *responses {
            while let Poll::Ready(frame) = Pin::new(&mut *response).poll_frame(&mut cx) {
                let frame = frame.ok_or("a watch has ended")?;
                let data = frame?.into_data().map_err(|_| "a watch has ended, or was refused")?;
                bytes += data.remaining();
            }
        }
        Poll::Ready(Ok(bytes))
    });
    tokio::task::unconstrained(drained).await
}

/// The store's end of the events, without a store.
struct Source {
    publisher: Publisher,
    encoder: Encoder,
}

impl Source {
    fn publish(&mut self, batch: usize) {
        push_batch(&mut self.encoder, batch);
        for batch in self.encoder.take_all() {
            self.publisher.publish(batch);
        }
    }
}

fn push_batch(encoder: &mut Encoder, batch: usize) {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let time = Timestamp(i64::try_from(micros).unwrap_or_default());
    for _ in 0..batch {
        let id = TaskId::new(encoder.newest().0, 0x1234_5678);
        let task = Subject { id, queue: "default", kind: "noop", attempt: 0, labels: &[] };
        encoder.push(&Event::new(EventType::Submitted, time, Some(task)));
    }
}

/// Nobody is ever behind.
struct NoHistory;

impl History for NoHistory {
    fn read(
        &self,
        _after: Seq,
        _max_bytes: usize,
    ) -> events::BoxFuture<'_, Result<Vec<EventBatch>, Unreadable>> {
        Box::pin(async { Err(Unreadable::Broken("there is no history".into())) })
    }
}

/// All services as they are served, above a store that stays empty and events that
/// come from elsewhere.
async fn taskyard_service() -> Result<(Middleware<Routes>, Source, Arc<Store>), Error> {
    let config = Config { workers: 1.try_into()?, ..Config::default() };
    let admission = Arc::new(Admission::new(Limits {
        queue_config: config.queue_config(),
        queues: config.max_queues,
        room_timeout: config.room_timeout,
    }));
    let settings = store::Settings {
        data_dir: config.data_dir.clone(),
        durability: Durability::Memory,
        max_crashes: config.max_crashes,
        disk_reserve: config.disk_reserve,
        retention: config.retention,
        clock: WallClock::default(),
        max_log: config.max_log,
        accept_loss: false,
    };
    let (store, ..) = store::open(&settings, Arc::clone(&admission)).await?;
    let registry = Arc::new(Registry::default());
    let pool = WorkerPool::start(
        &store,
        &registry,
        pool::Settings {
            workers: config.workers,
            cancel_grace: config.cancel_grace,
            max_result: config.max_result,
        },
        &Supervisor::default(),
    )?;
    let incarnations = vec![Incarnation { mark: 1, first: Seq(1) }];
    let (publisher, hub) = events::hub(Seq(0), CursorCodec::new(1, incarnations));
    let feed = Feed { hub: hub.clone(), history: Arc::new(NoHistory) };
    let sources = Sources { feed, store: Arc::clone(&store), pool: pool.clone() };
    let limits = WatchLimits { watchers: WATCHERS, per_connection: WATCHERS, per_peer: WATCHERS };
    let settings = WatchSettings {
        limits,
        heartbeat: config.heartbeat,
        stall_timeout: Some(config.watch_stall_timeout),
        lifetime: None,
    };
    let watchers = Watchers::new(sources, settings, &Supervisor::default());
    let rules = Rules { max_payload: config.max_payload };
    let submitter =
        Submitter::new(Arc::clone(&store), Arc::clone(&admission), registry, hub, rules);
    let admin =
        Admin::new(Arc::clone(&store), admission, pool, watchers.clone(), Switch::default());
    let shutdown = ShutdownTokens::default();
    let service = Service::new(Arc::clone(&store), submitter, watchers, shutdown.clone());
    let routes = grpc::routes(service, admin, Health::serving(), &shutdown, config.max_message)?;
    Ok((routes, Source { publisher, encoder: Encoder::new(Seq(0)) }, store))
}
