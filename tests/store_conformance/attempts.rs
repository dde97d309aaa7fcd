//! The history of a task's executions.

use std::time::Duration;

use taskyard::{
    store::{MAX_ATTEMPTS_KEPT, Outcome, Query},
    task::{State, TaskId},
};

use crate::{
    provider::Provider,
    work::{broken, done, failed, patient, task, tried},
    yard::Yard,
};

/// The numbers of a task's attempts and why each ended, and that their times
/// and workers fit together.
async fn history<P: Provider>(yard: &Yard<'_, P>, id: TaskId) -> Vec<(u32, bool, Option<String>)> {
    let stored = yard.get(id).await;
    let mut before = stored.created;
    for attempt in &stored.attempts {
        assert!(attempt.started >= before, "one after the other");
        before = attempt.ended.unwrap_or(attempt.started);
        assert!(before >= attempt.started, "from its start to its end");
    }
    let latest = stored.attempts.last();
    let execution = latest.map(|latest| (latest.worker, latest.started));
    assert_eq!(execution, stored.execution, "the latest is the one that is told of the task");
    let attempts = stored.attempts.into_iter();
    attempts
        .map(|it| (it.attempt, it.ended.is_some(), it.failure.map(|failure| failure.reason)))
        .collect()
}

pub async fn every_attempt_is_remembered(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let id = yard.submit(tried("a", 2)).await;
    assert_eq!(history(&yard, id).await, []);
    let broke = Some("BROKEN".to_owned());
    let run = yard.start().await;
    let first = run.worker;
    assert_eq!(history(&yard, id).await, [(1, false, None)]);
    yard.end(run, failed(Duration::ZERO)).await;
    assert_eq!(history(&yard, id).await, [(1, true, broke.clone())]);
    let second = yard.start().await.worker;
    yard = yard.crash().await;
    let interrupted = history(&yard, id).await;
    assert_eq!(interrupted.len(), 2);
    assert!(interrupted[1].1 && interrupted[1].2.is_some(), "{interrupted:?}");
    let workers: Vec<_> = yard.get(id).await.attempts.iter().map(|it| it.worker).collect();
    assert_eq!(workers, [first, second]);
    yard.run(failed(Duration::ZERO)).await;
    assert_eq!(yard.state(id).await, State::Failed);
    let failed = history(&yard, id).await;
    assert_eq!((&failed[..2], &failed[2..]), (&*interrupted, &[(3, true, broke)][..]));
    assert_eq!(yard.redrive(id).await, Ok(()));
    assert_eq!(history(&yard, id).await, failed, "kept over a redrive");
    let run = yard.start().await;
    assert_eq!(yard.cancel(id).await, Ok(()));
    yard.end(run, Outcome::Stopped).await;
    let cancelled = history(&yard, id).await;
    assert!(cancelled[3].1 && cancelled[3].2.is_some(), "{cancelled:?}");
    assert_eq!(yard.redrive(id).await, Ok(()));
    yard.run(Outcome::Interrupted).await;
    yard.run(done()).await;
    let ended = history(&yard, id).await;
    assert_eq!((&ended[..4], ended.len()), (&*cancelled, 6));
    assert!(ended[4].1 && ended[4].2.is_some(), "{ended:?}");
    assert_eq!(ended[5], (6, true, None));
    yard = yard.restart().await;
    assert_eq!(history(&yard, id).await, ended, "kept over a restart");
    let page = patient(yard.store.list(Query { limit: 9, ..Query::default() })).await;
    let listed = page.expect("a page").tasks;
    assert_eq!((listed.len(), listed[0].attempts.len()), (1, 0), "not in a list");
}

pub async fn the_latest_hundred_attempts_are_kept(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let id = yard.submit(tried("a", 1_000)).await;
    let all = MAX_ATTEMPTS_KEPT + 5;
    let mut run = yard.start().await;
    for _ in 1..all {
        run = yard.next(run, failed(Duration::ZERO)).await;
    }
    let numbers = |history: Vec<(u32, bool, Option<String>)>| -> Vec<u32> {
        history.into_iter().map(|(number, ..)| number).collect()
    };
    let latest: Vec<u32> = (all - MAX_ATTEMPTS_KEPT + 1..=all).collect();
    assert_eq!(numbers(history(&yard, id).await), latest, "the one that runs is one of them");
    yard.end(run, broken()).await;
    assert_eq!(numbers(history(&yard, id).await), latest);
    yard = yard.crash().await;
    assert_eq!(numbers(history(&yard, id).await), latest);
    assert_eq!(yard.redrive(id).await, Ok(()));
    let run = yard.start().await;
    assert_eq!(run.given.attempt, all + 1);
    let latest: Vec<u32> = latest.into_iter().map(|number| number + 1).collect();
    assert_eq!(numbers(history(&yard, id).await), latest);
}

pub async fn attempt_numbers_are_never_used_twice(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let id = yard.submit(task("a")).await;
    let mut used = 0;
    for round in 0..4 {
        // One that a crash ends, before anything of it was reported.
        let run = yard.start().await;
        assert_eq!(run.given.attempt, used + 1);
        yard = yard.crash().await;
        // One that is taken back.
        let run = yard.start().await;
        assert_eq!(run.given.attempt, used + 2);
        yard.end(run, Outcome::Interrupted).await;
        yard = yard.restart().await;
        // One that fails for good, or that a cancellation ends.
        let run = yard.start().await;
        assert_eq!(run.given.attempt, used + 3);
        if round % 2 == 0 {
            yard.end(run, broken()).await;
        } else {
            assert_eq!(yard.cancel(id).await, Ok(()));
            drop(run);
            yard = yard.crash().await;
        }
        assert_eq!(yard.redrive(id).await, Ok(()));
        used += 3;
        assert_eq!(yard.get(id).await.lifecycle.attempt, used);
        yard = yard.crash().await;
    }
    yard.check().await;
}
