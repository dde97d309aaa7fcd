//! `queues`, `pause`, `resume`: how the queues stand, and holding them back.

use taskyard_client::{Admin, CallRetryPolicy};
use taskyard_proto::v1::{ListQueuesRequest, PauseQueueRequest, Queue, ResumeQueueRequest};
use taskyard_text::quoted;

use super::{
    client::ServerArgs,
    columns::Paged,
    exit::Exit,
    json,
    names::unknown_queue,
    output::{Format, Out, OutputArgs, WideArgs, error, note, print, printable},
    problem::Problem,
    program, render, units,
};

/// Arguments of `queues`.
#[derive(Debug, clap::Args)]
pub struct QueuesArgs {
    /// Only this queue, in full: every setting, and who set it
    #[arg(value_name = "NAME")]
    queue: Option<String>,
    #[command(flatten)]
    wide: WideArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Lists the queues, or shows one.
///
/// # Errors
/// [`Exit::Refused`] if there is no such queue.
pub async fn run(server: &ServerArgs, args: QueuesArgs) -> Result<Exit, Problem> {
    let admin = server.connect().await?.admin();
    match args.queue {
        Some(queue) => one(&admin, queue, args.output.output).await,
        None => list(&admin, args.wide.room(), args.output.output).await,
    }
}

async fn one(admin: &Admin, queue: String, format: Format) -> Result<Exit, Problem> {
    if queue.is_empty() {
        return Err(Problem::usage("a queue's name is never empty; leave it out to see all"));
    }
    let request = ListQueuesRequest { queue: queue.clone(), ..ListQueuesRequest::default() };
    let page = page(admin, &request).await?;
    let Some(found) = page.queues.into_iter().find(|found| found.queue == queue) else {
        let known = unknown_queue(admin, &queue).await;
        let message = known.unwrap_or_else(|| format!("there is no queue {}", quoted(&queue)));
        return Err(Problem::new(Exit::Refused, message).hint(&format!(
            "a queue comes into being with its first task, or with {} configure",
            program::name()
        )));
    };
    show(&found, format)?;
    Ok(Exit::Ok)
}

/// Prints everything about one queue.
///
/// # Errors
/// As [`print`].
pub fn show(queue: &Queue, format: Format) -> Result<(), Problem> {
    print(match format {
        Format::Text => render::queues::block(queue, units::now()),
        Format::Json => json::admin::queue(queue).to_string(),
    })
}

/// Queues on a page: as many as the server gives.
const PAGE: i32 = 1_000;

/// Lists the queues, a page at a time, so that memory stays bounded.
async fn list(admin: &Admin, room: Option<usize>, format: Format) -> Result<Exit, Problem> {
    let mut request = ListQueuesRequest { page_size: PAGE, ..ListQueuesRequest::default() };
    let mut out = Out::stdout();
    let (mut pages, mut shown) = (Paged::default(), false);
    loop {
        let page = page(admin, &request).await?;
        write_page(&mut out, &page.queues, (&mut pages, room), format)?;
        shown |= !page.queues.is_empty();
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    if !shown && format == Format::Text {
        note("no queues yet; one comes into being with its first task");
    }
    Ok(Exit::Ok)
}

async fn page(
    admin: &Admin,
    request: &ListQueuesRequest,
) -> Result<taskyard_proto::v1::ListQueuesResponse, Problem> {
    let ask = async |mut admin: Admin, request| admin.list_queues(request).await;
    Ok(CallRetryPolicy::BRIEF.ask(admin, request, ask).await?)
}

fn write_page(
    out: &mut Out,
    queues: &[Queue],
    (pages, room): (&mut Paged, Option<usize>),
    format: Format,
) -> Result<(), Problem> {
    match format {
        Format::Text if queues.is_empty() => {}
        Format::Text => out.line(render::queues::table(queues, pages, room, units::now()))?,
        Format::Json => {
            for queue in queues {
                out.line(json::admin::queue(queue).to_string())?;
            }
        }
    }
    out.flush()
}

/// Arguments of `pause` and `resume`.
#[derive(Debug, clap::Args)]
pub struct NamesArgs {
    /// The queues
    #[arg(value_name = "QUEUE", required = true)]
    queues: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Pauses queues, and shows them.
pub async fn pause(server: &ServerArgs, args: NamesArgs) -> Result<Exit, Problem> {
    let admin = server.connect().await?.admin();
    for_each(args, async |queue| {
        say_if_new(&admin, &queue).await;
        let request = PauseQueueRequest { queue };
        let ask = async |mut admin: Admin, request| admin.pause_queue(request).await;
        let response = CallRetryPolicy::BRIEF.ask(&admin, &request, ask).await?;
        Ok(response.queue.unwrap_or_default())
    })
    .await
}

/// Resumes queues, and shows them.
pub async fn resume(server: &ServerArgs, args: NamesArgs) -> Result<Exit, Problem> {
    let admin = server.connect().await?.admin();
    for_each(args, async |queue| {
        say_if_new(&admin, &queue).await;
        let request = ResumeQueueRequest { queue };
        let ask = async |mut admin: Admin, request| admin.resume_queue(request).await;
        let response = CallRetryPolicy::BRIEF.ask(&admin, &request, ask).await?;
        Ok(response.queue.unwrap_or_default())
    })
    .await
}

/// A mistyped name makes a queue, too: whoever meant another one is told.
pub async fn say_if_new(admin: &Admin, queue: &str) {
    if let Some(told) = unknown_queue(admin, queue).await {
        note(told.replacen("there is", "there was", 1));
    }
}

/// Changes each queue, then shows those that were changed. One that cannot be is
/// told, and the others go on; the exit code is that of the first.
async fn for_each(
    args: NamesArgs,
    change: impl AsyncFn(String) -> Result<Queue, Problem>,
) -> Result<Exit, Problem> {
    let mut changed = Vec::new();
    let mut failed = None;
    for name in args.queues {
        match change(name.clone()).await {
            Ok(queue) => changed.push(queue),
            Err(problem) => {
                error(&format!("{}: {}", printable(&name), problem.message()));
                let exit = *failed.get_or_insert(problem.exit());
                if exit == Exit::Unavailable {
                    break;
                }
            }
        }
    }
    let table = (&mut Paged::default(), WideArgs::default().room());
    write_page(&mut Out::stdout(), &changed, table, args.output.output)?;
    Ok(failed.unwrap_or(Exit::Ok))
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[tokio::test]
    async fn one_bad_name_does_not_keep_the_others() {
        let seen = std::cell::RefCell::new(Vec::new());
        let names = |names: &[&str]| NamesArgs {
            queues: names.iter().map(ToString::to_string).collect(),
            output: OutputArgs { output: Format::Json },
        };
        let change = async |queue: String| {
            seen.borrow_mut().push(queue.clone());
            match queue.as_str() {
                "Bad" => Err(Status::invalid_argument("queue: is no name").into()),
                "gone" => Err(Status::unavailable("no").into()),
                _ => Ok(Queue { queue, ..Queue::default() }),
            }
        };
        assert_eq!(for_each(names(&["a", "Bad", "b"]), change).await, Ok(Exit::Refused));
        assert_eq!(for_each(names(&["c", "gone", "d"]), change).await, Ok(Exit::Unavailable));
        assert_eq!(*seen.borrow(), ["a", "Bad", "b", "c", "gone"]);
    }
}
