//! `TaskService`: convert, call, convert.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    BoundedSubmitBatchRequest, Submitter, Watchers, bulk, convert,
    deadline::{deadline_of, within},
    http2::EndsByItself,
    shares::{Call, RESET_TIMEOUT, Reserved, Shares},
    status,
    stubs::v1::task_service_server,
    submit::Acks,
    watch::{Past, WatchStream},
};
use crate::{
    handler::Violation,
    proto::v1,
    store::{self, Asker, Query, Store},
    supervisor::Supervisor,
    task::TaskId,
};

/// How long `WaitTask` waits when neither the request nor a deadline says.
const DEFAULT_WAIT: Duration = Duration::from_hours(1);

/// How the server's end is told to calls that wait.
#[derive(Clone, Debug, Default)]
pub struct ShutdownTokens {
    /// No task is taken any more.
    pub draining: CancellationToken,
    /// The store is closed, and nobody needs to wait for a task any more.
    pub closing: CancellationToken,
    /// Knows whether it is a drain.
    pub supervisor: Supervisor,
}

impl ShutdownTokens {
    /// What callers are told who would have to wait longer than the server lives.
    pub(super) fn status(&self) -> Status {
        match self.supervisor.failure() {
            Some(failure) => status::server_failed(&failure.to_string(), ""),
            None => status::draining(),
        }
    }
}

/// The task service.
#[derive(Clone)]
pub struct Service {
    store: Arc<Store>,
    submitter: Submitter,
    watchers: Watchers,
    shutdown: ShutdownTokens,
}

impl Service {
    /// A service over a store.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        submitter: Submitter,
        watchers: Watchers,
        shutdown: ShutdownTokens,
    ) -> Self {
        Self { store, submitter, watchers, shutdown }
    }

    async fn read(&self, task: TaskId) -> Result<v1::Task, Status> {
        let task = self.store.get(task).await.map_err(|error| status::store(&error))?;
        Ok(convert::task(task))
    }

    /// Waits until the store takes no more, if that comes.
    async fn store_failed(&self) -> Status {
        let mut failure = self.store.failure();
        if let Ok(cause) = failure.wait_for(Option::is_some).await
            && let Some(cause) = cause.clone()
        {
            return status::store(&store::Error::Failed(cause));
        }
        std::future::pending().await
    }

    /// Reads a task for a response that takes its room now.
    async fn read_in_room(
        &self,
        task: TaskId,
        shares: Option<&Shares>,
    ) -> Result<(v1::Task, Option<Reserved>), Status> {
        let room = match shares {
            Some(shares) => {
                let room = shares.response(Call::Lookup, None).await;
                Some(room.map_err(|_| status::no_room_for_response())?)
            }
            None => None,
        };
        Ok((self.read(task).await?, room))
    }

    /// Reads a task that was just changed: without what may be large if there is no room for
    /// it, as the call took effect and must not fail any more.
    async fn read_changed(
        &self,
        task: TaskId,
        shares: Option<&Shares>,
    ) -> Result<(v1::Task, Option<Reserved>), Status> {
        let Some(shares) = shares else { return Ok((self.read(task).await?, None)) };
        let room = shares.response(Call::Change, Some(Instant::now() + RESET_TIMEOUT)).await.ok();
        let mut task = self.read(task).await?;
        if room.is_none() {
            (task.payload, task.result) = (None, None);
        }
        Ok((task, room))
    }

    /// What had happened to a task that was there already.
    async fn past(&self, task: TaskId) -> Result<Past, Status> {
        match self.store.get(task).await {
            Ok(task) => Ok(Past {
                ended: task.lifecycle.state.is_terminal(),
                end: task.finished.map(convert::timestamp),
                ..Past::default()
            }),
            // It has ended, and is forgotten since.
            Err(store::Error::NotFound(_)) => Ok(Past { ended: true, ..Past::default() }),
            Err(error) => Err(status::store(&error)),
        }
    }
}

/// A response with the room that it has.
fn in_room<T>(message: T, room: Option<Reserved>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(room) = room {
        response.extensions_mut().insert(room);
    }
    response
}

#[expect(clippy::needless_pass_by_value, reason = "it is where the violations end")]
fn invalid(wrong: Vec<Violation>) -> Status {
    status::invalid(&wrong)
}

#[tonic::async_trait]
impl task_service_server::TaskService for Service {
    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let deadline = deadline_of(&request);
        crate::failpoint::hit("rpc");
        self.submitter.submit(request.into_inner(), deadline).await.map(Response::new)
    }

    async fn submit_batch(
        &self,
        request: Request<BoundedSubmitBatchRequest>,
    ) -> Result<Response<v1::SubmitBatchResponse>, Status> {
        let deadline = deadline_of(&request);
        self.submitter.submit_batch(request.into_inner(), deadline).await.map(Response::new)
    }

    type SubmitStreamStream = Acks;

    async fn submit_stream(
        &self,
        request: Request<tonic::Streaming<v1::SubmitStreamRequest>>,
    ) -> Result<Response<Acks>, Status> {
        let deadline = deadline_of(&request);
        let (submitter, shutdown) = (self.submitter.clone(), self.shutdown.clone());
        Ok(Response::new(Acks::begin(submitter, request.into_inner(), deadline, shutdown)))
    }

    type SubmitAndWatchStream = WatchStream;

    async fn submit_and_watch(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let (deadline, peer) = (deadline_of(&request), request.remote_addr());
        let ready = self.submitter.prepare(request.into_inner(), deadline).await?;
        // Not before: whoever waits for room watches nothing yet. A watcher too many
        // enqueues nothing.
        let guard = self.watchers.register(peer)?;
        // Open before the task is committed, so that its events arrive by themselves.
        let live = self.watchers.tail(None);
        let task = within(deadline, self.submitter.commit(ready)).await?;
        let ack = self.submitter.ack(task);
        Ok(watch(if task.existing {
            let past = within(deadline, self.past(task.task)).await?;
            self.watchers.follow_existing(&task, ack, past, deadline, guard)
        } else {
            self.watchers.follow_new(&task, ack, live, deadline, guard)
        }))
    }

    type WatchEventsStream = WatchStream;

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<WatchStream>, Status> {
        let deadline = deadline_of(&request);
        let peer = request.remote_addr();
        let watch = convert::watch(request.into_inner()).map_err(invalid)?;
        Ok(self::watch(self.watchers.watch(watch, peer, deadline)?))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        let deadline = deadline_of(&request);
        let id = convert::task_id(&request.get_ref().task_id).map_err(invalid)?;
        let task = within(deadline, self.read(id)).await?;
        Ok(Response::new(v1::GetTaskResponse { task: Some(task) }))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        let (deadline, asker) = (deadline_of(&request), Asker(request.remote_addr()));
        let listing = convert::listing(request.into_inner()).map_err(invalid)?;
        let convert::Listing { query, pages } = listing;
        let query = Query { asker, ..query };
        let list = async { self.store.list(query).await.map_err(|error| status::store(&error)) };
        let page = within(deadline, list).await?;
        Ok(Response::new(convert::page(page, pages)))
    }

    async fn wait_task(
        &self,
        request: Request<v1::WaitTaskRequest>,
    ) -> Result<Response<v1::WaitTaskResponse>, Status> {
        let deadline = deadline_of(&request);
        let shares = request.extensions().get::<Shares>().cloned();
        let request = request.into_inner();
        let id = convert::task_id(&request.task_id).map_err(invalid)?;
        let timeout = convert::wait_timeout(request.timeout).map_err(invalid)?;
        // Register first, then look: an end in between is not missed.
        let completion = self.watchers.hub().completion(id).map_err(status::too_many_waiters)?;
        let ended = completion.ended();
        let wait = async {
            let read = self.read_in_room(id, shares.as_ref()).await?;
            // Without the room of what it has read: it may wait for long.
            if is_terminal(&read.0) {
                return Ok(read);
            }
            drop(read);
            tokio::select! {
                () = ended => {}
                () = tokio::time::sleep(timeout.unwrap_or(DEFAULT_WAIT)) => {}
                () = self.shutdown.closing.cancelled() => {
                    let read = self.read_in_room(id, shares.as_ref()).await?;
                    return if is_terminal(&read.0) { Ok(read) } else { Err(self.shutdown.status()) };
                }
                // It will not end any more, as far as this server can tell.
                failed = self.store_failed() => {
                    let read = self.read_in_room(id, shares.as_ref()).await?;
                    return if is_terminal(&read.0) { Ok(read) } else { Err(failed) };
                }
            }
            self.read_in_room(id, shares.as_ref()).await
        };
        let (task, room) = within(deadline, wait).await?;
        Ok(in_room(v1::WaitTaskResponse { task: Some(task) }, room))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let deadline = deadline_of(&request);
        let shares = request.extensions().get::<Shares>();
        let id = convert::task_id(&request.get_ref().task_id).map_err(invalid)?;
        let cancel = async {
            let outcomes = self.store.cancel(vec![id], Vec::new()).await;
            all_done(outcomes).map_err(|error| status::store(&error))?;
            self.read_changed(id, shares).await
        };
        let (task, room) = within(deadline, cancel).await?;
        Ok(in_room(v1::CancelTaskResponse { task: Some(task) }, room))
    }

    async fn cancel_tasks(
        &self,
        request: Request<v1::CancelTasksRequest>,
    ) -> Result<Response<v1::CancelTasksResponse>, Status> {
        let (deadline, asker) = (deadline_of(&request), Asker(request.remote_addr()));
        let mut step = convert::cancellation(request.into_inner()).map_err(invalid)?;
        step.query.asker = asker;
        within(deadline, bulk::cancel(&self.store, step)).await.map(Response::new)
    }

    async fn redrive_task(
        &self,
        request: Request<v1::RedriveTaskRequest>,
    ) -> Result<Response<v1::RedriveTaskResponse>, Status> {
        let deadline = deadline_of(&request);
        let shares = request.extensions().get::<Shares>();
        let id = convert::task_id(&request.get_ref().task_id).map_err(invalid)?;
        let redrive = async {
            let outcomes = self.store.redrive(vec![id], Vec::new()).await;
            all_done(outcomes).map_err(|error| status::redrive(&error))?;
            self.read_changed(id, shares).await
        };
        let (task, room) = within(deadline, redrive).await?;
        Ok(in_room(v1::RedriveTaskResponse { task: Some(task) }, room))
    }

    async fn redrive_tasks(
        &self,
        request: Request<v1::RedriveTasksRequest>,
    ) -> Result<Response<v1::RedriveTasksResponse>, Status> {
        let (deadline, asker) = (deadline_of(&request), Asker(request.remote_addr()));
        let mut step = convert::redrive(request.into_inner()).map_err(invalid)?;
        step.query.asker = asker;
        within(deadline, bulk::redrive(&self.store, step)).await.map(Response::new)
    }

    async fn list_kinds(
        &self,
        _request: Request<v1::ListKindsRequest>,
    ) -> Result<Response<v1::ListKindsResponse>, Status> {
        let kinds = self.submitter.kinds().map(|kind| v1::Kind { kind: kind.to_owned() }).collect();
        Ok(Response::new(v1::ListKindsResponse { kinds }))
    }
}

/// A watch, which is told that it is not read, and is then cut.
fn watch(stream: WatchStream) -> Response<WatchStream> {
    let mut response = Response::new(stream);
    response.extensions_mut().insert(EndsByItself);
    response
}

/// What keeps a command from having been done to all of its tasks.
fn all_done(
    outcomes: Result<Vec<Result<(), store::Error>>, store::Error>,
) -> Result<(), store::Error> {
    outcomes?.into_iter().collect()
}

fn is_terminal(task: &v1::Task) -> bool {
    matches!(
        task.state(),
        v1::TaskState::Succeeded | v1::TaskState::Failed | v1::TaskState::Cancelled
    )
}
