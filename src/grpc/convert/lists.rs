//! A `ListTasksRequest` to a query, and the tokens of its pages.

use std::hash::Hasher as _;

use prost::Message as _;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::{Checks, MAX_QUEUE, check_name, state_of};
use crate::{handler::Violation, proto::v1, store::Query, task::State};

/// States in a filter: each of them once, with room for a few repeated.
const MAX_STATES: usize = 16;
const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 1_000;

/// Checks a listing.
///
/// # Errors
/// Everything that is wrong with it.
pub fn query(request: v1::ListTasksRequest) -> Result<Query, Vec<Violation>> {
    let mut checks = Checks::default();
    let filter = filter_hash(&request);
    let mut states = Vec::new();
    if request.states.len() > MAX_STATES {
        let wrong = format!("there are {}; at most {MAX_STATES}", request.states.len());
        checks.wrong("states", wrong);
    }
    for (at, given) in request.states.iter().take(MAX_STATES).enumerate() {
        match v1::TaskState::try_from(*given) {
            Ok(v1::TaskState::Unspecified) => states.extend(State::ALL),
            Ok(state) => states.push(state_of(state)),
            Err(_) => checks.wrong(&format!("states[{at}]"), format!("{given} is no state")),
        }
    }
    if !request.queue.is_empty() {
        check_name("queue", &request.queue, MAX_QUEUE, &mut checks);
    }
    let limit = match usize::try_from(request.page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) => size.min(MAX_PAGE),
        Err(_) => {
            checks.wrong("page_size", "is negative");
            DEFAULT_PAGE
        }
    };
    let after = page_start(&request.page_token, filter, &mut checks);
    if !checks.violations.is_empty() {
        return Err(checks.violations);
    }
    Ok(Query {
        states,
        queue: Some(request.queue).filter(|queue| !queue.is_empty()),
        kind: Some(request.kind).filter(|kind| !kind.is_empty()),
        after,
        limit,
        omit_payloads: request.omit_payloads,
    })
}

/// Recognises the filters that a page token belongs to.
pub fn filter_hash(request: &v1::ListTasksRequest) -> u32 {
    let filters = v1::ListTasksRequest {
        states: request.states.clone(),
        queue: request.queue.clone(),
        kind: request.kind.clone(),
        ..Default::default()
    };
    let mut hasher = SipHasher24::new();
    hasher.write(&filters.encode_to_vec());
    u32::try_from(hasher.finish128().h1 >> 32).unwrap_or_default()
}

/// The token of the page that begins after task `after`.
pub fn page_token(after: u64, filter: u32) -> String {
    format!("p{filter:08x}{after:x}")
}

fn page_start(token: &str, filter: u32, checks: &mut Checks) -> u64 {
    if token.is_empty() {
        return 0;
    }
    let parsed = token.strip_prefix('p').and_then(|rest| {
        let (of, after) = rest.split_at_checked(8)?;
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        (hex(of) && hex(after)).then_some(())?;
        let after = u64::from_str_radix(after, 16).ok()?;
        Some((u32::from_str_radix(of, 16).ok()?, i64::try_from(after).ok()?.unsigned_abs()))
    });
    match parsed {
        Some((of, after)) if of == filter => after,
        Some(_) => {
            checks.wrong("page_token", "belongs to a query with other filters");
            0
        }
        None => {
            checks.wrong("page_token", "is not a page token: take next_page_token as it is");
            0
        }
    }
}
