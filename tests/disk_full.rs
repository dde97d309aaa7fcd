//! A disk that refuses a write: the store takes no more, says so, and has lost
//! nothing that it acknowledged.

mod support;

use std::process::Command;

use support::{connect, get, process::Serve, reason, task};
use taskyard::proto::{
    health::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
    v1::{SubmitRequest, TaskState, submit_request::Payload},
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_write_stops_the_store_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    // No file may grow beyond 2 MiB (4,096 blocks of 512 bytes), as on a full disk.
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$@\"", "sh"]);
    let server = Serve::under(limited, &data_dir, &["--workers", "1"]);
    let mut client = connect(server.address.parse().unwrap()).await;
    let data = Payload::Data(vec![7; 50_000].into());
    let delay = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let large = SubmitRequest { payload: Some(data), delay, ..task("noop") };
    let mut acknowledged = Vec::new();
    let refused = loop {
        match client.submit(large.clone()).await {
            Ok(answer) => acknowledged.push(answer.into_inner().task_id),
            Err(refused) => break refused,
        }
        assert!(acknowledged.len() < 1_000, "the limit does not limit");
    };
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unavailable, "STORE_FAILED"));
    assert!(acknowledged.len() > 10);
    // It stays so for small tasks too, while reading goes on.
    let again = client.submit(task("noop")).await.unwrap_err();
    assert_eq!(reason(&again), "STORE_FAILED");
    assert_eq!(get(&mut client, &acknowledged[0]).await.state(), TaskState::Scheduled);
    let mut health = HealthClient::connect(format!("http://{}", server.address)).await.unwrap();
    let status = loop {
        // The health hears of it right after the first refusal.
        let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        if answer.status() != ServingStatus::Serving {
            break answer.status();
        }
    };
    assert_eq!(status, ServingStatus::NotServing);
    server.signal(rustix::process::Signal::TERM);
    server.end();

    let server = Serve::start(&data_dir, &[]);
    let mut client = connect(server.address.parse().unwrap()).await;
    for id in &acknowledged {
        assert_eq!(get(&mut client, id).await.state(), TaskState::Scheduled);
    }
    client.submit(task("noop")).await.expect("it takes tasks again");
}
