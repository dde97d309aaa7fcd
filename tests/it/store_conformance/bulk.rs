//! Many tasks cancelled or redriven by one command.

use taskyard::events::History as _;
use taskyard::{
    admission::{Limit, Refused},
    event::Seq,
    proto::v1::EventType::{self, Cancelled, Redriven},
    queue::{Field, Overrides},
    store::{Error, Outcome, QueueChange},
    task::{Data, NewTask, State, TaskId},
};

use crate::store_conformance::{
    harness::{Setup, StoreHarness},
    provider::Provider,
    work::{broken, done, later, nobody, patient, task},
};

/// The tasks that events after `seq` speak of, all of one sort and one commit.
async fn told<P: Provider>(
    harness: &StoreHarness<'_, P>,
    seq: Seq,
    what: EventType,
) -> Vec<String> {
    let events = harness.events_after(seq).await;
    assert!(events.iter().all(|event| event.r#type() == what), "{events:?}");
    let batches = patient(harness.store.read(seq, 1 << 20)).await.expect("events");
    assert_eq!(batches[0].last(), harness.hub.newest(), "all in one commit");
    events.into_iter().map(|event| event.task_id).collect()
}

fn names(ids: &[TaskId]) -> Vec<String> {
    ids.iter().map(TaskId::to_string).collect()
}

pub async fn tasks_are_cancelled_together_each_with_its_own_result(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let succeeded = harness.submit(task("a")).await;
    harness.run(done()).await;
    let failed = harness.submit(task("b")).await;
    harness.run(broken()).await;
    let running = harness.submit(task("a")).await;
    let run = harness.start().await;
    let (queued, scheduled) = (harness.submit(task("b")).await, harness.submit(later("a")).await);
    let cancelled = harness.submit(task("a")).await;
    assert_eq!(harness.cancel(cancelled).await, Ok(()));
    let untouched = harness.submit(task("a")).await;
    let before = harness.hub.newest();
    let which =
        vec![succeeded, scheduled, nobody(), queued, failed, running, queued, cancelled, running];
    let results = patient(harness.store.cancel(which, Vec::new())).await.expect("a commit");
    let expected = vec![
        Err(Error::Ended { task: succeeded, state: State::Succeeded }),
        Ok(()),
        Err(Error::NotFound(nobody())),
        Ok(()),
        Err(Error::Ended { task: failed, state: State::Failed }),
        Ok(()),
        Ok(()),
        Ok(()),
        Ok(()),
    ];
    assert_eq!(results, expected);
    assert!(run.given.cancel.is_cancelled());
    assert_eq!(told(&harness, before, Cancelled).await, names(&[scheduled, queued]), "in order");
    harness.check().await;
    harness = harness.crash().await;
    for (id, state) in [
        (queued, State::Cancelled),
        (scheduled, State::Cancelled),
        (running, State::Cancelled),
        (untouched, State::Queued),
    ] {
        assert_eq!(harness.state(id).await, state);
    }
    harness.check().await;
}

pub async fn tasks_are_redriven_together_each_with_its_own_result(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let succeeded = harness.submit(task("a")).await;
    harness.run(done()).await;
    let failed = harness.submit(task("b")).await;
    harness.run(broken()).await;
    let stopped = harness.submit(task("a")).await;
    let run = harness.start().await;
    assert_eq!(harness.cancel(stopped).await, Ok(()));
    harness.end(run, Outcome::Stopped).await;
    let cancelled = harness.submit(later("a")).await;
    assert_eq!(harness.cancel(cancelled).await, Ok(()));
    let running = harness.submit(task("a")).await;
    let _run = harness.start().await;
    let queued = harness.submit(task("a")).await;
    let before = harness.hub.newest();
    let which = vec![cancelled, succeeded, failed, queued, nobody(), running, failed, stopped];
    let results = patient(harness.store.redrive(which, Vec::new())).await.expect("a commit");
    let expected = vec![
        Ok(()),
        Err(Error::Ended { task: succeeded, state: State::Succeeded }),
        Ok(()),
        Err(Error::NotEnded { task: queued, state: State::Queued }),
        Err(Error::NotFound(nobody())),
        Err(Error::NotEnded { task: running, state: State::Running }),
        Err(Error::NotEnded { task: failed, state: State::Queued }),
        Ok(()),
    ];
    assert_eq!(results, expected);
    assert_eq!(told(&harness, before, Redriven).await, names(&[cancelled, failed, stopped]));
    harness.check().await;
    harness = harness.crash().await;
    for id in [cancelled, failed, stopped, queued] {
        assert_eq!(harness.state(id).await, State::Queued);
    }
    harness.check().await;
}

/// Tasks that fail, one after the other.
async fn failures<P: Provider>(
    harness: &mut StoreHarness<'_, P>,
    tasks: Vec<NewTask>,
) -> Vec<TaskId> {
    let mut failed = Vec::new();
    for task in tasks {
        let id = harness.submit(task).await;
        assert_eq!(harness.run(broken()).await, id);
        failed.push(id);
    }
    failed
}

pub async fn a_full_queue_takes_no_more_redriven_tasks(provider: &impl Provider) {
    let limit = Overrides { max_tasks: Some(3), ..Overrides::default() };
    let mut harness = StoreHarness::with(provider, Setup::default().queue("a", limit)).await;
    let of_a = failures(&mut harness, vec![task("a"); 4]).await;
    let of_b = failures(&mut harness, vec![task("b"); 2]).await;
    let waits = harness.submit(task("a")).await;
    let which = [of_a[0], of_b[0], of_a[1], of_a[2], nobody(), waits, of_b[1], of_a[3]];
    let results = patient(harness.store.redrive(which.into(), Vec::new())).await.expect("a commit");
    for (at, (id, result)) in which.into_iter().zip(results).enumerate() {
        let right = match (at, result) {
            (0 | 1 | 2 | 6, Ok(())) => true,
            (3 | 7, Err(Error::NoRoom { queue, cause: Refused::Full { limit, .. } })) => {
                (&*queue, limit) == ("a", Limit::Tasks(3))
            }
            (4, Err(Error::NotFound(unknown))) => unknown == id,
            (5, Err(Error::NotEnded { task, state: State::Queued })) => task == id,
            (_, other) => panic!("result {at}: {other:?}"),
        };
        assert!(right, "result {at}");
    }
    let states = [State::Queued, State::Queued, State::Failed, State::Failed];
    for (id, state) in of_a.iter().zip(states) {
        assert_eq!(harness.state(*id).await, state);
    }
    harness.gate.try_admit("a", 1).expect_err("the places are taken");
    harness.check().await;
    // Somebody leaves, and there is room again.
    assert_eq!(harness.run(done()).await, waits);
    assert_eq!(harness.redrive(of_a[3]).await, Ok(()));
    let full = harness.redrive(of_a[2]).await;
    assert!(matches!(full, Err(Error::NoRoom { .. })), "{full:?}");
    harness.check().await;
}

pub async fn after_one_that_does_not_fit_none_of_its_queue_is_redriven(provider: &impl Provider) {
    let limit = Overrides { max_bytes: Some(4_000), ..Overrides::default() };
    let mut harness = StoreHarness::with(provider, Setup::default().queue("a", limit)).await;
    let sized = |bytes| NewTask { body: Data::Bytes(vec![0; bytes].into()).into(), ..task("a") };
    let failed = failures(&mut harness, vec![sized(500), sized(3_000), sized(10)]).await;
    let other = failures(&mut harness, vec![task("b")]).await;
    let waits = harness.submit(sized(1_000)).await;
    let which = vec![failed[0], failed[1], failed[2], other[0]];
    let results = patient(harness.store.redrive(which, Vec::new())).await.expect("a commit");
    assert_eq!((&results[0], &results[3]), (&Ok(()), &Ok(())));
    for result in &results[1..3] {
        assert!(
            matches!(result, Err(Error::NoRoom { queue, .. }) if &**queue == "a"),
            "{result:?}"
        );
    }
    assert_eq!(harness.state(failed[2]).await, State::Failed, "a small one does not overtake");
    assert_eq!(harness.redrive(failed[2]).await, Ok(()), "by itself it may");
    for _ in 0..4 {
        harness.run(done()).await;
    }
    assert_eq!(harness.state(waits).await, State::Succeeded);
    assert_eq!(harness.redrive(failed[1]).await, Ok(()));
    harness.check().await;
}

pub async fn one_that_never_fits_keeps_nobody_out(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let large = NewTask { body: Data::Bytes(vec![0; 9_000].into()).into(), ..task("a") };
    let failed = failures(&mut harness, vec![large, task("a"), task("a")]).await;
    let lowered = Overrides { max_bytes: Some(4_000), ..Overrides::default() };
    harness.change("a", QueueChange::Settings(vec![Field::MaxBytes], Box::new(lowered))).await;
    let results =
        patient(harness.store.redrive(failed.clone(), Vec::new())).await.expect("a commit");
    assert!(
        matches!(&results[0], Err(Error::NoRoom { cause: Refused::LargerThanQueue { .. }, .. })),
        "{results:?}"
    );
    assert_eq!(&results[1..], [Ok(()), Ok(())]);
    assert_eq!(harness.state(failed[0]).await, State::Failed);
    harness.check().await;
}

pub async fn only_tasks_in_the_states_that_are_meant_are_changed(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let running = harness.submit(task("a")).await;
    let run = harness.start().await;
    let (queued, scheduled) = (harness.submit(task("a")).await, harness.submit(later("a")).await);
    let all = vec![running, queued, scheduled];
    let moved = |task, state| Err(Error::Moved { task, state });
    let results = patient(harness.store.cancel(all.clone(), vec![State::Queued])).await;
    let expected = vec![moved(running, State::Running), Ok(()), moved(scheduled, State::Scheduled)];
    assert_eq!(results, Ok(expected));
    assert!(!run.given.cancel.is_cancelled());
    harness.end(run, broken()).await;
    let results = patient(harness.store.redrive(all, vec![State::Failed])).await.expect("a commit");
    assert_eq!(&results[..2], [Ok(()), moved(queued, State::Cancelled)]);
    assert!(matches!(results[2], Err(Error::NotEnded { .. })), "{results:?}");
    harness.check().await;
}
