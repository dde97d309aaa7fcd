//! `logs`: what the command of a task printed, when it did not succeed.

use std::io::{self, Write as _};

use taskyard_client::{CallRetryPolicy, Tasks};
use taskyard_proto::v1::{Attempt, AttemptOutput, GetTaskRequest, Task, TaskState, attempt_output};

use super::{
    client::ServerArgs,
    exit::Exit,
    output::{note, printable},
    problem::Problem,
    units::whole,
};

/// Arguments of `logs`.
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// The task's id, as submit printed it
    #[arg(value_name = "ID")]
    task_id: String,
    /// Of this attempt, rather than of the latest that printed anything
    #[arg(short = 'a', long, value_name = "N", value_parser = whole(1..=u64::from(u32::MAX)))]
    attempt: Option<u64>,
}

/// Prints an attempt's output to stdout and its errors to stderr, byte for byte, and
/// tells on stderr what was left out and how it ended.
pub async fn run(server: &ServerArgs, args: LogsArgs) -> Result<Exit, Problem> {
    let client = server.connect().await?.tasks();
    let request = GetTaskRequest { task_id: args.task_id };
    let ask = async |mut client: Tasks, request| client.get_task(request).await;
    let response = CallRetryPolicy::BRIEF.ask(&client, &request, ask).await?;
    let task = response.task.unwrap_or_default();
    let (attempt, output) = chosen(&task, args.attempt)?;
    show(attempt, output).map_err(|error| Problem::new(Exit::Internal, error.to_string()))?;
    Ok(Exit::Ok)
}

fn chosen(task: &Task, number: Option<u64>) -> Result<(u32, &AttemptOutput), Problem> {
    let id = printable(&task.task_id);
    let none = |why: String| Err(Problem::new(Exit::Refused, why));
    let with_output = |attempt: &'_ Attempt| attempt.output.is_some();
    let attempt = match number {
        Some(number) => task.attempts.iter().find(|attempt| u64::from(attempt.attempt) == number),
        None => task.attempts.iter().rev().find(|attempt| with_output(attempt)),
    };
    match (attempt, number) {
        (Some(Attempt { attempt, output: Some(output), .. }), _) => Ok((*attempt, output)),
        (Some(_), Some(number)) => none(format!(
            "nothing is kept of what attempt {number} of task {id} printed: it has not ended, \
             succeeded, runs no command, or later attempts printed too much"
        )),
        (None, Some(number)) => match task.attempts.last() {
            Some(last) => none(format!(
                "task {id} has no attempt {number} that is kept; its latest is {}",
                last.attempt
            )),
            None => none(format!("task {id} has not started")),
        },
        (_, None) if task.state() == TaskState::Succeeded => none(format!(
            "nothing is kept of what task {id} printed, as it succeeded: `taskyard get {id}` \
             shows its result"
        )),
        (_, None) => none(format!("no attempt of task {id} has printed anything that is kept")),
    }
}

fn show(attempt: u32, output: &AttemptOutput) -> io::Result<()> {
    left_out(output.stdout_dropped_bytes, "stdout");
    let mut stdout = io::stdout().lock();
    stdout.write_all(&output.stdout)?;
    stdout.flush()?;
    left_out(output.stderr_dropped_bytes, "stderr");
    io::stderr().write_all(&output.stderr)?;
    let how = match output.exit {
        Some(attempt_output::Exit::ExitStatus(status)) => format!("exit status {status}"),
        Some(attempt_output::Exit::ExitSignal(signal)) => format!("killed by signal {signal}"),
        None => "killed, as it did not end in time".into(),
    };
    note(format!("attempt {attempt}: {how}"));
    Ok(())
}

fn left_out(bytes: u64, stream: &str) {
    if bytes > 0 {
        note(format!("{bytes} bytes of {stream} before this were not kept"));
    }
}
