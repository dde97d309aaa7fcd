//! `noop`: succeeds at once. For measuring, and for trying things out.

use super::{Error, Execution, Handler, Output};

/// Does nothing, whatever the payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Noop;

impl Handler for Noop {
    fn check_may_block(&self) -> bool {
        false
    }

    async fn run(&self, _execution: Execution) -> Result<Output, Error> {
        crate::failpoint::hit("noop");
        Ok(Output::empty())
    }
}
