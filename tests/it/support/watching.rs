//! Watches as their messages come, for tests of how they begin and end.

use std::time::{Duration, Instant};

use taskyard::proto::v1::{
    ListWatchersRequest, SubmitRequest, SubmitResponse, WatchEventsRequest, WatchEventsResponse,
    Watcher, task_service_client::TaskServiceClient,
};
use tonic::{Status, Streaming, transport::Endpoint};
use tonic_types::StatusExt as _;

use super::{Client, PATIENCE, TestServer, submit, task};

pub async fn next(
    stream: &mut Streaming<WatchEventsResponse>,
) -> Result<Option<WatchEventsResponse>, Status> {
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("the watch hangs")
}

pub async fn begin(
    client: &mut Client,
    request: WatchEventsRequest,
) -> Streaming<WatchEventsResponse> {
    client.watch_events(request).await.expect("a watch").into_inner()
}

pub async fn watchers(test_server: &TestServer) -> Vec<Watcher> {
    let mut admin = test_server.admin().await;
    admin.list_watchers(ListWatchersRequest {}).await.unwrap().into_inner().watchers
}

/// Asks again until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn cursor_of(status: &Status, key: &str) -> String {
    status.get_details_error_info().unwrap().metadata[key].clone()
}

/// The messages to the end of the stream, and how it ended.
pub async fn rest(
    stream: &mut Streaming<WatchEventsResponse>,
) -> (Vec<WatchEventsResponse>, Status) {
    let mut messages = Vec::new();
    loop {
        match next(stream).await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => panic!("it ended well"),
            Err(status) => return (messages, status),
        }
    }
}

/// Submits many at a time.
pub async fn submit_all(client: &Client, tasks: Vec<SubmitRequest>) -> Vec<SubmitResponse> {
    let mut submitters = tokio::task::JoinSet::new();
    for task in tasks {
        let mut client = client.clone();
        submitters.spawn(async move { submit(&mut client, task).await });
    }
    submitters.join_all().await
}

/// A task whose events are large.
pub fn heavy() -> SubmitRequest {
    let label = |at| (format!("label-{at}"), "x".repeat(255));
    SubmitRequest { labels: (0..16).map(label).collect(), ..task("noop") }
}

/// A client on a connection of its own, which takes no more than it must: of each
/// stream that is not read, 64 KiB.
pub async fn narrow(test_server: &TestServer) -> Client {
    narrower(test_server, 65_535).await
}

/// The same, with this many bytes of each stream.
pub async fn narrower(test_server: &TestServer, bytes: u32) -> Client {
    let endpoint =
        Endpoint::try_from(format!("http://{}", test_server.server.local_addr())).unwrap();
    let endpoint = endpoint.initial_stream_window_size(bytes);
    TaskServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(8 << 20)
}
