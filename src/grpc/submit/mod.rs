//! Tasks that are handed in: one, a batch, or a stream of them.
//!
//! Owns the way from a request to its acknowledgement: check, get a permit,
//! commit. One rule holds for all three: nobody waits for room, in whichever
//! queue, while it holds permits of tasks that are not committed. Those tasks cannot
//! start, so the room might never come; and others could use their permits.

mod batch;
mod stream;

use std::sync::Arc;

use tokio::time::Instant;
use tonic::Status;

use super::{
    convert::{self, Rules, SubmissionValidator},
    deadline::within,
    status,
};
use crate::{
    admission::{Admission, Patience, Permit, Refused, WhenFull},
    events::Hub,
    handler::Registry,
    proto::v1,
    store::{self, Store, Submission, Submitted},
};

pub use stream::Acks;

/// What all submitting calls work with.
#[derive(Clone)]
pub struct Submitter {
    store: Arc<dyn Store>,
    admission: Arc<Admission>,
    registry: Arc<Registry>,
    hub: Hub,
    rules: Rules,
}

impl Submitter {
    /// A submitter to a store.
    pub fn new(
        store: Arc<dyn Store>,
        admission: Arc<Admission>,
        registry: Arc<Registry>,
        hub: Hub,
        rules: Rules,
    ) -> Self {
        Self { store, admission, registry, hub, rules }
    }

    /// The kinds of task that are taken, in alphabetical order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.registry.kinds()
    }

    /// Takes one task.
    ///
    /// # Errors
    /// Why it was not taken.
    pub async fn submit(
        &self,
        request: v1::SubmitRequest,
        deadline: Option<Instant>,
    ) -> Result<v1::SubmitResponse, Status> {
        let ready = self.prepare(request, deadline).await?;
        let submitted = within(deadline, self.commit(ready)).await?;
        Ok(self.ack(submitted))
    }

    /// Checks one task, and gets a permit for it.
    ///
    /// # Errors
    /// Why it may not be taken.
    pub async fn prepare(
        &self,
        request: v1::SubmitRequest,
        deadline: Option<Instant>,
    ) -> Result<Committable, Status> {
        let checked = self.validator().check(request);
        let (submission, when_full) = checked.map_err(|wrong| status::invalid(&wrong))?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(status::refused(&submission.task.queue, Refused::Deadline));
        }
        let refused = match self.admit_now(&submission) {
            Ok(permit) => return Ok(Committable::New(submission, permit)),
            Err(refused) => refused,
        };
        let patience = self.admission.patience(deadline);
        Ok(match self.admit_later(&submission, when_full, patience, refused).await? {
            LateAdmission::Admitted(permit) => Committable::New(submission, permit),
            LateAdmission::Known(submitted) => Committable::Known(submitted),
        })
    }

    /// Commits what is ready.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn commit(&self, ready: Committable) -> Result<Submitted, Status> {
        match ready {
            Committable::New(submission, permit) => {
                self.store.submit(submission, permit).await.map_err(|error| status::store(&error))
            }
            Committable::Known(submitted) => Ok(submitted),
        }
    }

    /// What the submitter of a task is told.
    pub fn ack(&self, submitted: Submitted) -> v1::SubmitResponse {
        v1::SubmitResponse {
            task_id: submitted.task.to_string(),
            cursor: self.hub.cursor(submitted.seq.previous()).to_string(),
            state: convert::state_to(submitted.state).into(),
            existing: submitted.existing,
        }
    }

    fn validator(&self) -> SubmissionValidator<'_> {
        SubmissionValidator::new(self.rules, &self.registry, &self.admission)
    }

    /// A permit for a task, if there is one at once.
    fn admit_now(&self, submission: &Submission) -> Result<Permit, Refused> {
        self.admission.try_admit(&submission.task.queue, store::weight(&submission.task))
    }

    /// What is left to try for a task that was refused a permit. One that is there
    /// already, under its `request_id`, needs none, however full the queue is;
    /// another may wait in line, if it wants to.
    fn admit_later(
        &self,
        submission: &Submission,
        when_full: WhenFull,
        patience: Patience,
        refused: Refused,
    ) -> impl Future<Output = Result<LateAdmission, Status>> + Send + use<> {
        let (store, admission) = (Arc::clone(&self.store), Arc::clone(&self.admission));
        let (queue, bytes) = (Arc::clone(&submission.task.queue), store::weight(&submission.task));
        let request_id = submission.task.request_id.clone().filter(|_| may_be_known(refused));
        let fingerprint = submission.fingerprint;
        async move {
            if let Some(request_id) = request_id {
                let repeated = store.repeated(request_id, fingerprint);
                // Its patience counts from now on, not only once it stands in line.
                let Some(repeated) = patience.bound(repeated).await else {
                    return Err(status::refused(&queue, patience.over(refused)));
                };
                if let Some(submitted) = repeated.map_err(|error| status::store(&error))? {
                    return Ok(LateAdmission::Known(submitted));
                }
            }
            if !may_wait(when_full, refused) {
                return Err(status::refused(&queue, refused));
            }
            let permit = admission.admit(&queue, bytes, when_full, patience).await;
            permit.map(LateAdmission::Admitted).map_err(|refused| status::refused(&queue, refused))
        }
    }
}

/// A task that can be committed.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are new: a box would be one allocation more for each task"
)]
pub enum Committable {
    /// It has its permit.
    New(Submission, Permit),
    /// It was committed long ago.
    Known(Submitted),
}

/// What a submission got that was refused at first.
enum LateAdmission {
    /// A permit.
    Admitted(Permit),
    /// No permit: it was committed long ago.
    Known(Submitted),
}

/// Whether a task that was refused may be there already.
fn may_be_known(refused: Refused) -> bool {
    match refused {
        Refused::Full { .. }
        | Refused::TooManyQueues(_)
        | Refused::Held { .. }
        | Refused::LargerThanQueue { .. }
        | Refused::MoreThanQueue { .. } => true,
        Refused::Deadline
        | Refused::UnknownQueue
        | Refused::Draining
        | Refused::ServerFailed
        | Refused::StoreFailed => false,
    }
}

/// Whether a task that was refused may get its permit later.
fn may_wait(when_full: WhenFull, refused: Refused) -> bool {
    when_full == WhenFull::Wait && matches!(refused, Refused::Full { .. })
}

/// Whether nobody gets in any more.
fn is_final(refused: Refused) -> bool {
    matches!(refused, Refused::Draining | Refused::ServerFailed | Refused::StoreFailed)
}
