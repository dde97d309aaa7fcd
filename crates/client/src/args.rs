//! Arguments of a task, of what Rust programs have at hand.

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use taskyard_proto::{v1::submit_request::Payload, values};

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
/// `serde_json::json!` makes. A float that is NaN or infinite becomes null, as it does in
/// `serde_json`.
///
/// # Errors
/// It becomes something else, or a whole number in it would change on the wire, where numbers
/// are doubles: one beyond 2^53 - 1. Send such a one as a string.
pub fn args(args: impl Serialize) -> Result<Payload, BadArgs> {
    match serde_json::to_value(args) {
        Ok(Value::Object(object)) => values::to_struct(object)
            .map(Payload::Args)
            .map_err(|wrong| BadArgs(format!("args{}: {}", wrong.path, wrong.why))),
        Ok(_) => Err(BadArgs("args: must become a JSON object".into())),
        Err(wrong) => Err(BadArgs(format!("args: {wrong}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_objects_are_arguments() {
        let Ok(Payload::Args(object)) = args(json!({ "duration": "1s" })) else { panic!("it is") };
        assert_eq!(values::shown_object(object), json!({ "duration": "1s" }));
        assert_eq!(args(7).expect_err("a number").to_string(), "args: must become a JSON object");
        let wrong = args(json!({ "a": [{ "id": u64::MAX }] })).expect_err("it would change");
        assert!(wrong.to_string().starts_with("args.a[0].id: 18446744073709551615"), "{wrong}");
    }
}
