//! From flags, environment and file to a [`Config`].
//!
//! Owns the order of precedence and the checks that concern several settings.
//! Must not know what any one of them means.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use clap::{Arg, ArgMatches, value_parser};

use super::{
    Config, ExecCommand, environment, file,
    problem::{Place, Problem, Problems},
    settings::{SETTINGS, Setting},
};
use crate::text::units::show_size;

/// The flag that names the configuration file.
const CONFIG: &str = "config";

/// Bytes that a message needs on top of the largest payload.
const MESSAGE_OVERHEAD: usize = 64 << 10;

/// The flags of a command that takes the settings, each described with its
/// bounds and its default. They take any text: [`load`] says what is wrong.
#[must_use]
pub fn args() -> Vec<Arg> {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .help("Configuration file in TOML; its keys are the flags' names with _ for -")
        .value_parser(value_parser!(OsString));
    let setting = |setting: &Setting| {
        Arg::new(setting.name)
            .long(setting.name)
            .value_name(setting.placeholder())
            .help(setting.help())
            .value_parser(value_parser!(OsString))
            .allow_negative_numbers(true)
    };
    std::iter::once(config).chain(SETTINGS.iter().map(setting)).collect()
}

/// Reads the settings. A flag goes before a variable of the environment
/// (`TASKYARD_DRAIN_TIMEOUT` for `--drain-timeout`), that before the
/// configuration file (`--config` or `TASKYARD_CONFIG`), that before the default.
/// An empty variable counts as one that is not set.
///
/// `matches` are those of a command with the flags of [`args`]; `environment` is
/// [`std::env::vars_os`], or a test's own. Paths are relative to the directory
/// in which the process runs.
///
/// # Errors
/// Everything that is wrong in any of the three, also where it is overridden,
/// and every key or variable `TASKYARD_…` that means nothing.
pub fn load(
    matches: &ArgMatches,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Config, Problems> {
    let mut flags = Sources::default();
    flags.read_flags(matches);
    let mut variables = Sources::default();
    environment::read(&mut variables, environment);
    let mut sources = Sources::default();
    if let Some((place, path)) = flags.file.take().or(variables.file.take()) {
        file::read(&mut sources, place, &path);
    }
    sources.then(variables).then(flags).into_config()
}

/// What was found in one source, or in several, the weakest first.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The configuration file that is named here.
    pub file: Option<(Place, OsString)>,
    values: Vec<Value>,
    /// The declared commands, each with the place that says its `max_output`.
    pub commands: BTreeMap<String, (Place, ExecCommand)>,
    problems: Vec<Problem>,
}

/// A text that was found for a setting.
#[derive(Debug)]
struct Value {
    setting: &'static Setting,
    place: Place,
    text: String,
}

impl Sources {
    /// Notes a value; it is checked when all are known.
    pub fn set(&mut self, setting: &'static Setting, place: Place, text: String) {
        self.values.push(Value { setting, place, text });
    }

    /// [`Self::set`] with what the operating system handed over.
    pub fn set_os(&mut self, setting: &'static Setting, place: Place, text: &OsStr) {
        match text.to_str() {
            Some(text) => self.set(setting, place, text.into()),
            None => self.refuse(place, format!("is not UTF-8 text; write {}", setting.right())),
        }
    }

    /// Notes a problem.
    pub fn refuse(&mut self, place: Place, wrong: impl Into<String>) {
        self.problems.push(Problem { place, wrong: wrong.into() });
    }

    fn read_flags(&mut self, matches: &ArgMatches) {
        for setting in SETTINGS {
            if let Some(text) = matches.get_one::<OsString>(setting.name) {
                self.set_os(setting, Place::Flag(setting.name.into()), text);
            }
        }
        if let Some(path) = matches.get_one::<OsString>(CONFIG) {
            self.file = Some((Place::Flag(CONFIG.into()), path.clone()));
        }
    }

    /// Both, `stronger` going before this one.
    fn then(mut self, stronger: Self) -> Self {
        self.values.extend(stronger.values);
        self.commands.extend(stronger.commands);
        self.problems.extend(stronger.problems);
        self
    }

    fn into_config(mut self) -> Result<Config, Problems> {
        let mut config = Config::default();
        let mut places = Places::default();
        for Value { setting, place, text } in std::mem::take(&mut self.values) {
            match setting.apply(&mut config, &text) {
                Ok(()) => places.accept(setting, place),
                Err(wrong) => {
                    places.refused.push(setting.name);
                    self.refuse(place, wrong);
                }
            }
        }
        self.check_message_size(&config, &places);
        self.check_result_size(&config, &places);
        config.exec =
            self.commands.into_iter().map(|(name, (_, command))| (name, command)).collect();
        match Problems::new(self.problems) {
            None => Ok(config),
            Some(problems) => Err(problems),
        }
    }

    fn check_message_size(&mut self, config: &Config, places: &Places) {
        let needed = config.max_payload.saturating_add(MESSAGE_OVERHEAD);
        if config.max_message >= needed || places.are_doubtful(&["max-message", "max-payload"]) {
            return;
        }
        if let Some(place) = places.of("max-message").or(places.of("max-payload")) {
            self.refuse(
                place,
                format!(
                    "a max_message of {} has no room for a max_payload of {}; \
                 write a max_message of at least {}, or a smaller max_payload",
                    size(config.max_message),
                    size(config.max_payload),
                    size(needed),
                ),
            );
        }
    }

    fn check_result_size(&mut self, config: &Config, places: &Places) {
        if places.are_doubtful(&["max-result"]) {
            return;
        }
        let mut problems = Vec::new();
        for (place, command) in self.commands.values() {
            let needed = ExecCommand::max_result_size(command.max_output);
            if needed > config.max_result {
                let wrong = format!(
                    "a max_output of {} may need a max_result of {}, which is {}; \
                     write a smaller max_output or a larger max_result",
                    size(command.max_output),
                    size(needed),
                    size(config.max_result),
                );
                problems.push(Problem { place: place.clone(), wrong });
            }
        }
        self.problems.extend(problems);
    }
}

fn size(bytes: usize) -> String {
    show_size(bytes as u64)
}

/// Where the values that apply were written.
#[derive(Debug, Default)]
struct Places {
    accepted: BTreeMap<&'static str, Place>,
    refused: Vec<&'static str>,
}

impl Places {
    fn accept(&mut self, setting: &Setting, place: Place) {
        self.accepted.insert(setting.name, place);
    }

    fn of(&self, name: &str) -> Option<Place> {
        self.accepted.get(name).cloned()
    }

    /// Whether one of them was refused somewhere, so that the value meant is unknown.
    fn are_doubtful(&self, names: &[&str]) -> bool {
        self.refused.iter().any(|refused| names.contains(refused))
    }
}
