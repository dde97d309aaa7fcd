//! `--server`, for commands that talk to one.
//!
//! Owns the flag, and how a failure to connect is told. Must not know commands.

use std::ffi::OsString;

use clap::{Arg, ArgMatches};
use taskyard_client::{Address, BadAddress, Client, ConnectError};

use super::{exit::Exit, problem::Problem, program};

/// What the server is told of this program.
const USER_AGENT: &str = concat!("taskyard-cli/", env!("CARGO_PKG_VERSION"));

/// The variable of the environment that names the server, where the flag does not.
const VARIABLE: &str = "TASKYARD_SERVER";

/// Where a server is, unless somebody says.
const DEFAULT: &str = "http://127.0.0.1:50051";

/// The flag's name, without its dashes.
const FLAG: &str = "server";

/// `--server`: what it says, or the environment, or the default.
#[derive(Clone, Debug)]
pub struct ServerArgs {
    server: String,
}

impl ServerArgs {
    /// The flag. Commands that talk to no server do not have it.
    pub fn arg() -> Arg {
        Arg::new(FLAG)
            .long(FLAG)
            .short('s')
            .value_name("URL")
            .help_heading(super::GLOBAL)
            .help(format!("The server, as URL or host:port [env: {VARIABLE}] [default: {DEFAULT}]"))
    }

    /// Reads it: from what stands behind the command, then from what stands before it.
    ///
    /// # Errors
    /// [`Exit::Usage`] if it stands before a command that talks to no server.
    pub fn of(matches: &ArgMatches) -> Result<Self, Problem> {
        // An error where the flag does not exist.
        let given = |matches: &ArgMatches| {
            matches.try_get_one::<String>(FLAG).map(Option::<&String>::cloned)
        };
        let before = given(matches).unwrap_or_default();
        let own = match matches.subcommand() {
            None => None,
            Some((name, own)) => match given(own) {
                Ok(own) => own,
                Err(_) if before.is_none() => None,
                Err(_) => {
                    let wrong =
                        format!("--{FLAG} means nothing to {name}, which talks to no server");
                    return Err(Problem::usage(wrong));
                }
            },
        };
        Ok(Self::from_sources(own.or(before), std::env::var_os(VARIABLE)))
    }

    /// An empty variable counts as one that is not set, as for settings.
    fn from_sources(flag: Option<String>, variable: Option<OsString>) -> Self {
        let variable = variable.filter(|value| !value.is_empty());
        let variable = variable.map(|value| value.to_string_lossy().into_owned());
        Self { server: flag.or(variable).unwrap_or_else(|| DEFAULT.to_owned()) }
    }

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
        self.server.parse().map_err(|bad| Problem::from(ConnectError::Address(bad)))
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
        let args = ServerArgs { server: "ftp://a".into() };
        let problem = args.address().expect_err("no address");
        assert_eq!(problem.exit(), Exit::Usage);
        assert!(problem.message().starts_with("--server \"ftp://a\" has the unknown scheme"));
    }

    #[test]
    fn the_flag_goes_before_the_environment_and_that_before_the_default() {
        let server = |flag: Option<&str>, variable: Option<&str>| {
            ServerArgs::from_sources(flag.map(str::to_owned), variable.map(OsString::from)).server
        };
        assert_eq!(server(Some("a:1"), Some("b:1")), "a:1");
        assert_eq!(server(None, Some("b:1")), "b:1");
        assert_eq!(server(None, Some("")), DEFAULT);
        assert_eq!(server(None, None), DEFAULT);
    }
}
