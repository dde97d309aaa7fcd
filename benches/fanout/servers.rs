//! The servers that are compared, each in a process of its own.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
};

use futures_util::StreamExt as _;
use taskyard::{
    config::Config,
    handler::{Noop, Registry, Sleep},
    proto::v1::{
        EventType, SubmitRequest, submit_request::Payload, task_service_client::TaskServiceClient,
    },
    server::Server,
};
use tokio_stream::wrappers::TcpListenerStream;

use crate::{http2::Error, naive::Naive};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The comparison: each watcher encodes its events for itself.
    Naive,
    /// Taskyard, whose only worker is busy: tasks are taken and kept, and each makes
    /// one event.
    Taskyard,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Naive, Self::Taskyard];

    pub fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Taskyard => "taskyard",
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::Naive => "naive tonic",
            Self::Taskyard => "Taskyard",
        }
    }
}

const ROLE: &str = "FANOUT_BENCH_SERVES";

/// Whether this process is to be a server.
pub fn asked_to_serve() -> Option<Kind> {
    let role = std::env::var(ROLE).ok()?;
    Kind::ALL.into_iter().find(|kind| kind.name() == role)
}

/// A server in another process; ended when dropped.
pub struct Child {
    process: std::process::Child,
    pub address: SocketAddr,
}

impl Child {
    pub fn start(kind: Kind) -> Result<Self, Error> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(ROLE, kind.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("the server has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().map_err(|_| "a server did not start")?;
        Ok(Self { process, address })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
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
pub fn serve(kind: Kind) -> Result<(), Error> {
    // Logs as a server in production would; the spans are part of the cost.
    taskyard::telemetry::init("info", taskyard::config::LogFormat::Text)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (address, server) = match kind {
        Kind::Naive => (runtime.block_on(serve_naive())?, None),
        Kind::Taskyard => {
            let server = runtime.block_on(start_taskyard(dir.path()))?;
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

async fn start_taskyard(data_dir: &std::path::Path) -> Result<Server, Error> {
    let mut registry = Registry::default();
    registry.insert("noop", Noop);
    registry.insert("sleep", Sleep);
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: data_dir.to_owned(),
        queue_max_tasks: 100_000_000,
        queue_max_bytes: 1 << 40,
        workers: 1.try_into()?,
        max_watchers: 100_000,
        max_watchers_per_peer: 100_000,
        max_connections_per_address: 100_000,
        ..Config::default()
    };
    let server = Server::start(&config, registry).await?;
    occupy_the_worker(server.local_addr()).await?;
    Ok(server)
}

/// Returns once the worker is busy, so that from then on tasks do nothing but wait.
async fn occupy_the_worker(address: SocketAddr) -> Result<(), Error> {
    let mut client = TaskServiceClient::connect(format!("http://{address}")).await?;
    let hour =
        prost_types::Value { kind: Some(prost_types::value::Kind::StringValue("1h".into())) };
    let args = prost_types::Struct { fields: [("duration".to_owned(), hour)].into() };
    let payload = Some(Payload::Args(args));
    let request = SubmitRequest { kind: "sleep".into(), payload, ..Default::default() };
    let mut events = client.submit_and_watch(request).await?.into_inner();
    while let Some(message) = events.message().await? {
        if message.events.iter().any(|event| event.r#type() == EventType::Started) {
            return Ok(());
        }
    }
    Err("the worker does not start".into())
}

async fn serve_naive() -> Result<SocketAddr, Error> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let connections = TcpListenerStream::new(listener).map(|stream| {
        let stream = stream?;
        stream.set_nodelay(true)?;
        Ok::<_, std::io::Error>(stream)
    });
    let service = Naive::new();
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(connections),
    );
    Ok(address)
}
