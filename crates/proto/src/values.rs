//! JSON values: their two forms, and what they may be.
//!
//! Owns the way between JSON and `google.protobuf.Struct` and `Value`, in which numbers
//! are doubles, and what holds for arguments and results alike: how deep they may nest,
//! and that no number becomes another one. The server and the client both convert here.
//! Must not know tasks, requests or files.

mod scan;

use std::fmt;

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Number, Value as Json};

pub use scan::scan;

/// How deep arguments and results may nest: objects and lists within each other, the
/// outermost counted. `{"a": [1]}` has 2.
///
/// Those who decode it set the bound. An object within an object takes three levels of
/// nested messages (`Struct`, its entry, `Value`), a list two (`Value`, `ListValue`). The
/// result of a task stands deepest, four levels within `GetTaskResponse` (`Task`,
/// `TaskResult`, `Value`, `Struct`): with objects alone, 20 of them take 63 levels. Rust,
/// Python, Java, C++ and C# decode 100, Ruby 63, Go 10,000, and TypeScript as much as its
/// stack holds. So whoever wraps a task once more has room for it.
pub const MAX_DEPTH: usize = 20;

/// 2^53 - 1: up to here each whole number is a double, and no other one becomes it.
pub const MAX_EXACT: u64 = (1 << 53) - 1;

/// What stands in the place of what is nested too deep to be shown.
const LEFT_OUT: &str = "(nested too deep to be shown)";

/// What cannot be an argument or a result, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Below what was looked at: `.a[0].b`; empty for itself.
    pub path: String,
    /// What is wrong there.
    pub why: Why,
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is an object or a list, and more than this many stand around it or are it.
    TooDeep(usize),
    /// NaN, or an infinity.
    NotFinite,
    /// A whole number that would become another one, as it was written.
    NotExact(String),
}

impl Wrong {
    fn here(why: Why) -> Self {
        Self { path: String::new(), why }
    }

    /// As seen from outside of `step`.
    fn within(mut self, step: impl fmt::Display) -> Self {
        self.path.insert_str(0, &step.to_string());
        self
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep(most) => {
                write!(f, "is nested too deep; at most {most} objects and lists within each other")
            }
            Self::NotFinite => f.write_str("JSON has no form for NaN and infinities"),
            Self::NotExact(number) => {
                write!(f, "{number} cannot be carried exactly; send it as a string")
            }
        }
    }
}

/// The step into the field `name` of an object. The path is put together on the way back,
/// and only then: a request decides how many values there are, and how long their names.
fn field<T>(name: &str, result: Result<T, Wrong>) -> Result<T, Wrong> {
    result.map_err(|wrong| wrong.within(format_args!(".{name}")))
}

/// The step into an element of a list.
fn element<T>(at: usize, result: Result<T, Wrong>) -> Result<T, Wrong> {
    result.map_err(|wrong| wrong.within(format_args!("[{at}]")))
}

/// The arguments of a submission as JSON. Whole numbers up to [`MAX_EXACT`] are written
/// without a fraction, so that handlers can read them as integers.
///
/// # Errors
/// The first value that is nested deeper than [`MAX_DEPTH`], or that JSON has no form for.
pub fn from_struct(fields: Struct) -> Result<Map<String, Json>, Wrong> {
    object_within(MAX_DEPTH, fields)
}

/// `room` is how many objects and lists there may be, this one counted.
fn object_within(room: usize, fields: Struct) -> Result<Map<String, Json>, Wrong> {
    let room = room.checked_sub(1).ok_or_else(|| Wrong::here(Why::TooDeep(MAX_DEPTH)))?;
    let one = |(name, value): (String, Value)| {
        let value = field(&name, from_value_within(room, value))?;
        Ok((name, value))
    };
    fields.fields.into_iter().map(one).collect()
}

fn from_value_within(room: usize, value: Value) -> Result<Json, Wrong> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::StringValue(text)) => Json::String(text),
        Some(Kind::NumberValue(double)) => {
            Json::Number(number(double).ok_or_else(|| Wrong::here(Why::NotFinite))?)
        }
        Some(Kind::StructValue(fields)) => Json::Object(object_within(room, fields)?),
        Some(Kind::ListValue(list)) => {
            let room = room.checked_sub(1).ok_or_else(|| Wrong::here(Why::TooDeep(MAX_DEPTH)))?;
            let one = |(at, value)| element(at, from_value_within(room, value));
            Json::Array(list.values.into_iter().enumerate().map(one).collect::<Result<_, _>>()?)
        }
    })
}

/// A double as JSON; `None` if it has no form for it. Zero keeps its sign.
fn number(double: f64) -> Option<Number> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "whole and within 53 bits"
    )]
    if is_whole(double) && double.abs() <= MAX_EXACT as f64 && !is_negative_zero(double) {
        return Some(Number::from(double as i64));
    }
    Number::from_f64(double)
}

fn is_negative_zero(double: f64) -> bool {
    double.to_bits() == (-0.0_f64).to_bits()
}

fn is_whole(double: f64) -> bool {
    double.fract() == 0.0
}

/// Whether this number, having been a double, may have been another whole number before.
#[must_use]
pub fn may_have_changed(number: &Number) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "it is a power of two less one")]
    number.as_f64().is_some_and(|double| {
        number.is_f64() && is_whole(double) && double.abs() > MAX_EXACT as f64
    })
}

/// A value that somebody else sent, as JSON, for showing: of any depth, and what JSON has no
/// form for is null.
pub fn shown(value: Value) -> Json {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::NumberValue(double)) => number(double).map_or(Json::Null, Json::Number),
        Some(Kind::StringValue(text)) => Json::String(text),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(shown).collect(),
        Some(Kind::StructValue(object)) => shown_object(object),
    }
}

/// [`shown`] of an object.
pub fn shown_object(object: Struct) -> Json {
    object.fields.into_iter().map(|(name, value)| (name, shown(value))).collect()
}

/// An object for the wire.
///
/// # Errors
/// Which number would change on the way.
pub fn to_struct(object: Map<String, Json>) -> Result<Struct, Wrong> {
    let one = |(name, value): (String, Json)| {
        let value = field(&name, to_value(value))?;
        Ok((name, value))
    };
    Ok(Struct { fields: object.into_iter().map(one).collect::<Result<_, _>>()? })
}

fn to_value(value: Json) -> Result<Value, Wrong> {
    let kind = match value {
        Json::Number(number) => Kind::NumberValue(to_double(&number)?),
        Json::Array(items) => {
            let one = |(at, item)| element(at, to_value(item));
            let values = items.into_iter().enumerate().map(one).collect::<Result<_, _>>()?;
            Kind::ListValue(ListValue { values })
        }
        Json::Object(object) => Kind::StructValue(to_struct(object)?),
        other => scalar(other),
    };
    Ok(Value { kind: Some(kind) })
}

/// What neither nests nor is a number.
fn scalar(value: Json) -> Kind {
    match value {
        Json::Bool(value) => Kind::BoolValue(value),
        Json::String(text) => Kind::StringValue(text),
        _ => Kind::NullValue(0),
    }
}

fn to_double(number: &Number) -> Result<f64, Wrong> {
    let whole = number.as_i64().map(i64::unsigned_abs).or_else(|| number.as_u64());
    let exact = whole.is_none_or(|whole| whole <= MAX_EXACT);
    let double = number.as_f64().filter(|double| exact && double.is_finite());
    double.ok_or_else(|| Wrong::here(Why::NotExact(number.to_string())))
}

/// An object that was stored, for the wire. A store from before there was a bound may have
/// one that is nested deeper than clients decode: what is too deep is left out, and a string
/// in its place says so.
pub fn stored_object(object: Map<String, Json>) -> Struct {
    stored_fields(MAX_DEPTH - 1, object)
}

/// [`stored_object`], of any JSON text. What cannot be read is too deep for that, as nothing
/// else is stored.
pub fn stored(text: &str) -> Value {
    let json = serde_json::from_str(text).unwrap_or_else(|_| LEFT_OUT.into());
    stored_within(MAX_DEPTH, json)
}

fn stored_fields(room: usize, object: Map<String, Json>) -> Struct {
    let one = |(name, value)| (name, stored_within(room, value));
    Struct { fields: object.into_iter().map(one).collect() }
}

fn stored_within(room: usize, value: Json) -> Value {
    let kind = match value {
        Json::Array(_) | Json::Object(_) if room == 0 => Kind::StringValue(LEFT_OUT.into()),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::Array(items) => {
            let values = items.into_iter().map(|item| stored_within(room - 1, item)).collect();
            Kind::ListValue(ListValue { values })
        }
        Json::Object(object) => Kind::StructValue(stored_fields(room - 1, object)),
        other => scalar(other),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests;
