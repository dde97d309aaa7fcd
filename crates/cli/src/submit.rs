//! `submit`: one task from the command line, or many from a file.
//!
//! Owns the flags and the single submission; many are [`super::bulk`]'s.

use std::{path::PathBuf, time::Duration};

use clap::builder::NonEmptyStringValueParser;
use taskyard_client::{CallRetryPolicy, Client, new_request_id};
use taskyard_proto::{
    v1::{RetryPolicy, SubmitRequest, SubmitResponse, Task, WhenFull, task_result::Output},
    values,
};

use super::{
    body::{self, BodyFlags},
    bulk::{self, Source},
    client::ServerArgs,
    exit::Exit,
    filter::{given_once, parse_label},
    interrupt::CtrlC,
    json,
    output::{Format, Out, OutputArgs, note, print, printable},
    problem::Problem,
    program,
    query::{ending, show, wait_for_end},
    units::{parse_span, parse_time, to_wire, whole},
};

/// Arguments of `submit`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["kind", "from"]))]
pub struct SubmitArgs {
    /// Which handler executes the task, for example sleep
    kind: Option<String>,
    #[command(flatten)]
    body: BodyFlags,
    #[command(flatten)]
    task: TaskFlags,
    /// Submit many tasks: one JSON object a line.
    #[arg(
        short,
        long,
        value_name = "FILE",
        conflicts_with_all = ["TaskFlags", "BodyFlags"],
        help = "Submit many: one JSON object a line; - reads stdin",
        long_help = from_help()
    )]
    from: Option<PathBuf>,
    /// With --from: request ids are this and the line's number, so that running it again
    /// submits nothing twice [default: a random one, which is told if it stops early]
    #[arg(
        long,
        value_name = "PREFIX",
        requires = "from",
        conflicts_with = "kind",
        value_parser = parse_prefix
    )]
    request_id_prefix: Option<String>,
    /// Wait for the end: prints the result (one task) or follows all of them
    /// (--from); the exit code tells how they ended
    #[arg(short, long)]
    wait: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What help says of `--from`.
pub fn from_help() -> String {
    let body = body::FIELDS_HELP;
    format!(
        "\
Submit many: one JSON object a line; - reads stdin

The fields are those of SubmitRequest: kind (required), {body},
queue, priority, delay (\"5s\") or run_at (RFC 3339), timeout,
retry (max_attempts, initial_backoff, max_backoff), labels, request_id,
when_full (\"WAIT\", for up to an hour, or \"REJECT\"). Ids are printed in the
order of the lines; a line that is refused is told on stderr and the others
go on. With --output json every line has its answer.

A line that has no request_id gets one of a prefix and its number. If not all
lines become tasks, the last words on stderr are the command that goes on: it
submits nothing twice, as long as the lines stay where they are."
    )
}

/// The one task.
#[derive(Debug, Default, clap::Args)]
struct TaskFlags {
    /// The queue to wait in [default: default]
    #[arg(short, long, value_name = "QUEUE", value_parser = NonEmptyStringValueParser::new())]
    queue: Option<String>,
    /// Higher starts earlier within the queue; -1000 to 1000 [default: 0]
    #[arg(
        short,
        long,
        value_name = "N",
        allow_negative_numbers = true,
        value_parser = whole(i32::MIN..=i32::MAX)
    )]
    priority: Option<i32>,
    /// Start no earlier than this long from now, like 5s, 1h30m or 2d
    #[arg(short, long, value_name = "SPAN", value_parser = parse_span, conflicts_with = "run_at")]
    delay: Option<Duration>,
    /// Start no earlier than this time, like 2026-12-24T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    run_at: Option<prost_types::Timestamp>,
    /// How long one attempt may take [default: the queue's, 1h unless configured]
    #[arg(short, long, value_name = "SPAN", value_parser = parse_span)]
    timeout: Option<Duration>,
    /// Attempts in all [default: the queue's, 1 unless configured]
    #[arg(long, value_name = "N", value_parser = whole(1..=100_u32))]
    max_attempts: Option<u32>,
    /// A mark of your own, kept with the task; may be repeated
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Makes repeating safe: the same id is the same task [default: a random one]
    #[arg(short = 'i', long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    request_id: Option<String>,
    /// End with exit code 5 if the queue is full, rather than wait for room
    #[arg(long)]
    reject_when_full: bool,
}

/// Submits what the flags say.
pub async fn run(server: &ServerArgs, args: SubmitArgs) -> Result<Exit, Problem> {
    let SubmitArgs { kind, body, task, from, request_id_prefix, wait, output } = args;
    match (kind, from) {
        (_, Some(file)) => {
            let prefix = request_id_prefix.unwrap_or_else(new_request_id);
            bulk::run(server, Source { file, prefix }, wait, output.output).await
        }
        (kind, None) => {
            let mut request = request(kind.unwrap_or_default(), task)?;
            body.add_to(&mut request)?;
            one(server, request, wait, output.output).await
        }
    }
}

fn request(kind: String, flags: TaskFlags) -> Result<SubmitRequest, Problem> {
    let when_full = if flags.reject_when_full { WhenFull::Reject } else { WhenFull::Unspecified };
    Ok(SubmitRequest {
        kind,
        queue: flags.queue.unwrap_or_default(),
        priority: flags.priority.unwrap_or_default(),
        delay: flags.delay.map(to_wire),
        run_at: flags.run_at,
        timeout: flags.timeout.map(to_wire),
        retry: flags
            .max_attempts
            .map(|max_attempts| RetryPolicy { max_attempts, ..RetryPolicy::default() }),
        labels: given_once(flags.labels)?,
        request_id: flags.request_id.unwrap_or_else(new_request_id),
        when_full: when_full.into(),
        ..SubmitRequest::default()
    })
}

async fn one(
    server: &ServerArgs,
    request: SubmitRequest,
    wait: bool,
    format: Format,
) -> Result<Exit, Problem> {
    let mut ctrl_c = CtrlC::listen()?;
    let call = async {
        let client = server.connect().await?;
        let accepted = CallRetryPolicy::BRIEF
            .call(|| {
                let (mut tasks, request) = (client.tasks(), request.clone());
                async move { tasks.submit(request).await }
            })
            .await?;
        Ok::<_, Problem>((client, accepted))
    };
    let (client, accepted) = tokio::select! {
        biased;
        () = ctrl_c.pressed() => {
            note(format!(
                "whether the task was submitted is not known; submitting it again with \
                 --request-id {} never makes two of it",
                request.request_id
            ));
            return Ok(Exit::Interrupted);
        }
        accepted = call => accepted?,
    };
    if wait {
        return tokio::select! {
            biased;
            () = ctrl_c.pressed() => {
                note(goes_on(&accepted.task_id));
                Ok(Exit::Interrupted)
            }
            ended = to_the_end(&client, &accepted, format) => ended,
        };
    }
    match format {
        Format::Text => print(&accepted.task_id)?,
        Format::Json => print(accepted_json(&accepted).to_string())?,
    }
    Ok(Exit::Ok)
}

/// What is said of a task that is no longer waited for.
pub fn goes_on(task_id: &str) -> String {
    let (program, task_id) = (program::name(), printable(task_id));
    format!(
        "task {task_id} goes on; to see how it ends: {program} wait {task_id}\n\
         to stop it: {program} cancel {task_id}"
    )
}

/// Reads a prefix of request ids.
///
/// # Errors
/// What is wrong with it.
fn parse_prefix(text: &str) -> Result<String, String> {
    // With a line's number it must fit into the 128 bytes of a request id.
    const MAX: usize = 100;
    match text {
        "" => Err("is empty; write a name for this import, such as orders-2026-11-28".into()),
        text if text.len() > MAX => Err(format!("has {} bytes; at most {MAX}", text.len())),
        text => Ok(text.to_owned()),
    }
}

/// What `submit --output json` prints.
pub fn accepted_json(accepted: &SubmitResponse) -> serde_json::Value {
    serde_json::json!({
        "task_id": accepted.task_id,
        "cursor": accepted.cursor,
        "state": json::state_name(accepted.state()),
        "existing": accepted.existing,
    })
}

/// Waits, then prints the result; the id goes to stderr, so that stdout is the
/// result alone.
async fn to_the_end(
    client: &Client,
    accepted: &SubmitResponse,
    format: Format,
) -> Result<Exit, Problem> {
    note(format!("task {}", accepted.task_id));
    let task = wait_for_end(client, &accepted.task_id, None).await?;
    let exit = ending(&task);
    match format {
        Format::Text => print_result(task)?,
        Format::Json => show(task, Format::Json)?,
    }
    Ok(exit)
}

fn print_result(task: Task) -> Result<(), Problem> {
    match task.result.and_then(|result| result.output) {
        Some(Output::Json(value)) => print(values::shown(value).to_string()),
        Some(Output::Data(data)) => {
            let mut out = Out::stdout();
            out.bytes(&data)?;
            out.flush()
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_safe_to_repeat_even_without_an_id() {
        let own = request("noop".into(), TaskFlags::default()).expect("there is no payload");
        assert_eq!(own.request_id.len(), 36);
        let flags = TaskFlags { request_id: Some("order-7".into()), ..TaskFlags::default() };
        let given = request("noop".into(), flags).expect("there is no payload");
        assert_eq!(given.request_id, "order-7");
    }

    #[test]
    fn a_name_given_twice_is_told() {
        for value in ["1", "2"] {
            let labels = vec![("a".into(), "1".into()), ("a".into(), value.into())];
            let flags = TaskFlags { labels, ..TaskFlags::default() };
            let problem = request("noop".into(), flags).expect_err("twice");
            assert_eq!(problem.exit(), Exit::Usage);
            assert!(problem.message().starts_with("--label a is given twice"), "{problem:?}");
        }
    }
}
