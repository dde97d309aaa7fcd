//! The client: a thin layer over the generated one.
//!
//! Owns addresses, connecting, what is worth another try, and a watch that goes on
//! exactly where a broken one ended. Must not know the server, or the command line.
//!
//! The generated clients and messages are [`proto::v1`]; all their calls are at hand:
//!
//! ```no_run
//! use taskyard_client::{Client, Seen, Start, Watch, proto::v1::SubmitRequest};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("http://127.0.0.1:50051").await?;
//! let mut watcher = client.watch(Watch::begin(Start::Oldest));
//! client.tasks().submit(SubmitRequest { kind: "noop".into(), ..Default::default() }).await?;
//! while let Some(seen) = watcher.next().await? {
//!     if let Seen::Events(batch) = seen {
//!         for event in batch.events {
//!             println!("{} {}", event.seq, event.task_id);
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod address;
mod args;
mod error;
mod retry;
mod status;
mod tasks;
mod watch;

use std::{error::Error as _, fmt, time::Duration};

use taskyard_proto::{
    health::{HealthCheckRequest, health_client::HealthClient},
    v1::{admin_service_client::AdminServiceClient, task_service_client::TaskServiceClient},
};
use taskyard_text::without_error_numbers;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

pub use address::{Address, BadAddress};
pub use args::{BadArgs, args};
pub use error::{Error, Violation};
pub use retry::{CallRetryPolicy, backoff, new_request_id};
pub use status::{Pushback, is_lost, is_own_deadline, pushback, reason};
pub use tasks::is_terminal;
pub use taskyard_proto as proto;
pub use watch::{Batch, Seen, Start, Watch, Watcher};

/// The longest answer that is read. A task carries a payload and a result, and
/// an operator may have raised the server's limits on both.
const MAX_ANSWER: usize = 256 << 20;

/// How long the connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The generated client of tasks and events.
pub type Tasks = TaskServiceClient<Channel>;

/// The generated client for operators.
pub type Admin = AdminServiceClient<Channel>;

/// A connection to a server, which it makes anew by itself when it breaks. Clones
/// share it.
#[derive(Clone, Debug)]
pub struct Client {
    tasks: Tasks,
    admin: Admin,
    /// How to connect anew.
    endpoint: Option<Endpoint>,
}

impl Client {
    /// Connects to an address as [`Address`] reads it.
    ///
    /// # Errors
    /// It is no address, or no Taskyard answers there within twice 5 s.
    pub async fn connect(address: &str) -> Result<Self, ConnectError> {
        let address = address.parse().map_err(ConnectError::Address)?;
        Self::connect_as(&address, concat!("taskyard-rust/", env!("CARGO_PKG_VERSION"))).await
    }

    /// Connects, and tells the server this name and version of a program.
    ///
    /// # Errors
    /// As [`Self::connect`], or the name is no value of a header.
    pub async fn connect_as(
        address: &Address,
        user_agent: &'static str,
    ) -> Result<Self, ConnectError> {
        let nobody = |error: tonic::transport::Error| ConnectError::Nobody {
            address: address.clone(),
            cause: root_cause(&error),
        };
        let endpoint = Endpoint::from_shared(address.to_string())
            .and_then(|endpoint| endpoint.user_agent(user_agent))
            .map_err(nobody)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            // Finds out within 40 s that the machine at the other end has gone.
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(nobody)?;
        let answer = greet(channel.clone());
        match tokio::time::timeout(CONNECT_TIMEOUT, answer).await {
            Ok(Ok(())) => Ok(Self { endpoint: Some(endpoint), ..Self::over(channel) }),
            Ok(Err(status)) => Err(ConnectError::Stranger {
                address: address.clone(),
                cause: status_cause(&status),
            }),
            Err(_) => Err(ConnectError::Silent { address: address.clone() }),
        }
    }

    /// Over a connection that was made otherwise. It should have HTTP/2's keep-alive:
    /// without it a server that has gone without a word is noticed by nobody, and a watch
    /// is tried again on the same connection.
    pub fn over(channel: Channel) -> Self {
        Self {
            tasks: Tasks::new(channel.clone()).max_decoding_message_size(MAX_ANSWER),
            admin: Admin::new(channel).max_decoding_message_size(MAX_ANSWER),
            endpoint: None,
        }
    }

    /// The same server over a new connection, if it is known how to make one.
    fn anew(&self) -> Self {
        let Some(endpoint) = &self.endpoint else { return self.clone() };
        Self { endpoint: Some(endpoint.clone()), ..Self::over(endpoint.connect_lazy()) }
    }

    /// The generated client of tasks and events.
    pub fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// The generated client for operators.
    pub fn admin(&self) -> Admin {
        self.admin.clone()
    }

    /// Watches events, over outages of the server and of the way to it. It connects when
    /// it is first asked. One that is not asked for long should have a client of its own:
    /// what it does not read takes room on its connection from others.
    pub fn watch(&self, watch: Watch) -> Watcher {
        Watcher::new(self.clone(), watch)
    }
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// It is not where a server can be.
    Address(BadAddress),
    /// No server answers there.
    Nobody {
        /// Where.
        address: Address,
        /// What the system says.
        cause: String,
    },
    /// Somebody takes the connection, and says nothing for 5 s.
    Silent {
        /// Where.
        address: Address,
    },
    /// Somebody takes the connection, and does not answer as Taskyard does: it is
    /// something else, or about to go.
    Stranger {
        /// Where.
        address: Address,
        /// What it answers, or how the connection ended.
        cause: String,
    },
}

/// Asks for the health of Taskyard's service: whatever it is, Taskyard is there.
async fn greet(channel: Channel) -> Result<(), Status> {
    let service = "taskyard.v1.TaskService".to_owned();
    HealthClient::new(channel).check(HealthCheckRequest { service }).await?;
    Ok(())
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(bad) => bad.fmt(f),
            Self::Nobody { address, cause } => {
                write!(f, "no server answers at {address}: {cause}")
            }
            Self::Silent { address } => {
                write!(f, "the server at {address} takes the connection, and says nothing")
            }
            Self::Stranger { address, cause } => {
                write!(f, "the server at {address} does not answer as Taskyard does: {cause}")
            }
        }
    }
}

impl std::error::Error for ConnectError {}

/// How a call failed, in words of its own: what the server said, or how the connection
/// ended.
fn status_cause(status: &Status) -> String {
    match status.source() {
        Some(cause) => root_cause(cause),
        None if status.message().is_empty() => status.code().description().into(),
        None => status.message().into(),
    }
}

/// The innermost cause, which is the one that says something ("connection
/// refused"), not "transport error".
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    without_error_numbers(&cause.to_string())
}
