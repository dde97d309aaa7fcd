//! Pages of a list whose tasks move meanwhile.

use std::{collections::BTreeMap, time::Duration};

use taskyard::{
    store::{Filter, Outcome, Query},
    task::{State, TaskId},
};

use crate::store_conformance::{
    harness::{Run, StoreHarness},
    provider::Provider,
    work::{broken, done, failed, later, patient, task, tried},
};

const TASKS: usize = 60;

/// Tasks in many states, and those of them that run.
async fn fill<P: Provider>(harness: &mut StoreHarness<'_, P>) -> (Vec<TaskId>, Vec<Run>) {
    let (mut tasks, mut runs) = (Vec::new(), Vec::new());
    for number in 0..TASKS {
        let queue = ["a", "b", "c"][number % 3];
        let delayed = number % 5 == 0;
        let id = harness.submit(if delayed { later(queue) } else { tried(queue, 2) }).await;
        tasks.push(id);
        if !delayed && number % 4 == 0 {
            runs.push(harness.start().await);
        }
    }
    (tasks, runs)
}

/// Moves tasks on all sides: some start, end, fail, are cancelled, are redriven,
/// and new ones come.
async fn stir<P: Provider>(
    harness: &mut StoreHarness<'_, P>,
    round: usize,
    tasks: &[TaskId],
    runs: &mut Vec<Run>,
) {
    let ends = [done(), failed(Duration::ZERO), broken(), Outcome::Interrupted];
    for outcome in ends {
        if let Some(run) = runs.pop() {
            harness.end(run, outcome).await;
        }
    }
    harness.submit(task("a")).await;
    runs.push(harness.start().await);
    for step in 0..6 {
        let id = tasks[(round * 7 + step * 11) % tasks.len()];
        // Whether it can be is of no importance here.
        drop(harness.cancel(id).await);
        let other = tasks[(round * 5 + step * 13) % tasks.len()];
        drop(harness.redrive(other).await);
    }
    harness.submit(later("d")).await;
}

/// How often each task was on a page while tasks moved, by those that matched
/// before and after every page.
async fn seen_while_moving<P: Provider>(
    harness: &mut StoreHarness<'_, P>,
    filter: Filter,
    newest_first: bool,
) -> (BTreeMap<TaskId, usize>, Vec<TaskId>) {
    let (tasks, mut runs) = fill(harness).await;
    let matching = Query { filter: filter.clone(), limit: 1_000, ..Query::default() };
    let mut throughout: Vec<_> =
        harness.pages(&matching).await.into_iter().map(|task| task.id).collect();
    let mut query = Query { filter, limit: 7, newest_first, ..Query::default() };
    let mut seen = BTreeMap::new();
    for round in 0.. {
        let page = patient(harness.store.list(query.clone())).await.expect("a page");
        page.tasks.iter().for_each(|task| *seen.entry(task.id).or_default() += 1);
        stir(harness, round, &tasks, &mut runs).await;
        let match_still: Vec<_> =
            harness.pages(&matching).await.into_iter().map(|task| task.id).collect();
        throughout.retain(|id| match_still.contains(id));
        let Some(next) = page.next else { break };
        query.beyond = Some(next);
        assert!(round < 10 * TASKS, "the list goes on for ever");
    }
    (seen, throughout)
}

pub async fn pages_are_stable_while_tasks_move(provider: &impl Provider) {
    for newest_first in [false, true] {
        let mut harness = StoreHarness::new(provider).await;
        let (seen, throughout) =
            seen_while_moving(&mut harness, Filter::default(), newest_first).await;
        assert_eq!(throughout.len(), TASKS);
        for id in &throughout {
            assert_eq!(
                seen.get(id),
                Some(&1),
                "{id} of the start set, newest first: {newest_first}"
            );
        }
        assert!(seen.values().all(|times| *times == 1), "a new one was repeated");
        harness.check().await;
    }
}

pub async fn pages_of_one_state_repeat_nothing_while_tasks_move(provider: &impl Provider) {
    let waiting = vec![State::Queued, State::Scheduled];
    for states in [vec![State::Scheduled], vec![State::Queued], waiting] {
        for newest_first in [false, true] {
            let mut harness = StoreHarness::new(provider).await;
            let filter = Filter { states: states.clone(), ..Filter::default() };
            let (seen, throughout) = seen_while_moving(&mut harness, filter, newest_first).await;
            assert!(!throughout.is_empty(), "the case moves too much");
            for id in &throughout {
                assert_eq!(seen.get(id), Some(&1), "{id} matched throughout: {states:?}");
            }
            assert!(seen.values().all(|times| *times == 1), "repeated: {states:?}");
            harness.check().await;
        }
    }
}
