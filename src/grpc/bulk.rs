//! What is done to many tasks at once, a page at a time.

use tonic::Status;

use super::{
    convert::{Listing, Pages},
    status,
};
use crate::{
    admission::Refused,
    proto::v1,
    store::{self, Query, Store},
    task::TaskId,
};

/// The tasks of one page.
struct Page {
    tasks: Vec<TaskId>,
    /// Tasks that cannot be read.
    damaged: u32,
    next: Option<u64>,
}

impl Page {
    async fn read(store: &Store, query: Query) -> Result<Self, Status> {
        let page = store.list(query).await.map_err(|error| status::store(&error))?;
        let damaged = u32::try_from(page.damaged.len()).unwrap_or(u32::MAX);
        let tasks = page.tasks.into_iter().map(|task| task.id).collect();
        Ok(Self { tasks, damaged, next: page.next })
    }

    fn token(next: Option<u64>, pages: Pages) -> String {
        next.map(|beyond| pages.token(beyond)).unwrap_or_default()
    }
}

/// Cancels the tasks of a page.
///
/// # Errors
/// Those of the store.
pub async fn cancel(
    store: &Store,
    Listing { query, pages }: Listing,
) -> Result<v1::CancelTasksResponse, Status> {
    let among = query.filter.states.clone();
    let Page { tasks, mut damaged, next } = Page::read(store, query).await?;
    let mut cancelled = 0;
    if !tasks.is_empty() {
        let outcomes = store.cancel(tasks, among).await.map_err(|error| status::store(&error))?;
        for outcome in outcomes {
            match outcome {
                Ok(()) => cancelled += 1,
                Err(store::Error::Damaged(_)) => damaged += 1,
                // It moved on since the page was read, and may be forgotten by now.
                Err(
                    store::Error::Ended { .. }
                    | store::Error::Moved { .. }
                    | store::Error::NotFound(_),
                ) => {}
                Err(error) => return Err(status::store(&error)),
            }
        }
    }
    Ok(v1::CancelTasksResponse { cancelled, next_page_token: Page::token(next, pages), damaged })
}

/// Puts the tasks of a page back into their queues.
///
/// # Errors
/// Those of the store; `QUEUE_FULL` if a full queue kept all of them out.
pub async fn redrive(
    store: &Store,
    Listing { query, pages }: Listing,
) -> Result<v1::RedriveTasksResponse, Status> {
    let among = query.filter.states.clone();
    let Page { tasks, damaged, next } = Page::read(store, query).await?;
    let mut step = Step { damaged, ..Step::default() };
    if !tasks.is_empty() {
        let outcomes = store.redrive(tasks.clone(), among).await;
        let outcomes = outcomes.map_err(|error| status::store(&error))?;
        for (task, outcome) in tasks.into_iter().zip(outcomes) {
            step.note(task, outcome)?;
        }
    }
    let Step { redriven, passed_over, damaged, full } = step;
    let Some((task, error)) = full else {
        return Ok(v1::RedriveTasksResponse {
            redriven,
            next_page_token: Page::token(next, pages),
            full_queue: String::new(),
            passed_over,
            damaged,
        });
    };
    match error {
        store::Error::NoRoom { queue, .. } if redriven > 0 => Ok(v1::RedriveTasksResponse {
            passed_over,
            redriven,
            damaged,
            // So that the next step begins with this task.
            next_page_token: pages.token(task.number().saturating_sub(1)),
            full_queue: queue.to_string(),
        }),
        error => Err(status::redrive(&error)),
    }
}

/// What became of the tasks of a page.
#[derive(Default)]
struct Step {
    redriven: u32,
    /// Tasks that will never have room.
    passed_over: u32,
    /// Tasks that cannot be read.
    damaged: u32,
    /// The first task whose queue had no room.
    full: Option<(TaskId, store::Error)>,
}

impl Step {
    fn note(&mut self, task: TaskId, outcome: Result<(), store::Error>) -> Result<(), Status> {
        match outcome {
            Ok(()) => self.redriven += 1,
            Err(store::Error::Damaged(_)) => self.damaged += 1,
            // Somebody else was faster, or it is forgotten.
            Err(
                store::Error::Ended { .. }
                | store::Error::NotEnded { .. }
                | store::Error::Moved { .. }
                | store::Error::NotFound(_),
            ) => {}
            Err(error @ store::Error::NoRoom { cause, .. }) => match cause {
                Refused::Full { .. } | Refused::TooManyQueues(_) | Refused::Held { .. } => {
                    self.full.get_or_insert((task, error));
                }
                Refused::Draining | Refused::ServerFailed | Refused::StoreFailed => {
                    return Err(status::store(&error));
                }
                // It will never have room, and the others need not wait for it.
                Refused::LargerThanQueue { .. }
                | Refused::MoreThanQueue { .. }
                | Refused::UnknownQueue
                | Refused::Deadline => self.passed_over += 1,
            },
            Err(error) => return Err(status::redrive(&error)),
        }
        Ok(())
    }
}
