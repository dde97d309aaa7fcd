//! `TaskService`: convert, call, convert.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    Deadline, Watchers,
    convert::{self, Rules},
    status,
    stubs::v1::task_service_server,
    watch::WatchStream,
};
use crate::{
    admission::{Admission, Admitted, Refused, WhenFull},
    handler::Registry,
    proto::v1,
    store::{self, Store, Submission, Submitted},
    task::TaskId,
};

/// How long `WaitTask` waits when neither the request nor a deadline says.
const DEFAULT_WAIT: Duration = Duration::from_hours(1);

/// The task service.
#[derive(Clone)]
pub struct Service {
    store: Arc<dyn Store>,
    admission: Arc<Admission>,
    registry: Arc<Registry>,
    watchers: Watchers,
    rules: Rules,
    closing: CancellationToken,
}

impl Service {
    /// A service over a store. `closing` fires when the store is closed, and
    /// nobody needs to wait for a task any more.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        admission: Arc<Admission>,
        registry: Arc<Registry>,
        watchers: Watchers,
        rules: Rules,
        closing: CancellationToken,
    ) -> Self {
        Self { store, admission, registry, watchers, rules, closing }
    }

    /// Finds a place for a task, waiting in line if it may. A task that is there
    /// already, under its `request_id`, needs none, however full the queue is.
    async fn place(
        &self,
        submission: &Submission,
        when_full: WhenFull,
        deadline: Option<Instant>,
    ) -> Result<Place, Status> {
        let queue = &submission.task.queue;
        let refused = |refused: Refused| status::refused(queue, refused);
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(refused(Refused::Deadline));
        }
        let bytes = store::weight(&submission.task);
        let admit = |when_full| self.admission.admit(queue, bytes, when_full, deadline);
        let Some(request_id) = &submission.task.request_id else {
            return admit(when_full).await.map(Place::Free).map_err(refused);
        };
        match admit(WhenFull::Reject).await {
            Err(
                Refused::Full { .. } | Refused::TooManyQueues(_) | Refused::LargerThanQueue { .. },
            ) => {}
            place => return place.map(Place::Free).map_err(refused),
        }
        let repeated = self.store.repeated(request_id.clone(), submission.fingerprint).await;
        match repeated.map_err(|error| status::store(&error))? {
            Some(submitted) => Ok(Place::NotNeeded(submitted)),
            None => admit(when_full).await.map(Place::Free).map_err(refused),
        }
    }

    async fn commit(&self, submission: Submission, place: Admitted) -> Result<Submitted, Status> {
        self.store.submit(submission, place).await.map_err(|error| status::store(&error))
    }

    async fn read(&self, task: TaskId) -> Result<v1::Task, Status> {
        let task = self.store.get(task).await.map_err(|error| status::store(&error))?;
        Ok(convert::task(task))
    }
}

/// What a submission needs before it can be committed.
enum Place {
    /// It has it.
    Free(Admitted),
    /// It was committed long ago.
    NotNeeded(Submitted),
}

fn deadline_of<T>(request: &Request<T>) -> Option<Instant> {
    request.extensions().get::<Deadline>().map(|deadline| deadline.0)
}

/// Waits until the caller's deadline at the longest.
async fn within<T>(
    deadline: Option<Instant>,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        None => call.await,
        Some(deadline) => tokio::time::timeout_at(deadline, call)
            .await
            .unwrap_or_else(|_| Err(status::deadline())),
    }
}

#[tonic::async_trait]
impl task_service_server::TaskService for Service {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let deadline = deadline_of(&request);
        let request = request.into_inner();
        let (submission, when_full) = convert::submission(request, &self.rules, &self.registry)
            .map_err(|wrong| status::invalid(&wrong))?;
        let submitted = match self.place(&submission, when_full, deadline).await? {
            Place::Free(place) => within(deadline, self.commit(submission, place)).await?,
            Place::NotNeeded(submitted) => submitted,
        };
        Ok(Response::new(v1::SubmitResponse {
            task_id: submitted.task.to_string(),
            cursor: self.watchers.hub().cursor(submitted.seq.previous()).to_string(),
            state: convert::state_to(submitted.state).into(),
            existing: submitted.existing,
        }))
    }

    type WatchEventsStream = WatchStream;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let deadline = request.extensions().get::<Deadline>().copied();
        let watch = convert::watch(request.get_ref()).map_err(|wrong| status::invalid(&wrong))?;
        Ok(Response::new(self.watchers.watch(&watch, deadline)?))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        let deadline = deadline_of(&request);
        let id = convert::task_id(&request.get_ref().task_id)
            .map_err(|wrong| status::invalid(&wrong))?;
        let task = within(deadline, self.read(id)).await?;
        Ok(Response::new(v1::GetTaskResponse { task: Some(task) }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let deadline = deadline_of(&request);
        let filter = convert::filter_hash(request.get_ref());
        let query =
            convert::query(request.into_inner()).map_err(|wrong| status::invalid(&wrong))?;
        let list = async { self.store.list(query).await.map_err(|error| status::store(&error)) };
        let page = within(deadline, list).await?;
        Ok(Response::new(convert::page(page, filter)))
    }

    async fn wait_task(
        &self,
        request: Request<v1::WaitTaskRequest>,
    ) -> Result<Response<v1::WaitTaskResponse>, Status> {
        let deadline = deadline_of(&request);
        let request = request.into_inner();
        let id = convert::task_id(&request.task_id).map_err(|wrong| status::invalid(&wrong))?;
        let timeout =
            convert::wait_timeout(request.timeout).map_err(|wrong| status::invalid(&wrong))?;
        // Register first, then look: an end in between is not missed.
        let completion = self.watchers.hub().completion(id).map_err(status::too_many_waiters)?;
        let ended = completion.ended();
        let wait = async {
            let task = self.read(id).await?;
            if is_terminal(&task) {
                return Ok(task);
            }
            tokio::select! {
                () = ended => {}
                () = tokio::time::sleep(timeout.unwrap_or(DEFAULT_WAIT)) => {}
                () = self.closing.cancelled() => {
                    let task = self.read(id).await?;
                    return if is_terminal(&task) { Ok(task) } else { Err(status::draining()) };
                }
            }
            self.read(id).await
        };
        let task = within(deadline, wait).await?;
        Ok(Response::new(v1::WaitTaskResponse { task: Some(task) }))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let deadline = deadline_of(&request);
        let id = convert::task_id(&request.get_ref().task_id)
            .map_err(|wrong| status::invalid(&wrong))?;
        let cancel = async {
            self.store.cancel(id).await.map_err(|error| status::store(&error))?;
            self.read(id).await
        };
        let task = within(deadline, cancel).await?;
        Ok(Response::new(v1::CancelTaskResponse { task: Some(task) }))
    }
}

fn is_terminal(task: &v1::Task) -> bool {
    matches!(
        task.state(),
        v1::TaskState::Succeeded | v1::TaskState::Failed | v1::TaskState::Cancelled
    )
}
