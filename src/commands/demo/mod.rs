//! `demo`: the first thing a newcomer sees.
//!
//! Owns one whole run: a real server on a free port with a temporary store, a
//! real client over that port, a task for each file of a directory, a watch
//! over all of it, and a graceful end. Must not know the server's parts.

mod files;
mod progress;
mod screen;
mod summary;

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use prost_types::{Struct, Value, value::Kind};
use taskyard_cli::{
    Exit, client,
    output::{note, print, printable},
    problem::{Problem, told},
    units::{counted, whole},
};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::serve::{
    LAST_RESORT, Stop, guard, not_started, prepare_process, secure_descriptors, with_built_ins,
};
use crate::{
    client::{Address, CallRetryPolicy, Seen, Start, Tasks, Watch, Watcher, new_request_id},
    config::{Config, ExecCommand},
    handler::Registry,
    proto::v1::{SubmitRequest, SubmitResponse, submit_request::Payload},
    server::Server,
    supervisor::Supervisor,
};
use progress::Progress;
use screen::{Files, Screen};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// The directory whose files are checksummed; hidden entries, target,
    /// `node_modules` and symbolic links are left out
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Workers
    #[arg(long, value_name = "N", default_value = "4", value_parser = some)]
    workers: NonZeroU32,
    /// Files at most
    #[arg(long, value_name = "N", default_value = "200", value_parser = some)]
    max_files: NonZeroU32,
}

/// A number of workers or files.
fn some(text: &str) -> Result<NonZeroU32, String> {
    let number: u32 = whole(1..=10_000)(text)?;
    Ok(NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN))
}

/// The command that the tasks run, as the configuration names it.
const COMMAND: &str = "checksum";

/// Programs that can do it, the best first.
const PROGRAMS: [&[&str]; 3] = [&["sha256sum"], &["shasum", "-a", "256"], &["cksum"]];

/// Submissions that wait for their answer at a time.
const MAX_IN_FLIGHT: usize = 16;

/// Runs the demo.
///
/// # Errors
/// [`Exit::Usage`] if there is nothing to work on, [`Exit::NotStarted`] if the
/// server cannot start.
pub fn run(args: &DemoArgs, own: Registry) -> Result<Exit, Problem> {
    let inherited = prepare_process();
    let found = files::find(&args.dir, args.max_files.get() as usize)?;
    let program = program(env::var_os("PATH").unwrap_or_default().as_os_str())?;
    let root = std::path::absolute(&args.dir)
        .map_err(|wrong| Problem::usage(format!("{}: {wrong}", args.dir.display())))?;
    let root = root.to_str().ok_or_else(|| Problem::usage("the directory's name is not UTF-8"))?;
    let store = tempfile::Builder::new().prefix("taskyard-demo-").tempdir().map_err(|wrong| {
        Problem::new(Exit::NotStarted, format!("no temporary directory: {wrong}"))
    })?;
    let config = config(store.path(), args.workers, program);
    let registry = with_built_ins(own, &config)?;
    secure_descriptors(&config)?;
    let internal = |wrong: std::io::Error| Problem::new(Exit::Internal, wrong.to_string());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(internal)?;
    let bound = config.drain_timeout + LAST_RESORT;
    let supervisor = Supervisor::default();
    let stop = guard(bound, inherited, Exit::Interrupted, &supervisor).map_err(internal)?;
    // From here on it can be interrupted, also if nobody reads.
    introduce(&found, args, &config);
    let ended =
        runtime.block_on(demonstrate(&config, registry, root, found.files, (stop, supervisor)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// The first program of [`PROGRAMS`] that is in `path`, with its arguments.
fn program(path: &std::ffi::OsStr) -> Result<Vec<String>, Problem> {
    let installed = |name: &str| env::split_paths(path).any(|dir| dir.join(name).is_file());
    let words = PROGRAMS.iter().find(|words| installed(words[0])).ok_or_else(|| {
        Problem::usage("none of sha256sum, shasum and cksum is installed")
            .hint("the demo runs one of them for each file")
    })?;
    Ok(words.iter().copied().chain(["--", "{file}"]).map(Into::into).collect())
}

fn config(store: &Path, workers: NonZeroU32, command: Vec<String>) -> Config {
    let checksum =
        ExecCommand { command, working_dir: None, env: BTreeMap::new(), max_output: 64 << 10 };
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        data_dir: store.join("data"),
        workers,
        drain_timeout: Duration::from_secs(10),
        max_connections: 50,
        exec: BTreeMap::from([(COMMAND.to_owned(), checksum)]),
        ..Config::default()
    }
}

fn introduce(found: &files::Found, args: &DemoArgs, config: &Config) {
    for skipped in &found.skipped {
        note(format!("skipped {skipped}"));
    }
    let cut = if found.cut { "the first " } else { "" };
    note(format!(
        "{cut}{} of {}: {} each, on {}",
        counted(found.files.len() as u64, "file"),
        printable(&args.dir.to_string_lossy()),
        config.exec[COMMAND].command[0],
        counted(config.workers.get().into(), "worker"),
    ));
    if found.cut {
        note("there are more; see --max-files");
    }
}

async fn demonstrate(
    config: &Config,
    registry: Registry,
    root: &str,
    files: Vec<String>,
    (stop, supervisor): (Stop, Supervisor),
) -> Result<Exit, Problem> {
    let server = Server::start_under(config, registry, supervisor).await.map_err(not_started)?;
    note(format!("server started on {}, its store in a temporary directory", server.local_addr()));
    let address = server.local_addr().into();
    let acted = tokio::select! {
        biased;
        () = stop.begin.cancelled() => Ok(None),
        failure = server.failed() => Err(Problem::new(Exit::Failed, format!("the server has failed: {failure}"))),
        acted = act(&address, config, root, files) => acted.map(Some),
    };
    if matches!(acted, Ok(None)) {
        note("stopping: running tasks may finish; Ctrl-C again ends at once");
    }
    let drained = tokio::select! {
        biased;
        () = stop.at_once.cancelled() => return Ok(Exit::Interrupted),
        drained = server.drain() => drained,
    };
    let Some(play) = acted? else { return Ok(Exit::Interrupted) };
    if !drained.complete {
        note("the drain did not end in time");
    }
    print(summary::text(&play.progress, &play.names, play.wall))?;
    Ok(if play.progress.failures.is_empty() { Exit::Ok } else { Exit::TaskFailed })
}

/// One run, in progress and at its end.
struct Play {
    progress: Progress,
    names: Files,
    wall: Duration,
}

type Answer = Result<SubmitResponse, Status>;

/// A submission whose answer is awaited, and its file.
type Flight = (String, AbortOnDropHandle<Answer>);

enum Step {
    Answered(Answer),
    Seen(Option<Seen>),
    Tick,
}

/// Submits all files and watches them to their ends.
async fn act(
    address: &Address,
    config: &Config,
    root: &str,
    files: Vec<String>,
) -> Result<Play, Problem> {
    let client = client::connect(address).await?;
    let total = files.len() as u64;
    let mut screen = Screen::new(total, config.workers.get());
    let mut play =
        Play { progress: Progress::default(), names: Files::new(), wall: Duration::ZERO };
    let watch = Watch { max_outage: Duration::ZERO, ..Watch::begin(Start::Oldest) };
    let mut watcher = client.watch(watch);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let start = Instant::now();
    let mut ahead = files.into_iter();
    let mut in_flight = VecDeque::new();
    let outcome = loop {
        while in_flight.len() < MAX_IN_FLIGHT {
            let Some(file) = ahead.next() else { break };
            let answer = tokio::spawn(submit(client.tasks(), format!("{root}/{file}")));
            in_flight.push_back((file, AbortOnDropHandle::new(answer)));
        }
        if in_flight.is_empty() && play.progress.ended() >= total {
            break Ok(());
        }
        match step(&mut in_flight, &mut watcher, &mut tick).await {
            Ok(step) => play.take(step, &mut in_flight, &mut screen)?,
            Err(status) => break Err(Problem::from(status)),
        }
    };
    drop(screen);
    outcome?;
    play.wall = start.elapsed();
    Ok(play)
}

async fn step(
    in_flight: &mut VecDeque<Flight>,
    watcher: &mut Watcher,
    tick: &mut tokio::time::Interval,
) -> Result<Step, Status> {
    tokio::select! {
        answer = oldest(in_flight) => Ok(Step::Answered(answer)),
        seen = watcher.next() => seen.map(Step::Seen),
        _ = tick.tick() => Ok(Step::Tick),
    }
}

/// The oldest flight's answer; never, if there is none. Leaves the flight where
/// it is.
async fn oldest(in_flight: &mut VecDeque<Flight>) -> Answer {
    match in_flight.front_mut() {
        None => std::future::pending().await,
        Some((_, answer)) => {
            (&mut *answer).await.unwrap_or_else(|broken| Err(Status::internal(broken.to_string())))
        }
    }
}

impl Play {
    fn take(
        &mut self,
        step: Step,
        in_flight: &mut VecDeque<Flight>,
        screen: &mut Screen,
    ) -> Result<(), Problem> {
        match step {
            Step::Answered(answer) => {
                let Some((file, _)) = in_flight.pop_front() else { return Ok(()) };
                let accepted = answer?;
                self.names.insert(accepted.task_id, file);
            }
            Step::Seen(Some(Seen::Events(batch))) => {
                batch.events.iter().for_each(|event| self.progress.event(event));
            }
            Step::Seen(Some(Seen::Lost(status))) => screen.note(&told(&status)),
            Step::Seen(_) => {}
            Step::Tick => screen.show(&self.progress, &self.names),
        }
        Ok(())
    }
}

async fn submit(client: Tasks, file: String) -> Answer {
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let args = object([
        ("command", text(COMMAND)),
        ("args", Kind::StructValue(object([("file", text(&file))]))),
    ]);
    let request = SubmitRequest {
        kind: "exec".into(),
        payload: Some(Payload::Args(args)),
        request_id: new_request_id(),
        ..SubmitRequest::default()
    };
    CallRetryPolicy::BRIEF
        .call(|| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.submit(request).await }
        })
        .await
}

fn object<const N: usize>(fields: [(&str, Kind); N]) -> Struct {
    let field = |(name, kind): (&str, Kind)| (name.to_owned(), Value { kind: Some(kind) });
    Struct { fields: fields.into_iter().map(field).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_program_that_is_installed_is_taken() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().as_os_str();
        assert_eq!(program(path).map_err(|problem| problem.exit()), Err(Exit::Usage));
        for (name, words) in [("cksum", "cksum -- {file}"), ("shasum", "shasum -a 256 -- {file}")] {
            std::fs::write(dir.path().join(name), "").expect("a file");
            assert_eq!(program(path).map(|words| words.join(" ")), Ok(words.to_owned()));
        }
    }
}
