//! Validated settings, with units.
//!
//! Owns what can be set, its bounds and defaults, and where each value came
//! from. Must not know the domain, but for how a queue can be set up, or the engine, but for
//! what an operator decides about a store.
//!
//! One table (`table`) says what can be set. From it come the flags of the
//! command line ([`args`]), the variables of the environment and the keys of the
//! configuration file; [`load`] reads all three and says everything that is
//! wrong with them at once.

mod commands;
mod declaration;
mod environment;
mod file;
mod load;
mod problem;
mod queues;
mod rule;
mod settings;
mod table;

pub use load::{args, load};
pub use problem::{Location, Problem, Problems};
pub use taskyard_engine::store::{Durability, Retention};

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use crate::queue;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A command that `exec` tasks may run, as the operator declared it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecCommand {
    /// Program and arguments, the program first. `{name}` inside an argument is
    /// replaced by the task's argument of that name and never split; there is no
    /// shell. `{{` and `}}` stand for single braces. The program has no placeholder.
    ///
    /// A value may begin with a dash: put `--` before it, or write
    /// `--option={name}`, so that the program does not take it for an option.
    pub command: Vec<String>,
    /// Where it runs; the server's own directory if unset.
    pub working_dir: Option<PathBuf>,
    /// Variables set for it, on top of PATH, HOME, LANG and TZ.
    pub env: BTreeMap<String, String>,
    /// Bytes kept of stdout, and of stderr, each: at most 1 MiB, and no more
    /// than [`Config::max_result`] has room for ([`ExecCommand::max_result_size`]).
    pub max_output: usize,
}

impl ExecCommand {
    /// Bytes kept of each output stream unless declared otherwise: 64 KiB.
    pub const DEFAULT_MAX_OUTPUT: usize = 64 << 10;

    /// Bytes that the result of such a command can take: of two streams each
    /// byte may become an escape of six in JSON, and 1 KiB is for the rest.
    #[must_use]
    pub fn max_result_size(max_output: usize) -> usize {
        max_output.saturating_mul(2 * 6).saturating_add(1 << 10)
    }
}

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Address to serve on. Port 0: one that is free. Default 127.0.0.1:50051.
    pub listen: SocketAddr,
    /// Directory in which the store lives. Default `taskyard-data`.
    pub data_dir: PathBuf,
    /// What an OK answer survives. Default [`Durability::Fsync`].
    pub durability: Durability,
    /// Size of the pool: 1 to 10,000. Default 4 per core.
    pub workers: NonZeroU32,
    /// How long a drain may take in all: at most 1 hour. Default 30 s.
    pub drain_timeout: Duration,
    /// How long a signalled handler has to return before it is stopped: at most
    /// 1 hour. Default 5 s.
    pub cancel_grace: Duration,
    /// Waiting tasks that one queue holds: 1 to 100,000,000. Default 100,000.
    pub queue_max_tasks: u64,
    /// Bytes of waiting tasks that one queue holds: 1 KiB to 1 TiB. Default 1 GiB.
    pub queue_max_bytes: u64,
    /// Queues that may exist: 1 to 100,000. Default 1,000.
    pub max_queues: usize,
    /// How long a caller without a deadline waits for room: at most 1 hour.
    /// Default 60 s.
    pub room_timeout: Duration,
    /// Bytes of one payload: at most 64 MiB. Default 1 MiB.
    pub max_payload: usize,
    /// Bytes of one request message: 64 KiB more than `max_payload`, or more, up
    /// to 256 MiB. Default 4 MiB.
    pub max_message: usize,
    /// Bytes of one result: at most 64 MiB. Default 1 MiB.
    pub max_result: usize,
    /// Bytes of the write-ahead log, in which commits wait to be moved into the database:
    /// 4 MiB to 1 TiB. From half of that on no new task is taken. Default 512 MiB.
    pub max_log: u64,
    /// Start although durable commits are lost by damage, with what is whole; what is
    /// damaged is kept beside it. No setting: it must be said at each start. Default
    /// false.
    pub accept_loss: bool,
    /// How long an attempt may take, unless the task says: 1 ms to 30 days.
    /// Default 1 hour.
    pub attempt_timeout: Duration,
    /// Attempts of a task, unless it says: 1 to 100. Default 1.
    pub max_attempts: u32,
    /// The longest rest before the first retry, unless a task says: 1 ms to 24
    /// hours. Default 1 s.
    pub initial_backoff: Duration,
    /// The longest rest before any retry, unless a task says: 1 ms to 24 hours,
    /// and not below `initial_backoff`. Default 1 min.
    pub max_backoff: Duration,
    /// Only the queues that are declared in `queues` exist. Default false.
    pub fixed_queues: bool,
    /// What is kept of what has ended, and for how long.
    pub retention: Retention,
    /// Bytes of the data directory's file system that are to be free for a new task to
    /// be taken: up to 1 PiB; 0 for none. Default 128 MiB.
    pub disk_reserve: u64,
    /// Crashes in a row that fail a task: 1 to 1,000. Default 3.
    pub max_crashes: u32,
    /// Silence on a watch before a heartbeat, unless the watcher says: 100 ms to
    /// 1 hour. Default 15 s.
    pub heartbeat: Duration,
    /// Watchers at a time: 1 to 1,000,000. Default 1,000.
    pub max_watchers: usize,
    /// Watchers at a time on one connection: 1 to 1,000,000. Default 100.
    pub max_watchers_per_connection: usize,
    /// Watchers at a time from one IP address: 1 to 1,000,000. Default 1,000.
    pub max_watchers_per_peer: usize,
    /// How long a watcher may not read, although there is something, before it is
    /// ended: up to 24 hours; zero is for ever. Default 5 min.
    pub watch_stall_timeout: Duration,
    /// How long a watch may last, less up to a tenth by chance: up to 30 days; zero
    /// is for ever. Default zero.
    pub watch_lifetime: Duration,
    /// Connections at a time: 1 to 1,000,000. Default 1,000.
    pub max_connections: usize,
    /// Connections at a time from one IPv4 address, or one /64 network of IPv6: 1 to
    /// 1,000,000. Default 500, so that one address does not shut out all others.
    pub max_connections_per_address: usize,
    /// Bytes of large requests that have not arrived whole, in all: 16 MiB to 1 TiB.
    /// Default 256 MiB.
    pub max_request_bytes: u64,
    /// Bytes of large responses that clients have not read, in all: 32 MiB to 1 TiB.
    /// Default 256 MiB.
    pub max_response_bytes: u64,
    /// How long a client may take nothing of a response before its call is reset: 1 second
    /// to 24 hours. Default 5 min.
    pub response_stall_timeout: Duration,
    /// Which log lines are written: a `tracing` filter. Default `info`.
    pub log: String,
    /// How log lines look. Default [`LogFormat::Text`].
    pub log_format: LogFormat,
    /// The commands that `exec` tasks may run, by name.
    pub exec: BTreeMap<String, ExecCommand>,
    /// The queues that have settings of their own, by name.
    pub queues: BTreeMap<String, queue::Overrides>,
}

impl Config {
    /// What all of this says of queues.
    #[must_use]
    pub fn queue_config(&self) -> queue::QueueConfig {
        queue::QueueConfig {
            defaults: queue::Settings {
                max_tasks: self.queue_max_tasks,
                max_bytes: self.queue_max_bytes,
                max_attempts: self.max_attempts,
                initial_backoff: self.initial_backoff,
                max_backoff: self.max_backoff,
                attempt_timeout: self.attempt_timeout,
                ..queue::Settings::default()
            },
            declared: self.queues.iter().map(|(name, own)| (name.as_str().into(), *own)).collect(),
            fixed: self.fixed_queues,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = u32::try_from(cores.saturating_mul(4)).unwrap_or(u32::MAX);
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            data_dir: PathBuf::from("taskyard-data"),
            durability: Durability::default(),
            workers: NonZeroU32::new(workers).unwrap_or(NonZeroU32::MIN),
            drain_timeout: Duration::from_secs(30),
            cancel_grace: Duration::from_secs(5),
            queue_max_tasks: 100_000,
            queue_max_bytes: 1 << 30,
            max_queues: 1_000,
            room_timeout: Duration::from_mins(1),
            max_payload: 1 << 20,
            max_message: 4 << 20,
            max_result: 1 << 20,
            max_log: 512 << 20,
            accept_loss: false,
            attempt_timeout: Duration::from_hours(1),
            max_attempts: 1,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_mins(1),
            fixed_queues: false,
            retention: Retention::default(),
            disk_reserve: 128 << 20,
            max_crashes: 3,
            heartbeat: Duration::from_secs(15),
            max_watchers: 1_000,
            max_watchers_per_connection: 100,
            max_watchers_per_peer: 1_000,
            watch_stall_timeout: Duration::from_mins(5),
            watch_lifetime: Duration::ZERO,
            max_connections: 1_000,
            max_connections_per_address: 500,
            max_request_bytes: 256 << 20,
            max_response_bytes: 256 << 20,
            response_stall_timeout: Duration::from_mins(5),
            log: "info".into(),
            log_format: LogFormat::default(),
            exec: BTreeMap::new(),
            queues: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests;
