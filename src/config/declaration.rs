//! A table `[KIND.NAME]` of the file, which declares one thing of a kind.
//!
//! Owns what all declarations share: their locations, and how a problem with one of
//! their keys is told. Must not know what any kind holds.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    file::{Document, type_of, unknown},
    load::Sources,
    problem::Location,
};

/// The reading of one declaration.
pub struct Declaration<'d> {
    pub document: &'d Document<'d>,
    pub sources: &'d mut Sources,
    /// `KIND.NAME`.
    pub path: String,
    /// Where the name is.
    pub at: Range<usize>,
}

/// Hands each declaration of a kind to `read`, with its name and its value.
pub fn each(
    document: &Document,
    sources: &mut Sources,
    kind: &str,
    value: &Spanned<DeValue>,
    mut read: impl FnMut(Declaration, &str, &Spanned<DeValue>),
) {
    let Some(table) = value.get_ref().as_table() else {
        let wrong = type_of(value.get_ref());
        let wrong = format!("is {wrong}; write tables [{kind}.NAME], one for each");
        return document.refuse(sources, &value.span(), kind, wrong);
    };
    for (name, value) in table {
        let path = format!("{kind}.{}", name.get_ref());
        read(Declaration { document, sources, path, at: name.span() }, name.get_ref(), value);
    }
}

impl Declaration<'_> {
    /// Its table; what else it is, and keys that are not among `keys`, is refused.
    pub fn table<'v, 'i>(
        &mut self,
        value: &'v Spanned<DeValue<'i>>,
        keys: &[&str],
        right: &str,
    ) -> Option<&'v DeTable<'i>> {
        let Some(table) = value.get_ref().as_table() else {
            self.refuse_type("", value, right);
            return None;
        };
        for (key, _) in table {
            if !keys.contains(&key.get_ref().as_ref()) {
                let wrong = unknown(key.get_ref(), keys.iter().copied());
                self.refuse(key.get_ref(), key.span(), wrong);
            }
        }
        Some(table)
    }

    /// A string that the operating system can take.
    pub fn string(&mut self, key: &str, value: &Spanned<DeValue>) -> Option<String> {
        match value.get_ref().as_str() {
            Some(text) if !text.contains('\0') => Some(text.into()),
            Some(_) => {
                self.refuse(key, value.span(), "holds a NUL character; write a string without");
                None
            }
            None => {
                self.refuse_type(key, value, "a string");
                None
            }
        }
    }

    /// Notes that `key` has a value of another type than is right.
    pub fn refuse_type(&mut self, key: &str, value: &Spanned<DeValue>, right: &str) {
        let wrong = format!("is {}; write {right}", type_of(value.get_ref()));
        self.refuse(key, value.span(), wrong);
    }

    /// Notes a problem with `key` of this declaration, or with all of it if empty.
    pub fn refuse(&mut self, key: &str, at: Range<usize>, wrong: impl Into<String>) {
        self.document.refuse(self.sources, &at, &self.path_of(key), wrong);
    }

    /// The location of a span that belongs to `key`.
    pub fn location(&self, key: &str, at: &Range<usize>) -> Location {
        self.document.location(at, &self.path_of(key))
    }

    fn path_of(&self, key: &str) -> String {
        if key.is_empty() { self.path.clone() } else { format!("{}.{key}", self.path) }
    }
}
