//! The queues that have settings of their own, from the file's tables
//! `[queues.NAME]`.
//!
//! Owns what such a declaration holds. Must not know how a queue uses it.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use taskyard_text::{
    quoted, rate,
    units::{self, show_duration, show_size},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    declaration::{self, Declaration},
    file::{Document, QUEUES, scalar},
    load::Sources,
    problem::Location,
};
use crate::queue::{self, Field, Kind, Overrides, Rate, Value};

/// The key that stands beside `rate_limit`: both are one setting of the API.
const BURST: &str = "burst";

/// A queue that the file declares.
#[derive(Debug, Default)]
pub struct Declared {
    /// What it says.
    pub own: Overrides,
    /// Where it says `initial_backoff`, and that it is one.
    pub initial_backoff: Option<Location>,
    /// Where it says `max_backoff`, and that it is one.
    pub max_backoff: Option<Location>,
    /// One of the two is there and was refused: what is meant is unknown.
    pub doubtful: bool,
}

/// Adds the queues that the file declares.
pub fn read(document: &Document, sources: &mut Sources, key: Location, value: &Spanned<DeValue>) {
    sources.queues_at = Some(key);
    declaration::each(document, sources, QUEUES, value, |mut declaration, name, value| {
        if !queue::is_name(name) {
            declaration.refuse("", declaration.at.clone(), WRONG_NAME);
        }
        let declared = declared(&mut declaration, value);
        declaration.sources.queues.insert(name.into(), declared);
    });
}

const WRONG_NAME: &str = "is not a name for a queue; write lower-case letters, digits, ., - and _, \
                          the first a letter or digit, at most 63 in all";

fn declared(declaration: &mut Declaration, value: &Spanned<DeValue>) -> Declared {
    let keys: Vec<_> = Field::ALL.into_iter().map(Field::name).chain([BURST]).collect();
    let right = "a table [queues.NAME] with its settings";
    match declaration.table(value, &keys, right) {
        Some(table) => Reading { declaration, table }.declared(),
        None => Declared::default(),
    }
}

/// The reading of one queue.
struct Reading<'r, 'd, 't, 'i> {
    declaration: &'r mut Declaration<'d>,
    table: &'t DeTable<'i>,
}

impl<'t, 'i> Reading<'_, '_, 't, 'i> {
    fn declared(mut self) -> Declared {
        let mut own = Overrides::default();
        for field in Field::ALL {
            own.set(field, self.value(field));
        }
        let location = |field: Field, read: bool| {
            let value = self.get(field.name()).filter(|_| read)?;
            Some(self.declaration.location(field.name(), &value.span()))
        };
        let refused = |field: Field, read: bool| !read && self.get(field.name()).is_some();
        let (initial, max) = (own.initial_backoff.is_some(), own.max_backoff.is_some());
        Declared {
            own,
            initial_backoff: location(Field::InitialBackoff, initial),
            max_backoff: location(Field::MaxBackoff, max),
            doubtful: refused(Field::InitialBackoff, initial) || refused(Field::MaxBackoff, max),
        }
    }

    fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.table.iter().find(|(k, _)| k.get_ref() == key).map(|(_, value)| value)
    }

    /// What the file says of `field`; `None` if that is nothing, or was refused.
    fn value(&mut self, field: Field) -> Option<Value> {
        let key = field.name();
        match field.kind() {
            Kind::Count(bounds) => self.count(key, &bounds).map(Value::Count),
            Kind::Limit { bounds, .. } => self.count(key, &(0..=*bounds.end())).map(Value::Count),
            Kind::Size(bounds) => self.size(key, &bounds).map(Value::Count),
            Kind::Duration(bounds) => self.duration(key, &bounds).map(Value::Duration),
            Kind::Rate => self.rate(key).map(Value::Rate),
        }
    }

    fn count(&mut self, key: &str, bounds: &RangeInclusive<u64>) -> Option<u64> {
        let right = right("a whole number", bounds, |count| *count);
        let parse = |text: &str| text.trim().parse().map_err(|_| impossible(text, &right));
        self.bounded(key, bounds, &right, parse)
    }

    fn size(&mut self, key: &str, bounds: &RangeInclusive<u64>) -> Option<u64> {
        let right = right("a size", bounds, |size| show_size(*size));
        self.bounded(key, bounds, &right, |text| {
            units::parse_size(text).map_err(|wrong| wrong.to_string())
        })
    }

    fn duration(&mut self, key: &str, bounds: &RangeInclusive<Duration>) -> Option<Duration> {
        let right = right("a duration", bounds, |span| show_duration(*span));
        self.bounded(key, bounds, &right, |text| {
            units::parse_duration(text).map_err(|wrong| wrong.to_string())
        })
    }

    /// Both keys of the rate: `rate_limit = "100/s"`, and perhaps `burst = 10`.
    #[expect(clippy::option_option, reason = "as in Overrides: none may be said")]
    fn rate(&mut self, key: &str) -> Option<Option<Rate>> {
        let per_second = self.text(key, RATE).and_then(|text| match rate::parse(&text) {
            Ok(Some(rate)) if !queue::STARTS_PER_SECOND.contains(&rate) => {
                self.refuse(key, impossible(&text, RATE))
            }
            Ok(rate) => Some(rate),
            Err(wrong) => self.refuse(key, wrong.to_string()),
        });
        let bounds = u64::from(*queue::BURST.start())..=u64::from(*queue::BURST.end());
        let burst =
            self.count(BURST, &bounds).map(|burst| u32::try_from(burst).unwrap_or(u32::MAX));
        if self.get(BURST).is_some() && (self.get(key).is_none() || per_second == Some(None)) {
            let wrong = "belongs to a rate_limit; write one beside it, such as \"100/s\"";
            self.refuse::<()>(BURST, wrong);
        }
        per_second.map(|rate| rate.map(|per_second| Rate { per_second, burst: burst.unwrap_or(1) }))
    }

    /// The value of `key` within bounds; `None` if it is not there or was refused.
    fn bounded<T: PartialOrd>(
        &mut self,
        key: &str,
        bounds: &RangeInclusive<T>,
        right: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(key, right)?;
        match parse(&text) {
            Ok(value) if bounds.contains(&value) => Some(value),
            Ok(_) => self.refuse(key, impossible(&text, right)),
            Err(wrong) => self.refuse(key, wrong),
        }
    }

    fn text(&mut self, key: &str, right: &str) -> Option<String> {
        let value = self.get(key)?;
        let text = scalar(value.get_ref());
        if text.is_none() {
            self.declaration.refuse_type(key, value, right);
        }
        text
    }

    /// Notes a problem with the value of `key`, which there is then none of.
    fn refuse<T>(&mut self, key: &str, wrong: impl Into<String>) -> Option<T> {
        let at = self.get(key).map(Spanned::span)?;
        self.declaration.refuse(key, at, wrong);
        None
    }
}

/// What [`queue::STARTS_PER_SECOND`] takes, as people write it.
const RATE: &str =
    "a rate from 8.64/d to 1000000/s such as \"100/s\", \"30/m\" or \"5/h\", or \"none\"";

fn right<T, D: Display>(what: &str, bounds: &RangeInclusive<T>, show: impl Fn(&T) -> D) -> String {
    format!("{what} from {} to {}", show(bounds.start()), show(bounds.end()))
}

fn impossible(text: &str, right: &str) -> String {
    format!("{} is not possible; write {right}", quoted(text))
}
