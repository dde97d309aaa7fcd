//! Several tasks at once.

use taskyard::{
    admission::Permit,
    event::Seq,
    proto::v1::EventType,
    queue::Overrides,
    store::{Error, Submission, Submitted},
    task::{Due, NewTask, State},
};

use crate::{
    provider::Provider,
    work::{LATER, keyed, later, patient, task},
    yard::{Setup, Yard},
};

/// A submission that has the key of another one, and other content.
fn clashing<P: Provider>(yard: &Yard<'_, P>, key: &str) -> (Submission, Permit) {
    let (submission, permit) = yard.ready(keyed("a", key));
    (Submission { fingerprint: [9; 16], ..submission }, permit)
}

/// Finds that these events are of one commit.
async fn one_commit<P: Provider>(yard: &Yard<'_, P>, first: Seq, last: Seq) {
    let batches = patient(yard.store.read(first.previous(), 1 << 20)).await.expect("events");
    assert!(batches[0].first() <= first && batches[0].last() >= last, "{batches:?}");
}

pub async fn each_task_of_a_batch_has_its_own_result(provider: &impl Provider) {
    let limit = Overrides { max_tasks: Some(8), ..Overrides::default() };
    let yard = Yard::with(provider, Setup::default().queue("a", limit)).await;
    let before = yard.try_submit(keyed("a", "before")).await.expect("accepted");
    let batch = vec![
        yard.ready(task("a")),
        yard.ready(keyed("a", "before")),
        clashing(&yard, "before"),
        yard.ready(keyed("a", "new")),
        yard.ready(keyed("a", "new")),
        clashing(&yard, "new"),
        yard.ready(later("a")),
    ];
    let results = patient(yard.store.submit_all(batch)).await.expect("a commit");
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
    assert_eq!(yard.all().await.len(), 4);
    // Four of eight permits are taken: the others were given back.
    let permits: Vec<_> = (0..4).map(|_| yard.permit(&task("a"))).collect();
    assert!(yard.gate.try_admit("a", 1).is_err(), "a permit was given back twice");
    drop(permits);
    yard.check().await;
}

pub async fn a_batch_is_one_commit(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    for round in 0..2 {
        let before = yard.hub.newest();
        let queues = ["a", "b", "c", "a", "b", "c"];
        let batch = queues.map(|queue| yard.ready(task(queue))).into();
        let submitted = if round == 0 {
            let results = patient(yard.store.submit_all(batch)).await.expect("a commit");
            results.into_iter().map(|result| result.expect("accepted")).collect()
        } else {
            patient(yard.store.submit_atomic(batch)).await.expect("accepted")
        };
        let seqs: Vec<_> = submitted.iter().map(|submitted| submitted.seq.0 - before.0).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5, 6], "in order, with nothing in between");
        one_commit(&yard, submitted[0].seq, submitted[5].seq).await;
        for (event, submitted) in yard.events_after(before).await.iter().zip(&submitted) {
            assert_eq!(event.r#type(), EventType::Submitted);
            assert_eq!(event.task_id, submitted.task.to_string());
        }
        yard = yard.crash().await;
        for (submitted, queue) in submitted.iter().zip(queues) {
            assert_eq!(yard.get(submitted.task).await.queue, queue, "there after a crash");
        }
    }
    let started: Vec<_> = yard.run_all(12).await.into_iter().map(|(_, queue)| queue).collect();
    assert_eq!(started.iter().filter(|queue| ***queue == *"a").count(), 4);
    yard.check().await;
}

pub async fn an_atomic_batch_is_taken_as_a_whole(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let before = yard.try_submit(keyed("a", "before")).await.expect("accepted");
    assert_eq!(yard.start().await.given.task, before.task);
    let idle = yard.wait().await;
    let batch = vec![
        yard.ready(task("b")),
        yard.ready(keyed("a", "before")),
        yard.ready(keyed("a", "new")),
        yard.ready(keyed("a", "new")),
        yard.ready(NewTask { due: Due::After(LATER), ..task("a") }),
    ];
    let submitted = patient(yard.store.submit_atomic(batch)).await.expect("accepted");
    let told: Vec<_> = submitted.iter().map(|it| (it.task.number(), it.existing)).collect();
    assert_eq!(told, [(2, false), (1, true), (3, false), (3, true), (4, false)]);
    let running = State::Running;
    assert_eq!(submitted[1], Submitted { state: running, existing: true, ..before });
    assert_eq!(submitted[4].state, State::Scheduled);
    one_commit(&yard, submitted[0].seq, submitted[4].seq).await;
    let started = idle.run().await.given.task;
    assert!([2, 3].contains(&started.number()), "a worker that waits is given one of them");
    yard.check().await;
    yard = yard.crash().await;
    assert_eq!(yard.all().await.len(), 4);
    yard.check().await;
}

pub async fn an_atomic_batch_is_refused_as_a_whole(provider: &impl Provider) {
    let limit = Overrides { max_tasks: Some(10), ..Overrides::default() };
    let mut yard = Yard::with(provider, Setup::default().queue("a", limit)).await;
    let one = yard.submit(keyed("a", "one")).await;
    let two = yard.submit(keyed("a", "two")).await;
    let _runs = (yard.start().await, yard.start().await);
    let mut third = yard.wait().await;
    let newest = yard.hub.newest();
    let batch = vec![
        yard.ready(task("a")),
        clashing(&yard, "one"),
        yard.ready(keyed("a", "one")),
        yard.ready(keyed("a", "new")),
        clashing(&yard, "two"),
    ];
    let answer = patient(yard.store.submit_atomic(batch)).await;
    let offenders = vec![(1, Error::RequestIdReused(one)), (4, Error::RequestIdReused(two))];
    assert_eq!(answer, Err(Error::NotAll(offenders)));
    // Two in a batch that exclude each other keep all out as well.
    let answer =
        patient(yard.store.submit_atomic(vec![yard.ready(keyed("a", "x")), clashing(&yard, "x")]));
    let Err(Error::NotAll(offenders)) = answer.await else { panic!("they exclude each other") };
    assert_eq!(offenders, [(1, Error::RequestIdRepeated { first: 0 })], "by its place");
    yard.settle().await;
    assert!(third.is_idle().await, "nothing of it starts");
    assert_eq!((yard.hub.newest(), yard.all().await.len()), (newest, 2), "nothing happened");
    // Both tasks run, so all permits are free again.
    let permits: Vec<_> = (0..10).map(|_| yard.permit(&task("a"))).collect();
    drop(permits);
    let yard = yard.crash().await;
    assert_eq!(yard.all().await.len(), 2);
    yard.check().await;
}

pub async fn nothing_to_do_is_done(provider: &impl Provider) {
    let yard = Yard::new(provider).await;
    assert_eq!(patient(yard.store.submit_all(Vec::new())).await, Ok(Vec::new()));
    assert_eq!(patient(yard.store.submit_atomic(Vec::new())).await, Ok(Vec::new()));
    assert_eq!(patient(yard.store.cancel(Vec::new(), Vec::new())).await, Ok(Vec::new()));
    assert_eq!(patient(yard.store.redrive(Vec::new(), Vec::new())).await, Ok(Vec::new()));
    assert_eq!(yard.hub.newest(), Seq(0));
    yard.check().await;
}
