//! Pauses and settings.

use std::time::Duration;

use taskyard::{
    admission::{Limit, Refused},
    event::Seq,
    proto::v1::EventType::{QueuePaused, QueueResumed},
    queue::{Block, Field, Overrides, Rate},
    store::{Error, QueueChange},
    task::State,
};

use crate::store_conformance::{
    harness::{Setup, StoreHarness},
    provider::Provider,
    work::{done, failed, patient, task, tried},
};

fn settings(fields: &[Field], values: Overrides) -> QueueChange {
    QueueChange::Settings(fields.to_vec(), Box::new(values))
}

pub async fn a_paused_queue_starts_nothing_and_the_others_go_on(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    for _ in 0..2 {
        harness.change("a", QueueChange::Pause).await;
    }
    let waits = harness.submit(task("a")).await;
    let other = harness.submit(task("b")).await;
    assert_eq!(harness.start().await.given.task, other);
    let mut idle = harness.wait().await;
    assert!(idle.is_idle().await, "nothing of it starts on a worker that asks");
    let late = harness.submit(task("a")).await;
    harness.settle().await;
    assert!(idle.is_idle().await, "nor on one that waits");
    let status = harness.queue("a").await;
    assert_eq!((status.paused, status.block), (true, Some(Block::Paused)));
    assert_eq!(status.counts.queued, 2);
    assert_eq!(harness.queue("b").await.block, None);
    for _ in 0..2 {
        harness.change("a", QueueChange::Resume).await;
    }
    assert_eq!(idle.run().await.given.task, waits, "as soon as it is resumed");
    let status = harness.queue("a").await;
    assert_eq!((status.paused, status.block), (false, None));
    assert_eq!(harness.start().await.given.task, late);
    let mut events = harness.events_after(Seq(0)).await;
    events.retain(|event| [QueuePaused, QueueResumed].contains(&event.r#type()));
    let told: Vec<_> = events.iter().map(|it| (it.r#type(), &*it.queue, &*it.task_id)).collect();
    assert_eq!(told, [(QueuePaused, "a", ""), (QueueResumed, "a", "")], "each change once");
    harness.check().await;
}

pub async fn what_runs_goes_on_in_a_paused_queue(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let (first, second) = (harness.submit(task("a")).await, harness.submit(tried("a", 2)).await);
    let (runs, fails) = (harness.start().await, harness.start().await);
    harness.change("a", QueueChange::Pause).await;
    assert!(!runs.given.cancel.is_cancelled());
    harness.end(runs, done()).await;
    assert_eq!(harness.state(first).await, State::Succeeded);
    harness.end(fails, failed(Duration::ZERO)).await;
    let mut idle = harness.wait().await;
    assert!(idle.is_idle().await, "no next attempt either");
    assert_eq!(harness.cancel(second).await, Ok(()), "but it can be cancelled");
    assert_eq!(harness.redrive(second).await, Ok(()));
    harness.settle().await;
    assert!(idle.is_idle().await);
    harness.change("a", QueueChange::Resume).await;
    assert_eq!(idle.run().await.given.task, second);
    harness.check().await;
}

pub async fn a_pause_outlives_restarts_and_crashes(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    // One that has no task yet, too.
    for queue in ["a", "empty"] {
        harness.change(queue, QueueChange::Pause).await;
    }
    let id = harness.submit(task("a")).await;
    for ends in ["crash", "restart", "crash"] {
        harness = if ends == "crash" { harness.crash().await } else { harness.restart().await };
        for queue in ["a", "empty"] {
            assert!(harness.queue(queue).await.paused, "{queue} after a {ends}");
        }
        let other = harness.submit(task("b")).await;
        assert_eq!(harness.run(done()).await, other);
        let mut idle = harness.wait().await;
        assert!(idle.is_idle().await);
        // So that the worker is not left without its answer.
        patient(harness.store.retire(vec![idle.worker])).await.expect("it retires");
        idle.stop().await;
    }
    harness.change("a", QueueChange::Resume).await;
    harness = harness.crash().await;
    assert!(!harness.queue("a").await.paused && harness.queue("empty").await.paused);
    assert_eq!(harness.run(done()).await, id);
    harness.check().await;
}

pub async fn changed_settings_outlive_restarts_and_crashes(provider: &impl Provider) {
    let configured = Overrides { weight: Some(7), max_attempts: Some(3), ..Overrides::default() };
    let mut harness = StoreHarness::with(provider, Setup::default().queue("a", configured)).await;
    let base = harness.gate.queue_config().settings("a");
    let rate = Rate { per_second: 2.5, burst: 4 };
    let changed = Overrides {
        max_tasks: Some(11),
        max_bytes: Some(1 << 20),
        max_running: Some(Some(2)),
        rate: Some(Some(rate)),
        weight: Some(9),
        max_attempts: Some(4),
        initial_backoff: Some(Duration::from_millis(5)),
        max_backoff: Some(Duration::from_millis(50)),
        attempt_timeout: Some(Duration::from_secs(5)),
    };
    harness.change("a", settings(&Field::ALL, changed)).await;
    for _ in 0..2 {
        let status = harness.queue("a").await;
        assert_eq!((status.settings, status.overrides), (changed.over(base), changed));
        assert_eq!(harness.gate.settings("a"), Some(changed.over(base)), "in force at the gate");
        harness = harness.crash().await;
    }
    // Only what is named changes; what has no new value is as configured again,
    // and a limit that is lifted differs from one that is not set.
    let lifted = Overrides { max_running: Some(None), weight: Some(5), ..Overrides::default() };
    harness.change("a", settings(&[Field::MaxRunning, Field::MaxAttempts], lifted)).await;
    let expected = Overrides { max_running: Some(None), max_attempts: None, ..changed };
    for _ in 0..2 {
        let status = harness.queue("a").await;
        assert_eq!((status.settings, status.overrides), (expected.over(base), expected));
        harness = harness.restart().await;
    }
    harness.change("a", settings(&Field::ALL, Overrides::default())).await;
    for _ in 0..2 {
        assert_eq!(harness.gate.settings("a"), Some(base));
        // Once nothing differs and it has no tasks, it need not be told of.
        let overview =
            patient(harness.store.overview(Some("a".into()))).await.expect("an overview");
        for status in overview.queues {
            assert_eq!((status.settings, status.overrides), (base, Overrides::default()));
        }
        harness = harness.crash().await;
    }
    harness.check().await;
}

pub async fn a_changed_limit_holds_at_the_gate(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let first = harness.submit(task("a")).await;
    harness.submit(task("a")).await;
    let narrow = Overrides { max_tasks: Some(1), ..Overrides::default() };
    harness.change("a", settings(&[Field::MaxTasks], narrow)).await;
    for _ in 0..2 {
        let refused = harness.gate.try_admit("a", 1).expect_err("two wait where one may");
        assert!(matches!(refused, Refused::Full { limit: Limit::Tasks(1), .. }), "{refused:?}");
        assert_eq!(harness.queue("a").await.counts.queued, 2, "nothing is dropped");
        harness = harness.crash().await;
    }
    assert_eq!(harness.run(done()).await, first);
    harness.gate.try_admit("a", 1).expect_err("one waits where one may");
    harness.run(done()).await;
    harness.gate.try_admit("a", 1).expect("there is room");
    harness.check().await;
}

pub async fn a_change_makes_no_queue_too_many(provider: &impl Provider) {
    let mut harness = StoreHarness::with(provider, Setup { queues: 2, ..Setup::default() }).await;
    harness.submit(task("a")).await;
    harness.change("b", QueueChange::Pause).await;
    let refused = patient(harness.store.change_queue("c".into(), QueueChange::Pause)).await;
    let cause = Refused::TooManyQueues(2);
    assert_eq!(refused, Err(Error::NoRoom { queue: "c".into(), cause }));
    // One that exists already can be changed.
    for _ in 0..2 {
        harness.change("a", QueueChange::Pause).await;
        harness.change("b", QueueChange::Pause).await;
        let names: Vec<_> = harness.overview().await.queues.into_iter().map(|it| it.name).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        harness = harness.crash().await;
    }
    harness.check().await;
}
