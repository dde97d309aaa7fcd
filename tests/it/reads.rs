//! Who waits for whom when reading: what is short never for lists, and nobody for more than one
//! list of anybody else. A failpoint holds the threads that list.

use std::path::PathBuf;

use prost::Message as _;
use taskyard::proto::v1::{
    EventType, ListTasksRequest, SubmitRequest, TaskFilter,
    admin_service_client::AdminServiceClient,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::{
    Client, PATIENCE, Watch, connect, get, pause, process,
    process::Serve,
    reason, submit, task, wait,
    wire::{SUBMIT, call, framed},
};

/// A server whose threads can be held at a failpoint.
struct Held {
    server: Serve,
    trap: PathBuf,
    _dir: TempDir,
}

impl Held {
    fn at(failpoint: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trap = dir.path().join("trap");
        let mut command = process::taskyard();
        command.env("FAILPOINTS", format!("{failpoint}=trap:{}", trap.display()));
        let server = Serve::by(command, &dir.path().join("data"), more);
        Self { server, trap, _dir: dir }
    }

    async fn client(&self) -> Client {
        connect(self.server.address.parse().unwrap()).await
    }

    fn arm(&self) {
        std::fs::write(&self.trap, "").unwrap();
    }

    /// Waits until a thread is held.
    async fn caught(&self) {
        let caught = self.trap.with_extension("caught");
        let looking = async {
            while !caught.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("no thread comes there");
    }

    fn release(&self) {
        std::fs::remove_file(&self.trap).unwrap();
    }
}

/// A list that matches nothing, and looks at everything for it.
fn nothing() -> ListTasksRequest {
    let filter = TaskFilter { kinds: vec!["none".into()], ..Default::default() };
    ListTasksRequest { filter: Some(filter), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_short_waits_for_no_list() {
    let held = Held::at("reader.list", &["--queue-max-tasks", "1"]);
    let mut client = held.client().await;
    let ended = submit(&mut client, task("noop")).await.task_id;
    wait(&mut client, &ended).await;
    let address = format!("http://{}", held.server.address);
    let mut admin = AdminServiceClient::connect(address).await.expect("the server answers");
    pause(&mut admin, "default").await;
    let waiting = SubmitRequest { request_id: "r".into(), ..task("noop") };
    let id = submit(&mut client, waiting.clone()).await.task_id;

    held.arm();
    let mut lists = JoinSet::new();
    for _ in 0..4 {
        let client = held.client().await;
        for _ in 0..8 {
            let mut client = client.clone();
            lists.spawn(async move { client.list_tasks(nothing()).await });
        }
    }
    held.caught().await;

    let short = async {
        assert_eq!(get(&mut client, &ended).await.task_id, ended);
        // The queue is full, so the id is looked up.
        assert!(submit(&mut client, waiting).await.existing);
        let mut watch = Watch::oldest(&mut client).await;
        while watch.until(EventType::Submitted).await.task_id != id {}
    };
    tokio::time::timeout(PATIENCE, short).await.expect("it waits for a list");
    assert!(lists.try_join_next().is_none(), "the lists are still held");
    held.release();
    while let Some(list) = lists.join_next().await {
        list.unwrap().expect("a page");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_counts_while_a_request_id_is_looked_up() {
    let held = Held::at("reader.request", &["--queue-max-tasks", "1"]);
    let mut client = held.client().await;
    let later = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    submit(&mut client, SubmitRequest { delay: later, ..task("noop") }).await;
    held.arm();
    let request = SubmitRequest { request_id: "r".into(), ..task("noop") };
    let body = framed(&request.encode_to_vec());
    // A bare call, so that nobody but the server keeps the deadline.
    let address = held.server.address.parse().unwrap();
    let status = call(address, SUBMIT, &[("grpc-timeout", "200m")], body.clone()).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(reason(&status), "DEADLINE");
    held.caught().await;
    held.release();
    // It was not enqueued behind its caller's back.
    let listed = client.list_tasks(ListTasksRequest::default()).await.expect("a page");
    assert_eq!(listed.into_inner().tasks.len(), 1);
}
