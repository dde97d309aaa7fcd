//! Whom a client meets at an address: nobody, somebody who says nothing, somebody else,
//! or Taskyard, whatever state it is in.

use std::net::SocketAddr;

use taskyard::{
    client::{Client, ConnectError},
    proto::v1::{EventType, GetTaskRequest},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::support::{
    Gate, PATIENCE, TestServer, Watch, builtin,
    process::{Said, run},
    reason, submit, task,
};

/// Somebody who reads the greeting, says these words and hangs up; without words, keeps
/// the connection and says nothing.
async fn somebody(words: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut greeting = [0; 1024];
            let _ = stream.read(&mut greeting).await;
            match words {
                Some(words) => stream.write_all(words).await.expect("it is said"),
                None => kept.push(stream),
            }
        }
    });
    address
}

async fn meet(address: SocketAddr) -> Result<Client, ConnectError> {
    let address = address.to_string();
    let meeting = Client::connect(&address);
    tokio::time::timeout(PATIENCE, meeting).await.expect("it hangs")
}

/// A gRPC server that knows no service of Taskyard's.
async fn other_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let routes = tonic::service::Routes::default();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming),
    );
    address
}

/// What the command line says to somebody who asks there for the queues.
fn asked_by_command(address: SocketAddr) -> Said {
    run(&["queues", "--server", &address.to_string()]).ends(4)
}

/// One line that names the address, then perhaps hints, and nothing of the inside.
fn is_clear(told: &str, address: SocketAddr) {
    let first = told.lines().next().expect("it says something");
    assert!(first.contains(&format!("http://{address}")), "{told}");
    assert!(told.lines().skip(1).all(|line| line.starts_with("  ")), "{told}");
    for inside in ["Error {", "Status", "transport error", "Kind("] {
        assert!(!told.contains(inside), "{told}");
    }
}

async fn is_called_a_stranger(address: SocketAddr) {
    let error = meet(address).await.expect_err("it is no Taskyard");
    assert!(matches!(error, ConnectError::Stranger { .. }), "{error:?}");
    is_clear(&error.to_string(), address);
    let said =
        tokio::task::spawn_blocking(move || asked_by_command(address)).await.expect("it ends");
    assert!(said.err.contains("does not answer as Taskyard does"), "{}", said.err);
    is_clear(&said.err, address);
}

#[tokio::test]
async fn who_speaks_otherwise_is_no_taskyard() {
    let words: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
        // HTTP/2, up to its settings.
        &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0],
        b"",
    ];
    for words in words {
        is_called_a_stranger(somebody(Some(words)).await).await;
    }
}

#[tokio::test]
async fn a_grpc_server_of_something_else_is_no_taskyard() {
    is_called_a_stranger(other_server().await).await;
}

#[tokio::test]
async fn nobody_waits_for_ever_for_one_who_says_nothing() {
    let address = somebody(None).await;
    let error = meet(address).await.expect_err("it says nothing");
    assert!(matches!(error, ConnectError::Silent { .. }), "{error:?}");
    let said =
        tokio::task::spawn_blocking(move || asked_by_command(address)).await.expect("it ends");
    assert!(said.err.contains("says nothing"), "{}", said.err);
    is_clear(&said.err, address);
}

#[tokio::test]
async fn where_nobody_listens_there_is_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let error = meet(address).await.expect_err("nobody listens");
    assert!(matches!(error, ConnectError::Nobody { .. }), "{error:?}");
    is_clear(&error.to_string(), address);
}

/// It answers what is asked, and tells of its drain by itself.
#[tokio::test]
async fn a_server_that_drains_is_taskyard() {
    let gate = Gate::default();
    let mut registry = builtin();
    registry.insert("gate", gate.clone());
    let test_server = TestServer::with(|_| {}, registry).await;
    let address = test_server.server.local_addr();
    let mut tasks = test_server.client().await;
    let mut watch = Watch::live(&mut tasks).await;
    let submitted = submit(&mut tasks, task("gate")).await;
    watch.until(EventType::Started).await;
    let drained = tokio::spawn(test_server.drain());
    watch.until(EventType::Draining).await;
    let client = meet(address).await.expect("it is there");
    let refused = client.tasks().submit(task("gate")).await.expect_err("it drains");
    assert_eq!(reason(&refused), "DRAINING");
    let asked = GetTaskRequest { task_id: submitted.task_id };
    client.tasks().get_task(asked).await.expect("it is told");
    gate.open();
    drained.await.expect("it drains");
}
