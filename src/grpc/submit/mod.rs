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
    admission::{Admission, Permit, Refused, WaitLimit, WhenFull},
    events::{BoxFuture, Hub},
    handler::Registry,
    proto::v1,
    store::{self, Store, Submission, Submitted},
};

pub use stream::Acks;

/// What all submitting calls work with.
#[derive(Clone)]
pub struct Submitter {
    store: Arc<Store>,
    admission: Arc<Admission>,
    registry: Arc<Registry>,
    hub: Hub,
    rules: Rules,
}

impl Submitter {
    /// A submitter to a store.
    pub fn new(
        store: Arc<Store>,
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
    pub fn submit(
        &self,
        request: v1::SubmitRequest,
        deadline: Option<Instant>,
    ) -> impl Future<Output = Result<v1::SubmitResponse, Status>> + Send {
        // Not within the future, which would carry the request to its end.
        let at_once = self.prepare_at_once(request, deadline);
        async move {
            let ready = match at_once? {
                Ok(ready) => ready,
                Err(refused) => self.prepare_later(refused, deadline).await?,
            };
            let submitted = within(deadline, self.commit(ready)).await?;
            Ok(self.ack(submitted))
        }
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
        match self.prepare_at_once(request, deadline)? {
            Ok(ready) => Ok(ready),
            Err(refused) => self.prepare_later(refused, deadline).await,
        }
    }

    /// Checks one task, and gets a permit for it if there is one now.
    fn prepare_at_once(
        &self,
        request: v1::SubmitRequest,
        deadline: Option<Instant>,
    ) -> Result<Result<Committable, Box<RefusedAtFirst>>, Status> {
        let checked = self.validator().check(request);
        let (submission, when_full) = checked.map_err(|error| status::unchecked(&error))?;
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(status::refused(&submission.task.queue, Refused::Deadline));
        }
        Ok(match self.admit_now(&submission, when_full) {
            Ok(permit) => Ok(Committable::New(submission, permit)),
            Err(refused) => Err(Box::new(RefusedAtFirst { submission, when_full, refused })),
        })
    }

    /// Gets a permit for a task that was refused it at first. In a box, as few go this way.
    fn prepare_later(
        &self,
        refused: Box<RefusedAtFirst>,
        deadline: Option<Instant>,
    ) -> BoxFuture<'_, Result<Committable, Status>> {
        Box::pin(async move {
            let RefusedAtFirst { submission, when_full, refused } = *refused;
            let wait_limit = self.admission.wait_limit(deadline);
            Ok(match self.admit_later(&submission, when_full, wait_limit, refused).await? {
                LateAdmission::Admitted(permit) => Committable::New(submission, permit),
                LateAdmission::Known(submitted) => Committable::Known(submitted),
            })
        })
    }

    /// Commits what is ready.
    ///
    /// # Errors
    /// Those of the store.
    pub fn commit(
        &self,
        ready: Committable,
    ) -> impl Future<Output = Result<Submitted, Status>> + Send + use<'_> {
        let committed = match ready {
            Committable::New(submission, permit) => Err(self.store.submit(submission, permit)),
            Committable::Known(submitted) => Ok(submitted),
        };
        async move {
            match committed {
                Ok(submitted) => Ok(submitted),
                Err(submitted) => submitted.await.map_err(|error| status::store(&error)),
            }
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
    fn admit_now(&self, submission: &Submission, when_full: WhenFull) -> Result<Permit, Refused> {
        let (queue, bytes) = (&submission.task.queue, store::weight(&submission.task));
        let mut permits = self.admission.try_admit_together(queue, 1, bytes, when_full)?;
        permits.take(bytes).ok_or(Refused::UnknownQueue)
    }

    /// A permit for a task that waits if it must and goes with these, if the first of them was
    /// let in from the line of its queue.
    fn admit_behind<'a>(
        &self,
        mut with: impl Iterator<Item = &'a Permit>,
        submission: &Submission,
        when_full: WhenFull,
    ) -> Option<Permit> {
        let first = with.next().filter(|_| when_full == WhenFull::Wait)?;
        let (queue, bytes) = (&submission.task.queue, store::weight(&submission.task));
        self.admission.try_admit_behind(first, queue, bytes)
    }

    /// What is left to try for a task that was refused a permit. One that is there
    /// already, under its `request_id`, needs none, however full the queue is;
    /// another may wait in line, if it wants to.
    fn admit_later(
        &self,
        submission: &Submission,
        when_full: WhenFull,
        wait_limit: WaitLimit,
        refused: Refused,
    ) -> impl Future<Output = Result<LateAdmission, Status>> + Send + use<> {
        let (store, admission) = (Arc::clone(&self.store), Arc::clone(&self.admission));
        let (queue, bytes) = (Arc::clone(&submission.task.queue), store::weight(&submission.task));
        let request_id = submission.task.request_id.clone().filter(|_| may_be_known(refused));
        let fingerprint = submission.fingerprint;
        async move {
            if let Some(request_id) = request_id {
                let repeated = store.repeated(request_id, fingerprint);
                // Its wait limit counts from now on, not only once it stands in line.
                let Some(repeated) = wait_limit.bound(repeated).await else {
                    return Err(status::refused(&queue, wait_limit.over(refused)));
                };
                if let Some(submitted) = repeated.map_err(|error| status::store(&error))? {
                    return Ok(LateAdmission::Known(submitted));
                }
            }
            if !may_wait(when_full, refused) {
                return Err(status::refused(&queue, refused));
            }
            let permit = admission.admit(&queue, bytes, when_full, wait_limit).await;
            permit.map(LateAdmission::Admitted).map_err(|refused| status::refused(&queue, refused))
        }
    }
}

/// A task that was checked, and was refused a permit.
struct RefusedAtFirst {
    submission: Submission,
    when_full: WhenFull,
    refused: Refused,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        admission::Limits,
        config::{Durability, Retention},
        queue::QueueConfig,
        store::{Settings, WallClock},
    };

    /// Each call has its future on the heap, moved there once: what is not on the common way
    /// must not make all of them large. glibc has no quick way for more than 1,032 bytes.
    #[tokio::test]
    async fn the_future_of_a_submission_is_small() {
        let limits = Limits {
            queue_config: QueueConfig::default(),
            queues: 1,
            room_timeout: Duration::from_secs(1),
        };
        let admission = Arc::new(Admission::new(limits));
        let settings = Settings {
            data_dir: "unused".into(),
            durability: Durability::Memory,
            max_crashes: 1,
            disk_reserve: 0,
            max_log: 512 << 20,
            accept_loss: false,
            retention: Retention::default(),
            clock: WallClock::default(),
        };
        let opened = store::open(&settings, Arc::clone(&admission)).await.expect("it opens");
        let (store, hub, _) = opened;
        let rules = Rules { max_payload: 1 };
        let submitter = Submitter::new(store, admission, Arc::default(), hub, rules);
        let request = v1::SubmitRequest::default;
        let sizes = [
            ("prepare", size_of_val(&submitter.prepare(request(), None))),
            ("submit", size_of_val(&submitter.submit(request(), None))),
        ];
        assert!(sizes.iter().all(|(_, bytes)| *bytes <= 832), "{sizes:?}");
    }
}
