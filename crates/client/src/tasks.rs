//! Submitting and waiting, so that a lost connection or a restart of the server does
//! not matter.

use std::time::Duration;

use taskyard_proto::v1::{
    SubmitRequest, SubmitResponse, Task, TaskState, WaitTaskRequest, WaitTaskResponse,
};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::{CallRetryPolicy, Client, Error, Watcher, is_own_deadline, new_request_id};

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
    /// Submits a task, as often as it takes to know the outcome: a server that drains or
    /// has gone is looked for for 1 min from the first failure on; one that takes the
    /// connection and then says nothing is given up after 40 s each time. The task is given a random `request_id`
    /// if it has none, so that it is enqueued once.
    ///
    /// # Errors
    /// What the server answered, or the lack of an answer.
    pub async fn submit(&self, request: SubmitRequest) -> Result<SubmitResponse, Error> {
        let request = identified(request);
        let call = || {
            let (mut tasks, request) = (self.tasks(), request.clone());
            async move { tasks.submit(request).await }
        };
        Ok(CallRetryPolicy::PATIENT.call(call).await?)
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
        match tokio::time::timeout(deadline, CallRetryPolicy::PATIENT.call(call)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Status::deadline_exceeded(TOO_LATE).into()),
        }
    }

    /// Waits for the end of a task: for as long as it takes, or for `timeout`, after which
    /// it is answered as it stands. Repeats and rests take of `timeout`; a server that does
    /// not answer has 10 s beyond it.
    ///
    /// # Errors
    /// What the server answered, or that there was none for 1 min or by the end of
    /// `timeout`.
    pub async fn wait(&self, task_id: &str, timeout: Option<Duration>) -> Result<Task, Error> {
        let ends = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let call = || {
                let left = ends.map_or(ONE_WAIT, |ends| ends.duration_since(Instant::now()));
                self.wait_once(task_id, left.min(ONE_WAIT))
            };
            let task =
                CallRetryPolicy::PATIENT.call_until(ends, call).await?.task.unwrap_or_default();
            let is_over = ends.is_some_and(|ends| Instant::now() >= ends);
            if is_terminal(task.state()) || is_over {
                return Ok(task);
            }
        }
    }

    async fn wait_once(
        &self,
        task_id: &str,
        timeout: Duration,
    ) -> Result<Response<WaitTaskResponse>, Status> {
        let mut request = Request::new(WaitTaskRequest {
            task_id: task_id.to_owned(),
            timeout: Some(timeout.try_into().unwrap_or_default()),
        });
        request.set_timeout(timeout + GRACE);
        match self.tasks().wait_task(request).await {
            // It hangs, or the way to it does.
            Err(status) if status.code() == Code::DeadlineExceeded || is_own_deadline(&status) => {
                Err(Status::unavailable("the server did not answer in time"))
            }
            answer => answer,
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
