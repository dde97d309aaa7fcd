//! What the table does not show: how throughput goes with the number of clients, latency with
//! the load, and memory with what waits. Each is a picture.

use std::{
    error::Error,
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use taskyard::proto::v1::{
    Event, EventType, WatchEventsRequest, task_service_client::TaskServiceClient,
};
use tokio::{
    runtime::Runtime,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tonic::transport::Channel;

use crate::{
    load::{self, Shape},
    plot::{Axis, Chart, svg},
    servers::{Child, Kind},
};

/// Clients, each with one connection and one call at a time.
const CLIENTS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// Shares of the rate that 128 clients reach, as an open load.
const SHARES: [f64; 8] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];

/// Connections over which an open load is spread.
const CONNECTIONS: usize = 8;

/// Calls of an open load that may be in flight; with more, the server cannot keep up, and the
/// latencies are those of the line.
const MOST_IN_FLIGHT: usize = 20_000;

/// How often an open load sends what is due.
const TICK: Duration = Duration::from_millis(1);

/// Tasks that wait at the end.
const BACKLOG: u64 = 1_000_000;

/// Draws all three into the directory.
pub fn draw(runtime: &Runtime, length: Duration, directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory)?;
    let (clients, most) = clients(runtime, length)?;
    fs::write(directory.join("throughput.svg"), svg(&clients))?;
    fs::write(directory.join("latency.svg"), svg(&latency(runtime, length, most)?))?;
    fs::write(directory.join("memory.svg"), svg(&memory(runtime)?))?;
    Ok(())
}

/// Calls a second, of the bare server too; and how many the most clients make of Taskyard.
fn clients(runtime: &Runtime, length: Duration) -> Result<(Chart, f64), Box<dyn Error>> {
    let mut lines = Vec::new();
    let mut most = 0.0;
    for kind in [Kind::Bare, Kind::Keep] {
        let mut points = Vec::new();
        for connections in CLIENTS {
            eprint!("\r{:<28} {connections:>4} clients", kind.label());
            let child = Child::start(kind)?;
            let shape = Shape { connections, in_flight: 1, streamed: false };
            let measured = runtime.block_on(load::run(child.address, shape, length))?;
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            points.push((connections as f64, measured.per_second));
            most = measured.per_second;
        }
        lines.push((kind.label(), points));
    }
    let chart = Chart {
        title: "Submit, one call at a time for each client",
        x: Axis { label: "clients", logarithmic: true },
        y: Axis { label: "calls a second", logarithmic: false },
        lines,
    };
    Ok((chart, most))
}

/// Latencies of calls that come at their own times, not when the one before was answered:
/// each counts from when it was due.
fn latency(runtime: &Runtime, length: Duration, most: f64) -> Result<Chart, Box<dyn Error>> {
    let mut lines = [("p50", Vec::new()), ("p99", Vec::new()), ("p99.9", Vec::new())];
    for share in SHARES {
        let rate = most * share;
        eprint!("\r{:<28} {rate:>8.0} a second", "open load");
        let child = Child::start(Kind::Keep)?;
        let mut taken = runtime.block_on(open_load(child.address, rate, length))?;
        taken.sort_unstable();
        for ((_, points), part) in lines.iter_mut().zip([0.5, 0.99, 0.999]) {
            points.push((rate, load::part(&taken, part).as_secs_f64() * 1e3));
        }
    }
    Ok(Chart {
        title: "Submit, fsynced: latency against an open load",
        x: Axis { label: "calls a second", logarithmic: false },
        y: Axis { label: "milliseconds", logarithmic: true },
        lines: lines.into(),
    })
}

async fn open_load(
    address: SocketAddr,
    rate: f64,
    length: Duration,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(connect(address).await?);
    }
    let (mut calls, mut latencies) = (JoinSet::new(), Vec::new());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (began, mut sent) = (Instant::now(), 0_u32);
    while began.elapsed() < length {
        ticks.tick().await;
        let due = began.elapsed().as_secs_f64() * rate;
        while f64::from(sent) < due && calls.len() < MOST_IN_FLIGHT {
            let since = began + Duration::from_secs_f64(f64::from(sent) / rate);
            let mut client = clients[sent as usize % CONNECTIONS].clone();
            calls.spawn(async move { client.submit(load::task()).await.map(|_| since.elapsed()) });
            sent += 1;
        }
        while let Some(call) = calls.try_join_next() {
            latencies.push(call??);
        }
    }
    while let Some(call) = calls.join_next().await {
        latencies.push(call??);
    }
    // The calls that were due and not sent would have had the longest latencies.
    if f64::from(sent) < 0.99 * rate * length.as_secs_f64() {
        return Err(format!("of {rate:.0} calls a second, not all could be sent").into());
    }
    Ok(latencies)
}

/// Resident memory of the server while tasks are streamed in and none is run.
fn memory(runtime: &Runtime) -> Result<Chart, Box<dyn Error>> {
    let child = Child::start(Kind::Keep)?;
    let shape = Shape { connections: 2, in_flight: 8_192, streamed: true };
    let mut points = Vec::new();
    let load = load::Load::default();
    runtime.block_on(async {
        let mut callers = load.begin(child.address, shape).await?;
        loop {
            let taken = load.taken();
            eprint!("\r{:<28} {taken:>8} wait    ", "memory");
            #[expect(clippy::cast_precision_loss, reason = "at most some millions")]
            points.push((taken as f64, child.resident()? / f64::from(1 << 20)));
            if taken >= BACKLOG {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        load.end();
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    eprint!("\r{:60}\r", "");
    Ok(Chart {
        title: "Resident memory of a server against what waits",
        x: Axis { label: "tasks that wait, 200 bytes each", logarithmic: false },
        y: Axis { label: "MiB", logarithmic: false },
        lines: vec![("resident", points)],
    })
}

/// From the call of Submit until a watcher has the STARTED event, on a server that has nothing
/// else to do: p50 and p99 of `count` tasks, one after the other.
pub fn starts(runtime: &Runtime, count: usize) -> Result<[Duration; 2], Box<dyn Error>> {
    let child = Child::start(Kind::Run)?;
    runtime.block_on(async {
        let mut client = connect(child.address).await?;
        let mut events = client.clone().watch_events(WatchEventsRequest::default()).await?;
        let mut taken = Vec::new();
        for _ in 0..count {
            let sent = Instant::now();
            let task = client.submit(load::task()).await?.into_inner().task_id;
            let is_start =
                |event: &Event| event.r#type() == EventType::Started && event.task_id == task;
            loop {
                let response = events.get_mut().message().await?.ok_or("the watch ended")?;
                if response.events.iter().any(is_start) {
                    break;
                }
            }
            taken.push(sent.elapsed());
            // Idle, as the next one finds it.
            sleep(Duration::from_millis(5)).await;
        }
        taken.sort_unstable();
        Ok([0.5, 0.99].map(|part| load::part(&taken, part)))
    })
}

async fn connect(address: SocketAddr) -> Result<TaskServiceClient<Channel>, Box<dyn Error>> {
    let channel = Channel::from_shared(format!("http://{address}"))?;
    Ok(TaskServiceClient::new(channel.tcp_nodelay(true).connect().await?))
}
