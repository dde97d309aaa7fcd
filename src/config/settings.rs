//! The table of everything that can be set by a single value.
//!
//! Owns each setting's names, bounds, help, and its way into and out of a
//! [`Config`]. Must not know where a value came from.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use super::{
    Config, Durability, LogFormat,
    rule::{Bounded, Rule, Text},
};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name, as the flag spells it: `drain-timeout`.
    pub name: &'static str,
    /// What it means.
    meaning: &'static str,
    rule: Rule,
}

impl Setting {
    /// Its key in the configuration file: `drain_timeout`.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Its variable in the environment: `TASKYARD_DRAIN_TIMEOUT`.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.key().to_uppercase())
    }

    /// What stands for its value in help: `DURATION`.
    pub fn placeholder(&self) -> &'static str {
        self.rule.placeholder()
    }

    /// One line of help: the meaning, what is right, and the default.
    pub fn help(&self) -> String {
        let default = self.show(&Config::default());
        format!("{}: {} [default: {default}]", self.meaning, self.rule.right())
    }

    /// What is right, to stand after "write".
    pub fn right(&self) -> String {
        self.rule.right()
    }

    /// Its value in `config`, in a form that [`Self::apply`] reads.
    pub fn show(&self, config: &Config) -> String {
        self.rule.show(config)
    }

    /// Reads `text` into `config`.
    ///
    /// # Errors
    /// What is wrong, and what would be right, as a sentence.
    pub fn apply(&self, config: &mut Config, text: &str) -> Result<(), String> {
        self.rule.apply(config, text)
    }
}

/// What the variables of all settings begin with.
pub const PREFIX: &str = "TASKYARD_";

const HOUR: Duration = Duration::from_hours(1);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// All settings, in the order in which help lists them.
pub static SETTINGS: &[Setting] = &[
    text(
        "listen",
        "Address to serve on; port 0 takes a free one",
        Text {
            placeholder: "HOST:PORT",
            right: "an IP address or localhost, and a port, such as 127.0.0.1:50051 or [::]:50051",
            get: |c| c.listen.to_string(),
            set: |c, text| address(text).map(|address| c.listen = address),
        },
    ),
    text(
        "data-dir",
        "Where the store lives",
        Text {
            placeholder: "DIR",
            right: "the path of a directory",
            get: |c| c.data_dir.display().to_string(),
            set: |c, text| path(text).map(|path| c.data_dir = path),
        },
    ),
    text(
        "durability",
        "What an OK answer survives: a power cut (fsync), kill -9 (os), nothing (memory)",
        Text {
            placeholder: "LEVEL",
            right: "fsync, os or memory",
            get: |c| name_in(&DURABILITIES, c.durability),
            set: |c, text| value_in(&DURABILITIES, text).map(|level| c.durability = level),
        },
    ),
    count(
        "workers",
        "Size of the crew: tasks that run at a time; 4 per core unless set",
        1..=10_000,
        |c| c.workers.get().into(),
        |c, n| c.workers = NonZeroU32::new(small(n)).unwrap_or(NonZeroU32::MIN),
    ),
    duration(
        "drain-timeout",
        "How long a drain may take in all",
        Duration::ZERO..=HOUR,
        |c| c.drain_timeout,
        |c, span| c.drain_timeout = span,
    ),
    duration(
        "cancel-grace",
        "How long a signalled task has to return before it is stopped",
        Duration::ZERO..=HOUR,
        |c| c.cancel_grace,
        |c, span| c.cancel_grace = span,
    ),
    count(
        "queue-max-tasks",
        "Waiting tasks that one queue holds",
        1..=100_000_000,
        |c| c.queue_max_tasks,
        |c, n| c.queue_max_tasks = n,
    ),
    size(
        "queue-max-bytes",
        "Bytes of waiting tasks that one queue holds",
        KIB..=1 << 40,
        |c| c.queue_max_bytes,
        |c, n| c.queue_max_bytes = n,
    ),
    count(
        "max-queues",
        "Queues that may exist",
        1..=100_000,
        |c| c.max_queues as u64,
        |c, n| c.max_queues = in_memory(n),
    ),
    duration(
        "room-timeout",
        "How long a caller without a deadline waits for room in a queue",
        Duration::ZERO..=HOUR,
        |c| c.room_timeout,
        |c, span| c.room_timeout = span,
    ),
    size(
        "max-payload",
        "Bytes of one payload",
        0..=64 * MIB,
        |c| c.max_payload as u64,
        |c, n| c.max_payload = in_memory(n),
    ),
    size(
        "max-message",
        "Bytes of one request message, at least max_payload plus 64KiB",
        64 * KIB..=256 * MIB,
        |c| c.max_message as u64,
        |c, n| c.max_message = in_memory(n),
    ),
    size(
        "max-result",
        "Bytes of one result",
        0..=64 * MIB,
        |c| c.max_result as u64,
        |c, n| c.max_result = in_memory(n),
    ),
    duration(
        "attempt-timeout",
        "How long an attempt may take, unless the task says",
        Duration::from_millis(1)..=Duration::from_hours(720),
        |c| c.attempt_timeout,
        |c, span| c.attempt_timeout = span,
    ),
    count(
        "max-attempts",
        "Attempts of a task, unless it says",
        1..=100,
        |c| c.max_attempts.into(),
        |c, n| c.max_attempts = small(n),
    ),
    count(
        "max-crashes",
        "Crashes in a row, at which it was running, that fail a task",
        1..=1_000,
        |c| c.max_crashes.into(),
        |c, n| c.max_crashes = small(n),
    ),
    duration(
        "heartbeat",
        "Silence on a watch before a heartbeat, unless the watcher says",
        Duration::from_millis(100)..=HOUR,
        |c| c.heartbeat,
        |c, span| c.heartbeat = span,
    ),
    count(
        "max-watchers",
        "Watchers at a time",
        1..=1_000_000,
        |c| c.max_watchers as u64,
        |c, n| c.max_watchers = in_memory(n),
    ),
    count(
        "max-connections",
        "Connections at a time",
        1..=1_000_000,
        |c| c.max_connections as u64,
        |c, n| c.max_connections = in_memory(n),
    ),
    text(
        "log",
        "Which log lines are written",
        Text {
            placeholder: "FILTER",
            right: "a level or directives, such as info or warn,taskyard=debug",
            get: |c| c.log.clone(),
            set: |c, text| EnvFilter::builder().parse(text).ok().map(|_| c.log = text.into()),
        },
    ),
    text(
        "log-format",
        "How log lines look",
        Text {
            placeholder: "FORMAT",
            right: "text or json",
            get: |c| name_in(&LOG_FORMATS, c.log_format),
            set: |c, text| value_in(&LOG_FORMATS, text).map(|format| c.log_format = format),
        },
    ),
];

const DURABILITIES: [(&str, Durability); 3] =
    [("fsync", Durability::Fsync), ("os", Durability::Os), ("memory", Durability::Memory)];

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const fn duration(
    name: &'static str,
    meaning: &'static str,
    bounds: RangeInclusive<Duration>,
    get: fn(&Config) -> Duration,
    set: fn(&mut Config, Duration),
) -> Setting {
    let (min, max) = (*bounds.start(), *bounds.end());
    Setting { name, meaning, rule: Rule::Duration(Bounded { min, max, get, set }) }
}

const fn size(
    name: &'static str,
    meaning: &'static str,
    bounds: RangeInclusive<u64>,
    get: fn(&Config) -> u64,
    set: fn(&mut Config, u64),
) -> Setting {
    let (min, max) = (*bounds.start(), *bounds.end());
    Setting { name, meaning, rule: Rule::Size(Bounded { min, max, get, set }) }
}

const fn count(
    name: &'static str,
    meaning: &'static str,
    bounds: RangeInclusive<u64>,
    get: fn(&Config) -> u64,
    set: fn(&mut Config, u64),
) -> Setting {
    let (min, max) = (*bounds.start(), *bounds.end());
    Setting { name, meaning, rule: Rule::Count(Bounded { min, max, get, set }) }
}

const fn text(name: &'static str, meaning: &'static str, text: Text) -> Setting {
    Setting { name, meaning, rule: Rule::Text(text) }
}

/// A count whose bounds are within 32 bits.
fn small(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A count or size of things held in memory.
fn in_memory(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// An address and a port. No name other than `localhost` is resolved: what it
/// stands for could change between two starts.
fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

/// A path that the operating system can take.
pub fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| text.into())
}

fn name_in<T: PartialEq + Copy>(words: &[(&str, T)], value: T) -> String {
    let word = words.iter().find(|(_, meaning)| *meaning == value);
    word.map(|(name, _)| (*name).to_owned()).unwrap_or_default()
}

fn value_in<T: Copy>(words: &[(&str, T)], text: &str) -> Option<T> {
    words.iter().find(|(name, _)| *name == text).map(|(_, meaning)| *meaning)
}
