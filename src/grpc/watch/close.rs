//! What ends a watch from without, however much there is left to tell.

use std::{pin::Pin, time::Duration};

use tokio::time::Instant;

/// Why a watch is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// It was open for as long as its caller allows.
    Deadline,
    /// It was open for as long as the server allows.
    Lifetime,
    /// Its client did not read for as long as the server allows.
    Stalled,
}

/// When a watch is over, and why; `None` if nothing but its client ends it.
pub type Limit = Option<(Instant, CloseReason)>;

/// Completes when a watch is over.
pub type CloseFuture = Pin<Box<dyn Future<Output = CloseReason> + Send>>;

/// The limit of a watch that begins now.
pub fn limit(deadline: Option<Instant>, lifetime: Option<Duration>) -> Limit {
    let over = lifetime.map(|lifetime| Instant::now() + jittered(lifetime, rand::random()));
    let limits = [
        deadline.map(|at| (at, CloseReason::Deadline)),
        over.map(|at| (at, CloseReason::Lifetime)),
    ];
    limits.into_iter().flatten().min_by_key(|(at, _)| *at)
}

/// The end of a watch that has this limit.
pub fn closed(limit: Limit) -> CloseFuture {
    Box::pin(async move {
        match limit {
            Some((at, end)) => {
                tokio::time::sleep_until(at).await;
                end
            }
            None => std::future::pending().await,
        }
    })
}

/// Up to a tenth less, so that watchers that came together do not leave together.
fn jittered(lifetime: Duration, random: f64) -> Duration {
    lifetime.mul_f64(1.0 - random.clamp(0.0, 1.0) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_shortened_by_a_tenth_at_most() {
        let lifetime = Duration::from_secs(100);
        assert_eq!(jittered(lifetime, 0.0), lifetime);
        assert_eq!(jittered(lifetime, 1.0), Duration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_first_ends_it() {
        let (soon, late) = (Duration::from_secs(1), Duration::from_secs(9));
        let deadline = |span| Some(Instant::now() + span);
        assert_eq!(closed(limit(deadline(soon), Some(late))).await, CloseReason::Deadline);
        assert_eq!(closed(limit(deadline(late), Some(soon))).await, CloseReason::Lifetime);
        let never = tokio::time::timeout(Duration::from_hours(9), closed(limit(None, None)));
        assert!(never.await.is_err());
    }
}
