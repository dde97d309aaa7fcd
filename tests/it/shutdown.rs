//! SIGTERM to the real binary on a bad day: under load, with watchers, callers
//! that wait for room, connections that say nothing, and commands that run.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use taskyard::proto::v1::{EventType, SubmitRequest, TaskState};
use tokio::{net::TcpStream, task::JoinSet};
use tonic::Code;

use crate::support::{
    Client, Watch, args, connect, process::Serve, reason, sleep, submit, task, wait,
};

const BOUND: Duration = Duration::from_secs(3);

fn serve(dir: &Path, workers: &str) -> Serve {
    let config = dir.join("taskyard.toml");
    // Ignores the polite signal, and leaves a trace of every run.
    let script = "trap '' TERM; echo begun >> \"$1\"; while [ ! -e \"$2\" ]; do sleep 0.05; done; echo ended >> \"$1\"";
    let text = format!(
        "[exec.stubborn]\ncommand = [\"sh\", \"-c\", {script:?}, \"sh\", \"{{trace}}\", \"{{go}}\"]\n"
    );
    fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let more = [
        "--config",
        config,
        "--queue-max-tasks",
        "20",
        "--drain-timeout",
        "3s",
        "--cancel-grace",
        "300ms",
        "--workers",
        workers,
    ];
    Serve::start(&dir.join("data"), &more)
}

fn stubborn(dir: &Path) -> SubmitRequest {
    let path = |name| dir.join(name).to_str().unwrap().to_owned();
    let inner = args(&[("trace", &path("trace")), ("go", &path("go"))]);
    let Some(taskyard::proto::v1::submit_request::Payload::Args(inner)) = inner else { panic!() };
    let outer = args(&[("command", "stubborn")]);
    let Some(taskyard::proto::v1::submit_request::Payload::Args(mut outer)) = outer else {
        panic!()
    };
    let kind = prost_types::value::Kind::StructValue(inner);
    outer.fields.insert("args".into(), prost_types::Value { kind: Some(kind) });
    let payload = Some(taskyard::proto::v1::submit_request::Payload::Args(outer));
    SubmitRequest { payload, ..task("exec") }
}

/// Callers that submit, and wait for room, until the server is gone. Returns
/// the tasks that were acknowledged.
fn load(client: &Client) -> JoinSet<Vec<String>> {
    let mut callers = JoinSet::new();
    for _ in 0..40 {
        let mut client = client.clone();
        callers.spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                match client.submit(sleep("20ms")).await {
                    Ok(answer) => acknowledged.push(answer.into_inner().task_id),
                    Err(refused) => {
                        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
                        return acknowledged;
                    }
                }
            }
        });
    }
    callers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_day_ends_within_the_bound_and_the_next_start_runs_what_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path(), "3");
    let address = server.address.parse().unwrap();
    let mut client = connect(address).await;
    let mut watch = Watch::oldest(&mut client).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    let exec = submit(&mut client, stubborn(dir.path())).await;
    watch.until(EventType::Started).await;
    let callers = load(&client);
    // The load has reached the workers.
    for _ in 0..50 {
        watch.until(EventType::Succeeded).await;
    }

    let began = Instant::now();
    server.signal(Signal::TERM);
    let (events, ended, _) = watch.rest().await;
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unavailable, "DRAINING"));
    let interrupted: Vec<_> =
        events.iter().filter(|event| event.r#type() == EventType::Interrupted).collect();
    assert_eq!(interrupted.len(), 1, "only the stubborn one outlasts the grace");
    assert_eq!(interrupted[0].task_id, exec.task_id);
    let (code, log) = server.end();
    let took = began.elapsed();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < BOUND + Duration::from_secs(1), "a bound of {BOUND:?} took {took:?}");
    let mut acknowledged: Vec<String> = callers.join_all().await.into_iter().flatten().collect();

    // No process of it is left: nothing adds to its trace when told to go on.
    fs::write(dir.path().join("go"), "").unwrap();
    let server = serve(dir.path(), "3");
    let mut client = connect(server.address.parse().unwrap()).await;
    let again = wait(&mut client, &exec.task_id).await;
    assert_eq!((again.state(), again.attempt), (TaskState::Succeeded, 2));
    let trace = fs::read_to_string(dir.path().join("trace")).unwrap();
    assert_eq!(trace, "begun\nbegun\nended\n");
    acknowledged.sort();
    acknowledged.dedup();
    assert!(acknowledged.len() > 50);
    for id in &acknowledged {
        assert_eq!(wait(&mut client, id).await.state(), TaskState::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::start(&dir.path().join("data"), &["--drain-timeout", "1h"]);
    let mut client = connect(server.address.parse().unwrap()).await;
    let mut watch = Watch::live(&mut client).await;
    let long = submit(&mut client, sleep("1h")).await;
    watch.until(EventType::Started).await;
    server.signal(Signal::TERM);
    watch.until(EventType::Draining).await;
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(8));
    let server = Serve::start(&dir.path().join("data"), &[]);
    let mut client = connect(server.address.parse().unwrap()).await;
    let mut watch = Watch::oldest(&mut client).await;
    let interrupted = watch.until(EventType::Interrupted).await;
    assert_eq!(interrupted.task_id, long.task_id);
    assert_eq!(interrupted.error.unwrap().reason, "CRASHED");
}
