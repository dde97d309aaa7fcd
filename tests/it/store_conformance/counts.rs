//! The overview.

use std::time::Duration;

use taskyard::{
    queue::{Counts, Overrides},
    store::{Flow, Outcome, QueueChange, weight},
    task::{Data, NewTask, State},
};

use crate::store_conformance::{
    harness::{Setup, StoreHarness},
    provider::Provider,
    work::{LATER, RAN, broken, done, failed, later, patient, task, tried},
};

pub async fn counts_agree_with_lists_after_every_transition(provider: &impl Provider) {
    let mut harness =
        StoreHarness::with(provider, Setup { max_crashes: 2, ..Setup::default() }).await;
    harness.check().await;
    for queue in ["a", "b"] {
        let delayed = harness.submit(later(queue)).await;
        harness.check().await;
        assert_eq!(harness.cancel(delayed).await, Ok(()));
        harness.check().await;
        let id = harness.submit(tried(queue, 2)).await;
        harness.check().await;
        let run = harness.start().await;
        assert_eq!(run.given.task, id);
        harness.check().await;
        harness.end(run, Outcome::Interrupted).await;
        harness.check().await;
        harness.run(failed(Duration::ZERO)).await;
        harness.check().await;
        harness.run(failed(Duration::ZERO)).await;
        assert_eq!(harness.state(id).await, State::Failed);
        harness.check().await;
        assert_eq!(harness.redrive(id).await, Ok(()));
        harness.check().await;
        harness.run(failed(LATER)).await;
        assert_eq!(harness.state(id).await, State::Scheduled);
        harness.check().await;
        assert_eq!(harness.cancel(id).await, Ok(()));
        harness.check().await;
        assert_eq!(harness.redrive(id).await, Ok(()));
        let run = harness.start().await;
        assert_eq!(harness.cancel(id).await, Ok(()));
        harness.check().await;
        harness.end(run, Outcome::Stopped).await;
        harness.check().await;
        // Once into its queue, once into its end.
        let poison = harness.submit(task(queue)).await;
        for _ in 0..2 {
            assert_eq!(harness.start().await.given.task, poison);
            harness = harness.crash().await;
            harness.check().await;
        }
        assert_eq!(harness.state(poison).await, State::Failed);
        harness.submit(task(queue)).await;
        harness.run(done()).await;
        harness.check().await;
        harness.submit(later(queue)).await;
        harness = harness.restart().await;
        harness.check().await;
    }
    let expected =
        Counts { scheduled: 1, succeeded: 1, failed: 1, cancelled: 2, ..Counts::default() };
    for queue in ["a", "b"] {
        assert_eq!(harness.queue(queue).await.counts, expected);
    }
}

pub async fn an_overview_tells_what_waits_and_since_when(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let payload = Data::Bytes(vec![0; 1_000].into());
    let first = NewTask { body: payload.into(), ..task("a") };
    let (bytes, small) = (weight(&first), weight(&task("a")));
    let delayed = harness.submit(later("a")).await;
    let status = harness.queue("a").await;
    assert_eq!((status.waiting_bytes, status.oldest_due), (small, None), "none is due yet");
    let (first, second) = (harness.submit(first).await, harness.submit(task("a")).await);
    for _ in 0..2 {
        let due = harness.get(first).await.due;
        let status = harness.queue("a").await;
        assert_eq!(status.waiting_bytes, bytes + 2 * small);
        assert_eq!((status.oldest_due, status.block), (Some(due), None));
        assert_eq!((status.waiting_callers, status.paused), (0, false));
        harness = harness.crash().await;
    }
    let run = harness.start().await;
    assert_eq!(run.given.task, first);
    let status = harness.queue("a").await;
    let due = harness.get(second).await.due;
    assert_eq!((status.waiting_bytes, status.oldest_due), (2 * small, Some(due)));
    harness.end(run, broken()).await;
    assert_eq!(harness.redrive(first).await, Ok(()));
    assert_eq!(harness.queue("a").await.waiting_bytes, bytes + 2 * small, "as much as before");
    for id in [first, second, delayed] {
        assert_eq!(harness.cancel(id).await, Ok(()));
    }
    let status = harness.queue("a").await;
    assert_eq!((status.waiting_bytes, status.oldest_due), (0, None));
    let overview = harness.overview().await;
    assert!(overview.since <= overview.now);
    harness.check().await;
}

pub async fn an_overview_tells_of_one_queue_or_of_none(provider: &impl Provider) {
    let weight = Overrides { weight: Some(5), ..Overrides::default() };
    let harness = StoreHarness::with(provider, Setup::default().queue("b", weight)).await;
    for queue in ["c", "a", "b"] {
        harness.submit(task(queue)).await;
    }
    harness.change("d", QueueChange::Pause).await;
    // Asking for a queue does not make it.
    for _ in 0..2 {
        let unknown = patient(harness.store.overview(Some("e".into()))).await.expect("an overview");
        assert_eq!(unknown.queues, []);
    }
    let names: Vec<_> = harness.overview().await.queues.into_iter().map(|it| it.name).collect();
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    let (plain, heavy) = (harness.queue("a").await, harness.queue("b").await);
    assert_eq!((plain.settings.weight, heavy.settings.weight), (1, 5));
    assert!(heavy.overrides.is_empty(), "nobody has changed what is configured");
    assert_eq!(harness.queue("d").await.counts, Counts::default());
    harness.check().await;
}

pub async fn what_went_through_is_measured(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    harness.submit(task("idle")).await;
    assert_eq!(harness.overview().await.flow.mean_service, None);
    for _ in 0..10 {
        harness.submit(NewTask { priority: 1, ..tried("a", 2) }).await;
    }
    // The queues take turns, so the other one's task is among them.
    for _ in 0..6 {
        harness.run(done()).await;
    }
    harness.run(failed(Duration::ZERO)).await;
    let overview = harness.overview().await;
    for flow in [overview.flow, harness.queue("a").await.flow] {
        assert!(flow.arrival_rate > 0.0 && flow.arrival_rate.is_finite(), "{flow:?}");
        assert!(flow.completion_rate > 0.0 && flow.completion_rate.is_finite(), "{flow:?}");
        let service = flow.mean_service.expect("measured");
        assert!(service.abs_diff(RAN) <= RAN / 100, "each ran {RAN:?}: {flow:?}");
        assert!(flow.mean_wait.is_some(), "{flow:?}");
    }
    harness = harness.restart().await;
    assert_eq!(harness.overview().await.flow, Flow::default(), "measured from the start on");
    harness.check().await;
}
