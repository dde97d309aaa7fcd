//! A path is a path, whatever is in its name: SQLite takes some names for URIs.

mod support;

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use support::{
    config, get,
    process::{self, Said, Serve},
};
use taskyard::{proto::v1::TaskState, server::Server};

/// Names that would be something else as URIs, or in one.
const NAMES: [&str; 5] = ["file:store", "file:m?mode=memory#", "a?vfs=memdb", "a#b", "100%41"];

fn command(dir: &Path) -> std::process::Command {
    let mut command = process::taskyard();
    command.current_dir(dir);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_where_the_name_says_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    for name in NAMES {
        let server = Serve::by(command(dir.path()), Path::new(name), &[]);
        let id = server.submit(&["noop", "--delay", "1h"]);
        assert!(dir.path().join(name).join("taskyard.db").is_file(), "{name}");
        // A second one finds it in use.
        let mut second = command(dir.path());
        second.args(["serve", "--listen", "127.0.0.1:0", "--data-dir", name]);
        let said = Said::of(second.output().unwrap()).ends(7);
        assert!(said.err.contains("in use"), "{name}: {}", said.err);
        drop(server);
        let server = Serve::by(command(dir.path()), Path::new(name), &[]);
        server.run(&["get", &id]).ends(0);
    }
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut expected = NAMES.map(String::from);
    expected.sort();
    assert_eq!(names, expected, "and nowhere else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_need_not_be_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(OsStr::from_bytes(b"\xff\xfe?mode=memory"));
    let server = Server::start(&config(&path), support::builtin()).await.expect("it starts");
    let mut client = support::connect(server.local_addr()).await;
    let id = support::submit(&mut client, support::task("noop")).await.task_id;
    support::wait(&mut client, &id).await;
    drop(client);
    server.drain().await;
    assert!(path.join("taskyard.db").is_file());
    let server = Server::start(&config(&path), support::builtin()).await.expect("it starts again");
    let mut client = support::connect(server.local_addr()).await;
    assert_eq!(get(&mut client, &id).await.state(), TaskState::Succeeded);
    drop((client, server));
}
