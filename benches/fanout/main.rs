//! What it takes to tell very many watchers of every event.
//!
//! Beside Taskyard, in the same run, stands what one would write first: tonic, a
//! broadcast, and each watcher encodes its messages for itself. Both servers run in a
//! process of their own, in turn, round by round, under the same load from this
//! process; what counts are the ratios, as absolute figures are not comparable between
//! machines.
//!
//! `cargo bench --bench fanout [-- [--json] [--seconds N] [--rounds N] [--batch 100]
//! [--only 1000]]`

mod count;
mod crowd;
mod http2;
mod inside;
mod load;
mod naive;
mod process;
mod report;
mod servers;

use std::time::Duration;

use crowd::{Crowd, Filtered, PER_CONNECTION, Stalled};
use http2::Error;
use inside::Cost;
use load::Measured;
use servers::{Child, Kind};

/// Watchers of each row.
const CROWDS: [usize; 4] = [1, 100, 1_000, 10_000];
/// Watchers that have nothing to read.
const IDLE: usize = 10_000;
/// Watchers that read.
const READING: usize = 100;
/// Watchers beside them, of either kind of [`Others`].
const OTHERS: usize = 100;
/// How long memory is given to settle.
const SETTLE: Duration = Duration::from_secs(1);

struct Options {
    json: bool,
    length: Duration,
    rounds: usize,
    /// Events of one commit.
    batch: usize,
    /// Only the deliveries to so many watchers.
    only: Option<usize>,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        json: false,
        length: Duration::from_secs(2),
        rounds: 3,
        batch: load::BATCH,
        only: None,
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
            "--batch" => options.batch = number()? as usize,
            "--only" => options.only = Some(number()? as usize),
            // What `cargo bench` itself passes.
            "--bench" => {}
            _ => {
                return Err(format!(
                    "unknown argument {arg}; known: --json --seconds N --rounds N --batch EVENTS \
                     --only WATCHERS"
                ));
            }
        }
    }
    if options.only.is_some_and(|only| !CROWDS.contains(&only)) {
        return Err(format!("--only takes one of {CROWDS:?}"));
    }
    if options.batch > load::MAX_BATCH {
        return Err(format!("--batch takes at most {}", load::MAX_BATCH));
    }
    Ok(options)
}

/// All that was measured. The outer vectors have an entry for each round.
#[derive(Default)]
struct Results {
    deliveries: Vec<Deliveries>,
    inside: Vec<[Cost; 2]>,
    copy: Duration,
    /// Bytes of memory for each idle watcher.
    idle: Vec<(Kind, f64)>,
    /// Beside others, as in [`Others::ALL`].
    beside: Vec<[Measured; 3]>,
}

/// Who is there beside the watchers that read.
#[derive(Clone, Copy)]
enum Others {
    Nobody,
    /// They never read.
    Stalled,
    /// Their filter lets nothing through.
    Filtered,
}

impl Others {
    const ALL: [Self; 3] = [Self::Nobody, Self::Stalled, Self::Filtered];

    fn label(self) -> &'static str {
        match self {
            Self::Nobody => "alone",
            Self::Stalled => "that never read",
            Self::Filtered => "whose filter lets nothing through",
        }
    }
}

/// To so many watchers; each round has both servers, as in [`Kind::ALL`].
struct Deliveries {
    watchers: usize,
    rounds: Vec<[Measured; 2]>,
}

fn main() -> Result<(), Error> {
    if let Some(kind) = servers::asked_to_serve() {
        return servers::serve(kind);
    }
    let options = options()?;
    let results = measure(&options);
    eprint!("\r{:70}\r", "");
    let results = results?;
    if options.json {
        println!("{:#}", report::as_json(&results, &options));
    } else {
        print!("{}", report::as_text(&results, &options)?);
    }
    Ok(())
}

fn measure(options: &Options) -> Result<Results, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut results = Results::default();
    for watchers in CROWDS {
        if options.only.is_none_or(|only| only == watchers) {
            let mut rounds = Vec::new();
            for round in 1..=options.rounds {
                let mut both = Vec::new();
                for kind in Kind::ALL {
                    say(&format!("{watchers} watchers, round {round}: {}", kind.label()));
                    both.push(runtime.block_on(deliver(kind, watchers, options))?);
                }
                rounds.extend(<[Measured; 2]>::try_from(both));
            }
            results.deliveries.push(Deliveries { watchers, rounds });
        }
    }
    if options.only.is_some() {
        return Ok(results);
    }
    for round in 1..=options.rounds {
        let mut both = Vec::new();
        for kind in Kind::ALL {
            say(&format!("without sockets, round {round}: {}", kind.label()));
            both.push(runtime.block_on(inside::cost(kind, options.batch, options.length))?);
        }
        results.inside.extend(<[Cost; 2]>::try_from(both));
    }
    results.copy = inside::time_of_a_copy(options.batch, Duration::from_millis(200));
    for kind in Kind::ALL {
        say(&format!("{IDLE} idle watchers: {}", kind.label()));
        if let Some(bytes) = runtime.block_on(memory_of_the_idle(kind))? {
            results.idle.push((kind, bytes));
        }
    }
    for round in 1..=options.rounds {
        let mut all = Vec::new();
        for others in Others::ALL {
            say(&format!("{READING} watchers beside others, round {round}: {}", others.label()));
            all.push(runtime.block_on(beside(others, options))?);
        }
        results.beside.extend(<[Measured; 3]>::try_from(all));
    }
    Ok(results)
}

fn say(what: &str) {
    eprint!("\r{what:<70}");
}

async fn deliver(kind: Kind, watchers: usize, options: &Options) -> Result<Measured, Error> {
    let server = Child::start(kind)?;
    let mut crowd = Crowd::open(server.address, watchers).await?;
    load::run(server.address, server.id(), &mut crowd, options.batch, options.length).await
}

/// `None` where it is not told what memory a process has.
async fn memory_of_the_idle(kind: Kind) -> Result<Option<f64>, Error> {
    let server = Child::start(kind)?;
    // The first ones pay for what all of them need.
    let _first = Crowd::open(server.address, 1).await?;
    tokio::time::sleep(SETTLE).await;
    let Some(before) = process::memory_of(server.id()) else { return Ok(None) };
    let _crowd = Crowd::open(server.address, IDLE).await?;
    tokio::time::sleep(SETTLE).await;
    let Some(after) = process::memory_of(server.id()) else { return Ok(None) };
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
    Ok(Some(after.saturating_sub(before) as f64 / IDLE as f64))
}

async fn beside(others: Others, options: &Options) -> Result<Measured, Error> {
    let (stalled, filtered) = match others {
        Others::Nobody => (0, 0),
        Others::Stalled => (OTHERS, 0),
        Others::Filtered => (0, OTHERS),
    };
    let server = Child::start(Kind::Taskyard)?;
    let _stalled = Stalled::open(server.address, stalled).await?;
    let mut filtered = Filtered::open(server.address, filtered).await?;
    let mut crowd = Crowd::open(server.address, READING).await?;
    let measured =
        load::run(server.address, server.id(), &mut crowd, options.batch, options.length).await?;
    filtered.check()?;
    Ok(measured)
}
