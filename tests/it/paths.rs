//! A path is a path, whatever is in its name: SQLite takes some names for URIs.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
};

use taskyard::{proto::v1::TaskState, server::Server};

use crate::support::{
    self, config, get,
    process::{self, Said, Serve},
};

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

fn serve(dir: &Path) -> Said {
    let mut command = process::taskyard();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir);
    Said::of(command.output().expect("the binary runs"))
}

/// A data directory whose database is a link to `target`.
fn linked(home: &Path, name: &str, target: &Path) -> std::path::PathBuf {
    let dir = home.join(name);
    fs::create_dir(&dir).unwrap();
    symlink(target, dir.join("taskyard.db")).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_behind_a_link_is_the_file_that_the_link_leads_to() {
    let home = tempfile::tempdir().unwrap();
    let elsewhere = home.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for name in ["taskyard.db", "mine.db"] {
        let target = elsewhere.join(name);
        fs::write(&target, "").unwrap();
        let first = linked(home.path(), &format!("first of {name}"), &target);
        let second = linked(home.path(), &format!("second of {name}"), &target);
        let server = Serve::start(&first, &[]);
        let id = server.submit(&["noop", "--delay", "1h"]);
        // Whoever comes to the same file by another way finds it in use.
        for other in [&first, &second] {
            let said = serve(other).ends(7);
            assert!(said.err.contains("in use"), "{}", said.err);
        }
        // Killed, with the task in a log that lies beside the file itself.
        drop(server);
        let log = elsewhere.join(format!("{name}-wal"));
        assert!(log.metadata().unwrap().len() > 0 && !first.join("taskyard.db-wal").exists());
        for dir in [&first, &second] {
            let server = Serve::start(dir, &[]);
            server.run(&["get", &id]).ends(0);
        }
    }
    // The one by its own name, too.
    let third = linked(home.path(), "third", &elsewhere.join("taskyard.db"));
    let server = Serve::start(&elsewhere, &[]);
    serve(&third).ends(7);
    drop(server);
    let server = Serve::start(&third, &[]);
    serve(&elsewhere).ends(7);
    drop(server);
    // What is damaged in a log behind a link is seen.
    let log = elsewhere.join("taskyard.db-wal");
    let mut damaged = fs::read(&log).unwrap();
    damaged[40] ^= 1;
    fs::write(&log, damaged).unwrap();
    assert!(serve(&third).ends(7).err.contains("damaged at byte"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_database_that_is_not_there_is_refused_and_named() {
    let home = tempfile::tempdir().unwrap();
    let target = home.path().join("not mounted").join("taskyard.db");
    let dir = linked(home.path(), "store", &target);
    let said = serve(&dir).ends(7);
    let (link, target) = (dir.join("taskyard.db"), target.display());
    let told = format!("{} is a link to {target}, which is not there", link.display());
    assert!(said.err.contains(&told), "{}", said.err);
    assert!(link.is_symlink() && fs::read_dir(&dir).unwrap().count() == 1, "nothing was made");
}
