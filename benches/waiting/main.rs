//! A store with very many tasks waiting: what they cost, and whether anybody
//! notices.
//!
//! Drives the store itself, without a network, so that its own cost is seen. A
//! worker runs tasks all the while; the longest it ever waits for its next one
//! tells whether listing, cancelling or trimming holds the store up.
//!
//! `cargo bench --bench waiting [-- [--tasks N] [--json]]`

mod harness;

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, Instant},
};

use harness::{Harness, Runner};

struct Options {
    tasks: usize,
    json: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options { tasks: 1_000_000, json: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => options.json = true,
            "--tasks" => {
                let text = args.next().ok_or("--tasks takes a number")?;
                options.tasks = text
                    .parse()
                    .ok()
                    .filter(|n| *n >= 1_000)
                    .ok_or(format!("--tasks: not a number of 1,000 or more: {text}"))?;
            }
            // What `cargo bench` itself passes.
            "--bench" => {}
            _ => return Err(format!("unknown argument {arg}; known: --tasks N --json")),
        }
    }
    Ok(options)
}

/// One thing that was measured.
struct Row {
    what: &'static str,
    value: f64,
    unit: &'static str,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rows = runtime.block_on(measure(options.tasks))?;
    let mut out = std::io::stdout().lock();
    if options.json {
        let rows: serde_json::Map<_, _> = rows
            .iter()
            .map(|row| (format!("{} ({})", row.what, row.unit), row.value.into()))
            .collect();
        writeln!(out, "{:#}", serde_json::json!({ "tasks": options.tasks, "measured": rows }))?;
    } else {
        let mut table =
            format!("{} tasks of {} bytes waiting\n\n", options.tasks, harness::PAYLOAD_BYTES);
        for Row { what, value, unit } in rows {
            writeln!(table, "{what:<58}{value:>12.1} {unit}")?;
        }
        out.write_all(table.as_bytes())?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts and bytes, to be shown")]
async fn measure(tasks: usize) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let mut rows = Vec::new();
    let mut row = |what, value, unit| rows.push(Row { what, value, unit });
    let per_second = |count: usize, took: Duration| count as f64 / took.as_secs_f64();
    let millis = |span: Duration| span.as_secs_f64() * 1e3;

    let mut harness = Harness::open().await?;
    let sample = (tasks / 20).clamp(1_000, 20_000);
    let began = Instant::now();
    harness.submit("warm", sample).await?;
    harness.run("warm", sample, 64).await?;
    let empty = per_second(sample, began.elapsed());
    row("submitted and run, queue otherwise empty", empty, "tasks/s");

    let memory = harness::resident_bytes()?;
    let began = Instant::now();
    harness.submit("waiting", tasks).await?;
    row("submitted, each synced in its group", per_second(tasks, began.elapsed()), "tasks/s");
    let grown = harness::resident_bytes()?.saturating_sub(memory);
    row("memory", grown as f64 / tasks as f64, "bytes/task");

    harness.pause("waiting").await?;
    let began = Instant::now();
    harness.submit("warm", sample).await?;
    harness.run("warm", sample, 64).await?;
    let full = per_second(sample, began.elapsed());
    row("submitted and run beside them", full, "tasks/s");
    row("the same, as a ratio to the empty queue", full / empty, "");

    let runner = Runner::start(&harness);
    tokio::time::sleep(Duration::from_secs(1)).await;
    row("longest rest of a worker, undisturbed", millis(runner.longest_rest()), "ms");
    let began = Instant::now();
    let listed = harness.list_all().await?;
    assert!(listed >= tasks, "{listed} were listed");
    row("listed, page by page", per_second(listed, began.elapsed()), "tasks/s");
    row("longest rest of a worker meanwhile", millis(runner.longest_rest()), "ms");
    let began = Instant::now();
    harness.overview().await?;
    row("counts of all queues", millis(began.elapsed()), "ms");
    let half = tasks / 2;
    let began = Instant::now();
    harness.cancel(half).await?;
    row("cancelled, a thousand at a time", per_second(half, began.elapsed()), "tasks/s");
    row("longest rest of a worker meanwhile", millis(runner.longest_rest()), "ms");
    runner.stop().await?;

    let began = Instant::now();
    harness = harness.reopen().await?;
    row("restart", millis(began.elapsed()), "ms");
    harness.resume("waiting").await?;
    let left = tasks - half;
    let began = Instant::now();
    harness.run("waiting", left, 64).await?;
    row("run to the last one, 64 workers", per_second(left, began.elapsed()), "tasks/s");
    harness.close().await;
    Ok(rows)
}
