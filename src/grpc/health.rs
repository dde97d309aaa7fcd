//! `grpc.health.v1`: whether the server takes requests.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{status, stubs::health::health_server};
use crate::{
    proto::health::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
        health_check_response::ServingStatus,
    },
    supervisor::Failure,
};

/// The services that have a health; `""` is the server as a whole.
const SERVICES: [&str; 3] = ["", "taskyard.v1.TaskService", "taskyard.v1.AdminService"];

/// Where the server stands in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    NotServing,
    /// Open health watches end now: by the drain, or by this failure.
    Over(Option<Failure>),
}

/// The health of the server: the service, and the handle that changes it.
#[derive(Clone, Debug)]
pub struct Health {
    phase: Arc<watch::Sender<Phase>>,
}

impl Health {
    /// Healthy.
    #[must_use]
    pub fn serving() -> Self {
        Self { phase: Arc::new(watch::Sender::new(Phase::Serving)) }
    }

    /// From now on requests are refused.
    pub fn stop_serving(&self) {
        self.phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::NotServing;
            }
            serving
        });
    }

    /// Ends the streams of those who watch the health, because of the drain or of a
    /// failure.
    pub fn end_watches(&self, failure: Option<Failure>) {
        self.phase.send_replace(Phase::Over(failure));
    }

    fn status(&self) -> ServingStatus {
        status_in(&self.phase.borrow())
    }
}

fn status_in(phase: &Phase) -> ServingStatus {
    match phase {
        Phase::Serving => ServingStatus::Serving,
        Phase::NotServing | Phase::Over(_) => ServingStatus::NotServing,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(status::unknown_service(&service));
        }
        Ok(Response::new(response(self.status())))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let status = self.status();
        let statuses: BTreeMap<_, _> =
            SERVICES.iter().map(|service| ((*service).to_owned(), response(status))).collect();
        Ok(Response::new(HealthListResponse { statuses: statuses.into_iter().collect() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.into_inner().service.as_str());
        let follow = Follow { phases: self.phase.subscribe(), known, last: None, over: false };
        Ok(Response::new(Box::pin(stream::unfold(follow, Follow::step))))
    }
}

/// One watch of the health.
struct Follow {
    phases: watch::Receiver<Phase>,
    known: bool,
    /// The status sent last; a change of phase need not change it.
    last: Option<ServingStatus>,
    /// The stream has said why it ends.
    over: bool,
}

impl Follow {
    async fn step(mut self) -> Option<(Result<HealthCheckResponse, Status>, Self)> {
        loop {
            let phase = self.phases.borrow_and_update().clone();
            let now = if self.known { status_in(&phase) } else { ServingStatus::ServiceUnknown };
            if self.last != Some(now) {
                self.last = Some(now);
                return Some((Ok(response(now)), self));
            }
            if self.over {
                return None;
            }
            if let Phase::Over(failure) = phase {
                self.over = true;
                let status = match failure {
                    Some(failure) => status::server_failed(&failure.to_string(), ""),
                    None => status::draining(),
                };
                return Some((Err(status), self));
            }
            self.phases.changed().await.ok()?;
        }
    }
}
