//! What was measured, in words and for programs.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use crate::{
    Cost, Deliveries, IDLE, OTHERS, Options, Others, PER_CONNECTION, READING, Results,
    load::Measured, servers::Kind,
};

/// What is to be reached, on two shared cores with the load on the same machine.
const TARGET_PER_SECOND: f64 = 10e6;
const TARGET_WATCHERS: usize = 1_000;
const TARGET_IDLE_BYTES: f64 = 20.0 * 1024.0;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Of all rounds: the median of something of each.
fn of<T>(rounds: &[T], value: impl Fn(&T) -> f64) -> f64 {
    median(rounds.iter().map(value).collect())
}

/// Of one column of each round; NaN where it is not known.
fn column<const N: usize>(
    rounds: &[[Measured; N]],
    at: usize,
    value: impl Fn(&Measured) -> f64,
) -> f64 {
    of(rounds, |round| value(&round[at]))
}

/// Of a column to the first one of the same round.
fn ratio<const N: usize>(rounds: &[[Measured; N]], at: usize) -> f64 {
    of(rounds, |round| round[at].per_second / round[0].per_second)
}

pub fn as_text(results: &Results, options: &Options) -> Result<String, fmt::Error> {
    let mut out = format!(
        "Medians of {} rounds of {:?}. Tasks are submitted {} at a time, each with one event;\n\
         a delivery is one event that arrives at one watcher; at most {PER_CONNECTION} watchers share a\n\
         connection. Every watcher got every event, once and in order.\n\n",
        options.rounds, options.length, options.batch,
    );
    put_deliveries(&mut out, &results.deliveries)?;
    if !results.inside.is_empty() {
        put_inside(&mut out, results, options.batch)?;
    }
    for (kind, bytes) in &results.idle {
        let kind = kind.label();
        writeln!(out, "An idle watcher, one of {IDLE}, takes {:.1} KiB: {kind}.", bytes / 1024.0)?;
    }
    if !results.idle.is_empty() {
        writeln!(out, "To reach: {:.0} KiB.", TARGET_IDLE_BYTES / 1024.0)?;
    }
    if !results.beside.is_empty() {
        writeln!(out, "\n{READING} watchers get so many deliveries/s, of so many tasks/s:\n")?;
        for (at, others) in Others::ALL.iter().enumerate() {
            let beside = match others {
                Others::Nobody => others.label().to_owned(),
                _ => format!("beside {OTHERS} {}", others.label()),
            };
            writeln!(
                out,
                "{beside:<46}{:>8.2} M of {:>7.0}{:>8.2}",
                column(&results.beside, at, |one| one.per_second) / 1e6,
                column(&results.beside, at, |one| one.tasks_per_second),
                ratio(&results.beside, at),
            )?;
        }
    }
    Ok(out)
}

fn put_deliveries(out: &mut String, deliveries: &[Deliveries]) -> fmt::Result {
    writeln!(
        out,
        "{:>8}  {:<12}{:>14}{:>10}{:>11}{:>13}{:>12}{:>11}{:>11}",
        "watchers",
        "server",
        "deliveries/s",
        "ratio",
        "events/s",
        "events/msg",
        "bytes/event",
        "server ns",
        "client ns",
    )?;
    for Deliveries { watchers, rounds } in deliveries {
        for (at, kind) in Kind::ALL.iter().enumerate() {
            writeln!(
                out,
                "{watchers:>8}  {:<12}{:>12.2} M{:>10.2}{:>11.0}{:>13.0}{:>12.0}{:>11.0}{:>11.0}",
                kind.label(),
                column(rounds, at, |one| one.per_second) / 1e6,
                ratio(rounds, at),
                column(rounds, at, |one| one.tasks_per_second),
                column(rounds, at, |one| one.events_per_message),
                column(rounds, at, |one| one.bytes_per_event),
                column(rounds, at, |one| one.server_ns.unwrap_or(f64::NAN)),
                column(rounds, at, |one| one.client_ns.unwrap_or(f64::NAN)),
            )?;
        }
    }
    writeln!(
        out,
        "server ns, client ns: processor time for each delivery. With few watchers the limit is\n\
         not the fan-out but how fast tasks are stored, which the naive server does not do.\n\
         To reach: {:.0} M/s at {TARGET_WATCHERS} watchers, on two shared cores with the load beside it.\n",
        TARGET_PER_SECOND / 1e6,
    )
}

fn put_inside(out: &mut String, results: &Results, batch: usize) -> fmt::Result {
    writeln!(out, "Without sockets, on one thread, a batch of {batch} events costs:\n")?;
    writeln!(
        out,
        "{:<12}{:>20}{:>24}{:>16}",
        "server", "a single watcher", "each additional one", "deliveries/s"
    )?;
    for (at, kind) in Kind::ALL.iter().enumerate() {
        let [alone, additional, per_second] = inside_of(results, at, batch);
        writeln!(
            out,
            "{:<12}{alone:>17.0} ns{additional:>21.0} ns{:>14.1} M",
            kind.label(),
            per_second / 1e6,
        )?;
    }
    let copy = results.copy.as_nanos();
    writeln!(out, "A copy of its bytes, and nothing else, takes {copy} ns.\n")
}

/// What a batch costs one watcher alone, and each beyond it, in nanoseconds; and
/// deliveries per second.
fn inside_of(results: &Results, at: usize, batch: usize) -> [f64; 3] {
    let of = |value: &dyn Fn(&Cost) -> f64| of(&results.inside, |round| value(&round[at]));
    [
        of(&|cost| cost.alone.as_secs_f64() * 1e9),
        of(&|cost| cost.additional.as_secs_f64() * 1e9),
        of(&|cost| cost.per_second(batch)),
    ]
}

/// A figure that may not be known.
fn known(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}

fn row<const N: usize>(rounds: &[[Measured; N]], at: usize) -> Value {
    json!({
        "deliveries_per_second": column(rounds, at, |one| one.per_second),
        "ratio": ratio(rounds, at),
        "events_per_second": column(rounds, at, |one| one.tasks_per_second),
        "events_per_message": column(rounds, at, |one| one.events_per_message),
        "bytes_per_event": column(rounds, at, |one| one.bytes_per_event),
        "server_ns": known(column(rounds, at, |one| one.server_ns.unwrap_or(f64::NAN))),
        "client_ns": known(column(rounds, at, |one| one.client_ns.unwrap_or(f64::NAN))),
    })
}

pub fn as_json(results: &Results, options: &Options) -> Value {
    let deliveries = results.deliveries.iter().flat_map(|Deliveries { watchers, rounds }| {
        Kind::ALL.iter().enumerate().map(move |(at, kind)| {
            let mut row = row(rounds, at);
            row["watchers"] = json!(watchers);
            row["server"] = json!(kind.name());
            row
        })
    });
    let inside = Kind::ALL.iter().enumerate().filter(|_| !results.inside.is_empty());
    let inside = inside.map(|(at, kind)| {
        let [alone, additional, per_second] = inside_of(results, at, options.batch);
        json!({
            "server": kind.name(),
            "single_ns": alone,
            "additional_ns": additional,
            "deliveries_per_second": per_second,
        })
    });
    let idle = results.idle.iter().map(|(kind, bytes)| {
        json!({ "server": kind.name(), "watchers": IDLE, "bytes_per_watcher": bytes })
    });
    let beside = Others::ALL.iter().enumerate().filter(|_| !results.beside.is_empty());
    let beside = beside.map(|(at, others)| {
        let mut row = row(&results.beside, at);
        row["watchers"] = json!(READING);
        row["beside"] = json!(others.label());
        row
    });
    json!({
        "rounds": options.rounds,
        "seconds": options.length.as_secs(),
        "events_per_commit": options.batch,
        "watchers_per_connection": PER_CONNECTION,
        "deliveries": deliveries.collect::<Vec<_>>(),
        "inside": inside.collect::<Vec<_>>(),
        "copy_ns": results.copy.as_nanos(),
        "idle": idle.collect::<Vec<_>>(),
        "beside": beside.collect::<Vec<_>>(),
    })
}
