//! A kind of task that checks its arguments before it is accepted, and that
//! stops when it is cancelled: waits until an address accepts connections.
//!
//! ```sh
//! cargo run --release --example wait_for_port -- serve
//! cargo run --release --example wait_for_port -- \
//!     submit wait_for_port --args '{"address":"127.0.0.1:50051"}' --wait
//! ```
//!
//! An address without a port is refused with `INVALID_ARGUMENT` and the name of
//! the field, and no task is made. A `--timeout` bounds each attempt, and
//! `cancel ID` ends the wait at once.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use serde::Deserialize;
use taskyard::{
    App,
    handler::{Error, Execution, Handler, Output, Violation, parse_args},
    task::Data,
};
use tokio::net::TcpStream;

/// How long to rest after a refused connection.
const REST: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Args {
    address: SocketAddr,
}

struct WaitForPort;

impl Handler for WaitForPort {
    fn check(&self, payload: &Data) -> Result<(), Vec<Violation>> {
        match parse_args::<Args>(payload) {
            Ok(_) => Ok(()),
            Err(wrong) => Err(vec![Violation::new(
                "args.address",
                format!("{wrong}; write an address and a port such as 127.0.0.1:5432"),
            )]),
        }
    }

    async fn run(&self, execution: Execution) -> Result<Output, Error> {
        let Args { address } = execution.args()?;
        let mut tries = 1;
        while TcpStream::connect(address).await.is_err() {
            tries += 1;
            tokio::select! {
                () = execution.cancelled() => {
                    return Err(Error::retryable("STOPPED", format!("gave up after {tries} tries")));
                }
                () = tokio::time::sleep(REST) => {}
            }
        }
        Output::json(&tries)
    }
}

fn main() -> ExitCode {
    App::new().handler("wait_for_port", WaitForPort).run()
}
