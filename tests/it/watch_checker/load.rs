//! Clients that cause transitions, and note each one that was acknowledged. Where an
//! answer is lost they ask again until there is one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use taskyard::{
    client::{Admin, Client, Tasks, is_lost},
    events::Cursor,
    proto::v1::{
        CancelTaskRequest, ListTasksRequest, PauseQueueRequest, RedriveTaskRequest,
        ResizePoolRequest, ResumeQueueRequest, RetryPolicy, SubmitRequest, Task, TaskFilter,
        TaskState, WaitTaskRequest, WatchEventsRequest, watch_events_response::Control,
    },
};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status, transport::Endpoint};

use crate::{
    support::{PATIENCE, sleep, span, task},
    watch_checker::ledger::Ledger,
};

const SUBMITTERS: u64 = 12;
const QUEUES: [&str; 4] = ["default", "mail", "reports", "paused-now-and-then"];

/// A client of the server at this address, which need not be there yet.
pub fn client(address: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    Client::over(endpoint.connect_timeout(Duration::from_secs(2)).connect_lazy())
}

/// Asks until there is an answer; whether an answer was lost on the way.
async fn ask<T, Answer>(mut call: impl FnMut() -> Answer) -> (Result<T, Status>, bool)
where
    Answer: Future<Output = Result<Response<T>, Status>>,
{
    let mut lost = None;
    let asking = async {
        loop {
            match call().await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if is_lost(&status) => {
                    lost = Some(status);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(status) => return Err(status),
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    let call = std::any::type_name::<T>();
    let answer = answer.unwrap_or_else(|_| panic!("no answer is {call}, after {lost:?}"));
    (answer, lost.is_some())
}

/// All clients.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
    ledger: Ledger,
}

impl Load {
    /// Begins.
    pub fn begin(address: SocketAddr, seed: u64) -> Self {
        let (stop, ledger) = (Arc::new(AtomicBool::new(false)), Ledger::default());
        let mut clients = JoinSet::new();
        for number in 0..SUBMITTERS {
            let submitter = Submitter {
                tasks: client(address).tasks(),
                random: StdRng::seed_from_u64(seed ^ (number + 1) << 32),
                ledger: ledger.clone(),
                name: format!("{seed}-{number}"),
            };
            clients.spawn(submitter.work(Arc::clone(&stop)));
        }
        let random = StdRng::seed_from_u64(seed ^ 77 << 32);
        clients.spawn(operate(client(address).admin(), random, ledger.clone(), Arc::clone(&stop)));
        Self { stop, clients, ledger }
    }

    /// Ends, once every answer is there.
    pub async fn end(self) -> Ledger {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.join_all().await;
        self.ledger
    }
}

struct Submitter {
    tasks: Tasks,
    random: StdRng,
    ledger: Ledger,
    name: String,
}

impl Submitter {
    async fn work(mut self, stop: Arc<AtomicBool>) {
        let mut number = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let task_id = self.submit(number).await;
            match self.random.random_range(0..20) {
                0..3 => self.cancel(&task_id).await,
                3..5 => self.wait(&task_id).await,
                5 => {
                    self.cancel(&task_id).await;
                    self.redrive(&task_id).await;
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..4))).await;
        }
    }

    async fn submit(&mut self, number: u64) -> String {
        let request = SubmitRequest {
            request_id: format!("{}-{number}", self.name),
            queue: QUEUES[self.random.random_range(0..QUEUES.len())].into(),
            labels: [(
                "shade".to_owned(),
                ["dark", "light"][self.random.random_range(0..2)].into(),
            )]
            .into(),
            ..self.kind()
        };
        let tasks = &self.tasks;
        let answer = ask(|| {
            let (mut tasks, request) = (tasks.clone(), request.clone());
            async move { tasks.submit(request).await }
        });
        let task_id = answer.await.0.expect("every submission is good").task_id;
        self.ledger.submitted(&task_id, &request);
        task_id
    }

    fn kind(&mut self) -> SubmitRequest {
        match self.random.random_range(0..20) {
            0..12 => task("noop"),
            12..16 => sleep(&format!("{}ms", self.random.random_range(1..20))),
            16..18 => SubmitRequest {
                delay: span(Duration::from_millis(self.random.random_range(1..300))),
                ..task("noop")
            },
            // Never succeeds.
            _ => SubmitRequest {
                timeout: span(Duration::from_millis(5)),
                retry: Some(RetryPolicy {
                    max_attempts: self.random.random_range(1..4),
                    initial_backoff: span(Duration::from_millis(10)),
                    max_backoff: span(Duration::from_millis(50)),
                }),
                ..sleep("1h")
            },
        }
    }

    async fn cancel(&mut self, task_id: &str) {
        let tasks = &self.tasks;
        let (answer, _) = ask(|| {
            let (mut tasks, task_id) = (tasks.clone(), task_id.to_owned());
            async move { tasks.cancel_task(CancelTaskRequest { task_id }).await }
        })
        .await;
        match answer {
            Ok(response) => {
                let state = response.task.expect("it is told").state();
                self.ledger.note(task_id, |known| known.cancelled |= state == TaskState::Cancelled);
            }
            Err(status) => assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}"),
        }
    }

    async fn redrive(&mut self, task_id: &str) {
        let tasks = &self.tasks;
        let (answer, lost) = ask(|| {
            let (mut tasks, task_id) = (tasks.clone(), task_id.to_owned());
            async move { tasks.redrive_task(RedriveTaskRequest { task_id }).await }
        })
        .await;
        self.ledger.note(task_id, |known| {
            known.perhaps_redriven += u32::from(lost);
            known.redriven += u32::from(answer.is_ok());
        });
        if let Err(status) = answer {
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        }
    }

    async fn wait(&mut self, task_id: &str) {
        let tasks = &self.tasks;
        let request =
            WaitTaskRequest { task_id: task_id.into(), timeout: span(Duration::from_millis(500)) };
        let (answer, _) = ask(|| {
            let (mut tasks, request) = (tasks.clone(), request.clone());
            async move { tasks.wait_task(request).await }
        })
        .await;
        let task = answer.expect("the task").task.expect("it is told");
        if is_terminal(&task) {
            self.ledger.note(task_id, |known| known.ended.push((task.state(), task.attempt)));
        }
    }
}

fn is_terminal(task: &Task) -> bool {
    matches!(task.state(), TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled)
}

/// Pauses and resumes a queue, and changes the size of the pool.
async fn operate(admin: Admin, mut random: StdRng, ledger: Ledger, stop: Arc<AtomicBool>) {
    let queue = QUEUES[3];
    while !stop.load(Ordering::Relaxed) {
        let pause = ask(|| {
            let mut admin = admin.clone();
            async move { admin.pause_queue(PauseQueueRequest { queue: queue.into() }).await }
        });
        pause.await.0.expect("it is paused");
        tokio::time::sleep(Duration::from_millis(random.random_range(50..400))).await;
        let resume = ask(|| {
            let mut admin = admin.clone();
            async move { admin.resume_queue(ResumeQueueRequest { queue: queue.into() }).await }
        });
        resume.await.0.expect("it is resumed");
        ledger.paused_and_resumed(queue);
        let size = random.random_range(2..7);
        let resize = ask(|| {
            let mut admin = admin.clone();
            async move { admin.resize_pool(ResizePoolRequest { size }).await }
        });
        resize.await.0.expect("it is resized");
        tokio::time::sleep(Duration::from_millis(random.random_range(50..400))).await;
    }
}

/// Waits until every task has ended and the pool is as large as it is going to be; the
/// number of the last event.
pub async fn settle(address: SocketAddr) -> u64 {
    let client = client(address);
    let live = [TaskState::Scheduled, TaskState::Queued, TaskState::Running];
    let settling = async {
        loop {
            let request = ListTasksRequest {
                filter: Some(TaskFilter {
                    states: live.map(Into::into).into(),
                    ..TaskFilter::default()
                }),
                omit_payloads: true,
                ..ListTasksRequest::default()
            };
            let page = ask(|| {
                let (mut tasks, request) = (client.tasks(), request.clone());
                async move { tasks.list_tasks(request).await }
            });
            let page = page.await.0.expect("a page");
            if page.tasks.is_empty() && page.next_page_token.is_empty() {
                return newest(&client).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settling).await.expect("tasks are stuck")
}

async fn newest(client: &Client) -> u64 {
    let request = WatchEventsRequest::default();
    let mut stream = client.tasks().watch_events(request).await.expect("it begins").into_inner();
    match stream.message().await.expect("a message").and_then(|message| message.control) {
        Some(Control::Started(started)) => {
            started.newest_cursor.parse::<Cursor>().expect("a cursor").seq().0
        }
        other => panic!("{other:?}"),
    }
}
