//! The history of a task's executions.

use std::time::Duration;

use taskyard::{
    store::{MAX_ATTEMPTS_KEPT, Outcome, Query},
    task::{State, TaskId},
};

use crate::store_conformance::{
    harness::StoreHarness,
    provider::Provider,
    work::{broken, done, failed, patient, task, tried},
};

/// The numbers of a task's attempts and why each ended, and that their times
/// and workers fit together.
async fn history<P: Provider>(
    harness: &StoreHarness<'_, P>,
    id: TaskId,
) -> Vec<(u32, bool, Option<String>)> {
    let stored = harness.get(id).await;
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
    let mut harness = StoreHarness::new(provider).await;
    let id = harness.submit(tried("a", 2)).await;
    assert_eq!(history(&harness, id).await, []);
    let broke = Some("BROKEN".to_owned());
    let run = harness.start().await;
    let first = run.worker;
    assert_eq!(history(&harness, id).await, [(1, false, None)]);
    harness.end(run, failed(Duration::ZERO)).await;
    assert_eq!(history(&harness, id).await, [(1, true, broke.clone())]);
    let second = harness.start().await.worker;
    harness = harness.crash().await;
    let interrupted = history(&harness, id).await;
    assert_eq!(interrupted.len(), 2);
    assert!(interrupted[1].1 && interrupted[1].2.is_some(), "{interrupted:?}");
    let workers: Vec<_> = harness.get(id).await.attempts.iter().map(|it| it.worker).collect();
    assert_eq!(workers, [first, second]);
    harness.run(failed(Duration::ZERO)).await;
    assert_eq!(harness.state(id).await, State::Failed);
    let failed = history(&harness, id).await;
    assert_eq!((&failed[..2], &failed[2..]), (&*interrupted, &[(3, true, broke)][..]));
    assert_eq!(harness.redrive(id).await, Ok(()));
    assert_eq!(history(&harness, id).await, failed, "kept over a redrive");
    let run = harness.start().await;
    assert_eq!(harness.cancel(id).await, Ok(()));
    harness.end(run, Outcome::Stopped).await;
    let cancelled = history(&harness, id).await;
    assert!(cancelled[3].1 && cancelled[3].2.is_some(), "{cancelled:?}");
    assert_eq!(harness.redrive(id).await, Ok(()));
    harness.run(Outcome::Interrupted).await;
    harness.run(done()).await;
    let ended = history(&harness, id).await;
    assert_eq!((&ended[..4], ended.len()), (&*cancelled, 6));
    assert!(ended[4].1 && ended[4].2.is_some(), "{ended:?}");
    assert_eq!(ended[5], (6, true, None));
    harness = harness.restart().await;
    assert_eq!(history(&harness, id).await, ended, "kept over a restart");
    let page = patient(harness.store.list(Query { limit: 9, ..Query::default() })).await;
    let listed = page.expect("a page").tasks;
    assert_eq!((listed.len(), listed[0].attempts.len()), (1, 0), "not in a list");
}

pub async fn the_latest_hundred_attempts_are_kept(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let id = harness.submit(tried("a", 1_000)).await;
    let all = MAX_ATTEMPTS_KEPT + 5;
    let mut run = harness.start().await;
    for _ in 1..all {
        run = harness.next(run, failed(Duration::ZERO)).await;
    }
    let numbers = |history: Vec<(u32, bool, Option<String>)>| -> Vec<u32> {
        history.into_iter().map(|(number, ..)| number).collect()
    };
    let latest: Vec<u32> = (all - MAX_ATTEMPTS_KEPT + 1..=all).collect();
    assert_eq!(numbers(history(&harness, id).await), latest, "the one that runs is one of them");
    harness.end(run, broken()).await;
    assert_eq!(numbers(history(&harness, id).await), latest);
    harness = harness.crash().await;
    assert_eq!(numbers(history(&harness, id).await), latest);
    assert_eq!(harness.redrive(id).await, Ok(()));
    let run = harness.start().await;
    assert_eq!(run.given.attempt, all + 1);
    let latest: Vec<u32> = latest.into_iter().map(|number| number + 1).collect();
    assert_eq!(numbers(history(&harness, id).await), latest);
}

pub async fn attempt_numbers_are_never_used_twice(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let id = harness.submit(task("a")).await;
    let mut used = 0;
    for round in 0..4 {
        // One that a crash ends, before anything of it was reported.
        let run = harness.start().await;
        assert_eq!(run.given.attempt, used + 1);
        harness = harness.crash().await;
        // One that is taken back.
        let run = harness.start().await;
        assert_eq!(run.given.attempt, used + 2);
        harness.end(run, Outcome::Interrupted).await;
        harness = harness.restart().await;
        // One that fails for good, or that a cancellation ends.
        let run = harness.start().await;
        assert_eq!(run.given.attempt, used + 3);
        if round % 2 == 0 {
            harness.end(run, broken()).await;
        } else {
            assert_eq!(harness.cancel(id).await, Ok(()));
            drop(run);
            harness = harness.crash().await;
        }
        assert_eq!(harness.redrive(id).await, Ok(()));
        used += 3;
        assert_eq!(harness.get(id).await.lifecycle.attempt, used);
        harness = harness.crash().await;
    }
    harness.check().await;
}
