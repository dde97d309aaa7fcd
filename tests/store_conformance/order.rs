//! Which task starts next.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use taskyard::{
    queue::{Field, Overrides},
    store::{Outcome, QueueChange},
    task::{Due, NewTask, TaskId, Timestamp},
};

use crate::{
    provider::Provider,
    work::{done, task},
    yard::{Setup, Yard},
};

fn weighted(weight: u32) -> Overrides {
    Overrides { weight: Some(weight), ..Overrides::default() }
}

async fn backlog<P: Provider>(yard: &Yard<'_, P>, queue: &str, tasks: usize) {
    for _ in 0..tasks {
        yard.submit(task(queue)).await;
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
    let mut yard = Yard::new(provider).await;
    yard.change("a", QueueChange::Pause).await;
    let soon = |millis| Due::After(Duration::from_millis(millis));
    let now = yard.overview().await.now;
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
        let id = yard.submit(NewTask { priority, due, ..task("a") }).await;
        ranked.push((-i64::from(priority), yard.get(id).await.due, id));
    }
    ranked.sort();
    let expected: Vec<_> = ranked.into_iter().map(|(.., id)| id).collect();
    // Until all of them are due.
    let due = soon(80);
    let bell = yard.submit(NewTask { due, ..task("bell") }).await;
    assert_eq!(yard.run(done()).await, bell);
    for _ in 0..2 {
        yard = yard.crash().await;
    }
    yard.change("a", QueueChange::Resume).await;
    let started: Vec<_> =
        yard.run_all(expected.len()).await.into_iter().map(|(task, _)| task).collect();
    assert_eq!(started, expected);
    yard.check().await;
}

pub async fn an_interrupted_task_goes_back_to_its_place(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    let high = yard.submit(NewTask { priority: 1, ..task("a") }).await;
    let (first, second) = (yard.submit(task("a")).await, yard.submit(task("a")).await);
    assert_eq!(yard.run(Outcome::Interrupted).await, high);
    assert_eq!(yard.run(done()).await, high);
    assert_eq!(yard.run(Outcome::Interrupted).await, first);
    assert_eq!(yard.start().await.given.task, first);
    yard = yard.crash().await;
    assert_eq!(yard.run(done()).await, first);
    assert_eq!(yard.run(done()).await, second);
    yard.check().await;
}

pub async fn weights_share_the_starts(provider: &impl Provider) {
    let cases: [&[(&str, usize)]; 3] =
        [&[("a", 3), ("b", 1)], &[("a", 1), ("b", 1)], &[("a", 5), ("b", 2), ("c", 1)]];
    for shares in cases {
        let mut setup = Setup::default();
        for (queue, share) in shares {
            setup = setup.queue(queue, weighted(u32::try_from(*share).expect("small")));
        }
        let mut yard = Yard::with(provider, setup).await;
        for (queue, share) in shares {
            backlog(&yard, queue, share * 8).await;
        }
        let period: usize = shares.iter().map(|(_, share)| share).sum();
        // Every queue has tasks to the last of these.
        let starts = yard.run_all(period * 7).await;
        assert_shares(&starts, shares);
        let rest = yard.run_all(period).await;
        let mut left: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, queue) in &rest {
            *left.entry(queue).or_default() += 1;
        }
        assert_eq!(left, shares.iter().copied().collect());
        yard.check().await;
    }
}

pub async fn a_changed_weight_counts_from_then_on(provider: &impl Provider) {
    let setup = Setup::default().queue("a", weighted(3));
    let mut yard = Yard::with(provider, setup).await;
    backlog(&yard, "a", 60).await;
    backlog(&yard, "b", 40).await;
    assert_shares(&yard.run_all(12).await, &[("a", 3), ("b", 1)]);
    let heavier = QueueChange::Settings(vec![Field::Weight], Box::new(weighted(1)));
    yard.change("a", heavier).await;
    // What was begun under the old weights may be brought to its end.
    yard.run_all(4).await;
    assert_shares(&yard.run_all(16).await, &[("a", 1), ("b", 1)]);
    yard = yard.crash().await;
    assert_shares(&yard.run_all(16).await, &[("a", 1), ("b", 1)]);
    let configured = QueueChange::Settings(vec![Field::Weight], Box::default());
    yard.change("a", configured).await;
    yard.run_all(4).await;
    assert_shares(&yard.run_all(16).await, &[("a", 3), ("b", 1)]);
    yard.check().await;
}

pub async fn a_queue_without_work_saves_no_turns_up(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    backlog(&yard, "b", 1).await;
    backlog(&yard, "a", 60).await;
    yard.run_all(41).await;
    backlog(&yard, "b", 20).await;
    // The order within the first round is the store's own.
    yard.run_all(2).await;
    assert_shares(&yard.run_all(30).await, &[("a", 1), ("b", 1)]);
    yard.check().await;
}

pub async fn a_flood_does_not_starve_another_queue(provider: &impl Provider) {
    let mut yard = Yard::new(provider).await;
    for _ in 0..100 {
        yard.submit(NewTask { priority: i32::MAX, ..task("flood") }).await;
    }
    yard.run_all(10).await;
    for _ in 0..10 {
        let priority = i32::MIN;
        let lone = yard.submit(NewTask { priority, ..task("lone") }).await;
        let starts = yard.run_all(2).await;
        assert!(starts.iter().any(|(task, _)| *task == lone), "it waits behind the flood");
    }
    yard.check().await;
}
