//! To come.
use super::{Error, Execution, Handler, Output};

/// To come.
#[derive(Clone, Debug, Default)]
pub struct Exec;

impl Handler for Exec {
    async fn run(&self, _execution: Execution) -> Result<Output, Error> {
        Ok(Output::empty())
    }
}
