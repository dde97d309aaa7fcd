//! Calls over a bare HTTP/2 connection.

use std::{future::poll_fn, net::SocketAddr};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::Request;
use tokio::{net::TcpStream, time::timeout};
use tonic::Status;

use super::PATIENCE;

pub const SUBMIT: &str = "/taskyard.v1.TaskService/Submit";

/// A message as it is framed: not compressed, and its length.
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap());
    frame.put_slice(message);
    frame.freeze()
}

/// A call over a bare HTTP/2 connection: nothing on the client's side checks it
/// or keeps its deadline. Answers with the status that the server gave.
pub async fn call(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &'static str)],
    body: Bytes,
) -> Status {
    call_for(address, path, headers, body).await.0
}

/// As [`call`]; answers with what came before the status, too, as it was framed.
pub async fn call_for(
    address: SocketAddr,
    path: &str,
    headers: &[(&'static str, &'static str)],
    body: Bytes,
) -> (Status, Bytes) {
    let exchange = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::post(format!("http://{address}{path}"));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, mut out) = send.send_request(request.body(()).unwrap(), false).unwrap();
        // The answer to a wrong path may be there before the body is sent.
        drop(out.send_data(body, true));
        let response = response.await.expect("an answer");
        let answer = match Status::from_header_map(response.headers()) {
            Some(status) => (status, Bytes::new()),
            None => all_of(response.into_body()).await,
        };
        connection.abort();
        answer
    };
    timeout(PATIENCE, exchange).await.expect("the call hangs")
}

/// A call of which nothing is read but that it began, not even its end: answers when its
/// stream is reset, with the reason, and with whether the connection goes on.
pub async fn until_reset(address: SocketAddr, path: &str, body: Bytes) -> (h2::Reason, bool) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut call = |path: &str, body| {
        let request = Request::post(format!("http://{address}{path}"));
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        let (response, mut out) = send.send_request(request, false).unwrap();
        out.send_data(body, true).unwrap();
        (response, out)
    };
    let (response, mut out) = call(path, body);
    let unread = response.await.expect("it begins");
    let reset = poll_fn(|cx| out.poll_reset(cx));
    let reason = timeout(PATIENCE, reset).await.expect("it is not reset").expect("a reason");
    drop(unread);
    // A message of no bytes is a wrong one, which is answered.
    let goes_on = call(SUBMIT, framed(&[])).0.await.is_ok();
    connection.abort();
    (reason, goes_on)
}

/// The messages that came, as they were framed.
pub fn messages<M: prost::Message + Default>(mut framed: Bytes) -> Vec<M> {
    let mut messages = Vec::new();
    while framed.has_remaining() {
        assert_eq!(framed.get_u8(), 0, "it is not compressed");
        let length = framed.get_u32() as usize;
        messages.push(M::decode(framed.split_to(length)).expect("a message"));
    }
    messages
}

async fn all_of(mut body: h2::RecvStream) -> (Status, Bytes) {
    let mut message = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.expect("the stream is whole");
        body.flow_control().release_capacity(data.len()).unwrap();
        message.put(data);
    }
    let trailers = body.trailers().await.unwrap().expect("trailers");
    (Status::from_header_map(&trailers).expect("a status"), message.freeze())
}
