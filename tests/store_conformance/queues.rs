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

use crate::{
    provider::Provider,
    work::{done, failed, patient, task, tried},
    yard::{Setup, Yard},
};

fn settings(fields: &[Field], values: Overrides) -> QueueChange {
    QueueChange::Settings(fields.to_vec(), Box::new(values))
}

pub async fn a_paused_queue_starts_nothing_and_the_others_go_on(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    for _ in 0..2 {
        yard.change("a", QueueChange::Pause).await;
    }
    let waits = yard.submit(task("a")).await;
    let other = yard.submit(task("b")).await;
    assert_eq!(yard.start().await.given.task, other);
    let mut idle = yard.wait().await;
    assert!(idle.is_idle().await, "nothing of it starts on a worker that asks");
    let late = yard.submit(task("a")).await;
    yard.settle().await;
    assert!(idle.is_idle().await, "nor on one that waits");
    let status = yard.queue("a").await;
    assert_eq!((status.paused, status.block), (true, Some(Block::Paused)));
    assert_eq!(status.counts.queued, 2);
    assert_eq!(yard.queue("b").await.block, None);
    for _ in 0..2 {
        yard.change("a", QueueChange::Resume).await;
    }
    assert_eq!(idle.run().await.given.task, waits, "as soon as it is resumed");
    let status = yard.queue("a").await;
    assert_eq!((status.paused, status.block), (false, None));
    assert_eq!(yard.start().await.given.task, late);
    let mut events = yard.events_after(Seq(0)).await;
    events.retain(|event| [QueuePaused, QueueResumed].contains(&event.r#type()));
    let told: Vec<_> = events.iter().map(|it| (it.r#type(), &*it.queue, &*it.task_id)).collect();
    assert_eq!(told, [(QueuePaused, "a", ""), (QueueResumed, "a", "")], "each change once");
    yard.check().await;
}

pub async fn what_runs_goes_on_in_a_paused_queue(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let (first, second) = (yard.submit(task("a")).await, yard.submit(tried("a", 2)).await);
    let (runs, fails) = (yard.start().await, yard.start().await);
    yard.change("a", QueueChange::Pause).await;
    assert!(!runs.given.cancel.is_cancelled());
    yard.end(runs, done()).await;
    assert_eq!(yard.state(first).await, State::Succeeded);
    yard.end(fails, failed(Duration::ZERO)).await;
    let mut idle = yard.wait().await;
    assert!(idle.is_idle().await, "no next attempt either");
    assert_eq!(yard.cancel(second).await, Ok(()), "but it can be cancelled");
    assert_eq!(yard.redrive(second).await, Ok(()));
    yard.settle().await;
    assert!(idle.is_idle().await);
    yard.change("a", QueueChange::Resume).await;
    assert_eq!(idle.run().await.given.task, second);
    yard.check().await;
}

pub async fn a_pause_outlives_restarts_and_crashes(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    // One that has no task yet, too.
    for queue in ["a", "empty"] {
        yard.change(queue, QueueChange::Pause).await;
    }
    let id = yard.submit(task("a")).await;
    for ends in ["crash", "restart", "crash"] {
        yard = if ends == "crash" { yard.crash().await } else { yard.restart().await };
        for queue in ["a", "empty"] {
            assert!(yard.queue(queue).await.paused, "{queue} after a {ends}");
        }
        let other = yard.submit(task("b")).await;
        assert_eq!(yard.run(done()).await, other);
        let mut idle = yard.wait().await;
        assert!(idle.is_idle().await);
        // So that the worker is not left without its answer.
        patient(yard.store.retire(vec![idle.worker])).await.expect("it retires");
        idle.stop().await;
    }
    yard.change("a", QueueChange::Resume).await;
    yard = yard.crash().await;
    assert!(!yard.queue("a").await.paused && yard.queue("empty").await.paused);
    assert_eq!(yard.run(done()).await, id);
    yard.check().await;
}

pub async fn changed_settings_outlive_restarts_and_crashes(provider: &impl Provider) {
    let configured = Overrides { weight: Some(7), max_attempts: Some(3), ..Overrides::default() };
    let mut yard = Yard::with(provider, Setup::default().queue("a", configured)).await;
    let base = yard.gate.queue_config().settings("a");
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
    yard.change("a", settings(&Field::ALL, changed)).await;
    for _ in 0..2 {
        let status = yard.queue("a").await;
        assert_eq!((status.settings, status.overrides), (changed.over(base), changed));
        assert_eq!(yard.gate.settings("a"), Some(changed.over(base)), "in force at the gate");
        yard = yard.crash().await;
    }
    // Only what is named changes; what has no new value is as configured again,
    // and a limit that is lifted differs from one that is not set.
    let lifted = Overrides { max_running: Some(None), weight: Some(5), ..Overrides::default() };
    yard.change("a", settings(&[Field::MaxRunning, Field::MaxAttempts], lifted)).await;
    let expected = Overrides { max_running: Some(None), max_attempts: None, ..changed };
    for _ in 0..2 {
        let status = yard.queue("a").await;
        assert_eq!((status.settings, status.overrides), (expected.over(base), expected));
        yard = yard.restart().await;
    }
    yard.change("a", settings(&Field::ALL, Overrides::default())).await;
    for _ in 0..2 {
        assert_eq!(yard.gate.settings("a"), Some(base));
        // Once nothing differs and it has no tasks, it need not be told of.
        let overview = patient(yard.store.overview(Some("a".into()))).await.expect("an overview");
        for status in overview.queues {
            assert_eq!((status.settings, status.overrides), (base, Overrides::default()));
        }
        yard = yard.crash().await;
    }
    yard.check().await;
}

pub async fn a_changed_limit_holds_at_the_gate(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let first = yard.submit(task("a")).await;
    yard.submit(task("a")).await;
    let narrow = Overrides { max_tasks: Some(1), ..Overrides::default() };
    yard.change("a", settings(&[Field::MaxTasks], narrow)).await;
    for _ in 0..2 {
        let refused = yard.gate.try_admit("a", 1).expect_err("two wait where one may");
        assert!(matches!(refused, Refused::Full { limit: Limit::Tasks(1), .. }), "{refused:?}");
        assert_eq!(yard.queue("a").await.counts.queued, 2, "nothing is dropped");
        yard = yard.crash().await;
    }
    assert_eq!(yard.run(done()).await, first);
    yard.gate.try_admit("a", 1).expect_err("one waits where one may");
    yard.run(done()).await;
    yard.gate.try_admit("a", 1).expect("there is room");
    yard.check().await;
}

pub async fn a_change_makes_no_queue_too_many(provider: &impl Provider) {
    let mut yard = Yard::with(provider, Setup { queues: 2, ..Setup::default() }).await;
    yard.submit(task("a")).await;
    yard.change("b", QueueChange::Pause).await;
    let refused = patient(yard.store.change_queue("c".into(), QueueChange::Pause)).await;
    let cause = Refused::TooManyQueues(2);
    assert_eq!(refused, Err(Error::NoRoom { queue: "c".into(), cause }));
    // One that exists already can be changed.
    for _ in 0..2 {
        yard.change("a", QueueChange::Pause).await;
        yard.change("b", QueueChange::Pause).await;
        let names: Vec<_> = yard.overview().await.queues.into_iter().map(|it| it.name).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        yard = yard.crash().await;
    }
    yard.check().await;
}
