//! `AdminService`: convert, call, convert.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    Watchers, convert,
    deadline::{deadline_of, within},
    status,
    stubs::v1::admin_service_server,
};
use crate::{
    admission::{Admission, Refused},
    drain::Switch,
    handler::Violation,
    pool::WorkerPool,
    proto::v1,
    store::{self, Overview, QueueChange, Store},
};

/// The service for operators.
#[derive(Clone)]
pub struct Admin {
    store: Arc<Store>,
    admission: Arc<Admission>,
    pool: WorkerPool,
    watchers: Watchers,
    drain: Switch,
}

impl Admin {
    /// A service over a store and the pool that works for it.
    #[must_use]
    pub fn new(
        store: Arc<Store>,
        admission: Arc<Admission>,
        pool: WorkerPool,
        watchers: Watchers,
        drain: Switch,
    ) -> Self {
        Self { store, admission, pool, watchers, drain }
    }

    async fn overview(&self, queue: Option<Arc<str>>) -> Result<Overview, Status> {
        self.store.overview(queue).await.map_err(|error| status::store(&error))
    }

    /// Changes a queue, and reads how it stands then. Whether there may be such a
    /// queue is for the store to say: it goes on with one that is not configured any
    /// more, and that one must still be resumed.
    async fn change(&self, queue: Arc<str>, change: QueueChange) -> Result<v1::Queue, Status> {
        let changed = self.store.change_queue(Arc::clone(&queue), change).await;
        changed.map_err(|error| self.not_changed(&error))?;
        let overview = self.overview(Some(Arc::clone(&queue))).await?;
        // One that is as configured, and has no tasks, is none that is listed.
        let queue_config = self.admission.queue_config();
        let none = || convert::empty_queue(&queue, queue_config);
        Ok(overview.queues.first().map_or_else(none, |status| convert::queue(status, queue_config)))
    }

    /// Sets settings, if what comes of it is allowed.
    async fn update(&self, update: convert::Update) -> Result<v1::Queue, Status> {
        let convert::Update { queue, fields, values } = update;
        self.change(queue, QueueChange::Settings(fields, Box::new(values))).await
    }

    fn not_changed(&self, error: &store::Error) -> Status {
        match error {
            store::Error::NoRoom { queue, cause: Refused::UnknownQueue } => {
                let wrong = convert::unknown_queue(queue, &self.admission);
                status::invalid(&[Violation::new("queue", wrong)])
            }
            error => status::store(error),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is where the violations end")]
fn invalid(wrong: Vec<Violation>) -> Status {
    status::invalid(&wrong)
}

#[tonic::async_trait]
impl admin_service_server::AdminService for Admin {
    async fn get_pool(
        &self,
        _request: Request<v1::GetPoolRequest>,
    ) -> Result<Response<v1::GetPoolResponse>, Status> {
        let pool = convert::pool(&self.pool.status());
        let drain_time_left = self.drain.time_left().map(convert::duration);
        Ok(Response::new(v1::GetPoolResponse { pool: Some(pool), drain_time_left }))
    }

    async fn resize_pool(
        &self,
        request: Request<v1::ResizePoolRequest>,
    ) -> Result<Response<v1::ResizePoolResponse>, Status> {
        let deadline = deadline_of(&request);
        let size = convert::pool_size(request.get_ref().size).map_err(invalid)?;
        let pool = self.pool.clone();
        // To its end, whether the caller stays or not: workers who were chosen to
        // leave must be told so. It ends with the last answer of the store.
        let resize = tokio::spawn(async move { pool.resize(size).await });
        let resized = async {
            let resized = resize.await.map_err(|ended| status::panicked(&ended.to_string()))?;
            resized.map_err(|error| status::store(&error))
        };
        within(deadline, resized).await?;
        let pool = convert::pool(&self.pool.status());
        Ok(Response::new(v1::ResizePoolResponse { pool: Some(pool) }))
    }

    async fn list_queues(
        &self,
        request: Request<v1::ListQueuesRequest>,
    ) -> Result<Response<v1::ListQueuesResponse>, Status> {
        let deadline = deadline_of(&request);
        let listing = convert::queue_listing(request.get_ref()).map_err(invalid)?;
        let overview = within(deadline, self.overview(listing.queue.clone())).await?;
        Ok(Response::new(convert::queue_page(
            overview.queues,
            &listing,
            self.admission.queue_config(),
        )))
    }

    async fn update_queue(
        &self,
        request: Request<v1::UpdateQueueRequest>,
    ) -> Result<Response<v1::UpdateQueueResponse>, Status> {
        let deadline = deadline_of(&request);
        let update = convert::update(request.into_inner()).map_err(invalid)?;
        let queue = within(deadline, self.update(update)).await?;
        Ok(Response::new(v1::UpdateQueueResponse { queue: Some(queue) }))
    }

    async fn pause_queue(
        &self,
        request: Request<v1::PauseQueueRequest>,
    ) -> Result<Response<v1::PauseQueueResponse>, Status> {
        let deadline = deadline_of(&request);
        let queue = convert::queue_name(&request.get_ref().queue).map_err(invalid)?;
        let queue = within(deadline, self.change(queue, QueueChange::Pause)).await?;
        Ok(Response::new(v1::PauseQueueResponse { queue: Some(queue) }))
    }

    async fn resume_queue(
        &self,
        request: Request<v1::ResumeQueueRequest>,
    ) -> Result<Response<v1::ResumeQueueResponse>, Status> {
        let deadline = deadline_of(&request);
        let queue = convert::queue_name(&request.get_ref().queue).map_err(invalid)?;
        let queue = within(deadline, self.change(queue, QueueChange::Resume)).await?;
        Ok(Response::new(v1::ResumeQueueResponse { queue: Some(queue) }))
    }

    async fn list_watchers(
        &self,
        _request: Request<v1::ListWatchersRequest>,
    ) -> Result<Response<v1::ListWatchersResponse>, Status> {
        Ok(Response::new(self.watchers.list()))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let deadline = deadline_of(&request);
        let drain = async {
            let drained = self.drain.drain().await;
            drained.map_err(|failure| status::server_failed(&failure.to_string(), ""))
        };
        let report = within(deadline, drain).await?;
        Ok(Response::new(convert::drained(report)))
    }

    async fn get_stats(
        &self,
        request: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        let deadline = deadline_of(&request);
        let target = convert::target_wait(request.get_ref().target_wait).map_err(invalid)?;
        let overview = within(deadline, self.overview(None)).await?;
        let pool = self.pool.status();
        // The forecast computes for a while when there are very many queues.
        let stats = tokio::task::spawn_blocking(move || convert::stats(overview, &pool, target));
        match stats.await {
            Ok(stats) => Ok(Response::new(stats)),
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        }
    }
}
