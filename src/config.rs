//! Validated settings, with units.
//!
//! Owns what can be set, its bounds and defaults, and where each value came
//! from. Must not know the domain.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

/// What an OK answer survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// kill -9, a kernel crash and a power cut: fsync before the answer.
    #[default]
    Fsync,
    /// kill -9: written to the operating system before the answer.
    Os,
    /// Nothing: kept in memory only. For tests and experiments.
    Memory,
}

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
    /// Program and arguments. `{name}` inside an argument is replaced by the
    /// task's argument of that name and never split; there is no shell.
    pub command: Vec<String>,
    /// Where it runs; the server's own directory if unset.
    pub working_dir: Option<PathBuf>,
    /// Variables set for it, on top of PATH, HOME, LANG and TZ.
    pub env: BTreeMap<String, String>,
    /// Bytes kept of stdout, and of stderr.
    pub max_output: usize,
}

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Address to serve on.
    pub listen: SocketAddr,
    /// Where the store lives.
    pub data_dir: PathBuf,
    /// What an OK answer survives.
    pub durability: Durability,
    /// Size of the crew.
    pub workers: NonZeroU32,
    /// How long a drain may take in all.
    pub drain_timeout: Duration,
    /// How long a signalled handler has to return before it is stopped.
    pub cancel_grace: Duration,
    /// Waiting tasks that one queue holds.
    pub queue_max_tasks: u64,
    /// Bytes of waiting tasks that one queue holds.
    pub queue_max_bytes: u64,
    /// Queues that may exist.
    pub max_queues: usize,
    /// How long a caller without a deadline waits for room.
    pub room_timeout: Duration,
    /// Bytes of one payload.
    pub max_payload: usize,
    /// Bytes of one request message.
    pub max_message: usize,
    /// Bytes of one result.
    pub max_result: usize,
    /// How long an attempt may take, unless the task says.
    pub attempt_timeout: Duration,
    /// Attempts of a task, unless it says.
    pub max_attempts: u32,
    /// Crashes in a row that fail a task.
    pub max_crashes: u32,
    /// Silence on a watch before a heartbeat, unless the watcher says.
    pub heartbeat: Duration,
    /// Watchers at a time.
    pub max_watchers: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// Which log lines are written: a `tracing` filter.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The commands that `exec` tasks may run, by name.
    pub exec: BTreeMap<String, ExecCommand>,
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
            room_timeout: Duration::from_secs(60),
            max_payload: 1 << 20,
            max_message: 4 << 20,
            max_result: 1 << 20,
            attempt_timeout: Duration::from_secs(3600),
            max_attempts: 1,
            max_crashes: 3,
            heartbeat: Duration::from_secs(15),
            max_watchers: 1_000,
            max_connections: 1_000,
            log: "info".into(),
            log_format: LogFormat::default(),
            exec: BTreeMap::new(),
        }
    }
}
