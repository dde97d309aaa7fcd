//! Filters and steps: what they become, and what is wrong with them.

use proptest::prelude::*;

use super::*;
use crate::{
    store::TimeRange,
    task::{State::*, Timestamp},
};

fn fields<T: std::fmt::Debug>(checked: Result<T, Vec<Violation>>) -> Vec<String> {
    let wrong = checked.expect_err("something is wrong");
    wrong.into_iter().map(|violation| violation.field).collect()
}

fn list(filter: v1::TaskFilter) -> v1::ListTasksRequest {
    v1::ListTasksRequest { filter: Some(filter), ..Default::default() }
}

fn states(states: &[v1::TaskState]) -> v1::TaskFilter {
    let states = states.iter().map(|state| *state as i32).collect();
    v1::TaskFilter { states, ..Default::default() }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn at(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 5_000 }
}

#[test]
fn all_of_a_filter_reaches_the_query() {
    let filter = v1::TaskFilter {
        states: vec![5, 4, 5],
        queues: texts(&["a", "b"]),
        kinds: texts(&["noop"]),
        labels: [("k".to_owned(), "v".to_owned())].into(),
        created_from: Some(at(1)),
        created_before: Some(at(2)),
        finished_from: Some(at(3)),
        finished_before: Some(at(4)),
    };
    let request = v1::ListTasksRequest {
        page_size: 7,
        omit_payloads: true,
        newest_first: true,
        ..list(filter)
    };
    let range = |from: i64, before: i64| TimeRange {
        from: Some(Timestamp(from * 1_000_000 + 5)),
        before: Some(Timestamp(before * 1_000_000 + 5)),
    };
    let Query { filter, beyond, newest_first, limit, omit_payloads, .. } =
        listing(request).expect("it is valid").query;
    assert_eq!((beyond, newest_first, limit, omit_payloads), (None, true, 7, true));
    assert_eq!(filter.states, [Succeeded, Failed], "each once");
    assert_eq!((filter.queues, filter.kinds), (texts(&["a", "b"]), texts(&["noop"])));
    assert_eq!(filter.labels["k"], "v");
    assert_eq!((filter.created, filter.finished), (range(1, 2), range(3, 4)));
}

#[test]
fn any_state_is_no_condition() {
    let any = states(&[v1::TaskState::Failed, v1::TaskState::Unspecified]);
    let query = listing(list(any)).expect("it is valid").query;
    assert_eq!(query.filter, Filter::default());
}

#[test]
fn everything_wrong_with_a_filter_is_named() {
    let filter = v1::TaskFilter {
        states: vec![1, 99],
        queues: texts(&["a", "b", "Not", ""]),
        kinds: vec![String::new(), "k".repeat(64)],
        labels: [("a b".to_owned(), "x".repeat(256))].into(),
        created_from: Some(at(2)),
        created_before: Some(at(2)),
        finished_from: Some(at(i64::MAX)),
        finished_before: Some(at(0)),
    };
    let request = v1::ListTasksRequest { page_size: -1, page_token: "x".into(), ..list(filter) };
    assert_eq!(
        fields(listing(request)),
        [
            "filter.states[1]",
            "filter.queues[2]",
            "filter.queues[3]",
            "filter.kinds[0]",
            "filter.kinds[1]",
            "filter.labels[\"a b\"]",
            "filter.labels[\"a b\"]",
            "filter.created_before",
            "filter.finished_from",
            "page_token",
            "page_size",
        ]
    );
}

#[test]
fn a_filter_has_its_bounds() {
    let many = |count: usize| v1::TaskFilter {
        states: vec![1; count],
        queues: vec!["q".into(); count],
        kinds: vec!["k".into(); count],
        labels: (0..count).map(|n| (n.to_string(), String::new())).collect(),
        ..Default::default()
    };
    assert!(listing(list(many(16))).is_ok());
    let named = ["filter.states", "filter.queues", "filter.kinds", "filter.labels"];
    assert_eq!(fields(listing(list(many(17)))), named);
    assert_eq!(fields(listing(list(many(100_000)))), named, "it costs no more");
}

#[test]
fn pages_have_bounds() {
    let limit = |page_size| {
        let request = v1::ListTasksRequest { page_size, ..Default::default() };
        listing(request).expect("it is valid").query.limit
    };
    assert_eq!([0, 1, 1_000, 1_001, i32::MAX].map(limit), [50, 1, 1_000, 1_000, 1_000]);
    let request = v1::CancelTasksRequest {
        filter: Some(states(&[v1::TaskState::Queued])),
        ..Default::default()
    };
    let step = cancellation(request).expect("it is valid");
    assert_eq!((step.query.limit, step.query.omit_payloads), (1_000, true));
}

fn cancel(filter: Option<v1::TaskFilter>) -> Result<Vec<State>, Vec<String>> {
    let request = v1::CancelTasksRequest { filter, ..Default::default() };
    match cancellation(request) {
        Ok(step) => Ok(step.query.filter.states),
        wrong @ Err(_) => Err(fields(wrong)),
    }
}

#[test]
fn a_cancellation_looks_only_at_what_has_not_ended() {
    use v1::TaskState as S;
    let of_queue = v1::TaskFilter { queues: texts(&["q"]), ..Default::default() };
    assert_eq!(cancel(Some(of_queue)), Ok(vec![Scheduled, Queued, Running]));
    assert_eq!(cancel(Some(states(&[S::Running, S::Failed]))), Ok(vec![Running]));
}

#[test]
fn a_cancellation_of_what_has_ended_is_wrong() {
    use v1::TaskState as S;
    let ended = states(&[S::Succeeded, S::Failed, S::Cancelled]);
    assert_eq!(cancel(Some(ended)), Err(vec!["filter.states".into()]));
    let mut filter = v1::TaskFilter { finished_from: Some(at(1)), ..states(&[S::Running]) };
    assert_eq!(cancel(Some(filter.clone())), Err(vec!["filter.finished_from".into()]));
    filter.finished_before = Some(at(2));
    filter.states = vec![S::Failed.into()];
    let all = ["filter.states", "filter.finished_from", "filter.finished_before"];
    assert_eq!(cancel(Some(filter)), Err(texts(&all)));
}

#[test]
fn what_changes_many_tasks_must_say_which() {
    let any = states(&[v1::TaskState::Unspecified]);
    for filter in [None, Some(v1::TaskFilter::default()), Some(any)] {
        assert_eq!(cancel(filter), Err(vec!["filter".into()]));
    }
    let wrong = v1::TaskFilter { queues: texts(&["No"]), ..Default::default() };
    assert_eq!(cancel(Some(wrong)), Err(vec!["filter.queues[0]".into()]));
    assert_eq!(fields(redrive(v1::RedriveTasksRequest::default())), ["filter"]);
}

#[test]
fn a_redrive_is_of_failed_tasks_unless_it_says() {
    let redriven = |filter| {
        let request = v1::RedriveTasksRequest { filter: Some(filter), ..Default::default() };
        redrive(request).map(|step| step.query.filter.states)
    };
    let of_kind = v1::TaskFilter { kinds: texts(&["k"]), ..Default::default() };
    assert_eq!(redriven(of_kind), Ok(vec![Failed]));
    let named = states(&[v1::TaskState::Cancelled, v1::TaskState::Failed]);
    assert_eq!(redriven(named), Ok(vec![Failed, Cancelled]));
    let wrong = states(&[v1::TaskState::Failed, v1::TaskState::Queued, v1::TaskState::Unspecified]);
    assert_eq!(fields(redriven(wrong)), ["filter.states[1]", "filter.states[2]", "filter"]);
}

proptest! {
    #[test]
    fn a_page_is_found_again_by_its_token(beyond in 0..i64::MAX as u64, newest_first: bool) {
        let first = v1::ListTasksRequest { newest_first, ..list(states(&[v1::TaskState::Failed])) };
        let page_token = listing(first.clone()).unwrap().pages.token(beyond);
        let next = v1::ListTasksRequest { page_token, page_size: 3, ..first };
        prop_assert_eq!(listing(next.clone()).unwrap().query.beyond, Some(beyond));
        let turned = v1::ListTasksRequest { newest_first: !newest_first, ..next.clone() };
        prop_assert_eq!(fields(listing(turned)), ["page_token"]);
        let other = v1::ListTasksRequest { filter: None, ..next };
        prop_assert_eq!(fields(listing(other)), ["page_token"]);
    }
}
