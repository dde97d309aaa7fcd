//! Labels and idempotency keys: the submitter's own words.

use std::collections::BTreeMap;

use super::Checks;

/// Labels of a task, and of a filter.
const MAX_LABELS: usize = 16;
const MAX_LABEL_KEY: usize = 63;
const MAX_LABEL_VALUE: usize = 255;
const MAX_REQUEST_ID: usize = 128;

/// Checks the labels that stand in `field`.
pub(super) fn check_labels(field: &str, labels: &BTreeMap<String, String>, checks: &mut Checks) {
    if labels.len() > MAX_LABELS {
        checks.wrong(field, format!("there are {}; at most {MAX_LABELS}", labels.len()));
    }
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-/".contains(&b);
    for (key, value) in labels {
        // The request decides how many there are.
        if checks.are_full() {
            break;
        }
        let short = key.len() <= MAX_LABEL_KEY;
        if key.is_empty() || !short || !key.bytes().all(known) {
            let wrong = format!("a key has 1 to {MAX_LABEL_KEY} of A-Z a-z 0-9 . _ - /");
            checks.wrong(&format!("{field}[{key:?}]"), wrong);
        }
        if value.len() > MAX_LABEL_VALUE {
            let wrong = format!("the value has {} bytes; at most {MAX_LABEL_VALUE}", value.len());
            checks.wrong(&format!("{field}[{key:?}]"), wrong);
        }
    }
}

/// Checks an idempotency key.
pub(super) fn check_request_id(given: &str, checks: &mut Checks) {
    if given.len() > MAX_REQUEST_ID {
        let wrong = format!("has {} bytes; at most {MAX_REQUEST_ID}", given.len());
        checks.wrong("request_id", wrong);
    }
    if given.chars().any(char::is_control) {
        checks.wrong("request_id", "has control characters");
    }
}
