//! Things that happen at the same moment: one of them wins, and only one.

use std::{collections::BTreeMap, time::Duration};

use taskyard::{
    handler::{Execution, Output},
    proto::v1::{
        CancelTaskRequest, EventType, GetPoolRequest, ResizePoolRequest, RetryPolicy,
        SubmitRequest, TaskState,
    },
};
use tokio::{sync::broadcast, task::JoinSet};

use crate::support::{self, TestServer, Watch, builtin, get, span, submit, task, wait};

const ROUNDS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_success_and_a_cancellation_have_exactly_one_winner() {
    // A handler that returns at the moment at which the test cancels its task.
    let (go, _) = broadcast::channel::<()>(1);
    let mut registry = builtin();
    let starter = go.clone();
    registry.insert("racing", move |execution: Execution| {
        let mut go = starter.subscribe();
        async move {
            tokio::select! {
                _ = go.recv() => Ok(Output::empty()),
                () = execution.cancelled() => {
                    Err(taskyard::handler::Error::retryable("STOPPED", "told to"))
                }
            }
        }
    });
    let test_server = TestServer::with(|_| {}, registry).await;
    let mut client = test_server.client().await;
    let mut watch = Watch::live(&mut client).await;
    let mut won = BTreeMap::new();
    for round in 0..ROUNDS {
        let submitted = submit(&mut client, task("racing")).await;
        while watch.until(EventType::Started).await.task_id != submitted.task_id {}
        let request = CancelTaskRequest { task_id: submitted.task_id.clone() };
        let mut canceller = client.clone();
        let cancel = tokio::spawn(async move { canceller.cancel_task(request).await });
        // Sooner and later, so that each of them comes first at times.
        for _ in 0..round % 50 {
            tokio::task::yield_now().await;
        }
        if round == 0 {
            // Whoever is signalled alone is cancelled.
            while !get(&mut client, &submitted.task_id).await.cancel_requested
                && get(&mut client, &submitted.task_id).await.state() == TaskState::Running
            {
            }
        }
        drop(go.send(()));
        let answer = cancel.await.unwrap();
        let ended = wait(&mut client, &submitted.task_id).await;
        let (mut ends, mut told) = (0, None);
        while told.is_none() {
            let event = watch.event().await;
            if event.task_id == submitted.task_id {
                ends += 1;
                told = Some(event.r#type());
            }
        }
        let expected = match ended.state() {
            TaskState::Succeeded => EventType::Succeeded,
            TaskState::Cancelled => EventType::Cancelled,
            state => panic!("{state:?}"),
        };
        assert_eq!((ends, told), (1, Some(expected)));
        // Who was told that it is cancelled, or will be, was not told of a success.
        if let Ok(answer) = answer {
            let answered = answer.into_inner().task.unwrap();
            assert!(
                answered.state() == ended.state() || answered.cancel_requested,
                "{:?} and then {:?}",
                answered.state(),
                ended.state()
            );
        }
        *won.entry(format!("{expected:?}")).or_insert(0) += 1;
    }
    // Nothing else happened to any of them.
    let after = submit(&mut client, task("noop")).await;
    let next = watch.until(EventType::Submitted).await;
    assert_eq!(next.task_id, after.task_id);
    assert_eq!(won.len(), 2, "each of them wins at times: {won:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attempt_number_is_used_twice_whatever_ends_the_attempts() {
    let (started, mut attempts) = tokio::sync::mpsc::unbounded_channel();
    let register = || {
        let (mut registry, started) = (builtin(), started.clone());
        registry.insert("restless", move |execution: Execution| {
            let started = started.clone();
            async move {
                let _ = started.send((execution.task, execution.attempt));
                if execution.attempt.is_multiple_of(3) {
                    execution.cancelled().await;
                }
                Err(taskyard::handler::Error::retryable("AGAIN", "and again"))
            }
        });
        registry
    };
    let short = |config: &mut taskyard::config::Config| {
        config.workers = 4.try_into().unwrap();
        config.drain_timeout = Duration::from_millis(200);
    };
    let retry = Some(RetryPolicy {
        max_attempts: 12,
        initial_backoff: span(Duration::from_millis(1)),
        max_backoff: span(Duration::from_millis(1)),
    });
    let mut test_server = TestServer::with(short, register()).await;
    let mut client = test_server.client().await;
    for _ in 0..20 {
        submit(&mut client, SubmitRequest { retry, ..task("restless") }).await;
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..6 {
        for _ in 0..40 {
            // Workers may all be waiting for their cancellation.
            let next = tokio::time::timeout(Duration::from_millis(300), attempts.recv()).await;
            let Ok(Some((task, attempt))) = next else { break };
            assert!(seen.insert((task.number(), attempt)), "{task} ran attempt {attempt} twice");
        }
        let dir = test_server.drain().await.1;
        test_server = TestServer::on(dir, short, register()).await;
    }
    assert!(seen.len() > 60, "{} attempts", seen.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_grows_at_once_and_shrinks_without_interrupting() {
    let gate = support::Gate::default();
    let mut registry = builtin();
    registry.insert("gated", gate.clone());
    let test_server =
        TestServer::with(|config| config.workers = 1.try_into().unwrap(), registry).await;
    let (mut client, mut control) = (test_server.client().await, test_server.admin().await);
    let mut watch = Watch::live(&mut client).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(submit(&mut client, task("gated")).await.task_id);
    }
    watch.until(EventType::Started).await;
    let pool = control.resize_pool(ResizePoolRequest { size: 4 }).await.unwrap().into_inner();
    assert_eq!(pool.pool.unwrap().size, 4);
    for _ in 0..3 {
        watch.until(EventType::Started).await;
    }
    // A start is told when it is committed, which is before its worker knows.
    loop {
        let pool = control.get_pool(GetPoolRequest {}).await.unwrap().into_inner().pool.unwrap();
        assert_eq!(pool.workers.len(), 4);
        if pool.workers.iter().all(|worker| worker.execution.is_some()) {
            break;
        }
    }

    // Three are to leave; each does so when its task has ended.
    let pool = control.resize_pool(ResizePoolRequest { size: 1 }).await.unwrap().into_inner();
    let pool = pool.pool.unwrap();
    assert_eq!((pool.size, pool.workers.len()), (1, 4));
    assert_eq!(pool.workers.iter().filter(|worker| worker.leaving).count(), 3);
    gate.open();
    for _ in 0..3 {
        watch.until(EventType::WorkerStopped).await;
    }
    for id in &tasks {
        let ended = wait(&mut client, id).await;
        assert_eq!((ended.state(), ended.attempt), (TaskState::Succeeded, 1), "not interrupted");
    }
    let pool = control.get_pool(GetPoolRequest {}).await.unwrap().into_inner().pool.unwrap();
    let names: Vec<_> = pool.workers.iter().map(|worker| worker.worker.as_str()).collect();
    assert_eq!(names, ["worker-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pool_is_resized_again_and_again_under_load_and_no_task_is_lost() {
    let test_server = TestServer::start().await;
    let client = test_server.client().await;
    let mut control = test_server.admin().await;
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let mut client = client.clone();
        callers.spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..100 {
                ids.push(submit(&mut client, task("noop")).await.task_id);
            }
            ids
        });
    }
    for size in (1..=40).map(|round| round * 7 % 13 + 1) {
        control.resize_pool(ResizePoolRequest { size }).await.unwrap();
    }
    let mut client = test_server.client().await;
    for id in callers.join_all().await.into_iter().flatten() {
        assert_eq!(wait(&mut client, &id).await.state(), TaskState::Succeeded);
        assert_eq!(get(&mut client, &id).await.attempt, 1);
    }
    let (report, _) = test_server.drain().await;
    assert!(report.complete, "{report:?}");
}
