//! `cancel`: the tasks that are named, or all that match a filter.

use std::time::Duration;

use taskyard_client::{CallRetryPolicy, Tasks};
use taskyard_proto::v1::{CancelTaskRequest, CancelTasksRequest, Task, TaskFilter, TaskState};

use super::{
    client::ServerArgs,
    each::each,
    exit::Exit,
    filter::{EndedArgs, FilterArgs, LIVE, parse_live_state},
    output::{OutputArgs, note},
    paged::{self, Step},
    problem::Problem,
    program, until_ctrl_c,
};

/// Arguments of `cancel`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["tasks", "all"]))]
pub struct CancelArgs {
    /// The tasks' ids, as submit printed them
    #[arg(value_name = "ID", conflicts_with_all = ["FilterArgs", "states"])]
    tasks: Vec<String>,
    /// All tasks that have not ended and that the filters below match
    #[arg(short, long)]
    all: bool,
    /// Only tasks in this state; may be repeated
    #[arg(short = 'S', long = "state", value_name = "STATE", value_parser = parse_live_state)]
    states: Vec<TaskState>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Cancel everything: with --all and no filter
    #[arg(short, long, requires = "all")]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Cancels what the flags say, and shows the tasks that were named, or tells how
/// many it were.
pub async fn run(server: &ServerArgs, args: CancelArgs) -> Result<Exit, Problem> {
    let format = args.output.output;
    if !args.all {
        let client = server.connect().await?.tasks();
        let cancel = each(&args.tasks, format, |task_id| one(client.clone(), task_id));
        return until_ctrl_c(cancel).await;
    }
    if args.states.is_empty() && args.filter.is_empty() && !args.yes {
        return Err(Problem::usage("--all without a filter cancels every task of every queue")
            .hint("say which by --queue, --kind, --label, --state or a time; or add --yes"));
    }
    let states = if args.states.is_empty() { LIVE.to_vec() } else { args.states };
    let filter = args.filter.clone().filter(&states, EndedArgs::default())?;
    let client = server.connect().await?;
    args.filter.say_unknown(&client).await;
    let client = client.tasks();
    // It needs no room in any queue.
    let room_timeout = Duration::ZERO;
    paged::run(
        |token| step(client.clone(), filter.clone(), token),
        room_timeout,
        "cancelled",
        format,
    )
    .await
}

async fn one(client: Tasks, task_id: String) -> Result<Task, Problem> {
    let request = CancelTaskRequest { task_id };
    let response = CallRetryPolicy::BRIEF
        .ask(&client, &request, async |mut client, request| client.cancel_task(request).await)
        .await?;
    let task = response.task.unwrap_or_default();
    if task.state() == TaskState::Running {
        let program = program::name();
        note(format!("its handler was told to stop; `{program} wait` tells how it ended"));
    }
    Ok(task)
}

async fn step(client: Tasks, filter: TaskFilter, token: String) -> Result<Step, tonic::Status> {
    let request =
        CancelTasksRequest { filter: Some(filter), page_token: token, ..Default::default() };
    let response = CallRetryPolicy::PATIENT
        .ask(&client, &request, async |mut client, request| client.cancel_tasks(request).await)
        .await?;
    let changed = response.cancelled.into();
    paged::say_damaged(response.damaged);
    Ok(Step { changed, next: response.next_page_token, full: String::new() })
}
