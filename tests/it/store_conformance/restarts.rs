//! What another process finds.

use std::{sync::Arc, time::Duration};

use taskyard::{
    event::Seq,
    events::Ended,
    proto::v1::{
        self,
        EventType::{Draining, Submitted},
    },
    store::{Dispatch, Error, Outcome, QueueChange},
    task::{Due, NewTask, State, WorkerId},
};

use crate::store_conformance::{
    harness::StoreHarness,
    provider::Provider,
    work::{FINGERPRINT, done, keyed, later, patient, task},
};

pub async fn what_waits_later_starts_after_a_restart(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let due = Due::After(Duration::from_millis(80));
    let (soon, never) =
        (harness.submit(NewTask { due, ..task("a") }).await, harness.submit(later("a")).await);
    harness = harness.crash().await;
    harness = harness.restart().await;
    assert_eq!((harness.recovered.tasks, harness.recovered.interrupted), (2, 0));
    // The worker waits until the time has come, and nobody tells it.
    let run = harness.start().await;
    assert_eq!((run.given.task, run.given.attempt), (soon, 1));
    let stored = harness.get(soon).await;
    assert!(run.given.started >= stored.due, "not before its time");
    assert_eq!(harness.state(never).await, State::Scheduled);
    harness.check().await;
}

pub async fn what_became_due_while_nobody_was_there_starts(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let due = Due::After(Duration::from_millis(1));
    let id = harness.submit(NewTask { due, ..task("a") }).await;
    harness = harness.restart().await;
    assert_eq!(harness.run(done()).await, id);
    harness.check().await;
}

pub async fn a_drain_stops_the_pool_and_loses_nothing(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let (busy, stuck) = (harness.submit(task("a")).await, harness.submit(task("a")).await);
    let (reports, _never) = (harness.start().await, harness.start().await);
    let idle = harness.wait().await;
    let before = harness.hub.newest();
    for _ in 0..2 {
        patient(harness.store.drain()).await.expect("a drain");
    }
    idle.stop().await;
    let told: Vec<_> = harness.events_after(before).await.iter().map(v1::Event::r#type).collect();
    assert_eq!(told, [Draining], "once");
    assert_eq!(harness.try_submit(task("a")).await, Err(Error::Draining));
    let batch = || vec![harness.ready(task("a"))];
    assert_eq!(patient(harness.store.submit_all(batch())).await, Err(Error::Draining));
    assert_eq!(patient(harness.store.submit_atomic(batch())).await, Err(Error::Draining));
    let dispatch = patient(harness.store.next_dispatch(WorkerId(99), None)).await;
    assert!(matches!(dispatch, Ok(Dispatch::Stop)), "{dispatch:?}");
    assert_eq!(harness.state(busy).await, State::Running, "what runs goes on");
    let finished = reports.finished(Outcome::Interrupted);
    let dispatch = patient(harness.store.next_dispatch(reports.worker, Some(finished))).await;
    assert!(matches!(dispatch, Ok(Dispatch::Stop)), "{dispatch:?}");
    assert_eq!(harness.state(busy).await, State::Queued);
    assert_eq!(harness.get(busy).await.lifecycle.failures, 0);
    harness = harness.restart().await;
    assert_eq!(
        (harness.recovered.tasks, harness.recovered.interrupted),
        (2, 1),
        "one never reported"
    );
    assert_eq!(
        harness.run_all(2).await.into_iter().map(|it| it.0).collect::<Vec<_>>(),
        [busy, stuck]
    );
    harness.check().await;
}

pub async fn a_closed_store_refuses_and_can_still_be_read(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let kept = harness.submit(keyed("a", "key")).await;
    harness.submit(later("a")).await;
    let _run = harness.start().await;
    let mut tail = harness.hub.follow(Some(Seq(0)), Arc::clone(&harness.store) as _);
    let newest = harness.hub.newest();
    assert_eq!(patient(harness.store.close()).await, Ok(2), "what has not ended");
    let store = &harness.store;
    let draining = Error::Draining;
    assert_eq!(harness.try_submit(task("a")).await, Err(draining.clone()));
    let batch = || vec![harness.ready(task("a"))];
    assert_eq!(patient(store.submit_all(batch())).await, Err(draining.clone()));
    assert_eq!(patient(store.submit_atomic(batch())).await, Err(draining.clone()));
    assert_eq!(patient(store.cancel(vec![kept], Vec::new())).await, Err(draining.clone()));
    assert_eq!(patient(store.redrive(vec![kept], Vec::new())).await, Err(draining.clone()));
    assert_eq!(patient(store.join(WorkerId(9))).await, Err(draining.clone()));
    assert_eq!(patient(store.leave(WorkerId(9))).await, Err(draining.clone()));
    assert_eq!(patient(store.retire(vec![WorkerId(9)])).await, Err(draining.clone()));
    let pause = store.change_queue("a".into(), QueueChange::Pause);
    assert_eq!(patient(pause).await, Err(draining.clone()));
    assert_eq!(patient(store.overview(None)).await, Err(draining));
    assert_eq!(harness.all().await.len(), 2);
    assert_eq!(harness.state(kept).await, State::Running);
    let known = patient(store.repeated("key".to_owned(), FINGERPRINT)).await;
    assert_eq!(known.map(|known| known.map(|known| known.task)), Ok(Some(kept)));
    assert_eq!(harness.told(kept).await[0], Submitted);
    while tail.cursor() < newest {
        patient(tail.next()).await.expect("what was committed");
    }
    assert_eq!(patient(tail.next()).await, Err(Ended::Closed));
}

pub async fn cursors_and_events_outlive_restarts_and_crashes(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let (mut cursors, mut before) = (Vec::new(), Vec::new());
    for round in 0..4 {
        harness.submit(task("a")).await;
        harness.run(done()).await;
        let newest = harness.hub.newest();
        cursors.push((harness.hub.cursor(newest), newest));
        let events = harness.events_after(Seq(0)).await;
        assert_eq!(events[..before.len()], before, "what was told is told again");
        assert_eq!(events.len() as u64, newest.0);
        before = events;
        harness = if round % 2 == 0 { harness.crash().await } else { harness.restart().await };
        for (cursor, seq) in &cursors {
            assert_eq!(harness.hub.resolve(*cursor), Ok(*seq));
        }
    }
    let ahead = harness.hub.cursor(Seq(harness.hub.newest().0 + 1));
    assert!(harness.hub.resolve(ahead).is_err(), "it was never given out");
    harness.check().await;
}
