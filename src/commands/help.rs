//! How the command line presents itself: commands in groups, examples, and where `--server` is
//! offered.
//!
//! Owns what help adds to the definitions of the commands. Must not know what they do.

use std::fmt::Write as _;

use clap::{Command, builder::Styles};
use taskyard_cli::{COMMAND_HELP, CommandHelp, Group, Program, client::ServerArgs, exit};

/// Commands that talk to no server.
const LOCAL: &[CommandHelp] = &[
    CommandHelp {
        name: "serve",
        group: Group::Run,
        examples: "\
taskyard serve
taskyard serve --listen 0.0.0.0:50051 --data-dir /var/lib/taskyard --workers 16
taskyard serve --config taskyard.toml",
    },
    CommandHelp {
        name: "demo",
        group: Group::Run,
        examples: "\
taskyard demo
taskyard demo /usr/share/doc --workers 8 --max-files 500",
    },
    CommandHelp {
        name: "store",
        group: Group::Run,
        examples: "taskyard store verify --data-dir /var/lib/taskyard",
    },
    CommandHelp {
        name: "completions",
        group: Group::Program,
        examples: "\
taskyard completions bash > ~/.local/share/bash-completion/completions/taskyard
taskyard completions zsh > ~/.zfunc/_taskyard
taskyard completions fish > ~/.config/fish/completions/taskyard.fish",
    },
    CommandHelp {
        name: "man",
        group: Group::Program,
        examples: "\
taskyard man | man -l -
taskyard man --dir ~/.local/share/man/man1",
    },
    CommandHelp { name: "help", group: Group::Program, examples: "" },
];

/// Every command, in the order of help.
fn listed() -> impl Iterator<Item = &'static CommandHelp> {
    LOCAL.iter().chain(COMMAND_HELP)
}

/// Completes the definition of all commands.
pub fn presented(command: Command, program: Program) -> Command {
    let names: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    let mut command = command.arg(ServerArgs::arg());
    for name in names {
        let examples = listed().find(|one| one.name == name).map(|one| one.examples);
        let examples = examples.filter(|examples| !examples.is_empty());
        command = command.mut_subcommand(&name, |mut one| {
            if !LOCAL.iter().any(|one| one.name == name) {
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
    for one in Group::ALL {
        let commands = listed().filter(|listed| listed.group == one);
        let commands = commands.filter_map(|one| Some((one.name, about(command, one.name)?)));
        group(one.title(), &commands.collect::<Vec<_>>());
    }
    let grouped = |name: &str| listed().any(|one| one.name == name);
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
        let mut grouped: Vec<_> = listed().map(|one| one.name).collect();
        grouped.retain(|name| *name != "help");
        names.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(names, grouped);
        for one in listed().filter(|one| !["kinds", "help"].contains(&one.name)) {
            assert!(!one.examples.is_empty(), "{} has no example", one.name);
        }
    }

    #[test]
    fn examples_are_taken() {
        for line in listed().flat_map(|one| one.examples.lines()) {
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
