//! JSON as the wire carries it: `google.protobuf.Struct`, whose numbers are doubles.
//!
//! Owns that no number changes on its way without a word.

use std::fmt;

use prost_types::{ListValue, Struct, Value as WireValue, value::Kind};
use serde::Serialize;
use serde_json::{Map, Number, Value};

use crate::proto::v1::submit_request::Payload;

/// 2^53: a double holds every whole number up to here.
const EXACT: u64 = 1 << 53;

/// Why something cannot be a task's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadArgs(String);

impl fmt::Display for BadArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadArgs {}

/// A task's arguments: what becomes a JSON object, such as a struct, a map, or what
/// `serde_json::json!` makes.
///
/// # Errors
/// It becomes something else, or a number in it would change on the wire: beyond 2^53,
/// or none that is finite.
pub fn args(args: impl Serialize) -> Result<Payload, BadArgs> {
    match serde_json::to_value(args) {
        Ok(Value::Object(object)) => to_struct(object, "args").map(Payload::Args).map_err(BadArgs),
        Ok(_) => Err(BadArgs("args: must become a JSON object".into())),
        Err(wrong) => Err(BadArgs(format!("args: {wrong}"))),
    }
}

/// An object for the wire, where numbers are doubles; `path` is how it is called.
///
/// # Errors
/// Which number would change on the way.
pub(crate) fn to_struct(object: Map<String, Value>, path: &str) -> Result<Struct, String> {
    let fields = object
        .into_iter()
        .map(|(key, value)| {
            let value = to_wire(value, &format!("{path}.{key}"))?;
            Ok((key, value))
        })
        .collect::<Result<_, String>>()?;
    Ok(Struct { fields })
}

fn to_wire(value: Value, path: &str) -> Result<WireValue, String> {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => Kind::NumberValue(to_double(&number, path)?),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            let values = items
                .into_iter()
                .enumerate()
                .map(|(place, item)| to_wire(item, &format!("{path}[{place}]")))
                .collect::<Result<_, String>>()?;
            Kind::ListValue(ListValue { values })
        }
        Value::Object(object) => Kind::StructValue(to_struct(object, path)?),
    };
    Ok(WireValue { kind: Some(kind) })
}

fn to_double(number: &Number, path: &str) -> Result<f64, String> {
    let whole = number.as_i64().map(i64::unsigned_abs).or_else(|| number.as_u64());
    let exact = whole.is_none_or(|whole| whole <= EXACT);
    match number.as_f64().filter(|double| exact && double.is_finite()) {
        Some(double) => Ok(double),
        None => Err(format!("{path}: {number} cannot be carried exactly; send it as a string")),
    }
}

/// A value from the wire. Whole numbers are written without a point.
pub(crate) fn from_wire(value: WireValue) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(double)) => number(double),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(from_wire).collect(),
        Some(Kind::StructValue(object)) => from_struct(object),
    }
}

/// An object from the wire.
pub(crate) fn from_struct(object: Struct) -> Value {
    object.fields.into_iter().map(|(key, value)| (key, from_wire(value))).collect()
}

fn number(double: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "checked to be whole and within 2^53"
    )]
    if double.fract() == 0.0 && double.abs() <= EXACT as f64 {
        Value::from(double as i64)
    } else {
        Number::from_f64(double).map_or(Value::Null, Value::Number)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("an object")
    }

    #[test]
    fn arguments_come_back_as_they_went() {
        let text = r#"{"a":1,"b":[true,null,"x"],"c":{"d":0.5,"e":-7}}"#;
        let there = to_struct(object(text), "args").expect("all of it can be carried");
        assert_eq!(from_struct(there).to_string(), text);
    }

    #[test]
    fn a_number_that_would_change_is_refused_by_name() {
        let wrong = to_struct(object(r#"{"a":[{"id":9007199254740993}]}"#), "args");
        let message = wrong.expect_err("2^53 + 1 is not a double");
        assert!(message.starts_with("args.a[0].id: 9007199254740993"), "{message}");
    }

    #[test]
    fn only_objects_are_arguments() {
        let Ok(Payload::Args(object)) = args(json!({ "duration": "1s" })) else { panic!("it is") };
        assert_eq!(from_struct(object), json!({ "duration": "1s" }));
        assert_eq!(args(7).expect_err("a number").to_string(), "args: must become a JSON object");
        assert!(args(json!({ "id": u64::MAX })).is_err());
    }
}
