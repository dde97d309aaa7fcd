//! Lists and their filters, each compared with what the tasks say themselves.

use std::sync::Arc;

use taskyard::{
    store::{Error, Filter, Outcome, Query, Task, TimeRange},
    task::{Data, NewTask, State, TaskId},
};

use crate::store_conformance::{
    harness::{Run, StoreHarness},
    provider::Provider,
    work::{LATER, broken, failed, later, nobody, patient, task, tried},
};

/// Tasks of two queues and two kinds, with labels, in every state, twice.
async fn fill<P: Provider>(harness: &mut StoreHarness<'_, P>) -> (Vec<Task>, Vec<Run>) {
    let mut runs = Vec::new();
    for round in 0..2 {
        let labels = |color: &str| {
            [("color".to_owned(), color.to_owned()), ("round".to_owned(), round.to_string())].into()
        };
        let kind: Arc<str> = ["kind", "other"][round].into();
        let of = |queue: &str, color: &str| {
            let payload = Data::Json(format!("{{\"{color}\":1}}").into());
            NewTask {
                labels: labels(color),
                kind: kind.clone(),
                body: payload.into(),
                ..tried(queue, 2)
            }
        };
        for queue in ["a", "b"] {
            harness.submit(of(queue, "red")).await;
            harness.run(Outcome::Succeeded(Data::Json("[]".into()))).await;
            harness.submit(of(queue, "green")).await;
            harness.run(broken()).await;
            harness.submit(of(queue, "red")).await;
            harness.run(failed(LATER)).await;
            let stopped = harness.submit(of(queue, "green")).await;
            let run = harness.start().await;
            assert_eq!(harness.cancel(stopped).await, Ok(()));
            harness.end(run, Outcome::Stopped).await;
            harness.submit(of(queue, "red")).await;
            runs.push(harness.start().await);
            harness.submit(NewTask { labels: labels("green"), ..later(queue) }).await;
            let cancelled = harness.submit(of(queue, "red")).await;
            assert_eq!(harness.cancel(cancelled).await, Ok(()));
        }
    }
    for _ in 0..2 {
        harness.submit(task("a")).await;
    }
    let mut tasks = Vec::new();
    for listed in harness.all().await {
        tasks.push(harness.get(listed.id).await);
    }
    (tasks, runs)
}

fn matches(task: &Task, filter: &Filter) -> bool {
    let any = |wanted: &[String], value: &String| wanted.is_empty() || wanted.contains(value);
    let finished = match task.finished {
        Some(finished) => filter.finished.has(finished),
        None => filter.finished.is_open(),
    };
    (filter.states.is_empty() || filter.states.contains(&task.lifecycle.state))
        && any(&filter.queues, &task.queue)
        && any(&filter.kinds, &task.kind)
        && filter.labels.iter().all(|(key, value)| task.labels.get(key) == Some(value))
        && filter.created.has(task.created)
        && finished
}

/// Filters of every sort, the bounds of their times taken from the tasks.
fn filters(tasks: &[Task]) -> Vec<Filter> {
    use State::{Cancelled, Failed, Queued, Running, Scheduled, Succeeded};
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let one = Filter::default;
    let mut filters = vec![one()];
    let mut states: Vec<Vec<State>> = State::ALL.iter().map(|state| vec![*state]).collect();
    states.push(vec![Queued, Running, Scheduled]);
    states.push(vec![Succeeded, Failed, Cancelled]);
    states.push(vec![Failed, Running, Running]);
    filters.extend(states.into_iter().map(|states| Filter { states, ..one() }));
    for queues in [words(&["a"]), words(&["b", "a"]), words(&["c"]), words(&["b", "c", "b"])] {
        filters.push(Filter { queues, ..one() });
    }
    for kinds in [words(&["other"]), words(&["kind", "other"]), words(&["Kind"])] {
        filters.push(Filter { kinds, ..one() });
    }
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    for labels in [
        [label("color", "red")].into(),
        [label("color", "green"), label("round", "1")].into(),
        [label("color", "blue")].into(),
        [label("red", "color")].into(),
    ] {
        filters.push(Filter { labels, ..one() });
    }
    let span = |from, before| TimeRange { from, before };
    let mut created: Vec<_> = tasks.iter().map(|task| task.created).collect();
    created.sort();
    let mut finished: Vec<_> = tasks.iter().filter_map(|task| task.finished).collect();
    finished.sort();
    for times in [&created, &finished] {
        let (early, late) = (Some(times[times.len() / 3]), Some(times[times.len() * 2 / 3]));
        let ranges = [span(early, None), span(None, late), span(early, late), span(late, early)];
        for range in ranges {
            filters.push(Filter { created: range, ..one() });
            filters.push(Filter { finished: range, ..one() });
            let (queues, states) = (words(&["a"]), vec![Failed, Cancelled, Running]);
            filters.push(Filter { created: range, queues: queues.clone(), ..one() });
            filters.push(Filter { finished: range, states, kinds: words(&["kind"]), ..one() });
        }
    }
    let (queues, states) = (words(&["a"]), vec![Succeeded, Cancelled]);
    let labels = [label("color", "red")].into();
    filters.push(Filter { queues, states, labels, kinds: words(&["kind"]), ..one() });
    filters
}

pub async fn each_filter_finds_what_matches_it(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let (mut tasks, _runs) = fill(&mut harness).await;
    assert_eq!(tasks.len(), 30);
    for opened in 0..2 {
        for filter in filters(&tasks) {
            let expected: Vec<TaskId> =
                tasks.iter().filter(|task| matches(task, &filter)).map(|task| task.id).collect();
            for (limit, newest_first) in [(1_000, false), (3, false), (1, true), (7, true)] {
                let filter = filter.clone();
                let query = Query { filter, limit, newest_first, ..Query::default() };
                let mut found: Vec<_> =
                    harness.pages(&query).await.into_iter().map(|task| task.id).collect();
                if newest_first {
                    found.reverse();
                }
                assert_eq!(found, expected, "{query:?}");
            }
        }
        if opened == 0 {
            harness = harness.crash().await;
            for task in &mut tasks {
                *task = harness.get(task.id).await;
            }
        }
    }
}

pub async fn a_list_goes_both_ways_from_anywhere(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let (tasks, _runs) = fill(&mut harness).await;
    let numbers: Vec<u64> = tasks.iter().map(|task| task.id.number()).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<u64>>());
    let listed = async |beyond, newest_first| {
        let query = Query { beyond, newest_first, limit: 1_000, ..Query::default() };
        let page = patient(harness.store.list(query)).await.expect("a page");
        assert_eq!(page.next, None, "all on one page");
        page.tasks.iter().map(|task| task.id.number()).collect::<Vec<u64>>()
    };
    for beyond in [0, 1, 17, 29, 30, 31, u64::MAX] {
        let above: Vec<_> = numbers.iter().copied().filter(|number| *number > beyond).collect();
        assert_eq!(listed(Some(beyond), false).await, above, "beyond {beyond}");
        let below: Vec<_> = numbers.iter().copied().rev().filter(|it| *it < beyond).collect();
        assert_eq!(listed(Some(beyond), true).await, below, "below {beyond}");
    }
    assert_eq!(listed(None, false).await, numbers);
    assert_eq!(listed(None, true).await, numbers.iter().copied().rev().collect::<Vec<_>>());
    // A page that holds exactly what is left is the last one.
    let query = Query { beyond: Some(28), limit: 2, ..Query::default() };
    let page = patient(harness.store.list(query)).await.expect("a page");
    assert_eq!((page.tasks.len(), page.next), (2, None));
}

pub async fn a_list_leaves_out_what_is_not_asked_for(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let (tasks, _runs) = fill(&mut harness).await;
    let list = async |omit_payloads| {
        let query = Query { omit_payloads, limit: 1_000, ..Query::default() };
        patient(harness.store.list(query)).await.expect("a page").tasks
    };
    let full: Vec<_> =
        tasks.iter().cloned().map(|task| Task { attempts: Vec::new(), ..task }).collect();
    assert_eq!(list(false).await, full, "what a list and what a look at each tells is the same");
    for slim in list(true).await {
        assert_eq!(slim.body.payload, Data::Empty);
        assert!(slim.result.is_none_or(|result| result.is_empty()));
    }
    assert!(tasks.iter().any(|task| task.attempts.len() == 1 && task.result.is_some()));
    let unknown = patient(harness.store.get(nobody())).await;
    assert_eq!(unknown, Err(Error::NotFound(nobody())));
}
