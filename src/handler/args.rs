//! What the built-in kinds share when they check their arguments.
//!
//! Owns how a payload becomes an object, and how what is wrong with it is named.
//! Must not know any kind.

use serde_json::{Map, Value};
use taskyard_text::{closest, quoted};

use super::{Error, Violation};
use crate::task::Data;

/// Unknown arguments that are named one by one; of any more, only the number is told.
const MAX_NAMED: usize = 16;

/// Characters of an argument's name that the path of a field shows.
const MAX_NAME: usize = 63;

/// The arguments of a payload; none if it is empty.
///
/// # Errors
/// One violation of `args` if the payload is not a JSON object.
pub fn object(payload: &Data) -> Result<Map<String, Value>, Vec<Violation>> {
    let wrong = |description: String| Err(vec![Violation::new("args", description)]);
    let text = match payload {
        Data::Empty => return Ok(Map::new()),
        Data::Bytes(_) => return wrong("this kind takes args, a JSON object, not bytes".into()),
        Data::Json(text) => text,
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(args)) => Ok(args),
        Ok(other) => wrong(format!("must be a JSON object, not {}", type_of(&other))),
        Err(error) => wrong(format!("must be a JSON object: {error}")),
    }
}

/// One violation for each argument of `parent` that is none of `known`.
pub fn unknown<'a>(
    parent: &str,
    names: impl IntoIterator<Item = &'a String>,
    known: &[&str],
) -> Vec<Violation> {
    let mut names = names.into_iter().filter(|name| !known.contains(&name.as_str()));
    let mut violations = names
        .by_ref()
        .take(MAX_NAMED)
        .map(|name| Violation::new(field(parent, name), not_known(name, known)))
        .collect::<Vec<_>>();
    let more = names.count();
    if more > 0 {
        violations.push(Violation::new(parent, format!("{more} more arguments are not known")));
    }
    violations
}

fn not_known(name: &str, known: &[&str]) -> String {
    match closest(name, known.iter().copied()) {
        Some(meant) => format!("is not known; did you mean {meant}?"),
        None if known.is_empty() => "is not known; none is taken".into(),
        None => format!("is not known; known: {}", known.join(", ")),
    }
}

/// The path of the argument `name` of `parent`, at most [`MAX_NAME`] characters
/// of the name.
fn field(parent: &str, name: &str) -> String {
    format!("{parent}.{}", name.chars().take(MAX_NAME).collect::<String>())
}

/// What a JSON value is, in words.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A required string argument; `example` is one that would be right.
///
/// # Errors
/// What is wrong, as a violation of `field`.
pub fn required_string(
    value: Option<Value>,
    field: &str,
    example: &str,
) -> Result<String, Violation> {
    let example = quoted(example);
    match value {
        Some(Value::String(text)) => Ok(text),
        None => {
            Err(Violation::new(field, format!("is required; write a string such as {example}")))
        }
        Some(other) => {
            let wrong = type_of(&other);
            Err(Violation::new(field, format!("is {wrong}; write a string such as {example}")))
        }
    }
}

/// The error of an attempt whose payload was accepted, but is refused now: by
/// another version of the server, or after its declarations changed.
pub fn refused(violations: &[Violation]) -> Error {
    let list = violations
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect::<Vec<_>>();
    Error::permanent("INVALID_ARGS", list.join("; "))
}

#[cfg(test)]
pub mod testing {
    //! Executions for the tests of the built-in kinds.

    use tokio_util::sync::CancellationToken;

    use crate::{
        handler::Execution,
        task::{Data, TaskId, WorkerId},
    };

    /// The first attempt at task number 1 with these arguments.
    pub fn execution(args: &str) -> Execution {
        Execution {
            task: TaskId::new(1, 0),
            kind: "test".into(),
            attempt: 1,
            worker: WorkerId(1),
            payload: Data::Json(args.into()),
            cancel: CancellationToken::new(),
            written: crate::handler::Written::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_or_nothing_is_taken() {
        assert_eq!(object(&Data::Empty), Ok(Map::new()));
        assert_eq!(object(&Data::Json(r#"{"a":1}"#.into())).map(|args| args.len()), Ok(1));
        for payload in [Data::Bytes("{}".into()), Data::Json("[]".into()), Data::Json("{".into())] {
            let violations = object(&payload).expect_err("refused");
            assert_eq!(violations[0].field, "args");
        }
    }

    #[test]
    fn unknown_names_are_said_within_bounds() {
        let names = (0..100).map(|number| format!("{number}{}", "é".repeat(1_000_000 / 100)));
        let names = names.collect::<Vec<_>>();
        let violations = unknown("args", &names, &["duration"]);
        assert_eq!(violations.len(), MAX_NAMED + 1);
        assert_eq!(violations[0].field.chars().count(), "args.".len() + MAX_NAME);
        assert_eq!(violations[MAX_NAMED].description, "84 more arguments are not known");
    }

    #[test]
    fn a_misspelt_name_is_put_right() {
        let violations = unknown("args", &["durration".to_owned()], &["duration"]);
        let right = Violation::new("args.durration", "is not known; did you mean duration?");
        assert_eq!(violations, [right]);
    }
}
