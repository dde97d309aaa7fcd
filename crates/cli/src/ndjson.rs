//! One line of `submit --from`: a JSON object that becomes a request.
//!
//! Owns the names and the spelling of the fields, which are those of
//! `SubmitRequest` in proto3 JSON, in `snake_case` or `camelCase`. Must not know
//! files or servers.

use std::collections::BTreeMap;

use serde_json::Value;
use taskyard_domain::queue::MAX_ATTEMPTS;
use taskyard_proto::{
    v1::{RetryPolicy, SubmitRequest, WhenFull},
    values::{self, Wrong},
};
use taskyard_text::quoted;

use super::{
    body,
    names::did_you_mean,
    strict_json::{self, Tree},
    units,
};

/// Reads a line.
///
/// # Errors
/// Everything that is wrong with it, each naming its key.
pub fn parse(line: &[u8]) -> Result<SubmitRequest, Vec<String>> {
    let text = std::str::from_utf8(line)
        .map_err(|wrong| vec![format!("is not UTF-8 text after byte {}", wrong.valid_up_to())])?;
    let pairs = match strict_json::read(text) {
        Ok(Tree::Object(pairs)) => pairs,
        Ok(other) => {
            let type_of = other.into_value().map_or("an array", |value| type_of(&value));
            return Err(vec![format!("must be an object, not {type_of}")]);
        }
        Err(wrong) => {
            // The position that it names is within the line, which has a number already.
            let (cause, column) = (strict_json::cause(&wrong), wrong.column());
            return Err(vec![format!("is not a JSON object: {cause} at column {column}")]);
        }
    };
    let mut reading = Reading::default();
    for (key, value) in pairs {
        let value = value.into_value().map_err(|twice| twice.within(&key));
        if let Err(wrong) = value.and_then(|value| reading.field(&key, value)) {
            reading.wrong.push(wrong);
        }
    }
    // A number that is longer than any integer has become another by now.
    if let Err(wrong) = values::scan(text, usize::MAX)
        && wrong.path.starts_with(".args")
    {
        reading.note(&told(&wrong));
    }
    reading.finish()
}

/// What is wrong, with the key that it stands under in front.
fn told(Wrong { path, why }: &Wrong) -> String {
    format!("{}: {why}", path.trim_start_matches('.'))
}

/// The arguments in a text, which is a JSON object.
///
/// # Errors
/// What is wrong with it.
pub fn args_of(text: &str) -> Result<prost_types::Struct, String> {
    let tree = strict_json::read(text).map_err(|wrong| {
        let (cause, column) = (strict_json::cause(&wrong), wrong.column());
        format!("is not JSON: {cause} at line {}, column {column}", wrong.line())
    })?;
    let value = tree.into_value().map_err(|twice| twice.within("args"))?;
    values::scan(text, usize::MAX).map_err(|Wrong { path, why }| format!("args{path}: {why}"))?;
    args(value)
}

#[derive(Default)]
struct Reading {
    request: SubmitRequest,
    seen: Vec<&'static str>,
    wrong: Vec<String>,
}

/// The keys that there are.
fn keys() -> Vec<&'static str> {
    const OTHERS: [&str; 9] = [
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
    [&["kind"], body::KEYS, &OTHERS].concat()
}

impl Reading {
    /// Notes what is wrong, once.
    fn note(&mut self, wrong: &str) {
        if !self.wrong.iter().any(|known| known == wrong) {
            self.wrong.push(wrong.to_owned());
        }
    }

    fn field(&mut self, key: &str, value: Value) -> Result<(), String> {
        let name = known(key, &keys()).ok_or_else(|| unknown(key, &keys()))?;
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
            "queue" => request.queue = given(value)?,
            "priority" => request.priority = integer(&value)?,
            "delay" => request.delay = Some(span(value)?),
            "run_at" => request.run_at = Some(units::parse_time(&text(value)?)?),
            "timeout" => request.timeout = Some(span(value)?),
            "retry" => request.retry = Some(retry(value)?),
            "labels" => request.labels = labels(value)?,
            "request_id" => request.request_id = given(value)?,
            "when_full" => request.when_full = when_full(&text(value)?)?.into(),
            name => body::set(request, name, value)?,
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

fn unknown(key: &str, known: &[&str]) -> String {
    let meant = did_you_mean(key, known.iter().copied());
    format!("unknown key {}{meant}; there are: {}", quoted(key), known.join(", "))
        .replace("?;", "?")
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

/// A string.
///
/// # Errors
/// What it is instead.
pub fn text(value: Value) -> Result<String, String> {
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
        Value::Object(object) => {
            values::to_struct(object).map_err(|Wrong { path, why }| format!("args{path}: {why}"))
        }
        other => Err(format!("must be an object, not {}", type_of(&other))),
    }
}

fn retry(value: Value) -> Result<RetryPolicy, String> {
    const KEYS: [&str; 3] = ["max_attempts", "initial_backoff", "max_backoff"];
    let mut policy = RetryPolicy::default();
    let mut seen = Vec::new();
    for (key, value) in object(value)? {
        let name = known(&key, &KEYS);
        if let Some(name) = name {
            if seen.contains(&name) {
                return Err(format!("retry.{name}: is given twice"));
            }
            seen.push(name);
        }
        let set = match name {
            None => return Err(unknown(&key, &KEYS)),
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

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use taskyard_proto::v1::submit_request::Payload;

    use super::*;

    fn wrong(line: &str) -> Vec<String> {
        parse(line.as_bytes()).expect_err(line)
    }

    /// The names of a message's fields, as the definitions have them.
    fn fields_of(message: &str) -> Vec<String> {
        let set = prost_types::FileDescriptorSet::decode(taskyard_proto::FILE_DESCRIPTOR_SET);
        let files = set.expect("descriptors").file;
        let messages = files.iter().flat_map(|file| &file.message_type);
        let found = messages.into_iter().find(|one| one.name() == message).expect("it is defined");
        found.field.iter().map(|field| field.name().to_owned()).collect()
    }

    #[test]
    fn every_field_of_a_submission_is_a_key_and_in_the_help() {
        let fields = fields_of("SubmitRequest");
        assert!(fields.len() >= 12, "{fields:?}");
        assert!(fields.iter().all(|field| keys().contains(&field.as_str())), "{fields:?}");
        assert_eq!(fields.len(), keys().len());
        let help = crate::submit::from_help();
        let missing: Vec<_> = fields.iter().filter(|field| !help.contains(*field)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        for key in body::KEYS {
            let wrong = body::set(&mut SubmitRequest::default(), key, Value::Bool(true));
            assert!(!wrong.expect_err("it is none").contains("version"), "{key} is not read");
        }
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
    fn a_key_given_twice_is_told_in_either_spelling_and_at_every_depth() {
        for (line, path) in [
            (r#"{"kind":"k","request_id":"a","requestId":"b"}"#, "request_id"),
            (r#"{"kind":"k","kind":"k"}"#, "kind"),
            (r#"{"kind":"k","labels":{"a":"1","a":"1"}}"#, "labels.a"),
            (r#"{"kind":"k","retry":{"max_attempts":1,"max_attempts":2}}"#, "retry.max_attempts"),
            (r#"{"kind":"k","retry":{"max_attempts":1,"maxAttempts":2}}"#, "retry.max_attempts"),
            (r#"{"kind":"k","args":{"a":1,"\u0061":2}}"#, "args.a"),
            (r#"{"kind":"k","args":{"a":[{"b":{"c":1,"d":2,"c":3}}]}}"#, "args.a[0].b.c"),
        ] {
            assert_eq!(wrong(line), [format!("{path}: is given twice")], "{line}");
        }
        let twice = args_of(r#"{"a":{"b":1,"b":1}}"#).expect_err("it is");
        assert_eq!(twice, "args.a.b: is given twice");
    }

    #[test]
    fn a_number_that_would_become_another_is_told() {
        for number in ["9007199254740993", "18446744073709551616", "123456789012345678901234567890"]
        {
            let right = format!("args.id: {number} cannot be carried exactly; send it as a string");
            assert_eq!(wrong(&format!(r#"{{"kind":"k","args":{{"id":{number}}}}}"#)), [&*right]);
            assert_eq!(args_of(&format!(r#"{{"id":{number}}}"#)), Err(right));
        }
        let told = wrong(r#"{"kind":"k","priority":99999999999999999999}"#);
        assert_eq!(told, ["priority: must be a whole number, not 1e+20"]);
    }

    #[test]
    fn what_nests_without_end_is_told() {
        let deep =
            format!(r#"{{"kind":"k","args":{{"a":{}{}}}}}"#, "[".repeat(500), "]".repeat(500));
        let told = wrong(&deep);
        assert!(told[0].starts_with("is not a JSON object: it is nested too deep"), "{told:?}");
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
