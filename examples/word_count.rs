//! A kind of task of your own: counts the lines, words and bytes of a text file.
//!
//! The program is a whole Taskyard: the same command line and configuration,
//! with one kind more. Serve, and submit to it from another terminal:
//!
//! ```sh
//! cargo run --release --example word_count -- serve
//! cargo run --release --example word_count -- \
//!     submit word_count --args '{"file":"Cargo.toml"}' --wait
//! ```

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use taskyard::{
    App,
    handler::{Error, Execution, Output},
};

#[derive(Deserialize)]
struct Args {
    file: String,
}

#[derive(Serialize)]
struct Counts {
    lines: usize,
    words: usize,
    bytes: usize,
}

async fn word_count(execution: Execution) -> Result<Output, Error> {
    let Args { file } = execution.args()?;
    // An I/O error is retryable; the task says how often it is tried.
    let text = tokio::fs::read_to_string(&file).await?;
    let words = text.split_whitespace().count();
    Output::json(&Counts { lines: text.lines().count(), words, bytes: text.len() })
}

fn main() -> ExitCode {
    App::new()
        .name("word_count")
        .version(env!("CARGO_PKG_VERSION"))
        .handler("word_count", word_count)
        .run()
}
