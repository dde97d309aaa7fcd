//! One worker: get a dispatch, execute, report with the call for the next one.

use std::{
    any::Any,
    future::Future,
    os::unix::process::ExitStatusExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use taskyard_proto::values::{self, Wrong};
use taskyard_text::units::show_duration;
use tokio::select;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, info_span, warn};

use super::{Settings, retry::backoff, threads::Lease, worker_state::WorkerState};
use crate::{
    handler::{Error, Execution, Output, Registry, Transcript, Written},
    store::{self, Assignment, Dispatch, Finished, Outcome, Store},
    supervisor::message_of,
    task::{Data, RetryPolicy, TaskBody, WorkerId},
    telemetry::Throttle,
};

/// Tasks of a kind may all panic.
static PANICKED: Throttle = Throttle::new("handlers panicked");

/// A worker of the pool.
pub struct Worker {
    pub id: WorkerId,
    pub state: Arc<WorkerState>,
    pub store: Arc<Store>,
    pub registry: Arc<Registry>,
    pub settings: Settings,
    pub drain_counts: Arc<DrainCounts>,
    /// The drain's grace period is over: handlers should stop.
    pub interrupt: CancellationToken,
    /// The drain's time is over: handlers are dropped.
    pub stop_handlers: CancellationToken,
    /// Its thread, or its share in some.
    pub lease: Lease,
}

/// Counts, for the report of a drain, how executions ended in it.
#[derive(Debug, Default)]
pub struct DrainCounts {
    draining: AtomicBool,
    finished: AtomicU64,
    interrupted: AtomicU64,
}

impl DrainCounts {
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn ended_in_drain(&self) -> (u64, u64) {
        (self.finished.load(Ordering::Relaxed), self.interrupted.load(Ordering::Relaxed))
    }

    pub fn count(&self, outcome: &Outcome) {
        if *outcome == Outcome::Interrupted {
            self.interrupted.fetch_add(1, Ordering::Relaxed);
        } else if self.draining.load(Ordering::Relaxed) {
            self.finished.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a handler's future yields, panics caught.
type Caught = Result<Result<Output, Error>, Box<dyn Any + Send>>;
type HandlerFuture = Pin<Box<dyn Future<Output = Caught> + Send>>;

/// Why a handler is told to stop before its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Cancelled,
    Draining,
    TimedOut,
}

impl Worker {
    /// Joins the pool, and works until the store says stop, or fails.
    pub async fn run(self) {
        match self.store.join(self.id).await {
            Ok(()) => self.work(None).await,
            // That is told once, by whoever supervises the part that failed.
            Err(store::Error::Crashed(_)) => {}
            Err(error) => warn!(worker = %self.id, %error, "a worker could not join the pool"),
        }
    }

    /// Goes on for one of this number whose handler blocks its thread, with the report of
    /// that execution.
    pub async fn succeed(self, finished: Finished) {
        self.work(Some(finished)).await;
    }

    /// Leaves the pool with the report of an execution whose handler blocks the last thread
    /// there is. To be run where callers are served: it needs none for handlers.
    pub async fn give_up(self, finished: Finished) {
        // So that it is given nothing else. A store that is draining gives nothing anyway.
        if let Err(error) = self.store.retire(vec![self.id]).await {
            debug!(worker = %self.id, %error, "the store gives it nothing more");
        }
        match self.store.next_dispatch(self.id, Some(finished)).await {
            Ok(_) => self.leave().await,
            Err(store::Error::Crashed(_)) => {}
            Err(error) => {
                warn!(worker = %self.id, %error, "a worker stops: its report has no taker");
            }
        }
    }

    async fn leave(&self) {
        if let Err(error) = self.store.leave(self.id).await {
            warn!(worker = %self.id, %error, "a worker's leaving could not be recorded");
        }
    }

    async fn work(self, mut finished: Option<Finished>) {
        let generation = self.state.generation();
        loop {
            let dispatch = self.store.next_dispatch(self.id, finished.take()).await;
            crate::failpoint::hit("worker");
            match dispatch {
                Ok(Dispatch::Run(assignment)) => match self.execute(assignment, generation).await {
                    Some(ended) => finished = Some(ended),
                    // It was judged, and somebody else goes on.
                    None => return,
                },
                Ok(Dispatch::Stop) => break,
                Err(store::Error::Crashed(_)) => return,
                Err(error) => {
                    return warn!(worker = %self.id, %error, "a worker stops: its report has no taker");
                }
            }
        }
        self.leave().await;
    }

    /// `None` if it took so long to return control that it was judged without it.
    async fn execute(&self, assignment: Assignment, generation: u64) -> Option<Finished> {
        let Assignment { task, attempt, ref kind, .. } = assignment;
        let span = info_span!("execution", %task, worker = %self.id, attempt, %kind);
        async {
            let began = Instant::now();
            // Handlers hear of a drain, too, by this signal.
            let signal = assignment.cancel.child_token();
            self.state.begin(&assignment, signal.clone(), began);
            let written = Written::default();
            let outcome = self.outcome_of(assignment, signal, written.clone()).await;
            let ran = began.elapsed();
            if !self.state.end(generation, ran) {
                warn!(
                    ?ran,
                    outcome = name_of(&outcome),
                    "a handler that blocked its thread returned"
                );
                return None;
            }
            self.drain_counts.count(&outcome);
            debug!(?ran, outcome = name_of(&outcome), "execution ended");
            let output = match outcome {
                Outcome::Succeeded(_) => None,
                _ => written.take().map(output_of),
            };
            Some(Finished { task, attempt, outcome, ran, output })
        }
        .instrument(span)
        .await
    }

    async fn outcome_of(
        &self,
        assignment: Assignment,
        signal: CancellationToken,
        written: Written,
    ) -> Outcome {
        let Assignment { task, kind, body, attempt, failures, retry, cancel, .. } = assignment;
        let TaskBody { payload, timeout, .. } = body;
        let execution = Execution {
            task,
            kind,
            attempt,
            worker: self.id,
            payload,
            cancel: signal.clone(),
            written,
        };
        let registry = Arc::clone(&self.registry);
        let handler = async move { registry.run(execution).await };
        let mut handler: HandlerFuture = Box::pin(AssertUnwindSafe(handler).catch_unwind());
        let ended = select! {
            biased;
            caught = &mut handler => Ok(caught),
            () = cancel.cancelled() => Err(Signal::Cancelled),
            () = self.interrupt.cancelled() => Err(Signal::Draining),
            () = tokio::time::sleep(timeout) => Err(Signal::TimedOut),
        };
        let fail = |error| failed(error, &retry, failures);
        match ended {
            Ok(caught) => {
                stop(handler);
                match self.judge(caught) {
                    Ok(success) => success,
                    // It obeyed before this worker had seen why.
                    Err(_) if signal.is_cancelled() => {
                        if cancel.is_cancelled() {
                            Outcome::Stopped
                        } else if self.interrupt.is_cancelled() {
                            Outcome::Interrupted
                        } else {
                            fail(timed_out(timeout))
                        }
                    }
                    Err(error) => fail(error),
                }
            }
            Err(why) => {
                signal.cancel();
                let caught = self.wait_after_signal(&mut handler, why).await;
                stop(handler);
                match caught.map(|caught| self.judge(caught)) {
                    // A success that came all the same wins.
                    Some(Ok(success)) => success,
                    _ => match why {
                        Signal::Cancelled => Outcome::Stopped,
                        Signal::Draining => Outcome::Interrupted,
                        Signal::TimedOut => fail(timed_out(timeout)),
                    },
                }
            }
        }
    }

    /// What the handler makes of the signal, if it obeys within the grace.
    async fn wait_after_signal(&self, handler: &mut HandlerFuture, why: Signal) -> Option<Caught> {
        // A drain has a clock of its own.
        let grace = match why {
            Signal::Cancelled | Signal::TimedOut => self.settings.cancel_grace,
            Signal::Draining => Duration::MAX,
        };
        select! {
            biased;
            caught = handler => Some(caught),
            () = self.stop_handlers.cancelled() => None,
            () = tokio::time::sleep(grace) => None,
        }
    }

    fn judge(&self, caught: Caught) -> Result<Outcome, Error> {
        let Output(result) = match caught {
            Ok(returned) => returned?,
            Err(panic) => {
                let message = message_of(&*panic);
                PANICKED.line(|left_out| warn!(%message, left_out, "the handler panicked"));
                return Err(Error::retryable("PANIC", message));
            }
        };
        let (size, limit) = (result.len(), self.settings.max_result);
        if size > limit {
            let message = format!("the result has {size} bytes; at most {limit} are kept");
            return Err(Error::permanent("OUTPUT_TOO_LARGE", message));
        }
        check_json(&result)?;
        Ok(Outcome::Succeeded(result))
    }
}

/// A JSON result must be JSON, and such as clients can read without a change.
fn check_json(result: &Data) -> Result<(), Error> {
    let Data::Json(text) = result else { return Ok(()) };
    let invalid = |message: String| Error::permanent("INVALID_OUTPUT", message);
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map_err(|wrong| invalid(format!("the result is not JSON: {wrong}")))?;
    values::scan(text, values::MAX_DEPTH)
        .map_err(|Wrong { path, why }| invalid(format!("result{path}: {why}")))
}

/// An attempt has failed with this error, after so many others.
pub fn failed(error: Error, retry: &RetryPolicy, failures: u32) -> Outcome {
    Outcome::Failed {
        retry_after: backoff(retry, failures + 1),
        permanent: error.permanent,
        failure: error.failure,
    }
}

/// What a process wrote, as the store keeps it.
fn output_of(transcript: Transcript) -> store::Output {
    let stream = |(bytes, dropped)| store::OutputStream { bytes, dropped };
    let exit = transcript.status.and_then(|status| {
        let signal = || status.signal().map(store::Exit::Signal);
        status.code().map(store::Exit::Code).or_else(signal)
    });
    store::Output { stdout: stream(transcript.stdout), stderr: stream(transcript.stderr), exit }
}

/// An attempt has taken longer than it may.
pub fn timed_out(timeout: Duration) -> Error {
    Error::retryable("TIMEOUT", format!("it ran longer than {}", show_duration(timeout)))
}

/// Drops a handler's future, whatever its destructors do.
fn stop(handler: HandlerFuture) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(handler))) {
        let message = message_of(&*panic);
        PANICKED.line(|left_out| {
            warn!(%message, left_out, "the handler panicked while it was stopped");
        });
    }
}

fn name_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded(_) => "succeeded",
        Outcome::Failed { .. } => "failed",
        Outcome::Stopped => "stopped",
        Outcome::Interrupted => "interrupted",
    }
}
