//! `store`: what can be done to a store while no server has it.
//!
//! Owns how the findings are told. Must not know how they are made.

use std::path::PathBuf;

use taskyard_cli::{
    Exit,
    output::{Out, printable},
    problem::Problem,
};

use crate::store::verify;

/// Arguments of `store`.
#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, clap::Subcommand)]
enum StoreCommand {
    /// Look through a store for damage, while no server runs on it
    ///
    /// It changes nothing, and keeps servers out while it looks. Every row is compared with its checksum, the structure of the
    /// database and its log are checked, and so is what must hold between the tables. A
    /// store that was not closed is copied to the temporary directory for that. The exit
    /// code is 1 if anything is wrong, and 7 if it could not be found out.
    Verify(VerifyArgs),
}

/// Arguments of `store verify`.
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// Where the store lives [env: `TASKYARD_DATA_DIR`] [default: taskyard-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Does what is asked.
pub fn run(args: &StoreArgs) -> Result<Exit, Problem> {
    let StoreCommand::Verify(args) = &args.command;
    let named = args.data_dir.clone().or_else(|| {
        std::env::var_os("TASKYARD_DATA_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from)
    });
    let data_dir = named.unwrap_or_else(|| "taskyard-data".into());
    let found =
        verify(&data_dir).map_err(|error| Problem::new(Exit::NotStarted, error.to_string()))?;
    let mut out = Out::stdout();
    for problem in &found.problems {
        out.line(printable(problem))?;
    }
    if found.more > 0 {
        out.line(format!("and {} more", found.more))?;
    }
    let wrong = found.problems.len() as u64 + found.more;
    let database = printable(&found.database.display().to_string());
    let rows = found.rows;
    out.line(match wrong {
        0 => format!("{database}: {rows} rows, nothing is wrong"),
        1 => format!("{database}: {rows} rows, 1 problem"),
        wrong => format!("{database}: {rows} rows, {wrong} problems"),
    })?;
    out.flush()?;
    Ok(if found.is_whole() { Exit::Ok } else { Exit::TaskFailed })
}
