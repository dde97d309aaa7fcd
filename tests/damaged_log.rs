//! A damaged write-ahead log is refused and kept; one that a crash has cut off is not
//! damaged.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use support::{
    connect, count, get,
    process::{self, Said, Serve},
    reason, span, task,
};
use taskyard::proto::v1::{GetTaskRequest, SubmitRequest, TaskState};

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
        let dir = tempfile::tempdir().unwrap();
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
    let verified = Command::new(env!("CARGO_BIN_EXE_taskyard"))
        .args(["store", "verify", "--data-dir"])
        .arg(crashed.dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&verified.stdout);
    assert_eq!(verified.status.code(), Some(1), "{told}");
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
