//! The overview.

use std::time::Duration;

use taskyard::{
    queue::{Counts, Overrides},
    store::{Flow, Outcome, QueueChange, weight},
    task::{Data, NewTask, State},
};

use crate::{
    provider::Provider,
    work::{LATER, RAN, broken, done, failed, later, patient, task, tried},
    yard::{Setup, Yard},
};

pub async fn counts_agree_with_lists_after_every_transition(provider: &impl Provider) {
    let mut yard = Yard::with(provider, Setup { max_crashes: 2, ..Setup::default() }).await;
    yard.check().await;
    for queue in ["a", "b"] {
        let delayed = yard.submit(later(queue)).await;
        yard.check().await;
        assert_eq!(yard.cancel(delayed).await, Ok(()));
        yard.check().await;
        let id = yard.submit(tried(queue, 2)).await;
        yard.check().await;
        let run = yard.start().await;
        assert_eq!(run.given.task, id);
        yard.check().await;
        yard.end(run, Outcome::Interrupted).await;
        yard.check().await;
        yard.run(failed(Duration::ZERO)).await;
        yard.check().await;
        yard.run(failed(Duration::ZERO)).await;
        assert_eq!(yard.state(id).await, State::Failed);
        yard.check().await;
        assert_eq!(yard.redrive(id).await, Ok(()));
        yard.check().await;
        yard.run(failed(LATER)).await;
        assert_eq!(yard.state(id).await, State::Scheduled);
        yard.check().await;
        assert_eq!(yard.cancel(id).await, Ok(()));
        yard.check().await;
        assert_eq!(yard.redrive(id).await, Ok(()));
        let run = yard.start().await;
        assert_eq!(yard.cancel(id).await, Ok(()));
        yard.check().await;
        yard.end(run, Outcome::Stopped).await;
        yard.check().await;
        // Once into its queue, once into its end.
        let poison = yard.submit(task(queue)).await;
        for _ in 0..2 {
            assert_eq!(yard.start().await.given.task, poison);
            yard = yard.crash().await;
            yard.check().await;
        }
        assert_eq!(yard.state(poison).await, State::Failed);
        yard.submit(task(queue)).await;
        yard.run(done()).await;
        yard.check().await;
        yard.submit(later(queue)).await;
        yard = yard.restart().await;
        yard.check().await;
    }
    let expected =
        Counts { scheduled: 1, succeeded: 1, failed: 1, cancelled: 2, ..Counts::default() };
    for queue in ["a", "b"] {
        assert_eq!(yard.queue(queue).await.counts, expected);
    }
}

pub async fn an_overview_tells_what_waits_and_since_when(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let payload = Data::Bytes(vec![0; 1_000].into());
    let first = NewTask { payload, ..task("a") };
    let (bytes, small) = (weight(&first), weight(&task("a")));
    let delayed = yard.submit(later("a")).await;
    let status = yard.queue("a").await;
    assert_eq!((status.waiting_bytes, status.oldest_due), (small, None), "none is due yet");
    let (first, second) = (yard.submit(first).await, yard.submit(task("a")).await);
    for _ in 0..2 {
        let due = yard.get(first).await.due;
        let status = yard.queue("a").await;
        assert_eq!(status.waiting_bytes, bytes + 2 * small);
        assert_eq!((status.oldest_due, status.block), (Some(due), None));
        assert_eq!((status.waiting_callers, status.paused), (0, false));
        yard = yard.crash().await;
    }
    let run = yard.start().await;
    assert_eq!(run.given.task, first);
    let status = yard.queue("a").await;
    let due = yard.get(second).await.due;
    assert_eq!((status.waiting_bytes, status.oldest_due), (2 * small, Some(due)));
    yard.end(run, broken()).await;
    assert_eq!(yard.redrive(first).await, Ok(()));
    assert_eq!(yard.queue("a").await.waiting_bytes, bytes + 2 * small, "as much as before");
    for id in [first, second, delayed] {
        assert_eq!(yard.cancel(id).await, Ok(()));
    }
    let status = yard.queue("a").await;
    assert_eq!((status.waiting_bytes, status.oldest_due), (0, None));
    let overview = yard.overview().await;
    assert!(overview.since <= overview.now);
    yard.check().await;
}

pub async fn an_overview_tells_of_one_queue_or_of_none(provider: &impl Provider) {
    let weight = Overrides { weight: Some(5), ..Overrides::default() };
    let yard = Yard::with(provider, Setup::default().queue("b", weight)).await;
    for queue in ["c", "a", "b"] {
        yard.submit(task(queue)).await;
    }
    yard.change("d", QueueChange::Pause).await;
    // Asking for a queue does not make it.
    for _ in 0..2 {
        let unknown = patient(yard.store.overview(Some("e".into()))).await.expect("an overview");
        assert_eq!(unknown.queues, []);
    }
    let names: Vec<_> = yard.overview().await.queues.into_iter().map(|it| it.name).collect();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    let (plain, heavy) = (yard.queue("a").await, yard.queue("b").await);
    assert_eq!((plain.settings.weight, heavy.settings.weight), (1, 5));
    assert!(heavy.overrides.is_empty(), "nobody has changed what is configured");
    assert_eq!(yard.queue("d").await.counts, Counts::default());
    yard.check().await;
}

pub async fn what_went_through_is_measured(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    yard.submit(task("idle")).await;
    assert_eq!(yard.overview().await.flow.mean_service, None);
    for _ in 0..10 {
        yard.submit(NewTask { priority: 1, ..tried("a", 2) }).await;
    }
    // The queues take turns, so the other one's task is among them.
    for _ in 0..6 {
        yard.run(done()).await;
    }
    yard.run(failed(Duration::ZERO)).await;
    let overview = yard.overview().await;
    for flow in [overview.flow, yard.queue("a").await.flow] {
        assert!(flow.arrival_rate > 0.0 && flow.arrival_rate.is_finite(), "{flow:?}");
        assert!(flow.completion_rate > 0.0 && flow.completion_rate.is_finite(), "{flow:?}");
        let service = flow.mean_service.expect("measured");
        assert!(service.abs_diff(RAN) <= RAN / 100, "each ran {RAN:?}: {flow:?}");
        assert!(flow.mean_wait.is_some(), "{flow:?}");
    }
    yard = yard.restart().await;
    assert_eq!(yard.overview().await.flow, Flow::default(), "measured from the start on");
    yard.check().await;
}
