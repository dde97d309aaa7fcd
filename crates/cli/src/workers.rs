//! `workers`, `resize`: who works on what, and how many there are.

use taskyard_client::{Admin, CallRetryPolicy};
use taskyard_proto::v1::{GetPoolRequest, Pool, ResizePoolRequest};

use super::{
    client::ServerArgs,
    exit::Exit,
    json,
    output::{Format, Out, OutputArgs, WideArgs, note, print},
    problem::Problem,
    render,
    units::whole,
};

/// Arguments of `workers`.
#[derive(Debug, clap::Args)]
pub struct WorkersArgs {
    #[command(flatten)]
    wide: WideArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Shows the pool, a line for each worker.
pub async fn run(server: &ServerArgs, args: WorkersArgs) -> Result<Exit, Problem> {
    let admin = server.connect().await?.admin();
    let ask = async |mut admin: Admin, request| admin.get_pool(request).await;
    let response = CallRetryPolicy::BRIEF.ask(&admin, &GetPoolRequest {}, ask).await?;
    let pool = response.pool.unwrap_or_default();
    match args.output.output {
        Format::Text => {
            print(render::workers::table(&pool, args.wide.room()))?;
            if pool.workers.iter().any(|worker| worker.leaving) {
                note(render::workers::size_words(&pool));
            }
        }
        Format::Json => lines(&pool)?,
    }
    Ok(Exit::Ok)
}

fn lines(pool: &Pool) -> Result<(), Problem> {
    let mut out = Out::stdout();
    for worker in &pool.workers {
        out.line(json::admin::worker(worker).to_string())?;
    }
    out.flush()
}

/// Arguments of `resize`.
#[derive(Debug, clap::Args)]
pub struct ResizeArgs {
    /// Workers from now on; 1 to 10000
    #[arg(value_name = "N", value_parser = whole(1..=10_000_u32))]
    size: u32,
    #[command(flatten)]
    output: OutputArgs,
}

/// Gives the pool another size.
pub async fn resize(server: &ServerArgs, args: ResizeArgs) -> Result<Exit, Problem> {
    let admin = server.connect().await?.admin();
    let request = ResizePoolRequest { size: args.size };
    let ask = async |mut admin: Admin, request| admin.resize_pool(request).await;
    let response = CallRetryPolicy::BRIEF.ask(&admin, &request, ask).await?;
    let pool = response.pool.unwrap_or_default();
    print(match args.output.output {
        Format::Text => render::workers::size_words(&pool),
        Format::Json => json::admin::pool(&pool).to_string(),
    })?;
    Ok(Exit::Ok)
}
