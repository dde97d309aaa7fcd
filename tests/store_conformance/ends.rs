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

use crate::{
    provider::Provider,
    work::{LATER, broken, done, failed, later, task, tried},
    yard::Yard,
};

pub async fn waiting_tasks_are_cancelled_at_once(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let rests = yard.submit(tried("a", 2)).await;
    yard.run(failed(LATER)).await;
    let queued = yard.submit(task("a")).await;
    let scheduled = yard.submit(later("a")).await;
    let next = yard.submit(task("a")).await;
    let states =
        [(rests, State::Scheduled), (queued, State::Queued), (scheduled, State::Scheduled)];
    for (id, state) in states {
        assert_eq!(yard.state(id).await, state);
        assert_eq!(yard.cancel(id).await, Ok(()));
        let stored = yard.get(id).await;
        assert_eq!(stored.lifecycle.state, State::Cancelled);
        assert!(stored.finished.is_some() && stored.result.is_none());
        let events = yard.events_of(id).await;
        assert_eq!(events.last().map(v1::Event::r#type), Some(Cancelled));
        assert_eq!(yard.cancel(id).await, Ok(()), "repeating it does nothing more");
        assert_eq!(yard.events_of(id).await, events);
    }
    assert_eq!(yard.run(done()).await, next, "what was cancelled does not start");
    yard.check().await;
}

pub async fn a_running_task_is_signalled_and_its_end_decides(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let ends = [
        (Outcome::Stopped, State::Cancelled),
        (Outcome::Succeeded(Data::Json("1".into())), State::Succeeded),
        (failed(Duration::ZERO), State::Cancelled),
        (broken(), State::Cancelled),
        (Outcome::Interrupted, State::Cancelled),
    ];
    for (outcome, end) in ends {
        let id = yard.submit(tried("a", 3)).await;
        let run = yard.start().await;
        assert!(!run.given.cancel.is_cancelled());
        for _ in 0..2 {
            assert_eq!(yard.cancel(id).await, Ok(()));
            assert!(run.given.cancel.is_cancelled(), "signalled when it is answered");
        }
        let life = yard.get(id).await.lifecycle;
        assert_eq!((life.state, life.cancel_requested), (State::Running, true));
        assert_eq!(yard.told(id).await, [Submitted, Started], "nothing has happened yet");
        yard.end(run, outcome.clone()).await;
        let stored = yard.get(id).await;
        assert_eq!(stored.lifecycle.state, end, "{outcome:?}");
        assert_eq!(stored.result.is_some(), end == State::Succeeded);
        let last = if end == State::Succeeded { Succeeded } else { Cancelled };
        assert_eq!(yard.told(id).await, [Submitted, Started, last], "{outcome:?}");
    }
    yard.check().await;
}

pub async fn a_crash_ends_a_task_that_was_to_be_cancelled(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let id = yard.submit(task("a")).await;
    let run = yard.start().await;
    assert_eq!(yard.cancel(id).await, Ok(()));
    drop(run);
    yard = yard.crash().await;
    assert_eq!((yard.recovered.tasks, yard.recovered.interrupted), (0, 1));
    assert_eq!(yard.state(id).await, State::Cancelled);
    assert_eq!(yard.told(id).await, [Submitted, Started, Cancelled]);
    let mut idle = yard.wait().await;
    assert!(idle.is_idle().await, "it does not run again");
    yard.check().await;
}

pub async fn terminal_states_are_final(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    for (outcome, state) in [(done(), State::Succeeded), (broken(), State::Failed)] {
        let id = yard.submit(task("a")).await;
        assert_eq!(yard.run(outcome).await, id);
        let before = (yard.get(id).await, yard.events_of(id).await);
        let ended = Error::Ended { task: id, state };
        assert_eq!(yard.cancel(id).await, Err(ended));
        yard = yard.crash().await;
        yard = yard.restart().await;
        assert_eq!((yard.get(id).await, yard.events_of(id).await), before);
        let mut idle = yard.wait().await;
        assert!(idle.is_idle().await, "it does not run again");
        yard = yard.restart().await;
    }
    yard.check().await;
}

pub async fn a_stale_report_changes_nothing(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let id = yard.submit(task("a")).await;
    let first = yard.start().await;
    let stale = first.finished(done());
    // While it waits again.
    yard = yard.crash().await;
    let late = yard.add_worker().await;
    yard.report(late, stale.clone()).await;
    assert_eq!(yard.state(id).await, State::Queued);
    // While another worker runs it.
    let second = yard.start().await;
    let late = yard.add_worker().await;
    yard.report(late, stale.clone()).await;
    let life = yard.get(id).await.lifecycle;
    assert_eq!((life.state, life.attempt), (State::Running, 2));
    // After its end.
    yard.end(second, broken()).await;
    let late = yard.add_worker().await;
    yard.report(late, stale).await;
    assert_eq!(yard.state(id).await, State::Failed);
    let told = yard.told(id).await;
    assert_eq!(told[..4], [Submitted, Started, Interrupted, Started]);
    assert_eq!(told.len(), 5);
    yard.check().await;
}
