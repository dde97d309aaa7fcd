//! Another life for tasks that failed or were cancelled.

use std::time::Duration;

use taskyard::{
    proto::v1::{
        self,
        EventType::{Failed, Redriven, RetryScheduled, Started, Submitted},
    },
    store::{Error, Outcome},
    task::{State, TaskId},
};

use crate::store_conformance::{
    harness::StoreHarness,
    provider::Provider,
    work::{broken, done, failed, later, nobody, task, tried},
};

/// A task that failed, and tasks that were cancelled while they waited, before
/// they were due, and while they ran.
async fn ended<P: Provider>(harness: &mut StoreHarness<'_, P>) -> [TaskId; 4] {
    let failed = harness.submit(task("a")).await;
    harness.run(broken()).await;
    let stopped = harness.submit(task("a")).await;
    let run = harness.start().await;
    assert_eq!(harness.cancel(stopped).await, Ok(()));
    harness.end(run, Outcome::Stopped).await;
    let queued = harness.submit(task("a")).await;
    assert_eq!(harness.cancel(queued).await, Ok(()));
    let scheduled = harness.submit(later("a")).await;
    assert_eq!(harness.cancel(scheduled).await, Ok(()));
    [failed, stopped, queued, scheduled]
}

pub async fn a_redriven_task_lives_again(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    for id in ended(&mut harness).await {
        let before = harness.get(id).await;
        assert_eq!(harness.redrive(id).await, Ok(()));
        let stored = harness.get(id).await;
        let life = stored.lifecycle;
        assert_eq!((life.state, life.attempt), (State::Queued, before.lifecycle.attempt));
        assert_eq!((life.failures, life.crashes, life.cancel_requested), (0, 0, false));
        assert_eq!((stored.finished, stored.result), (None, None));
        assert_eq!((stored.created, &stored.body), (before.created, &before.body));
        assert_eq!(stored.attempts, before.attempts, "its history is kept");
        let events = harness.events_of(id).await;
        assert_eq!(events.last().map(v1::Event::r#type), Some(Redriven));
        harness.check().await;
        let run = harness.start().await;
        assert_eq!((run.given.task, run.given.attempt), (id, before.lifecycle.attempt + 1));
        assert_eq!((run.given.failures, run.given.cancel.is_cancelled()), (0, false));
        harness.end(run, done()).await;
        assert_eq!(harness.state(id).await, State::Succeeded);
    }
    harness.check().await;
}

pub async fn a_redriven_task_has_all_of_its_budget(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let id = harness.submit(tried("a", 2)).await;
    for life in 0..3 {
        if life > 0 {
            assert_eq!(harness.redrive(id).await, Ok(()));
        }
        harness.run(failed(Duration::ZERO)).await;
        assert_eq!(harness.state(id).await, State::Queued, "another attempt is left");
        harness.run(failed(Duration::ZERO)).await;
        let life = harness.get(id).await.lifecycle;
        assert_eq!((life.state, life.failures), (State::Failed, 2));
    }
    let once = [Started, RetryScheduled, Started, Failed];
    let mut told = vec![Submitted];
    told.extend(once);
    for _ in 0..2 {
        told.push(Redriven);
        told.extend(once);
    }
    assert_eq!(harness.told(id).await, told);
    harness.check().await;
}

pub async fn only_tasks_that_failed_or_were_cancelled_are_redriven(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let succeeded = harness.submit(task("a")).await;
    harness.run(done()).await;
    let running = harness.submit(task("a")).await;
    let _run = harness.start().await;
    let (queued, scheduled) = (harness.submit(task("a")).await, harness.submit(later("a")).await);
    let newest = harness.hub.newest();
    for _ in 0..2 {
        let state = State::Succeeded;
        assert_eq!(harness.redrive(succeeded).await, Err(Error::Ended { task: succeeded, state }));
        let living =
            [(running, State::Running), (queued, State::Queued), (scheduled, State::Scheduled)];
        for (task, state) in living {
            assert_eq!(harness.redrive(task).await, Err(Error::NotEnded { task, state }));
        }
        assert_eq!(harness.redrive(nobody()).await, Err(Error::NotFound(nobody())));
        let guessed = TaskId::new(succeeded.number(), 0);
        if guessed != succeeded {
            assert_eq!(harness.redrive(guessed).await, Err(Error::NotFound(guessed)));
            assert_eq!(harness.cancel(guessed).await, Err(Error::NotFound(guessed)));
        }
    }
    assert_eq!(harness.hub.newest(), newest, "nothing has happened");
    harness.check().await;
}

pub async fn a_redrive_outlives_a_crash(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let ids = ended(&mut harness).await;
    for id in ids {
        assert_eq!(harness.redrive(id).await, Ok(()));
    }
    harness = harness.crash().await;
    assert_eq!((harness.recovered.tasks, harness.recovered.interrupted), (4, 0));
    harness.check().await;
    for id in ids {
        assert_eq!(harness.state(id).await, State::Queued);
    }
    let mut started: Vec<_> = harness.run_all(4).await.into_iter().map(|(task, _)| task).collect();
    started.sort();
    assert_eq!(started, ids);
    harness = harness.crash().await;
    for id in ids {
        assert_eq!(harness.state(id).await, State::Succeeded);
    }
    harness.check().await;
}
