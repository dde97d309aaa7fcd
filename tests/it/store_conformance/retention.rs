//! What is forgotten, and what never is. A store forgets in its own time, so
//! the cases give it commits to do so with until it has.

use std::time::Duration;

use taskyard::events::History as _;
use taskyard::{
    config::Retention,
    event::Seq,
    events::Unreadable,
    store::{Error, Outcome, QueueChange},
    task::{Data, NewTask, State, TaskId, WorkerId},
};

use crate::store_conformance::{
    harness::{Setup, StoreHarness},
    provider::Provider,
    work::{FINGERPRINT, broken, done, keyed, later, patient, task},
};

/// Far more commits than any store needs.
const COMMITS: usize = 20_000;

fn keep(retention: Retention) -> Setup {
    Setup { retention, ..Setup::default() }
}

/// Goes on committing until this holds.
macro_rules! until {
    ($harness:expr, $holds:expr) => {
        patient(async {
            for _ in 0..COMMITS {
                if $holds {
                    return;
                }
                commit(&$harness).await;
            }
            panic!("not after {COMMITS} commits: {}", stringify!($holds));
        })
        .await
    };
}

async fn commit<P: Provider>(harness: &StoreHarness<'_, P>) {
    patient(harness.store.join(WorkerId(999))).await.expect("it joins");
    patient(harness.store.leave(WorkerId(999))).await.expect("it leaves");
}

async fn gone<P: Provider>(harness: &StoreHarness<'_, P>, id: TaskId) -> bool {
    match patient(harness.store.get(id)).await {
        Ok(_) => false,
        Err(Error::NotFound(missing)) if missing == id => true,
        Err(other) => panic!("{other:?}"),
    }
}

async fn known<P: Provider>(harness: &StoreHarness<'_, P>, key: &str) -> bool {
    let known = patient(harness.store.repeated(key.to_owned(), FINGERPRINT)).await;
    known.expect("it can be read").is_some()
}

pub async fn only_the_latest_ended_tasks_are_kept(provider: &impl Provider) {
    let retention = Retention { max_finished: 3, ..Retention::default() };
    let mut harness = StoreHarness::with(provider, keep(retention)).await;
    let mut tasks = Vec::new();
    for number in 0..10 {
        tasks.push(harness.submit(keyed("a", &format!("key-{number}"))).await);
        harness.run(done()).await;
    }
    until!(harness, gone(&harness, tasks[6]).await);
    for opened in 0..2 {
        for (number, id) in tasks.iter().enumerate() {
            assert_eq!(
                gone(&harness, *id).await,
                number < 7,
                "task {number}, opened {opened} times"
            );
            assert_eq!(known(&harness, &format!("key-{number}")).await, number >= 7);
        }
        assert_eq!(harness.check_counts().await.len(), 3);
        harness = harness.crash().await;
    }
    // A key that is forgotten is as good as new.
    let again = harness.try_submit(keyed("a", "key-0")).await.expect("accepted");
    assert_eq!((again.existing, again.task.number()), (false, 11));
    let kept = harness.try_submit(keyed("a", "key-9")).await.expect("known");
    assert_eq!((kept.existing, kept.task), (true, tasks[9]));
    for id in [tasks[0], tasks[6]] {
        assert_eq!(harness.cancel(id).await, Err(Error::NotFound(id)));
        assert_eq!(harness.redrive(id).await, Err(Error::NotFound(id)));
    }
    harness.check_counts().await;
}

pub async fn failed_tasks_are_kept_by_a_rule_of_their_own(provider: &impl Provider) {
    let ages = [Duration::ZERO, Duration::from_hours(1)];
    for (finished, failed) in [(ages[0], ages[1]), (ages[1], ages[0])] {
        let retention = Retention { finished, failed, ..Retention::default() };
        let mut harness = StoreHarness::with(provider, keep(retention)).await;
        let fails = harness.submit(keyed("a", "fails")).await;
        harness.run(broken()).await;
        let succeeds = harness.submit(keyed("a", "succeeds")).await;
        harness.run(done()).await;
        let cancelled = harness.submit(keyed("a", "cancelled")).await;
        assert_eq!(harness.cancel(cancelled).await, Ok(()));
        let fails_first = failed.is_zero();
        if fails_first {
            until!(harness, gone(&harness, fails).await);
        } else {
            until!(harness, gone(&harness, succeeds).await && gone(&harness, cancelled).await);
        }
        for opened in 0..2 {
            assert_eq!(gone(&harness, fails).await, fails_first, "opened {opened} times");
            assert_eq!(known(&harness, "fails").await, !fails_first);
            for (id, key) in [(succeeds, "succeeds"), (cancelled, "cancelled")] {
                assert_eq!(gone(&harness, id).await, !fails_first, "{key}, opened {opened} times");
                assert_eq!(known(&harness, key).await, fails_first);
            }
            harness.check_counts().await;
            harness = harness.restart().await;
        }
        let kept = if fails_first { cancelled } else { fails };
        assert_eq!(harness.redrive(kept).await, Ok(()), "what is kept can live again");
        assert_eq!(harness.run(Outcome::Interrupted).await, kept);
        harness.check_counts().await;
    }
}

pub async fn tasks_that_live_are_kept_whatever_the_rules(provider: &impl Provider) {
    let retention = Retention {
        finished: Duration::ZERO,
        failed: Duration::from_hours(1),
        max_finished: 1,
        max_finished_bytes: 1 << 20,
        events: Duration::ZERO,
        max_events: 1_000,
    };
    let mut harness = StoreHarness::with(provider, keep(retention)).await;
    let redriven = harness.submit(keyed("a", "redriven")).await;
    harness.run(broken()).await;
    assert_eq!(harness.redrive(redriven).await, Ok(()));
    let running = harness.submit(keyed("b", "running")).await;
    harness.change("a", QueueChange::Pause).await;
    let run = harness.start().await;
    assert_eq!(run.given.task, running);
    let delayed = harness.submit(later("b")).await;
    let payload = Data::Bytes(vec![1; 1 << 20].into());
    let large = harness.submit(NewTask { body: payload.into(), ..task("a") }).await;
    // Others come and go until the last of them is forgotten.
    let mut last = redriven;
    for _ in 0..20 {
        last = harness.submit(task("c")).await;
        assert_eq!(harness.run(done()).await, last);
    }
    until!(harness, gone(&harness, last).await);
    let states = [(redriven, State::Queued), (delayed, State::Scheduled), (large, State::Queued)];
    for (id, state) in states {
        assert_eq!(harness.state(id).await, state);
    }
    assert_eq!(harness.state(running).await, State::Running);
    assert!(known(&harness, "redriven").await && known(&harness, "running").await);
    harness.check_counts().await;
    harness = harness.crash().await;
    for (id, state) in states {
        assert_eq!(harness.state(id).await, state);
    }
    assert_eq!(harness.state(running).await, State::Queued);
    harness.change("a", QueueChange::Resume).await;
    let started: Vec<_> = harness.run_all(3).await.into_iter().map(|(id, _)| id).collect();
    assert!([redriven, running, large].iter().all(|id| started.contains(id)), "{started:?}");
    harness.check_counts().await;
}

pub async fn large_results_go_first_when_bytes_are_short(provider: &impl Provider) {
    let retention = Retention { max_finished_bytes: 1 << 20, ..Retention::default() };
    let mut harness = StoreHarness::with(provider, keep(retention)).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(harness.submit(task("a")).await);
        harness.run(Outcome::Succeeded(Data::Bytes(vec![1; 400 << 10].into()))).await;
    }
    // Two of 400 KiB fit into 1 MiB, and three do not.
    until!(harness, gone(&harness, tasks[3]).await);
    for (number, id) in tasks.iter().enumerate() {
        assert_eq!(gone(&harness, *id).await, number < 4, "task {number}: the oldest go first");
    }
    harness.check_counts().await;
}

pub async fn events_that_are_gone_are_said_to_be(provider: &impl Provider) {
    const KEPT: u64 = 1_000;
    let retention = Retention { max_events: KEPT, ..Retention::default() };
    let mut harness = StoreHarness::with(provider, keep(retention)).await;
    let id = harness.submit(keyed("a", "key")).await;
    let early = harness.hub.cursor(Seq(1));
    let oldest =
        async |harness: &StoreHarness<'_, _>| match patient(harness.store.read(Seq(0), 1)).await {
            Ok(batches) => batches[0].first(),
            Err(Unreadable::Expired(oldest)) => oldest,
            Err(broken) => panic!("{broken:?}"),
        };
    until!(harness, {
        let kept = harness.hub.newest().0 + 1 - oldest(&harness).await.0;
        harness.hub.newest().0 > 2 * KEPT && kept <= KEPT
    });
    for _ in 0..2 {
        let first = oldest(&harness).await;
        assert!(first > Seq(1), "the first events are gone");
        let expired = Err(Unreadable::Expired(first));
        assert_eq!(patient(harness.store.read(Seq(0), 1 << 20)).await, expired);
        assert_eq!(patient(harness.store.read(Seq(first.0 - 2), 1 << 20)).await, expired);
        let batches = patient(harness.store.read(first.previous(), 1)).await.expect("kept");
        assert_eq!(batches[0].first(), first, "the oldest that is said to be kept is");
        assert_eq!(harness.events_after(first.previous()).await[0].seq, first.0);
        assert_eq!(harness.hub.resolve(early), Ok(Seq(1)), "the cursor is right, if too old");
        // The task is there, whatever became of its events.
        assert_eq!(harness.state(id).await, State::Queued);
        let again = harness.try_submit(keyed("a", "key")).await.expect("known");
        assert_eq!((again.task, again.seq, again.existing), (id, Seq(1), true));
        harness = harness.crash().await;
    }
    assert_eq!(harness.run(done()).await, id);
}

pub async fn numbers_are_not_used_again_when_all_is_gone(provider: &impl Provider) {
    let age = Duration::ZERO;
    let retention = Retention { finished: age, failed: age, events: age, ..Retention::default() };
    let mut harness = StoreHarness::with(provider, keep(retention)).await;
    let mut last = 0;
    for round in 0..4 {
        for outcome in [done(), broken()] {
            let id = harness.submit(task("a")).await;
            assert_eq!(id.number(), last + 1, "in order, and never twice");
            last = id.number();
            harness.run(outcome).await;
        }
        let cancelled = harness.submit(task("a")).await;
        last = cancelled.number();
        assert_eq!(harness.cancel(cancelled).await, Ok(()));
        until!(harness, harness.all().await.is_empty());
        let newest = harness.hub.newest();
        let cursor = harness.hub.cursor(newest);
        harness = if round % 2 == 0 { harness.crash().await } else { harness.restart().await };
        // A drain has an event of its own.
        assert_eq!(harness.hub.newest().0, newest.0 + round % 2, "no event number is used twice");
        assert_eq!(harness.hub.resolve(cursor), Ok(newest));
        let before = harness.hub.newest();
        let submitted = harness.try_submit(task("a")).await.expect("accepted");
        assert_eq!((submitted.task.number(), submitted.seq), (last + 1, before.next()));
        last += 1;
        assert_eq!(harness.cancel(submitted.task).await, Ok(()));
        until!(harness, harness.all().await.is_empty());
        harness.check_counts().await;
    }
}
