//! Cancellation, and that what has ended stays so.

use std::time::Duration;

use taskyard::{
    proto::v1::{
        self,
        EventType::{Cancelled, Interrupted, Started, Submitted, Succeeded},
    },
    store::{Error, Outcome},
    task::{Data, State},
};

use crate::store_conformance::{
    harness::StoreHarness,
    provider::Provider,
    work::{LATER, broken, done, failed, later, task, tried},
};

pub async fn waiting_tasks_are_cancelled_at_once(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let rests = harness.submit(tried("a", 2)).await;
    harness.run(failed(LATER)).await;
    let queued = harness.submit(task("a")).await;
    let scheduled = harness.submit(later("a")).await;
    let next = harness.submit(task("a")).await;
    let states =
        [(rests, State::Scheduled), (queued, State::Queued), (scheduled, State::Scheduled)];
    for (id, state) in states {
        assert_eq!(harness.state(id).await, state);
        assert_eq!(harness.cancel(id).await, Ok(()));
        let stored = harness.get(id).await;
        assert_eq!(stored.lifecycle.state, State::Cancelled);
        assert!(stored.finished.is_some() && stored.result.is_none());
        let events = harness.events_of(id).await;
        assert_eq!(events.last().map(v1::Event::r#type), Some(Cancelled));
        assert_eq!(harness.cancel(id).await, Ok(()), "repeating it does nothing more");
        assert_eq!(harness.events_of(id).await, events);
    }
    assert_eq!(harness.run(done()).await, next, "what was cancelled does not start");
    harness.check().await;
}

pub async fn a_running_task_is_signalled_and_its_end_decides(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let ends = [
        (Outcome::Stopped, State::Cancelled),
        (Outcome::Succeeded(Data::Json("1".into())), State::Succeeded),
        (failed(Duration::ZERO), State::Cancelled),
        (broken(), State::Cancelled),
        (Outcome::Interrupted, State::Cancelled),
    ];
    for (outcome, end) in ends {
        let id = harness.submit(tried("a", 3)).await;
        let run = harness.start().await;
        assert!(!run.given.cancel.is_cancelled());
        for _ in 0..2 {
            assert_eq!(harness.cancel(id).await, Ok(()));
            assert!(run.given.cancel.is_cancelled(), "signalled when it is answered");
        }
        let life = harness.get(id).await.lifecycle;
        assert_eq!((life.state, life.cancel_requested), (State::Running, true));
        assert_eq!(harness.told(id).await, [Submitted, Started], "nothing has happened yet");
        harness.end(run, outcome.clone()).await;
        let stored = harness.get(id).await;
        assert_eq!(stored.lifecycle.state, end, "{outcome:?}");
        assert_eq!(stored.result.is_some(), end == State::Succeeded);
        let last = if end == State::Succeeded { Succeeded } else { Cancelled };
        assert_eq!(harness.told(id).await, [Submitted, Started, last], "{outcome:?}");
    }
    harness.check().await;
}

pub async fn a_crash_ends_a_task_that_was_to_be_cancelled(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let id = harness.submit(task("a")).await;
    let run = harness.start().await;
    assert_eq!(harness.cancel(id).await, Ok(()));
    drop(run);
    harness = harness.crash().await;
    assert_eq!((harness.recovered.tasks, harness.recovered.interrupted), (0, 1));
    assert_eq!(harness.state(id).await, State::Cancelled);
    assert_eq!(harness.told(id).await, [Submitted, Started, Cancelled]);
    let mut idle = harness.wait().await;
    assert!(idle.is_idle().await, "it does not run again");
    harness.check().await;
}

pub async fn terminal_states_are_final(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    for (outcome, state) in [(done(), State::Succeeded), (broken(), State::Failed)] {
        let id = harness.submit(task("a")).await;
        assert_eq!(harness.run(outcome).await, id);
        let before = (harness.get(id).await, harness.events_of(id).await);
        let ended = Error::Ended { task: id, state };
        assert_eq!(harness.cancel(id).await, Err(ended));
        harness = harness.crash().await;
        harness = harness.restart().await;
        assert_eq!((harness.get(id).await, harness.events_of(id).await), before);
        let mut idle = harness.wait().await;
        assert!(idle.is_idle().await, "it does not run again");
        harness = harness.restart().await;
    }
    harness.check().await;
}

pub async fn a_stale_report_changes_nothing(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let id = harness.submit(task("a")).await;
    let first = harness.start().await;
    let stale = first.finished(done());
    // While it waits again.
    harness = harness.crash().await;
    let late = harness.add_worker().await;
    harness.report(late, stale.clone()).await;
    assert_eq!(harness.state(id).await, State::Queued);
    // While another worker runs it.
    let second = harness.start().await;
    let late = harness.add_worker().await;
    harness.report(late, stale.clone()).await;
    let life = harness.get(id).await.lifecycle;
    assert_eq!((life.state, life.attempt), (State::Running, 2));
    // After its end.
    harness.end(second, broken()).await;
    let late = harness.add_worker().await;
    harness.report(late, stale).await;
    assert_eq!(harness.state(id).await, State::Failed);
    let told = harness.told(id).await;
    assert_eq!(told[..4], [Submitted, Started, Interrupted, Started]);
    assert_eq!(told.len(), 5);
    harness.check().await;
}
