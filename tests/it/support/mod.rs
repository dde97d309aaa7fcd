//! A real server on a free port with a store of its own, and a real client.
#![allow(clippy::unnecessary_wraps, reason = "what message fields take")]

pub mod process;
pub mod terminal;
pub mod watching;
pub mod wire;

use std::{
    path::Path,
    process::Command,
    sync::{Arc, Once},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use taskyard::{
    config::Config,
    drain,
    handler::{Error, Execution, Handler, Noop, Output, Registry, Sleep},
    proto::v1::{
        self, Event, EventType, GetTaskRequest, ListQueuesRequest, ListTasksRequest,
        PauseQueueRequest, Queue, ResumeQueueRequest, SubmitRequest, SubmitResponse, Task,
        TaskState, WaitTaskRequest, WatchEventsRequest, WatchEventsResponse, WatchStart, WhenFull,
        admin_service_client::AdminServiceClient, task_service_client::TaskServiceClient,
    },
    server::{Server, StartError},
    store::{DirectoryError, OpenError},
};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tonic::{Status, Streaming, transport::Channel};

pub type Client = TaskServiceClient<Channel>;

/// An operator's client.
pub type Admin = AdminServiceClient<Channel>;

/// Long enough that only a hang exceeds it.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Ends a task for each permit, so that a test decides when.
#[derive(Clone)]
pub struct Gate(pub Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    /// Lets all tasks end that there will be.
    pub fn open(&self) {
        self.0.add_permits(1_000_000);
    }
}

impl Handler for Gate {
    async fn run(&self, _execution: Execution) -> Result<Output, Error> {
        self.0.acquire().await?.forget();
        Ok(Output::empty())
    }
}

pub struct TestServer {
    pub server: Server,
    pub dir: TempDir,
}

/// The settings that tests start from: two workers, a free port, short graces.
pub fn config(data_dir: &Path) -> Config {
    Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: data_dir.to_owned(),
        workers: 2.try_into().unwrap(),
        drain_timeout: Duration::from_secs(10),
        cancel_grace: Duration::from_secs(1),
        ..Config::default()
    }
}

pub fn builtin() -> Registry {
    let mut registry = Registry::default();
    registry.insert("noop", Noop);
    registry.insert("sleep", Sleep);
    registry
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(|_| {}, builtin()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config), registry: Registry) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::on(dir, change, registry).await
    }

    pub async fn on(dir: TempDir, change: impl FnOnce(&mut Config), registry: Registry) -> Self {
        let mut config = config(dir.path());
        change(&mut config);
        // A store that was cut off by a short drain is let go of a little later.
        let began = Instant::now();
        let server = loop {
            match Server::start(&config, registry.clone()).await {
                Ok(server) => break server,
                Err(StartError::Store(OpenError::Directory(DirectoryError::InUse { .. })))
                    if began.elapsed() < PATIENCE =>
                {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("the server does not start: {error}"),
            }
        };
        Self { server, dir }
    }

    pub async fn admin(&self) -> Admin {
        let address = format!("http://{}", self.server.local_addr());
        Admin::connect(address).await.expect("the server answers")
    }

    pub async fn client(&self) -> Client {
        connect(self.server.local_addr()).await
    }

    pub async fn drain(self) -> (drain::Report, TempDir) {
        (self.server.drain().await, self.dir)
    }
}

/// A connection of the test's own to a database.
///
/// A process that opens stores must not use SQLite for other things before it has opened the
/// first one, nor while it does: SQLite takes its settings then. So a store is opened first.
pub fn database(path: &Path) -> Connection {
    static OPENED: Once = Once::new();
    OPENED.call_once(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // Of a runtime that runs the test, if it has one, nothing may be waited for here.
        let opened = std::thread::spawn(move || {
            runtime.block_on(async { TestServer::start().await.drain().await });
        });
        opened.join().expect("a store is opened");
    });
    Connection::open(path).unwrap()
}

/// Whether this test has the process to itself. If not, it runs in one that it has, and
/// whoever asked has nothing left to do. `module` is its `module_path!()`.
pub fn is_alone(module: &str, test: &str) -> bool {
    const ALONE: &str = "TEST_IS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let (_program, module) = module.split_once("::").expect("a module of the program");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("{module}::{test}"), "--nocapture"]).env(ALONE, "");
    let said = process::Said::of(command.output().unwrap());
    assert!(said.code == 0 && said.out.contains("1 passed"), "{}{}", said.out, said.err);
    false
}

pub async fn connect(address: std::net::SocketAddr) -> Client {
    TaskServiceClient::connect(format!("http://{address}")).await.expect("the server answers")
}

pub fn task(kind: &str) -> SubmitRequest {
    SubmitRequest { kind: kind.into(), ..Default::default() }
}

pub fn sleep(duration: &str) -> SubmitRequest {
    SubmitRequest { payload: args(&[("duration", duration)]), ..task("sleep") }
}

pub fn args(pairs: &[(&str, &str)]) -> Option<v1::submit_request::Payload> {
    let fields = pairs.iter().map(|(name, text)| {
        let kind = prost_types::value::Kind::StringValue((*text).into());
        ((*name).to_owned(), prost_types::Value { kind: Some(kind) })
    });
    Some(v1::submit_request::Payload::Args(prost_types::Struct { fields: fields.collect() }))
}

pub fn span(duration: Duration) -> Option<prost_types::Duration> {
    Some(duration.try_into().unwrap())
}

pub async fn submit(client: &mut Client, task: SubmitRequest) -> SubmitResponse {
    client.submit(task).await.expect("submitted").into_inner()
}

pub async fn get(client: &mut Client, task_id: &str) -> Task {
    let request = GetTaskRequest { task_id: task_id.into() };
    client.get_task(request).await.expect("the task").into_inner().task.unwrap()
}

/// Waits for the end of a task.
pub async fn wait(client: &mut Client, task_id: &str) -> Task {
    let request = WaitTaskRequest { task_id: task_id.into(), timeout: span(PATIENCE) };
    let task = client.wait_task(request).await.expect("the task").into_inner().task.unwrap();
    let ended = [TaskState::Succeeded, TaskState::Failed, TaskState::Cancelled];
    assert!(ended.contains(&task.state()), "still {:?}", task.state());
    task
}

/// A watch, as a client keeps it.
pub struct Watch {
    stream: Streaming<WatchEventsResponse>,
    pub cursor: String,
    ready: std::collections::VecDeque<Event>,
}

impl Watch {
    pub async fn begin(client: &mut Client, request: WatchEventsRequest) -> Self {
        let stream = client.watch_events(request).await.expect("the watch begins").into_inner();
        let mut watch = Self { stream, cursor: String::new(), ready: [].into() };
        let started = watch.message().await.unwrap();
        assert!(
            matches!(started.control, Some(v1::watch_events_response::Control::Started(_))),
            "{started:?}"
        );
        watch
    }

    pub async fn live(client: &mut Client) -> Self {
        Self::begin(client, WatchEventsRequest::default()).await
    }

    pub async fn oldest(client: &mut Client) -> Self {
        let start = WatchStart::Oldest.into();
        Self::begin(client, WatchEventsRequest { start, ..Default::default() }).await
    }

    pub async fn after(client: &mut Client, cursor: &str) -> Self {
        let after_cursor = cursor.into();
        Self::begin(client, WatchEventsRequest { after_cursor, ..Default::default() }).await
    }

    /// The next message, or how the stream ended.
    pub async fn message(&mut self) -> Result<WatchEventsResponse, Status> {
        let next = tokio::time::timeout(PATIENCE, self.stream.message());
        let message = next.await.expect("the watch hangs")?.expect("a watch never ends with OK");
        self.cursor.clone_from(&message.cursor);
        Ok(message)
    }

    pub async fn event(&mut self) -> Event {
        // Heartbeats come for ever.
        let next = async {
            loop {
                if let Some(event) = self.ready.pop_front() {
                    return event;
                }
                let message = self.message().await.expect("more events");
                self.ready.extend(message.events);
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("the event does not come")
    }

    /// The next event of this type.
    pub async fn until(&mut self, event_type: EventType) -> Event {
        loop {
            let event = self.event().await;
            if event.r#type() == event_type {
                return event;
            }
        }
    }

    /// All events to the end of the stream, and how it ended.
    pub async fn rest(mut self) -> (Vec<Event>, Status, String) {
        let mut events: Vec<_> = self.ready.drain(..).collect();
        loop {
            match self.message().await {
                Ok(message) => events.extend(message.events),
                Err(status) => return (events, status, self.cursor),
            }
        }
    }
}

/// One worker that is busy, and a queue of two that is full: all with tasks of
/// the kind `gated`.
pub async fn full_test_server(change: impl FnOnce(&mut Config)) -> (TestServer, Gate, Client) {
    let gate = Gate::default();
    let mut registry = builtin();
    registry.insert("gated", gate.clone());
    let tight = |config: &mut Config| {
        config.workers = 1.try_into().unwrap();
        config.queue_max_tasks = 2;
        change(config);
    };
    let test_server = TestServer::with(tight, registry).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::live(&mut client).await;
    submit(&mut client, task("gated")).await;
    watch.until(EventType::Started).await;
    for _ in 0..2 {
        submit(&mut client, task("gated")).await;
    }
    (test_server, gate, client)
}

/// A queue as it stands; it must be there.
pub async fn queue(admin: &mut Admin, name: &str) -> Queue {
    let one = ListQueuesRequest { queue: name.into(), ..Default::default() };
    let mut queues = admin.list_queues(one).await.expect("the queues").into_inner().queues;
    queues.pop().expect("it is there")
}

/// Waits until a caller stands in line for room in the queue; answers with how the
/// queue stands then.
pub async fn until_in_line(admin: &mut Admin, name: &str) -> Queue {
    let looking = async {
        loop {
            let queue = queue(admin, name).await;
            if queue.waiting_callers > 0 {
                return queue;
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("nobody stands in line")
}

/// Pauses a queue.
pub async fn pause(admin: &mut Admin, name: &str) {
    admin.pause_queue(PauseQueueRequest { queue: name.into() }).await.expect("paused");
}

/// Resumes a queue.
pub async fn resume(admin: &mut Admin, name: &str) {
    admin.resume_queue(ResumeQueueRequest { queue: name.into() }).await.expect("resumed");
}

/// The request, as of somebody who does not wait for room.
pub fn reject(request: SubmitRequest) -> SubmitRequest {
    SubmitRequest { when_full: WhenFull::Reject.into(), ..request }
}

/// How many tasks there are.
pub async fn count(client: &mut Client) -> usize {
    let (mut tasks, mut page_token) = (0, String::new());
    loop {
        let page = ListTasksRequest {
            page_size: 1_000,
            page_token,
            omit_payloads: true,
            ..Default::default()
        };
        let page = client.list_tasks(page).await.expect("a page").into_inner();
        tasks += page.tasks.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return tasks;
        }
    }
}

/// The reason of a status, as programs read it.
pub fn reason(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no reason: {status:?}"));
    assert_eq!(info.domain, "taskyard");
    let size = status.message().len() + status.details().len();
    assert!(size < 4096, "a status of {size} bytes breaks clients");
    info.reason
}

/// The fields that a status names.
pub fn fields(status: &Status) -> Vec<String> {
    use tonic_types::StatusExt as _;
    let named = status.get_details_bad_request().unwrap_or_else(|| panic!("{status:?}"));
    named.field_violations.into_iter().map(|violation| violation.field).collect()
}
