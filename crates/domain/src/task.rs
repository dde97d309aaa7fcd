//! The domain: what a task is, from its submission on.
//!
//! Owns what it is made of. Which transitions it can make is the `machine`'s to say. Must not know
//! clocks, I/O, tokio, tonic or any other module but the settings of queues, for their defaults.

mod id;
mod machine;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;

pub use id::{NotATaskId, TaskId};
pub use machine::{
    Budget, Command, Interruption, Lifecycle, Refusal, State, Transition, decide, invariants,
};

/// A wall-clock time in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This time plus `span`; the last representable time if that is beyond it.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros))
    }

    /// This time less `span`; the first representable time if that is before it.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// How long after `earlier` this time is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

/// A worker of the pool, counted from 1; the same slot has the same name after
/// a restart. Written as `worker-3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker-{}", self.0)
    }
}

/// What a task carries to its handler, and what the handler returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    #[default]
    Empty,
    /// JSON text.
    Json(Arc<str>),
    /// Opaque bytes.
    Bytes(Bytes),
}

impl Data {
    /// Its size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why an attempt or a task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For programs: `UPPER_SNAKE_CASE`, at most [`Failure::MAX_REASON`] bytes.
    pub reason: String,
    /// For people: at most [`Failure::MAX_MESSAGE`] bytes.
    pub message: String,
}

impl Failure {
    /// Bytes of a reason.
    pub const MAX_REASON: usize = 63;
    /// Bytes of a message.
    pub const MAX_MESSAGE: usize = 1024;

    /// Makes a failure. What is too long is cut, a message as [`cut`] does it; a
    /// reason that is not `UPPER_SNAKE_CASE` is spelled so.
    #[must_use]
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        let spelled = reason.chars().map(|c| match c {
            'a'..='z' => c.to_ascii_uppercase(),
            'A'..='Z' | '0'..='9' => c,
            _ => '_',
        });
        let mut message = message.into();
        if message.len() > Self::MAX_MESSAGE {
            message = cut(&message, Self::MAX_MESSAGE);
        }
        Self { reason: spelled.take(Self::MAX_REASON).collect(), message }
    }
}

/// A message in at most `bytes`. What is too much of it is taken out of the middle, where `…`
/// then stands: an error begins with what was tried, and its cause comes last.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> String {
    const MARK: &str = " … ";
    if text.len() <= bytes {
        return text.to_owned();
    }
    let room = bytes.saturating_sub(MARK.len());
    let begin = text.floor_char_boundary(room / 2);
    let end = text.ceil_char_boundary(text.len() - (room - begin));
    format!("{}{MARK}{}", &text[..begin], &text[end..])
}

/// How often a task is tried and how long it rests in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, at least 1; interrupted ones do not count.
    pub max_attempts: u32,
    /// Upper bound of the first rest.
    pub initial_backoff: Duration,
    /// Upper bound of every rest.
    pub max_backoff: Duration,
}

/// When a new task may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// At once.
    Now,
    /// This long after its submission is decided.
    After(Duration),
    /// At this time; at once if it has passed.
    At(Timestamp),
}

/// What of a task is for whoever runs it or looks at it: it is kept and handed out as it was
/// submitted, and decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskBody {
    /// What the handler is given; empty where a query omits payloads.
    pub payload: Data,
    /// How long one attempt may take.
    pub timeout: Duration,
}

impl TaskBody {
    /// Bytes that it takes, roughly.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether there is nothing in it that counts as bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// With the default timeout.
impl From<Data> for TaskBody {
    fn from(payload: Data) -> Self {
        Self { payload, ..Self::default() }
    }
}

/// No payload, and the timeout that a queue has unless it is configured.
impl Default for TaskBody {
    fn default() -> Self {
        let timeout = crate::queue::Settings::default().attempt_timeout;
        Self { payload: Data::Empty, timeout }
    }
}

/// A task that has been checked and is ready to be submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Which handler executes it.
    pub kind: Arc<str>,
    /// Where it waits.
    pub queue: Arc<str>,
    /// What the engine does not look at.
    pub body: TaskBody,
    /// Higher starts earlier within the queue.
    pub priority: i32,
    /// When it may start.
    pub due: Due,
    /// How often it is tried.
    pub retry: RetryPolicy,
    /// The submitter's own marks.
    pub labels: BTreeMap<String, String>,
    /// The idempotency key, if any.
    pub request_id: Option<String>,
}

impl NewTask {
    /// A task without a payload that is due now, with what a queue gives it unless it is
    /// configured.
    pub fn new(kind: impl Into<Arc<str>>, queue: impl Into<Arc<str>>) -> Self {
        let settings = crate::queue::Settings::default();
        Self {
            kind: kind.into(),
            queue: queue.into(),
            body: TaskBody::default(),
            priority: 0,
            due: Due::Now,
            retry: RetryPolicy {
                max_attempts: settings.max_attempts,
                initial_backoff: settings.initial_backoff,
                max_backoff: settings.max_backoff,
            },
            labels: BTreeMap::new(),
            request_id: None,
        }
    }
}

#[cfg(test)]
mod tests;
