//! Submitting and waiting, so that a lost connection or a restart of the server does
//! not matter.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Request, Status};

use super::{Client, Error, Persistence, Watcher, new_request_id};
use crate::proto::v1::{SubmitRequest, SubmitResponse, Task, TaskState, WaitTaskRequest};

/// How long one call waits for the end of a task: short enough that proxies and
/// firewalls on the way keep the connection.
const ONE_WAIT: Duration = Duration::from_mins(5);

/// What a call that waits is given beyond its wait. The server answers by itself; this is
/// for one that hangs.
const GRACE: Duration = Duration::from_secs(10);

/// What is told of a deadline that passed on this side.
const TOO_LATE: &str = "the deadline passed before the server answered";

/// Whether a task in this state has ended.
pub fn is_terminal(state: TaskState) -> bool {
    matches!(state, TaskState::Succeeded | TaskState::Failed | TaskState::Cancelled)
}

impl Client {
    /// Submits a task, as often as it takes to know the outcome, up to ten times within
    /// about 25 s. It is given a random `request_id` if it has none, so that it is enqueued
    /// once.
    ///
    /// # Errors
    /// What the server answered, or the lack of an answer.
    pub async fn submit(&self, request: SubmitRequest) -> Result<SubmitResponse, Error> {
        let request = identified(request);
        let call = || {
            let (mut tasks, request) = (self.tasks(), request.clone());
            async move { tasks.submit(request).await }
        };
        Ok(Persistence::PATIENT.call(call).await?)
    }

    /// [`Self::submit`] that ends after `deadline` in any case, also while it waits for
    /// room in its queue.
    ///
    /// # Errors
    /// As [`Self::submit`], and `DEADLINE_EXCEEDED`: nothing was enqueued if the server
    /// says so by its reason; otherwise the outcome is unknown.
    pub async fn submit_within(
        &self,
        request: SubmitRequest,
        deadline: Duration,
    ) -> Result<SubmitResponse, Error> {
        let (start, request) = (Instant::now(), identified(request));
        let call = || {
            let (mut tasks, mut request) = (self.tasks(), Request::new(request.clone()));
            request.set_timeout(deadline.saturating_sub(start.elapsed()));
            async move { tasks.submit(request).await }
        };
        match tokio::time::timeout(deadline, Persistence::PATIENT.call(call)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Status::deadline_exceeded(TOO_LATE).into()),
        }
    }

    /// Waits for the end of a task: for as long as it takes, or for `timeout`, after which
    /// it is answered as it stands.
    ///
    /// # Errors
    /// What the server answered, or that there was none for about 25 s.
    pub async fn wait(&self, task_id: &str, timeout: Option<Duration>) -> Result<Task, Error> {
        let start = Instant::now();
        loop {
            let left = timeout.map_or(ONE_WAIT, |timeout| timeout.saturating_sub(start.elapsed()));
            let one = left.min(ONE_WAIT);
            let wait = WaitTaskRequest {
                task_id: task_id.to_owned(),
                timeout: Some(one.try_into().unwrap_or_default()),
            };
            let call = || {
                let (mut tasks, mut request) = (self.tasks(), Request::new(wait.clone()));
                request.set_timeout(one + GRACE);
                async move { tasks.wait_task(request).await }
            };
            let task = match Persistence::PATIENT.call(call).await {
                Ok(response) => response.task.unwrap_or_default(),
                Err(status) if status.code() == Code::DeadlineExceeded && timeout.is_none() => {
                    continue;
                }
                Err(status) => return Err(status.into()),
            };
            let is_over = timeout.is_some_and(|timeout| start.elapsed() >= timeout);
            if is_terminal(task.state()) || is_over {
                return Ok(task);
            }
        }
    }

    /// [`Self::submit`], then [`Self::wait`] for as long as it takes. A task that FAILED
    /// or was CANCELLED is no error of the call: its state and error say so.
    ///
    /// # Errors
    /// As both.
    pub async fn submit_and_wait(&self, request: SubmitRequest) -> Result<Task, Error> {
        let submitted = self.submit(request).await?;
        self.wait(&submitted.task_id, None).await
    }

    /// Submits a task and follows it, over outages, to its end: first comes
    /// [`super::Seen::Submitted`], then this task's events, each once, then nothing. It is
    /// given a random `request_id` if it has none. Dropping the watcher does not cancel
    /// the task.
    pub fn submit_and_watch(&self, request: SubmitRequest) -> Watcher {
        Watcher::follow(self.clone(), identified(request))
    }
}

/// The request, so that it can be repeated.
fn identified(request: SubmitRequest) -> SubmitRequest {
    let request_id = match request.request_id {
        id if id.is_empty() => new_request_id(),
        id => id,
    };
    SubmitRequest { request_id, ..request }
}
