//! Very many tasks wait: they are listed, counted and cancelled while others are
//! submitted and run as if they were not there, and what is left is drained.
//! (`cargo bench --bench waiting` measures a million.)

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use taskyard::proto::v1::{
    CancelTasksRequest, ListQueuesRequest, ListTasksRequest, PauseQueueRequest, ResumeQueueRequest,
    SubmitBatchRequest, SubmitRequest, TaskCounts, TaskFilter, TaskState, submit_result,
};
use tokio::task::JoinHandle;

use crate::support::{Client, TestServer, builtin, submit, task, wait};

const BATCHES: usize = 50;
const BATCH: usize = 1_000;

fn crowd() -> TaskFilter {
    TaskFilter { queues: vec!["crowd".into()], ..Default::default() }
}

async fn fill(client: &mut Client) {
    let crowd = SubmitRequest { queue: "crowd".into(), ..task("noop") };
    for _ in 0..BATCHES {
        let requests = vec![crowd.clone(); BATCH];
        let batch = SubmitBatchRequest { requests, atomic: false };
        let results = client.submit_batch(batch).await.unwrap().into_inner().results;
        let taken = |result: &Option<_>| matches!(result, Some(submit_result::Result::Ack(_)));
        assert!(results.iter().all(|result| taken(&result.result)));
    }
}

/// Submits a task and waits for its end, again and again; counts.
struct Others {
    over: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    work: JoinHandle<()>,
}

impl Others {
    fn start(mut client: Client) -> Self {
        let (over, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (ends, count) = (Arc::clone(&over), Arc::clone(&ended));
        let work = tokio::spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                let other = SubmitRequest { queue: "others".into(), ..task("noop") };
                let submitted = submit(&mut client, other).await;
                let ended = wait(&mut client, &submitted.task_id).await;
                assert_eq!(ended.state(), TaskState::Succeeded);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { over, ended, work }
    }

    fn count(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_listed_cancelled_and_drained_and_others_do_not_notice() {
    let test_server =
        TestServer::with(|config| config.queue_max_tasks = 1_000_000, builtin()).await;
    let (mut client, mut admin) = (test_server.client().await, test_server.admin().await);
    admin.pause_queue(PauseQueueRequest { queue: "crowd".into() }).await.unwrap();
    fill(&mut client).await;
    let others = Others::start(test_server.client().await);

    // Each page and each step lets others through.
    let (mut seen, mut pages, mut page_token) = (BTreeSet::new(), 0, String::new());
    loop {
        let request = ListTasksRequest {
            filter: Some(crowd()),
            page_size: 1_000,
            page_token,
            omit_payloads: true,
            newest_first: false,
        };
        let page = client.list_tasks(request).await.unwrap().into_inner();
        seen.extend(page.tasks.into_iter().map(|task| task.task_id));
        page_token = page.next_page_token;
        pages += 1;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), BATCHES * BATCH);
    let while_listed = others.count();
    assert!(while_listed * 5 >= pages, "{while_listed} others ran during {pages} pages");

    let labelled = CancelTasksRequest { filter: Some(crowd()), ..Default::default() };
    let (mut cancelled, mut steps, mut request) = (0, 0, labelled.clone());
    let crowded = (BATCHES * BATCH) as u64;
    while cancelled < crowded / 2 {
        let step = client.cancel_tasks(request).await.unwrap().into_inner();
        cancelled += u64::from(step.cancelled);
        steps += 1;
        request = CancelTasksRequest { page_token: step.next_page_token, ..labelled.clone() };
    }
    let while_cancelled = others.count() - while_listed;
    assert!(while_cancelled * 5 >= steps, "{while_cancelled} others ran during {steps} steps");

    let left = crowded - cancelled;
    let crowd = |counts: Vec<_>| -> TaskCounts { counts.into_iter().next().unwrap() };
    let mut counts = async || {
        let request = ListQueuesRequest { queue: "crowd".into(), ..Default::default() };
        let queues = admin.list_queues(request).await.unwrap().into_inner().queues;
        crowd(queues.into_iter().filter_map(|queue| queue.counts).collect())
    };
    let waiting = counts().await;
    assert_eq!((waiting.queued, waiting.cancelled), (left, cancelled));
    others.over.store(true, Ordering::Relaxed);
    others.work.await.unwrap();

    let mut admin = test_server.admin().await;
    admin.resume_queue(ResumeQueueRequest { queue: "crowd".into() }).await.unwrap();
    loop {
        let now = counts().await;
        assert_eq!(now.queued + now.running + now.succeeded, left, "{now:?}");
        if now.succeeded == left {
            break;
        }
    }
    let (report, _) = test_server.drain().await;
    assert!(report.complete && report.remaining == Some(0), "{report:?}");
}
