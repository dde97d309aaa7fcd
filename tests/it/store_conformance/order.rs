//! Which task starts next.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use taskyard::{
    queue::{Field, Overrides},
    store::{Outcome, QueueChange},
    task::{Due, NewTask, TaskId, Timestamp},
};

use crate::store_conformance::{
    harness::{Setup, StoreHarness},
    provider::Provider,
    work::{done, task},
};

fn weighted(weight: u32) -> Overrides {
    Overrides { weight: Some(weight), ..Overrides::default() }
}

async fn backlog<P: Provider>(harness: &StoreHarness<'_, P>, queue: &str, tasks: usize) {
    for _ in 0..tasks {
        harness.submit(task(queue)).await;
    }
}

/// Finds that each queue has its share of every run of so many starts in a row.
fn assert_shares(starts: &[(TaskId, Arc<str>)], shares: &[(&str, usize)]) {
    let period: usize = shares.iter().map(|(_, share)| share).sum();
    for length in (period..=starts.len()).step_by(period) {
        for window in starts.windows(length) {
            for (queue, share) in shares {
                let of_it = window.iter().filter(|(_, started)| **started == **queue).count();
                let expected = share * length / period;
                assert_eq!(of_it, expected, "starts of {queue} in {window:?}");
            }
        }
    }
}

pub async fn a_queue_starts_by_priority_then_due_time_then_submission(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    harness.change("a", QueueChange::Pause).await;
    let soon = |millis| Due::After(Duration::from_millis(millis));
    let now = harness.overview().await.now;
    let same = Due::At(now.after(Duration::from_millis(60)));
    let tasks = [
        (0, soon(40)),
        (0, Due::Now),
        (i32::MIN, Due::Now),
        (0, same),
        (5, same),
        (5, Due::Now),
        (0, Due::Now),
        (0, same),
        (i32::MAX, soon(20)),
        (0, soon(20)),
        (0, Due::At(Timestamp(0))),
    ];
    let mut ranked = Vec::new();
    for (priority, due) in tasks {
        let id = harness.submit(NewTask { priority, due, ..task("a") }).await;
        ranked.push((-i64::from(priority), harness.get(id).await.due, id));
    }
    ranked.sort();
    let expected: Vec<_> = ranked.into_iter().map(|(.., id)| id).collect();
    // Until all of them are due.
    let due = soon(80);
    let bell = harness.submit(NewTask { due, ..task("bell") }).await;
    assert_eq!(harness.run(done()).await, bell);
    for _ in 0..2 {
        harness = harness.crash().await;
    }
    harness.change("a", QueueChange::Resume).await;
    let started: Vec<_> =
        harness.run_all(expected.len()).await.into_iter().map(|(task, _)| task).collect();
    assert_eq!(started, expected);
    harness.check().await;
}

pub async fn an_interrupted_task_goes_back_to_its_place(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let high = harness.submit(NewTask { priority: 1, ..task("a") }).await;
    let (first, second) = (harness.submit(task("a")).await, harness.submit(task("a")).await);
    assert_eq!(harness.run(Outcome::Interrupted).await, high);
    assert_eq!(harness.run(done()).await, high);
    assert_eq!(harness.run(Outcome::Interrupted).await, first);
    assert_eq!(harness.start().await.given.task, first);
    harness = harness.crash().await;
    assert_eq!(harness.run(done()).await, first);
    assert_eq!(harness.run(done()).await, second);
    harness.check().await;
}

pub async fn weights_share_the_starts(provider: &impl Provider) {
    let cases: [&[(&str, usize)]; 3] =
        [&[("a", 3), ("b", 1)], &[("a", 1), ("b", 1)], &[("a", 5), ("b", 2), ("c", 1)]];
    for shares in cases {
        let mut setup = Setup::default();
        for (queue, share) in shares {
            setup = setup.queue(queue, weighted(u32::try_from(*share).expect("small")));
        }
        let mut harness = StoreHarness::with(provider, setup).await;
        for (queue, share) in shares {
            backlog(&harness, queue, share * 8).await;
        }
        let period: usize = shares.iter().map(|(_, share)| share).sum();
        // Every queue has tasks to the last of these.
        let starts = harness.run_all(period * 7).await;
        assert_shares(&starts, shares);
        let rest = harness.run_all(period).await;
        let mut left: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, queue) in &rest {
            *left.entry(queue).or_default() += 1;
        }
        assert_eq!(left, shares.iter().copied().collect());
        harness.check().await;
    }
}

pub async fn a_changed_weight_counts_from_then_on(provider: &impl Provider) {
    let setup = Setup::default().queue("a", weighted(3));
    let mut harness = StoreHarness::with(provider, setup).await;
    backlog(&harness, "a", 60).await;
    backlog(&harness, "b", 40).await;
    assert_shares(&harness.run_all(12).await, &[("a", 3), ("b", 1)]);
    let heavier = QueueChange::Settings(vec![Field::Weight], Box::new(weighted(1)));
    harness.change("a", heavier).await;
    // What was begun under the old weights may be brought to its end.
    harness.run_all(4).await;
    assert_shares(&harness.run_all(16).await, &[("a", 1), ("b", 1)]);
    harness = harness.crash().await;
    assert_shares(&harness.run_all(16).await, &[("a", 1), ("b", 1)]);
    let configured = QueueChange::Settings(vec![Field::Weight], Box::default());
    harness.change("a", configured).await;
    harness.run_all(4).await;
    assert_shares(&harness.run_all(16).await, &[("a", 3), ("b", 1)]);
    harness.check().await;
}

pub async fn a_queue_without_work_saves_no_turns_up(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    backlog(&harness, "b", 1).await;
    backlog(&harness, "a", 60).await;
    harness.run_all(41).await;
    backlog(&harness, "b", 20).await;
    // The order within the first round is the store's own.
    harness.run_all(2).await;
    assert_shares(&harness.run_all(30).await, &[("a", 1), ("b", 1)]);
    harness.check().await;
}

pub async fn a_flood_does_not_starve_another_queue(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    for _ in 0..100 {
        harness.submit(NewTask { priority: i32::MAX, ..task("flood") }).await;
    }
    harness.run_all(10).await;
    for _ in 0..10 {
        let priority = i32::MIN;
        let lone = harness.submit(NewTask { priority, ..task("lone") }).await;
        let starts = harness.run_all(2).await;
        assert!(starts.iter().any(|(task, _)| *task == lone), "it waits behind the flood");
    }
    harness.check().await;
}
