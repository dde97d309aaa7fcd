//! `completions`, `man`: what shells and readers of manuals want of this program.

use std::{io, path::PathBuf};

use clap_complete::Shell;
use taskyard_cli::{
    Exit, Program,
    output::{Out, note},
    problem::Problem,
    units::counted,
};

use super::definition;

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell: bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    shell: Shell,
}

/// Prints the completions.
pub fn completions(args: &CompletionsArgs, program: Program) -> Result<Exit, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition(program), program.name, &mut script);
    print(&script)
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// Write the pages of all commands into this directory, rather than print the first
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the manual, or writes all of its pages.
///
/// # Errors
/// [`Exit::Usage`] if the directory cannot be written to.
pub fn man(args: &ManArgs, program: Program) -> Result<Exit, Problem> {
    let command = definition(program);
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return print(&page);
    };
    let cannot =
        |wrong: io::Error| Problem::usage(format!("cannot write to {}: {wrong}", dir.display()));
    std::fs::create_dir_all(dir).map_err(cannot)?;
    let pages = command.get_subcommands().count() as u64 + 1;
    clap_mangen::generate_to(command, dir).map_err(cannot)?;
    note(format!("{} in {}", counted(pages, "page"), dir.display()));
    Ok(Exit::Ok)
}

fn print(bytes: &[u8]) -> Result<Exit, Problem> {
    let mut out = Out::stdout();
    out.bytes(bytes)?;
    out.flush()?;
    Ok(Exit::Ok)
}
