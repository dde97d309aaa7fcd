//! Between a commit and its publication: whoever reads then must not be told what
//! nobody can watch yet. A failpoint holds the store there.

use std::{path::PathBuf, time::Duration};

use taskyard::proto::v1::{
    CancelTaskRequest, Event, EventType, ListTasksRequest, SubmitBatchRequest, SubmitRequest,
    TaskState, WatchEventsRequest, WatchStart, submit_result::Result as Outcome,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::{self, Client, PATIENCE, connect, get, process, process::Serve, task};

/// Long enough for an answer that comes too early to come. One that is late only weakens
/// the test.
const TOO_EARLY: Duration = Duration::from_millis(500);

/// A server that can be held between a commit and its publication.
struct Held {
    server: Serve,
    trap: PathBuf,
    _dir: TempDir,
}

impl Held {
    /// With room for so many tasks. Its one worker has joined already.
    async fn start(room: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trap = dir.path().join("trap");
        let mut command = process::taskyard();
        command.env("FAILPOINTS", format!("engine.publish=trap:{}", trap.display()));
        let more = ["--workers", "1", "--queue-max-tasks", room];
        let server = Serve::by(command, &dir.path().join("data"), &more);
        let held = Self { server, trap, _dir: dir };
        let mut client = held.client().await;
        let first = support::submit(&mut client, task("noop")).await;
        support::wait(&mut client, &first.task_id).await;
        held
    }

    async fn client(&self) -> Client {
        connect(self.server.address.parse().unwrap()).await
    }

    fn arm(&self) {
        std::fs::write(&self.trap, "").unwrap();
    }

    /// Waits until something is committed and not published.
    async fn caught(&self) {
        let caught = self.trap.with_extension("caught");
        let looking = async {
            while !caught.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("nothing is committed");
    }

    fn release(&self) {
        std::fs::remove_file(&self.trap).unwrap();
    }

    /// The call's answer, which it gets early if it must not, and otherwise when the
    /// store goes on.
    async fn answer<T: Send + 'static>(&self, mut call: JoinHandle<T>) -> T {
        let early = tokio::time::timeout(TOO_EARLY, &mut call).await;
        if let Ok(answer) = early {
            return answer.unwrap();
        }
        self.release();
        tokio::time::timeout(PATIENCE, call).await.expect("it goes on").unwrap()
    }
}

fn later(request_id: &str) -> SubmitRequest {
    let delay = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    SubmitRequest { request_id: request_id.into(), delay, ..task("noop") }
}

/// All events that can be watched now.
async fn events(client: &mut Client, after_cursor: &str) -> Vec<Event> {
    let start = if after_cursor.is_empty() { WatchStart::Oldest } else { WatchStart::Unspecified };
    let request = WatchEventsRequest {
        after_cursor: after_cursor.into(),
        start: start.into(),
        stop_when_caught_up: true,
        ..Default::default()
    };
    let mut stream = client.watch_events(request).await.expect("the cursor is good").into_inner();
    let mut events = Vec::new();
    while let Some(message) = stream.message().await.expect("a good end") {
        events.extend(message.events);
    }
    events
}

fn told(events: &[Event], id: &str, event_type: EventType) -> bool {
    events.iter().any(|event| event.task_id == id && event.r#type() == event_type)
}

/// A queue that one task fills, whose cancellation is committed and not published.
async fn cancelled_in_secret(held: &Held) -> (String, JoinHandle<()>) {
    let mut client = held.client().await;
    let id = client.submit(later("r")).await.expect("taken").into_inner().task_id;
    held.arm();
    let cancel = CancelTaskRequest { task_id: id.clone() };
    let cancelling = tokio::spawn(async move {
        client.cancel_task(cancel).await.expect("cancelled");
    });
    held.caught().await;
    (id, cancelling)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_task_is_told_its_end_however_early_one_asks() {
    let held = Held::start("1").await;
    let (id, cancelling) = cancelled_in_secret(&held).await;
    let mut client = held.client().await;
    let following = tokio::spawn(async move {
        let mut stream = client.submit_and_watch(later("r")).await.expect("known").into_inner();
        let mut events = Vec::new();
        while let Some(message) = stream.message().await.expect("a good end") {
            events.extend(message.events);
        }
        events
    });
    let events = held.answer(following).await;
    assert!(told(&events, &id, EventType::Cancelled), "{events:?}");
    cancelling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_an_end_can_watch_it() {
    let held = Held::start("1").await;
    let (id, cancelling) = cancelled_in_secret(&held).await;
    let mut client = held.client().await;
    let wanted = id.clone();
    let reading = tokio::spawn(async move {
        let state = get(&mut client, &wanted).await.state();
        let page = client.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner();
        (state, page.tasks[1].state(), events(&mut client, "").await)
    });
    let (state, listed, events) = held.answer(reading).await;
    assert_eq!((state, listed), (TaskState::Cancelled, TaskState::Cancelled));
    assert!(told(&events, &id, EventType::Cancelled), "{events:?}");
    cancelling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_was_just_given_is_good() {
    let held = Held::start("2").await;
    let mut client = held.client().await;
    held.arm();
    let requests = vec![later("first"), later("second")];
    let batch = SubmitBatchRequest { requests, ..Default::default() };
    let submitting = tokio::spawn(async move {
        client.submit_batch(batch).await.expect("taken").into_inner().results
    });
    held.caught().await;
    let mut client = held.client().await;
    let repeating = tokio::spawn(async move {
        let again = client.submit(later("second")).await.expect("known").into_inner();
        (again.clone(), events(&mut client, &again.cursor).await)
    });
    let (again, events) = held.answer(repeating).await;
    assert!(told(&events, &again.task_id, EventType::Submitted), "{events:?}");
    let results = submitting.await.unwrap();
    let Some(Outcome::Ack(ack)) = &results[1].result else { panic!("{results:?}") };
    assert_eq!(ack.task_id, again.task_id);
}
