//! The commands that `exec` tasks may run, from the file's tables `[exec.NAME]`.
//!
//! Owns what such a declaration holds. Must not know how a command is run.

use std::{collections::BTreeMap, path::PathBuf};

use taskyard_text::{quoted, template::Template, units};
use toml::{
    Spanned,
    de::{DeArray, DeString, DeValue},
};

use super::{
    ExecCommand,
    declaration::{self, Declaration},
    file::{COMMANDS, Document, scalar},
    load::Sources,
    table,
};

/// Bytes that a command may keep of each output stream.
const MAX_OUTPUT: u64 = 1 << 20;

/// What a declaration holds.
const KEYS: [&str; 4] = ["command", "working_dir", "env", "max_output"];

/// Adds the commands that the file declares.
pub fn read(document: &Document, sources: &mut Sources, value: &Spanned<DeValue>) {
    declaration::each(document, sources, COMMANDS, value, |mut declaration, name, value| {
        if !is_name(name) {
            declaration.refuse("", declaration.at.clone(), WRONG_NAME);
        }
        declaration.command_in(name, value);
    });
}

const WRONG_NAME: &str = "is not a name for a command; write lower-case letters, digits, - and _, \
                          the first a letter or digit, at most 63 in all";

/// Whether a command can have this name.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || c == '-' || c == '_')
}

impl Declaration<'_> {
    fn command_in(mut self, name: &str, value: &Spanned<DeValue>) {
        let Some(table) = self.table(value, &KEYS, "a table [exec.NAME] with its command") else {
            return;
        };
        let get = |key: &str| table.iter().find(|(k, _)| k.get_ref() == key).map(|(_, v)| v);
        let command = self.command(get("command"));
        let working_dir = get("working_dir").and_then(|value| self.working_dir(value));
        let env = get("env").map(|value| self.env(value)).unwrap_or_default();
        let max_output = get("max_output").and_then(|value| self.max_output(value));
        let at = get("max_output").map_or_else(|| self.at.clone(), Spanned::span);
        let location = self.document.location(&at, &format!("{}.max_output", self.path));
        let max_output = max_output.unwrap_or(ExecCommand::DEFAULT_MAX_OUTPUT);
        let command = ExecCommand { command, working_dir, env, max_output };
        self.sources.commands.insert(name.into(), (location, command));
    }

    fn command(&mut self, value: Option<&Spanned<DeValue>>) -> Vec<String> {
        const RIGHT: &str = "an array of strings such as [\"sha256sum\", \"--\", \"{file}\"]";
        let Some(value) = value else {
            self.refuse("command", self.at.clone(), format!("is required; write {RIGHT}"));
            return Vec::new();
        };
        match value.get_ref() {
            DeValue::Array(parts) if !parts.is_empty() => self.command_parts(parts),
            DeValue::Array(_) => {
                self.refuse("command", value.span(), format!("is empty; write {RIGHT}"));
                Vec::new()
            }
            _ => {
                self.refuse_type("command", value, RIGHT);
                Vec::new()
            }
        }
    }

    fn command_parts(&mut self, parts: &DeArray) -> Vec<String> {
        let mut command = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let key = format!("command[{index}]");
            let Some(text) = self.string(&key, part) else { continue };
            match Template::parse(&text) {
                Ok(template) if index == 0 && template.names().next().is_some() => {
                    self.refuse(
                        &key,
                        part.span(),
                        "names a program that a task could choose; \
                        write one without a placeholder",
                    );
                }
                Ok(_) if index == 0 && text.is_empty() => {
                    self.refuse(&key, part.span(), "is empty; write a program's name or path");
                }
                Ok(_) => command.push(text),
                Err(wrong) => self.refuse(&key, part.span(), wrong.to_string()),
            }
        }
        command
    }

    fn working_dir(&mut self, value: &Spanned<DeValue>) -> Option<PathBuf> {
        let text = self.string("working_dir", value)?;
        let path = table::path(&text);
        if path.is_none() {
            self.refuse("working_dir", value.span(), "is empty; write the path of a directory");
        }
        path
    }

    fn env(&mut self, value: &Spanned<DeValue>) -> BTreeMap<String, String> {
        let Some(table) = value.get_ref().as_table() else {
            self.refuse_type("env", value, "a table of strings such as { LANG = \"C\" }");
            return BTreeMap::new();
        };
        table.iter().filter_map(|(name, value)| self.variable(name, value)).collect()
    }

    fn variable(
        &mut self,
        name: &Spanned<DeString>,
        value: &Spanned<DeValue>,
    ) -> Option<(String, String)> {
        let key = format!("env.{}", name.get_ref());
        if name.get_ref().is_empty() || name.get_ref().contains(['=', '\0']) {
            let wrong = "cannot be a variable's name; write one that is not empty and has no =";
            self.refuse(&key, name.span(), wrong);
        }
        self.string(&key, value).map(|text| (name.get_ref().to_string(), text))
    }

    fn max_output(&mut self, value: &Spanned<DeValue>) -> Option<usize> {
        let Some(text) = scalar(value.get_ref()) else {
            self.refuse_type("max_output", value, "a size from 0 to 1MiB");
            return None;
        };
        match units::parse_size(&text) {
            Ok(size) if size <= MAX_OUTPUT => usize::try_from(size).ok(),
            Ok(_) => {
                let wrong =
                    format!("{} is not possible; write a size from 0 to 1MiB", quoted(&text));
                self.refuse("max_output", value.span(), wrong);
                None
            }
            Err(wrong) => {
                self.refuse("max_output", value.span(), wrong.to_string());
                None
            }
        }
    }
}
