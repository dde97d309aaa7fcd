//! JSON as people write it, in which a name may stand twice by mistake.
//!
//! Owns that nothing of such a text is dropped without a word. Must not know what it is for.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};

/// JSON with all that was written.
#[derive(Debug)]
pub enum Tree {
    /// An object, each name as often as it stands there.
    Object(Vec<(String, Tree)>),
    /// A list.
    List(Vec<Tree>),
    /// Anything else.
    Scalar(Value),
}

/// A name stands twice in an object: its path.
#[derive(Debug, PartialEq, Eq)]
pub struct Twice(String);

impl Twice {
    /// What to say of it, if `outermost` is what was looked at.
    pub fn within(self, outermost: &str) -> String {
        format!("{outermost}{}: is given twice", self.0)
    }
}

/// Reads a text, which may begin with a byte order mark.
///
/// # Errors
/// It is not JSON, or nests deeper than 127.
pub fn read(text: &str) -> serde_json::Result<Tree> {
    serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Why a text is no JSON, without the place.
pub fn cause(wrong: &serde_json::Error) -> String {
    let text = wrong.to_string();
    match text.split(" at line ").next().unwrap_or_default() {
        "recursion limit exceeded" => "it is nested too deep".into(),
        cause => cause.into(),
    }
}

impl Tree {
    /// As a value.
    ///
    /// # Errors
    /// The first name that stands twice.
    pub fn into_value(self) -> Result<Value, Twice> {
        match self {
            Self::Scalar(value) => Ok(value),
            Self::List(items) => {
                let one = |(at, item): (usize, Self)| {
                    item.into_value().map_err(|Twice(path)| Twice(format!("[{at}]{path}")))
                };
                items.into_iter().enumerate().map(one).collect()
            }
            Self::Object(pairs) => {
                let mut names = HashSet::new();
                let twice = pairs.iter().find(|(name, _)| !names.insert(name.as_str()));
                if let Some((name, _)) = twice {
                    return Err(Twice(format!(".{name}")));
                }
                let one = |(name, value): (String, Self)| match value.into_value() {
                    Ok(value) => Ok((name, value)),
                    Err(Twice(path)) => Err(Twice(format!(".{name}{path}"))),
                };
                pairs.into_iter().map(one).collect()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Tree::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Tree, A::Error> {
        let mut object = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            object.push(pair);
        }
        Ok(Tree::Object(object))
    }
}
