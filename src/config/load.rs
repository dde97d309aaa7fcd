//! From flags, environment and file to a [`Config`].
//!
//! Owns the order of precedence and the checks that concern several settings.
//! Must not know what any one of them means.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    time::Duration,
};

use clap::{Arg, ArgMatches, value_parser};
use taskyard_text::units::{show_duration, show_size};

use super::{
    Config, ExecCommand, environment, file,
    problem::{Location, Problem, Problems},
    queues::Declared,
    settings::Setting,
    table::{self, GROUPS},
};

/// The flag that names the configuration file.
const CONFIG: &str = "config";

/// Bytes that a message needs on top of the largest payload.
const MESSAGE_OVERHEAD: usize = 64 << 10;

/// Queues that can be declared.
const MAX_DECLARED: usize = 10_000;

/// The flags of a command that takes the settings, each described with its
/// bounds and its default. They take any text: [`load`] says what is wrong.
#[must_use]
pub fn args() -> Vec<Arg> {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .help("Configuration file in TOML; its keys are the flags' names with _ for -")
        .value_parser(value_parser!(OsString));
    let groups = GROUPS.iter().flat_map(|group| {
        group.settings.iter().map(|setting| flag(setting).help_heading(group.heading))
    });
    std::iter::once(config).chain(groups).collect()
}

fn flag(setting: &Setting) -> Arg {
    let flag = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.placeholder())
        .help(setting.help())
        .value_parser(value_parser!(OsString))
        .allow_negative_numbers(true);
    if setting.is_switch() { flag.num_args(0..=1).default_missing_value("true") } else { flag }
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
    if let Some((location, path)) = flags.file.take().or(variables.file.take()) {
        file::read(&mut sources, location, &path);
    }
    sources.then(variables).then(flags).into_config()
}

/// What was found in one source, or in several, the weakest first.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// The configuration file that is named here.
    pub file: Option<(Location, OsString)>,
    values: Vec<Value>,
    /// The declared commands, each with the location that says its `max_output`.
    pub commands: BTreeMap<String, (Location, ExecCommand)>,
    /// The declared queues.
    pub queues: BTreeMap<String, Declared>,
    /// Where the file begins to declare queues.
    pub queues_at: Option<Location>,
    problems: Vec<Problem>,
}

/// A text that was found for a setting.
#[derive(Debug)]
struct Value {
    setting: &'static Setting,
    location: Location,
    text: String,
}

impl Sources {
    /// Notes a value; it is checked when all are known.
    pub fn set(&mut self, setting: &'static Setting, location: Location, text: String) {
        self.values.push(Value { setting, location, text });
    }

    /// [`Self::set`] with what the operating system handed over.
    pub fn set_os(&mut self, setting: &'static Setting, location: Location, text: &OsStr) {
        match text.to_str() {
            Some(text) => self.set(setting, location, text.into()),
            None => self.refuse(location, format!("is not UTF-8 text; write {}", setting.right())),
        }
    }

    /// Notes a problem.
    pub fn refuse(&mut self, location: Location, wrong: impl Into<String>) {
        self.problems.push(Problem { location, wrong: wrong.into() });
    }

    fn read_flags(&mut self, matches: &ArgMatches) {
        for setting in table::settings() {
            if let Some(text) = matches.get_one::<OsString>(setting.name) {
                self.set_os(setting, Location::Flag(setting.name.into()), text);
            }
        }
        if let Some(path) = matches.get_one::<OsString>(CONFIG) {
            self.file = Some((Location::Flag(CONFIG.into()), path.clone()));
        }
    }

    /// Both, `stronger` going before this one.
    fn then(mut self, stronger: Self) -> Self {
        self.values.extend(stronger.values);
        self.commands.extend(stronger.commands);
        self.queues.extend(stronger.queues);
        self.queues_at = stronger.queues_at.or(self.queues_at);
        self.problems.extend(stronger.problems);
        self
    }

    fn into_config(mut self) -> Result<Config, Problems> {
        let mut config = Config::default();
        let mut locations = Locations::default();
        for Value { setting, location, text } in std::mem::take(&mut self.values) {
            match setting.apply(&mut config, &text) {
                Ok(()) => locations.accept(setting, location),
                Err(wrong) => {
                    locations.refused.push(setting.name);
                    self.refuse(location, wrong);
                }
            }
        }
        self.check_message_size(&config, &locations);
        self.check_result_size(&config, &locations);
        self.check_backoff(&config, &locations);
        self.check_queues(&config, &locations);
        self.check_backoff_of_queues(&config, &locations);
        config.queues =
            self.queues.into_iter().map(|(name, declared)| (name, declared.own)).collect();
        config.exec =
            self.commands.into_iter().map(|(name, (_, command))| (name, command)).collect();
        match Problems::new(self.problems) {
            None => Ok(config),
            Some(problems) => Err(problems),
        }
    }

    fn check_message_size(&mut self, config: &Config, locations: &Locations) {
        let needed = config.max_payload.saturating_add(MESSAGE_OVERHEAD);
        if config.max_message >= needed || locations.are_doubtful(&["max-message", "max-payload"]) {
            return;
        }
        if let Some(location) = locations.of("max-message").or(locations.of("max-payload")) {
            self.refuse(
                location,
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

    fn check_result_size(&mut self, config: &Config, locations: &Locations) {
        if locations.are_doubtful(&["max-result"]) {
            return;
        }
        let mut problems = Vec::new();
        for (location, command) in self.commands.values() {
            let needed = ExecCommand::max_result_size(command.max_output);
            if needed > config.max_result {
                let wrong = format!(
                    "a max_output of {} may need a max_result of {}, which is {}; \
                     write a smaller max_output or a larger max_result",
                    size(command.max_output),
                    size(needed),
                    size(config.max_result),
                );
                problems.push(Problem { location: location.clone(), wrong });
            }
        }
        self.problems.extend(problems);
    }

    fn check_backoff(&mut self, config: &Config, locations: &Locations) {
        if config.max_backoff >= config.initial_backoff || locations.are_doubtful(&BACKOFFS) {
            return;
        }
        if let Some(location) = locations.of("max-backoff").or(locations.of("initial-backoff")) {
            self.refuse(location, shrinking(config.max_backoff, config.initial_backoff));
        }
    }

    fn check_backoff_of_queues(&mut self, config: &Config, locations: &Locations) {
        let defaults = config.queue_config().defaults;
        let inherited = locations.are_doubtful(&BACKOFFS);
        let mut problems = Vec::new();
        for declared in self.queues.values() {
            let both = declared.initial_backoff.is_some() && declared.max_backoff.is_some();
            let known = !declared.doubtful && (both || !inherited);
            let settings = declared.own.over(defaults);
            let location = declared.max_backoff.as_ref().or(declared.initial_backoff.as_ref());
            if let Some(location) =
                location.filter(|_| known && settings.max_backoff < settings.initial_backoff)
            {
                let wrong = shrinking(settings.max_backoff, settings.initial_backoff);
                problems.push(Problem { location: location.clone(), wrong });
            }
        }
        self.problems.extend(problems);
    }

    fn check_queues(&mut self, config: &Config, locations: &Locations) {
        let declared = self.queues.len();
        let named = locations.of("fixed-queues").filter(|_| config.fixed_queues && declared == 0);
        if let Some(location) = named {
            self.refuse(
                location,
                "is true, but no queue is declared; declare one as a table [queues.NAME] \
                 in the configuration file, or write false",
            );
        }
        let Some(location) = self.queues_at.clone() else { return };
        if declared > MAX_DECLARED {
            let wrong = format!("declares {declared} queues; write at most {MAX_DECLARED}");
            self.refuse(location, wrong);
        } else if declared > config.max_queues && !locations.are_doubtful(&["max-queues"]) {
            let wrong = format!(
                "declares {declared} queues, and max_queues is {}; \
                 write fewer or a larger max_queues",
                config.max_queues,
            );
            self.refuse(location, wrong);
        }
    }
}

/// The settings that a queue's own backoff must fit to.
const BACKOFFS: [&str; 2] = ["initial-backoff", "max-backoff"];

fn shrinking(max: Duration, initial: Duration) -> String {
    format!(
        "a max_backoff of {} is below the initial_backoff of {}; \
         write a larger max_backoff or a smaller initial_backoff",
        show_duration(max),
        show_duration(initial),
    )
}

fn size(bytes: usize) -> String {
    show_size(bytes as u64)
}

/// Where the values that apply were written.
#[derive(Debug, Default)]
struct Locations {
    accepted: BTreeMap<&'static str, Location>,
    refused: Vec<&'static str>,
}

impl Locations {
    fn accept(&mut self, setting: &Setting, location: Location) {
        self.accepted.insert(setting.name, location);
    }

    fn of(&self, name: &str) -> Option<Location> {
        self.accepted.get(name).cloned()
    }

    /// Whether one of them was refused somewhere, so that the value meant is unknown.
    fn are_doubtful(&self, names: &[&str]) -> bool {
        self.refused.iter().any(|refused| names.contains(refused))
    }
}
