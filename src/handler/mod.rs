//! What a task does.
//!
//! Owns the [`Handler`] trait, which users of the library implement, and the
//! [`Registry`] of kinds. Must not know queues, or the bookkeeping of attempts:
//! a handler is given one [`Execution`] and returns its outcome.

mod args;
mod exec;
mod noop;
mod sleep;

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use taskyard_text::closest;
use tokio::{runtime::RuntimeFlavor, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    supervisor::message_of,
    task::{Data, Failure, TaskId, WorkerId},
    telemetry::Throttle,
};

pub use exec::{DeclarationError, Exec};
pub use noop::Noop;
pub use sleep::Sleep;

/// Executes the tasks of one kind.
///
/// A task runs **at least once**: after a crash of the process it runs again,
/// under the next [`Execution::attempt`] number. That number is never used
/// twice for one task, so it can serve as a fencing token.
///
/// When the attempt's timeout passes, the task is cancelled, or the server drains,
/// the handler is told so ([`Execution::cancelled`]), and its future is dropped if it
/// has not returned within the grace period.
///
/// It runs on a tokio runtime of the handlers' own, with a thread for every worker (up to
/// 512). Blocking work belongs into [`tokio::task::spawn_blocking`] all the same: a handler
/// that blocks its thread cannot be dropped. Its attempt is then judged without it, a second
/// later than otherwise, and the task may run again while the thread is still busy; what the
/// handler returns has no effect any more. One that looks at [`Execution::cancel`] from time
/// to time can end by itself.
///
/// Every `async fn(Execution) -> Result<Output, Error>` is a handler.
pub trait Handler: Send + Sync + 'static {
    /// Checks a payload before the task is accepted: what is returned here is
    /// answered to the submitter as `INVALID_ARGUMENT`, each violation by name. So is a
    /// panic. The submitter waits for it, and so do the requests behind it in a batch or a
    /// stream: it should take milliseconds, and what asks others belongs into `run`. The log
    /// tells of one that takes more than 100 ms. Nobody else waits. While 64 checks of the same
    /// kind are under way, or 256 of all kinds, further submissions are refused with
    /// `RESOURCE_EXHAUSTED`, unless the handler's checks [never block](Self::check_may_block).
    ///
    /// # Errors
    /// All that is wrong with the payload, not only the first.
    fn check(&self, payload: &Data) -> Result<(), Vec<Violation>> {
        let _ = payload;
        Ok(())
    }

    /// Whether [`check`](Self::check) may block its thread. The others who are served by that
    /// thread are handed to another one then, which takes some microseconds for each check;
    /// a handler whose checks only compute can say `false` to save them.
    fn check_may_block(&self) -> bool {
        true
    }

    /// Executes one attempt.
    ///
    /// # Errors
    /// [`Error::retryable`] if another attempt may help, [`Error::permanent`]
    /// if not. A panic counts as retryable.
    fn run(&self, execution: Execution) -> impl Future<Output = Result<Output, Error>> + Send;
}

impl<F, Fut> Handler for F
where
    F: Fn(Execution) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Output, Error>> + Send,
{
    /// It has no check.
    fn check_may_block(&self) -> bool {
        false
    }

    fn run(&self, execution: Execution) -> impl Future<Output = Result<Output, Error>> + Send {
        self(execution)
    }
}

/// One thing that is wrong with a submitted task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where: the path of a field, for example `args.duration`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub description: String,
}

impl Violation {
    /// Names a field and what is wrong with it.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Why a payload is not known to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckError {
    /// It is wrong, in these places.
    Invalid(Vec<Violation>),
    /// Nobody has looked at it: as many checks are under way as may be.
    TooManyChecks,
}

/// One attempt at a task, as its handler sees it.
#[derive(Clone, Debug)]
pub struct Execution {
    /// Which task.
    pub task: TaskId,
    /// Its kind.
    pub kind: Arc<str>,
    /// Which execution of it, from 1; never the same twice.
    pub attempt: u32,
    /// On which worker.
    pub worker: WorkerId,
    /// What was submitted.
    pub payload: Data,
    /// Fires when the handler should stop: the task was cancelled, or the
    /// server drains and its grace period is over.
    pub cancel: CancellationToken,
    /// What is to be kept of its output if it does not succeed.
    pub(crate) written: Written,
}

impl Execution {
    /// Returns once the handler should stop.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// The payload's arguments as `T`.
    ///
    /// # Errors
    /// A permanent error `INVALID_ARGS` if the payload is not a JSON object of that shape.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, Error> {
        parse_args(&self.payload).map_err(|wrong| Error::permanent("INVALID_ARGS", wrong))
    }

    /// One argument by name.
    ///
    /// # Errors
    /// A permanent error `INVALID_ARGS` if it is missing or not a `T`.
    pub fn arg<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        let mut args: serde_json::Map<String, serde_json::Value> = self.args()?;
        let value = args.remove(name).unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|wrong| Error::permanent("INVALID_ARGS", format!("args.{name}: {wrong}")))
    }
}

/// The JSON arguments of a payload as `T`; an empty payload counts as `{}`.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn parse_args<T: DeserializeOwned>(payload: &Data) -> Result<T, String> {
    match payload {
        Data::Json(text) => serde_json::from_str(text).map_err(|wrong| wrong.to_string()),
        Data::Empty => serde_json::from_str("{}").map_err(|wrong| wrong.to_string()),
        Data::Bytes(_) => Err("the payload is bytes; this kind takes args, a JSON object".into()),
    }
}

/// What the process of an execution wrote, for the case that it does not succeed: left here
/// also by one that is dropped. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written(Arc<Mutex<Option<Transcript>>>);

impl Written {
    pub(crate) fn leave(&self, transcript: Transcript) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(transcript);
    }

    pub(crate) fn take(&self) -> Option<Transcript> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a process wrote: of each stream the end, and how many bytes came before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) stdout: (Bytes, u64),
    pub(crate) stderr: (Bytes, u64),
    pub(crate) status: Option<ExitStatus>,
}

/// What a successful attempt returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output(pub Data);

impl Output {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self(Data::Empty)
    }

    /// Opaque bytes.
    pub fn bytes(bytes: impl Into<bytes::Bytes>) -> Self {
        Self(Data::Bytes(bytes.into()))
    }

    /// A value as JSON. It may nest 20 objects and lists within each other, and have no whole
    /// number beyond 2^53 - 1, as clients read numbers as doubles: otherwise the attempt fails
    /// for good with `INVALID_OUTPUT`. A float that is NaN or infinite becomes null, as it does
    /// in `serde_json`.
    ///
    /// # Errors
    /// A permanent error `INVALID_OUTPUT` if the value has no JSON form.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        let text = serde_json::to_string(value)
            .map_err(|wrong| Error::permanent("INVALID_OUTPUT", wrong.to_string()))?;
        Ok(Self(Data::Json(text.into())))
    }
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is recorded and told.
    pub failure: Failure,
    /// Trying again is of no use.
    pub permanent: bool,
}

impl Error {
    /// Another attempt may help. `reason` is a word for programs in
    /// `UPPER_SNAKE_CASE`, `message` a sentence for people; see [`Failure::new`]
    /// for their bounds.
    pub fn retryable(reason: &str, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(reason, message), permanent: false }
    }

    /// Another attempt would fail as well.
    pub fn permanent(reason: &str, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(reason, message), permanent: true }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.failure.reason, self.failure.message)
    }
}

/// Any error of a handler's own counts as retryable, with reason `ERROR`.
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        Self::retryable("ERROR", error.to_string())
    }
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<Output, Error>> + Send + 'a>>;

/// Checks of one kind that may block, at a time: a kind that hangs leaves the others theirs.
const MAX_BLOCKING_CHECKS_OF_KIND: usize = 64;
/// The same, of all kinds: each takes one of the 512 threads that the runtime adds at most.
const MAX_BLOCKING_CHECKS: usize = 256;

/// How long a check may take before the log tells of it.
const SLOW_CHECK: Duration = Duration::from_millis(100);

/// Any caller can cause them at will.
static SLOW: Throttle = Throttle::new("checks of payloads were slow");
static PANICKED: Throttle = Throttle::new("checks of payloads panicked");

/// [`Handler`], callable without knowing its type.
trait AnyHandler: Send + Sync {
    fn check(&self, payload: &Data) -> Result<(), Vec<Violation>>;
    fn check_may_block(&self) -> bool;
    fn run(&self, execution: Execution) -> Running<'_>;
}

impl<H: Handler> AnyHandler for H {
    fn check(&self, payload: &Data) -> Result<(), Vec<Violation>> {
        Handler::check(self, payload)
    }

    fn check_may_block(&self) -> bool {
        Handler::check_may_block(self)
    }

    fn run(&self, execution: Execution) -> Running<'_> {
        Box::pin(Handler::run(self, execution))
    }
}

/// Does what may block, while another thread goes on with those that this one serves; where
/// there is none to do that, here.
fn off_the_callers_thread<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// One kind of task.
struct Kind {
    handler: Box<dyn AnyHandler>,
    blocking_checks: Semaphore,
}

/// The kinds of task that a server executes. Fixed once the server runs.
#[derive(Clone)]
pub struct Registry {
    kinds: BTreeMap<Arc<str>, Arc<Kind>>,
    blocking_checks: Arc<Semaphore>,
}

impl Default for Registry {
    fn default() -> Self {
        let blocking_checks = Arc::new(Semaphore::new(MAX_BLOCKING_CHECKS));
        Self { kinds: BTreeMap::new(), blocking_checks }
    }
}

impl Registry {
    /// Adds a kind; one of the same name is replaced.
    pub fn insert(&mut self, kind: impl Into<Arc<str>>, handler: impl Handler) {
        let blocking_checks = Semaphore::new(MAX_BLOCKING_CHECKS_OF_KIND);
        let handler = Box::new(handler);
        self.kinds.insert(kind.into(), Arc::new(Kind { handler, blocking_checks }));
    }

    /// The kinds, in alphabetical order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(AsRef::as_ref)
    }

    /// The registered name equal to `kind`, so that it need not be copied.
    #[must_use]
    pub fn kind(&self, kind: &str) -> Option<Arc<str>> {
        self.kinds.get_key_value(kind).map(|(name, _)| Arc::clone(name))
    }

    /// Lets the handler of `kind` check a payload.
    ///
    /// # Errors
    /// Its violations, or one on the field `kind` if there is no such handler; that too many
    /// checks which may block are under way.
    pub fn check(&self, kind: &str, payload: &Data) -> Result<(), CheckError> {
        let Some(Kind { handler, blocking_checks }) = self.kinds.get(kind).map(AsRef::as_ref)
        else {
            return Err(CheckError::Invalid(vec![Violation::new("kind", self.unknown(kind))]));
        };
        let began = Instant::now();
        let check = AssertUnwindSafe(|| handler.check(payload));
        let checked = if handler.check_may_block() {
            let too_many = |_| CheckError::TooManyChecks;
            let _of_kind = blocking_checks.try_acquire().map_err(too_many)?;
            let _of_all = self.blocking_checks.try_acquire().map_err(too_many)?;
            off_the_callers_thread(|| catch_unwind(check))
        } else {
            catch_unwind(check)
        };
        let took = began.elapsed();
        if took >= SLOW_CHECK {
            SLOW.line(|left_out| {
                tracing::warn!(
                    kind,
                    ?took,
                    left_out,
                    "the check of a payload was slow, and held up its caller"
                );
            });
        }
        let checked = checked.unwrap_or_else(|panic| {
            let message = message_of(&*panic);
            PANICKED.line(|left_out| {
                tracing::warn!(kind, message, left_out, "the check of a payload panicked");
            });
            let wrong = format!("cannot be checked: the handler's check panicked: {message}");
            Err(vec![Violation::new("payload", wrong)])
        });
        checked.map_err(CheckError::Invalid)
    }

    /// Executes one attempt with the handler of its kind.
    ///
    /// # Errors
    /// The handler's error; `UNKNOWN_KIND`, permanent, if there is no handler
    /// (a task from a time when there was one).
    pub async fn run(&self, execution: Execution) -> Result<Output, Error> {
        match self.kinds.get(&execution.kind) {
            Some(kind) => kind.handler.run(execution).await,
            None => Err(Error::permanent("UNKNOWN_KIND", self.unknown(&execution.kind))),
        }
    }

    /// What is said of a kind that there is not.
    pub(crate) fn unknown(&self, kind: &str) -> String {
        let known = self.kinds().collect::<Vec<_>>().join(", ");
        let meant = closest(kind, self.kinds());
        let meant = meant.map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
        let kind: String = kind.chars().take(63).collect();
        format!("no handler for {kind:?}; {meant}this server has: {known}")
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}
