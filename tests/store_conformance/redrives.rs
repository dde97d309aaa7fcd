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

use crate::{
    provider::Provider,
    work::{broken, done, failed, later, nobody, task, tried},
    yard::Yard,
};

/// A task that failed, and tasks that were cancelled while they waited, before
/// they were due, and while they ran.
async fn ended<P: Provider>(yard: &mut Yard<'_, P>) -> [TaskId; 4] {
    let failed = yard.submit(task("a")).await;
    yard.run(broken()).await;
    let stopped = yard.submit(task("a")).await;
    let run = yard.start().await;
    assert_eq!(yard.cancel(stopped).await, Ok(()));
    yard.end(run, Outcome::Stopped).await;
    let queued = yard.submit(task("a")).await;
    assert_eq!(yard.cancel(queued).await, Ok(()));
    let scheduled = yard.submit(later("a")).await;
    assert_eq!(yard.cancel(scheduled).await, Ok(()));
    [failed, stopped, queued, scheduled]
}

pub async fn a_redriven_task_lives_again(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    for id in ended(&mut yard).await {
        let before = yard.get(id).await;
        assert_eq!(yard.redrive(id).await, Ok(()));
        let stored = yard.get(id).await;
        let life = stored.lifecycle;
        assert_eq!((life.state, life.attempt), (State::Queued, before.lifecycle.attempt));
        assert_eq!((life.failures, life.crashes, life.cancel_requested), (0, 0, false));
        assert_eq!((stored.finished, stored.result), (None, None));
        assert_eq!((stored.created, &stored.payload), (before.created, &before.payload));
        assert_eq!(stored.attempts, before.attempts, "its history is kept");
        let events = yard.events_of(id).await;
        assert_eq!(events.last().map(v1::Event::r#type), Some(Redriven));
        yard.check().await;
        let run = yard.start().await;
        assert_eq!((run.given.task, run.given.attempt), (id, before.lifecycle.attempt + 1));
        assert_eq!((run.given.failures, run.given.cancel.is_cancelled()), (0, false));
        yard.end(run, done()).await;
        assert_eq!(yard.state(id).await, State::Succeeded);
    }
    yard.check().await;
}

pub async fn a_redriven_task_has_all_of_its_budget(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let id = yard.submit(tried("a", 2)).await;
    for life in 0..3 {
        if life > 0 {
            assert_eq!(yard.redrive(id).await, Ok(()));
        }
        yard.run(failed(Duration::ZERO)).await;
        assert_eq!(yard.state(id).await, State::Queued, "another attempt is left");
        yard.run(failed(Duration::ZERO)).await;
        let life = yard.get(id).await.lifecycle;
        assert_eq!((life.state, life.failures), (State::Failed, 2));
    }
    let once = [Started, RetryScheduled, Started, Failed];
    let mut told = vec![Submitted];
    told.extend(once);
    for _ in 0..2 {
        told.push(Redriven);
        told.extend(once);
    }
    assert_eq!(yard.told(id).await, told);
    yard.check().await;
}

pub async fn only_tasks_that_failed_or_were_cancelled_are_redriven(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let succeeded = yard.submit(task("a")).await;
    yard.run(done()).await;
    let running = yard.submit(task("a")).await;
    let _run = yard.start().await;
    let (queued, scheduled) = (yard.submit(task("a")).await, yard.submit(later("a")).await);
    let newest = yard.hub.newest();
    for _ in 0..2 {
        let state = State::Succeeded;
        assert_eq!(yard.redrive(succeeded).await, Err(Error::Ended { task: succeeded, state }));
        let living =
            [(running, State::Running), (queued, State::Queued), (scheduled, State::Scheduled)];
        for (task, state) in living {
            assert_eq!(yard.redrive(task).await, Err(Error::NotEnded { task, state }));
        }
        assert_eq!(yard.redrive(nobody()).await, Err(Error::NotFound(nobody())));
        let guessed = TaskId::new(succeeded.number(), 0);
        if guessed != succeeded {
            assert_eq!(yard.redrive(guessed).await, Err(Error::NotFound(guessed)));
            assert_eq!(yard.cancel(guessed).await, Err(Error::NotFound(guessed)));
        }
    }
    assert_eq!(yard.hub.newest(), newest, "nothing has happened");
    yard.check().await;
}

pub async fn a_redrive_outlives_a_crash(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let ids = ended(&mut yard).await;
    for id in ids {
        assert_eq!(yard.redrive(id).await, Ok(()));
    }
    yard = yard.crash().await;
    assert_eq!((yard.recovered.tasks, yard.recovered.interrupted), (4, 0));
    yard.check().await;
    for id in ids {
        assert_eq!(yard.state(id).await, State::Queued);
    }
    let mut started: Vec<_> = yard.run_all(4).await.into_iter().map(|(task, _)| task).collect();
    started.sort();
    assert_eq!(started, ids);
    yard = yard.crash().await;
    for id in ids {
        assert_eq!(yard.state(id).await, State::Succeeded);
    }
    yard.check().await;
}
