//! `redrive`: the tasks that are named, or all that match a filter, back into
//! their queues.

use std::time::Duration;

use taskyard_client::{CallRetryPolicy, Tasks, backoff};
use taskyard_proto::v1::{RedriveTaskRequest, RedriveTasksRequest, Task, TaskFilter, TaskState};
use tokio::time::Instant;
use tonic::Status;

use super::{
    client::ServerArgs,
    each::each,
    exit::Exit,
    filter::{EndedArgs, FilterArgs, parse_dead_state},
    output::{OutputArgs, note},
    paged::{self, Step, asked_backoff, full_queue, is_full, no_room},
    problem::Problem,
    units::{counted, parse_span},
    until_ctrl_c,
};

/// Arguments of `redrive`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["tasks", "all"]))]
pub struct RedriveArgs {
    /// The tasks' ids, as submit printed them
    #[arg(value_name = "ID", conflicts_with_all = ["FilterArgs", "EndedArgs", "states"])]
    tasks: Vec<String>,
    /// All tasks that FAILED and that the filters below match
    #[arg(short, long)]
    all: bool,
    /// Tasks in this state, failed or cancelled; may be repeated [default: failed]
    #[arg(short = 'S', long = "state", value_name = "STATE", value_parser = parse_dead_state)]
    states: Vec<TaskState>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    ended: EndedArgs,
    /// End with exit code 5 when a queue is full, rather than wait for room
    #[arg(long)]
    no_wait: bool,
    /// End with exit code 6 when a full queue had no room for this long
    #[arg(
        long,
        value_name = "SPAN",
        value_parser = parse_span,
        default_value = "1h",
        conflicts_with = "no_wait"
    )]
    timeout: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

/// Adds the short names of what is most often asked for: when the tasks failed.
pub fn with_aliases(command: clap::Command) -> clap::Command {
    command
        .mut_arg("finished_since", |arg| arg.visible_alias("since"))
        .mut_arg("finished_before", |arg| arg.visible_alias("until"))
}

/// Redrives what the flags say, and shows the tasks that were named, or tells how
/// many it were.
pub async fn run(server: &ServerArgs, args: RedriveArgs) -> Result<Exit, Problem> {
    let format = args.output.output;
    let room_timeout = if args.no_wait { Duration::ZERO } else { args.timeout };
    if !args.all {
        let client = server.connect().await?.tasks();
        let redrive =
            each(&args.tasks, format, |task_id| one(client.clone(), task_id, room_timeout));
        return until_ctrl_c(redrive).await;
    }
    // Named, so that the filter says something even if nothing else is asked for.
    let states = if args.states.is_empty() { vec![TaskState::Failed] } else { args.states };
    let filter = args.filter.clone().filter(&states, args.ended)?;
    let client = server.connect().await?;
    args.filter.say_unknown(&client).await;
    let client = client.tasks();
    paged::run(
        |token| step(client.clone(), filter.clone(), token),
        room_timeout,
        "redriven",
        format,
    )
    .await
}

async fn one(client: Tasks, task_id: String, room_timeout: Duration) -> Result<Task, Problem> {
    let request = RedriveTaskRequest { task_id };
    let call = async || {
        CallRetryPolicy::BRIEF
            .ask(&client, &request, async |mut client, request| client.redrive_task(request).await)
            .await
    };
    match with_room(call, room_timeout).await {
        Ok(response) => Ok(response.task.unwrap_or_default()),
        Err(status) if is_full(&status) && !room_timeout.is_zero() => {
            Err(no_room(&full_queue(&status), room_timeout))
        }
        Err(status) => Err(status.into()),
    }
}

/// Calls until the queue has room, or `room_timeout` is over.
async fn with_room<T>(
    call: impl AsyncFn() -> Result<T, Status>,
    room_timeout: Duration,
) -> Result<T, Status> {
    let start = Instant::now();
    let mut waits = 0;
    loop {
        let status = match call().await {
            Err(status) if is_full(&status) && start.elapsed() < room_timeout => status,
            ended => return ended,
        };
        waits += 1;
        let rest = asked_backoff(&status).unwrap_or_else(|| backoff(waits));
        tokio::time::sleep(rest.min(room_timeout.saturating_sub(start.elapsed()))).await;
    }
}

async fn step(client: Tasks, filter: TaskFilter, token: String) -> Result<Step, Status> {
    let request =
        RedriveTasksRequest { filter: Some(filter), page_token: token, ..Default::default() };
    let response = CallRetryPolicy::PATIENT
        .ask(&client, &request, async |mut client, request| client.redrive_tasks(request).await)
        .await?;
    let changed = response.redriven.into();
    paged::say_damaged(response.damaged);
    if response.passed_over > 0 {
        let tasks = counted(response.passed_over.into(), "task");
        note(format!(
            "{tasks} passed over: their queue is too small for them, or no longer exists"
        ));
    }
    Ok(Step { changed, next: response.next_page_token, full: response.full_queue })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    fn full() -> Status {
        let details = ErrorDetails::with_error_info("QUEUE_FULL", "taskyard", []);
        Status::with_error_details(Code::ResourceExhausted, "full", details)
    }

    #[tokio::test(start_paused = true)]
    async fn a_named_task_waits_for_room_within_bounds() {
        let calls = Cell::new(0);
        let third = async || {
            calls.set(calls.get() + 1);
            if calls.get() == 3 { Ok(()) } else { Err(full()) }
        };
        assert!(with_room(third, Duration::from_mins(1)).await.is_ok());
        assert_eq!(calls.get(), 3);
        let start = Instant::now();
        let never = async || Err::<(), _>(full());
        let status = with_room(never, Duration::from_mins(1)).await.expect_err("it stays full");
        assert!(is_full(&status) && start.elapsed() == Duration::from_mins(1));
        let at_once = with_room(never, Duration::ZERO).await.expect_err("it is full");
        assert!(is_full(&at_once) && start.elapsed() == Duration::from_mins(1));
    }
}
