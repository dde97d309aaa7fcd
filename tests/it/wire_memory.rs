//! What clients hold of the server's memory by not reading, and by not sending to the end.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use prost::Message as _;
use taskyard::{
    config::Config,
    proto::v1::{
        GetTaskRequest, SubmitRequest, WatchEventsRequest, WatchStart, submit_request::Payload,
    },
};
use tokio::{net::TcpStream, time::timeout};

use crate::support::{
    PATIENCE, TestServer, builtin, connect, get,
    process::{Serve, taskyard},
    submit, task,
    watching::{heavy, submit_all},
    wire::{SUBMIT, framed, until_reset},
};

const WATCH: &str = "/taskyard.v1.TaskService/WatchEvents";
const GET: &str = "/taskyard.v1.TaskService/GetTask";
/// Calls on one connection.
const CALLS: usize = 250;

/// A connection whose client reads nothing beyond `window` of each call.
async fn lazy(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(16 << 20);
    let (send, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

async fn begin(
    send: &SendRequest<Bytes>,
    address: SocketAddr,
    path: &str,
) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let request = Request::post(format!("http://{address}{path}"));
    let request = request.header("content-type", "application/grpc").body(()).unwrap();
    let mut ready = timeout(PATIENCE, send.clone().ready()).await.expect("no room").unwrap();
    ready.send_request(request, false).unwrap()
}

/// Waits until what was sent on a connection has been received, and a while longer: each
/// call is answered, without data, after what came before it.
async fn settle(send: &SendRequest<Bytes>, address: SocketAddr) {
    for _ in 0..20 {
        let (response, mut out) = begin(send, address, SUBMIT).await;
        out.send_data(framed(b""), true).unwrap();
        timeout(PATIENCE, response).await.expect("no answer").unwrap();
    }
}

/// Megabytes that a process has in memory, and the most that it had.
fn memory(server: &Serve) -> (u64, u64) {
    let path = format!("/proc/{}/status", server.child.id());
    let status = std::fs::read_to_string(path).unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// Until its memory no longer grows.
async fn until_steady(server: &Serve, connections: &[SendRequest<Bytes>], address: SocketAddr) {
    let (mut most, mut unchanged) = (0, 0);
    while unchanged < 5 {
        for send in connections {
            settle(send, address).await;
        }
        let now = memory(server).1;
        unchanged = if now > most { 0 } else { unchanged + 1 };
        most = most.max(now);
    }
}

/// A server whose allocator gives back at once what is large and no longer used: what the
/// process has in memory is then what the server holds, however its threads took turns.
fn start(dir: &Path) -> (Serve, SocketAddr) {
    let mut command = taskyard();
    command.env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_TRIM_THRESHOLD_", "65536");
    let server = Serve::by(command, dir, &[]);
    let address = server.address.parse().unwrap();
    (server, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_are_not_read_hold_a_bounded_memory_and_nobody_up() {
    const CONNECTIONS: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = start(dir.path());
    let mut client = connect(address).await;
    let large =
        SubmitRequest { payload: Some(Payload::Data(vec![7; 1 << 20].into())), ..task("noop") };
    let task_id = submit(&mut client, large).await.task_id;
    let message = framed(&GetTaskRequest { task_id: task_id.clone() }.encode_to_vec());
    let before = memory(&server).1;
    let (mut connections, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let send = lazy(address, 0).await;
        for _ in 0..CALLS {
            let (response, mut out) = begin(&send, address, GET).await;
            out.send_data(message.clone(), true).unwrap();
            calls.push((response, out));
        }
        connections.push(send);
    }
    until_steady(&server, &connections, address).await;
    let grown = memory(&server).1 - before;
    println!("{grown} MiB for {} responses of 1 MiB", CONNECTIONS * CALLS);
    assert!(grown < 320, "{grown} MiB");
    let others = timeout(PATIENCE, get(&mut client, &task_id)).await;
    others.expect("others are held up");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_half_sent_hold_a_bounded_memory_and_nobody_up() {
    const LENGTH: usize = (4 << 20) - 100;
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = start(dir.path());
    let mut client = connect(address).await;
    let before = memory(&server).1;
    let send = lazy(address, 0).await;
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        let (response, mut out) = begin(&send, address, SUBMIT).await;
        // All but the last bytes of what is announced; as the window has room for it.
        let mut half = BytesMut::with_capacity(LENGTH);
        half.put_u8(0);
        half.put_u32(u32::try_from(LENGTH).unwrap());
        half.put_bytes(7, LENGTH - 200);
        out.send_data(half.freeze(), false).unwrap();
        calls.push((response, out));
    }
    until_steady(&server, std::slice::from_ref(&send), address).await;
    let grown = memory(&server).1 - before;
    println!("{grown} MiB for {CALLS} half-sent requests of 4 MiB");
    assert!(grown < 160, "{grown} MiB");
    let large =
        SubmitRequest { payload: Some(Payload::Data(vec![7; 1 << 20].into())), ..task("noop") };
    let others = timeout(PATIENCE, submit(&mut client, large)).await;
    others.expect("others are held up");
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_read_nothing_hold_what_the_design_says() {
    const WATCHERS: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let (server, address) = start(dir.path());
    let client = connect(address).await;
    // Some megabytes of events, in batches as large as they come.
    submit_all(&client, vec![heavy(); 1_000]).await;
    let request = WatchEventsRequest { start: WatchStart::Oldest.into(), ..Default::default() };
    let message = framed(&request.encode_to_vec());
    let mut connections = Vec::new();
    let mut calls = Vec::new();
    let before = memory(&server).0;
    for _ in 0..WATCHERS / 100 {
        let send = lazy(address, 65_535).await;
        for _ in 0..100 {
            let (response, mut out) = begin(&send, address, WATCH).await;
            out.send_data(message.clone(), true).unwrap();
            calls.push((timeout(PATIENCE, response).await.unwrap().unwrap(), out));
        }
        connections.push(send);
    }
    until_steady(&server, &connections, address).await;
    let each = (memory(&server).0.saturating_sub(before) << 10) / WATCHERS as u64;
    println!("{each} KiB for each of {WATCHERS} watchers");
    // A message of up to 256 KiB, what was read for the next one, and what HTTP/2 has: how full
    // they are depends on how the events came together in commits.
    assert!(each < 768, "{each} KiB for each watcher");
}

/// A server with one task of 1 MiB, and the message that asks for it.
async fn with_a_large_task(change: impl FnOnce(&mut Config)) -> (TestServer, String, Bytes) {
    let test_server = TestServer::with(change, builtin()).await;
    let data = Some(Payload::Data(vec![7; 1 << 20].into()));
    let large = SubmitRequest { payload: data, ..task("noop") };
    let task_id = submit(&mut test_server.client().await, large).await.task_id;
    let message = framed(&GetTaskRequest { task_id: task_id.clone() }.encode_to_vec());
    (test_server, task_id, message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_not_taken_is_reset_and_its_connection_goes_on() {
    let hasty = |config: &mut Config| config.response_stall_timeout = Duration::from_secs(1);
    let (test_server, _, message) = with_a_large_task(hasty).await;
    let reset = until_reset(test_server.server.local_addr(), GET, message);
    let (why, goes_on) = timeout(PATIENCE, reset).await.expect("it is kept for ever");
    assert_eq!(why, h2::Reason::CANCEL);
    assert!(goes_on, "its connection does not");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_nobody_reads_make_room_for_those_that_are_read() {
    // As much as one connection may have; and no stall timeout would come in time.
    let tight = |config: &mut Config| config.max_response_bytes = 32 << 20;
    let (test_server, task_id, message) = with_a_large_task(tight).await;
    let address = test_server.server.local_addr();
    let (mut connections, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let send = lazy(address, 0).await;
        for _ in 0..100 {
            let (response, mut out) = begin(&send, address, GET).await;
            out.send_data(message.clone(), true).unwrap();
            calls.push((response, out));
        }
        settle(&send, address).await;
        connections.push(send);
    }
    let mut client = test_server.client().await;
    for _ in 0..5 {
        let read = timeout(PATIENCE, get(&mut client, &task_id)).await;
        let task = read.expect("others are held up");
        assert_eq!(task.task_id, task_id);
    }
}
