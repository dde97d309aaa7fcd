//! What a setting is.
//!
//! Owns its names, in all three locations, and its help. Must not know any one of
//! them (the `table` does), or where a value came from.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    Config,
    rule::{Bounded, Rule, Switch, Text},
};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name, as the flag spells it: `drain-timeout`.
    pub name: &'static str,
    /// What it means.
    meaning: &'static str,
    rule: Rule,
}

impl Setting {
    /// Its key in the configuration file: `drain_timeout`.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Its variable in the environment: `TASKYARD_DRAIN_TIMEOUT`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key().to_uppercase())
    }

    /// What stands for its value in help: `DURATION`.
    pub fn placeholder(&self) -> &'static str {
        self.rule.placeholder()
    }

    /// Whether it is true or false: its flag may then stand alone.
    pub fn is_switch(&self) -> bool {
        matches!(self.rule, Rule::Switch(_))
    }

    /// One line of help: the meaning, what is right, and the default.
    pub fn help(&self) -> String {
        let default = self.show(&Config::default());
        format!("{}: {} [default: {default}]", self.meaning, self.rule.right())
    }

    /// What is right, to stand after "write".
    pub fn right(&self) -> String {
        self.rule.right()
    }

    /// Its value in `config`, in a form that [`Self::apply`] reads.
    pub fn show(&self, config: &Config) -> String {
        self.rule.show(config)
    }

    /// Reads `text` into `config`.
    ///
    /// # Errors
    /// What is wrong, and what would be right, as a sentence.
    pub fn apply(&self, config: &mut Config, text: &str) -> Result<(), String> {
        self.rule.apply(config, text)
    }
}

/// What the variables of all settings begin with.
pub const PREFIX: &str = "TASKYARD_";

/// A setting that is a span of time.
pub const fn duration(
    name: &'static str,
    meaning: &'static str,
    bounds: RangeInclusive<Duration>,
    get: fn(&Config) -> Duration,
    set: fn(&mut Config, Duration),
) -> Setting {
    let (min, max) = (*bounds.start(), *bounds.end());
    Setting { name, meaning, rule: Rule::Duration(Bounded { min, max, besides: None, get, set }) }
}

/// A setting that is a span of time, or zero, which has a meaning of its own.
pub const fn duration_or_zero(
    name: &'static str,
    meaning: &'static str,
    bounds: RangeInclusive<Duration>,
    get: fn(&Config) -> Duration,
    set: fn(&mut Config, Duration),
) -> Setting {
    let (min, max) = (*bounds.start(), *bounds.end());
    let besides = Some(Duration::ZERO);
    Setting { name, meaning, rule: Rule::Duration(Bounded { min, max, besides, get, set }) }
}

/// A setting that is a number of bytes.
pub const fn size(
    name: &'static str,
    meaning: &'static str,
    bounds: RangeInclusive<u64>,
    get: fn(&Config) -> u64,
    set: fn(&mut Config, u64),
) -> Setting {
    let (min, max) = (*bounds.start(), *bounds.end());
    Setting { name, meaning, rule: Rule::Size(Bounded { min, max, besides: None, get, set }) }
}

/// A setting that is a whole number.
pub const fn count(
    name: &'static str,
    meaning: &'static str,
    bounds: RangeInclusive<u64>,
    get: fn(&Config) -> u64,
    set: fn(&mut Config, u64),
) -> Setting {
    let (min, max) = (*bounds.start(), *bounds.end());
    Setting { name, meaning, rule: Rule::Count(Bounded { min, max, besides: None, get, set }) }
}

/// A setting that is anything else.
pub const fn text(name: &'static str, meaning: &'static str, text: Text) -> Setting {
    Setting { name, meaning, rule: Rule::Text(text) }
}

/// A setting that is true or false.
pub const fn switch(
    name: &'static str,
    meaning: &'static str,
    get: fn(&Config) -> bool,
    set: fn(&mut Config, bool),
) -> Setting {
    Setting { name, meaning, rule: Rule::Switch(Switch { get, set }) }
}
