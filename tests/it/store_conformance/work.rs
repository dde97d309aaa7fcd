//! Tasks and outcomes, as the cases need them.

use std::{collections::BTreeMap, future::Future, time::Duration};

use taskyard::{
    store::Outcome,
    task::{Data, Due, Failure, NewTask, RetryPolicy, TaskBody, TaskId},
};
use tokio::time::timeout;

/// Only a hang exceeds it.
pub const PATIENCE: Duration = Duration::from_mins(1);
/// How long every execution says that it ran.
pub const RAN: Duration = Duration::from_millis(10);
/// Longer than any case takes.
pub const LATER: Duration = Duration::from_hours(1);
/// What every submission has unless it says.
pub const FINGERPRINT: [u8; 16] = [1; 16];

/// Waits for what must come.
pub async fn patient<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("an answer")
}

/// A task that may start at once, is tried once, and is nothing special.
pub fn task(queue: &str) -> NewTask {
    NewTask {
        kind: "kind".into(),
        queue: queue.into(),
        body: TaskBody { timeout: PATIENCE, ..TaskBody::default() },
        priority: 0,
        due: Due::Now,
        retry: RetryPolicy {
            max_attempts: 1,
            initial_backoff: Duration::from_secs(1),
            max_backoff: PATIENCE,
        },
        labels: BTreeMap::new(),
        request_id: None,
    }
}

/// A task that is tried so often.
pub fn tried(queue: &str, max_attempts: u32) -> NewTask {
    let task = task(queue);
    NewTask { retry: RetryPolicy { max_attempts, ..task.retry }, ..task }
}

/// A task with an idempotency key.
pub fn keyed(queue: &str, key: &str) -> NewTask {
    NewTask { request_id: Some(key.to_owned()), ..task(queue) }
}

/// A task that waits for longer than the case.
pub fn later(queue: &str) -> NewTask {
    NewTask { due: Due::After(LATER), ..task(queue) }
}

pub fn done() -> Outcome {
    Outcome::Succeeded(Data::Empty)
}

/// A failure after which the task may be tried again after so long.
pub fn failed(retry_after: Duration) -> Outcome {
    Outcome::Failed { failure: Failure::new("BROKEN", "it broke"), permanent: false, retry_after }
}

/// A failure for good.
pub fn broken() -> Outcome {
    let failure = Failure::new("BROKEN", "it broke");
    Outcome::Failed { failure, permanent: true, retry_after: Duration::ZERO }
}

/// An identifier that no store has given.
pub fn nobody() -> TaskId {
    TaskId::new(1 << 40, 0)
}
