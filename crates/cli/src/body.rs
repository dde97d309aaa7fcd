//! What of a task is for whoever runs it or looks at it: how it is given, by flags or in a
//! line of JSON, and how it is shown, to people or as JSON.
//!
//! A field that a task only carries stands in each of these four and nowhere else. (The timeout
//! is older than this file, and stands with the other flags.)

use std::{io::Read as _, path::PathBuf};

use serde_json::Value;
use taskyard_proto::{
    v1::{SubmitRequest, Task, submit_request::Payload, task},
    values,
};

use super::{json, ndjson, output::printable, problem::Problem, render::bytes_text};

/// Flags of `submit`.
#[derive(Debug, Default, clap::Args)]
pub struct BodyFlags {
    /// What the handler is given: a JSON object
    #[arg(short, long, value_name = "JSON", conflicts_with = "data")]
    args: Option<String>,
    /// What the handler is given: the bytes of a file; - reads stdin
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
}

impl BodyFlags {
    /// Puts what they say into a submission.
    ///
    /// # Errors
    /// What is wrong with them, or with a file that they name.
    pub fn add_to(self, request: &mut SubmitRequest) -> Result<(), Problem> {
        request.payload = payload(self.args.as_deref(), self.data)?;
        Ok(())
    }
}

/// What the help of `submit --from` says of its keys.
pub const FIELDS_HELP: &str = "args (an object) or data (base64)";

/// Its keys in a line of `submit --from`.
pub const KEYS: &[&str] = &["args", "data"];

/// Puts the value of such a key into a submission.
///
/// # Errors
/// What is wrong with it.
pub fn set(request: &mut SubmitRequest, key: &str, value: Value) -> Result<(), String> {
    match key {
        "args" => request.payload = Some(Payload::Args(ndjson::args(value)?)),
        "data" => {
            let data = json::from_base64(&ndjson::text(value)?)?;
            request.payload = Some(Payload::Data(data));
        }
        _ => return Err("is not read by this version".into()),
    }
    Ok(())
}

/// Takes it out of a task, as fields of its JSON.
pub fn to_json(task: &mut Task) -> Vec<(&'static str, Value)> {
    let payload = match task.payload.take() {
        Some(task::Payload::Args(args)) => Some(("args", values::shown_object(args))),
        Some(task::Payload::Data(data)) => Some(("data", json::base64(&data).into())),
        None => None,
    };
    payload.into_iter().collect()
}

/// Takes it out of a task, as rows for people; an empty one is left out.
pub fn rows(task: &mut Task) -> Vec<(&'static str, String)> {
    let payload = match task.payload.take() {
        Some(task::Payload::Args(args)) => {
            ("args", printable(&values::shown_object(args).to_string()))
        }
        Some(task::Payload::Data(data)) => ("data", bytes_text(&data)),
        None => ("args", String::new()),
    };
    vec![payload]
}

fn payload(args: Option<&str>, data: Option<PathBuf>) -> Result<Option<Payload>, Problem> {
    match (args, data) {
        (Some(text), _) => {
            let usage = |wrong| Problem::usage(format!("--args: {wrong}"));
            Ok(Some(Payload::Args(ndjson::args_of(text).map_err(usage)?)))
        }
        (None, Some(file)) => Ok(Some(Payload::Data(read(&file)?.into()))),
        (None, None) => Ok(None),
    }
}

/// Bytes of a payload that are read from a file. No server accepts more.
const MAX_DATA: u64 = 256 << 20;

fn read(file: &PathBuf) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(MAX_DATA + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_DATA + 1).read_to_end(&mut bytes))
    };
    match read {
        Err(wrong) => Err(Problem::usage(format!("cannot read {}: {wrong}", file.display()))),
        Ok(length) if length as u64 > MAX_DATA => {
            Err(Problem::usage(format!("{} is longer than 256 MiB", file.display())))
        }
        Ok(_) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn arguments_must_be_an_object() {
        for wrong in ["{", "[1]", "7"] {
            let problem = payload(Some(wrong), None).expect_err(wrong);
            assert_eq!(problem.exit(), Exit::Usage);
        }
        assert!(payload(Some(r#"{"duration":"2s"}"#), None).is_ok());
    }

    #[test]
    fn a_number_that_would_become_another_is_told() {
        let problem = payload(Some(r#"{"id":100000000000000000000}"#), None).expect_err("2^64");
        let right =
            "--args: args.id: 100000000000000000000 cannot be carried exactly; send it as a string";
        assert_eq!(problem.message(), right);
    }

    #[test]
    fn a_missing_file_is_told_by_name() {
        let problem = payload(None, Some("/nowhere/at/all".into())).expect_err("it is missing");
        assert!(problem.message().contains("/nowhere/at/all"), "{problem:?}");
    }

    #[test]
    fn a_name_given_twice_is_told() {
        let problem = payload(Some(r#"{"a":{"b":1,"b":2}}"#), None).expect_err("twice");
        assert_eq!(problem.message(), "--args: args.a.b: is given twice");
    }
}
