//! `--server`, for commands that talk to one.
//!
//! Owns the flag, and how a failure to connect is told. Must not know commands.

use super::{exit::Exit, problem::Problem, program};
use crate::client::{Address, BadAddress, Client, ConnectError};

/// What the server is told of this program.
const USER_AGENT: &str = concat!("taskyard-cli/", env!("CARGO_PKG_VERSION"));

/// `--server`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerArgs {
    #[arg(long, global = true, help_heading = super::GLOBAL, value_name = "URL", help = HELP)]
    server: Option<String>,
}

const HELP: &str = "The server, as URL or host:port [env: TASKYARD_SERVER] \
                    [default: http://127.0.0.1:50051]";

/// Names the server if the flag does not. Read here and not by clap, for which one that is
/// empty would be an address.
const VARIABLE: &str = "TASKYARD_SERVER";

const DEFAULT: &str = "http://127.0.0.1:50051";

impl ServerArgs {
    /// Connects.
    ///
    /// # Errors
    /// [`Exit::Usage`] if it is no address, [`Exit::Unavailable`] if nobody
    /// answers there.
    pub async fn connect(&self) -> Result<Client, Problem> {
        connect(&self.address()?).await
    }

    /// Where the server is.
    ///
    /// # Errors
    /// [`Exit::Usage`] if it is no address.
    pub fn address(&self) -> Result<Address, Problem> {
        let variable = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let variable = variable.map(|value| value.to_string_lossy().into_owned());
        self.address_or(variable)
    }

    fn address_or(&self, variable: Option<String>) -> Result<Address, Problem> {
        let named = self.server.clone().or(variable);
        let address = named.as_deref().unwrap_or(DEFAULT).parse();
        address.map_err(|bad| Problem::from(ConnectError::Address(bad)))
    }
}

/// Connects, or says what was tried and how to start a server.
///
/// # Errors
/// [`Exit::Unavailable`] if nobody answers there within 5 s.
pub async fn connect(address: &Address) -> Result<Client, Problem> {
    Ok(Client::connect_as(address, USER_AGENT).await?)
}

impl From<ConnectError> for Problem {
    fn from(error: ConnectError) -> Self {
        match &error {
            ConnectError::Address(BadAddress { text, why }) => {
                Self::usage(format!("--server {text:?} {why}"))
                    .hint("it looks like http://127.0.0.1:50051 or host:port")
            }
            ConnectError::Silent { .. } | ConnectError::Stranger { .. } => {
                Self::new(Exit::Unavailable, error.to_string())
                    .hint("name another with --server or TASKYARD_SERVER")
            }
            ConnectError::Nobody { .. } => Self::new(Exit::Unavailable, error.to_string())
                .hint(&format!("start one with: {} serve", program::name()))
                .hint("or name another with --server or TASKYARD_SERVER"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_address_is_a_mistake_of_the_command_line() {
        let args = ServerArgs { server: Some("ftp://a".into()) };
        let problem = args.address().expect_err("no address");
        assert_eq!(problem.exit(), Exit::Usage);
        assert!(problem.message().starts_with("--server \"ftp://a\" has the unknown scheme"));
    }
}
