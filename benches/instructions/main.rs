//! Fixed work on the hot paths, for a tool that counts instructions.
//!
//! `.ci/instructions` runs each workload under callgrind, which counts what is executed within
//! one function, and compares that with the record. A count does not depend on how busy the
//! machine is, so it can guard against a slow creep, which a time cannot.
//!
//! `cargo bench --bench instructions -- WORKLOAD` does the work once and prints how often.

use std::{error::Error, sync::Arc, time::Duration};

use taskyard::{
    admission::{Admission, Limits},
    config::{Config, Durability, Retention},
    handler::{Noop, Registry},
    proto::v1::{SubmitRequest, submit_request::Payload, task_service_client::TaskServiceClient},
    queue::QueueConfig,
    server::Server,
    store::{self, Dispatch, Finished, Outcome, Store, Submission, WallClock},
    task::{Data, NewTask, TaskBody, WorkerId},
};

const BATCHES: u32 = 20;
const BATCH: u32 = 500;
const LIVES: u32 = 2_000;
const CALLS: u32 = 1_000;

/// Bytes of a payload.
const PAYLOAD_BYTES: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let workload = std::env::args().skip(1).find(|arg| arg != "--bench");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build()?;
    let done = match workload.as_deref() {
        Some("batches") => runtime.block_on(batches())?,
        Some("lives") => runtime.block_on(lives())?,
        Some("calls") => runtime.block_on(calls())?,
        other => return Err(format!("{other:?} is none of batches, lives and calls").into()),
    };
    println!("{done}");
    runtime.shutdown_background();
    Ok(())
}

/// Tasks that are submitted together: for each, what the engine does.
async fn batches() -> Result<u32, Box<dyn Error>> {
    let (store, gate) = open().await?;
    for _ in 0..BATCHES {
        submit(&store, &gate, BATCH).await?;
    }
    Ok(BATCHES * BATCH)
}

/// Tasks that one worker runs one after the other: for each, what the engine does from its
/// submission to its end.
async fn lives() -> Result<u32, Box<dyn Error>> {
    let (store, gate) = open().await?;
    submit(&store, &gate, LIVES).await?;
    store.join(WorkerId(1)).await?;
    let mut finished = None;
    for _ in 0..LIVES {
        let Dispatch::Run(given) = store.next_dispatch(WorkerId(1), finished.take()).await? else {
            return Err("there are tasks".into());
        };
        finished = Some(Finished {
            task: given.task,
            attempt: given.attempt,
            outcome: Outcome::Succeeded(Data::Empty),
            ran: Duration::ZERO,
            output: None,
        });
    }
    Ok(LIVES)
}

/// Calls of Submit, one after the other: for each, what the server does between the request and
/// the answer.
async fn calls() -> Result<u32, Box<dyn Error>> {
    let mut registry = Registry::default();
    registry.insert("noop", Noop);
    let config = Config {
        listen: ([127, 0, 0, 1], 0).into(),
        durability: Durability::Memory,
        workers: 1.try_into()?,
        ..Config::default()
    };
    let server = Server::start(&config, registry).await?;
    let address = format!("http://{}", server.local_addr());
    let mut client = TaskServiceClient::connect(address).await?;
    let payload = Some(Payload::Data(vec![b'x'; PAYLOAD_BYTES].into()));
    let task = SubmitRequest { kind: "noop".into(), payload, ..SubmitRequest::default() };
    for _ in 0..CALLS {
        client.submit(task.clone()).await?;
    }
    Ok(CALLS)
}

async fn open() -> Result<(Arc<Store>, Arc<Admission>), Box<dyn Error>> {
    let limits = Limits {
        queue_config: QueueConfig::default(),
        queues: 10,
        room_timeout: Duration::from_mins(1),
    };
    let gate = Arc::new(Admission::new(limits));
    let settings = store::Settings {
        data_dir: std::env::temp_dir(),
        // What the disk costs is not counted in instructions.
        durability: Durability::Memory,
        max_crashes: 3,
        disk_reserve: 0,
        retention: Retention::default(),
        clock: WallClock::default(),
        max_log: 512 << 20,
        accept_loss: false,
    };
    let (store, _, _) = store::open(&settings, Arc::clone(&gate)).await?;
    Ok((store, gate))
}

async fn submit(store: &Store, gate: &Admission, tasks: u32) -> Result<(), Box<dyn Error>> {
    let task = NewTask {
        body: TaskBody::from(Data::Bytes(vec![b'x'; PAYLOAD_BYTES].into())),
        ..NewTask::new("noop", "default")
    };
    let bytes = store::weight(&task);
    let mut all = Vec::new();
    for _ in 0..tasks {
        let permit = gate.try_admit("default", bytes)?;
        all.push((Submission { task: task.clone(), fingerprint: [0; 16] }, permit));
    }
    for submitted in store.submit_all(all).await? {
        submitted?;
    }
    Ok(())
}
