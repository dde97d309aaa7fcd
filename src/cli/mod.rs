//! The command line.
//!
//! Owns arguments, output and exit codes: [`Exit`] lists them. Must not know
//! the store or the pool: it talks to a server through the generated client;
//! only `serve` and `demo` start one, and `store` looks into a store that none has open.

mod bulk;
mod bulk_report;
mod cancel;
mod client;
mod columns;
mod configure;
mod demo;
mod drain;
mod each;
mod exit;
mod filter;
mod help;
mod holder;
mod interrupt;
mod json;
mod kinds;
mod lines;
mod logs;
mod names;
mod ndjson;
mod output;
mod present;
mod problem;
mod program;
mod query;
mod queues;
mod redrive;
mod serve;
mod shell;
mod stats;
mod steps;
mod store;
mod strict_json;
mod submit;
mod table;
mod tally;
mod top;
mod units;
mod watch;
mod workers;

use std::{ffi::OsString, future::Future, process::ExitCode};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::handler::Registry;
use client::ServerArgs;
use output::Color;
use problem::Problem;

pub use exit::Exit;
pub use program::Program;

/// What help writes above the flags that every command has.
const GLOBAL: &str = "Everywhere";

/// A durable task service: submit over gRPC, run on a fixed crew of workers,
/// watch every start and finish.
#[derive(Debug, Parser)]
#[command(propagate_version = true, subcommand_required = true)]
struct Cli {
    /// When to use colours: auto (not with `NO_COLOR`), always, never
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "WHEN"
    )]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server until SIGTERM or Ctrl-C, then drain it
    Serve,
    /// See it work: checksum a directory's files on a server of its own
    Demo(demo::DemoArgs),
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
    /// Give the crew another size, until the server is restarted
    ///
    /// It grows at once. Workers that are one too many leave when their task has
    /// ended.
    Resize(workers::ResizeArgs),
    /// Show how fast tasks come, wait and run, and what crew it takes
    Stats(stats::StatsArgs),
    /// See queues, workers and events live on the whole screen
    ///
    /// `q` ends it, `?` tells the other keys. It goes on over restarts of the server.
    Top(top::TopArgs),
    /// Drain the server and end it, as SIGTERM does
    ///
    /// The exit code is 8 if it had to cut tasks off.
    Drain(drain::DrainArgs),
    /// Look after a store while no server runs on it
    Store(store::StoreArgs),
    /// Print the completions of a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual, or write all of its pages
    Man(shell::ManArgs),
}

/// Reads the command line and does what it says, with the kinds of task in
/// `own`, as `program`. The code is one of [`Exit`].
#[must_use]
pub fn run(own: Registry, program: Program) -> ExitCode {
    program.set();
    ended(
        parse(program, std::env::args_os())
            .and_then(|(cli, matches)| dispatch(cli, &matches, own, program)),
    )
    .into()
}

/// The command line's definition, complete.
fn definition(program: Program) -> clap::Command {
    // Once for each process.
    let version: &'static str = program.version_text().leak();
    let command = Cli::command()
        .name(program.name)
        .version(version)
        .mut_subcommand("serve", serve::with_args)
        .mut_subcommand("redrive", redrive::with_aliases);
    help::presented(command, program)
}

fn parse(
    program: Program,
    args: impl IntoIterator<Item = OsString>,
) -> Result<(Cli, ArgMatches), Stop> {
    let matches = definition(program).try_get_matches_from(args).map_err(Stop::Parser)?;
    let cli = Cli::from_arg_matches(&matches).map_err(Stop::Parser)?;
    Ok((cli, matches))
}

/// Why there is nothing more to do.
#[derive(Debug)]
enum Stop {
    /// `--help`, `--version` or a mistake; it prints itself.
    Parser(clap::Error),
    /// A command ended early.
    Problem(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

fn ended(outcome: Result<Exit, Stop>) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(Stop::Parser(told)) => match told.print() {
            // What is wrong is told by the code, if it cannot be told in words.
            _ if told.use_stderr() => Exit::Usage,
            Ok(()) => Exit::Ok,
            Err(wrong) => ended(Err(Problem::from(wrong).into())),
        },
        Err(Stop::Problem(problem)) => {
            if !problem.message().is_empty() {
                output::error(problem.message());
            }
            problem.exit()
        }
    }
}

fn dispatch(cli: Cli, matches: &ArgMatches, own: Registry, program: Program) -> Result<Exit, Stop> {
    cli.color.apply();
    let server = ServerArgs::of(matches)?;
    let exit = match cli.command {
        Command::Serve => serve::run(matches.subcommand_matches("serve").unwrap_or(matches), own)?,
        Command::Demo(args) => demo::run(&args, own)?,
        Command::Submit(args) => block_on(submit::run(&server, *args))?,
        Command::Watch(args) => block_on(watch::run(&server, *args))?,
        Command::Get(args) => block_on(until_ctrl_c(query::get(&server, args)))?,
        Command::List(args) => block_on(until_ctrl_c(query::list(&server, *args)))?,
        Command::Wait(args) => block_on(query::wait(&server, args))?,
        Command::Logs(args) => block_on(until_ctrl_c(logs::run(&server, args)))?,
        Command::Cancel(args) => block_on(cancel::run(&server, *args))?,
        Command::Redrive(args) => block_on(redrive::run(&server, *args))?,
        Command::Kinds(args) => block_on(until_ctrl_c(kinds::run(&server, args)))?,
        Command::Queues(args) => block_on(until_ctrl_c(queues::run(&server, args)))?,
        Command::Configure(args) => block_on(until_ctrl_c(configure::run(&server, *args)))?,
        Command::Pause(args) => block_on(until_ctrl_c(queues::pause(&server, args)))?,
        Command::Resume(args) => block_on(until_ctrl_c(queues::resume(&server, args)))?,
        Command::Workers(args) => block_on(until_ctrl_c(workers::run(&server, args)))?,
        Command::Resize(args) => block_on(until_ctrl_c(workers::resize(&server, args)))?,
        Command::Stats(args) => block_on(stats::run(&server, args))?,
        Command::Top(args) => block_on(top::run(&server, args))?,
        Command::Drain(args) => block_on(drain::run(&server, args))?,
        Command::Store(args) => store::run(&args)?,
        Command::Completions(args) => shell::completions(&args, program)?,
        Command::Man(args) => shell::man(&args, program)?,
    };
    Ok(exit)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<(Cli, ArgMatches), Stop> {
        parse(Program::default(), text.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        definition(Program::default()).debug_assert();
    }

    #[test]
    fn good_lines_are_taken() {
        let lines = [
            "taskyard serve",
            "taskyard demo",
            "taskyard demo src --workers 2 --max-files 10",
            "taskyard submit noop",
            "taskyard submit sleep --args {} --queue q --priority -5 --delay 5s --timeout 30s \
             --max-attempts 3 --label a=b --label c=d --request-id r --reject-when-full --wait",
            "taskyard submit --from - --wait",
            "taskyard submit --from x --request-id-prefix orders-7",
            "taskyard watch --after c1 --count 3 --output json",
            "taskyard watch --from-start --cursor-file c --until-caught-up --skip-gaps",
            "taskyard watch --snapshot --queue q --kind k --label a=b --task t1 --type started \
             --type QUEUE-PAUSED --worker worker-1 --reconnect-for 1h",
            "taskyard watch --follow-task t1 --follow-task t2 --no-reconnect",
            "taskyard --server localhost:7000 get t1",
            "taskyard get t1 --server localhost:7000 --color never",
            "taskyard list --state failed --state queued --queue q --queue r --kind k --label a=b \
             --created-since 2h --created-before 1d --finished-since 2026-01-02T03:04:05Z \
             --finished-before 5m --newest-first --limit 0",
            "taskyard wait t1 --timeout 1d",
            "taskyard logs t1",
            "taskyard logs t1 --attempt 2",
            "taskyard cancel t1",
            "taskyard cancel t1 t2",
            "taskyard cancel --all",
            "taskyard cancel --all --queue q --state queued --label a=b --created-before 1d",
            "taskyard redrive t1 t2 --no-wait",
            "taskyard redrive --all --state failed --state cancelled --kind k --since 1h \
             --until 5m --timeout 10m --output json",
            "taskyard kinds",
            "taskyard queues",
            "taskyard queues mail --output json",
            "taskyard configure mail --max-tasks 5 --max-bytes 64MiB --max-running 0 --rate 30/m \
             --burst 5 --weight 2 --max-attempts 3 --initial-backoff 1s --max-backoff 1m \
             --attempt-timeout 2d",
            "taskyard configure mail --rate none --reset weight --reset max_running",
            "taskyard pause a b",
            "taskyard resume a",
            "taskyard workers",
            "taskyard resize 8",
            "taskyard stats",
            "taskyard stats --target-wait 250ms --watch",
            "taskyard stats --watch 10s --output json",
            "taskyard top",
            "taskyard top --interval 250ms --queue mail --queue reports",
            "taskyard drain --yes",
            "taskyard completions zsh",
            "taskyard man --dir d",
            "taskyard get t1 t2",
            "taskyard wait t1 t2 -t 5s -s localhost:7000 -o json",
            "taskyard submit noop -q q -p -5 -d 5s -t 30s -l a=b -i r -w -a {}",
            "taskyard submit -f x -w",
            "taskyard list -S failed -q q -k k -l a=b -r -n 5",
            "taskyard watch -q q -k k -l a=b -t failed -n 3",
            "taskyard watch -f t1",
            "taskyard cancel -a -y",
            "taskyard redrive -a -q q",
            "taskyard drain -y",
        ];
        for text in lines {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(line(&text).is_ok(), "{text}: {:?}", line(&text).err());
        }
    }

    #[test]
    fn mistakes_are_usage() {
        let lines = [
            "taskyard",
            "taskyard dance",
            "taskyard submit",
            "taskyard submit noop --from x",
            "taskyard submit --from x --queue q",
            "taskyard submit noop --request-id-prefix orders-7",
            "taskyard submit noop --delay soon",
            "taskyard submit noop --delay 5s --run-at 2026-12-24T18:00:00Z",
            "taskyard submit noop --args {} --data x",
            "taskyard submit noop --label nokey",
            "taskyard watch --after c --from-start",
            "taskyard watch --after c --snapshot",
            "taskyard watch --after c --cursor-file f",
            "taskyard watch --from-start --snapshot",
            "taskyard watch --follow-task t1 --task t2",
            "taskyard watch --follow-task t1 --worker worker-1",
            "taskyard watch --follow-task t1 --queue q",
            "taskyard watch --follow-task t1 --until-caught-up",
            "taskyard watch --type danced",
            "taskyard watch --no-reconnect --reconnect-for 5s",
            "taskyard watch --count 0",
            "taskyard list --state done",
            "taskyard list --created-since yesterday",
            "taskyard cancel",
            "taskyard cancel --queue q",
            "taskyard cancel t1 --all",
            "taskyard cancel t1 --queue q",
            "taskyard cancel --all --state failed",
            "taskyard redrive",
            "taskyard redrive --kind k",
            "taskyard redrive t1 --since 1h",
            "taskyard redrive --all --state queued",
            "taskyard redrive --all --no-wait --timeout 1m",
            "taskyard configure",
            "taskyard configure mail --burst 5",
            "taskyard configure mail --rate 5",
            "taskyard configure mail --reset colour",
            "taskyard pause",
            "taskyard resize 0",
            "taskyard resize 10001",
            "taskyard stats --watch 0s",
            "taskyard stats --target-wait soon",
            "taskyard top --interval 50ms",
            "taskyard top --interval",
            "taskyard top --queue",
            "taskyard top mail",
            "taskyard demo --workers 0",
            "taskyard serve --server localhost:7000",
            "taskyard completions tcsh",
        ];
        for text in lines {
            let stop = line(text).map(|_| Exit::Ok);
            assert_eq!(ended(stop), Exit::Usage, "{text}");
        }
    }

    #[test]
    fn a_program_of_its_own_tells_its_own_version() {
        let version = |program| definition(program).render_version();
        let crates = env!("CARGO_PKG_VERSION");
        assert_eq!(version(Program::default()), format!("taskyard {crates}\n"));
        let own = Program { name: "words", version: Some("7.1") };
        assert_eq!(version(own), format!("words 7.1 (taskyard {crates})\n"));
    }

    #[test]
    fn help_is_no_mistake() {
        assert_eq!(ended(line("taskyard --version").map(|_| Exit::Internal)), Exit::Ok);
    }
}
