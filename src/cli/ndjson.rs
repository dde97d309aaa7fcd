//! One line of `submit --from`: a JSON object that becomes a request.
//!
//! Owns the names and the spelling of the fields, which are those of
//! `SubmitRequest` in proto3 JSON, in `snake_case` or `camelCase`. Must not know
//! files or servers.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor},
};
use serde_json::Value;

use super::{json, units};
use crate::{
    client::to_struct,
    proto::v1::{RetryPolicy, SubmitRequest, WhenFull, submit_request::Payload},
    queue::MAX_ATTEMPTS,
};

/// Reads a line.
///
/// # Errors
/// Everything that is wrong with it, each naming its key.
pub fn parse(line: &[u8]) -> Result<SubmitRequest, Vec<String>> {
    let Pairs(pairs) = serde_json::from_slice(line).map_err(|wrong| vec![not_an_object(&wrong)])?;
    let mut reading = Reading::default();
    for (key, value) in pairs {
        if let Err(wrong) = reading.field(&key, value) {
            reading.wrong.push(wrong);
        }
    }
    reading.finish()
}

/// The position serde names is within the line, which has a number already.
fn not_an_object(wrong: &serde_json::Error) -> String {
    let text = wrong.to_string();
    let cause = text.split(" at line ").next().unwrap_or_default();
    format!("is not a JSON object: {cause} at column {}", wrong.column())
}

#[derive(Default)]
struct Reading {
    request: SubmitRequest,
    seen: Vec<&'static str>,
    wrong: Vec<String>,
}

/// The keys that there are.
const KEYS: [&str; 12] = [
    "kind",
    "args",
    "data",
    "queue",
    "priority",
    "delay",
    "run_at",
    "timeout",
    "retry",
    "labels",
    "request_id",
    "when_full",
];

impl Reading {
    fn field(&mut self, key: &str, value: Value) -> Result<(), String> {
        let name = known(key, &KEYS)
            .ok_or_else(|| format!("unknown key {key:?}; there are: {}", KEYS.join(", ")))?;
        if self.seen.contains(&name) {
            return Err(format!("{name}: is given twice"));
        }
        self.seen.push(name);
        if value.is_null() {
            return Ok(());
        }
        self.set(name, value).map_err(|wrong| {
            if wrong.starts_with(name) { wrong } else { format!("{name}: {wrong}") }
        })
    }

    fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        let request = &mut self.request;
        match name {
            "kind" => request.kind = text(value)?,
            "args" => request.payload = Some(Payload::Args(args(value)?)),
            "data" => request.payload = Some(Payload::Data(json::from_base64(&text(value)?)?)),
            "queue" => request.queue = given(value)?,
            "priority" => request.priority = integer(&value)?,
            "delay" => request.delay = Some(span(value)?),
            "run_at" => request.run_at = Some(units::parse_time(&text(value)?)?),
            "timeout" => request.timeout = Some(span(value)?),
            "retry" => request.retry = Some(retry(value)?),
            "labels" => request.labels = labels(value)?,
            "request_id" => request.request_id = given(value)?,
            "when_full" => request.when_full = when_full(&text(value)?)?.into(),
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self) -> Result<SubmitRequest, Vec<String>> {
        if self.request.kind.is_empty() && !self.wrong.iter().any(|wrong| wrong.starts_with("kind"))
        {
            self.wrong.push("kind: is required".into());
        }
        for (one, other) in [("args", "data"), ("delay", "run_at")] {
            if self.seen.contains(&one) && self.seen.contains(&other) {
                self.wrong.push(format!("{one}: cannot be given together with {other}"));
            }
        }
        if self.wrong.is_empty() { Ok(self.request) } else { Err(self.wrong) }
    }
}

/// The name that `key` spells, in `snake_case` or `camelCase`.
fn known(key: &str, names: &[&'static str]) -> Option<&'static str> {
    names.iter().find(|name| **name == key || camel(name) == key).copied()
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut text, word| {
        text.push_str(&word[..1].to_ascii_uppercase());
        text.push_str(&word[1..]);
        text
    })
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("must be a string, not {}", type_of(&other))),
    }
}

fn integer(value: &Value) -> Result<i32, String> {
    value
        .as_i64()
        .and_then(|number| i32::try_from(number).ok())
        .ok_or_else(|| format!("must be a whole number, not {value}"))
}

fn span(value: Value) -> Result<prost_types::Duration, String> {
    units::parse_span(&text(value)?).map(units::to_wire)
}

/// Arguments: an object.
///
/// # Errors
/// What it is instead, or which number cannot be carried.
pub fn args(value: Value) -> Result<prost_types::Struct, String> {
    match value {
        Value::Object(object) => to_struct(object, "args"),
        other => Err(format!("must be an object, not {}", type_of(&other))),
    }
}

fn retry(value: Value) -> Result<RetryPolicy, String> {
    const KEYS: [&str; 3] = ["max_attempts", "initial_backoff", "max_backoff"];
    let mut policy = RetryPolicy::default();
    for (key, value) in object(value)? {
        let set = match known(&key, &KEYS) {
            None => return Err(format!("unknown key {key:?}; there are: {}", KEYS.join(", "))),
            Some(_) if value.is_null() => Ok(()),
            Some("max_attempts") => attempts(&value).map(|number| policy.max_attempts = number),
            Some("initial_backoff") => span(value).map(|span| policy.initial_backoff = Some(span)),
            Some(_) => span(value).map(|span| policy.max_backoff = Some(span)),
        };
        set.map_err(|wrong| format!("retry.{key}: {wrong}"))?;
    }
    Ok(policy)
}

/// A number of attempts. On the wire 0 means that nothing is said; whoever writes it here
/// means something.
fn attempts(value: &Value) -> Result<u32, String> {
    let (least, most) = (MAX_ATTEMPTS.start(), MAX_ATTEMPTS.end());
    integer(value)
        .ok()
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| MAX_ATTEMPTS.contains(number))
        .ok_or_else(|| format!("must be a whole number from {least} to {most}, not {value}"))
}

/// A text that says something; what is empty counts on the wire as not given.
fn given(value: Value) -> Result<String, String> {
    match text(value)? {
        empty if empty.is_empty() => Err("is empty; leave it out for the default".into()),
        text => Ok(text),
    }
}

fn labels(value: Value) -> Result<BTreeMap<String, String>, String> {
    let label = |(key, value)| match text(value) {
        Ok(value) => Ok((key, value)),
        Err(wrong) => Err(format!("labels.{key}: {wrong}")),
    };
    object(value)?.into_iter().map(label).collect()
}

fn object(value: Value) -> Result<serde_json::Map<String, Value>, String> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(format!("must be an object, not {}", type_of(&other))),
    }
}

fn when_full(text: &str) -> Result<WhenFull, String> {
    match text.strip_prefix("WHEN_FULL_").unwrap_or(text) {
        "WAIT" => Ok(WhenFull::Wait),
        "REJECT" => Ok(WhenFull::Reject),
        "UNSPECIFIED" => Ok(WhenFull::Unspecified),
        _ => Err(format!("must be WAIT or REJECT, not {text:?}")),
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The entries of an object as they stand, so that a key given twice is seen.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(line: &str) -> Vec<String> {
        parse(line.as_bytes()).expect_err(line)
    }

    #[test]
    fn every_field_is_read_in_both_spellings() {
        let snake = r#"{"kind":"sleep","args":{"duration":"2s"},"queue":"q","priority":-3,
            "run_at":"2025-12-24T12:00:00Z","timeout":"30s","labels":{"a":"b"},
            "retry":{"max_attempts":3,"initial_backoff":"1s","max_backoff":"1m"},
            "request_id":"r","when_full":"REJECT"}"#;
        let camel = snake
            .replace("run_at", "runAt")
            .replace("max_attempts", "maxAttempts")
            .replace("initial_backoff", "initialBackoff")
            .replace("max_backoff", "maxBackoff")
            .replace("request_id", "requestId")
            .replace("when_full", "whenFull")
            .replace("\"REJECT", "\"WHEN_FULL_REJECT");
        let request = parse(snake.as_bytes()).expect("the line is right");
        assert_eq!(parse(camel.as_bytes()).as_ref(), Ok(&request));
        assert_eq!(request.kind, "sleep");
        assert_eq!(request.priority, -3);
        assert_eq!(request.timeout, Some(prost_types::Duration { seconds: 30, nanos: 0 }));
        assert_eq!(request.when_full(), WhenFull::Reject);
        let retry = request.retry.expect("it was given");
        assert_eq!(retry.max_attempts, 3);
        assert_eq!(retry.max_backoff, Some(prost_types::Duration { seconds: 60, nanos: 0 }));
    }

    #[test]
    fn what_would_count_as_not_given_is_refused() {
        for number in ["0", "101", "-1", "1.5", "\"3\""] {
            let told = wrong(&format!(r#"{{"kind":"k","retry":{{"max_attempts":{number}}}}}"#));
            let right =
                format!("retry.max_attempts: must be a whole number from 1 to 100, not {number}");
            assert_eq!(told, [right]);
        }
        let told = wrong(r#"{"kind":"k","queue":"","request_id":""}"#);
        assert!(told[0].starts_with("queue: is empty") && told[1].starts_with("request_id: is "));
    }

    #[test]
    fn data_is_base64() {
        let request = parse(br#"{"kind":"k","data":"/wA="}"#).expect("the line is right");
        assert_eq!(request.payload, Some(Payload::Data(bytes::Bytes::from_static(b"\xff\x00"))));
        assert!(wrong(r#"{"kind":"k","data":"%"}"#)[0].starts_with("data: is not base64"));
    }

    #[test]
    fn null_means_unset() {
        let request = parse(br#"{"kind":"k","delay":null,"retry":{"max_backoff":null}}"#);
        assert_eq!(request.map(|request| request.delay), Ok(None));
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_key() {
        let told = wrong(r#"{"knd":"x","priority":"high","delay":"soon","labels":{"a":1}}"#);
        assert_eq!(told.len(), 5, "{told:?}");
        assert!(told[0].starts_with("unknown key \"knd\""), "{told:?}");
        assert_eq!(told[1], "priority: must be a whole number, not \"high\"");
        assert!(told[2].starts_with("delay: \"soon\" is not a duration"), "{told:?}");
        assert_eq!(told[3], "labels.a: must be a string, not a number");
        assert_eq!(told[4], "kind: is required");
    }

    #[test]
    fn an_unknown_key_within_retry_is_told() {
        let told = wrong(r#"{"kind":"k","retry":{"attempts":3}}"#);
        assert!(told[0].starts_with("retry: unknown key \"attempts\""), "{told:?}");
    }

    #[test]
    fn fields_that_exclude_each_other_are_told() {
        let told = wrong(
            r#"{"kind":"k","args":{},"data":"","delay":"1s","run_at":"2025-01-01T00:00:00Z"}"#,
        );
        assert_eq!(
            told,
            [
                "args: cannot be given together with data",
                "delay: cannot be given together with run_at"
            ]
        );
    }

    #[test]
    fn a_key_given_twice_is_told_in_either_spelling() {
        let told = wrong(r#"{"kind":"k","request_id":"a","requestId":"b"}"#);
        assert_eq!(told, ["request_id: is given twice"]);
    }

    #[test]
    fn what_is_no_object_is_told_with_its_column() {
        assert_eq!(wrong("[1]").len(), 1);
        assert!(
            wrong("{\"kind\":")[0].starts_with("is not a JSON object: EOF"),
            "{:?}",
            wrong("{")
        );
        assert!(!wrong("{").concat().contains("at line"));
        assert!(parse(b"\xff").is_err());
    }
}
