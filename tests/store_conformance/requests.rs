//! Idempotency keys: whoever does not know the outcome asks again.

use taskyard::{
    event::Seq,
    store::{Error, Submission, Submitted},
    task::{State, TaskId},
};

use crate::{
    provider::Provider,
    work::{FINGERPRINT, broken, done, keyed, patient, task},
    yard::Yard,
};

const OTHER: [u8; 16] = [2; 16];

/// What is answered to `key` when it is asked for, and when it is submitted
/// again, which must be the same.
async fn again<P: Provider>(yard: &Yard<'_, P>, key: &str) -> Submitted {
    let asked = patient(yard.store.repeated(key.to_owned(), FINGERPRINT)).await;
    let submitted = yard.try_submit(keyed("a", key)).await;
    let submitted = submitted.expect("known");
    assert_eq!(asked, Ok(Some(submitted)));
    assert!(submitted.existing);
    submitted
}

/// Finds that `key` is used up for anything else than `task`.
async fn reused<P: Provider>(yard: &Yard<'_, P>, key: &str, task: TaskId) {
    let asked = patient(yard.store.repeated(key.to_owned(), OTHER)).await;
    assert_eq!(asked, Err(Error::RequestIdReused(task)));
    let (submission, permit) = yard.ready(keyed("a", key));
    let submission = Submission { fingerprint: OTHER, ..submission };
    let submitted = patient(yard.store.submit(submission, permit)).await;
    assert_eq!(submitted, Err(Error::RequestIdReused(task)));
}

pub async fn a_repeated_request_gets_the_same_task(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let unknown = patient(yard.store.repeated("key".to_owned(), FINGERPRINT)).await;
    assert_eq!(unknown, Ok(None));
    let first = yard.try_submit(keyed("a", "key")).await.expect("accepted");
    assert!(!first.existing);
    assert_eq!(again(&yard, "key").await, Submitted { existing: true, ..first });
    reused(&yard, "key", first.task).await;
    // Keys tell apart what only looks alike, and count in all queues.
    for key in ["Key", "key ", "ke"] {
        assert!(!yard.try_submit(keyed("a", key)).await.expect("accepted").existing);
    }
    let elsewhere = yard.try_submit(keyed("b", "key")).await.expect("known");
    assert_eq!(elsewhere, Submitted { existing: true, ..first });
    // Without a key, nothing is a repetition.
    assert_ne!(yard.submit(task("a")).await, yard.submit(task("a")).await);
    assert_eq!(yard.all().await.len(), 6);
    assert_eq!(yard.get(first.task).await.request_id.as_deref(), Some("key"));
    assert_eq!(yard.run(done()).await, first.task);
    assert_eq!(again(&yard, "key").await.state, State::Succeeded);
    yard.check().await;
}

pub async fn a_request_is_known_over_restarts_crashes_and_redrives(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let first = yard.try_submit(keyed("a", "key")).await.expect("accepted");
    assert_eq!(first.seq, Seq(1));
    let known = |state| Submitted { state, existing: true, ..first };
    yard = yard.crash().await;
    assert_eq!(again(&yard, "key").await, known(State::Queued));
    yard = yard.restart().await;
    assert_eq!(again(&yard, "key").await, known(State::Queued));
    let run = yard.start().await;
    assert_eq!(again(&yard, "key").await, known(State::Running));
    yard.end(run, broken()).await;
    assert_eq!(again(&yard, "key").await, known(State::Failed));
    yard = yard.crash().await;
    assert_eq!(again(&yard, "key").await, known(State::Failed));
    reused(&yard, "key", first.task).await;
    assert_eq!(yard.redrive(first.task).await, Ok(()));
    assert_eq!(again(&yard, "key").await, known(State::Queued));
    yard = yard.crash().await;
    assert_eq!(again(&yard, "key").await, known(State::Queued));
    assert_eq!(yard.run(done()).await, first.task);
    yard = yard.restart().await;
    assert_eq!(again(&yard, "key").await, known(State::Succeeded));
    reused(&yard, "key", first.task).await;
    assert_eq!(yard.all().await.len(), 1);
    yard.check().await;
}

pub async fn a_task_that_was_never_taken_leaves_its_request_free(provider: &impl Provider) {
    let yard = Yard::new(provider).await;
    let used = yard.submit(keyed("a", "used")).await;
    let (mut reused, permit) = yard.ready(keyed("a", "used"));
    reused.fingerprint = OTHER;
    let clashing = vec![yard.ready(keyed("a", "free")), (reused, permit)];
    let answer = patient(yard.store.submit_atomic(clashing)).await;
    assert_eq!(answer, Err(Error::NotAll(vec![(1, Error::RequestIdReused(used))])));
    let asked = patient(yard.store.repeated("free".to_owned(), FINGERPRINT)).await;
    assert_eq!(asked, Ok(None));
    let yard = yard.crash().await;
    let (mut free, permit) = yard.ready(keyed("a", "free"));
    free.fingerprint = OTHER;
    let submitted = patient(yard.store.submit(free, permit)).await.expect("accepted");
    assert_eq!((submitted.existing, submitted.task.number()), (false, used.number() + 1));
    yard.check().await;
}
