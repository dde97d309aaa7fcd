//! `drain`: ends the server as SIGTERM does, and tells what became of the tasks.
//!
//! Owns the question that goes before it, and the wording of the report.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::ProgressBar;
use taskyard_client::{Address, Admin, is_lost};
use taskyard_proto::v1::{DrainRequest, DrainResponse, Execution, GetPoolRequest, GetPoolResponse};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    client::ServerArgs,
    exit::Exit,
    interrupt::CtrlC,
    json,
    output::{Format, OutputArgs, note, print, printable},
    problem::Problem,
    units::{counted, from_wire, span},
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
    let mut ctrl_c = CtrlC::listen()?;
    let progress = Progress::new();
    let drained = tokio::select! {
        biased;
        () = ctrl_c.pressed() => None,
        drained = drain(admin.clone()) => Some(drained),
        // It ends never.
        () = progress.follow(admin) => None,
    };
    progress.bar.finish_and_clear();
    let Some(report) = drained.transpose()? else {
        note("the drain goes on; how it ends is in the server's log, and in its exit code");
        return Ok(Exit::Interrupted);
    };
    print(match args.output.output {
        Format::Text => report_words(&report),
        Format::Json => json::admin::drained(&report).to_string(),
    })?;
    Ok(if report.complete { Exit::Ok } else { Exit::DrainIncomplete })
}

async fn drain(mut admin: Admin) -> Result<DrainResponse, Problem> {
    // Not repeated: a connection that broke may mean that the server has ended.
    let report = admin.drain(DrainRequest {}).await.map_err(|status| {
        if !is_lost(&status) {
            return Problem::from(status);
        }
        Problem::from(status).hint("how its drain ended is in its log, and in its exit code")
    })?;
    Ok(report.into_inner())
}

/// How often is asked who still runs.
const EVERY: Duration = Duration::from_millis(500);

/// How often that is told where there is no terminal: after so many answers.
const TOLD_EVERY: u32 = 10;

/// Executions that are named.
const MAX_NAMED: usize = 3;

/// Who still runs: on one line of a terminal, elsewhere as a line now and then.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Self {
        Self { bar: ProgressBar::new_spinner() }
    }

    /// Asks again and again, until it is dropped.
    async fn follow(&self, mut admin: Admin) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answers = 0;
        loop {
            tick.tick().await;
            // What is wrong with the server is told by the call that is waited for.
            let Ok(answer) = admin.get_pool(GetPoolRequest {}).await else { continue };
            let answer = answer.into_inner();
            let Some(words) = progress_words(&answer) else { continue };
            if self.bar.is_hidden() && answers % TOLD_EVERY == 0 {
                note(&words);
            }
            self.bar.set_message(words);
            self.bar.tick();
            answers += 1;
        }
    }
}

/// Who still runs, and how long it may take; `None` before the drain has begun, and once
/// nothing runs any more.
fn progress_words(answer: &GetPoolResponse) -> Option<String> {
    let left = answer.drain_time_left.map(from_wire)?;
    let workers = answer.pool.iter().flat_map(|pool| &pool.workers);
    let mut running: Vec<_> = workers.filter_map(|worker| worker.execution.as_ref()).collect();
    if running.is_empty() {
        return None;
    }
    let ran = |execution: &Execution| execution.running_for.map(from_wire).unwrap_or_default();
    running.sort_by_key(|execution| std::cmp::Reverse(ran(execution)));
    let name = |execution: &&Execution| {
        let (task, kind) = (printable(&execution.task_id), printable(&execution.kind));
        format!("{task} ({kind}, for {})", span(ran(execution)))
    };
    let mut named: Vec<_> = running.iter().take(MAX_NAMED).map(name).collect();
    if running.len() > MAX_NAMED {
        named.push(format!("{} more", running.len() - MAX_NAMED));
    }
    let number = running.len() as u64;
    let verb = if number == 1 { "runs" } else { "run" };
    Some(format!(
        "{} still {verb}, at most {} left: {}",
        counted(number, "task"),
        span(Duration::from_secs(left.as_secs())),
        named.join(", "),
    ))
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
        "{ended}: {finished} finished, {} interrupted; {}",
        report.interrupted,
        match report.remaining {
            None => "how many tasks wait for the next start is not known".to_owned(),
            Some(1) => "1 task waits for the next start".to_owned(),
            Some(more) => format!("{} wait for the next start", counted(more, "task")),
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskyard_proto::v1::{Pool, Worker};

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
    fn who_still_runs_is_told_with_the_time_that_is_left() {
        let wire = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let worker = |number: i64| Worker {
            execution: Some(Execution {
                task_id: format!("t{number}"),
                kind: "sleep".into(),
                running_for: wire(number),
                ..Execution::default()
            }),
            ..Worker::default()
        };
        let pool = |workers| Some(Pool { size: 4, workers });
        let some = GetPoolResponse {
            pool: pool([vec![Worker::default()], (1..=4).map(worker).collect()].concat()),
            drain_time_left: wire(27),
        };
        assert_eq!(
            progress_words(&some).as_deref(),
            Some(
                "4 tasks still run, at most 27 s left: t4 (sleep, for 4.0 s), \
                 t3 (sleep, for 3.0 s), t2 (sleep, for 2.0 s), 1 more"
            )
        );
        let none = GetPoolResponse { pool: pool(vec![]), drain_time_left: wire(27) };
        assert_eq!(progress_words(&none), None);
        assert_eq!(progress_words(&GetPoolResponse { drain_time_left: None, ..some }), None);
    }

    #[test]
    fn the_report_tells_what_became_of_the_tasks() {
        let report =
            DrainResponse { finished: 1, interrupted: 2, remaining: Some(1_234), complete: true };
        assert_eq!(
            report_words(&report),
            "drained: 1 execution finished, 2 interrupted; 1,234 tasks wait for the next start"
        );
        let unknown = DrainResponse::default();
        assert_eq!(
            report_words(&unknown),
            "the drain reached its bound: 0 executions finished, 0 interrupted; \
             how many tasks wait for the next start is not known"
        );
        let cut = DrainResponse { remaining: Some(1), ..DrainResponse::default() };
        assert_eq!(
            report_words(&cut),
            "the drain reached its bound: 0 executions finished, 0 interrupted; \
             1 task waits for the next start"
        );
    }
}
