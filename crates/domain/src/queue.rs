//! The domain: how a queue behaves.
//!
//! Owns the settings that a queue has, their bounds, and how those that were
//! changed lie over those that were configured. Must not know clocks, I/O,
//! tokio, tonic or any other module but the domain.

use std::{collections::BTreeMap, ops::RangeInclusive, sync::Arc, time::Duration};

/// Bytes of a queue's name.
pub const MAX_NAME: usize = 63;
/// What [`Settings::max_tasks`] takes.
pub const MAX_TASKS: RangeInclusive<u64> = 1..=100_000_000;
/// What [`Settings::max_bytes`] takes.
pub const MAX_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 40;
/// What [`Settings::max_running`] takes.
pub const MAX_RUNNING: RangeInclusive<u32> = 1..=10_000;
/// What [`Settings::weight`] takes.
pub const WEIGHT: RangeInclusive<u32> = 1..=1_000;
/// What [`Settings::max_attempts`] takes.
pub const MAX_ATTEMPTS: RangeInclusive<u32> = 1..=100;
/// What both backoffs take.
pub const BACKOFF: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(24);
/// What [`Settings::attempt_timeout`] takes.
pub const ATTEMPT_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_hours(720);
/// What [`Rate::per_second`] takes.
pub const STARTS_PER_SECOND: RangeInclusive<f64> = 0.0001..=1_000_000.0;
/// What [`Rate::burst`] takes.
pub const BURST: RangeInclusive<u32> = 1..=1_000_000;

/// Whether `name` can be a queue's: 1 to [`MAX_NAME`] of `a-z 0-9 . _ -`,
/// beginning with a letter or a digit.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    begins && name.len() <= MAX_NAME && name.bytes().all(known)
}

/// How fast a queue's tasks may start: a bucket of `burst` starts, refilled
/// evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Starts per second on the long run, within [`STARTS_PER_SECOND`].
    pub per_second: f64,
    /// Starts that may follow at once after a pause, within [`BURST`].
    pub burst: u32,
}

/// How a queue behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Tasks that may wait in it.
    pub max_tasks: u64,
    /// Bytes of tasks that may wait in it.
    pub max_bytes: u64,
    /// Tasks of it that may run at a time; `None` for no limit but the pool.
    pub max_running: Option<u32>,
    /// How fast its tasks may start; `None` for no limit.
    pub rate: Option<Rate>,
    /// Its share of the pool beside other queues that have work.
    pub weight: u32,
    /// Attempts of its tasks unless they say.
    pub max_attempts: u32,
    /// The longest rest before the first retry, unless a task says.
    pub initial_backoff: Duration,
    /// The longest rest before any retry, unless a task says.
    pub max_backoff: Duration,
    /// How long one attempt may take, unless a task says.
    pub attempt_timeout: Duration,
}

impl Settings {
    /// Whether `field` has another value in `other`.
    #[must_use]
    pub fn differs(&self, other: &Self, field: Field) -> bool {
        match field {
            Field::MaxTasks => self.max_tasks != other.max_tasks,
            Field::MaxBytes => self.max_bytes != other.max_bytes,
            Field::MaxRunning => self.max_running != other.max_running,
            Field::RateLimit => self.rate != other.rate,
            Field::Weight => self.weight != other.weight,
            Field::MaxAttempts => self.max_attempts != other.max_attempts,
            Field::InitialBackoff => self.initial_backoff != other.initial_backoff,
            Field::MaxBackoff => self.max_backoff != other.max_backoff,
            Field::AttemptTimeout => self.attempt_timeout != other.attempt_timeout,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_tasks: 100_000,
            max_bytes: 1 << 30,
            max_running: None,
            rate: None,
            weight: 1,
            max_attempts: 1,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_mins(1),
            attempt_timeout: Duration::from_hours(1),
        }
    }
}

/// Settings that differ from those beneath them: of a queue's declaration in the
/// configuration from the server's defaults, and of an operator's changes from
/// the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overrides {
    /// See [`Settings::max_tasks`].
    pub max_tasks: Option<u64>,
    /// See [`Settings::max_bytes`].
    pub max_bytes: Option<u64>,
    /// See [`Settings::max_running`]; `Some(None)` lifts a limit.
    pub max_running: Option<Option<u32>>,
    /// See [`Settings::rate`]; `Some(None)` lifts a limit.
    pub rate: Option<Option<Rate>>,
    /// See [`Settings::weight`].
    pub weight: Option<u32>,
    /// See [`Settings::max_attempts`].
    pub max_attempts: Option<u32>,
    /// See [`Settings::initial_backoff`].
    pub initial_backoff: Option<Duration>,
    /// See [`Settings::max_backoff`].
    pub max_backoff: Option<Duration>,
    /// See [`Settings::attempt_timeout`].
    pub attempt_timeout: Option<Duration>,
}

impl Overrides {
    /// `base`, with what differs put over it.
    #[must_use]
    pub fn over(&self, base: Settings) -> Settings {
        Settings {
            max_tasks: self.max_tasks.unwrap_or(base.max_tasks),
            max_bytes: self.max_bytes.unwrap_or(base.max_bytes),
            max_running: self.max_running.unwrap_or(base.max_running),
            rate: self.rate.unwrap_or(base.rate),
            weight: self.weight.unwrap_or(base.weight),
            max_attempts: self.max_attempts.unwrap_or(base.max_attempts),
            initial_backoff: self.initial_backoff.unwrap_or(base.initial_backoff),
            max_backoff: self.max_backoff.unwrap_or(base.max_backoff),
            attempt_timeout: self.attempt_timeout.unwrap_or(base.attempt_timeout),
        }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `field` differs.
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        match field {
            Field::MaxTasks => self.max_tasks.is_some(),
            Field::MaxBytes => self.max_bytes.is_some(),
            Field::MaxRunning => self.max_running.is_some(),
            Field::RateLimit => self.rate.is_some(),
            Field::Weight => self.weight.is_some(),
            Field::MaxAttempts => self.max_attempts.is_some(),
            Field::InitialBackoff => self.initial_backoff.is_some(),
            Field::MaxBackoff => self.max_backoff.is_some(),
            Field::AttemptTimeout => self.attempt_timeout.is_some(),
        }
    }

    /// What a change of `fields` to `values` makes of these, over what is configured.
    ///
    /// # Errors
    /// [`WrongBackoffs`], unless the change does not touch them.
    pub fn changed(
        mut self,
        fields: &[Field],
        values: &Self,
        configured: Settings,
    ) -> Result<Self, WrongBackoffs> {
        for field in fields {
            self.take(*field, values);
        }
        let Settings { initial_backoff: initial, max_backoff: max, .. } = self.over(configured);
        let touched =
            fields.iter().any(|field| [Field::InitialBackoff, Field::MaxBackoff].contains(field));
        if touched && max < initial { Err(WrongBackoffs { initial, max }) } else { Ok(self) }
    }

    /// The names of what differs, as the API and the configuration spell them.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        Field::ALL.into_iter().filter(|field| self.has(*field)).map(Field::name)
    }

    /// Takes `field` from `other`, whether it differs there or not.
    pub fn take(&mut self, field: Field, other: &Self) {
        match field {
            Field::MaxTasks => self.max_tasks = other.max_tasks,
            Field::MaxBytes => self.max_bytes = other.max_bytes,
            Field::MaxRunning => self.max_running = other.max_running,
            Field::RateLimit => self.rate = other.rate,
            Field::Weight => self.weight = other.weight,
            Field::MaxAttempts => self.max_attempts = other.max_attempts,
            Field::InitialBackoff => self.initial_backoff = other.initial_backoff,
            Field::MaxBackoff => self.max_backoff = other.max_backoff,
            Field::AttemptTimeout => self.attempt_timeout = other.attempt_timeout,
        }
    }
}

/// A change would leave a queue with a longest backoff that is shorter than its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongBackoffs {
    /// See [`Settings::initial_backoff`].
    pub initial: Duration,
    /// See [`Settings::max_backoff`].
    pub max: Duration,
}

/// One of the [`Settings`], by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// [`Settings::max_tasks`]
    MaxTasks,
    /// [`Settings::max_bytes`]
    MaxBytes,
    /// [`Settings::max_running`]
    MaxRunning,
    /// [`Settings::rate`]
    RateLimit,
    /// [`Settings::weight`]
    Weight,
    /// [`Settings::max_attempts`]
    MaxAttempts,
    /// [`Settings::initial_backoff`]
    InitialBackoff,
    /// [`Settings::max_backoff`]
    MaxBackoff,
    /// [`Settings::attempt_timeout`]
    AttemptTimeout,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::MaxTasks,
        Self::MaxBytes,
        Self::MaxRunning,
        Self::RateLimit,
        Self::Weight,
        Self::MaxAttempts,
        Self::InitialBackoff,
        Self::MaxBackoff,
        Self::AttemptTimeout,
    ];

    /// Its name, as the API and the configuration spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxTasks => "max_tasks",
            Self::MaxBytes => "max_bytes",
            Self::MaxRunning => "max_running",
            Self::RateLimit => "rate_limit",
            Self::Weight => "weight",
            Self::MaxAttempts => "max_attempts",
            Self::InitialBackoff => "initial_backoff",
            Self::MaxBackoff => "max_backoff",
            Self::AttemptTimeout => "attempt_timeout",
        }
    }

    /// The field of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// What the configuration says of queues.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueConfig {
    /// The settings of a queue of which nothing is said.
    pub defaults: Settings,
    /// The queues of which something is said.
    pub declared: BTreeMap<Arc<str>, Overrides>,
    /// No other queues may exist.
    pub fixed: bool,
}

impl QueueConfig {
    /// The configured settings of `queue`.
    #[must_use]
    pub fn settings(&self, queue: &str) -> Settings {
        self.declared.get(queue).map_or(self.defaults, |declared| declared.over(self.defaults))
    }

    /// Where the configuration differs from the built-in defaults for `queue`, or says
    /// something of it.
    #[must_use]
    pub fn configured(&self, queue: &str) -> Vec<Field> {
        let (own, defaults) = (self.declared.get(queue), Settings::default());
        let is_configured = |field: &Field| {
            own.is_some_and(|own| own.has(*field)) || self.defaults.differs(&defaults, *field)
        };
        Field::ALL.into_iter().filter(is_configured).collect()
    }

    /// Whether `queue` may exist.
    #[must_use]
    pub fn allows(&self, queue: &str) -> bool {
        !self.fixed || self.declared.contains_key(queue)
    }
}

/// How many tasks of a queue stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wait for their due time.
    pub scheduled: u64,
    /// Wait for a worker.
    pub queued: u64,
    /// Are being executed.
    pub running: u64,
    /// Have ended with a result, and are kept.
    pub succeeded: u64,
    /// Have ended in failure, and are kept.
    pub failed: u64,
    /// Were cancelled, and are kept.
    pub cancelled: u64,
}

impl Counts {
    /// Tasks that have not ended.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.scheduled + self.queued + self.running
    }

    /// Tasks that have ended and are kept.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.succeeded + self.failed + self.cancelled
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            scheduled: self.scheduled + other.scheduled,
            queued: self.queued + other.queued,
            running: self.running + other.running,
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
            cancelled: self.cancelled + other.cancelled,
        }
    }
}

/// What holds back the tasks of a queue that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// It is paused.
    Paused,
    /// As many run as may.
    MaxRunning,
    /// The rate holds the next start back.
    RateLimit,
    /// Nothing starts any more in this process.
    Draining,
}
