//! Clients that put a server to work, and note what they are told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use taskyard::proto::v1::{
    CancelTaskRequest, RetryPolicy, SubmitRequest, TaskState, WaitTaskRequest, WatchEventsRequest,
    WatchStart, submit_request::Payload,
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::{
    power::ledger::{Ledger, Note},
    support::{Client, PATIENCE, reason, sleep, span, task},
};

const CALLERS: u32 = 6;

/// A task of any sort: small or large, short or delayed for long, failing or not.
pub fn any_task(request_id: &str, random: &mut StdRng) -> SubmitRequest {
    let large = random.random_range(0..3) == 0;
    let size = if large { random.random_range(4_000..60_000) } else { random.random_range(0..600) };
    let data = (0..size).map(|_| random.random()).collect::<Vec<u8>>();
    let delay = (random.random_range(0..3) == 0)
        .then_some(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let request_id = request_id.to_owned();
    if random.random_range(0..8) == 0 {
        let pause = span(Duration::from_millis(2));
        let retry = RetryPolicy { max_attempts: 2, initial_backoff: pause, max_backoff: pause };
        let (timeout, retry) = (pause, Some(retry));
        return SubmitRequest { request_id, timeout, retry, ..sleep("1h") };
    }
    let payload = Some(Payload::Data(data.into()));
    SubmitRequest { request_id, payload, delay, ..task("noop") }
}

/// Submits `tasks` tasks by several callers at once, cancels some, waits for some, and
/// watches; to the end, or until the server takes no more. Answers with how many it took.
pub async fn run(
    client: &Client,
    ledger: &Arc<Ledger>,
    name: &str,
    tasks: u32,
    random: &mut StdRng,
) -> u32 {
    let watching = tokio::spawn(watch(client.clone(), Arc::clone(ledger)));
    let next = Arc::new(AtomicU32::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let own = StdRng::seed_from_u64(random.random());
        let (client, ledger, next) = (client.clone(), Arc::clone(ledger), Arc::clone(&next));
        let name = name.to_owned();
        callers.spawn(async move {
            let mut caller = Caller { client, ledger, random: own };
            let mut taken = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= tasks {
                    return taken;
                }
                match caller.once(&format!("{name}-{number}")).await {
                    Some(()) => taken += 1,
                    None => return taken,
                }
            }
        });
    }
    let mut taken = 0;
    while let Some(caller) = callers.join_next().await {
        taken += caller.expect("no caller panics");
    }
    watching.abort();
    taken
}

struct Caller {
    client: Client,
    ledger: Arc<Ledger>,
    random: StdRng,
}

impl Caller {
    /// One task, and perhaps what comes after. `None` if the server takes no more.
    async fn once(&mut self, request_id: &str) -> Option<()> {
        let request = any_task(request_id, &mut self.random);
        let task_id = submit(&mut self.client, &self.ledger, request).await?;
        match self.random.random_range(0..4) {
            0 => self.cancel(task_id).await,
            1 => self.wait(task_id).await,
            _ => Some(()),
        }
    }

    async fn cancel(&mut self, task_id: String) -> Option<()> {
        let request = CancelTaskRequest { task_id: task_id.clone() };
        match self.client.cancel_task(request).await {
            Ok(_) => self.wait(task_id).await,
            Err(status) if status.code() == Code::FailedPrecondition => Some(()),
            Err(_) => None,
        }
    }

    async fn wait(&mut self, task_id: String) -> Option<()> {
        let timeout = span(Duration::from_millis(200));
        let request = WaitTaskRequest { task_id: task_id.clone(), timeout };
        let answer = self.client.wait_task(request).await.ok()?.into_inner();
        let state = answer.task.expect("the task").state();
        if matches!(state, TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled) {
            self.ledger.note(Note::Ended { task_id, state });
        }
        Some(())
    }
}

/// Submits a task that waits for long, and notes what came of it; answers with its id.
pub async fn take(client: &mut Client, ledger: &Ledger, request_id: &str) -> Option<String> {
    let delay = span(Duration::from_hours(1));
    let request = SubmitRequest { request_id: request_id.into(), delay, ..task("noop") };
    submit(client, ledger, request).await
}

/// Submits one task, and notes what came of it; answers with its id.
pub async fn submit(
    client: &mut Client,
    ledger: &Ledger,
    request: SubmitRequest,
) -> Option<String> {
    let request_id = request.request_id.clone();
    ledger.note(Note::Asked { request_id: request_id.clone() });
    let began = Instant::now();
    let answer = loop {
        let answer = tokio::time::timeout(PATIENCE, client.submit(request.clone())).await;
        match answer.expect("a submission hangs") {
            Err(status) if is_for_now(&status) => {
                assert!(began.elapsed() < PATIENCE, "{status:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => break answer,
        }
    };
    match answer {
        Ok(answer) => {
            let task_id = answer.into_inner().task_id;
            ledger.note(Note::Acknowledged { request_id, task_id: task_id.clone() });
            Some(task_id)
        }
        // Of a lost connection nothing is known.
        Err(status) if status.details().is_empty() => None,
        // Nor of what could not be cut off the log again.
        Err(status) if status.message().contains("may be there after the restart") => None,
        Err(status) => {
            assert_eq!(reason(&status), "STORE_FAILED", "{status:?}");
            ledger.note(Note::Refused { request_id });
            None
        }
    }
}

/// Whether the store takes no new task for a time.
fn is_for_now(status: &Status) -> bool {
    !status.details().is_empty() && ["WRITE_REFUSED", "LOG_FULL"].contains(&&*reason(status))
}

/// Watches everything, to the end of the server.
async fn watch(mut client: Client, ledger: Arc<Ledger>) {
    let start = WatchStart::Oldest.into();
    let request = WatchEventsRequest { start, ..Default::default() };
    let Ok(stream) = client.watch_events(request).await else { return };
    let mut stream = stream.into_inner();
    while let Ok(Some(message)) = stream.message().await {
        for event in message.events {
            ledger.note(Note::Seen(Box::new(event)));
        }
    }
}
