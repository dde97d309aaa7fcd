//! The table of everything that can be set by a single value.
//!
//! Owns each setting's name, meaning, bounds, and its way into and out of a
//! [`super::Config`]. Must not know where a value came from.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use super::{
    Durability, LogFormat,
    rule::Text,
    settings::{Setting, count, duration, duration_or_zero, size, switch, text},
};
use crate::queue;

/// Settings that belong together.
#[derive(Debug)]
pub struct Group {
    /// What help writes above them.
    pub heading: &'static str,
    /// In the order in which help lists them.
    pub settings: &'static [Setting],
}

/// All settings, in the order in which help lists them.
pub static GROUPS: [Group; 8] = [
    Group { heading: "Serving", settings: SERVING },
    Group { heading: "The pool", settings: POOL },
    Group { heading: "The queues", settings: QUEUES },
    Group { heading: "Attempts", settings: ATTEMPTS },
    Group { heading: "Sizes", settings: SIZES },
    Group { heading: "What is kept", settings: KEPT },
    Group { heading: "Watchers and connections", settings: CONNECTIONS },
    Group { heading: "Logging", settings: LOGGING },
];

/// All settings without their groups, in the same order.
pub fn settings() -> impl Iterator<Item = &'static Setting> + Clone {
    GROUPS.iter().flat_map(|group| group.settings)
}

const HOUR: Duration = Duration::from_hours(1);
const TEN_YEARS: Duration = Duration::from_hours(24 * 3_650);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

static SERVING: &[Setting] = &[
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
    size(
        "disk-reserve",
        "Bytes that must be free where the store lives for a new task to be taken; 0 is none",
        0..=1 << 50,
        |c| c.disk_reserve,
        |c, n| c.disk_reserve = n,
    ),
];

static POOL: &[Setting] = &[
    count(
        "workers",
        "Size of the pool: tasks that run at a time; 4 per core unless set",
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
        "max-crashes",
        "Crashes in a row, at which it was running, that fail a task",
        1..=1_000,
        |c| c.max_crashes.into(),
        |c, n| c.max_crashes = small(n),
    ),
];

static QUEUES: &[Setting] = &[
    count(
        "queue-max-tasks",
        "Waiting tasks that one queue holds, unless it is declared otherwise",
        queue::MAX_TASKS,
        |c| c.queue_max_tasks,
        |c, n| c.queue_max_tasks = n,
    ),
    size(
        "queue-max-bytes",
        "Bytes of waiting tasks that one queue holds, unless it is declared otherwise",
        queue::MAX_BYTES,
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
    switch(
        "fixed-queues",
        "Whether only the queues declared in the configuration file exist",
        |c| c.fixed_queues,
        |c, fixed| c.fixed_queues = fixed,
    ),
    duration(
        "room-timeout",
        "How long a caller without a deadline waits for room in a queue",
        Duration::ZERO..=HOUR,
        |c| c.room_timeout,
        |c, span| c.room_timeout = span,
    ),
];

static ATTEMPTS: &[Setting] = &[
    duration(
        "attempt-timeout",
        "How long an attempt may take, unless the task or its queue says",
        queue::ATTEMPT_TIMEOUT,
        |c| c.attempt_timeout,
        |c, span| c.attempt_timeout = span,
    ),
    count(
        "max-attempts",
        "Attempts of a task, unless it or its queue says",
        1..=100,
        |c| c.max_attempts.into(),
        |c, n| c.max_attempts = small(n),
    ),
    duration(
        "initial-backoff",
        "The longest rest before the first retry, unless a task or its queue says",
        queue::BACKOFF,
        |c| c.initial_backoff,
        |c, span| c.initial_backoff = span,
    ),
    duration(
        "max-backoff",
        "The longest rest before any retry, unless a task or its queue says; at least initial_backoff",
        queue::BACKOFF,
        |c| c.max_backoff,
        |c, span| c.max_backoff = span,
    ),
];

static SIZES: &[Setting] = &[
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
    size(
        "max-log",
        "Bytes of the write-ahead log; from half of that on no new task is taken",
        4 * MIB..=1 << 40,
        |c| c.max_log,
        |c, n| c.max_log = n,
    ),
];

static KEPT: &[Setting] = &[
    duration(
        "keep-finished",
        "How long tasks that SUCCEEDED or were CANCELLED are kept, with results and request ids",
        Duration::ZERO..=TEN_YEARS,
        |c| c.retention.finished,
        |c, span| c.retention.finished = span,
    ),
    duration(
        "keep-failed",
        "How long tasks that FAILED are kept",
        Duration::ZERO..=TEN_YEARS,
        |c| c.retention.failed,
        |c, span| c.retention.failed = span,
    ),
    count(
        "max-finished",
        "Ended tasks that are kept, and as many that FAILED, the oldest going first",
        0..=1_000_000_000,
        |c| c.retention.max_finished,
        |c, n| c.retention.max_finished = n,
    ),
    size(
        "max-finished-bytes",
        "Bytes of ended tasks and their results that are kept, and as many of those that FAILED",
        MIB..=1 << 50,
        |c| c.retention.max_finished_bytes,
        |c, n| c.retention.max_finished_bytes = n,
    ),
    duration(
        "keep-events",
        "How long events are kept",
        Duration::ZERO..=TEN_YEARS,
        |c| c.retention.events,
        |c, span| c.retention.events = span,
    ),
    count(
        "max-events",
        "Events that are kept, the oldest going first",
        1_000..=100_000_000_000,
        |c| c.retention.max_events,
        |c, n| c.retention.max_events = n,
    ),
];

static CONNECTIONS: &[Setting] = &[
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
        "max-watchers-per-connection",
        "Watchers at a time on one connection",
        1..=1_000_000,
        |c| c.max_watchers_per_connection as u64,
        |c, n| c.max_watchers_per_connection = in_memory(n),
    ),
    count(
        "max-watchers-per-peer",
        "Watchers at a time from one IP address",
        1..=1_000_000,
        |c| c.max_watchers_per_peer as u64,
        |c, n| c.max_watchers_per_peer = in_memory(n),
    ),
    duration_or_zero(
        "watch-stall-timeout",
        "How long a watcher may not read, although there is something, before it is ended; 0s is for ever",
        Duration::from_secs(1)..=Duration::from_hours(24),
        |c| c.watch_stall_timeout,
        |c, span| c.watch_stall_timeout = span,
    ),
    duration_or_zero(
        "watch-lifetime",
        "How long a watch may last, less up to a tenth by chance; 0s is for ever",
        Duration::from_secs(1)..=Duration::from_hours(30 * 24),
        |c| c.watch_lifetime,
        |c, span| c.watch_lifetime = span,
    ),
    count(
        "max-connections",
        "Connections at a time",
        1..=1_000_000,
        |c| c.max_connections as u64,
        |c, n| c.max_connections = in_memory(n),
    ),
    count(
        "max-connections-per-address",
        "Connections at a time from one IPv4 address, or one /64 network of IPv6",
        1..=1_000_000,
        |c| c.max_connections_per_address as u64,
        |c, n| c.max_connections_per_address = in_memory(n),
    ),
    size(
        "max-request-bytes",
        "Bytes of large requests that have not arrived whole, in all",
        16 << 20..=1 << 40,
        |c| c.max_request_bytes,
        |c, n| c.max_request_bytes = n,
    ),
    size(
        "max-response-bytes",
        "Bytes of large responses that clients have not read, in all",
        32 << 20..=1 << 40,
        |c| c.max_response_bytes,
        |c, n| c.max_response_bytes = n,
    ),
    duration(
        "response-stall-timeout",
        "How long a client may take nothing of a response before its call is reset",
        Duration::from_secs(1)..=Duration::from_hours(24),
        |c| c.response_stall_timeout,
        |c, span| c.response_stall_timeout = span,
    ),
];

static LOGGING: &[Setting] = &[
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
