//! The servers that are compared, each in a process of its own.

use std::{
    convert::Infallible,
    fs::File,
    future::{Ready, ready},
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use taskyard::{
    config::Config,
    handler::{Noop, Registry, Sleep},
    proto::v1::{
        SubmitAck, SubmitRequest, SubmitResponse, SubmitStreamRequest, SubmitStreamResponse,
        TaskState, submit_ack, submit_request::Payload, task_service_client::TaskServiceClient,
    },
    server::Server,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, body::Body, server::NamedService};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The limit: tonic alone.
    Bare,
    /// Taskyard, whose only worker is busy: tasks are taken and kept.
    Keep,
    /// Taskyard with its default pool: tasks are taken and run.
    Run,
    /// The same, with a short queue, so that no more is taken than is run, and what has ended
    /// kept for [`KEPT`].
    Steady,
}

/// How long a server in steady state keeps what has ended.
pub const KEPT: Duration = Duration::from_secs(10);

impl Kind {
    /// Those that are compared.
    pub const ALL: [Self; 3] = [Self::Bare, Self::Keep, Self::Run];

    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Keep => "submit",
            Self::Run => "submit_and_run",
            Self::Steady => "steady",
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Bare => "bare tonic",
            Self::Keep => "Submit, fsynced",
            Self::Run => "Submit, fsynced, and run",
            Self::Steady => "the same, in steady state",
        }
    }
}

const ROLE: &str = "LIMITS_BENCH_SERVES";

/// Whether this process is to be a server.
pub fn asked_to_serve() -> Option<Kind> {
    let role = std::env::var(ROLE).ok()?;
    Kind::ALL.into_iter().chain([Kind::Steady]).find(|kind| kind.name() == role)
}

/// A server in another process; ended when dropped.
pub struct Child {
    process: std::process::Child,
    pub address: SocketAddr,
}

impl Child {
    pub fn start(kind: Kind) -> Result<Self, Box<dyn std::error::Error>> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(ROLE, kind.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("the server has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self { address: line.trim().parse()?, process })
    }
}

impl Child {
    /// Bytes of memory that it has, of Linux alone.
    pub fn resident(&self) -> std::io::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib * 1024.0).ok_or_else(|| std::io::Error::other("no VmRSS in its status"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Closing its input asks it to end, so that it can remove its files.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Serves until standard input ends.
pub fn serve(kind: Kind) -> Result<(), Box<dyn std::error::Error>> {
    // Logs as a server in production would; the spans are part of the cost.
    taskyard::telemetry::init("info", taskyard::config::LogFormat::Text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (address, server) = match kind {
        Kind::Bare => (runtime.block_on(serve_bare())?, None),
        Kind::Keep | Kind::Run | Kind::Steady => {
            let server = runtime.block_on(start_taskyard(kind, dir.path()))?;
            (server.local_addr(), Some(server))
        }
    };
    println!("{address}");
    std::io::stdout().flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    drop(server);
    runtime.shutdown_background();
    Ok(())
}

async fn start_taskyard(
    kind: Kind,
    data_dir: &std::path::Path,
) -> Result<Server, Box<dyn std::error::Error>> {
    let mut registry = Registry::default();
    registry.insert("noop", Noop);
    registry.insert("sleep", Sleep);
    let mut config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: data_dir.to_owned(),
        queue_max_tasks: 100_000_000,
        queue_max_bytes: 1 << 40,
        ..Config::default()
    };
    match kind {
        Kind::Keep => config.workers = 1.try_into()?,
        Kind::Steady => {
            // An execution takes two commits, however short it is: with few workers it is these
            // that limit the rate.
            config.workers = 64.try_into()?;
            config.queue_max_tasks = 20_000;
            config.retention.finished = KEPT;
            config.retention.events = KEPT;
        }
        Kind::Bare | Kind::Run => {}
    }
    let server = Server::start(&config, registry).await?;
    if kind == Kind::Keep {
        occupy_the_worker(server.local_addr()).await?;
    }
    Ok(server)
}

async fn occupy_the_worker(address: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let mut client = TaskServiceClient::connect(format!("http://{address}")).await?;
    let hour =
        prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("1h".into())) };
    let args = prost_types::Struct { fields: [("duration".to_owned(), hour)].into() };
    let payload = Some(Payload::Args(args));
    client.submit(SubmitRequest { kind: "sleep".into(), payload, ..Default::default() }).await?;
    Ok(())
}

async fn serve_bare() -> Result<SocketAddr, Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let incoming = TcpListenerStream::new(listener);
    let connections = incoming.map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    });
    tokio::spawn(
        tonic::transport::Server::builder().add_service(Bare).serve_with_incoming(connections),
    );
    Ok(address)
}

/// Answers `Submit` at once.
#[derive(Clone)]
struct Bare;

impl NamedService for Bare {
    const NAME: &'static str = "taskyard.v1.TaskService";
}

impl tower::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path().ends_with("/SubmitStream") {
                let codec = tonic_prost::ProstCodec::default();
                return Ok(tonic::server::Grpc::new(codec).streaming(Echo, request).await);
            }
            let codec = tonic_prost::ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(Echo, request).await)
        })
    }
}

struct Echo;

impl tonic::server::UnaryService<SubmitRequest> for Echo {
    type Response = SubmitResponse;
    type Future = Ready<Result<Response<SubmitResponse>, Status>>;

    fn call(&mut self, request: Request<SubmitRequest>) -> Self::Future {
        let SubmitRequest { .. } = request.into_inner();
        ready(Ok(Response::new(answer())))
    }
}

/// Acknowledges what has arrived, in as few messages as it can.
impl tonic::server::StreamingService<SubmitStreamRequest> for Echo {
    type Response = SubmitStreamResponse;
    type ResponseStream = BoxStream<'static, Result<SubmitStreamResponse, Status>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<SubmitStreamRequest>>) -> Self::Future {
        let acks = request.into_inner().ready_chunks(512).map(|chunk| {
            let ack = |request: SubmitStreamRequest| SubmitAck {
                sequence: request.sequence,
                result: Some(submit_ack::Result::Ack(answer())),
            };
            let acks = chunk.into_iter().map(|request| request.map(ack));
            Ok(SubmitStreamResponse { acks: acks.collect::<Result<_, _>>()? })
        });
        ready(Ok(Response::new(Box::pin(acks))))
    }
}

/// As long as a real one.
fn answer() -> SubmitResponse {
    SubmitResponse {
        task_id: "t1c2k5zq8x5kd7".into(),
        cursor: "c4k2j9xf7q2m1c2k4".into(),
        state: TaskState::Queued.into(),
        existing: false,
    }
}

/// The median time of a write of 4 KiB and a sync, where the stores are.
pub fn time_of_a_sync() -> std::io::Result<Duration> {
    let mut file: File = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut times = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times[50])
}
