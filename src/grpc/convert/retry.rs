//! A task's retry policy: what it says, and otherwise its queue's.

use super::{Checks, humane};
use crate::{proto::v1, queue, task::RetryPolicy};

/// Checks a policy. What is unset in it is the queue's; but the queue's longest
/// rest gives way to a longer first one that the task asks for.
pub(super) fn retry(
    given: Option<v1::RetryPolicy>,
    queue: &queue::Settings,
    checks: &mut Checks,
) -> RetryPolicy {
    let given = given.unwrap_or_default();
    let attempts = queue::MAX_ATTEMPTS;
    if given.max_attempts > *attempts.end() {
        let (least, most) = (attempts.start(), attempts.end());
        let wrong = format!("{} is not within {least} to {most}", given.max_attempts);
        checks.wrong("retry.max_attempts", wrong);
    }
    let bounds = (*queue::BACKOFF.start(), *queue::BACKOFF.end());
    let asked = checks.duration("retry.initial_backoff", given.initial_backoff, bounds);
    let initial_backoff = asked.unwrap_or(queue.initial_backoff);
    let max = checks.duration("retry.max_backoff", given.max_backoff, bounds);
    // What was refused above is not compared.
    let comparable = given.initial_backoff.is_none() || asked.is_some();
    if comparable && max.is_some_and(|max| max < initial_backoff) {
        let whose = if asked.is_some() { "" } else { ", which is the queue's" };
        let wrong = format!("is below the initial backoff of {}{whose}", humane(initial_backoff));
        checks.wrong("retry.max_backoff", wrong);
    }
    RetryPolicy {
        max_attempts: match given.max_attempts {
            0 => queue.max_attempts,
            attempts => attempts,
        },
        initial_backoff,
        max_backoff: max.unwrap_or(queue.max_backoff.max(initial_backoff)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const QUEUE: (u64, u64) = (2_000, 10_000);

    fn span(millis: Option<u64>) -> Option<prost_types::Duration> {
        millis.map(|millis| Duration::from_millis(millis).try_into().expect("it is short"))
    }

    /// With a queue that has [`QUEUE`]: the two rests, or the fields that are wrong.
    fn rests(initial: Option<u64>, max: Option<u64>) -> Result<(u64, u64), Vec<String>> {
        let queue = queue::Settings {
            initial_backoff: Duration::from_millis(QUEUE.0),
            max_backoff: Duration::from_millis(QUEUE.1),
            ..Default::default()
        };
        let given = v1::RetryPolicy {
            initial_backoff: span(initial),
            max_backoff: span(max),
            ..Default::default()
        };
        let mut checks = Checks::default();
        let policy = retry(Some(given), &queue, &mut checks);
        let millis = |span: Duration| u64::try_from(span.as_millis()).expect("it is short");
        let wrong = checks.finish((millis(policy.initial_backoff), millis(policy.max_backoff)));
        wrong.map_err(|wrong| wrong.into_iter().map(|violation| violation.field).collect())
    }

    #[test]
    fn each_rest_that_a_task_does_not_say_is_its_queues() {
        let max = || Err(vec!["retry.max_backoff".to_owned()]);
        assert_eq!(rests(None, None), Ok(QUEUE));
        assert_eq!(rests(Some(3_000), None), Ok((3_000, 10_000)));
        assert_eq!(rests(Some(30_000), None), Ok((30_000, 30_000)), "the longer one wins");
        assert_eq!(rests(None, Some(5_000)), Ok((2_000, 5_000)));
        assert_eq!(rests(None, Some(1_000)), max(), "below the queue's first rest");
        assert_eq!(rests(Some(500), Some(1_000)), Ok((500, 1_000)));
        assert_eq!(rests(Some(3_000), Some(1_000)), max());
    }

    #[test]
    fn a_rest_that_is_out_of_bounds_is_named_once() {
        let day = 24 * 60 * 60 * 1_000;
        assert_eq!(rests(Some(day + 1), Some(1_000)), Err(vec!["retry.initial_backoff".into()]));
        assert_eq!(rests(Some(day), None), Ok((day, day)));
    }

    #[test]
    fn attempts_are_the_queues_unless_the_task_says() {
        let queue = queue::Settings { max_attempts: 7, ..Default::default() };
        let attempts = |max_attempts| {
            let mut checks = Checks::default();
            let given = v1::RetryPolicy { max_attempts, ..Default::default() };
            let policy = retry(Some(given), &queue, &mut checks);
            checks.finish(policy.max_attempts).ok()
        };
        assert_eq!([0, 1, 100, 101].map(attempts), [Some(7), Some(1), Some(100), None]);
    }
}
