//! To come.
use super::{Error, Execution, Handler, Output};

/// To come.
#[derive(Clone, Debug, Default)]
pub struct Sleep;

impl Handler for Sleep {
    async fn run(&self, _execution: Execution) -> Result<Output, Error> {
        Ok(Output::empty())
    }
}
