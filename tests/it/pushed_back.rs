//! Clients that send more than the server takes: flow control holds them up, whatever the
//! size of their messages, and their connection goes on for whatever else is on it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest};
use http::Request;
use prost::Message as _;
use taskyard::proto::v1::{
    EventType, SubmitRequest, SubmitStreamRequest, submit_ack, submit_request::Payload,
};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tonic::{Code, Status};

use crate::support::{
    Gate, PATIENCE, TestServer, Watch, builtin, reason, submit, task,
    wire::{SUBMIT, framed},
};

const STREAM: &str = "/taskyard.v1.TaskService/SubmitStream";
const WATCH: &str = "/taskyard.v1.TaskService/WatchEvents";

/// A connection of HTTP/2 whose client does nothing clever.
struct Bare {
    send: SendRequest<Bytes>,
    address: SocketAddr,
}

impl Bare {
    async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        // Answers that are not read must not take the room of those that are.
        let mut builder = h2::client::Builder::new();
        let builder = builder.initial_connection_window_size(16 << 20);
        let (send, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { send, address }
    }

    async fn begin(&mut self, path: &str) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let request = Request::post(format!("http://{}{path}", self.address));
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        self.send.clone().ready().await.unwrap().send_request(request, false).unwrap()
    }

    /// A call with one message; answers with what comes back.
    async fn call(&mut self, path: &str, message: &[u8]) -> Result<RecvStream, h2::Error> {
        let (response, mut out) = self.begin(path).await;
        out.send_data(framed(message), true)?;
        Ok(timeout(PATIENCE, response).await.expect("no answer")?.into_body())
    }
}

/// Sends `message` in a frame of its own, over and over, as the window has room.
async fn send_all(mut out: SendStream<Bytes>, message: Bytes, sent: Arc<AtomicUsize>) {
    loop {
        out.reserve_capacity(message.len());
        while out.capacity() < message.len() {
            match std::future::poll_fn(|cx| out.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                _ => return,
            }
        }
        if out.send_data(message.clone(), false).is_err() {
            return;
        }
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// `streams` streams of `message` on one connection, until none of them gets on; then the
/// connection must be as good as new.
async fn holds_up(test_server: &TestServer, streams: usize, message: Bytes) {
    let mut bare = Bare::connect(test_server.server.local_addr()).await;
    let mut watch = bare.call(WATCH, b"").await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let (mut senders, mut answers) = (JoinSet::new(), Vec::new());
    for _ in 0..streams {
        let (response, out) = bare.begin(STREAM).await;
        // Begun, and never read.
        answers.push(timeout(PATIENCE, response).await.unwrap().unwrap());
        senders.spawn(send_all(out, message.clone(), Arc::clone(&sent)));
    }
    // Each call is answered after what was sent before it was received.
    let (mut before, mut unchanged) = (0, 0);
    while unchanged < 20 {
        if let Err(error) = bare.call(SUBMIT, b"").await {
            panic!("{} bytes each: {error}", message.len());
        }
        let now = sent.load(Ordering::Relaxed);
        unchanged = if now == before && now > 0 { unchanged + 1 } else { 0 };
        before = now;
    }
    assert_eq!(senders.len(), streams, "{} bytes each", message.len());
    // What else is on the connection goes on: the events of a task come.
    let mut client = test_server.client().await;
    let other = SubmitRequest { queue: "other".into(), ..task("noop") };
    submit(&mut client, other).await;
    let told = async {
        let mut seen = Vec::new();
        while !seen.windows(5).any(|bytes| bytes == b"other") {
            let data = watch.data().await.expect("the watch ends").expect("the watch breaks");
            watch.flow_control().release_capacity(data.len()).unwrap();
            seen.extend_from_slice(&data);
        }
    };
    timeout(PATIENCE, told).await.expect("the watch is held up, too");
    senders.abort_all();
}

fn request(bytes: usize) -> Bytes {
    let payload = (bytes > 0).then(|| Payload::Data(vec![7; bytes].into()));
    let request = Some(SubmitRequest { payload, ..task("gated") });
    framed(&SubmitStreamRequest { sequence: 0, request }.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_streams_into_a_full_queue_keeps_the_connection_with_messages_of_any_size() {
    for bytes in [0, 1, 100, 220, 256, 300] {
        let (gate, mut registry) = (Gate::default(), builtin());
        registry.insert("gated", gate.clone());
        let tight = |config: &mut taskyard::config::Config| config.queue_max_tasks = 100;
        let test_server = TestServer::with(tight, registry).await;
        holds_up(&test_server, 16, request(bytes)).await;
        gate.open();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_acknowledgements_keeps_the_connection() {
    // The smallest message there is, which is refused at once.
    holds_up(&TestServer::start().await, 16, framed(b"")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_a_bounded_number_of_streams() {
    let test_server = TestServer::start().await;
    let mut bare = Bare::connect(test_server.server.local_addr()).await;
    let mut open = Vec::new();
    for _ in 0..32 {
        let (response, out) = bare.begin(STREAM).await;
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        assert!(Status::from_header_map(response.headers()).is_none(), "it is refused");
        open.push((response, out));
    }
    let (response, mut out) = bare.begin(STREAM).await;
    // What its client sends meanwhile harms nobody.
    let _ = out.send_data(request(0), false);
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    let status = Status::from_header_map(response.headers()).expect("it is refused");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&status), "TOO_MANY_STREAMS");
    // One that ends makes room.
    let (response, mut out) = open.pop().unwrap();
    out.send_data(Bytes::new(), true).unwrap();
    let mut rest = response.into_body();
    while let Some(data) = timeout(PATIENCE, rest.data()).await.unwrap() {
        data.unwrap();
    }
    let (response, _out) = bare.begin(STREAM).await;
    let response = timeout(PATIENCE, response).await.unwrap().unwrap();
    assert!(Status::from_header_map(response.headers()).is_none(), "it is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_streams_a_hundred_times_what_the_queue_holds() {
    const TASKS: u64 = 10_000;
    let tight = |config: &mut taskyard::config::Config| config.queue_max_tasks = 100;
    let test_server = TestServer::with(tight, builtin()).await;
    let mut client = test_server.client().await;
    // On the same connection.
    let mut watch = Watch::live(&mut client.clone()).await;
    let requests = tokio_stream::iter((0..TASKS).map(|sequence| {
        let request = SubmitRequest { queue: "small".into(), ..task("noop") };
        SubmitStreamRequest { sequence, request: Some(request) }
    }));
    let mut acks = client.submit_stream(requests).await.unwrap().into_inner();
    let mut taken = 0;
    while let Some(message) = timeout(PATIENCE, acks.message()).await.unwrap().unwrap() {
        for ack in message.acks {
            assert_eq!(ack.sequence, taken);
            assert!(matches!(ack.result, Some(submit_ack::Result::Ack(_))), "{ack:?}");
            taken += 1;
        }
    }
    assert_eq!(taken, TASKS);
    for _ in 0..TASKS {
        watch.until(EventType::Succeeded).await;
    }
}
