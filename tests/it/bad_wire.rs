//! What breaks the rules of the wire itself: each call gets a status with a
//! reason, each connection an end, and the server works as before.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use taskyard::proto::v1::{
    ListTasksRequest, SubmitRequest, TaskState, WatchEventsRequest, submit_request::Payload,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, Status};

use crate::support::{
    self, Client, PATIENCE, TestServer, reason, sleep, submit, task, wait,
    wire::{SUBMIT, call, framed},
};

async fn works_as_before(test_server: &TestServer) {
    let mut client = test_server.client().await;
    let submitted = submit(&mut client, sleep("1ms")).await;
    assert_eq!(wait(&mut client, &submitted.task_id).await.state(), TaskState::Succeeded);
}

async fn tasks(client: &mut Client) -> usize {
    let all = ListTasksRequest { page_size: 1_000, omit_payloads: true, ..Default::default() };
    client.list_tasks(all).await.unwrap().into_inner().tasks.len()
}

fn is(status: &Status, code: Code, expected: &str) {
    assert_eq!((status.code(), &*reason(status)), (code, expected), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_services_that_do_not_exist() {
    let test_server = TestServer::start().await;
    let address = test_server.server.local_addr();
    for path in [
        "/taskyard.v1.TaskService/Nope",
        "/taskyard.v1.Nope/Submit",
        "/nope",
        "/",
        "/taskyard.v1.TaskService/Submit/more",
        "/taskyard.v1.TaskService",
        "/grpc.health.v1.Health/Nope",
    ] {
        let status = call(address, path, &[], framed(b"")).await;
        is(&status, Code::Unimplemented, "UNKNOWN_METHOD");
        assert!(status.message().contains(path), "{status:?}");
    }
    works_as_before(&test_server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message() {
    let test_server = TestServer::start().await;
    let address = test_server.server.local_addr();
    // args of args of args ..., deeper than anybody means it.
    let field = |tag: u8, inner: &[u8]| {
        let mut outer = vec![tag << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend_from_slice(inner);
        outer
    };
    let mut args = Vec::new();
    for _ in 0..1_000 {
        let value = field(5, &args);
        args = field(1, &field(2, &value));
    }
    let nested = field(2, &args);
    for garbage in [
        &[0xff; 10][..],
        &[0x0a],                   // a string without its length
        &[0x0a, 0x7f, b'x'],       // shorter than it says
        &[0x08, 0x01],             // a number where a string belongs
        &[0x0a, 0x02, 0xc3, 0x28], // no UTF-8
        &[0x00, 0x00],             // field zero
    ] {
        let status = call(address, SUBMIT, &[], framed(garbage)).await;
        is(&status, Code::InvalidArgument, "MALFORMED_MESSAGE");
    }
    let status = call(address, SUBMIT, &[], framed(&nested)).await;
    is(&status, Code::InvalidArgument, "INVALID_FIELDS");
    // A message that later versions may send is no garbage.
    let mut newer = task("noop").encode_to_vec();
    newer.extend_from_slice(&[0xfa, 0x3e, 0x01, b'x']);
    assert_eq!(call(address, SUBMIT, &[], framed(&newer)).await.code(), Code::Ok);
    works_as_before(&test_server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_wrong() {
    let test_server = TestServer::start().await;
    let address = test_server.server.local_addr();
    let good = framed(&task("noop").encode_to_vec());
    let mut compressed = good.to_vec();
    compressed[0] = 1;
    let mut unknown_flag = good.to_vec();
    unknown_flag[0] = 9;
    for wrong in [
        Bytes::new(),
        Bytes::from_static(b"\0"),
        good.slice(..good.len() - 1),
        compressed.into(),
        unknown_flag.into(),
        Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"),
    ] {
        let status = call(address, SUBMIT, &[], wrong.clone()).await;
        assert_ne!(status.code(), Code::Ok, "{wrong:?}");
        assert_ne!(reason(&status), "", "{wrong:?}");
    }
    let zipped = call(address, SUBMIT, &[("grpc-encoding", "gzip")], good.clone()).await;
    assert_eq!(zipped.code(), Code::Unimplemented);
    reason(&zipped);
    works_as_before(&test_server).await;
    assert_eq!(tasks(&mut test_server.client().await).await, 1, "none of them was taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_and_messages_that_are_too_large() {
    let test_server = TestServer::start().await;
    let mut client = test_server.client().await;
    let of = |bytes| SubmitRequest {
        payload: Some(Payload::Data(vec![0; bytes].into())),
        ..task("noop")
    };
    let payload = client.submit(of((1 << 20) + 1)).await.unwrap_err();
    is(&payload, Code::InvalidArgument, "INVALID_FIELDS");
    assert_eq!(support::fields(&payload), ["data"]);
    let message = client.submit(of(5 << 20)).await.unwrap_err();
    is(&message, Code::ResourceExhausted, "TOO_LARGE");
    let push_back = message.metadata().get("grpc-retry-pushback-ms");
    assert_eq!(push_back.unwrap(), "-1", "trying again is of no use");
    // Only the length is a lie: four GiB are announced and nothing comes.
    let lie = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]);
    is(
        &call(test_server.server.local_addr(), SUBMIT, &[], lie).await,
        Code::ResourceExhausted,
        "TOO_LARGE",
    );
    submit(&mut client, of(1 << 20)).await;
    works_as_before(&test_server).await;
    assert_eq!(tasks(&mut client).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_that_have_passed() {
    let test_server = TestServer::start().await;
    let address = test_server.server.local_addr();
    let submission = framed(&task("noop").encode_to_vec());
    for timeout in ["0n", "1n", "0H"] {
        let status = call(address, SUBMIT, &[("grpc-timeout", timeout)], submission.clone()).await;
        is(&status, Code::DeadlineExceeded, "DEADLINE");
        assert!(status.message().contains("nothing was enqueued"), "{status:?}");
    }
    let watch = framed(&WatchEventsRequest::default().encode_to_vec());
    let path = "/taskyard.v1.TaskService/WatchEvents";
    let status = call(address, path, &[("grpc-timeout", "1m")], watch).await;
    is(&status, Code::DeadlineExceeded, "DEADLINE");
    assert_eq!(tasks(&mut test_server.client().await).await, 0);
    // What is no timeout is none.
    for timeout in ["soon", "-1S", "123456789S", ""] {
        let status = call(address, SUBMIT, &[("grpc-timeout", timeout)], submission.clone()).await;
        assert_eq!(status.code(), Code::Ok, "{timeout:?}");
    }
    works_as_before(&test_server).await;
}

/// Sends bytes, and reads until the server ends the connection.
async fn until_closed(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may have closed it before all is sent.
    drop(stream.write_all(sent).await);
    let mut received = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut received)).await;
    drop(end.expect("the server keeps the connection"));
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_speak_http2_are_sent_away() {
    let test_server = TestServer::start().await;
    let address = test_server.server.local_addr();
    let mut garbage_after_greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    garbage_after_greeting.extend_from_slice(&[0xff; 1_000]);
    for sent in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"POST /taskyard.v1.TaskService/Submit HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03], // TLS
        &[0xa5; 10_000],
        b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
        &garbage_after_greeting,
    ] {
        let received = until_closed(address, sent).await;
        assert!(received.len() < 1_000, "{received:?}");
        works_as_before(&test_server).await;
    }
}

async fn silent_clients(test_server: &TestServer, sent: &[u8]) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(test_server.server.local_addr()).await.unwrap();
        stream.write_all(sent).await.unwrap();
        silent.push(stream);
    }
    silent
}

async fn all_closed(streams: Vec<TcpStream>) {
    for mut stream in streams {
        let mut rest = Vec::new();
        drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_hold_nobody_up() {
    let test_server = TestServer::start().await;
    let mut silent = silent_clients(&test_server, b"").await;
    silent.extend(silent_clients(&test_server, b"PRI").await);
    works_as_before(&test_server).await;
    let (report, _) = test_server.drain().await;
    assert!(report.complete, "none of them had to be waited for: {report:?}");
    all_closed(silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_fall_silent_end_with_the_drain() {
    let short = Duration::from_secs(1);
    let test_server =
        TestServer::with(|config| config.drain_timeout = short, support::builtin()).await;
    let silent = silent_clients(&test_server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    works_as_before(&test_server).await;
    let drained = timeout(PATIENCE, test_server.drain()).await;
    drained.expect("the drain ends, whatever clients do");
    all_closed(silent).await;
}
