//! How long a task rests before it is tried again.

use std::time::Duration;

use rand::Rng as _;

use crate::task::RetryPolicy;

/// The rest after the `failures`-th failed attempt: evenly between zero and
/// min(max, initial × 2^(failures − 1)). "Full jitter", which spreads a crowd of
/// failures best: Marc Brooker, "Exponential Backoff And Jitter", AWS
/// Architecture Blog, 2015.
pub fn backoff(policy: &RetryPolicy, failures: u32) -> Duration {
    let ceiling = ceiling(policy, failures);
    rand::rng().random_range(Duration::ZERO..=ceiling)
}

fn ceiling(policy: &RetryPolicy, failures: u32) -> Duration {
    let factor = 2u32.saturating_pow(failures.saturating_sub(1));
    policy.initial_backoff.saturating_mul(factor).min(policy.max_backoff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum() {
        let policy = RetryPolicy {
            max_attempts: 100,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_mins(1),
        };
        let ceilings = [1, 2, 3, 6, 7, 100].map(|failures| ceiling(&policy, failures).as_secs());
        assert_eq!(ceilings, [1, 2, 4, 32, 60, 60]);
    }

    #[test]
    fn rests_are_spread_over_the_whole_range() {
        let policy = RetryPolicy {
            max_attempts: 2,
            initial_backoff: Duration::from_secs(10),
            max_backoff: Duration::from_secs(10),
        };
        let rests: Vec<_> = (0..1000).map(|_| backoff(&policy, 1).as_secs_f64()).collect();
        let mean = rests.iter().sum::<f64>() / 1000.0;
        assert!((4.0..6.0).contains(&mean), "evenly from 0 to 10 s: mean {mean}");
        assert!(rests.iter().all(|rest| *rest <= 10.0));
    }
}
