//! What a setting takes: one rule for each type of value.
//!
//! Owns how a value is read within its bounds, how it is written, and how what
//! is wrong with it is said. Must not know any one setting.

use std::{fmt, time::Duration};

use taskyard_text::{quoted, units};

use super::Config;

/// What a setting takes, and where in a [`Config`] it is.
#[derive(Debug)]
pub enum Rule {
    /// A span of time, such as `30s`.
    Duration(Bounded<Duration>),
    /// Bytes, such as `1MiB`.
    Size(Bounded<u64>),
    /// A whole number.
    Count(Bounded<u64>),
    /// `true` or `false`.
    Switch(Switch),
    /// Anything else.
    Text(Text),
}

/// A value from `min` to `max`, both included, or the one besides.
#[derive(Debug)]
pub struct Bounded<T> {
    pub min: T,
    pub max: T,
    /// One that is right, too, and has a meaning of its own.
    pub besides: Option<T>,
    pub get: fn(&Config) -> T,
    pub set: fn(&mut Config, T),
}

/// True or false.
#[derive(Debug)]
pub struct Switch {
    pub get: fn(&Config) -> bool,
    pub set: fn(&mut Config, bool),
}

/// A value with a syntax of its own.
#[derive(Debug)]
pub struct Text {
    pub placeholder: &'static str,
    /// What is right, to stand after "write".
    pub right: &'static str,
    pub get: fn(&Config) -> String,
    /// `None` if the text is not right.
    pub set: fn(&mut Config, &str) -> Option<()>,
}

impl Rule {
    /// What stands for a value in help.
    pub fn placeholder(&self) -> &'static str {
        match self {
            Self::Duration(_) => "DURATION",
            Self::Size(_) => "SIZE",
            Self::Count(_) => "COUNT",
            Self::Switch(_) => "true|false",
            Self::Text(text) => text.placeholder,
        }
    }

    /// What is right, to stand after "write".
    pub fn right(&self) -> String {
        match self {
            Self::Duration(span) => span.right("a duration", units::show_duration),
            Self::Size(size) => size.right("a size", units::show_size),
            Self::Count(count) => count.right("a whole number", |count| count.to_string()),
            Self::Switch(_) => "true or false".into(),
            Self::Text(text) => text.right.into(),
        }
    }

    /// The value in `config`, in a form that [`Self::apply`] reads.
    pub fn show(&self, config: &Config) -> String {
        match self {
            Self::Duration(span) => units::show_duration((span.get)(config)),
            Self::Size(size) => units::show_size((size.get)(config)),
            Self::Count(count) => (count.get)(config).to_string(),
            Self::Switch(switch) => (switch.get)(config).to_string(),
            Self::Text(text) => (text.get)(config),
        }
    }

    /// Reads `text` into `config`.
    ///
    /// # Errors
    /// What is wrong, and what would be right, as a sentence.
    pub fn apply(&self, config: &mut Config, text: &str) -> Result<(), String> {
        let taken = match self {
            Self::Duration(span) => span.apply(config, parsed(units::parse_duration(text))?),
            Self::Size(size) => size.apply(config, parsed(units::parse_size(text))?),
            Self::Count(count) => {
                text.trim().parse().ok().and_then(|number| count.apply(config, number))
            }
            Self::Switch(switch) => text.trim().parse().ok().map(|on| (switch.set)(config, on)),
            Self::Text(rule) => (rule.set)(config, text),
        };
        taken.ok_or_else(|| format!("{} is not possible; write {}", quoted(text), self.right()))
    }
}

fn parsed<T>(value: Result<T, units::Error>) -> Result<T, String> {
    value.map_err(|wrong| wrong.to_string())
}

impl<T: PartialOrd + Copy> Bounded<T> {
    /// `None` if the value is out of bounds.
    fn apply(&self, config: &mut Config, value: T) -> Option<()> {
        let is_right = (self.min..=self.max).contains(&value) || self.besides == Some(value);
        is_right.then(|| (self.set)(config, value))
    }

    fn right<D: fmt::Display>(&self, what: &str, show: impl Fn(T) -> D) -> String {
        let besides = self.besides.map(|value| format!("{}, or ", show(value)));
        let (besides, min, max) = (besides.unwrap_or_default(), show(self.min), show(self.max));
        format!("{besides}{what} from {min} to {max}")
    }
}
