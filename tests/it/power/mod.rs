//! Power cuts, and disks that fail: what was acknowledged before the cut is there after it.
//!
//! A library before the C library (`interpose.c`, built here with `cc`) writes down
//! everything that the real server does to its files. From that trace a disk is made as a
//! power cut may leave it at any moment (`disk.rs`), opened with the real server, and
//! compared with the ledger of what clients had been told by then. The library also lets
//! calls fail. What such a disk does, and what it does not, is said in `disk.rs`.
//!
//! The ordinary run makes some fifty images. For more:
//!
//!     POWER_IMAGES=5000 cargo test --test it power:: -- --nocapture
//!
//! `POWER_SEED` repeats what is random in this process; threads and the machine add their
//! own.

mod control;
mod disk;
mod history;
mod ledger;
mod load;
mod reads;
mod server;
mod trace;
mod verify;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use taskyard::proto::{
    health::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    },
    v1::{
        CancelTaskRequest, DrainRequest, EventType, GetPoolRequest, PauseQueueRequest,
        ResumeQueueRequest, SubmitRequest, TaskState, WaitTaskRequest,
        admin_service_client::AdminServiceClient, submit_request::Payload,
    },
};
use tempfile::TempDir;
use tonic::{Code, transport::Endpoint};

use control::{Call, Fault, Role, Rule};
use disk::{Cut, Disk};
use history::History;
use ledger::{Known, Ledger};
use server::Traced;

use crate::support::{self, Watch, connect};

/// Images of the run of a server on a new directory, and again of one on what is left of it.
const IMAGES: usize = 5;

/// Images of a run in which calls fail, and its tasks before and after the restart.
const FAULT_IMAGES: usize = 5;
const FAULT_TASKS: u32 = 60;

/// Tasks of one run: enough that the log is moved into the database.
const TASKS: u32 = 700;

fn images() -> usize {
    let wanted = std::env::var("POWER_IMAGES").ok();
    wanted.map_or(30, |images| images.parse().expect("POWER_IMAGES is a number"))
}

fn random() -> StdRng {
    let repeat = std::env::var("POWER_SEED").ok();
    let seed = repeat.map_or_else(rand::random, |seed| seed.parse().expect("a number"));
    println!("POWER_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_under_load_lose_nothing() {
    let mut random = random();
    for _ in 0..images().div_ceil(2 * IMAGES) {
        let dir = tempfile::tempdir().expect("a directory");
        let (left, known) =
            cut_under_load(dir.path(), Known::default(), "first", &mut random).await;
        cut_under_load(left.path(), known, "second", &mut random).await;
    }
}

/// Puts a server on this directory to work, and opens what power cuts at random moments
/// would have left. Answers with what another one has left, and what was known then.
async fn cut_under_load(
    data_dir: &Path,
    known: Known,
    name: &str,
    random: &mut StdRng,
) -> (TempDir, Known) {
    let disk = Disk::of(data_dir);
    let traced = Traced::of(data_dir);
    let ledger = Arc::new(Ledger::new(traced.marker()));
    // Half of them with a log that begins anew often, over what is left of the one before.
    let settings = &[("TASKYARD_MAX_LOG", "4MiB")][..usize::from(random.random::<bool>())];
    let server = traced.start_with(settings).expect("it starts");
    let client = connect(server.address.parse().expect("an address")).await;
    let taken = load::run(&client, &ledger, name, TASKS, random).await;
    assert_eq!(taken, TASKS, "{}", server.said());
    assert_eq!(server.drain(), Some(0));
    let mut history = History::new(disk, known, &traced, &ledger);
    let moments = history.moments(history.first_mark(), IMAGES + 1, random);
    let unopened = random.random_range(0..moments.len());
    let mut left = None;
    for (number, moment) in moments.into_iter().enumerate() {
        let (image, context) = history.cut(moment, Cut::any(random), random);
        if number == unopened {
            left = Some((image, history.known.clone()));
        } else {
            println!("{name}: {context}");
            verify::verify(image.path(), &history.known, &context).await;
        }
    }
    history.end();
    left.expect("one was not opened")
}

/// Wherever the power fails in the first start of all, the next one succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_can_be_cut_anywhere() {
    let mut random = random();
    let dir = tempfile::tempdir().expect("a directory");
    let traced = Traced::of(dir.path());
    let disk = Disk::of(dir.path());
    let ledger = Ledger::new(traced.marker());
    let server = traced.start().expect("it starts");
    let mut client = connect(server.address.parse().expect("an address")).await;
    load::take(&mut client, &ledger, "only").await.expect("taken");
    drop(server);
    let mut history = History::new(disk, Known::default(), &traced, &ledger);
    for moment in history.moments(0, images(), &mut random) {
        let (image, context) = history.cut(moment, Cut::any(&mut random), &mut random);
        verify::verify(image.path(), &history.known, &context).await;
    }
    history.end();
}

/// Any call on any file may fail at any time: what was acknowledged before and after is
/// kept, over the restart and over a power cut.
#[tokio::test(flavor = "multi_thread")]
async fn failing_calls_restarts_and_power_cuts_lose_nothing() {
    let mut random = random();
    let mut failed = 0;
    for round in 0..images().div_ceil(FAULT_IMAGES) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::of(dir.path());
        let traced = Traced::of(dir.path());
        let ledger = Arc::new(Ledger::new(traced.marker()));
        let rules = any_rules(&mut random);
        println!("round {round}: {rules:?}");
        for name in ["before", "after"] {
            let server = traced.start().unwrap_or_else(|said| panic!("{name}: {said}"));
            let client = connect(server.address.parse().expect("an address")).await;
            if name == "before" {
                load::run(&client, &ledger, "sound", 20, &mut random).await;
                traced.control.set(&rules);
            }
            let taken = load::run(&client, &ledger, name, FAULT_TASKS, &mut random).await;
            println!("{name}: {taken} taken, {:?} calls failed", traced.control.hits(0));
            assert_eq!(taken, FAULT_TASKS, "it goes on by itself: {}", server.said());
            if name == "before" && random.random() {
                server.drain();
            }
            failed += (0..rules.len()).map(|rule| traced.control.hits(rule)).sum::<u32>();
            traced.control.set(&[]);
        }
        let mut history = History::new(disk, Known::default(), &traced, &ledger);
        for moment in history.moments(history.first_mark(), FAULT_IMAGES, &mut random) {
            let (image, context) = history.cut(moment, Cut::any(&mut random), &mut random);
            verify::verify(image.path(), &history.known, &context).await;
        }
        history.end();
    }
    assert!(failed > 0, "no call of any round has failed");
}

/// A sync of the log fails, the server is started anew and takes tasks, and then the power
/// is cut: what the kernel has taken for written since the failure must have been written
/// again before anything was acknowledged. What was refused has not happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_and_a_restart_lose_nothing() {
    a_sync_fails(Role::Log, FAULT_TASKS).await;
}

/// The same while the log is moved: that is after the answers of the group before, and nothing
/// may be acknowledged that needs what the database lacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_of_the_database_and_a_restart_lose_nothing() {
    a_sync_fails(Role::Database, 400).await;
}

async fn a_sync_fails(role: Role, tasks: u32) {
    // So that the log begins anew more than once, over what is left of the one before.
    let settings = &[("TASKYARD_MAX_LOG", "4MiB")];
    let mut random = random();
    for round in 0..images().div_ceil(FAULT_IMAGES) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Disk::of(dir.path());
        let traced = Traced::of(dir.path());
        let ledger = Arc::new(Ledger::new(traced.marker()));
        let server = traced.start_with(settings).expect("it starts");
        let client = connect(server.address.parse().expect("an address")).await;
        load::run(&client, &ledger, "sound", 200, &mut random).await;
        // So that what is written next changes pages that are in the database alone.
        server.drain();
        let server = traced.start_with(settings).expect("it starts again");
        let client = connect(server.address.parse().expect("an address")).await;
        let from = random.random_range(if matches!(role, Role::Log) { 1..6 } else { 1..3 });
        let (call, fault) = (Call::Sync, Fault::Eio);
        let fails = Rule { call, role, from, times: 1, fault };
        // What was refused cannot always be cut off the log, either: it is committed by the
        // restart then, and must be on the disk before anything behind it is acknowledged.
        let stays = Rule { call: Call::Truncate, from: 1, ..fails };
        traced.control.set(&[fails, stays][..random.random_range(1..=2)]);
        let taken = load::run(&client, &ledger, "before", tasks, &mut random).await;
        println!("round {round}: sync {from} fails, {taken} taken");
        assert_eq!(traced.control.hits(0), 1);
        assert!(taken < tasks, "{}", server.said());
        if random.random() {
            server.drain();
        } else {
            drop(server);
        }
        traced.control.set(&[]);
        let stopped = trace::read(&traced.trace).len();
        let server = traced.start_with(settings).unwrap_or_else(|said| panic!("after: {said}"));
        let started = trace::read(&traced.trace).len();
        let client = connect(server.address.parse().expect("an address")).await;
        let taken = load::run(&client, &ledger, "after", FAULT_TASKS, &mut random).await;
        assert_eq!(taken, FAULT_TASKS, "{}", server.said());
        drop(server);
        let mut history = History::new(disk, Known::default(), &traced, &ledger);
        let mut moments = history.moments(history.first_mark(), FAULT_IMAGES, &mut random);
        // The start is the worst of all times.
        moments.extend((0..FAULT_IMAGES).map(|_| random.random_range(stopped..=started)));
        moments.sort_unstable();
        for moment in moments {
            let (image, context) = history.cut(moment, Cut::any(&mut random), &mut random);
            verify::verify(image.path(), &history.known, &context).await;
        }
        history.end();
    }
}

/// Nobody waits for what cannot come any more; what is committed can be read.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_hears_of_a_failed_sync_and_reading_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let traced = Traced::of(dir.path());
    let server = traced.start().expect("it starts");
    let mut client = connect(server.address.parse().expect("an address")).await;
    let mut watch = Watch::live(&mut client).await;
    let task_id = support::submit(&mut client, support::sleep("1h")).await.task_id;
    watch.until(EventType::Started).await;
    let mut health = HealthClient::connect(format!("http://{}", server.address)).await.unwrap();
    let waiting = {
        let (mut client, task_id) = (client.clone(), task_id.clone());
        let timeout = support::span(Duration::from_hours(1));
        tokio::spawn(async move { client.wait_task(WaitTaskRequest { task_id, timeout }).await })
    };
    let (call, role, fault) = (Call::Sync, Role::Log, Fault::Eio);
    traced.control.set(&[Rule { call, role, from: 1, times: 1, fault }]);
    let refused = client.submit(support::task("noop")).await.expect_err("it cannot be synced");
    assert_eq!(support::reason(&refused), "STORE_FAILED");
    let waiting = tokio::time::timeout(support::PATIENCE, waiting).await.expect("it waits on");
    assert_eq!(support::reason(&waiting.unwrap().expect_err("it has not ended")), "STORE_FAILED");

    let health = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::NotServing);
    assert_eq!(support::get(&mut client, &task_id).await.state(), TaskState::Running);
    // What comes of it would not be kept.
    let mut admin =
        AdminServiceClient::connect(format!("http://{}", server.address)).await.unwrap();
    let stopped = async {
        loop {
            let pool = admin.get_pool(GetPoolRequest {}).await.unwrap().into_inner().pool.unwrap();
            if pool.workers.iter().all(|worker| worker.execution.is_none()) {
                return;
            }
        }
    };
    tokio::time::timeout(support::PATIENCE, stopped).await.expect("its handler goes on");
    // Who watched it, and who comes only now.
    for (watch, is_new) in [(watch, false), (Watch::oldest(&mut client).await, true)] {
        let (events, end, cursor) = watch.rest().await;
        let sees_start = events.iter().any(|event| event.r#type() == EventType::Started);
        assert_eq!(sees_start, is_new, "{events:?}");
        assert_eq!(support::reason(&end), "STORE_FAILED", "{end:?}");
        assert_eq!(support::watching::cursor_of(&end, "cursor"), cursor);
    }
    let report = admin.drain(DrainRequest {}).await.expect("a report").into_inner();
    assert_eq!((report.interrupted, report.remaining, report.complete), (1, None, false));
    drop(server);
}

/// A file is on the disk only if its name is: a server whose directory cannot be synced does
/// not start, or keeps what it acknowledges, as does the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_synced_loses_nothing() {
    let mut random = random();
    for from in 1..20 {
        let dir = tempfile::tempdir().expect("a directory");
        let traced = Traced::of(dir.path());
        let ledger = Arc::new(Ledger::new(traced.marker()));
        let disk = Disk::of(dir.path());
        let (call, role, fault) = (Call::Sync, Role::Directory, Fault::Eio);
        traced.control.set(&[Rule { call, role, from, times: u32::MAX, fault }]);
        let started = traced.start();
        let failed = traced.control.hits(0);
        println!("from sync {from}: {failed} failed, started: {}", started.is_ok());
        let server = started.unwrap_or_else(|_| {
            traced.control.set(&[]);
            traced.start().expect("it starts when the directory can be synced")
        });
        let client = connect(server.address.parse().expect("an address")).await;
        load::run(&client, &ledger, "any", 20, &mut random).await;
        drop(server);
        let mut history = History::new(disk, Known::default(), &traced, &ledger);
        let (image, context) = history.cut(history.len(), Cut::Nothing, &mut random);
        verify::verify(image.path(), &history.known, &context).await;
        if failed == 0 {
            assert!(from > 1, "no directory is ever synced");
            return;
        }
    }
    panic!("a start syncs its directory without an end");
}

/// The disk refuses to take the log into the database: it is told, the log is bounded, new
/// tasks are held back, and all is well again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_moved_is_told_and_bounded() {
    let dir = tempfile::tempdir().expect("a directory");
    let traced = Traced::of(dir.path());
    let server = traced.start_with(&[("TASKYARD_MAX_LOG", "4MiB")]).expect("it starts");
    let mut client = connect(server.address.parse().expect("an address")).await;
    let (call, role, fault) = (Call::Write, Role::Database, Fault::Enospc);
    traced.control.set(&[Rule { call, role, from: 1, times: u32::MAX, fault }]);
    let data = Payload::Data(vec![7; 50_000].into());
    let delay = support::span(Duration::from_hours(1));
    let large = SubmitRequest { payload: Some(data), delay, ..support::task("noop") };
    let mut taken = Vec::new();
    let refused = loop {
        match client.submit(large.clone()).await {
            Ok(answer) => taken.push(answer.into_inner().task_id),
            Err(refused) => break refused,
        }
        assert!(taken.len() < 200, "the log has no bound");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(support::reason(&refused), "LOG_FULL");
    let log = dir.path().join("taskyard.db-wal").metadata().expect("the log").len();
    assert!(log < 4 << 20, "{log} bytes");
    let said = server.said();
    assert!(said.contains("cannot be moved into the database and grows"), "{said}");
    // What is there goes on.
    for task_id in &taken {
        let cancel = CancelTaskRequest { task_id: task_id.clone() };
        client.cancel_task(cancel).await.expect("cancelled");
    }
    assert_eq!(support::reason(&client.submit(large.clone()).await.unwrap_err()), "LOG_FULL");
    // At the bound itself everything stands still, and nothing is refused or lost.
    let answered = Arc::new(AtomicUsize::new(0));
    let calls = tokio::spawn(pause_and_resume(server.address.clone(), Arc::clone(&answered)));
    let (mut before, mut unchanged) = (0, 0);
    while unchanged < 25 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = answered.load(Ordering::Relaxed);
        unchanged = if now == before && now > 0 { unchanged + 1 } else { 0 };
        before = now;
    }
    let log = dir.path().join("taskyard.db-wal").metadata().expect("the log").len();
    assert!((3 << 20..(4 << 20) + (128 << 10)).contains(&log), "{log} bytes");
    assert!(!calls.is_finished(), "{before} calls did not come to the bound");
    traced.control.set(&[]);
    tokio::time::timeout(support::PATIENCE, calls).await.expect("it stands still").unwrap();
    let again = async {
        while let Err(status) = client.submit(large.clone()).await {
            assert_eq!(support::reason(&status), "LOG_FULL");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(support::PATIENCE, again).await.expect("it takes tasks again by itself");
    assert_eq!(server.drain(), Some(0));
}

/// Changes a queue until it has written more than the log of a server may have.
async fn pause_and_resume(address: String, answered: Arc<AtomicUsize>) {
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut admin = AdminServiceClient::new(channel.connect().await.expect("it answers"));
    for _ in 0..500 {
        let request = PauseQueueRequest { queue: "paused".into() };
        admin.pause_queue(request).await.expect("paused");
        let request = ResumeQueueRequest { queue: "paused".into() };
        admin.resume_queue(request).await.expect("resumed");
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// One or two sorts of calls that fail, once or some times.
fn any_rules(random: &mut StdRng) -> Vec<Rule> {
    let rules = random.random_range(1..3);
    let rule = |_| {
        // The log is written all the time, the database rarely.
        let (role, early) = match random.random_range(0..6) {
            0..4 => (Role::Log, 60),
            4 => (Role::Database, 4),
            _ => (Role::Any, 60),
        };
        let call = match random.random_range(0..8) {
            0 => Call::Truncate,
            _ => Call::Write,
        };
        let fault = match (call, random.random_range(0..3)) {
            (_, 0) => Fault::Eio,
            (Call::Write, 1) => Fault::Short,
            _ => Fault::Enospc,
        };
        let times = if random.random() { 1 } else { random.random_range(2..7) };
        Rule { call, role, from: random.random_range(1..early), times, fault }
    };
    (0..rules).map(rule).collect()
}
