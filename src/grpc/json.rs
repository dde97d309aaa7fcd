//! JSON text and `google.protobuf.Struct`, back and forth.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde_json::{Map, Number, Value as Json};

/// A struct as JSON. Whole numbers that a double holds exactly are written
/// without a fraction, so that handlers can read them as integers.
///
/// # Errors
/// The path, below `at`, of a number that JSON has no form for: NaN or an infinity.
pub fn from_struct(fields: Struct, at: &str) -> Result<Map<String, Json>, String> {
    object(fields).map_err(|path| format!("{at}{path}"))
}

/// The path of what has no form is put together on the way back, and only then:
/// a request decides how many values there are, and how long their names.
fn object(fields: Struct) -> Result<Map<String, Json>, String> {
    let field = |(name, value)| match from_value(value) {
        Ok(value) => Ok((name, value)),
        Err(path) => Err(format!(".{name}{path}")),
    };
    fields.fields.into_iter().map(field).collect()
}

fn from_value(value: Value) -> Result<Json, String> {
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(value),
        Some(Kind::StringValue(text)) => Json::String(text),
        Some(Kind::NumberValue(number)) => Json::Number(from_double(number).ok_or("")?),
        Some(Kind::StructValue(fields)) => Json::Object(object(fields)?),
        Some(Kind::ListValue(list)) => {
            let element = |(at, value)| from_value(value).map_err(|path| format!("[{at}]{path}"));
            Json::Array(list.values.into_iter().enumerate().map(element).collect::<Result<_, _>>()?)
        }
    })
}

fn from_double(number: f64) -> Option<Number> {
    /// Beyond this, neighbouring whole numbers are the same double.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
        return Some(Number::from(number as i64));
    }
    Number::from_f64(number)
}

/// JSON as a `google.protobuf.Value`.
pub fn to_value(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(to_value).collect() })
        }
        Json::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    Value { kind: Some(kind) }
}

/// A JSON object as a `google.protobuf.Struct`.
pub fn to_struct(fields: Map<String, Json>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name, to_value(value))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_survives_the_way_there_and_back() {
        let text = r#"{"a":1,"b":[true,null,"x",{"c":-0.5}],"big":9007199254740992,"f":1e300}"#;
        let json: Map<String, Json> = serde_json::from_str(text).unwrap();
        assert_eq!(from_struct(to_struct(json.clone()), "args").unwrap(), json);
    }

    #[test]
    fn numbers_without_a_json_form_are_named() {
        let nan = Value { kind: Some(Kind::NumberValue(f64::NAN)) };
        let list = Value { kind: Some(Kind::ListValue(ListValue { values: vec![nan] })) };
        let fields = Struct { fields: [("deep".to_owned(), list)].into() };
        assert_eq!(from_struct(fields, "args").unwrap_err(), "args.deep[0]");
    }
}
