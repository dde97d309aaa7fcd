//! What watchers saw, against what is known to have happened, over random load, random
//! disconnects, stalls, restarts and kill -9.
//!
//! Clients cause transitions and note each one that was acknowledged to them. An auditor
//! reads all events without a break; its log is checked against those notes and against
//! the state machine. Then each of a crowd of watchers, who saw some of the events
//! through a bad network, is checked against the log: exactly the events that it should
//! have seen, once, in order, or a gap that was told and is true.
//!
//! An episode takes about half a minute, with a store of its own. `WATCH_CHECK_EPISODES`
//! sets how many there are: 120 make an hour. `WATCH_CHECK_SEED` repeats what is random in
//! this process; the machine adds its own.

mod audit;
mod ledger;
mod load;
mod log;
mod network;
mod records;
mod watchers;

use std::{path::Path, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rustix::process::Signal;
use tokio::{sync::watch, time::Instant};

use audit::{Auditor, Count};
use load::Load;
use log::Log;
use network::Network;

use crate::support::process::Serve;

/// How long there is load and chaos.
const EPISODE: Duration = Duration::from_secs(20);

/// Events that the store keeps: few, so that who stalls misses some.
const MAX_EVENTS: u64 = 3_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_saw_what_it_should() {
    let first = number("WATCH_CHECK_SEED").unwrap_or_else(rand::random);
    for episode in 0..number("WATCH_CHECK_EPISODES").unwrap_or(1) {
        let seed = first.wrapping_add(episode);
        println!("WATCH_CHECK_SEED={seed}");
        self::episode(seed).await;
    }
}

/// Places in line for tasks and watchers are plenty; history is short, watchers that do
/// not read are ended soon, and every watch ends after a while.
fn serve(address: &str, data: &Path, random: &mut StdRng) -> Serve {
    let lifetime = format!("{}s", random.random_range(3..12));
    let more = [
        ("--workers", "4"),
        ("--max-crashes", "1000"),
        ("--max-events", &MAX_EVENTS.to_string()),
        ("--watch-stall-timeout", "1s"),
        ("--watch-lifetime", &lifetime),
        ("--drain-timeout", "3s"),
    ];
    let more: Vec<_> = more.into_iter().flat_map(|(name, value)| [name, value]).collect();
    Serve::at(address, data, &more)
}

async fn episode(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut server = serve("127.0.0.1:0", &data, &mut random);
    let address: std::net::SocketAddr = server.address.parse().expect("an address");

    let network = Network::before(address).await;
    // The number of the last event, once that is known.
    let (finish, finished) = watch::channel(None);
    let count = Count::default();
    let auditor = Auditor::begin(address, count.clone(), finished.clone());
    let load = Load::begin(address, seed);
    let crowd = watchers::begin(network.address, &finished, &count, seed);

    let end = Instant::now() + EPISODE;
    let (mut kills, mut restarts) = (0, 0);
    while Instant::now() < end {
        // The moment is what is random; nothing waits for it.
        tokio::time::sleep(Duration::from_millis(random.random_range(300..2500))).await;
        // It begins with a kill.
        match if kills == 0 { 9 } else { random.random_range(0..10) } {
            0..4 => network.cut(),
            4..6 => {
                network.freeze(true);
                tokio::time::sleep(Duration::from_millis(random.random_range(100..3000))).await;
                network.freeze(false);
            }
            what => {
                let signal = if what > 6 { Signal::KILL } else { Signal::TERM };
                server.signal(signal);
                server.end();
                server = serve(&address.to_string(), &data, &mut random);
                if signal == Signal::KILL { kills += 1 } else { restarts += 1 }
            }
        }
    }
    let ledger = load.end().await;
    let last = load::settle(address).await;
    finish.send_replace(Some(last));
    let (log, records) = (Log::new(auditor.end().await), crowd.join_all().await);

    log.check(&ledger);
    let saw: usize = records.iter().map(|record| record.check(&log)).sum();
    let gaps: usize = records.iter().map(records::Record::gaps).sum();
    let stalls: usize = records.iter().map(|record| record.stalls).sum();
    println!(
        "{} events of {} tasks, {kills} kills and {restarts} restarts; {} watchers saw {saw} \
         events, were told of {gaps} gaps, and stalled {stalls} times",
        log.len(),
        ledger.tasks(),
        records.len(),
    );
    assert!(log.len() > 1_000 && saw > log.len(), "too little happened to mean anything");
    let is_long = log.len() as u64 > 4 * MAX_EVENTS;
    assert!(gaps > 0 || !is_long, "nobody missed anything: history is not as short as it seems");
    assert!(kills > 0, "the server was never killed");
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
}
