//! The rules of gRPC over HTTP/2: what is no call is refused before anything is done.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use prost::Message as _;
use tokio::{net::TcpStream, time::timeout};
use tonic::{Code, Status};

use crate::support::{
    PATIENCE, TestServer, count, reason, submit, task,
    wire::{SUBMIT, call, framed},
};

type Sender = h2::client::SendRequest<Bytes>;

async fn connect(test_server: &TestServer) -> Sender {
    let stream = TcpStream::connect(test_server.server.local_addr()).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    send
}

async fn answer(sender: &Sender, request: Request<()>, body: Bytes) -> Response<h2::RecvStream> {
    let mut ready = sender.clone().ready().await.expect("the connection goes on");
    let (response, mut out) = ready.send_request(request, false).unwrap();
    // The answer may be there before it is sent.
    drop(out.send_data(body, true));
    timeout(PATIENCE, response).await.expect("no answer").expect("an answer")
}

fn told(response: &Response<h2::RecvStream>) -> Status {
    Status::from_header_map(response.headers()).expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_of_grpc_is_refused_by_http_and_submits_nothing() {
    let test_server = TestServer::start().await;
    let sender = connect(&test_server).await;
    let url = format!("http://{}{SUBMIT}", test_server.server.local_addr());
    let body = framed(&task("noop").encode_to_vec());
    for content_type in ["application/json", "application/grpc+json", "text/plain", ""] {
        let mut request = Request::post(&url);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        let refused = answer(&sender, request.body(()).unwrap(), body.clone()).await;
        assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
        assert_eq!(reason(&told(&refused)), "UNSUPPORTED_MEDIA_TYPE");
    }
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let request = Request::builder().method(method.clone()).uri(&url);
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        let refused = answer(&sender, request, body.clone()).await;
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(refused.headers()["allow"], "POST");
        assert_eq!(reason(&told(&refused)), "METHOD_NOT_ALLOWED");
    }
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc;a=b"] {
        let request = Request::post(&url).header("content-type", content_type);
        let taken = answer(&sender, request.body(()).unwrap(), body.clone()).await;
        assert_eq!(taken.status(), StatusCode::OK, "{content_type}");
        let mut message = taken.into_body();
        assert!(message.data().await.is_some_and(|data| data.is_ok()), "{content_type}");
    }
    assert_eq!(count(&mut test_server.client().await).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn much_metadata_is_refused_in_words_and_ends_no_connection() {
    let test_server = TestServer::start().await;
    let sender = connect(&test_server).await;
    let url = format!("http://{}{SUBMIT}", test_server.server.local_addr());
    let body = framed(&task("noop").encode_to_vec());
    let request = |bytes: usize| {
        let request = Request::post(&url).header("content-type", "application/grpc");
        request.header("x-much", "m".repeat(bytes)).body(()).unwrap()
    };
    for kilobytes in [17, 20, 40, 64, 100] {
        let refused = answer(&sender, request(kilobytes * 1_000), body.clone()).await;
        let status = told(&refused);
        assert_eq!(status.code(), Code::ResourceExhausted, "{kilobytes} KB: {status:?}");
        assert_eq!(reason(&status), "TOO_LARGE");
        assert!(status.message().contains("metadata"), "{status:?}");
    }
    let taken = answer(&sender, request(15_000), body).await;
    assert_eq!(taken.status(), StatusCode::OK);
    assert!(Status::from_header_map(taken.headers()).is_none(), "it is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_one_message_takes_exactly_one() {
    let test_server = TestServer::start().await;
    let address = test_server.server.local_addr();
    let one = framed(&task("noop").encode_to_vec());
    let two = Bytes::from([one.as_ref(), one.as_ref()].concat());
    let status = call(address, SUBMIT, &[], two).await;
    assert_eq!((status.code(), &*reason(&status)), (Code::Unimplemented, "TOO_MANY_MESSAGES"));
    let status = call(address, SUBMIT, &[], Bytes::new()).await;
    assert_eq!((status.code(), &*reason(&status)), (Code::Unimplemented, "NO_MESSAGE"));
    assert_eq!(count(&mut test_server.client().await).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_message_is_refused_with_what_would_be_accepted() {
    let test_server = TestServer::start().await;
    for path in [SUBMIT, "/grpc.health.v1.Health/Check"] {
        for encoding in ["gzip", "deflate", "zstd", "snappy"] {
            let headers = [("grpc-encoding", encoding)];
            let body = framed(&task("noop").encode_to_vec());
            let status = call(test_server.server.local_addr(), path, &headers, body).await;
            assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
            assert!(!reason(&status).is_empty());
            let accepted = status.metadata().get("grpc-accept-encoding");
            assert_eq!(accepted.expect("what is accepted"), "identity");
        }
    }
    submit(&mut test_server.client().await, task("noop")).await;
}
