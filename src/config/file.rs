//! Settings from a TOML file.
//!
//! Owns reading the file and finding the line and column of everything in it.
//! Must not know what the settings mean.

use std::{collections::BTreeSet, ffi::OsStr, fs::File, io::Read, ops::Range};

use taskyard_text::{closest, quoted, short};
use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
};

use super::{commands, load::Sources, problem::Location, queues, settings::Setting, table};

/// The key of the table in which the commands are declared.
pub const COMMANDS: &str = "exec";

/// The key of the table in which queues are declared.
pub const QUEUES: &str = "queues";

/// What some editors begin a text with. It is not a part of the text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Bytes of a configuration file.
const MAX_FILE: u64 = 1 << 20;

/// Adds what the file at `path` sets, which `named_by` a flag or a variable.
pub fn read(sources: &mut Sources, named_by: Location, path: &OsStr) {
    let name = path.to_string_lossy();
    match content(path) {
        Ok(text) => Document::new(&name, &text).read(sources),
        Err(wrong) => sources.refuse(named_by, format!("cannot read {}: {wrong}", quoted(&name))),
    }
}

/// The text of a file.
fn content(path: &OsStr) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|wrong| wrong.to_string())?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|wrong| wrong.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("it is larger than 1MiB".into());
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|wrong| {
        format!("it is not UTF-8 text after byte {}", wrong.utf8_error().valid_up_to())
    })
}

/// A file's text, with what is needed to say where in it something is.
pub struct Document<'t> {
    name: &'t str,
    text: &'t str,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
    /// Lines that are not TOML. What the parser makes of the rest of such a line
    /// is a guess, of which nothing more is reported.
    broken: BTreeSet<usize>,
}

impl<'t> Document<'t> {
    fn new(name: &'t str, text: &'t str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            name,
            text,
            lines: std::iter::once(0).chain(breaks).collect(),
            broken: BTreeSet::new(),
        }
    }

    fn read(mut self, sources: &mut Sources) {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let span = error.span().unwrap_or(self.text.len()..self.text.len());
            if self.broken.insert(self.line(span.start)) {
                sources
                    .refuse(self.location(&span, ""), format!("is not TOML: {}", error.message()));
            }
        }
        for (key, value) in table.get_ref() {
            self.read_one(sources, key, value);
        }
    }

    fn read_one(
        &self,
        sources: &mut Sources,
        key: &Spanned<impl AsRef<str>>,
        value: &Spanned<DeValue>,
    ) {
        let name = key.get_ref().as_ref();
        if name == COMMANDS {
            return commands::read(self, sources, value);
        }
        if name == QUEUES {
            return queues::read(self, sources, self.location(&key.span(), QUEUES), value);
        }
        if let Some(setting) = table::settings().find(|setting| setting.key() == name) {
            return self.read_setting(sources, setting, value);
        }
        let keys = table::settings().map(Setting::key).collect::<Vec<_>>();
        let known = keys.iter().map(String::as_str).chain([COMMANDS, QUEUES]);
        self.refuse(sources, &key.span(), name, unknown(name, known));
    }

    fn read_setting(
        &self,
        sources: &mut Sources,
        setting: &'static Setting,
        value: &Spanned<DeValue>,
    ) {
        let key = setting.key();
        let text = match value.get_ref() {
            DeValue::Boolean(on) if setting.is_switch() => Some(on.to_string()),
            other => scalar(other),
        };
        match text {
            _ if self.is_broken(&value.span()) => {}
            Some(text) => sources.set(setting, self.location(&value.span(), &key), text),
            None => {
                let wrong = format!("is {}; write {}", type_of(value.get_ref()), setting.right());
                self.refuse(sources, &value.span(), &key, wrong);
            }
        }
    }

    /// Notes a problem, unless its line is not TOML anyway.
    pub fn refuse(
        &self,
        sources: &mut Sources,
        span: &Range<usize>,
        key: &str,
        wrong: impl Into<String>,
    ) {
        if !self.is_broken(span) {
            sources.refuse(self.location(span, key), wrong);
        }
    }

    /// The location at which a span begins.
    pub fn location(&self, span: &Range<usize>, key: &str) -> Location {
        let line = self.line(span.start);
        let before = self.text.get(self.lines[line - 1]..span.start).unwrap_or_default();
        Location::File {
            file: self.name.into(),
            line,
            column: before.chars().count() + 1,
            key: short(key),
        }
    }

    fn is_broken(&self, span: &Range<usize>) -> bool {
        self.broken.contains(&self.line(span.start))
    }

    /// The line, from 1, that holds the byte `at`.
    fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|begin| *begin <= at)
    }
}

/// What is wrong with a key that means nothing.
pub fn unknown<'a>(key: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(meant) = closest(key, known.clone()) {
        return format!("is not a setting; did you mean {meant}?");
    }
    let known = known.into_iter().collect::<Vec<_>>();
    format!("is not a setting; the settings are {}", known.join(", "))
}

/// A value as the text that a flag would have; `None` for one that no setting takes.
pub fn scalar(value: &DeValue) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(decimal(number)),
        _ => None,
    }
}

/// An integer in base 10, whatever its base in the file; as it is if it is huge.
fn decimal(number: &DeInteger) -> String {
    i128::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| number.to_string(), |number| number.to_string())
}

/// What a value is, in words.
pub fn type_of(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
