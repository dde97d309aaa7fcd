//! `kinds`: what the server executes.

use taskyard_client::{CallRetryPolicy, Tasks};
use taskyard_proto::v1::ListKindsRequest;

use super::{
    client::ServerArgs,
    exit::Exit,
    output::{Format, Out, OutputArgs, printable},
    problem::Problem,
};

/// Arguments of `kinds`.
#[derive(Debug, clap::Args)]
pub struct KindsArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Lists the kinds, a line each.
pub async fn run(server: &ServerArgs, args: KindsArgs) -> Result<Exit, Problem> {
    let client = server.connect().await?.tasks();
    let ask = async |mut client: Tasks, request| client.list_kinds(request).await;
    let response = CallRetryPolicy::BRIEF.ask(&client, &ListKindsRequest {}, ask).await?;
    let mut out = Out::stdout();
    for kind in response.kinds {
        out.line(match args.output.output {
            Format::Text => printable(&kind.kind),
            Format::Json => serde_json::json!({ "kind": kind.kind }).to_string(),
        })?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}
