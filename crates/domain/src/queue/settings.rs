//! The settings of a queue: the one table from which everything else about them
//! comes.
//!
//! Owns their names, types, defaults, bounds and their numbers on disk, and how those
//! that were changed lie over those that were configured. Whoever reads, writes or shows
//! them goes by [`Field::ALL`] and [`Field::kind`], so that a new setting is a new entry
//! of the table. There is one rate: a second one would need a flag and a key for its burst.
//! Must not know how they are spelled in a file, on the wire or for people.

use std::{ops::RangeInclusive, time::Duration};

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

/// How fast a queue's tasks may start: a bucket of `burst` starts, refilled
/// evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Starts per second on the long run, within [`STARTS_PER_SECOND`].
    pub per_second: f64,
    /// Starts that may follow at once after a pause, within [`BURST`].
    pub burst: u32,
}

/// What a setting is, and so how it is read and written everywhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A whole number within bounds: a [`Value::Count`].
    Count(RangeInclusive<u64>),
    /// A number of bytes within bounds: a [`Value::Count`].
    Size(RangeInclusive<u64>),
    /// A limit that can be lifted: a [`Value::Count`], and `None` in [`Settings`] when it is.
    Limit {
        /// What it takes where there is a limit.
        bounds: RangeInclusive<u64>,
        /// What there is once it is lifted, in words.
        lifted: &'static str,
    },
    /// A span of time within bounds: a [`Value::Duration`].
    Duration(RangeInclusive<Duration>),
    /// A rate, within [`STARTS_PER_SECOND`] and [`BURST`]: a [`Value::Rate`].
    Rate,
}

/// The value of any setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Of a count, a size or a limit; 0 for a limit that is lifted.
    Count(u64),
    /// Of a span of time.
    Duration(Duration),
    /// Of a rate; `None` for no limit.
    Rate(Option<Rate>),
}

/// A type of which settings are.
trait Typed: Copy {
    fn to_value(self) -> Value;

    /// From what is of the same kind; `None` if it is not. A count that is too large for
    /// the type becomes the largest that there is.
    fn of_value(value: Value) -> Option<Self>;
}

/// Makes everything below of the table of settings. An entry is
///
/// ```text
/// VARIANT of Field {
///     help: what it is, for people: the text of its flag and of its documentation,
///     name: as the API and the configuration spell it,
///     value: the field of Settings, with its type and its built-in default,
///     kind: its Kind,
///     record: its number in the stored record, for ever; a rate has the next one, too,
/// }
/// ```
macro_rules! settings {
    ($($variant:ident {
        help: $help:literal,
        name: $name:literal,
        value: $value:ident: $type:ty = $default:expr,
        kind: $kind:expr,
        record: $record:literal,
    })+) => {
        /// How a queue behaves. A limit of `None` is none.
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct Settings {
            $(#[doc = concat!($help, ".")] pub $value: $type,)+
        }

        impl Settings {
            /// The value of `field`.
            #[must_use]
            pub fn get(&self, field: Field) -> Value {
                match field {
                    $(Field::$variant => self.$value.to_value(),)+
                }
            }
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($value: $default,)+ }
            }
        }

        /// Settings that differ from those beneath them: of a queue's declaration in the
        /// configuration from the server's defaults, and of an operator's changes from
        /// the configuration. `Some(None)` lifts a limit.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub struct Overrides {
            $(
                #[doc = concat!("See [`Settings::", stringify!($value), "`].")]
                pub $value: Option<$type>,
            )+
        }

        impl Overrides {
            /// `base`, with what differs put over it.
            #[must_use]
            pub fn over(&self, base: Settings) -> Settings {
                Settings { $($value: self.$value.unwrap_or(base.$value),)+ }
            }

            /// The value of `field`, if it differs.
            #[must_use]
            pub fn get(&self, field: Field) -> Option<Value> {
                match field {
                    $(Field::$variant => self.$value.map(Typed::to_value),)+
                }
            }

            /// Gives `field` this value, or none. One that is not of its kind counts as
            /// none.
            pub fn set(&mut self, field: Field, value: Option<Value>) {
                match field {
                    $(Field::$variant => self.$value = value.and_then(Typed::of_value),)+
                }
            }
        }

        /// One of the [`Settings`], by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Field {
            $(
                #[doc = concat!("[`Settings::", stringify!($value), "`]")]
                $variant,
            )+
        }

        impl Field {
            /// All of them, in the order in which they are shown.
            pub const ALL: [Self; [$($record),+].len()] = [$(Self::$variant),+];

            /// Its name, as the API and the configuration spell it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it is, in words that begin a sentence and do not end it.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => $help,)+
                }
            }

            /// What its values are.
            #[must_use]
            pub fn kind(self) -> Kind {
                match self {
                    $(Self::$variant => $kind,)+
                }
            }

            /// Its number in the stored record. The burst of a rate has the next one.
            #[must_use]
            pub fn record_number(self) -> u32 {
                match self {
                    $(Self::$variant => $record,)+
                }
            }
        }
    };
}

settings! {
    MaxTasks {
        help: "Tasks that may wait in it",
        name: "max_tasks",
        value: max_tasks: u64 = 100_000,
        kind: Kind::Count(MAX_TASKS),
        record: 1,
    }
    MaxBytes {
        help: "Bytes of tasks that may wait in it",
        name: "max_bytes",
        value: max_bytes: u64 = 1 << 30,
        kind: Kind::Size(MAX_BYTES),
        record: 2,
    }
    MaxRunning {
        help: "Its tasks that may run at a time",
        name: "max_running",
        value: max_running: Option<u32> = None,
        kind: Kind::Limit { bounds: wide(MAX_RUNNING), lifted: "no limit but the pool" },
        record: 3,
    }
    RateLimit {
        help: "How fast its tasks may start",
        name: "rate_limit",
        value: rate: Option<Rate> = None,
        kind: Kind::Rate,
        record: 4,
    }
    Weight {
        help: "Its share of the pool beside other queues that have work",
        name: "weight",
        value: weight: u32 = 1,
        kind: Kind::Count(wide(WEIGHT)),
        record: 6,
    }
    MaxAttempts {
        help: "Attempts of its tasks unless they say",
        name: "max_attempts",
        value: max_attempts: u32 = 1,
        kind: Kind::Count(wide(MAX_ATTEMPTS)),
        record: 7,
    }
    InitialBackoff {
        help: "The longest rest before the first retry, unless a task says",
        name: "initial_backoff",
        value: initial_backoff: Duration = Duration::from_secs(1),
        kind: Kind::Duration(BACKOFF),
        record: 8,
    }
    MaxBackoff {
        help: "The longest rest before any retry, unless a task says",
        name: "max_backoff",
        value: max_backoff: Duration = Duration::from_mins(1),
        kind: Kind::Duration(BACKOFF),
        record: 9,
    }
    AttemptTimeout {
        help: "How long one attempt may take, unless a task says",
        name: "attempt_timeout",
        value: attempt_timeout: Duration = Duration::from_hours(1),
        kind: Kind::Duration(ATTEMPT_TIMEOUT),
        record: 10,
    }
}

fn wide(bounds: RangeInclusive<u32>) -> RangeInclusive<u64> {
    let (least, most) = bounds.into_inner();
    least.into()..=most.into()
}

impl Settings {
    /// Whether `field` has another value in `other`.
    #[must_use]
    pub fn differs(&self, other: &Self, field: Field) -> bool {
        self.get(field) != other.get(field)
    }
}

impl Overrides {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `field` differs.
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        self.get(field).is_some()
    }

    /// The names of what differs, as the API and the configuration spell them.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        Field::ALL.into_iter().filter(|field| self.has(*field)).map(Field::name)
    }

    /// Takes `field` from `other`, whether it differs there or not.
    pub fn take(&mut self, field: Field, other: &Self) {
        self.set(field, other.get(field));
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
}

/// A change would leave a queue with a longest backoff that is shorter than its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongBackoffs {
    /// See [`Settings::initial_backoff`].
    pub initial: Duration,
    /// See [`Settings::max_backoff`].
    pub max: Duration,
}

impl Field {
    /// The field of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

impl Typed for u64 {
    fn to_value(self) -> Value {
        Value::Count(self)
    }

    fn of_value(value: Value) -> Option<Self> {
        match value {
            Value::Count(count) => Some(count),
            _ => None,
        }
    }
}

impl Typed for u32 {
    fn to_value(self) -> Value {
        Value::Count(self.into())
    }

    fn of_value(value: Value) -> Option<Self> {
        u64::of_value(value).map(|count| Self::try_from(count).unwrap_or(Self::MAX))
    }
}

impl Typed for Option<u32> {
    fn to_value(self) -> Value {
        self.unwrap_or(0).to_value()
    }

    fn of_value(value: Value) -> Option<Self> {
        u32::of_value(value).map(|most| Some(most).filter(|most| *most > 0))
    }
}

impl Typed for Duration {
    fn to_value(self) -> Value {
        Value::Duration(self)
    }

    fn of_value(value: Value) -> Option<Self> {
        match value {
            Value::Duration(span) => Some(span),
            _ => None,
        }
    }
}

impl Typed for Option<Rate> {
    fn to_value(self) -> Value {
        Value::Rate(self)
    }

    fn of_value(value: Value) -> Option<Self> {
        match value {
            Value::Rate(rate) => Some(rate),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
