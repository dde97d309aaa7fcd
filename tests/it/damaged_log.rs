//! A damaged write-ahead log is refused and kept; one that a crash has cut off is not
//! damaged.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use taskyard::{
    proto::v1::{GetTaskRequest, SubmitRequest, TaskState, submit_request::Payload},
    task::TaskId,
};

use crate::support::{
    connect, count, get,
    process::{self, Said, Serve},
    reason, span, submit, task,
};

const HEADER: usize = 32;

struct Crashed {
    dir: tempfile::TempDir,
    tasks: Vec<String>,
    /// The log as the crash has left it.
    log: Vec<u8>,
}

impl Crashed {
    /// Three tasks, and kill -9.
    async fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    async fn on(dir: tempfile::TempDir) -> Self {
        let server = Serve::start(dir.path(), &[]);
        let mut client = connect(server.address.parse().unwrap()).await;
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let delay = span(Duration::from_hours(1));
            let request = SubmitRequest { delay, ..task("noop") };
            tasks.push(client.submit(request).await.unwrap().into_inner().task_id);
        }
        drop(server);
        let log = fs::read(dir.path().join("taskyard.db-wal")).unwrap();
        Self { dir, tasks, log }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set_log(&self, bytes: &[u8]) {
        // In its place: so the directory is the one that the process before has left.
        fs::write(self.path("taskyard.db-wal"), bytes).unwrap();
    }

    fn damage(&self, at: usize) {
        let mut log = self.log.clone();
        log[at] ^= 0x40;
        self.set_log(&log);
    }

    /// The server does not start, and changes nothing.
    fn refuses(&self, at: usize) -> Said {
        let files = || ["taskyard.db", "taskyard.db-wal"].map(|name| fs::read(self.path(name)));
        let before = files().map(Result::unwrap);
        let said = serve(self.dir.path(), &[]).ends(7);
        assert!(files().map(Result::unwrap) == before, "byte {at}: something has changed");
        assert!(said.err.contains("taskyard.db-wal is damaged at byte"), "byte {at}: {}", said.err);
        assert!(said.err.contains("--accept-loss"), "{}", said.err);
        said
    }

    async fn has(&self, tasks: &[String], more: &[&str]) -> Serve {
        let server = Serve::start(self.dir.path(), more);
        let mut client = connect(server.address.parse().unwrap()).await;
        for id in tasks {
            assert_eq!(get(&mut client, id).await.state(), TaskState::Scheduled);
        }
        assert_eq!(count(&mut client).await, tasks.len());
        server
    }
}

fn verify(dir: &Path) -> Said {
    let mut command = process::taskyard();
    command.args(["store", "verify", "--data-dir"]).arg(dir);
    Said::of(command.output().expect("the binary runs"))
}

/// All files of a directory, with their bytes.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    // SQLite's index of the log is no part of the data.
    let names = names.filter(|path| !path.to_string_lossy().ends_with("-shm"));
    names.map(|path| (path.display().to_string(), fs::read(&path).unwrap())).collect()
}

fn serve(dir: &Path, more: &[&str]) -> Said {
    let mut command = process::taskyard();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir).args(more);
    Said::of(command.output().expect("the binary runs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_damaged_byte_is_not_taken_for_an_empty_store() {
    let crashed = Crashed::new().await;
    // A salt of the first frame.
    crashed.damage(40);
    crashed.refuses(40);
    // Whole again, it is as good as before.
    crashed.set_log(&crashed.log);
    crashed.has(&crashed.tasks, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_anywhere_but_in_the_last_page_is_missed() {
    let crashed = Crashed::new().await;
    let last_page = crashed.log.len() - 4_096 - 24;
    for at in [0, 17, 33, 39, 47, 50, 60, last_page / 3, last_page / 2, last_page - 1] {
        crashed.damage(at);
        crashed.refuses(at);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_another_machine_the_last_commit_may_be_cut_off_but_no_other() {
    let crashed = Crashed::new().await;
    let copy = |at: usize| {
        let copy = tempfile::tempdir().unwrap();
        let mut log = crashed.log.clone();
        log[at] ^= 1;
        fs::copy(crashed.path("taskyard.db"), copy.path().join("taskyard.db")).unwrap();
        fs::copy(crashed.path("LOCK"), copy.path().join("LOCK")).unwrap();
        fs::write(copy.path().join("taskyard.db-wal"), log).unwrap();
        copy
    };
    let early = copy(HEADER + 100);
    serve(early.path(), &[]).ends(7);
    // The end of the file is the end of the last commit, which a power cut may tear.
    let late = copy(crashed.log.len() - 1);
    let server = Serve::start(late.path(), &[]);
    let mut client = connect(server.address.parse().unwrap()).await;
    assert_eq!(count(&mut client).await, 2);
    let lost = GetTaskRequest { task_id: crashed.tasks[2].clone() };
    assert_eq!(reason(&client.get_task(lost.clone()).await.unwrap_err()), "TASK_NOT_FOUND");
    // Its number is given again, and its id never.
    let next = submit(&mut client, task("noop")).await.task_id;
    let number = |id: &str| id.parse::<TaskId>().expect("an id").number();
    assert_eq!(number(&next), number(&lost.task_id));
    assert_ne!(next, lost.task_id);
    assert_eq!(reason(&client.get_task(lost).await.unwrap_err()), "TASK_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_was_cut_off_is_no_damage() {
    let crashed = Crashed::new().await;
    let mut torn = crashed.log.clone();
    torn.extend_from_slice(&crashed.log[HEADER..HEADER + 3_000]);
    crashed.set_log(&torn);
    drop(crashed.has(&crashed.tasks, &[]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_is_accepted_keeps_the_damaged_files_and_what_is_whole() {
    let crashed = Crashed::new().await;
    let last_page = crashed.log.len() - 4_096 - 24;
    crashed.damage(last_page - 1);
    let said = crashed.refuses(last_page - 1);
    assert!(said.err.contains("1 commit behind"), "{}", said.err);
    // What the message tells to look with tells the same.
    let told = verify(crashed.dir.path()).ends(1).out;
    assert!(told.contains("1 commit behind"), "{told}");
    let damaged =
        ["taskyard.db-wal", "taskyard.db"].map(|name| fs::read(crashed.path(name)).unwrap());
    // Two tasks are whole: the last one is damaged.
    let server = crashed.has(&crashed.tasks[..2], &["--accept-loss"]).await;
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let mut kept: Vec<_> = fs::read_dir(crashed.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".damaged-"))
        .collect();
    kept.sort();
    let kept: Vec<_> = kept.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(kept.iter().eq(&damaged), "both files are kept as they were");
    // From now on it is as any other.
    crashed.has(&crashed.tasks[..2], &[]).await;
}

/// A payload that lies on pages of its own, which nothing writes again.
static LARGE: [u8; 20_000] = [0xa7; 20_000];

/// A task with a large payload, which is in the database, and three tasks that are in the
/// log, which is damaged before the last one. Answers with the id of the first.
async fn damaged_with_more() -> (Crashed, String) {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::start(dir.path(), &[]);
    let mut client = connect(server.address.parse().unwrap()).await;
    let payload = Some(Payload::Data(LARGE.to_vec().into()));
    let delay = span(Duration::from_hours(1));
    let request = SubmitRequest { payload, delay, ..task("noop") };
    let large = client.submit(request).await.unwrap().into_inner().task_id;
    drop(client);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let crashed = Crashed::on(dir).await;
    crashed.damage(crashed.log.len() - 2 * 4_096);
    (crashed, large)
}

/// Where in the database the large payload has a page to itself.
fn page_of_large(database: &[u8]) -> usize {
    let page = (0..database.len())
        .step_by(4_096)
        .find(|at| database[*at..*at + 4_096].windows(4_000).any(|part| part == &LARGE[..4_000]));
    page.expect("a page of the payload")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_is_damaged_is_told_when_a_loss_is_accepted() {
    let (crashed, large) = damaged_with_more().await;
    let mut database = fs::read(crashed.path("taskyard.db")).unwrap();
    let page = page_of_large(&database);
    database[page + 1_000] ^= 1;
    fs::write(crashed.path("taskyard.db"), database).unwrap();
    let server = Serve::start(crashed.dir.path(), &["--accept-loss"]);
    let mut client = connect(server.address.parse().unwrap()).await;
    for id in &crashed.tasks[..2] {
        assert_eq!(get(&mut client, id).await.state(), TaskState::Scheduled);
    }
    let refused = client.get_task(GetTaskRequest { task_id: large }).await.unwrap_err();
    assert_eq!(reason(&refused), "DAMAGED");
    assert!(refused.message().contains("row 1 of table task"), "{refused:?}");
    drop(client);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    // What the start has told is what there is: one row, and nothing else.
    let told = verify(crashed.dir.path()).ends(1).out;
    assert!(
        told.contains("row 1 of table task is damaged") && told.contains("1 problem"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_torn_without_what_was_lost_is_refused_and_left_as_it_is() {
    let (crashed, _) = damaged_with_more().await;
    let mut database = fs::read(crashed.path("taskyard.db")).unwrap();
    // The chain of pages ends early.
    let page = page_of_large(&database);
    database[page..page + 4].fill(0);
    fs::write(crashed.path("taskyard.db"), database).unwrap();
    let before = files(crashed.dir.path());
    for _ in 0..2 {
        let said = serve(crashed.dir.path(), &["--accept-loss"]).ends(7);
        assert!(said.err.contains("not whole either"), "{}", said.err);
        assert!(said.err.contains("the structure of the database"), "{}", said.err);
        let mut after = files(crashed.dir.path());
        let lock = crashed.path("LOCK").display().to_string();
        after.insert(lock.clone(), before[&lock].clone());
        assert!(after == before, "{:?}", after.keys());
    }
    // Nor is it whole for one that accepts no loss.
    serve(crashed.dir.path(), &[]).ends(7);
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_are_no_log_that_a_killed_process_leaves() {
    let crashed = Crashed::new().await;
    crashed.set_log(&vec![0; crashed.log.len()]);
    let said = crashed.refuses(0);
    assert!(said.err.contains("damaged at byte 0, and all behind"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_looked_through_and_every_file_left_as_it_is() {
    let (crashed, _) = damaged_with_more().await;
    crashed.set_log(&crashed.log);
    let before = files(crashed.dir.path());
    let said = verify(crashed.dir.path()).ends(0);
    assert!(said.out.contains("nothing is wrong"), "{}", said.out);
    assert_eq!(files(crashed.dir.path()), before, "a store with a log");
    // While a server has it, it is the server's.
    let server = Serve::start(crashed.dir.path(), &[]);
    let said = verify(crashed.dir.path()).ends(7);
    let process = format!("(process {})", server.child.id());
    assert!(said.err.contains("in use") && said.err.contains(&process), "{}", said.err);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let mut database = fs::read(crashed.path("taskyard.db")).unwrap();
    let page = page_of_large(&database);
    database[page + 7] ^= 1;
    fs::write(crashed.path("taskyard.db"), database).unwrap();
    let before = files(crashed.dir.path());
    let said = verify(crashed.dir.path()).ends(1);
    assert!(said.out.contains("row 1 of table task is damaged"), "{}", said.out);
    assert_eq!(files(crashed.dir.path()), before, "a store in one file");
    // A copy without a LOCK, which was never a server's.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(crashed.path("taskyard.db"), copy.path().join("taskyard.db")).unwrap();
    let before = files(copy.path());
    verify(copy.path()).ends(1);
    assert_eq!(files(copy.path()), before, "a copy");
    verify(&copy.path().join("nowhere")).ends(7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::start(dir.path(), &[]);
    let id = server.submit(&["noop", "--delay", "1h"]);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    let database = dir.path().join("taskyard.db");
    let whole = fs::read(&database).unwrap();
    for _ in 0..2 {
        // Empty at first, and not there at all then.
        fs::write(&database, "").unwrap();
        assert!(serve(dir.path(), &[]).ends(7).err.contains("there was a store here before"));
        fs::remove_file(&database).unwrap();
        let said = serve(dir.path(), &[]).ends(7);
        assert!(
            said.err.contains("restore both") && said.err.contains("--accept-loss"),
            "{}",
            said.err
        );
        assert!(!database.exists(), "nothing was made in its place");
    }
    // Restored, it is as good as before; or a new one begins, if that is said.
    fs::write(&database, whole).unwrap();
    let server = Serve::start(dir.path(), &[]);
    server.run(&["get", &id]).ends(0);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.end().0, Some(0));
    fs::remove_file(&database).unwrap();
    let server = Serve::start(dir.path(), &["--accept-loss"]);
    let new = server.submit(&["noop", "--delay", "1h"]);
    drop(server);
    let server = Serve::start(dir.path(), &[]);
    server.run(&["get", &new]).ends(0);
    server.run(&["get", &id]).ends(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_first_start_has_left_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["taskyard.db.new", "taskyard.db.new-journal", "taskyard.db.new-wal"] {
        fs::write(dir.path().join(name), "half of a database").unwrap();
    }
    let server = Serve::start(dir.path(), &[]);
    server.submit(&["noop"]);
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().contains(".new")).collect();
    assert!(left.is_empty(), "{left:?}");
}
