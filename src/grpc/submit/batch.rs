//! Many tasks in one call: each for itself, or all or none.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;
use tonic::{Code, Status};

use super::{LateAdmission, Submitter, may_be_known, may_wait};
use crate::{
    admission::{Permit, Permits, Refused, WaitLimit, WhenFull},
    grpc::{BoundedSubmitBatchRequest, convert, deadline::within, status},
    handler::{CheckError, Violation},
    proto::v1::{self, submit_result::Result as Outcome},
    store::{self, Submission, Submitted},
};

impl Submitter {
    /// Takes a batch.
    ///
    /// # Errors
    /// Why nothing of it was taken, or is known to be.
    pub async fn submit_batch(
        &self,
        batch: BoundedSubmitBatchRequest,
        deadline: Option<Instant>,
    ) -> Result<v1::SubmitBatchResponse, Status> {
        convert::batch(&batch).map_err(|wrong| status::invalid(&wrong))?;
        // One wait limit for all of them, however many have to wait.
        let wait_limit = self.admission.wait_limit(deadline);
        let outcomes = if batch.atomic {
            let submitted = self.all_or_none(batch.requests, wait_limit, deadline).await?;
            submitted.into_iter().map(|submitted| Outcome::Ack(self.ack(submitted))).collect()
        } else {
            self.each(batch.requests, wait_limit, deadline).await?
        };
        let result = |outcome| v1::SubmitResult { result: Some(outcome) };
        Ok(v1::SubmitBatchResponse { results: outcomes.into_iter().map(result).collect() })
    }

    /// Takes each task for itself, in order.
    async fn each(
        &self,
        requests: Vec<v1::SubmitRequest>,
        wait_limit: WaitLimit,
        deadline: Option<Instant>,
    ) -> Result<Vec<Outcome>, Status> {
        let mut results = Results { of: requests.iter().map(|_| None).collect() };
        let mut chunk = Vec::new();
        let mut validator = self.validator();
        // All of them first: a check may take long, and others wait for whoever has a permit.
        let checked: Vec<_> = requests.into_iter().map(|task| validator.check(task)).collect();
        for (at, checked) in checked.into_iter().enumerate() {
            let (submission, when_full) = match checked {
                Ok(checked) => checked,
                Err(error) => {
                    results.set(at, Err(status::unchecked(&error)));
                    continue;
                }
            };
            let permits = chunk.iter().map(|(_, _, permit)| permit);
            if let Some(permit) = self.admit_behind(permits, &submission, when_full) {
                chunk.push((at, submission, permit));
                continue;
            }
            let refused = match self.admit_now(&submission, when_full) {
                Ok(permit) => {
                    chunk.push((at, submission, permit));
                    continue;
                }
                Err(refused) => refused,
            };
            // What is not committed makes no room.
            within(deadline, self.commit_chunk(std::mem::take(&mut chunk), &mut results)).await?;
            match self.admit_later(&submission, when_full, wait_limit, refused).await {
                Ok(LateAdmission::Admitted(permit)) => chunk.push((at, submission, permit)),
                Ok(LateAdmission::Known(submitted)) => results.set(at, Ok(self.ack(submitted))),
                // Nobody waits for what the others would get now.
                Err(late) if late.code() == Code::DeadlineExceeded => {
                    results.fill(&late);
                    break;
                }
                Err(refused) => results.set(at, Err(refused)),
            }
        }
        within(deadline, self.commit_chunk(chunk, &mut results)).await?;
        results.into_outcomes()
    }

    /// Commits tasks, and notes what became of each.
    async fn commit_chunk(
        &self,
        chunk: Vec<(usize, Submission, Permit)>,
        results: &mut Results,
    ) -> Result<(), Status> {
        if chunk.is_empty() {
            return Ok(());
        }
        let (numbers, tasks): (Vec<usize>, Vec<_>) =
            chunk.into_iter().map(|(at, submission, permit)| (at, (submission, permit))).unzip();
        match self.store.submit_all(tasks).await {
            Ok(outcomes) => {
                for (at, outcome) in numbers.into_iter().zip(outcomes) {
                    let ack = outcome.map(|submitted| self.ack(submitted));
                    results.set(at, ack.map_err(|error| status::store(&error)));
                }
            }
            Err(error) => {
                let status = status::store(&error);
                for at in numbers {
                    results.set(at, Err(status.clone()));
                }
            }
        }
        Ok(())
    }

    /// Takes all tasks, or none.
    async fn all_or_none(
        &self,
        requests: Vec<v1::SubmitRequest>,
        wait_limit: WaitLimit,
        deadline: Option<Instant>,
    ) -> Result<Vec<Submitted>, Status> {
        let (tasks, when_full) = self.check_all(requests)?;
        let may_be_repeated = tasks.iter().all(|task| task.task.request_id.is_some());
        let at_first = if may_be_repeated { WhenFull::Reject } else { when_full };
        let permits = match self.permits(&tasks, at_first, wait_limit).await {
            Err((_, refused)) if may_be_repeated && may_be_known(refused) => {
                if let Some(known) = within(deadline, self.all_repeated(&tasks)).await? {
                    return Ok(known);
                }
                self.permits(&tasks, when_full, wait_limit).await
            }
            permits => permits,
        };
        let permits = permits.map_err(|(queue, refused)| status::refused(&queue, refused))?;
        let commit = self.store.submit_atomic(tasks.into_iter().zip(permits).collect());
        within(deadline, async { commit.await.map_err(|error| status::store(&error)) }).await
    }

    /// Checks all tasks. One that does not wait for room makes all not wait.
    fn check_all(
        &self,
        requests: Vec<v1::SubmitRequest>,
    ) -> Result<(Vec<Submission>, WhenFull), Status> {
        let mut wrong: Vec<Violation> = Vec::new();
        let mut unchecked = None;
        let (mut tasks, mut when_full) = (Vec::with_capacity(requests.len()), WhenFull::Wait);
        let mut validator = self.validator();
        for (at, request) in requests.into_iter().enumerate() {
            match validator.check(request) {
                Ok((task, WhenFull::Wait)) => tasks.push(task),
                Ok((task, WhenFull::Reject)) => {
                    when_full = WhenFull::Reject;
                    tasks.push(task);
                }
                Err(CheckError::Invalid(of_task)) => {
                    wrong.extend(convert::of_request(at, of_task));
                }
                Err(error) => unchecked = unchecked.or(Some((at, error))),
            }
            if wrong.len() >= status::MAX_VIOLATIONS {
                break;
            }
        }
        wrong.truncate(status::MAX_VIOLATIONS);
        match unchecked {
            _ if !wrong.is_empty() => Err(status::invalid(&wrong)),
            Some((at, error)) => Err(status::of_request(&status::unchecked(&error), at)),
            None => Ok((tasks, when_full)),
        }
    }

    /// A permit for each task, in order; or the queue that refused, and why.
    ///
    /// All permits are looked for at once. Where a queue is full, all that were found
    /// are given back, as their queues' other submitters can use them meanwhile; then
    /// this waits in that queue's line, and with what it gets there looks for the
    /// rest again. So it holds nothing while it waits, and two batches never wait for
    /// each other.
    async fn permits(
        &self,
        tasks: &[Submission],
        when_full: WhenFull,
        wait_limit: WaitLimit,
    ) -> Result<Vec<Permit>, (Arc<str>, Refused)> {
        let mut wanted: BTreeMap<&Arc<str>, (u64, u64)> = BTreeMap::new();
        for Submission { task, .. } in tasks {
            let (tasks, bytes) = wanted.entry(&task.queue).or_default();
            *tasks += 1;
            *bytes += store::weight(task);
        }
        let mut permits: BTreeMap<&Arc<str>, Permits> = BTreeMap::new();
        while let Err((queue, refused)) = self.rest_at_once(&wanted, &mut permits, when_full) {
            permits.clear();
            if !may_wait(when_full, refused) {
                return Err((Arc::clone(queue), refused));
            }
            let (tasks, bytes) = wanted.get(queue).copied().unwrap_or_default();
            let found = self.admission.admit_together(queue, tasks, bytes, when_full, wait_limit);
            permits.insert(queue, found.await.map_err(|refused| (Arc::clone(queue), refused))?);
        }
        let permit = |Submission { task, .. }: &Submission| {
            let permit = permits.get_mut(&task.queue).and_then(|of| of.take(store::weight(task)));
            // There is one: they were counted above.
            permit.ok_or_else(|| (Arc::clone(&task.queue), Refused::UnknownQueue))
        };
        tasks.iter().map(permit).collect()
    }

    /// Adds to `permits` those that are wanted of the other queues, without waiting;
    /// or tells the first queue that refused, and why.
    fn rest_at_once<'a>(
        &self,
        wanted: &BTreeMap<&'a Arc<str>, (u64, u64)>,
        permits: &mut BTreeMap<&'a Arc<str>, Permits>,
        when_full: WhenFull,
    ) -> Result<(), (&'a Arc<str>, Refused)> {
        for (queue, (tasks, bytes)) in wanted {
            if permits.contains_key(queue) {
                continue;
            }
            let found = self.admission.try_admit_together(queue, *tasks, *bytes, when_full);
            permits.insert(queue, found.map_err(|refused| (*queue, refused))?);
        }
        Ok(())
    }

    /// The outcomes of all tasks, if every one of them is there already.
    async fn all_repeated(&self, tasks: &[Submission]) -> Result<Option<Vec<Submitted>>, Status> {
        let mut known = Vec::with_capacity(tasks.len());
        for (at, Submission { task, fingerprint }) in tasks.iter().enumerate() {
            let Some(request_id) = task.request_id.clone() else { return Ok(None) };
            match self.store.repeated(request_id, *fingerprint).await {
                Ok(Some(submitted)) => known.push(submitted),
                Ok(None) => return Ok(None),
                Err(error) => return Err(status::of_request(&status::store(&error), at)),
            }
        }
        Ok(Some(known))
    }
}

/// What became of each request so far.
struct Results {
    of: Vec<Option<Result<v1::SubmitResponse, Status>>>,
}

impl Results {
    fn set(&mut self, at: usize, result: Result<v1::SubmitResponse, Status>) {
        if let Some(slot) = self.of.get_mut(at) {
            *slot = Some(result);
        }
    }

    /// Nothing more becomes of the others than this.
    fn fill(&mut self, status: &Status) {
        for slot in self.of.iter_mut().filter(|slot| slot.is_none()) {
            *slot = Some(Err(status.clone()));
        }
    }

    /// All of them; or, if nothing was taken because the server takes nothing, that.
    fn into_outcomes(self) -> Result<Vec<Outcome>, Status> {
        let some_acked = self.of.iter().flatten().any(Result::is_ok);
        let mut outcomes = Vec::with_capacity(self.of.len());
        for result in self.of {
            match result {
                Some(Ok(ack)) => outcomes.push(Outcome::Ack(ack)),
                Some(Err(status)) if status.code() == Code::Unavailable && !some_acked => {
                    return Err(status);
                }
                Some(Err(status)) => outcomes.push(Outcome::Error(status::to_message(&status))),
                // The store answers for every task; that it did not is no answer.
                None => {
                    let status = status::internal("the task has no outcome");
                    outcomes.push(Outcome::Error(status::to_message(&status)));
                }
            }
        }
        Ok(outcomes)
    }
}
