//! `get`, `list`, `wait`: one question, one answer.

use std::time::Duration;

use taskyard_client::{CallRetryPolicy, Client, Tasks, is_terminal};
use taskyard_proto::v1::{DamagedTask, GetTaskRequest, ListTasksRequest, Task, TaskState};

use super::{
    client::ServerArgs,
    columns::Paged,
    exit::Exit,
    filter::{EndedArgs, FilterArgs, parse_state},
    interrupt::CtrlC,
    json,
    output::{Format, Out, OutputArgs, WideArgs, error, note, print, printable},
    problem::Problem,
    render,
    units::{counted, now, parse_span, span, whole},
};

/// Arguments of `get`.
#[derive(Debug, clap::Args)]
pub struct TaskArgs {
    /// The tasks' ids, as submit printed them
    #[arg(value_name = "ID", required = true)]
    task_ids: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows tasks.
pub async fn get(server: &ServerArgs, args: TaskArgs) -> Result<Exit, Problem> {
    let client = server.connect().await?.tasks();
    let read = async |task_id: String| {
        let request = GetTaskRequest { task_id };
        let ask = async |mut client: Tasks, request| client.get_task(request).await;
        let response = CallRetryPolicy::BRIEF.ask(&client, &request, ask).await?;
        Ok(response.task.unwrap_or_default())
    };
    one_by_one(&args.task_ids, args.output.output, read, |_| Exit::Ok).await
}

/// Shows tasks in full, each as soon as it is there. One that cannot be had is told, and
/// the others follow; the exit code is the first that is not 0.
async fn one_by_one(
    task_ids: &[String],
    format: Format,
    take: impl AsyncFn(String) -> Result<Task, Problem>,
    judge: impl Fn(&Task) -> Exit,
) -> Result<Exit, Problem> {
    let (mut shown, mut exit) = (false, Exit::Ok);
    for task_id in task_ids {
        let ended = match take(task_id.clone()).await {
            Ok(task) => {
                let ended = judge(&task);
                if std::mem::replace(&mut shown, true) && format == Format::Text {
                    print("")?;
                }
                show(task, format)?;
                ended
            }
            Err(problem) if task_ids.len() == 1 || problem.exit() == Exit::Unavailable => {
                return Err(problem);
            }
            Err(problem) => {
                error(&format!("{}: {}", printable(task_id), problem.message()));
                problem.exit()
            }
        };
        exit = if exit == Exit::Ok { ended } else { exit };
    }
    Ok(exit)
}

/// Prints everything about one task.
pub fn show(task: Task, format: Format) -> Result<(), Problem> {
    match format {
        Format::Text => print(render::task_block(task)),
        Format::Json => print(json::task(task).to_string()),
    }
}

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only tasks in this state; may be repeated
    #[arg(short = 'S', long = "state", value_name = "STATE", value_parser = parse_state)]
    states: Vec<TaskState>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    ended: EndedArgs,
    /// The newest first, rather than the oldest
    #[arg(short = 'r', long)]
    newest_first: bool,
    /// Tasks to show; 0 means all
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = whole(0..=u64::MAX)
    )]
    limit: u64,
    #[command(flatten)]
    wide: WideArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Tasks on a page: as many as the server gives.
const PAGE: u64 = 1_000;

/// Lists tasks, a page at a time, so that memory stays bounded.
pub async fn list(server: &ServerArgs, args: ListArgs) -> Result<Exit, Problem> {
    let filter = args.filter.clone().filter(&args.states, args.ended)?;
    let client = server.connect().await?;
    args.filter.say_unknown(&client).await;
    let client = client.tasks();
    let mut left = if args.limit == 0 { u64::MAX } else { args.limit };
    let mut request = ListTasksRequest {
        filter: Some(filter),
        omit_payloads: true,
        newest_first: args.newest_first,
        ..ListTasksRequest::default()
    };
    let mut out = Out::stdout();
    let mut pages = Pages { table: Paged::default(), room: args.wide.room() };
    let (mut shown, mut damaged) = (0, 0);
    loop {
        request.page_size = i32::try_from(left.min(PAGE)).unwrap_or(i32::MAX);
        let page = CallRetryPolicy::BRIEF
            .ask(&client, &request, async |mut client, request| client.list_tasks(request).await)
            .await?;
        let (more, count) = (page.next_page_token, page.tasks.len() as u64);
        write_page(&mut out, page.tasks, &mut pages, args.output.output)?;
        for DamagedTask { task_id, message, .. } in &page.damaged {
            note(format!("task {} cannot be read: {}", printable(task_id), printable(message)));
        }
        damaged += page.damaged.len() as u64;
        shown += count;
        left = left.saturating_sub(count);
        if more.is_empty() {
            break;
        }
        if left == 0 {
            note(format!("there are more than these {shown}; see --limit"));
            break;
        }
        request.page_token = more;
    }
    if damaged > 0 {
        let tasks = counted(damaged, "task");
        return Err(Problem::new(Exit::Internal, format!("{tasks} cannot be read")));
    }
    if shown == 0 && args.output.output == Format::Text {
        note("no such tasks");
    }
    Ok(Exit::Ok)
}

/// The table that the pages make.
struct Pages {
    table: Paged,
    room: Option<usize>,
}

fn write_page(
    out: &mut Out,
    tasks: Vec<Task>,
    pages: &mut Pages,
    format: Format,
) -> Result<(), Problem> {
    match format {
        Format::Text if tasks.is_empty() => {}
        Format::Text => {
            let Pages { table, room } = pages;
            out.line(render::list::task_table(&tasks, table, *room, now()))?;
        }
        Format::Json => {
            for task in tasks {
                out.line(json::task(task).to_string())?;
            }
        }
    }
    out.flush()
}

/// Arguments of `wait`.
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// The tasks' ids, as submit printed them
    #[arg(value_name = "ID", required = true)]
    task_ids: Vec<String>,
    /// Give up after this long, with exit code 6; the tasks go on
    #[arg(short, long, value_name = "SPAN", value_parser = parse_span)]
    timeout: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Waits for the end of tasks, and shows each. While the first is waited for the others go
/// on, so that all of it takes as long as the longest.
pub async fn wait(server: &ServerArgs, args: WaitArgs) -> Result<Exit, Problem> {
    let client = server.connect().await?;
    let start = tokio::time::Instant::now();
    let end = async |task_id: String| {
        let left = args.timeout.map(|timeout| timeout.saturating_sub(start.elapsed()));
        wait_for_end(&client, &task_id, left).await
    };
    let mut ctrl_c = CtrlC::listen()?;
    tokio::select! {
        biased;
        () = ctrl_c.pressed() => {
            note("the tasks go on; nothing was cancelled");
            Ok(Exit::Interrupted)
        }
        ended = one_by_one(&args.task_ids, args.output.output, end, ending) => ended,
    }
}

/// Waits for the end of a task, for as long as it takes or for `timeout`.
///
/// # Errors
/// [`Exit::TimedOut`] if it has not ended by then, and what the server answers.
pub async fn wait_for_end(
    client: &Client,
    task_id: &str,
    timeout: Option<Duration>,
) -> Result<Task, Problem> {
    let start = tokio::time::Instant::now();
    let task = client.wait(task_id, timeout).await?;
    if is_terminal(task.state()) {
        return Ok(task);
    }
    let state = json::state_name(task.state());
    let message = format!("task {task_id} is still {state} after {}", span(start.elapsed()));
    Err(Problem::new(Exit::TimedOut, message))
}

/// The exit code for a task that has ended; a failure is told.
pub fn ending(task: &Task) -> Exit {
    let state = task.state();
    if state == TaskState::Succeeded {
        return Exit::Ok;
    }
    let task_id = printable(&task.task_id);
    error(&format!("task {task_id} {}", render::end_text(state, task.error.as_ref())));
    Exit::TaskFailed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_success_ends_well() {
        let task = |state: TaskState| Task { state: state.into(), ..Task::default() };
        assert_eq!(ending(&task(TaskState::Succeeded)), Exit::Ok);
        assert_eq!(ending(&task(TaskState::Failed)), Exit::TaskFailed);
        assert_eq!(ending(&task(TaskState::Cancelled)), Exit::TaskFailed);
    }
}
