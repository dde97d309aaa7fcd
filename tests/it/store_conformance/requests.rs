//! Idempotency keys: whoever does not know the outcome asks again.

use taskyard::{
    event::Seq,
    store::{Error, Submission, Submitted},
    task::{State, TaskId},
};

use crate::store_conformance::{
    harness::StoreHarness,
    provider::Provider,
    work::{FINGERPRINT, broken, done, keyed, patient, task},
};

const OTHER: [u8; 16] = [2; 16];

/// What is answered to `key` when it is asked for, and when it is submitted
/// again, which must be the same.
async fn again<P: Provider>(harness: &StoreHarness<'_, P>, key: &str) -> Submitted {
    let asked = patient(harness.store.repeated(key.to_owned(), FINGERPRINT)).await;
    let submitted = harness.try_submit(keyed("a", key)).await;
    let submitted = submitted.expect("known");
    assert_eq!(asked, Ok(Some(submitted)));
    assert!(submitted.existing);
    submitted
}

/// Finds that `key` is used up for anything else than `task`.
async fn reused<P: Provider>(harness: &StoreHarness<'_, P>, key: &str, task: TaskId) {
    let asked = patient(harness.store.repeated(key.to_owned(), OTHER)).await;
    assert_eq!(asked, Err(Error::RequestIdReused(task)));
    let (submission, permit) = harness.ready(keyed("a", key));
    let submission = Submission { fingerprint: OTHER, ..submission };
    let submitted = patient(harness.store.submit(submission, permit)).await;
    assert_eq!(submitted, Err(Error::RequestIdReused(task)));
}

pub async fn a_repeated_request_gets_the_same_task(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let unknown = patient(harness.store.repeated("key".to_owned(), FINGERPRINT)).await;
    assert_eq!(unknown, Ok(None));
    let first = harness.try_submit(keyed("a", "key")).await.expect("accepted");
    assert!(!first.existing);
    assert_eq!(again(&harness, "key").await, Submitted { existing: true, ..first });
    reused(&harness, "key", first.task).await;
    // Keys tell apart what only looks alike, and count in all queues.
    for key in ["Key", "key ", "ke"] {
        assert!(!harness.try_submit(keyed("a", key)).await.expect("accepted").existing);
    }
    let elsewhere = harness.try_submit(keyed("b", "key")).await.expect("known");
    assert_eq!(elsewhere, Submitted { existing: true, ..first });
    // Without a key, nothing is a repetition.
    assert_ne!(harness.submit(task("a")).await, harness.submit(task("a")).await);
    assert_eq!(harness.all().await.len(), 6);
    assert_eq!(harness.get(first.task).await.request_id.as_deref(), Some("key"));
    assert_eq!(harness.run(done()).await, first.task);
    assert_eq!(again(&harness, "key").await.state, State::Succeeded);
    harness.check().await;
}

pub async fn a_request_is_known_over_restarts_crashes_and_redrives(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let first = harness.try_submit(keyed("a", "key")).await.expect("accepted");
    assert_eq!(first.seq, Seq(1));
    let known = |state| Submitted { state, existing: true, ..first };
    harness = harness.crash().await;
    assert_eq!(again(&harness, "key").await, known(State::Queued));
    harness = harness.restart().await;
    assert_eq!(again(&harness, "key").await, known(State::Queued));
    let run = harness.start().await;
    assert_eq!(again(&harness, "key").await, known(State::Running));
    harness.end(run, broken()).await;
    assert_eq!(again(&harness, "key").await, known(State::Failed));
    harness = harness.crash().await;
    assert_eq!(again(&harness, "key").await, known(State::Failed));
    reused(&harness, "key", first.task).await;
    assert_eq!(harness.redrive(first.task).await, Ok(()));
    assert_eq!(again(&harness, "key").await, known(State::Queued));
    harness = harness.crash().await;
    assert_eq!(again(&harness, "key").await, known(State::Queued));
    assert_eq!(harness.run(done()).await, first.task);
    harness = harness.restart().await;
    assert_eq!(again(&harness, "key").await, known(State::Succeeded));
    reused(&harness, "key", first.task).await;
    assert_eq!(harness.all().await.len(), 1);
    harness.check().await;
}

pub async fn a_task_that_was_never_taken_leaves_its_request_free(provider: &impl Provider) {
    let harness = StoreHarness::new(provider).await;
    let used = harness.submit(keyed("a", "used")).await;
    let (mut reused, permit) = harness.ready(keyed("a", "used"));
    reused.fingerprint = OTHER;
    let clashing = vec![harness.ready(keyed("a", "free")), (reused, permit)];
    let answer = patient(harness.store.submit_atomic(clashing)).await;
    assert_eq!(answer, Err(Error::NotAll(vec![(1, Error::RequestIdReused(used))])));
    let asked = patient(harness.store.repeated("free".to_owned(), FINGERPRINT)).await;
    assert_eq!(asked, Ok(None));
    let harness = harness.crash().await;
    let (mut free, permit) = harness.ready(keyed("a", "free"));
    free.fingerprint = OTHER;
    let submitted = patient(harness.store.submit(free, permit)).await.expect("accepted");
    assert_eq!((submitted.existing, submitted.task.number()), (false, used.number() + 1));
    harness.check().await;
}
