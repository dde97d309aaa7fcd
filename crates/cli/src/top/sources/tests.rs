//! How calls follow each other, in a time that a test steps.

use std::{cell::Cell, future::pending, rc::Rc};

use super::*;

#[derive(Clone, Default)]
struct Asked(Rc<Cell<u32>>);

impl Asked {
    fn again(&self) -> u32 {
        self.0.set(self.0.get() + 1);
        self.0.get()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_the_only_one() {
    let asked = Asked::default();
    let mut poll: Poll<Asked, ()> = Poll::new(SECOND, asked.clone(), |asked| {
        asked.again();
        Box::pin(pending())
    });
    for _ in 0..20 {
        assert!(timeout(SECOND, poll.next()).await.is_err());
    }
    assert_eq!(asked.0.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_go_on_after_a_failure_at_their_pace() {
    let mut poll = Poll::new(SECOND, Asked::default(), |asked| {
        let number = asked.again();
        Box::pin(
            async move { if number == 2 { Err(Status::unavailable("gone")) } else { Ok(number) } },
        )
    });
    let begun = Instant::now();
    assert_eq!(poll.next().await.ok(), Some(1));
    assert_eq!(begun.elapsed(), Duration::ZERO, "the first one is not waited for");
    assert!(poll.next().await.is_err());
    assert_eq!(poll.next().await.ok(), Some(3));
    assert_eq!(begun.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_waited_for_for_ever() {
    let begun = Instant::now();
    let silent = in_time::<()>(pending()).await.expect_err("nobody answers");
    assert!(taskyard_client::is_lost(&silent));
    assert_eq!(begun.elapsed(), ANSWER);
}
