//! The connection to a server.
//!
//! Owns addresses, connecting, and trying again: how often, how long in
//! between, and on which errors. Must not know commands.

use std::{
    fmt,
    ops::{ControlFlow, Range},
    time::Duration,
};

use rand::Rng as _;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::{
    exit::Exit,
    problem::{Problem, Pushback, is_lost, pushback, root_cause},
};
use crate::proto::v1::{
    admin_service_client::AdminServiceClient, task_service_client::TaskServiceClient,
};

/// The generated client over one connection, which it re-establishes by itself.
pub type Client = TaskServiceClient<Channel>;

/// The same, for operators.
pub type Admin = AdminServiceClient<Channel>;

/// The port of an address that names none.
const DEFAULT_PORT: u16 = 50051;

/// The longest answer that is read. A task carries a payload and a result, and
/// an operator may have raised the server's limits on both.
const MAX_ANSWER: usize = 256 << 20;

/// `--server`, for commands that talk to one.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    /// The server, as URL or host:port
    #[arg(
        long,
        global = true,
        help_heading = super::GLOBAL,
        env = "TASKYARD_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    server: String,
}

impl ServerArgs {
    /// Connects.
    ///
    /// # Errors
    /// [`Exit::Usage`] if it is no address, [`Exit::Unavailable`] if nobody
    /// answers there.
    pub async fn connect(&self) -> Result<Client, Problem> {
        connect(&self.address()?).await
    }

    /// Connects to the service for operators.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_admin(&self) -> Result<Admin, Problem> {
        let channel = channel(&self.address()?).await?;
        Ok(Admin::new(channel).max_decoding_message_size(MAX_ANSWER))
    }

    /// Where the server is.
    ///
    /// # Errors
    /// [`Exit::Usage`] if it is no address.
    pub fn address(&self) -> Result<Address, Problem> {
        Address::parse(&self.server)
    }
}

/// Where a server is, always as `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

impl Address {
    /// Reads an URL, `host:port` or `host`.
    ///
    /// # Errors
    /// [`Exit::Usage`], with what an address looks like.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = |why: &str| {
            Problem::usage(format!("--server {text:?} {why}"))
                .hint("it looks like http://127.0.0.1:50051 or host:port")
        };
        let rest = match text.trim().split_once("://") {
            None => text.trim(),
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err(wrong("asks for TLS, which is not supported")),
            Some((scheme, _)) => return Err(wrong(&format!("has the unknown scheme {scheme:?}"))),
        };
        let authority: http::uri::Authority =
            rest.trim_end_matches('/').parse().map_err(|_| wrong("is not an address"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(wrong("is not an address"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default() {
            "" => DEFAULT_PORT,
            port => port[1..].parse().map_err(|_| wrong("has no valid port"))?,
        };
        Ok(Self(format!("http://{}:{port}", authority.host())))
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Self(format!("http://{address}"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Connects, or says what was tried and how to start a server.
///
/// # Errors
/// [`Exit::Unavailable`] if nobody answers there within 5 s.
pub async fn connect(address: &Address) -> Result<Client, Problem> {
    let channel = channel(address).await?;
    Ok(Client::new(channel).max_decoding_message_size(MAX_ANSWER))
}

async fn channel(address: &Address) -> Result<Channel, Problem> {
    let endpoint = Endpoint::from_shared(address.0.clone())
        .map_err(|wrong| Problem::usage(format!("{address} is not an address: {wrong}")))?
        .user_agent(concat!("taskyard-cli/", env!("CARGO_PKG_VERSION")))
        .map_err(|wrong| Problem::new(Exit::Internal, wrong.to_string()))?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        // Finds out within 40 s that the machine at the other end has gone.
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(|error| {
        let message = format!("no server answers at {address}: {}", root_cause(&error));
        Problem::new(Exit::Unavailable, message)
            .hint("start one with: taskyard serve")
            .hint("or name another with --server or TASKYARD_SERVER")
    })
}

/// How stubbornly to try again when a call found no server or a draining one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Calls in all.
    tries: u32,
}

impl Persistence {
    /// For somebody who waits at the prompt: gives up after about 2 s.
    pub const BRIEF: Self = Self { tries: 5 };
    /// For many tasks, which should survive a restart of the server: about 25 s.
    pub const PATIENT: Self = Self { tries: 10 };

    /// A longer pushback of the server ends the tries: people want to know.
    const LONGEST_PUSHBACK: Duration = Duration::from_secs(30);

    /// Calls until there is an answer. Only to be used for what may safely be
    /// repeated.
    ///
    /// # Errors
    /// The last status.
    pub async fn call<T, Answer>(self, mut call: impl FnMut() -> Answer) -> Result<T, Status>
    where
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let mut failures = 0;
        loop {
            let status = match call().await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            failures += 1;
            match self.after(failures, &status) {
                ControlFlow::Continue(rest) => tokio::time::sleep(rest).await,
                ControlFlow::Break(()) => return Err(status),
            }
        }
    }

    /// [`Self::call`] of one method with one request, as often as it takes.
    ///
    /// # Errors
    /// The last status.
    pub async fn ask<Client: Clone, Request: Clone, T>(
        self,
        client: &Client,
        request: &Request,
        method: impl AsyncFn(Client, Request) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        self.call(|| method(client.clone(), request.clone())).await
    }

    /// Whether to try again after this many failures, and how long to rest.
    fn after(self, failures: u32, status: &Status) -> ControlFlow<(), Duration> {
        if failures >= self.tries || !is_lost(status) {
            return ControlFlow::Break(());
        }
        match pushback(status) {
            Pushback::Unsaid => ControlFlow::Continue(backoff(failures)),
            Pushback::After(asked) if asked <= Self::LONGEST_PUSHBACK => {
                ControlFlow::Continue(asked.max(Duration::from_millis(10)))
            }
            Pushback::After(_) | Pushback::Never => ControlFlow::Break(()),
        }
    }
}

/// The rest after so many failures in a row: doubles from 100 ms up to 5 s, of
/// which between half and all is taken, so that many clients spread.
pub fn backoff(failures: u32) -> Duration {
    rand::rng().random_range(backoff_range(failures))
}

fn backoff_range(failures: u32) -> Range<Duration> {
    let doublings = failures.saturating_sub(1).min(10);
    let whole = Duration::from_millis(100 << doublings).min(Duration::from_secs(5));
    whole / 2..whole
}

/// A random request id, in the form of a version 4 UUID: with it, repeating a
/// submission whose outcome is unknown is safe.
pub fn new_request_id() -> String {
    let random: u128 = rand::rng().random();
    let versioned = random & !(0xf << 76) | 0x4 << 76;
    let hex = format!("{:032x}", versioned & !(0x3 << 62) | 0x2 << 62);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        let table = [
            ("http://127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("127.0.0.1:7000", "http://127.0.0.1:7000"),
            ("localhost", "http://localhost:50051"),
            ("http://example.org/", "http://example.org:50051"),
            ("[::1]:9", "http://[::1]:9"),
        ];
        for (text, address) in table {
            assert_eq!(Address::parse(text), Ok(Address(address.into())), "{text}");
        }
        for wrong in ["", "https://a:1", "ftp://a", "a b", "http://", "a:99999", "a:1/path"] {
            let problem = Address::parse(wrong).expect_err(wrong);
            assert_eq!(problem.exit(), Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn rests_grow_and_are_bounded() {
        let ms = Duration::from_millis;
        assert_eq!(backoff_range(1), ms(50)..ms(100));
        assert_eq!(backoff_range(3), ms(200)..ms(400));
        assert_eq!(backoff_range(1000), ms(2500)..ms(5000));
    }

    #[test]
    fn only_lost_calls_are_repeated() {
        let brief = Persistence::BRIEF;
        assert!(brief.after(1, &Status::unavailable("")).is_continue());
        assert!(brief.after(5, &Status::unavailable("")).is_break());
        assert!(brief.after(1, &Status::invalid_argument("")).is_break());
        assert!(brief.after(1, &Status::resource_exhausted("")).is_break());
    }

    #[test]
    fn a_pushback_is_honoured() {
        let mut status = Status::unavailable("");
        let mut push = |value: &'static str| {
            let value = tonic::metadata::MetadataValue::from_static(value);
            status.metadata_mut().insert("grpc-retry-pushback-ms", value);
            Persistence::BRIEF.after(1, &status)
        };
        assert_eq!(push("700"), ControlFlow::Continue(Duration::from_millis(700)));
        assert_eq!(push("-1"), ControlFlow::Break(()));
        assert_eq!(push("3600000"), ControlFlow::Break(()));
    }

    #[tokio::test]
    async fn a_call_is_repeated_until_it_is_answered() {
        let mut soon = Status::unavailable("");
        let at_once = tonic::metadata::MetadataValue::from_static("0");
        soon.metadata_mut().insert("grpc-retry-pushback-ms", at_once);
        let mut calls = 0;
        let answer = Persistence::BRIEF
            .call(|| {
                calls += 1;
                std::future::ready(match calls {
                    3 => Ok(Response::new(calls)),
                    _ => Err(soon.clone()),
                })
            })
            .await;
        assert_eq!(answer.ok(), Some(3));
    }

    #[test]
    fn request_ids_are_version_4_uuids() {
        let id = new_request_id();
        let form: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(form, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
        assert_ne!(id, new_request_id());
    }
}
