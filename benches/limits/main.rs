//! How close `Submit` and `SubmitStream` come to their limit, measured in the same run.
//!
//! The limit is a bare tonic server that answers the same messages and does
//! nothing else. Both servers run in a process of their own, in turn, round by
//! round, under the same load from this process; what counts is the ratio, as
//! absolute figures are not comparable between machines.
//!
//! `cargo bench --bench limits [-- [--json] [--seconds N] [--rounds N] [--only 4x32]]`
//!
//! `cargo bench --bench limits -- --steady SECONDS` measures for how long a server stays as fast
//! as it begins: tasks are streamed in, run and, 10 s after their end, trimmed.
//!
//! `--starts COUNT` measures from Submit to STARTED on a server that has nothing else to do, and
//! `--plots DIRECTORY` draws throughput against clients, latency against load and memory against
//! what waits.

mod curves;
mod load;
mod plot;
mod servers;

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    path::PathBuf,
    time::Duration,
};

use load::{Measured, Shape};
use servers::{Child, Kind};

/// Connections × tasks in flight on each.
const SHAPES: [Shape; 5] = [
    Shape { connections: 1, in_flight: 1, streamed: false },
    Shape { connections: 1, in_flight: 16, streamed: false },
    Shape { connections: 4, in_flight: 32, streamed: false },
    Shape { connections: 64, in_flight: 4, streamed: false },
    Shape { connections: 2, in_flight: 8_192, streamed: true },
];

struct Options {
    json: bool,
    length: Duration,
    rounds: usize,
    shapes: Vec<Shape>,
    steady: Option<Duration>,
    starts: Option<usize>,
    plots: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        json: false,
        length: Duration::from_secs(2),
        rounds: 3,
        shapes: SHAPES.into(),
        steady: None,
        starts: None,
        plots: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || {
            let text = args.next().ok_or(format!("{arg} takes a number"))?;
            text.parse::<u32>()
                .ok()
                .filter(|n| *n > 0)
                .ok_or(format!("{arg}: not a number: {text}"))
        };
        match arg.as_str() {
            "--json" => options.json = true,
            "--seconds" => options.length = Duration::from_secs(number()?.into()),
            "--rounds" => options.rounds = number()? as usize,
            "--steady" => options.steady = Some(Duration::from_secs(number()?.into())),
            "--starts" => options.starts = Some(number()? as usize),
            "--plots" => {
                let directory = args.next().ok_or("--plots takes a directory")?;
                options.plots = Some(directory.into());
            }
            "--only" => {
                let name = args.next().unwrap_or_default();
                options.shapes.retain(|shape| shape.name() == name);
                if options.shapes.is_empty() {
                    let known = SHAPES.map(Shape::name).join(", ");
                    return Err(format!("--only takes one of {known}"));
                }
            }
            // What `cargo bench` itself passes.
            "--bench" => {}
            _ => {
                return Err(format!(
                    "unknown argument {arg}; known: --json --seconds N --rounds N --only SHAPE \
                     --steady SECONDS --starts COUNT --plots DIRECTORY"
                ));
            }
        }
    }
    Ok(options)
}

/// One shape against one server, all rounds.
struct Row {
    shape: Shape,
    kind: Kind,
    rounds: Vec<Measured>,
    /// Of each round: this server's rate divided by the bare one's.
    ratios: Vec<f64>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(kind) = servers::asked_to_serve() {
        return servers::serve(kind);
    }
    let options = options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let Some(length) = options.steady {
        return steady(&runtime, length);
    }
    if let Some(directory) = &options.plots {
        return curves::draw(&runtime, options.length, directory);
    }
    let sync = servers::time_of_a_sync()?;
    if let Some(count) = options.starts {
        let [p50, p99] = curves::starts(&runtime, count)?;
        println!(
            "Submit to STARTED at a watcher, idle, {count} tasks: p50 {:.2} ms, p99 {:.2} ms; one write and \
             sync of 4 KiB takes {:.2} ms here",
            p50.as_secs_f64() * 1e3,
            p99.as_secs_f64() * 1e3,
            sync.as_secs_f64() * 1e3,
        );
        return Ok(());
    }
    let mut rows = Vec::new();
    for shape in &options.shapes {
        rows.extend(measure(&runtime, *shape, &options)?);
    }
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{:#}", as_json(&rows, sync, &options))?;
    } else {
        out.write_all(as_table(&rows, sync, &options)?.as_bytes())?;
    }
    Ok(())
}

fn measure(
    runtime: &tokio::runtime::Runtime,
    shape: Shape,
    options: &Options,
) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let mut rows: Vec<Row> =
        Kind::ALL.map(|kind| Row { shape, kind, rounds: Vec::new(), ratios: Vec::new() }).into();
    for round in 1..=options.rounds {
        let mut bare = None;
        for row in &mut rows {
            eprint!("\r{shape} round {round}/{}: {:<28}", options.rounds, row.kind.label());
            let child = Child::start(row.kind)?;
            let measured = runtime.block_on(load::run(child.address, shape, options.length))?;
            let limit = *bare.get_or_insert(measured.per_second);
            row.ratios.push(measured.per_second / limit);
            row.rounds.push(measured);
        }
    }
    eprint!("\r{:60}\r", "");
    Ok(rows)
}

/// Rates over the life of a server, in steps of what it keeps.
fn steady(
    runtime: &tokio::runtime::Runtime,
    length: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let shape = Shape { connections: 2, in_flight: 8_192, streamed: true };
    let child = Child::start(Kind::Steady)?;
    let (length, step) = (length.max(2 * servers::KEPT), servers::KEPT);
    let rates = runtime.block_on(load::rates(child.address, shape, length, step))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{shape}, run, and trimmed {step:?} after their end\n")?;
    writeln!(out, "{:>12}{:>12}{:>22}", "after", "tasks/s", "of those at the start")?;
    let first = rates.first().copied().unwrap_or(f64::NAN);
    for (at, rate) in (1..).zip(&rates) {
        writeln!(out, "{:>12}{rate:>12.0}{:>22.2}", format!("{:?}", step * at), rate / first)?;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Row {
    fn rate(&self) -> f64 {
        median(self.rounds.iter().map(|round| round.per_second).collect())
    }

    fn ratio(&self) -> f64 {
        median(self.ratios.clone())
    }

    fn latency(&self, of: impl Fn(&Measured) -> Duration) -> f64 {
        median(self.rounds.iter().map(|round| of(round).as_secs_f64() * 1e3).collect())
    }
}

fn as_table(rows: &[Row], sync: Duration, options: &Options) -> Result<String, fmt::Error> {
    let mut table = format!(
        "{:<24}{:<26}{:>9}{:>15}{:>9}{:>9}\n",
        "connections × in flight", "server", "tasks/s", "ratio to bare", "p50 ms", "p99 ms"
    );
    for row in rows {
        writeln!(
            table,
            "{:<24}{:<26}{:>9.0}{:>15.2}{:>9.2}{:>9.2}",
            row.shape.to_string(),
            row.kind.label(),
            row.rate(),
            row.ratio(),
            row.latency(|round| round.p50),
            row.latency(|round| round.p99),
        )?;
    }
    Ok(format!(
        "Medians of {} rounds of {:?}; payload {} bytes; one write and sync of 4 KiB takes {:.2} ms here.\n\n{table}",
        options.rounds,
        options.length,
        load::PAYLOAD_BYTES,
        sync.as_secs_f64() * 1e3,
    ))
}

fn as_json(rows: &[Row], sync: Duration, options: &Options) -> serde_json::Value {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "connections": row.shape.connections,
                "in_flight": row.shape.in_flight,
                "server": row.kind.name(),
                "streamed": row.shape.streamed,
                "tasks_per_second": row.rate(),
                "ratio_to_bare": row.ratio(),
                "ratios": row.ratios,
                "p50_ms": row.latency(|round| round.p50),
                "p99_ms": row.latency(|round| round.p99),
            })
        })
        .collect();
    serde_json::json!({
        "rounds": options.rounds,
        "seconds": options.length.as_secs(),
        "payload_bytes": load::PAYLOAD_BYTES,
        "sync_ms": sync.as_secs_f64() * 1e3,
        "rows": rows,
    })
}
