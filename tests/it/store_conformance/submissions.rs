//! Several tasks at once.

use taskyard::events::History as _;
use taskyard::{
    admission::Permit,
    event::Seq,
    proto::v1::EventType,
    queue::Overrides,
    store::{Error, Submission, Submitted},
    task::{Due, NewTask, State},
};

use crate::store_conformance::{
    harness::{Setup, StoreHarness},
    provider::Provider,
    work::{LATER, keyed, later, patient, task},
};

/// A submission that has the key of another one, and other content.
fn clashing<P: Provider>(harness: &StoreHarness<'_, P>, key: &str) -> (Submission, Permit) {
    let (submission, permit) = harness.ready(keyed("a", key));
    (Submission { fingerprint: [9; 16], ..submission }, permit)
}

/// Finds that these events are of one commit.
async fn one_commit<P: Provider>(harness: &StoreHarness<'_, P>, first: Seq, last: Seq) {
    let batches = patient(harness.store.read(first.previous(), 1 << 20)).await.expect("events");
    assert!(batches[0].first() <= first && batches[0].last() >= last, "{batches:?}");
}

pub async fn each_task_of_a_batch_has_its_own_result(provider: &impl Provider) {
    let limit = Overrides { max_tasks: Some(8), ..Overrides::default() };
    let harness = StoreHarness::with(provider, Setup::default().queue("a", limit)).await;
    let before = harness.try_submit(keyed("a", "before")).await.expect("accepted");
    let batch = vec![
        harness.ready(task("a")),
        harness.ready(keyed("a", "before")),
        clashing(&harness, "before"),
        harness.ready(keyed("a", "new")),
        harness.ready(keyed("a", "new")),
        clashing(&harness, "new"),
        harness.ready(later("a")),
    ];
    let results = patient(harness.store.submit_all(batch)).await.expect("a commit");
    let numbers: Vec<_> =
        results.iter().map(|it| it.as_ref().map(|it| (it.task.number(), it.existing))).collect();
    let clash = |submitted: &Submitted| Error::RequestIdReused(submitted.task);
    let (known, new) = (clash(&before), clash(results[3].as_ref().expect("accepted")));
    let expected = [
        Ok((2, false)),
        Ok((1, true)),
        Err(&known),
        Ok((3, false)),
        Ok((3, true)),
        Err(&new),
        Ok((4, false)),
    ];
    assert_eq!(numbers, expected);
    let states: Vec<_> = results.iter().flatten().map(|submitted| submitted.state).collect();
    let queued = State::Queued;
    assert_eq!(states, [queued, queued, queued, queued, State::Scheduled]);
    assert_eq!(harness.all().await.len(), 4);
    // Four of eight permits are taken: the others were given back.
    let permits: Vec<_> = (0..4).map(|_| harness.permit(&task("a"))).collect();
    assert!(harness.gate.try_admit("a", 1).is_err(), "a permit was given back twice");
    drop(permits);
    harness.check().await;
}

pub async fn a_batch_is_one_commit(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    for round in 0..2 {
        let before = harness.hub.newest();
        let queues = ["a", "b", "c", "a", "b", "c"];
        let batch = queues.map(|queue| harness.ready(task(queue))).into();
        let submitted = if round == 0 {
            let results = patient(harness.store.submit_all(batch)).await.expect("a commit");
            results.into_iter().map(|result| result.expect("accepted")).collect()
        } else {
            patient(harness.store.submit_atomic(batch)).await.expect("accepted")
        };
        let seqs: Vec<_> = submitted.iter().map(|submitted| submitted.seq.0 - before.0).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6], "in order, with nothing in between");
        one_commit(&harness, submitted[0].seq, submitted[5].seq).await;
        for (event, submitted) in harness.events_after(before).await.iter().zip(&submitted) {
            assert_eq!(event.r#type(), EventType::Submitted);
            assert_eq!(event.task_id, submitted.task.to_string());
        }
        harness = harness.crash().await;
        for (submitted, queue) in submitted.iter().zip(queues) {
            assert_eq!(harness.get(submitted.task).await.queue, queue, "there after a crash");
        }
    }
    let started: Vec<_> = harness.run_all(12).await.into_iter().map(|(_, queue)| queue).collect();
    assert_eq!(started.iter().filter(|queue| ***queue == *"a").count(), 4);
    harness.check().await;
}

pub async fn an_atomic_batch_is_taken_as_a_whole(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let before = harness.try_submit(keyed("a", "before")).await.expect("accepted");
    assert_eq!(harness.start().await.given.task, before.task);
    let idle = harness.wait().await;
    let batch = vec![
        harness.ready(task("b")),
        harness.ready(keyed("a", "before")),
        harness.ready(keyed("a", "new")),
        harness.ready(keyed("a", "new")),
        harness.ready(NewTask { due: Due::After(LATER), ..task("a") }),
    ];
    let submitted = patient(harness.store.submit_atomic(batch)).await.expect("accepted");
    let told: Vec<_> = submitted.iter().map(|it| (it.task.number(), it.existing)).collect();
    assert_eq!(told, [(2, false), (1, true), (3, false), (3, true), (4, false)]);
    let running = State::Running;
    assert_eq!(submitted[1], Submitted { state: running, existing: true, ..before });
    assert_eq!(submitted[4].state, State::Scheduled);
    one_commit(&harness, submitted[0].seq, submitted[4].seq).await;
    let started = idle.run().await.given.task;
    assert!([2, 3].contains(&started.number()), "a worker that waits is given one of them");
    harness.check().await;
    harness = harness.crash().await;
    assert_eq!(harness.all().await.len(), 4);
    harness.check().await;
}

pub async fn an_atomic_batch_is_refused_as_a_whole(provider: &impl Provider) {
    let limit = Overrides { max_tasks: Some(10), ..Overrides::default() };
    let mut harness = StoreHarness::with(provider, Setup::default().queue("a", limit)).await;
    let one = harness.submit(keyed("a", "one")).await;
    let two = harness.submit(keyed("a", "two")).await;
    let _runs = (harness.start().await, harness.start().await);
    let mut third = harness.wait().await;
    let newest = harness.hub.newest();
    let batch = vec![
        harness.ready(task("a")),
        clashing(&harness, "one"),
        harness.ready(keyed("a", "one")),
        harness.ready(keyed("a", "new")),
        clashing(&harness, "two"),
    ];
    let answer = patient(harness.store.submit_atomic(batch)).await;
    let offenders = vec![(1, Error::RequestIdReused(one)), (4, Error::RequestIdReused(two))];
    assert_eq!(answer, Err(Error::NotAll(offenders)));
    // Two in a batch that exclude each other keep all out as well.
    let answer = patient(
        harness.store.submit_atomic(vec![harness.ready(keyed("a", "x")), clashing(&harness, "x")]),
    );
    let Err(Error::NotAll(offenders)) = answer.await else { panic!("they exclude each other") };
    assert_eq!(offenders, [(1, Error::RequestIdRepeated { first: 0 })], "by its place");
    harness.settle().await;
    assert!(third.is_idle().await, "nothing of it starts");
    assert_eq!((harness.hub.newest(), harness.all().await.len()), (newest, 2), "nothing happened");
    // Both tasks run, so all permits are free again.
    let permits: Vec<_> = (0..10).map(|_| harness.permit(&task("a"))).collect();
    drop(permits);
    let harness = harness.crash().await;
    assert_eq!(harness.all().await.len(), 2);
    harness.check().await;
}

pub async fn nothing_to_do_is_done(provider: &impl Provider) {
    let harness = StoreHarness::new(provider).await;
    assert_eq!(patient(harness.store.submit_all(Vec::new())).await, Ok(Vec::new()));
    assert_eq!(patient(harness.store.submit_atomic(Vec::new())).await, Ok(Vec::new()));
    assert_eq!(patient(harness.store.cancel(Vec::new(), Vec::new())).await, Ok(Vec::new()));
    assert_eq!(patient(harness.store.redrive(Vec::new(), Vec::new())).await, Ok(Vec::new()));
    assert_eq!(harness.hub.newest(), Seq(0));
    harness.check().await;
}
