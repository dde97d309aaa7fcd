//! What one would write first: a broadcast of events, and each watcher encodes them
//! for itself. The messages are those of Taskyard, field by field.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use taskyard::proto::v1::{
    Event, EventType, SubmitBatchRequest, SubmitBatchResponse, SubmitResponse, SubmitResult,
    TaskState, WatchEventsRequest, WatchEventsResponse, WatchStarted, submit_result,
    watch_events_response::Control,
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status, body::Body, server::NamedService};

/// As many as Taskyard keeps.
const BROADCAST_BATCHES: usize = 128;

/// As long as a real one of a store with some hundred thousand events.
const CURSOR: &str = "c4k2j9xf7q2m1c2k4";

/// The server.
#[derive(Clone)]
pub struct Naive {
    sender: broadcast::Sender<Arc<Vec<Event>>>,
    /// Held while events are numbered and sent, so that they are in order.
    newest: Arc<Mutex<u64>>,
}

impl Naive {
    pub fn new() -> Self {
        Self { sender: broadcast::channel(BROADCAST_BATCHES).0, newest: Arc::default() }
    }

    /// One event for each task, to all watchers.
    pub fn publish(&self, kinds: impl Iterator<Item = String>) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let time = Some(prost_types::Timestamp::from(SystemTime::now()));
        let event = |kind| {
            *newest += 1;
            Event {
                seq: *newest,
                time,
                r#type: EventType::Submitted.into(),
                task_id: "t1c2k5zq8x5kd7".into(),
                queue: "default".into(),
                kind,
                ..Event::default()
            }
        };
        let batch = kinds.map(event).collect();
        // Nobody may be listening.
        drop(self.sender.send(Arc::new(batch)));
    }
}

impl NamedService for Naive {
    const NAME: &'static str = "taskyard.v1.TaskService";
}

impl tower::Service<http::Request<Body>> for Naive {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let naive = self.clone();
        Box::pin(async move {
            if request.uri().path().ends_with("/WatchEvents") {
                let codec = tonic_prost::ProstCodec::default();
                return Ok(tonic::server::Grpc::new(codec).server_streaming(naive, request).await);
            }
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(naive, request).await)
        })
    }
}

impl tonic::server::UnaryService<SubmitBatchRequest> for Naive {
    type Response = SubmitBatchResponse;
    type Future = Ready<Result<Response<SubmitBatchResponse>, Status>>;

    fn call(&mut self, request: Request<SubmitBatchRequest>) -> Self::Future {
        let requests = request.into_inner().requests;
        let result = |_| SubmitResult {
            result: Some(submit_result::Result::Ack(SubmitResponse {
                task_id: "t1c2k5zq8x5kd7".into(),
                cursor: CURSOR.into(),
                state: TaskState::Queued.into(),
                existing: false,
            })),
        };
        let results = requests.iter().map(result).collect();
        self.publish(requests.into_iter().map(|request| request.kind));
        ready(Ok(Response::new(SubmitBatchResponse { results })))
    }
}

impl tonic::server::ServerStreamingService<WatchEventsRequest> for Naive {
    type Response = WatchEventsResponse;
    type ResponseStream = BoxStream<'static, Result<WatchEventsResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _: Request<WatchEventsRequest>) -> Self::Future {
        let events = BroadcastStream::new(self.sender.subscribe()).map(|batch| {
            // One that is behind has lost events, and is told.
            let batch = batch.map_err(|lagged| Status::data_loss(lagged.to_string()))?;
            let events = Vec::clone(&batch);
            Ok(WatchEventsResponse { cursor: CURSOR.into(), events, control: None })
        });
        let started = WatchStarted { newest_cursor: CURSOR.into() };
        let first = WatchEventsResponse {
            cursor: CURSOR.into(),
            control: Some(Control::Started(started)),
            ..Default::default()
        };
        ready(Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(events)))))
    }
}
