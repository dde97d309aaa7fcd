//! Requests that speak of many tasks, to queries.

use super::{
    Checks,
    filters::{MAX_STATES, filter},
    tokens::{Pages, Purpose},
};
use crate::{
    handler::Violation,
    proto::v1,
    store::{Filter, Query},
    task::State,
};

const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 1_000;

/// A query, and the tokens of its pages.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// The page that is asked for.
    pub query: Query,
    /// Makes the tokens of further pages.
    pub pages: Pages,
}

/// Checks a listing.
///
/// # Errors
/// Everything that is wrong with it.
pub fn listing(request: v1::ListTasksRequest) -> Result<Listing, Vec<Violation>> {
    let mut checks = Checks::default();
    let order =
        if request.newest_first { Purpose::ListNewestFirst } else { Purpose::ListOldestFirst };
    let pages = Pages::of(order, request.filter.as_ref());
    let query = Query {
        filter: filter(request.filter.unwrap_or_default(), &mut checks),
        beyond: pages.start(&request.page_token, &mut checks),
        newest_first: request.newest_first,
        limit: page_size(request.page_size, DEFAULT_PAGE, MAX_PAGE, &mut checks),
        omit_payloads: request.omit_payloads,
        ..Query::default()
    };
    checks.finish(Listing { query, pages })
}

/// Checks a step of a cancellation.
///
/// # Errors
/// Everything that is wrong with it; also what only tasks that have ended match,
/// as whoever asks for that believes something else.
pub fn cancellation(request: v1::CancelTasksRequest) -> Result<Listing, Vec<Violation>> {
    let v1::CancelTasksRequest { filter, page_size, page_token } = request;
    let mut checks = Checks::default();
    let mut step = step(Purpose::Cancel, filter, page_size, &page_token, &mut checks);
    let Filter { states, finished, .. } = &mut step.query.filter;
    let wrong = "only tasks that have ended match, and those cannot be cancelled";
    if !states.is_empty() && states.iter().all(|state| state.is_terminal()) {
        checks.wrong("filter.states", wrong);
    }
    if finished.from.is_some() {
        checks.wrong("filter.finished_from", wrong);
    }
    if finished.before.is_some() {
        checks.wrong("filter.finished_before", wrong);
    }
    if states.is_empty() {
        states.extend(State::ALL);
    }
    // Looking at what has ended would take time for nothing.
    states.retain(|state| !state.is_terminal());
    checks.finish(step)
}

/// Checks a step of a redrive.
///
/// # Errors
/// Everything that is wrong with it.
pub fn redrive(request: v1::RedriveTasksRequest) -> Result<Listing, Vec<Violation>> {
    let v1::RedriveTasksRequest { filter, page_size, page_token } = request;
    let mut checks = Checks::default();
    let named = filter.as_ref().map_or(&[][..], |filter| &filter.states);
    for (at, state) in named.iter().take(MAX_STATES).enumerate() {
        let known = v1::TaskState::try_from(*state);
        if known.is_ok_and(|s| !matches!(s, v1::TaskState::Failed | v1::TaskState::Cancelled)) {
            let wrong = "only tasks that have FAILED (5) or were CANCELLED (6) can be redriven";
            checks.wrong(&format!("filter.states[{at}]"), wrong);
        }
    }
    let mut step = step(Purpose::Redrive, filter, page_size, &page_token, &mut checks);
    if step.query.filter.states.is_empty() {
        step.query.filter.states.push(State::Failed);
    }
    checks.finish(step)
}

fn step(
    purpose: Purpose,
    given: Option<v1::TaskFilter>,
    size: i32,
    token: &str,
    checks: &mut Checks,
) -> Listing {
    let pages = Pages::of(purpose, given.as_ref());
    let before = checks.violations.len();
    let filter = filter(given.unwrap_or_default(), checks);
    // A filter that was meant to set something, and failed to, is told as such.
    if filter == Filter::default() && checks.violations.len() == before {
        checks.wrong("filter", "is required, and must set something: empty, it means all tasks");
    }
    let query = Query {
        filter,
        beyond: pages.start(token, checks),
        newest_first: false,
        limit: page_size(size, MAX_PAGE, MAX_PAGE, checks),
        omit_payloads: true,
        ..Query::default()
    };
    Listing { query, pages }
}

/// How many entries a page has.
pub(super) fn page_size(given: i32, default: usize, most: usize, checks: &mut Checks) -> usize {
    match usize::try_from(given) {
        Ok(0) => default,
        Ok(size) => size.min(most),
        Err(_) => {
            checks.wrong("page_size", "is negative");
            default
        }
    }
}

#[cfg(test)]
mod tests;
