//! From a task's arguments to what is run.
//!
//! Owns which arguments are right; the same code checks a task when it is
//! submitted and when it runs. Must not know processes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use taskyard_proto::values;
use taskyard_text::{closest, quoted, template::Template};

use super::Command;
use crate::{
    handler::{
        Violation,
        args::{self, required_string, type_of},
    },
    task::Data,
};

/// Bytes of one argument of a process: the limit of Linux (`MAX_ARG_STRLEN`,
/// 32 pages) without its closing NUL.
const MAX_ARGUMENT: usize = 128 * 1024 - 1;

const KEYS: [&str; 3] = ["command", "args", "stdin"];

/// What a task asks to run.
#[derive(Debug)]
pub struct Plan<'c> {
    pub command: &'c Command,
    /// Without the program, filled in.
    pub arguments: Vec<String>,
    pub stdin: Option<String>,
}

impl<'c> Plan<'c> {
    /// Checks a payload.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn new(
        commands: &'c BTreeMap<String, Command>,
        payload: &Data,
    ) -> Result<Self, Vec<Violation>> {
        let mut top = args::object(payload)?;
        let mut violations = args::unknown("args", top.keys(), &KEYS);
        let stdin = note(&mut violations, stdin(top.remove("stdin")));
        let command = note(&mut violations, command(commands, top.remove("command")));
        let values = note(&mut violations, values(top.remove("args")));
        let (Some(command), Some(values)) = (command, values) else { return Err(violations) };
        let arguments = fill(command, &values, &mut violations);
        match stdin {
            Some(stdin) if violations.is_empty() => Ok(Self { command, arguments, stdin }),
            _ => Err(violations),
        }
    }
}

/// The value, or `None` with its violation noted.
fn note<T>(violations: &mut Vec<Violation>, checked: Result<T, Violation>) -> Option<T> {
    checked.map_err(|violation| violations.push(violation)).ok()
}

fn stdin(value: Option<Value>) -> Result<Option<String>, Violation> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            let wrong = format!("is {}; write a string, or leave it out", type_of(&other));
            Err(Violation::new("args.stdin", wrong))
        }
    }
}

fn command(
    commands: &BTreeMap<String, Command>,
    value: Option<Value>,
) -> Result<&Command, Violation> {
    let wrong = |wrong: String| Violation::new("args.command", wrong);
    let Some(example) = commands.keys().next() else {
        return Err(wrong(
            "this server has no commands; its operator declares one as [exec.NAME] with \
             command = [\"program\", \"argument\"] in the configuration file"
                .into(),
        ));
    };
    let name = required_string(value, "args.command", example)?;
    commands.get(&name).ok_or_else(|| {
        let known = commands.keys().map(String::as_str);
        wrong(match closest(&name, known.clone()) {
            Some(meant) => format!("{} is not declared; did you mean {meant}?", quoted(&name)),
            None => format!("{} is not declared; declared are {}", quoted(&name), list(known)),
        })
    })
}

/// Names that a message lists.
const MAX_LISTED: usize = 16;

fn list<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let listed = names.clone().take(MAX_LISTED).collect::<Vec<_>>().join(", ");
    match names.count().saturating_sub(MAX_LISTED) {
        0 => listed,
        more => format!("{listed}, and {more} more"),
    }
}

fn values(value: Option<Value>) -> Result<Map<String, Value>, Violation> {
    match value {
        None => Ok(Map::new()),
        Some(Value::Object(values)) => Ok(values),
        Some(other) => {
            let wrong = format!("is {}; write an object, a value for each name", type_of(&other));
            Err(Violation::new("args.args", wrong))
        }
    }
}

/// Puts the values in their places.
fn fill(
    command: &Command,
    values: &Map<String, Value>,
    violations: &mut Vec<Violation>,
) -> Vec<String> {
    let mut names = Vec::new();
    for name in command.arguments.iter().flat_map(Template::names) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    violations.extend(args::unknown("args.args", values.keys(), &names));
    let mut texts = BTreeMap::new();
    for name in names {
        let text = text(values.get(name));
        let text = text.map_err(|wrong| Violation::new(format!("args.args.{name}"), wrong));
        texts.insert(name, note(violations, text).unwrap_or_default());
    }
    // Every name of every argument is among the texts.
    let value = |name| texts.get(name).map_or("", String::as_str);
    let arguments = command.arguments.iter().map(|argument| argument.fill(value));
    let arguments = arguments.collect::<Vec<_>>();
    if arguments.iter().any(|argument| argument.len() > MAX_ARGUMENT) {
        let wrong = format!("make an argument of more than {MAX_ARGUMENT} bytes");
        violations.push(Violation::new("args.args", wrong));
    }
    arguments
}

/// The text that a value stands for.
fn text(value: Option<&Value>) -> Result<String, String> {
    const RIGHT: &str = "write a string, a number or a boolean";
    match value {
        None => Err(format!("is required; {RIGHT}")),
        Some(Value::String(text)) if text.contains('\0') => {
            Err("holds a NUL character; no argument of a process can".into())
        }
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Bool(truth)) => Ok(truth.to_string()),
        Some(Value::Number(number)) if values::may_have_changed(number) => Err(format!(
            "is {number}: a whole number beyond 2^53 - 1 may have been another one before it was \
             sent, as numbers are sent as doubles; send it as a string"
        )),
        Some(Value::Number(number)) => Ok(decimal(number)),
        Some(other) => Err(format!("is {}; {RIGHT}", type_of(other))),
    }
}

/// A number in decimal; a whole one without a point, since every number that
/// came as a protobuf `Struct` was a floating-point one on its way.
fn decimal(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}
