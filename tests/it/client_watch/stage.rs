//! A server that follows a script, over pipes in memory, and words for what is seen of it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::ready,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use taskyard::{
    client::{Client, Seen, Watch, Watcher},
    proto::v1::{
        Event, EventType, SubmitRequest, WatchCaughtUp, WatchEventsRequest, WatchEventsResponse,
        WatchStarted, watch_events_response::Control,
    },
};
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    server::{NamedService, ServerStreamingService},
    transport::{Endpoint, Uri},
};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How one stream of the server goes.
pub enum Act {
    /// Sends these, and ends like that.
    Say(Vec<WatchEventsResponse>, End),
    /// Refuses the call.
    Refuse(Status),
    /// Does not answer at all.
    Ignore,
}

pub enum End {
    Status(Status),
    Later(Duration, Status),
    Clean,
    Silence,
}

pub type Script = Arc<Mutex<VecDeque<Act>>>;
pub type Asked = Arc<Mutex<Vec<WatchEventsRequest>>>;

/// A server that plays one act for each call, and notes what it was asked.
#[derive(Clone, Default)]
pub struct Stage {
    pub script: Script,
    pub asked: Asked,
    pub submitted: Arc<Mutex<Vec<String>>>,
}

impl NamedService for Stage {
    const NAME: &'static str = "taskyard.v1.TaskService";
}

impl tower::Service<http::Request<Body>> for Stage {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let stage = self.clone();
        Box::pin(async move {
            if request.uri().path().ends_with("/SubmitAndWatch") {
                let codec = tonic_prost::ProstCodec::default();
                return Ok(tonic::server::Grpc::new(codec)
                    .server_streaming(Submissions(stage), request)
                    .await);
            }
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).server_streaming(stage, request).await)
        })
    }
}

pub type Messages = BoxStream<'static, Result<WatchEventsResponse, Status>>;

impl ServerStreamingService<WatchEventsRequest> for Stage {
    type Response = WatchEventsResponse;
    type ResponseStream = Messages;
    type Future = BoxFuture<'static, Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<WatchEventsRequest>) -> Self::Future {
        self.asked.lock().unwrap().push(request.into_inner());
        self.play()
    }
}

/// The same for `SubmitAndWatch`, of which the `request_id` is noted.
pub struct Submissions(Stage);

impl ServerStreamingService<SubmitRequest> for Submissions {
    type Response = WatchEventsResponse;
    type ResponseStream = Messages;
    type Future = BoxFuture<'static, Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<SubmitRequest>) -> Self::Future {
        self.0.submitted.lock().unwrap().push(request.into_inner().request_id);
        self.0.play()
    }
}

impl Stage {
    fn play(&self) -> BoxFuture<'static, Result<Response<Messages>, Status>> {
        let act = self.script.lock().unwrap().pop_front();
        let (messages, end) = match act {
            Some(Act::Say(messages, end)) => (messages, end),
            Some(Act::Refuse(status)) => return Box::pin(ready(Err(status))),
            Some(Act::Ignore) => return Box::pin(std::future::pending()),
            None => return Box::pin(ready(Err(Status::not_found("the script is over")))),
        };
        let said = stream::iter(messages.into_iter().map(Ok));
        let end: BoxStream<_> = match end {
            End::Status(status) => stream::iter([Err(status)]).boxed(),
            End::Later(rest, status) => stream::once(async move {
                tokio::time::sleep(rest).await;
                Err(status)
            })
            .boxed(),
            End::Clean => stream::empty().boxed(),
            End::Silence => stream::pending().boxed(),
        };
        Box::pin(ready(Ok(Response::new(said.chain(end).boxed()))))
    }
}

/// Watches on a stage with this script.
pub fn watch(watch: Watch, script: impl IntoIterator<Item = Act>) -> (Watcher, Asked) {
    let (client, stage) = connect(script);
    (client.watch(watch), stage.asked)
}

pub fn connect(script: impl IntoIterator<Item = Act>) -> (Client, Stage) {
    let script = Arc::new(Mutex::new(script.into_iter().collect()));
    let stage = Stage { script, ..Stage::default() };
    let (accept, accepted) = mpsc::channel::<Result<DuplexStream, std::io::Error>>(4);
    let server = tonic::transport::Server::builder()
        .add_service(stage.clone())
        .serve_with_incoming(ReceiverStream::new(accepted));
    tokio::spawn(server);
    let connector = tower::service_fn(move |_: Uri| {
        let accept = accept.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            accept.send(Ok(theirs)).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(ours))
        }
    });
    let channel = Endpoint::from_static("http://stage").connect_with_connector_lazy(connector);
    (Client::over(channel), stage)
}

pub fn says<const N: usize>(messages: [WatchEventsResponse; N], end: Status) -> Act {
    Act::Say(messages.into(), End::Status(end))
}

pub fn control(cursor: &str, control: Control) -> WatchEventsResponse {
    WatchEventsResponse { cursor: cursor.into(), control: Some(control), ..Default::default() }
}

pub fn started(cursor: &str) -> WatchEventsResponse {
    control(cursor, Control::Started(WatchStarted::default()))
}

pub fn caught_up(cursor: &str) -> WatchEventsResponse {
    control(cursor, Control::CaughtUp(WatchCaughtUp {}))
}

pub fn event(cursor: &str, seq: u64) -> WatchEventsResponse {
    let event = Event { seq, ..Event::default() };
    WatchEventsResponse { cursor: cursor.into(), events: vec![event], control: None }
}

/// The event that ends a task.
pub fn ended(cursor: &str, seq: u64) -> WatchEventsResponse {
    let event = Event { seq, r#type: EventType::Succeeded.into(), ..Event::default() };
    WatchEventsResponse { cursor: cursor.into(), events: vec![event], control: None }
}

pub fn gone() -> Status {
    Status::unavailable("gone")
}

pub fn refused() -> Status {
    Status::not_found("no more")
}

pub fn with_reason(code: Code, reason: &str) -> Status {
    Status::with_error_details(code, "", ErrorDetails::with_error_info(reason, "taskyard", []))
}

/// What is seen, a word each, to the end; and the end.
pub async fn words(watcher: &mut Watcher) -> (Vec<String>, Option<Code>) {
    let mut words = Vec::new();
    loop {
        words.push(match watcher.next().await {
            Ok(None) => return (words, None),
            Err(status) => return (words, Some(status.code())),
            Ok(Some(seen)) => match seen {
                Seen::Events(batch) => format!("event {}", batch.events[0].seq),
                Seen::Snapshot { tasks, .. } => format!("snapshot {}", tasks[0].task_id),
                Seen::Gap(gap) => format!("gap {}", gap.missing_events),
                Seen::Lost(status) => format!("lost {}", status.message()),
                Seen::Submitted(submitted) => format!("submitted {}", submitted.task_id),
                other => format!("{other:?}"),
            },
        });
    }
}

pub fn after(asked: &Asked) -> Vec<String> {
    asked.lock().unwrap().iter().map(|request| request.after_cursor.clone()).collect()
}
