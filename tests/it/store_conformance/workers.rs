//! Workers: how they are given tasks, and how they leave.

use taskyard::{
    event::Seq,
    proto::v1::EventType::{WorkerStarted, WorkerStopped},
    store::Dispatch,
    task::{State, WorkerId},
};

use crate::store_conformance::{
    harness::StoreHarness,
    provider::Provider,
    work::{broken, done, patient, task},
};

pub async fn a_task_starts_on_a_worker_that_waits(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let mut workers = [harness.wait().await, harness.wait().await, harness.wait().await];
    for waiting in &mut workers {
        assert!(waiting.is_idle().await);
    }
    let first = harness.submit(task("a")).await;
    harness.settle().await;
    assert_eq!(harness.state(first).await, State::Running, "at once");
    let second = harness.submit(task("b")).await;
    harness.settle().await;
    let (mut given, mut idle) = (Vec::new(), 0);
    for mut waiting in workers {
        if waiting.is_idle().await {
            idle += 1;
        } else {
            let run = waiting.run().await;
            assert_eq!(
                harness.get(run.given.task).await.execution.map(|it| it.0),
                Some(run.worker)
            );
            given.push(run.given.task);
        }
    }
    given.sort();
    assert_eq!((given, idle), (vec![first, second], 1), "each once");
    harness.check().await;
}

pub async fn a_retired_worker_that_waits_is_told_to_stop(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let (leaves, mut stays) = (harness.wait().await, harness.wait().await);
    patient(harness.store.retire(vec![leaves.worker])).await.expect("it retires");
    leaves.stop().await;
    assert!(stays.is_idle().await, "only that one");
    let id = harness.submit(task("a")).await;
    assert_eq!(stays.run().await.given.task, id);
    harness.check().await;
}

pub async fn a_retired_worker_that_is_busy_is_told_to_stop_at_its_next_turn(
    provider: &impl Provider,
) {
    let mut harness = StoreHarness::new(provider).await;
    let (first, second) = (harness.submit(task("a")).await, harness.submit(task("a")).await);
    let run = harness.start().await;
    patient(harness.store.retire(vec![run.worker])).await.expect("it retires");
    assert_eq!(harness.state(first).await, State::Running);
    assert!(!run.given.cancel.is_cancelled(), "it is not interrupted");
    let dispatch =
        patient(harness.store.next_dispatch(run.worker, Some(run.finished(done())))).await;
    assert!(matches!(dispatch, Ok(Dispatch::Stop)), "{dispatch:?}");
    assert_eq!(harness.state(first).await, State::Succeeded, "what it reports counts");
    assert_eq!(harness.state(second).await, State::Queued, "and it is given nothing more");
    assert_eq!(harness.run(broken()).await, second);
    harness.check().await;
}

pub async fn a_worker_that_comes_back_is_given_work(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let waiting = harness.wait().await;
    let worker = waiting.worker;
    patient(harness.store.retire(vec![worker])).await.expect("it retires");
    waiting.stop().await;
    patient(harness.store.leave(worker)).await.expect("it leaves");
    patient(harness.store.join(worker)).await.expect("it joins");
    let mut waiting = harness.wait_as(worker).await;
    assert!(waiting.is_idle().await, "it was told to stop once");
    let id = harness.submit(task("a")).await;
    assert_eq!(waiting.run().await.given.task, id);
    harness.check().await;
}

pub async fn the_pool_has_events(provider: &impl Provider) {
    let harness = StoreHarness::new(provider).await;
    let worker = WorkerId(7);
    patient(harness.store.join(worker)).await.expect("it joins");
    patient(harness.store.leave(worker)).await.expect("it leaves");
    let events = harness.events_after(Seq(0)).await;
    let told: Vec<_> = events.iter().map(|event| (event.r#type(), &*event.worker)).collect();
    assert_eq!(told, [(WorkerStarted, "worker-7"), (WorkerStopped, "worker-7")]);
    assert!(events.iter().all(|event| event.task_id.is_empty()));
}
