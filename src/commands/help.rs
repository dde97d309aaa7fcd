//! How the command line presents itself: commands in groups, examples, and where `--server` is
//! offered.
//!
//! Owns what help adds to the definitions of the commands. Must not know what they do.

use std::fmt::Write as _;

use clap::{Command, builder::Styles};
use taskyard_cli::{Program, client::ServerArgs, exit};

/// The commands in the order and the groups in which help lists them. One that is in none
/// comes last.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Run a server", &["serve", "demo", "store"]),
    ("Tasks", &["submit", "get", "list", "wait", "watch", "logs", "cancel", "redrive", "kinds"]),
    (
        "Operate",
        &["top", "stats", "queues", "configure", "pause", "resume", "workers", "resize", "drain"],
    ),
    ("This program", &["completions", "man", "help"]),
];

/// Commands that talk to no server.
const LOCAL: [&str; 6] = ["serve", "demo", "store", "completions", "man", "help"];

/// Examples of each command, as lines for a shell; they are read by a test.
const EXAMPLES: &[(&str, &str)] = &[
    (
        "serve",
        "\
taskyard serve
taskyard serve --listen 0.0.0.0:50051 --data-dir /var/lib/taskyard --workers 16
taskyard serve --config taskyard.toml",
    ),
    (
        "demo",
        "\
taskyard demo
taskyard demo /usr/share/doc --workers 8 --max-files 500",
    ),
    ("store", "taskyard store verify --data-dir /var/lib/taskyard"),
    (
        "submit",
        "\
taskyard submit sleep -a '{\"duration\":\"2s\"}' --wait
taskyard submit noop -q nightly --delay 1h --max-attempts 5 --request-id order-7
taskyard submit --from tasks.ndjson --request-id-prefix orders-7 --wait",
    ),
    ("get", "taskyard get t4n9h5h6eq t2hwpwxkbx"),
    ("logs", "taskyard logs t4n9h5h6eq"),
    (
        "list",
        "\
taskyard list -S failed -q nightly --finished-since 1d
taskyard list -l customer=42 --newest-first -n 10
taskyard list -n 0 -o json",
    ),
    (
        "wait",
        "\
taskyard wait t4n9h5h6eq --timeout 10m
taskyard wait t4n9h5h6eq t2hwpwxkbx",
    ),
    (
        "watch",
        "\
taskyard watch
taskyard watch -q nightly -t failed -t retry_scheduled
taskyard watch --follow-task t4n9h5h6eq
taskyard watch --from-start --cursor-file nightly.cursor -o json",
    ),
    (
        "cancel",
        "\
taskyard cancel t4n9h5h6eq
taskyard cancel --all -q nightly -S queued",
    ),
    (
        "redrive",
        "\
taskyard redrive t4n9h5h6eq
taskyard redrive --all -k exec --since 1h",
    ),
    (
        "queues",
        "\
taskyard queues
taskyard queues mail",
    ),
    (
        "configure",
        "\
taskyard configure mail --max-running 2 --rate 30/m --burst 5
taskyard configure mail --reset rate --reset max-running",
    ),
    ("pause", "taskyard pause mail reports"),
    ("resume", "taskyard resume mail reports"),
    ("workers", "taskyard workers"),
    ("resize", "taskyard resize 16"),
    (
        "stats",
        "\
taskyard stats --target-wait 250ms
taskyard stats --watch 5s",
    ),
    (
        "top",
        "\
taskyard top
taskyard top -q mail -q reports --interval 250ms",
    ),
    ("drain", "taskyard drain --yes"),
    (
        "completions",
        "\
taskyard completions bash > ~/.local/share/bash-completion/completions/taskyard
taskyard completions zsh > ~/.zfunc/_taskyard
taskyard completions fish > ~/.config/fish/completions/taskyard.fish",
    ),
    (
        "man",
        "\
taskyard man | man -l -
taskyard man --dir ~/.local/share/man/man1",
    ),
];

/// Completes the definition of all commands.
pub fn presented(command: Command, program: Program) -> Command {
    let names: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    let mut command = command.arg(ServerArgs::arg());
    for name in names {
        let of_name = |(command, _): &&(&str, &str)| *command == name;
        let examples = EXAMPLES.iter().find(of_name).map(|(_, examples)| *examples);
        command = command.mut_subcommand(&name, |mut one| {
            if !LOCAL.contains(&name.as_str()) {
                one = one.arg(ServerArgs::arg());
            }
            match examples {
                Some(examples) => one.after_help(examples_text(examples, program)),
                None => one,
            }
        });
    }
    let template = template(&command);
    command.help_template(template).after_help(exit::HELP)
}

fn examples_text(examples: &str, program: Program) -> String {
    let heading = Styles::styled();
    let heading = heading.get_header();
    let mut text = format!("{heading}Examples:{heading:#}");
    for line in examples.lines() {
        let line = line.replacen("taskyard", program.name, 1);
        let _ = write!(text, "\n  {line}");
    }
    text
}

/// The whole of the help, with the commands in their groups.
fn template(command: &Command) -> String {
    let styles = Styles::styled();
    let (heading, literal) = (styles.get_header(), styles.get_literal());
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    let widest = command.get_subcommands().map(|one| one.get_name().len()).max().unwrap_or(0);
    let mut group = |title: &str, commands: &[(&str, String)]| {
        if commands.is_empty() {
            return;
        }
        let _ = write!(text, "\n{heading}{title}:{heading:#}\n");
        for (name, about) in commands {
            let _ = writeln!(text, "  {literal}{name:<widest$}{literal:#}  {about}");
        }
    };
    for (title, names) in GROUPS {
        let commands: Vec<_> =
            names.iter().filter_map(|name| Some((*name, about(command, name)?))).collect();
        group(title, &commands);
    }
    let grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others: Vec<_> = command
        .get_subcommands()
        .map(Command::get_name)
        .filter(|name| !grouped(name))
        .filter_map(|name| Some((name, about(command, name)?)))
        .collect();
    group("Others", &others);
    let _ = write!(text, "\n{heading}Options:{heading:#}\n{{options}}{{after-help}}");
    text
}

fn about(command: &Command, name: &str) -> Option<String> {
    match command.find_subcommand(name) {
        Some(one) => one.get_about().map(ToString::to_string),
        // clap adds it by itself.
        None if name == "help" => Some("Show this, or the help of a command".into()),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::definition;

    #[test]
    fn every_command_has_a_group_and_examples() {
        let command = definition(Program::default());
        let mut names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        let mut grouped: Vec<_> = GROUPS.iter().flat_map(|(_, names)| names.iter()).collect();
        grouped.retain(|name| **name != "help");
        names.sort_unstable();
        grouped.sort_unstable();
        assert!(names.iter().eq(grouped), "{names:?}");
        for name in names.into_iter().filter(|name| *name != "kinds") {
            assert!(EXAMPLES.iter().any(|(of, _)| *of == name), "{name} has no example");
        }
    }

    #[test]
    fn examples_are_taken() {
        for line in EXAMPLES.iter().flat_map(|(_, examples)| examples.lines()) {
            let line = line.split(['|', '>']).next().unwrap_or_default();
            let words = line.split_whitespace().map(|word| word.trim_matches('\''));
            let read = definition(Program::default()).try_get_matches_from(words);
            assert!(read.is_ok(), "{line}: {:?}", read.err());
        }
    }

    #[test]
    fn the_help_fits_a_terminal_and_is_in_groups() {
        let help = definition(Program { name: "words", version: None }).render_help().to_string();
        for title in ["Run a server:", "Tasks:", "Operate:", "Options:", "Exit codes:"] {
            assert!(help.contains(&format!("\n{title}\n")), "{title}: {help}");
        }
        assert!(!help.contains("Others:"), "{help}");
        let (groups, _) = help.split_once("Options:").expect("they follow");
        let (_, groups) = groups.split_once("Usage:").expect("it goes before");
        let wide: Vec<_> = groups.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }
}
