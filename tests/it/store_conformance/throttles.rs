//! Limits of a queue's starts.

use std::time::Duration;

use taskyard::{
    queue::{Block, Field, Overrides, Rate},
    store::QueueChange,
    task::Timestamp,
};

use crate::store_conformance::{
    harness::{Setup, StoreHarness},
    provider::Provider,
    work::{broken, done, task},
};

fn at_most(max_running: u32) -> Overrides {
    Overrides { max_running: Some(Some(max_running)), ..Overrides::default() }
}

fn at_rate(per_second: f64, burst: u32) -> Overrides {
    Overrides { rate: Some(Some(Rate { per_second, burst })), ..Overrides::default() }
}

pub async fn no_more_than_may_run_do(provider: &impl Provider) {
    let mut harness = StoreHarness::with(provider, Setup::default().queue("a", at_most(2))).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(harness.submit(task("a")).await);
    }
    let (first, second) = (harness.start().await, harness.start().await);
    assert_eq!([first.given.task, second.given.task], tasks[..2]);
    let mut idle = harness.wait().await;
    assert!(idle.is_idle().await, "two run already");
    let status = harness.queue("a").await;
    assert_eq!((status.block, status.counts.running), (Some(Block::MaxRunning), 2));
    let other = harness.submit(task("b")).await;
    assert_eq!(idle.run().await.given.task, other, "the others go on");
    assert_eq!(harness.queue("b").await.block, None);
    // Whoever ends lets the next one start, however it ends.
    let idle = harness.wait().await;
    harness.end(first, broken()).await;
    let third = idle.run().await;
    assert_eq!(third.given.task, tasks[2]);
    let fourth = harness.next(second, done()).await;
    assert_eq!(fourth.given.task, tasks[3]);
    // Another limit counts at once.
    let (mut fifth, mut idle) = (harness.wait().await, harness.wait().await);
    assert!(fifth.is_idle().await && idle.is_idle().await);
    let change = |limit| QueueChange::Settings(vec![Field::MaxRunning], Box::new(limit));
    harness.change("a", change(at_most(3))).await;
    harness.settle().await;
    assert_ne!(fifth.is_idle().await, idle.is_idle().await, "one more");
    harness.change("a", change(at_most(1))).await;
    assert!(!third.given.cancel.is_cancelled(), "nothing is interrupted");
    harness.end(third, done()).await;
    harness.end(fourth, done()).await;
    harness.settle().await;
    assert_ne!(fifth.is_idle().await, idle.is_idle().await, "none until fewer than one run");
    let lifted = Overrides { max_running: Some(None), ..Overrides::default() };
    harness.change("a", change(lifted)).await;
    let mut last = [fifth.run().await.given.task, idle.run().await.given.task];
    last.sort();
    assert_eq!(last, tasks[4..]);
    harness.check().await;
}

pub async fn a_limit_of_running_tasks_counts_anew_after_a_crash(provider: &impl Provider) {
    let mut harness = StoreHarness::with(provider, Setup::default().queue("a", at_most(1))).await;
    for _ in 0..3 {
        harness.submit(task("a")).await;
    }
    for _ in 0..2 {
        harness.start().await;
        let mut idle = harness.wait().await;
        assert!(idle.is_idle().await);
        harness = harness.crash().await;
    }
    assert_eq!(harness.run_all(3).await.len(), 3);
    harness.check().await;
}

pub async fn a_rate_lets_a_burst_through_and_holds_the_rest(provider: &impl Provider) {
    // The next start after the burst is hours away.
    let mut harness =
        StoreHarness::with(provider, Setup::default().queue("a", at_rate(0.0001, 3))).await;
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(harness.submit(task("a")).await);
    }
    let started: Vec<_> = harness.run_all(3).await.into_iter().map(|(task, _)| task).collect();
    assert_eq!(started, tasks[..3], "the burst");
    let mut idle = harness.wait().await;
    assert!(idle.is_idle().await, "and no more");
    let status = harness.queue("a").await;
    assert_eq!((status.block, status.counts.queued), (Some(Block::RateLimit), 2));
    for _ in 0..3 {
        let other = harness.submit(task("b")).await;
        let run = idle.run().await;
        assert_eq!(run.given.task, other, "the others go on");
        assert_eq!(harness.queue("b").await.block, None);
        harness.end(run, done()).await;
        idle = harness.wait().await;
        assert!(idle.is_idle().await);
    }
    let change = |limit| QueueChange::Settings(vec![Field::RateLimit], Box::new(limit));
    let lifted = Overrides { rate: Some(None), ..Overrides::default() };
    harness.change("a", change(lifted)).await;
    let run = idle.run().await;
    assert_eq!(run.given.task, tasks[3], "as soon as the limit is lifted");
    assert_eq!(harness.next(run, done()).await.given.task, tasks[4]);
    harness.check().await;
}

pub async fn a_rate_spreads_what_follows_the_burst(provider: &impl Provider) {
    let mut harness =
        StoreHarness::with(provider, Setup::default().queue("a", at_rate(50.0, 2))).await;
    for _ in 0..6 {
        harness.submit(task("a")).await;
    }
    let mut starts: Vec<Timestamp> = Vec::new();
    let mut run = harness.start().await;
    for _ in 1..6 {
        starts.push(run.given.started);
        run = harness.next(run, done()).await;
    }
    starts.push(run.given.started);
    // Two at once, then one every 20 ms: the store may be late, and never early.
    for (at, start) in starts.iter().enumerate().skip(2) {
        let even = Duration::from_millis(20 * (at as u64 - 1));
        let span = start.since(starts[0]);
        assert!(span >= even * 9 / 10, "start {at} came after {span:?}");
    }
    harness.check().await;
}
