//! Page tokens: opaque to clients, and of use only for the query that they
//! belong to.

use std::hash::Hasher as _;

use prost::Message as _;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::Checks;
use crate::proto::v1;

/// What pages are turned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    ListOldestFirst,
    ListNewestFirst,
    Cancel,
    Redrive,
}

/// Recognises the pages of one query: of one call, filter and order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages(u32);

impl Pages {
    pub(super) fn of(purpose: Purpose, filter: Option<&v1::TaskFilter>) -> Self {
        let mut hasher = SipHasher24::new();
        if let Some(filter) = filter {
            hasher.write(&filter.encode_to_vec());
        }
        hasher.write_u8(match purpose {
            Purpose::ListOldestFirst => 0,
            Purpose::ListNewestFirst => 1,
            Purpose::Cancel => 2,
            Purpose::Redrive => 3,
        });
        Self(u32::try_from(hasher.finish128().h1 >> 32).unwrap_or_default())
    }

    /// The token of the page that begins beyond task `beyond`.
    pub fn token(self, beyond: u64) -> String {
        format!("p{:08x}{beyond:x}", self.0)
    }

    /// Where the page of this token begins; `None` for the first page.
    pub(super) fn start(self, token: &str, checks: &mut Checks) -> Option<u64> {
        if token.is_empty() {
            return None;
        }
        match parse(token) {
            Some((of, beyond)) if of == self.0 => return Some(beyond),
            Some(_) => checks.wrong("page_token", "belongs to a query with other filters or order"),
            None => checks.wrong("page_token", NOT_A_TOKEN),
        }
        None
    }
}

const NOT_A_TOKEN: &str = "is not a page token: take next_page_token as it is";

fn parse(token: &str) -> Option<(u32, u64)> {
    let (of, beyond) = token.strip_prefix('p')?.split_at_checked(8)?;
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    (hex(of) && hex(beyond)).then_some(())?;
    let beyond = u64::from_str_radix(beyond, 16).ok()?;
    // Beyond what the store numbers, no page begins.
    Some((u32::from_str_radix(of, 16).ok()?, i64::try_from(beyond).ok()?.unsigned_abs()))
}

/// The token of the page of queues that begins after the queue `last`.
pub fn queue_token(last: &str) -> String {
    let mut token = String::with_capacity(1 + 2 * last.len());
    token.push('q');
    for byte in last.bytes() {
        for digit in [byte >> 4, byte & 15] {
            token.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    token
}

/// The queue after which the page of this token begins; `None` for the first page.
pub(super) fn queue_start(token: &str, checks: &mut Checks) -> Option<String> {
    if token.is_empty() {
        return None;
    }
    let name = parse_queue(token);
    if name.is_none() {
        checks.wrong("page_token", NOT_A_TOKEN);
    }
    name
}

fn parse_queue(token: &str) -> Option<String> {
    let digits = token.strip_prefix('q')?.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 2 * crate::queue::MAX_NAME {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    let name = String::from_utf8(digits.chunks_exact(2).map(byte).collect::<Option<_>>()?).ok()?;
    crate::queue::is_name(&name).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(queue: &str) -> v1::TaskFilter {
        v1::TaskFilter { queues: vec![queue.into()], ..Default::default() }
    }

    fn wrong(checks: Checks) -> Vec<String> {
        checks.violations.into_iter().map(|violation| violation.field).collect()
    }

    proptest! {
        #[test]
        fn a_token_leads_to_its_page_and_to_no_other_query(beyond in 0..i64::MAX as u64) {
            let pages = Pages::of(Purpose::ListOldestFirst, Some(&filter("a")));
            let token = pages.token(beyond);
            let mut checks = Checks::default();
            prop_assert_eq!(pages.start(&token, &mut checks), Some(beyond));
            prop_assert!(checks.violations.is_empty());
            for other in [
                Pages::of(Purpose::ListNewestFirst, Some(&filter("a"))),
                Pages::of(Purpose::Cancel, Some(&filter("a"))),
                Pages::of(Purpose::Redrive, Some(&filter("a"))),
                Pages::of(Purpose::ListOldestFirst, Some(&filter("b"))),
                Pages::of(Purpose::ListOldestFirst, None),
            ] {
                let mut checks = Checks::default();
                prop_assert_eq!(other.start(&token, &mut checks), None);
                prop_assert_eq!(wrong(checks), ["page_token"]);
            }
        }

        #[test]
        fn no_text_is_more_than_a_violation(token in "[pq]?\\PC{1,40}") {
            let mut checks = Checks::default();
            let pages = Pages::of(Purpose::Cancel, None);
            prop_assert!(pages.start(&token, &mut checks).is_some() || !wrong(checks).is_empty());
            let mut checks = Checks::default();
            prop_assert!(queue_start(&token, &mut checks).is_some() || !wrong(checks).is_empty());
        }

        #[test]
        fn a_token_of_queues_leads_on_after_its_queue(name in "[a-z0-9][a-z0-9._-]{0,62}") {
            let mut checks = Checks::default();
            prop_assert_eq!(queue_start(&queue_token(&name), &mut checks), Some(name));
            prop_assert!(checks.violations.is_empty());
        }
    }

    #[test]
    fn an_unset_filter_is_that_which_sets_nothing() {
        let unset = Pages::of(Purpose::Cancel, None);
        assert_eq!(unset, Pages::of(Purpose::Cancel, Some(&v1::TaskFilter::default())));
    }
}
