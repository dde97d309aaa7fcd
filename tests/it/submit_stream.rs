//! Tasks over a stream: in order, each with its result, as fast as there is room.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use prost::Message as _;
use taskyard::{
    config::Config,
    proto::v1::{
        EventType, ListTasksRequest, SubmitAck, SubmitRequest, SubmitStreamRequest,
        SubmitStreamResponse, submit_ack::Result as Outcome, submit_request::Payload,
    },
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tonic_types::RpcStatusExt as _;

use crate::support::{
    self, Client, Gate, PATIENCE, TestServer, Watch, builtin, count, full_test_server, pause,
    queue, reason, reject, resume, submit, task, until_in_line,
    wire::{call, framed},
};

const PATH: &str = "/taskyard.v1.TaskService/SubmitStream";

/// A stream, as a client keeps it.
struct Stream {
    requests: mpsc::Sender<SubmitStreamRequest>,
    acks: Acks,
}

struct Acks {
    messages: Streaming<SubmitStreamResponse>,
    ready: std::collections::VecDeque<SubmitAck>,
}

impl Stream {
    async fn begin(client: &mut Client) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        let call = client.submit_stream(ReceiverStream::new(outgoing));
        Self { requests, acks: Acks::of(call.await.expect("the stream begins").into_inner()) }
    }

    async fn send(&self, sequence: u64, request: SubmitRequest) {
        let request = SubmitStreamRequest { sequence, request: Some(request) };
        self.requests.send(request).await.expect("the stream is open");
    }
}

impl Acks {
    fn of(messages: Streaming<SubmitStreamResponse>) -> Self {
        Self { messages, ready: [].into() }
    }

    /// The next acknowledgement; `None` at a good end.
    async fn next(&mut self) -> Result<Option<SubmitAck>, Status> {
        while self.ready.is_empty() {
            let message = tokio::time::timeout(PATIENCE, self.messages.message());
            let Some(message) = message.await.expect("the stream hangs")? else { return Ok(None) };
            assert!(!message.acks.is_empty(), "a message without acknowledgements");
            self.ready.extend(message.acks);
        }
        Ok(self.ready.pop_front())
    }

    async fn taken(&mut self) -> (u64, taskyard::proto::v1::SubmitResponse) {
        let ack = self.next().await.expect("an open stream").expect("an acknowledgement");
        match ack.result.expect("one is set") {
            Outcome::Ack(submitted) => (ack.sequence, submitted),
            Outcome::Error(error) => panic!("refused: {error:?}"),
        }
    }

    async fn refused(&mut self) -> (u64, Code, String) {
        let ack = self.next().await.expect("an open stream").expect("an acknowledgement");
        match ack.result.expect("one is set") {
            Outcome::Ack(submitted) => panic!("taken: {submitted:?}"),
            Outcome::Error(error) => {
                let reason = error.get_details_error_info().expect("a reason").reason;
                (ack.sequence, Code::from(error.code), reason)
            }
        }
    }
}

fn later(priority: i32) -> SubmitRequest {
    SubmitRequest { delay: support::span(PATIENCE), priority, ..task("noop") }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_has_its_result_in_order_and_none_ends_the_stream() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let Stream { requests, mut acks } = Stream::begin(&mut client).await;
    let named = SubmitRequest { request_id: "a".into(), ..later(1) };
    let wrong = || (Code::InvalidArgument, "INVALID_FIELDS".to_owned());
    let sent = [
        (7, Some(named.clone())),
        (7, None),
        (1, Some(task("unheard-of"))),
        (u64::MAX, Some(named.clone())),
        (0, Some(SubmitRequest { priority: 2, ..named })),
        (5, Some(later(3))),
    ];
    for (sequence, request) in sent {
        requests.send(SubmitStreamRequest { sequence, request }).await.unwrap();
    }
    drop(requests);
    let (sequence, first) = acks.taken().await;
    assert_eq!((sequence, first.existing), (7, false));
    for sequence in [7, 1] {
        let (code, reason) = wrong();
        assert_eq!(acks.refused().await, (sequence, code, reason));
    }
    let (sequence, again) = acks.taken().await;
    assert_eq!((sequence, again.existing, again.task_id), (u64::MAX, true, first.task_id));
    assert_eq!(acks.refused().await, (0, Code::AlreadyExists, "REQUEST_ID_REUSED".into()));
    assert_eq!(acks.taken().await.0, 5);
    assert_eq!(acks.next().await.expect("a good end"), None);
    assert_eq!(count(&mut client).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_is_acknowledged_once_and_has_the_order_of_the_stream() {
    const TASKS: u64 = 20_000;
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let Stream { requests, mut acks } = Stream::begin(&mut client).await;
    let sender = tokio::spawn(async move {
        for sequence in 0..TASKS {
            // One in so many is wrong: the order holds over the refused ones, too.
            let priority =
                if sequence % 97 == 5 { 5_000 } else { i32::try_from(sequence % 1_000).unwrap() };
            let request = Some(later(priority));
            requests.send(SubmitStreamRequest { sequence, request }).await.unwrap();
        }
    });
    let mut taken = Vec::new();
    for sequence in 0..TASKS {
        let ack = acks.next().await.unwrap().expect("one for each");
        assert_eq!(ack.sequence, sequence);
        if let Some(Outcome::Ack(submitted)) = ack.result {
            taken.push((submitted.task_id, sequence));
        } else {
            assert_eq!(sequence % 97, 5);
        }
    }
    sender.await.unwrap();
    assert_eq!(acks.next().await.expect("a good end"), None);
    let mut listed = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTasksRequest { page_size: 1_000, page_token, ..Default::default() };
        let page = client.list_tasks(request).await.unwrap().into_inner();
        listed.extend(page.tasks.into_iter().map(|task| (task.task_id, task.priority)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed.len(), taken.len());
    for ((id, priority), (acked, sequence)) in listed.into_iter().zip(taken) {
        assert_eq!((id, priority), (acked, i32::try_from(sequence % 1_000).unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_pushes_back_and_nothing_is_lost() {
    let (_test_server, gate, mut client) = full_test_server(|_| {}).await;
    let Stream { requests, mut acks } = Stream::begin(&mut client).await;
    let send = |sequence, request| SubmitStreamRequest { sequence, request: Some(request) };
    requests.send(send(0, reject(task("gated")))).await.unwrap();
    assert_eq!(acks.refused().await, (0, Code::ResourceExhausted, "QUEUE_FULL".into()));
    // Those that wait are more than the queue holds.
    for sequence in 1..=9 {
        requests.send(send(sequence, task("gated"))).await.unwrap();
    }
    for sequence in 1..=3 {
        gate.0.add_permits(1);
        assert_eq!(acks.taken().await.0, sequence);
        let known = count(&mut client).await;
        assert_eq!(known, 3 + usize::try_from(sequence).unwrap(), "one place, one task");
    }
    gate.open();
    for sequence in 4..=9 {
        assert_eq!(acks.taken().await.0, sequence);
    }
    drop(requests);
    assert_eq!(acks.next().await.expect("a good end"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_needs_no_room() {
    let (_test_server, gate, mut client) = full_test_server(|_| {}).await;
    let known = SubmitRequest { request_id: "again".into(), ..task("gated") };
    gate.0.add_permits(1);
    let first = submit(&mut client, known.clone()).await;
    let mut stream = Stream::begin(&mut client).await;
    stream.send(1, known.clone()).await;
    stream.send(2, reject(known)).await;
    for sequence in [1, 2] {
        let (of, again) = stream.acks.taken().await;
        assert_eq!((of, again.existing), (sequence, true));
        assert_eq!(again.task_id, first.task_id);
    }
    gate.open();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_leaves_the_line_keeps_no_place() {
    let (_test_server, gate, mut client) = full_test_server(|_| {}).await;
    let mut stream = Stream::begin(&mut client).await;
    stream.send(1, reject(task("gated"))).await;
    stream.send(2, task("gated")).await;
    // It is read, so the next one stands in line, or is about to.
    stream.acks.refused().await;
    drop(stream);
    let last = tokio::spawn({
        let mut client = client.clone();
        async move { submit(&mut client, task("gated")).await }
    });
    gate.open();
    tokio::time::timeout(PATIENCE, last).await.expect("room").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_not_read() {
    const TASKS: u64 = 100_000;
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let mut other = test_server.client().await;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    // Refused ones, so that the server's speed is not the disk's; and large enough
    // to see at once that it reads on.
    let data = Payload::Data(vec![0; 1 << 10].into());
    let refused = SubmitRequest { payload: Some(data), ..task("unheard-of") };
    let requests = tokio_stream::iter(0..TASKS).map(move |sequence| {
        counter.fetch_add(1, Ordering::Relaxed);
        SubmitStreamRequest { sequence, request: Some(refused.clone()) }
    });
    let call = client.submit_stream(requests).await.expect("the stream begins");
    let mut acks = Acks::of(call.into_inner());
    // Until it stands still while others are served.
    let (mut before, mut still) = (0, 0);
    while still < 3 {
        for _ in 0..200 {
            submit(&mut other, task("noop")).await;
        }
        let now = sent.load(Ordering::Relaxed);
        still = if now == before && now > 0 { still + 1 } else { 0 };
        before = now;
    }
    assert!(before < TASKS / 2, "{before} requests were read, and no answer was");
    // Nothing was lost: it goes on where it stopped.
    for sequence in 0..TASKS {
        assert_eq!(acks.refused().await.0, sequence);
    }
    assert_eq!(acks.next().await.expect("a good end"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_tasks_are_taken_only_as_far_as_the_queue_holds_them() {
    /// With what a task has beside its payload, seven of them.
    const QUEUE_BYTES: u64 = 4 << 20;
    let small = |config: &mut Config| {
        config.queue_max_bytes = QUEUE_BYTES;
        config.workers = 1.try_into().unwrap();
    };
    let test_server = TestServer::with(small, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    pause(&mut admin, "q").await;
    let mut watch = Watch::live(&mut client).await;
    let (sent, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
    let data = Payload::Data(vec![7; 512 << 10].into());
    let large = SubmitRequest { queue: "q".into(), payload: Some(data), ..task("noop") };
    let (counter, stopped) = (Arc::clone(&sent), stop.clone());
    // For ever, until it is told to stop.
    let requests = std::iter::from_fn(move || {
        let go_on = !stopped.is_cancelled();
        go_on.then(|| SubmitStreamRequest {
            sequence: counter.fetch_add(1, Ordering::Relaxed),
            request: Some(large.clone()),
        })
    });
    let call = client.submit_stream(tokio_stream::iter(requests)).await.expect("it begins");
    let mut acks = Acks::of(call.into_inner());
    let mut taken = Vec::new();
    for sequence in 0..7 {
        let (of, submitted) = acks.taken().await;
        assert_eq!(of, sequence);
        taken.push(submitted.task_id);
    }
    // The next one stands in line; what the client sends beside it goes no further
    // than what the connection holds.
    until_in_line(&mut admin, "q").await;
    let (mut before, mut still) = (0, 0);
    while still < 200 {
        let queue = queue(&mut admin, "q").await;
        let waiting = queue.counts.expect("always set").queued;
        assert_eq!((waiting, queue.waiting_callers), (7, 1));
        assert!(queue.waiting_bytes <= QUEUE_BYTES, "{}", queue.waiting_bytes);
        let now = sent.load(Ordering::Relaxed);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    assert!(before < 40, "{before} requests of 512 KiB were read");
    resume(&mut admin, "q").await;
    for sequence in 7.. {
        // Well past what was held back.
        if sequence == before + 20 {
            stop.cancel();
        }
        let Some(ack) = acks.next().await.expect("a good end") else { break };
        assert_eq!(ack.sequence, sequence);
        let Some(Outcome::Ack(submitted)) = ack.result else { panic!("refused: {ack:?}") };
        taken.push(submitted.task_id);
    }
    assert_eq!(taken.len() as u64, sent.load(Ordering::Relaxed), "each has its answer");
    for task_id in &taken {
        assert_eq!(&watch.until(EventType::Started).await.task_id, task_id, "in order");
    }
    assert_eq!(count(&mut client).await, taken.len(), "once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_acknowledges_what_it_has_and_says_so() {
    let gate = Gate::default();
    let mut registry = builtin();
    registry.insert("gated", gate.clone());
    let test_server = TestServer::with(|config| config.drain_timeout = PATIENCE, registry).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::live(&mut client).await;
    let mut stream = Stream::begin(&mut client).await;
    let mut idle = Stream::begin(&mut client).await;
    stream.send(1, task("gated")).await;
    assert_eq!(stream.acks.taken().await.0, 1);
    watch.until(EventType::Started).await;
    let drain = tokio::spawn(test_server.drain());
    for acks in [&mut stream.acks, &mut idle.acks] {
        let end = acks.next().await.unwrap_err();
        assert_eq!((end.code(), reason(&end)), (Code::Unavailable, "DRAINING".into()));
    }
    // While the drain goes on, another one is told the same.
    let mut late = Stream::begin(&mut client).await;
    assert_eq!(reason(&late.acks.next().await.unwrap_err()), "DRAINING");
    gate.open();
    drop((client, watch, stream, idle, late));
    assert!(drain.await.unwrap().0.complete);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_ends_the_stream_and_what_came_before_is_done() {
    let test_server = TestServer::with(|config| config.max_message = 128 << 10, builtin()).await;
    let address = test_server.server.local_addr();
    let good = |priority| {
        let request = Some(later(priority));
        framed(&SubmitStreamRequest { sequence: 1, request }.encode_to_vec())
    };
    let data = Payload::Data(vec![0; 200 << 10].into());
    let large = SubmitRequest { payload: Some(data), ..task("noop") };
    let large = SubmitStreamRequest { sequence: 2, request: Some(large) }.encode_to_vec();
    for (number, (last, code, expected)) in (1..).zip([
        (framed(&large), Code::ResourceExhausted, "TOO_LARGE"),
        (framed(&[0xff; 9]), Code::InvalidArgument, "MALFORMED_MESSAGE"),
        (Bytes::from_static(&[0, 0, 0]), Code::Internal, "PROTOCOL"),
    ]) {
        let body = Bytes::from([&good(number)[..], &last].concat());
        let end = call(address, PATH, &[], body).await;
        assert_eq!((end.code(), reason(&end).as_str()), (code, expected));
        assert_eq!(count(&mut test_server.client().await).await, usize::try_from(number).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_the_deadline_of_its_call() {
    let (test_server, gate, mut client) = full_test_server(|_| {}).await;
    let request = SubmitStreamRequest { sequence: 1, request: Some(task("gated")) };
    let body = framed(&request.encode_to_vec());
    let end = call(test_server.server.local_addr(), PATH, &[("grpc-timeout", "50m")], body).await;
    assert_eq!((end.code(), reason(&end)), (Code::DeadlineExceeded, "DEADLINE".into()));
    gate.open();
    assert_eq!(count(&mut client).await, 3, "nothing was enqueued");
}
