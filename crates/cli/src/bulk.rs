//! `submit --from`: many tasks from a stream of lines.
//!
//! Owns the bounds of what is in flight, the order of what is printed, and the
//! following of all tasks to their ends. Must not know how a line is spelled.

use std::{collections::VecDeque, path::PathBuf, sync::Arc, time::Duration};

use taskyard_client::{
    CallRetryPolicy, Client, Seen, Start, Tasks, Watch, Watcher, is_lost, is_terminal,
};
use taskyard_proto::v1::{GetTaskRequest, SubmitResponse};
use tokio::{
    io::{AsyncBufRead, BufReader},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status};

use super::{
    bulk_report::{Report, Stand},
    client::ServerArgs,
    exit::Exit,
    interrupt::CtrlC,
    lines::{Line, Lines, MAX_LINE},
    ndjson,
    output::Format,
    problem::{Problem, told},
    tally::{Ending, Tally},
};

/// Submissions that wait for their answer at a time.
const MAX_IN_FLIGHT: usize = 64;

/// Bytes of lines that wait for their answer at a time; one more line may
/// begin below it.
const MAX_BYTES_IN_FLIGHT: usize = 32 << 20;

/// How long a task waits for room in its queue.
const ROOM: Duration = Duration::from_hours(1);

/// How long to look for a server that has gone while following.
const MAX_OUTAGE: Duration = Duration::from_mins(1);

/// Where the lines are, and what their request ids begin with.
#[derive(Debug)]
pub struct Source {
    /// The file; `-` is stdin.
    pub file: PathBuf,
    /// The request id of a line that has none of its own is this, a dash, and its number.
    pub prefix: String,
}

/// Submits every line.
pub async fn run(
    server: &ServerArgs,
    source: Source,
    wait: bool,
    format: Format,
) -> Result<Exit, Problem> {
    let file = &source.file;
    if file.as_os_str() == "-" {
        return submit(server, BufReader::new(tokio::io::stdin()), source, wait, format).await;
    }
    let cannot = |wrong| Problem::usage(format!("cannot read {}: {wrong}", file.display()));
    let opened = tokio::fs::File::open(file).await.map_err(cannot)?;
    submit(server, BufReader::with_capacity(1 << 16, opened), source, wait, format).await
}

async fn submit(
    server: &ServerArgs,
    input: impl AsyncBufRead + Unpin,
    source: Source,
    wait: bool,
    format: Format,
) -> Result<Exit, Problem> {
    let mut ctrl_c = CtrlC::listen()?;
    let client = server.connect().await?;
    let mut bulk = Bulk::new(client, &source.prefix, wait, format);
    let ended = tokio::select! {
        biased;
        () = ctrl_c.pressed() => Ok(Exit::Interrupted),
        ended = bulk.work(Lines::new(input, MAX_LINE)) => ended,
    };
    if !matches!(ended, Err(Problem::OutputClosed)) {
        bulk.report.summary(&bulk.tally, wait);
    }
    bulk.farewell(&source, &ended);
    ended
}

/// Why a line is not a task.
enum Refused {
    /// Found here, before it was sent.
    Here(Vec<String>),
    /// Answered by the server, or by the lack of one.
    Answered(Status),
}

/// A line whose answer is awaited.
struct Flight {
    line: u64,
    bytes: usize,
    answer: AbortOnDropHandle<Result<SubmitResponse, Refused>>,
}

struct Bulk {
    client: Client,
    /// What request ids begin with.
    prefix: Arc<str>,
    wait: bool,
    /// In the order of the lines; answers are taken from the front.
    in_flight: VecDeque<Flight>,
    bytes_in_flight: usize,
    /// The last line whose answer is known, as are those of all before it.
    answered: u64,
    /// No further line is read: the input has ended, or the server has gone.
    closed: bool,
    /// The input has ended.
    is_read: bool,
    /// Why the server is given up.
    lost: Option<Problem>,
    watcher: Option<Watcher>,
    /// Up to this line, tasks may have ended before what is followed begins.
    unsure_up_to: u64,
    tally: Tally,
    report: Report,
}

/// What happens next.
enum Step {
    Read(std::io::Result<Option<Line>>),
    Answered(Result<SubmitResponse, Refused>),
    Seen(Result<Option<Seen>, Status>),
}

impl Bulk {
    fn new(client: Client, prefix: &str, wait: bool, format: Format) -> Self {
        Self {
            client,
            prefix: prefix.into(),
            wait,
            in_flight: VecDeque::with_capacity(MAX_IN_FLIGHT),
            bytes_in_flight: 0,
            answered: 0,
            closed: false,
            is_read: false,
            lost: None,
            watcher: None,
            unsure_up_to: 0,
            tally: Tally::default(),
            report: Report::new(format, Instant::now()),
        }
    }

    async fn work(&mut self, mut lines: Lines<impl AsyncBufRead + Unpin>) -> Result<Exit, Problem> {
        while !self.is_done() {
            match self.step(&mut lines).await {
                Step::Read(line) => self.read(line)?,
                Step::Answered(answer) => self.answered(answer).await?,
                Step::Seen(seen) => self.seen(seen?),
            }
            self.report.progress(&self.tally, self.closed && self.wait);
        }
        match self.lost.take() {
            Some(problem) => Err(problem),
            None => Ok(self.report.exit(self.tally.counts())),
        }
    }

    fn is_done(&self) -> bool {
        let followed = !self.wait || self.tally.open() == 0 || self.lost.is_some();
        self.closed && self.in_flight.is_empty() && followed
    }

    async fn step(&mut self, lines: &mut Lines<impl AsyncBufRead + Unpin>) -> Step {
        let room = self.in_flight.len() < MAX_IN_FLIGHT
            && self.bytes_in_flight < MAX_BYTES_IN_FLIGHT
            && !self.closed;
        let attentive = !self.tally.is_ahead();
        tokio::select! {
            answer = oldest(&mut self.in_flight) => Step::Answered(answer),
            line = lines.next(), if room => Step::Read(line),
            seen = next_seen(&mut self.watcher), if attentive => Step::Seen(seen),
        }
    }

    fn read(&mut self, line: std::io::Result<Option<Line>>) -> Result<(), Problem> {
        let cannot = |wrong| Problem::usage(format!("cannot read the input: {wrong}"));
        let Some(line) = line.map_err(cannot)? else {
            (self.closed, self.is_read) = (true, true);
            return Ok(());
        };
        let bytes = line.bytes.as_ref().map_or(0, Vec::len);
        self.bytes_in_flight += bytes;
        self.in_flight.push_back(Flight {
            line: line.number,
            bytes,
            answer: AbortOnDropHandle::new(tokio::spawn(send(
                self.client.tasks(),
                line.bytes,
                format!("{}-{}", self.prefix, line.number),
            ))),
        });
        Ok(())
    }

    /// Takes the answer of the oldest flight.
    async fn answered(&mut self, answer: Result<SubmitResponse, Refused>) -> Result<(), Problem> {
        let Some(Flight { line, bytes, .. }) = self.in_flight.pop_front() else { return Ok(()) };
        self.bytes_in_flight -= bytes;
        self.answered = line;
        match answer {
            Ok(accepted) => {
                self.report.accepted(line, &accepted)?;
                if self.wait {
                    self.follow(line, accepted).await?;
                }
            }
            Err(Refused::Here(wrong)) => self.report.refused(line, &wrong.join("; "))?,
            Err(Refused::Answered(status)) => {
                self.report.refused(line, &told(&status))?;
                if is_lost(&status) {
                    self.closed = true;
                    self.lost = Some(status.into());
                }
            }
        }
        if self.in_flight.is_empty() {
            self.tally.all_acknowledged();
        }
        Ok(())
    }

    /// Begins to look for the end of a task.
    async fn follow(&mut self, line: u64, accepted: SubmitResponse) -> Result<(), Problem> {
        let state = accepted.state();
        if let Some(ending) = self.tally.accepted(line, &accepted.task_id, state) {
            self.report.ended(&ending);
            return Ok(());
        }
        match &self.watcher {
            None => {
                let watch =
                    Watch { max_outage: MAX_OUTAGE, ..Watch::begin(Start::After(accepted.cursor)) };
                // Lines that are on their way may have been committed before
                // this one, and their tasks may have ended.
                self.unsure_up_to = self.in_flight.back().map_or(0, |flight| flight.line);
                self.watcher = Some(self.client.watch(watch));
            }
            // It may have ended before the cursor that is followed from.
            Some(_) if (accepted.existing || line <= self.unsure_up_to) && !is_terminal(state) => {
                self.look_up(accepted.task_id).await?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    async fn look_up(&mut self, task_id: String) -> Result<(), Problem> {
        let request = GetTaskRequest { task_id };
        let response = CallRetryPolicy::PATIENT
            .call(|| {
                let (mut client, request) = (self.client.tasks(), request.clone());
                async move { client.get_task(request).await }
            })
            .await?;
        let ending = response.task.and_then(|task| self.tally.looked_up(task));
        self.told(ending);
        Ok(())
    }

    fn seen(&mut self, seen: Option<Seen>) {
        match seen {
            Some(Seen::Events(batch)) => {
                for event in batch.events {
                    let ending = self.tally.event(event);
                    self.told(ending);
                }
                if self.in_flight.is_empty() {
                    self.tally.all_acknowledged();
                }
            }
            Some(Seen::Draining) => self.report.note("the server is shutting down"),
            Some(Seen::Lost(status)) => {
                self.report.note(&format!("{}; looking for it", told(&status)));
            }
            _ => {}
        }
    }

    /// Where it stopped, and how to go on; nothing, if every line has become a task.
    fn farewell(&self, source: &Source, ended: &Result<Exit, Problem>) {
        let is_complete = matches!(ended, Ok(Exit::Ok | Exit::TaskFailed));
        if is_complete && self.report.refused_lines() == 0 {
            return;
        }
        let stand = Stand {
            is_complete,
            answered: self.answered,
            unknown: self.in_flight.len() as u64,
            is_read: self.is_read,
            wait: self.wait,
        };
        stand.words(&source.file, &source.prefix).iter().for_each(|line| self.report.note(line));
    }

    fn told(&mut self, ending: Option<Ending>) {
        if let Some(ending) = ending {
            self.report.ended(&ending);
        }
    }
}

/// The oldest flight's answer; never, if there is none. Leaves the flight where
/// it is.
async fn oldest(in_flight: &mut VecDeque<Flight>) -> Result<SubmitResponse, Refused> {
    match in_flight.front_mut() {
        None => std::future::pending().await,
        Some(flight) => (&mut flight.answer).await.unwrap_or_else(|broken| {
            Err(Refused::Answered(Status::internal(format!("the submission broke off: {broken}"))))
        }),
    }
}

async fn next_seen(watcher: &mut Option<Watcher>) -> Result<Option<Seen>, Status> {
    match watcher {
        None => std::future::pending().await,
        Some(watcher) => watcher.next().await,
    }
}

/// Checks a line and submits it, again and again while there is no server.
async fn send(
    client: Tasks,
    line: Option<Vec<u8>>,
    request_id: String,
) -> Result<SubmitResponse, Refused> {
    let too_long = || Refused::Here(vec![format!("is longer than {} MiB", MAX_LINE >> 20)]);
    let mut request = ndjson::parse(&line.ok_or_else(too_long)?).map_err(Refused::Here)?;
    if request.request_id.is_empty() {
        request.request_id = request_id;
    }
    CallRetryPolicy::PATIENT
        .call(|| {
            let (mut client, mut request) = (client.clone(), Request::new(request.clone()));
            request.set_timeout(ROOM);
            async move { client.submit(request).await }
        })
        .await
        .map_err(Refused::Answered)
}
