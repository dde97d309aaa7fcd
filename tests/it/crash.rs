//! kill -9 at random moments, fifty times in a row, under load: nothing that
//! was acknowledged is lost, nothing is stuck, and nothing that was seen is
//! taken back.
//!
//! The client keeps a ledger of what it was told. `CRASH_SEED` repeats a run.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;
use taskyard::proto::v1::{
    Event, EventType, ListTasksRequest, SubmitRequest, TaskState, WatchEventsRequest, WatchStart,
};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{Client, PATIENCE, connect, process::Serve, sleep, task, wait};

const CRASHES: u32 = 50;
const CALLERS: u32 = 16;

/// What the client knows: by `request_id`, the task that was acknowledged under
/// it, or `None` while the outcome is unknown.
type Ledger = Arc<Mutex<BTreeMap<String, Option<String>>>>;

/// No crash count fails a task here: each may be hit many times.
fn serve(dir: &std::path::Path) -> Serve {
    Serve::start(dir, &["--max-crashes", "1000", "--queue-max-tasks", "2000"])
}

fn request(id: &str) -> SubmitRequest {
    // Tasks of different lengths, so that some run at every crash.
    let request = match id.len() + usize::from(id.as_bytes()[id.len() - 1]) {
        odd if odd % 2 == 1 => sleep("5ms"),
        _ => task("noop"),
    };
    SubmitRequest { request_id: id.into(), ..request }
}

/// Submits until the server is gone; notes every call before it is made.
async fn submit_until_gone(mut client: Client, ledger: Ledger, name: String) {
    for number in 0.. {
        let id = format!("{name}-{number}");
        ledger.lock().unwrap().insert(id.clone(), None);
        match client.submit(request(&id)).await {
            Ok(answer) => {
                let task_id = answer.into_inner().task_id;
                ledger.lock().unwrap().insert(id, Some(task_id));
            }
            Err(_) => return,
        }
    }
}

/// Repeats what had no answer: the same id must give the same task, made once.
async fn settle_unknown(client: &mut Client, ledger: &Ledger) {
    let unknown: Vec<_> = {
        let ledger = ledger.lock().unwrap();
        ledger.iter().filter(|(_, task)| task.is_none()).map(|(id, _)| id.clone()).collect()
    };
    for id in unknown {
        let answer = client.submit(request(&id)).await.expect("the server is back").into_inner();
        ledger.lock().unwrap().insert(id, Some(answer.task_id));
    }
}

/// Everything a watcher saw, over all crashes, from its cursor on.
#[derive(Default)]
struct Seen {
    cursor: String,
    last: u64,
    events: Vec<Event>,
}

/// Watches until the server is gone, then hands over what was seen.
fn watch(mut client: Client, mut seen: Seen) -> JoinHandle<Seen> {
    tokio::spawn(async move {
        let start =
            if seen.cursor.is_empty() { WatchStart::Oldest } else { WatchStart::Unspecified };
        let request = WatchEventsRequest {
            after_cursor: seen.cursor.clone(),
            start: start.into(),
            ..Default::default()
        };
        // The server may be gone again before the call arrives.
        let mut stream = match client.watch_events(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                // Unknown is what the client makes of a connection that breaks in the call.
                let is_gone = [tonic::Code::Unavailable, tonic::Code::Unknown];
                assert!(is_gone.contains(&status.code()), "{status:?}");
                return seen;
            }
        };
        while let Ok(Some(message)) = stream.message().await {
            for event in message.events {
                assert_eq!(event.seq, seen.last + 1, "what was seen must not be taken back");
                seen.last = event.seq;
                seen.events.push(event);
            }
            seen.cursor = message.cursor;
        }
        seen
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_crashes_lose_nothing() {
    let repeat = std::env::var("CRASH_SEED").ok().and_then(|seed| seed.parse().ok());
    let repeat = repeat.unwrap_or_else(rand::random::<u64>);
    println!("CRASH_SEED={repeat}");
    let mut random = StdRng::seed_from_u64(repeat);
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::default();
    let mut seen = Seen::default();
    for crash in 0..CRASHES {
        let server = serve(dir.path());
        let mut client = connect(server.address.parse().unwrap()).await;
        let watching = watch(client.clone(), seen);
        settle_unknown(&mut client, &ledger).await;
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let name = format!("{crash}-{caller}");
            callers.spawn(submit_until_gone(client.clone(), Arc::clone(&ledger), name));
        }
        // The moment of the crash is what is random; nothing waits for it.
        tokio::time::sleep(Duration::from_millis(random.random_range(1..250))).await;
        server.signal(Signal::KILL);
        server.end();
        while let Some(caller) = callers.join_next().await {
            caller.unwrap();
        }
        seen = watching.await.unwrap();
    }
    let server = serve(dir.path());
    let mut client = connect(server.address.parse().unwrap()).await;
    let watching = watch(client.clone(), seen);
    settle_unknown(&mut client, &ledger).await;
    let ledger = ledger.lock().unwrap().clone();
    check_tasks(&mut client, &ledger).await;
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    check_events(&watching.await.unwrap(), &ledger);
}

/// Every acknowledged task ends well, and there are no others.
async fn check_tasks(client: &mut Client, ledger: &BTreeMap<String, Option<String>>) {
    assert!(ledger.len() > 500, "only {} tasks: too few to mean anything", ledger.len());
    for task_id in ledger.values().flatten() {
        let ended = tokio::time::timeout(PATIENCE, wait(client, task_id)).await.expect("stuck");
        assert_eq!(ended.state(), TaskState::Succeeded, "{ended:?}");
    }
    let mut listed = HashSet::new();
    let mut page_token = String::new();
    loop {
        let request = ListTasksRequest {
            page_size: 1000,
            page_token: std::mem::take(&mut page_token),
            omit_payloads: true,
            ..Default::default()
        };
        let page = client.list_tasks(request).await.unwrap().into_inner();
        for task in page.tasks {
            let known = ledger.get(&task.request_id).cloned().flatten();
            assert_eq!(known.as_ref(), Some(&task.task_id), "a task that nobody was told of");
            assert!(listed.insert(task.task_id), "listed twice");
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed.len(), ledger.len());
}

/// Every task's life, as told, is one that the state machine allows.
fn check_events(seen: &Seen, ledger: &BTreeMap<String, Option<String>>) {
    let mut lives: HashMap<&str, Vec<(EventType, u32)>> = HashMap::new();
    for event in seen.events.iter().filter(|event| !event.task_id.is_empty()) {
        lives.entry(&event.task_id).or_default().push((event.r#type(), event.attempt));
    }
    assert_eq!(lives.len(), ledger.len());
    let mut interrupted = 0;
    for (task, life) in lives {
        assert_eq!(life[0], (EventType::Submitted, 0), "{task}: {life:?}");
        for (number, attempt) in life[1..].chunks(2).enumerate() {
            let number = u32::try_from(number).unwrap() + 1;
            let is_last = usize::try_from(number).unwrap() * 2 == life.len() - 1;
            let end = if is_last { EventType::Succeeded } else { EventType::Interrupted };
            interrupted += usize::from(!is_last);
            let expected = [(EventType::Started, number), (end, number)];
            assert_eq!(attempt, expected, "{task}: {life:?}");
        }
    }
    assert!(interrupted > 0, "no crash met a running task: the test tests nothing");
    println!("{} tasks, {interrupted} interrupted executions, {} events", ledger.len(), seen.last);
}
