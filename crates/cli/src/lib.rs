//! The commands of Taskyard that talk to a server.
//!
//! Owns their arguments, their output and the exit codes: [`Exit`] lists them. Must not know
//! how a server works: everything goes through the client. Whoever builds a program on it
//! adds [`Command`] to the commands of its own.

mod body;
mod bulk;
mod bulk_report;
mod cancel;
pub mod client;
mod columns;
mod configure;
mod drain;
mod each;
pub mod exit;
mod filter;
pub mod interrupt;
mod json;
mod kinds;
mod lines;
mod logs;
mod names;
mod ndjson;
pub mod output;
mod paged;
pub mod problem;
pub mod program;
mod query;
mod queues;
mod redrive;
pub mod render;
mod stats;
mod strict_json;
mod submit;
pub mod table;
mod tally;
mod top;
pub mod units;
mod watch;
mod workers;

/// What the fuzz targets reach: there with `--cfg fuzzing` alone.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use super::ndjson::parse as ndjson_line;
}

use std::future::Future;

use clap::Subcommand;

use client::ServerArgs;
use problem::Problem;

pub use exit::Exit;
pub use program::Program;

/// What help writes above the flags that every command has.
pub const GLOBAL: &str = "Everywhere";

/// A command that talks to a server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Submit a task, or many, and print the ids
    Submit(Box<submit::SubmitArgs>),
    /// Print events as they happen
    ///
    /// Ctrl-C or SIGTERM ends it with exit code 0 and the cursor to go on from.
    Watch(Box<watch::WatchArgs>),
    /// Show tasks
    Get(query::TaskArgs),
    /// List tasks, oldest first, without payloads and results
    List(Box<query::ListArgs>),
    /// Wait for the end of tasks and show them
    ///
    /// The exit code is 1 unless all SUCCEEDED.
    Wait(query::WaitArgs),
    /// Print what the command of a task printed, if it did not succeed
    ///
    /// Its stdout goes to stdout, its stderr to stderr; of each the end is kept.
    Logs(logs::LogsArgs),
    /// Cancel tasks: those named, or all that match
    Cancel(Box<cancel::CancelArgs>),
    /// Put tasks that FAILED or were CANCELLED back into their queues
    ///
    /// They get all of their retry budget again. To see them first, list them with
    /// the same filters.
    Redrive(Box<redrive::RedriveArgs>),
    /// List the kinds of task that the server executes
    Kinds(kinds::KindsArgs),
    /// List the queues, or show one in full
    Queues(queues::QueuesArgs),
    /// Change settings of a queue, from now on and over restarts
    Configure(Box<configure::ConfigureArgs>),
    /// Start no more tasks of queues, until they are resumed
    ///
    /// They go on taking tasks, and what runs goes on. It holds over restarts.
    Pause(queues::NamesArgs),
    /// Start the tasks of paused queues again
    Resume(queues::NamesArgs),
    /// Show each worker and what it runs
    Workers(workers::WorkersArgs),
    /// Give the pool another size, until the server is restarted
    ///
    /// It grows at once. Workers that are one too many leave when their task has
    /// ended.
    Resize(workers::ResizeArgs),
    /// Show how fast tasks come, wait and run, and what pool it takes
    Stats(stats::StatsArgs),
    /// See queues, workers and events live on the whole screen
    ///
    /// `q` ends it, `?` tells the other keys. It goes on over restarts of the server.
    Top(top::TopArgs),
    /// Drain the server and end it, as SIGTERM does
    ///
    /// The exit code is 8 if it had to cut tasks off.
    Drain(drain::DrainArgs),
}

/// How help presents a command.
#[derive(Debug)]
pub struct CommandHelp {
    /// The command.
    pub name: &'static str,
    /// The group in which it stands.
    pub group: Group,
    /// Lines for a shell that show it; a test reads them.
    pub examples: &'static str,
}

/// The groups of commands in help, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// What runs a server.
    Run,
    /// What submits tasks and follows them.
    Tasks,
    /// What operators need.
    Operate,
    /// What concerns the program alone.
    Program,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Run, Self::Tasks, Self::Operate, Self::Program];

    /// What stands above it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Run => "Run a server",
            Self::Tasks => "Tasks",
            Self::Operate => "Operate",
            Self::Program => "This program",
        }
    }
}

/// How help presents each [`Command`], in its order.
pub const COMMAND_HELP: &[CommandHelp] = &[
    CommandHelp {
        name: "submit",
        group: Group::Tasks,
        examples: "\
taskyard submit sleep -a '{\"duration\":\"2s\"}' --wait
taskyard submit noop -q nightly --delay 1h --max-attempts 5 --request-id order-7
taskyard submit --from tasks.ndjson --request-id-prefix orders-7 --wait",
    },
    CommandHelp {
        name: "get",
        group: Group::Tasks,
        examples: "taskyard get t4n9h5h6eq t2hwpwxkbx",
    },
    CommandHelp {
        name: "list",
        group: Group::Tasks,
        examples: "\
taskyard list -S failed -q nightly --finished-since 1d
taskyard list -l customer=42 --newest-first -n 10
taskyard list -n 0 -o json",
    },
    CommandHelp {
        name: "wait",
        group: Group::Tasks,
        examples: "\
taskyard wait t4n9h5h6eq --timeout 10m
taskyard wait t4n9h5h6eq t2hwpwxkbx",
    },
    CommandHelp {
        name: "watch",
        group: Group::Tasks,
        examples: "\
taskyard watch
taskyard watch -q nightly -t failed -t retry_scheduled
taskyard watch --follow-task t4n9h5h6eq
taskyard watch --from-start --cursor-file nightly.cursor -o json",
    },
    CommandHelp { name: "logs", group: Group::Tasks, examples: "taskyard logs t4n9h5h6eq" },
    CommandHelp {
        name: "cancel",
        group: Group::Tasks,
        examples: "\
taskyard cancel t4n9h5h6eq
taskyard cancel --all -q nightly -S queued",
    },
    CommandHelp {
        name: "redrive",
        group: Group::Tasks,
        examples: "\
taskyard redrive t4n9h5h6eq
taskyard redrive --all -k exec --since 1h",
    },
    CommandHelp { name: "kinds", group: Group::Tasks, examples: "" },
    CommandHelp {
        name: "top",
        group: Group::Operate,
        examples: "\
taskyard top
taskyard top -q mail -q reports --interval 250ms",
    },
    CommandHelp {
        name: "stats",
        group: Group::Operate,
        examples: "\
taskyard stats --target-wait 250ms
taskyard stats --watch 5s",
    },
    CommandHelp {
        name: "queues",
        group: Group::Operate,
        examples: "\
taskyard queues
taskyard queues mail",
    },
    CommandHelp {
        name: "configure",
        group: Group::Operate,
        examples: "\
taskyard configure mail --max-running 2 --rate 30/m --burst 5
taskyard configure mail --reset rate --reset max-running",
    },
    CommandHelp { name: "pause", group: Group::Operate, examples: "taskyard pause mail reports" },
    CommandHelp { name: "resume", group: Group::Operate, examples: "taskyard resume mail reports" },
    CommandHelp { name: "workers", group: Group::Operate, examples: "taskyard workers" },
    CommandHelp { name: "resize", group: Group::Operate, examples: "taskyard resize 16" },
    CommandHelp { name: "drain", group: Group::Operate, examples: "taskyard drain --yes" },
];

/// Completes the definition of the commands.
#[must_use]
pub fn completed(command: clap::Command) -> clap::Command {
    command.mut_subcommand("redrive", redrive::with_aliases)
}

/// Does what a command says.
///
/// # Errors
/// Why it ended early.
pub fn run(command: Command, server: &ServerArgs) -> Result<Exit, Problem> {
    match command {
        Command::Submit(args) => block_on(submit::run(server, *args)),
        Command::Watch(args) => block_on(watch::run(server, *args)),
        Command::Get(args) => block_on(until_ctrl_c(query::get(server, args))),
        Command::List(args) => block_on(until_ctrl_c(query::list(server, *args))),
        Command::Wait(args) => block_on(query::wait(server, args)),
        Command::Logs(args) => block_on(until_ctrl_c(logs::run(server, args))),
        Command::Cancel(args) => block_on(cancel::run(server, *args)),
        Command::Redrive(args) => block_on(redrive::run(server, *args)),
        Command::Kinds(args) => block_on(until_ctrl_c(kinds::run(server, args))),
        Command::Queues(args) => block_on(until_ctrl_c(queues::run(server, args))),
        Command::Configure(args) => block_on(until_ctrl_c(configure::run(server, *args))),
        Command::Pause(args) => block_on(until_ctrl_c(queues::pause(server, args))),
        Command::Resume(args) => block_on(until_ctrl_c(queues::resume(server, args))),
        Command::Workers(args) => block_on(until_ctrl_c(workers::run(server, args))),
        Command::Resize(args) => block_on(until_ctrl_c(workers::resize(server, args))),
        Command::Stats(args) => block_on(stats::run(server, args)),
        Command::Top(args) => block_on(top::run(server, args)),
        Command::Drain(args) => block_on(drain::run(server, args)),
    }
}

/// Runs a client's command: one thread is plenty.
fn block_on(command: impl Future<Output = Result<Exit, Problem>>) -> Result<Exit, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|wrong| Problem::new(Exit::Internal, wrong.to_string()))?;
    let ended = runtime.block_on(command);
    // A read of stdin may hang for ever; it ends with the process.
    runtime.shutdown_background();
    ended
}

/// Ends a command on Ctrl-C, where there is nothing to tidy up.
async fn until_ctrl_c(
    command: impl Future<Output = Result<Exit, Problem>>,
) -> Result<Exit, Problem> {
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        ended = command => ended,
    }
}
