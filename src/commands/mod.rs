//! The command line: the commands of a client, and those that need the server's code.
//!
//! Owns the definition of the whole, and `serve`, `demo` and `store`. Must not know what the
//! commands of `taskyard-cli` do, which talk to a server.

mod demo;
mod help;
mod holder;
mod serve;
mod shell;
mod store;

use std::{ffi::OsString, process::ExitCode};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use taskyard_cli::{
    Exit, GLOBAL, Program,
    client::ServerArgs,
    output::{self, Color},
    problem::Problem,
};

use crate::handler::Registry;

/// A durable task service: submit over gRPC, run on a fixed pool of workers,
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
    /// Look after a store while no server runs on it
    Store(store::StoreArgs),
    /// Print the completions of a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual, or write all of its pages
    Man(shell::ManArgs),
    #[command(flatten)]
    Client(taskyard_cli::Command),
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
        .mut_subcommand("serve", serve::with_args);
    help::presented(taskyard_cli::completed(command), program)
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
        Command::Client(command) => taskyard_cli::run(command, &server)?,
        Command::Store(args) => store::run(&args)?,
        Command::Completions(args) => shell::completions(&args, program)?,
        Command::Man(args) => shell::man(&args, program)?,
    };
    Ok(exit)
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
