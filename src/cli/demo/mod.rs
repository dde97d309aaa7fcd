//! to come
use super::{exit::Exit, problem::Problem};
use crate::handler::Registry;
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    dir: Option<String>,
    #[arg(long)]
    workers: Option<std::num::NonZeroU32>,
    #[arg(long)]
    max_files: Option<usize>,
}
pub fn run(_a: DemoArgs, _own: Registry) -> Result<Exit, Problem> {
    Ok(Exit::Ok)
}
