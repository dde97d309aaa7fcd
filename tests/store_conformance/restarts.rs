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

use crate::{
    provider::Provider,
    work::{FINGERPRINT, done, keyed, later, patient, task},
    yard::Yard,
};

pub async fn what_waits_later_starts_after_a_restart(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let due = Due::After(Duration::from_millis(80));
    let (soon, never) =
        (yard.submit(NewTask { due, ..task("a") }).await, yard.submit(later("a")).await);
    yard = yard.crash().await;
    yard = yard.restart().await;
    assert_eq!((yard.recovered.tasks, yard.recovered.interrupted), (2, 0));
    // The worker waits until the time has come, and nobody tells it.
    let run = yard.start().await;
    assert_eq!((run.given.task, run.given.attempt), (soon, 1));
    let stored = yard.get(soon).await;
    assert!(run.given.started >= stored.due, "not before its time");
    assert_eq!(yard.state(never).await, State::Scheduled);
    yard.check().await;
}

pub async fn what_became_due_while_nobody_was_there_starts(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let due = Due::After(Duration::from_millis(1));
    let id = yard.submit(NewTask { due, ..task("a") }).await;
    yard = yard.restart().await;
    assert_eq!(yard.run(done()).await, id);
    yard.check().await;
}

pub async fn a_drain_stops_the_pool_and_loses_nothing(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let (busy, stuck) = (yard.submit(task("a")).await, yard.submit(task("a")).await);
    let (reports, _never) = (yard.start().await, yard.start().await);
    let idle = yard.wait().await;
    let before = yard.hub.newest();
    for _ in 0..2 {
        patient(yard.store.drain()).await.expect("a drain");
    }
    idle.stop().await;
    let told: Vec<_> = yard.events_after(before).await.iter().map(v1::Event::r#type).collect();
    assert_eq!(told, [Draining], "once");
    assert_eq!(yard.try_submit(task("a")).await, Err(Error::Draining));
    let batch = || vec![yard.ready(task("a"))];
    assert_eq!(patient(yard.store.submit_all(batch())).await, Err(Error::Draining));
    assert_eq!(patient(yard.store.submit_atomic(batch())).await, Err(Error::Draining));
    let dispatch = patient(yard.store.next_dispatch(WorkerId(99), None)).await;
    assert!(matches!(dispatch, Ok(Dispatch::Stop)), "{dispatch:?}");
    assert_eq!(yard.state(busy).await, State::Running, "what runs goes on");
    let finished = reports.finished(Outcome::Interrupted);
    let dispatch = patient(yard.store.next_dispatch(reports.worker, Some(finished))).await;
    assert!(matches!(dispatch, Ok(Dispatch::Stop)), "{dispatch:?}");
    assert_eq!(yard.state(busy).await, State::Queued);
    assert_eq!(yard.get(busy).await.lifecycle.failures, 0);
    yard = yard.restart().await;
    assert_eq!((yard.recovered.tasks, yard.recovered.interrupted), (2, 1), "one never reported");
    assert_eq!(yard.run_all(2).await.into_iter().map(|it| it.0).collect::<Vec<_>>(), [busy, stuck]);
    yard.check().await;
}

pub async fn a_closed_store_refuses_and_can_still_be_read(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let kept = yard.submit(keyed("a", "key")).await;
    yard.submit(later("a")).await;
    let _run = yard.start().await;
    let mut tail = yard.hub.follow(Some(Seq(0)), Arc::clone(&yard.store) as _);
    let newest = yard.hub.newest();
    assert_eq!(patient(yard.store.close()).await, Ok(2), "what has not ended");
    let store = &yard.store;
    let draining = Error::Draining;
    assert_eq!(yard.try_submit(task("a")).await, Err(draining.clone()));
    let batch = || vec![yard.ready(task("a"))];
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
    assert_eq!(yard.all().await.len(), 2);
    assert_eq!(yard.state(kept).await, State::Running);
    let known = patient(store.repeated("key".to_owned(), FINGERPRINT)).await;
    assert_eq!(known.map(|known| known.map(|known| known.task)), Ok(Some(kept)));
    assert_eq!(yard.told(kept).await[0], Submitted);
    while tail.cursor() < newest {
        patient(tail.next()).await.expect("what was committed");
    }
    assert_eq!(patient(tail.next()).await, Err(Ended::Closed));
}

pub async fn cursors_and_events_outlive_restarts_and_crashes(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let (mut cursors, mut before) = (Vec::new(), Vec::new());
    for round in 0..4 {
        yard.submit(task("a")).await;
        yard.run(done()).await;
        let newest = yard.hub.newest();
        cursors.push((yard.hub.cursor(newest), newest));
        let events = yard.events_after(Seq(0)).await;
        assert_eq!(events[..before.len()], before, "what was told is told again");
        assert_eq!(events.len() as u64, newest.0);
        before = events;
        yard = if round % 2 == 0 { yard.crash().await } else { yard.restart().await };
        for (cursor, seq) in &cursors {
            assert_eq!(yard.hub.resolve(*cursor), Ok(*seq));
        }
    }
    let ahead = yard.hub.cursor(Seq(yard.hub.newest().0 + 1));
    assert!(yard.hub.resolve(ahead).is_err(), "it was never given out");
    yard.check().await;
}
