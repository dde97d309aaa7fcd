//! Pages of the database that the disk does not give any more, or that SQLite finds torn.

use std::{fs, path::Path};

use taskyard::proto::v1::{
    EventType, GetTaskRequest, ListTasksRequest, SubmitRequest, TaskState, submit_request::Payload,
};
use tonic::Status;

use crate::{
    power::server::{Server, Traced},
    support::{self, Admin, Client, Watch, connect, get, reason, submit, task, wait},
};

const PAGE: usize = 4_096;

/// A payload that fills pages of its own.
static LARGE: [u8; 20_000] = [0xa7; 20_000];

/// The first page of the database that has nothing but the large payload.
fn page_of_large(database: &Path) -> usize {
    let bytes = fs::read(database).expect("the database");
    let is_large = |page: &[u8]| page[4..].iter().all(|byte| *byte == LARGE[0]);
    bytes.chunks(PAGE).position(is_large).expect("a page of the payload")
}

async fn clients(server: &Server) -> (Client, Admin) {
    let admin = Admin::connect(format!("http://{}", server.address)).await.expect("it answers");
    (connect(server.address.parse().expect("an address")).await, admin)
}

#[track_caller]
fn is_damage(status: &Status, place: &str) {
    assert_eq!(reason(status), "DAMAGED", "{status:?}");
    assert!(status.message().contains(place), "{status:?}");
}

/// Whoever needs the page is told so; nobody else notices, and no start is kept from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_concerns_its_task_alone() {
    for is_torn in [false, true] {
        let dir = tempfile::tempdir().expect("a directory");
        let database = dir.path().join("taskyard.db");
        let traced = Traced::of(dir.path());
        let server = traced.start().expect("it starts");
        let (mut client, mut admin) = clients(&server).await;
        support::pause(&mut admin, "default").await;
        let large = Some(Payload::Data(LARGE.to_vec().into()));
        let mut tasks = Vec::new();
        for payload in [None, large, None] {
            let request = SubmitRequest { payload, ..task("noop") };
            tasks.push(submit(&mut client, request).await.task_id);
        }
        server.drain();
        let page = page_of_large(&database);
        if is_torn {
            // The chain of pages leads nowhere.
            let mut bytes = fs::read(&database).expect("the database");
            bytes[page * PAGE..page * PAGE + 4].fill(0xff);
            fs::write(&database, bytes).expect("written");
        } else {
            traced.control.lose_page(page);
        }

        let server = traced.start().unwrap_or_else(|said| panic!("it does not start: {said}"));
        let (mut client, mut admin) = clients(&server).await;
        let damaged = GetTaskRequest { task_id: tasks[1].clone() };
        is_damage(&client.get_task(damaged.clone()).await.unwrap_err(), "row 2 of table task");
        let list = client.list_tasks(ListTasksRequest::default()).await;
        is_damage(&list.unwrap_err(), "the database is damaged");
        assert_eq!(get(&mut client, &tasks[0]).await.state(), TaskState::Queued);
        // All three start in the group that resumes the queue.
        support::resume(&mut admin, "default").await;
        for whole in [&tasks[0], &tasks[2]] {
            assert_eq!(wait(&mut client, whole).await.state(), TaskState::Succeeded);
        }
        let failed = Watch::oldest(&mut client).await.until(EventType::Failed).await;
        assert_eq!(failed.task_id, tasks[1]);
        assert_eq!(failed.error.expect("an error").reason, "RECORD_DAMAGED");
        let new = submit(&mut client, task("noop")).await.task_id;
        assert_eq!(wait(&mut client, &new).await.state(), TaskState::Succeeded);
        drop(server);

        // Once more, as a crash has left it.
        let server = traced.start().unwrap_or_else(|said| panic!("it does not start: {said}"));
        let (mut client, mut admin) = clients(&server).await;
        assert!(!support::queue(&mut admin, "default").await.paused, "that was not undone");
        assert_eq!(get(&mut client, &new).await.state(), TaskState::Succeeded);
        is_damage(&client.get_task(damaged).await.unwrap_err(), "row 2 of table task");
        assert!(is_torn || traced.control.hits(0) > 2, "the page was never read");
    }
}
