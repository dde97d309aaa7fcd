//! `drain`: ends the server as SIGTERM does, and tells what became of the tasks.
//!
//! Owns the question that goes before it, and the wording of the report.

use std::io::{self, IsTerminal as _, Write as _};

use super::{
    client::ServerArgs,
    exit::Exit,
    json,
    output::{Format, OutputArgs, note, print},
    problem::Problem,
    units::counted,
    until_ctrl_c,
};
use crate::{
    client::{Address, Admin, is_lost},
    proto::v1::{DrainRequest, DrainResponse},
};

/// Arguments of `drain`.
#[derive(Debug, clap::Args)]
pub struct DrainArgs {
    /// Do not ask; Ctrl-C ends the waiting for the report, not the drain
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Drains the server, unless somebody says no.
///
/// # Errors
/// [`Exit::Usage`] if nobody can be asked; [`Exit::Unavailable`] if the server ends
/// without a report.
pub async fn run(server: &ServerArgs, args: DrainArgs) -> Result<Exit, Problem> {
    let address = server.address()?;
    let admin = server.connect().await?.admin();
    // Ctrl-C is listened to only after the question, where it ends the process.
    if !args.yes && !agreed(&address)? {
        note("nothing was done");
        return Ok(Exit::Ok);
    }
    until_ctrl_c(drain(admin, args.output.output)).await
}

async fn drain(mut admin: Admin, format: Format) -> Result<Exit, Problem> {
    // Not repeated: a connection that broke may mean that the server has ended.
    let report = admin.drain(DrainRequest {}).await.map_err(|status| {
        if !is_lost(&status) {
            return Problem::from(status);
        }
        Problem::from(status).hint("how its drain ended is in its log, and in its exit code")
    })?;
    let report = report.into_inner();
    print(match format {
        Format::Text => report_words(&report),
        Format::Json => json::admin::drained(&report).to_string(),
    })?;
    Ok(if report.complete { Exit::Ok } else { Exit::DrainIncomplete })
}

fn agreed(address: &Address) -> Result<bool, Problem> {
    if !io::stdin().is_terminal() {
        return Err(Problem::usage("drain ends the server, and there is nobody to ask")
            .hint("write --yes to drain it without a question"));
    }
    let mut err = io::stderr();
    // Where nobody sees the question, nobody answers it with yes.
    let _ = write!(err, "Drain the server at {address}, and end it? [y/N] ");
    let _ = err.flush();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn report_words(report: &DrainResponse) -> String {
    let finished = counted(report.finished, "execution");
    let ended = if report.complete { "drained" } else { "the drain reached its bound" };
    format!(
        "{ended}: {finished} finished, {} interrupted; {} for the next start",
        report.interrupted,
        match report.remaining {
            1 => "1 task waits".to_owned(),
            more => format!("{} wait", counted(more, "task")),
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for answer in ["y\n", "yes\n", " YES "] {
            assert!(is_yes(answer), "{answer:?}");
        }
        for answer in ["", "\n", "n\n", "yesterday\n", "ok\n"] {
            assert!(!is_yes(answer), "{answer:?}");
        }
    }

    #[test]
    fn the_report_tells_what_became_of_the_tasks() {
        let report =
            DrainResponse { finished: 1, interrupted: 2, remaining: 1_234, complete: true };
        assert_eq!(
            report_words(&report),
            "drained: 1 execution finished, 2 interrupted; 1,234 tasks wait for the next start"
        );
        let cut = DrainResponse { remaining: 1, ..DrainResponse::default() };
        assert_eq!(
            report_words(&cut),
            "the drain reached its bound: 0 executions finished, 0 interrupted; \
             1 task waits for the next start"
        );
    }
}
