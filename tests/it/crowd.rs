//! More connections than there are places: one address does not shut out the others, and
//! nobody shuts out operators.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr, TcpStream},
};

use rustix::process::Signal;
use taskyard::proto::{
    health::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
    v1::{GetStatsRequest, WatchEventsRequest},
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::support::{
    Admin, Client, PATIENCE, TestServer, builtin, connect,
    process::{Serve, taskyard},
    reason, submit, task,
};

async fn channel_from(address: SocketAddr, from: [u8; 4]) -> Channel {
    let endpoint = Endpoint::new(format!("http://{address}")).unwrap();
    endpoint.local_address(Some(IpAddr::from(from))).connect().await.expect("it is taken")
}

/// Connections of this many clients at 127.0.0.1, each with a place.
async fn clients(address: SocketAddr, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = connect(address).await;
        submit(&mut client, task("noop")).await;
        clients.push(client);
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_its_share_and_the_others_theirs() {
    let change = |config: &mut taskyard::config::Config| {
        config.max_connections = 6;
        config.max_connections_per_address = 4;
    };
    let test_server = TestServer::with(change, builtin()).await;
    let address = test_server.server.local_addr();
    let mut there = clients(address, 4).await;
    let mut fifth = connect(address).await;
    let refused = fifth.submit(task("noop")).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::Unavailable, "TOO_MANY_CONNECTIONS"),
        "{refused:?}"
    );
    // Another address has places of its own, until there are none at all.
    for _ in 0..2 {
        let mut other = Client::new(channel_from(address, [127, 0, 0, 2]).await);
        submit(&mut other, task("noop")).await;
        there.push(other);
    }
    let mut seventh = Client::new(channel_from(address, [127, 0, 0, 3]).await);
    let refused = seventh.submit(task("noop")).await.unwrap_err();
    assert_eq!(reason(&refused), "TOO_MANY_CONNECTIONS");
    // Who was refused gets in on the same channel when somebody has left.
    there.remove(0);
    let gets_in = async {
        while let Err(refused) = fifth.submit(task("noop")).await {
            assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gets_in).await.expect("it is shut out for ever");
    drop((there, fifth, seventh));
    test_server.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_served_when_all_places_are_taken() {
    let test_server = TestServer::with(|config| config.max_connections = 3, builtin()).await;
    let address = test_server.server.local_addr();
    let _there = clients(address, 3).await;
    // A crowd that says nothing, from the same address.
    let crowd: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in 0..20 {
        let channel = connect_channel(address).await;
        let mut health = HealthClient::new(channel.clone());
        let service = "taskyard.v1.TaskService".into();
        let answer = health.check(HealthCheckRequest { service }).await.expect("a probe");
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving);
        let mut admin = Admin::new(channel.clone());
        admin.get_stats(GetStatsRequest::default()).await.expect("an operator");
        // Nobody does anything else there, nor holds it for long.
        let mut client = Client::new(channel);
        let refused = client.watch_events(WatchEventsRequest::default()).await.unwrap_err();
        assert_eq!(reason(&refused), "TOO_MANY_CONNECTIONS");
    }
    drop(crowd);
    test_server.drain().await;
}

async fn connect_channel(address: SocketAddr) -> Channel {
    Endpoint::new(format!("http://{address}")).unwrap().connect().await.expect("it is taken")
}

#[test]
fn a_crowd_does_not_keep_anybody_from_draining() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["--max-connections", "2"];
    let server = Serve::start(dir.path(), &more);
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    let said = server.run(&["drain", "--yes"]).ends(0);
    assert!(said.out.contains("drained"), "{}", said.out);
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    drop(crowd);
}

#[test]
fn a_connection_that_panics_while_it_is_taken_does_not_leave_the_server_deaf() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = taskyard();
    command.env("FAILPOINTS", "connections.take=panic");
    let server = Serve::by(command, dir.path(), &[]);
    for _ in 0..5 {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Closed by somebody who has accepted it.
        match stream.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("nobody accepts: {other:?}"),
        }
    }
    server.signal(Signal::TERM);
    let (code, log) = server.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("failpoint connections.take"), "{log}");
}
