//! A disk of its own: a tmpfs that nobody else sees and that goes with the test.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::fs::statvfs;
use tempfile::TempDir;

/// A file system of a given size, in a mount namespace that a helper process keeps. The
/// server enters it; the test reaches it by way of the helper.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    mounted_at: TempDir,
}

impl SmallDisk {
    /// # Panics
    /// If it cannot be mounted. There is no way to test a full disk without one.
    pub fn of(bytes: u64) -> Self {
        let mounted_at = tempfile::tempdir().expect("a temporary directory");
        // The helper ends with its standard input: when the test does, in whatever way.
        let script = "mount -t tmpfs -o size=$1 tmpfs \"$2\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(namespaces())
            .args(["sh", "-c", script, "sh", &bytes.to_string()])
            .arg(mounted_at.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare, of util-linux, is there");
        let mut said = String::new();
        let stdout = holder.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut said).expect("text");
        if said != "mounted\n" {
            let mut why = String::new();
            let _ = holder.stderr.take().expect("it is piped").read_to_string(&mut why);
            panic!(
                "cannot mount a tmpfs in a namespace of its own: {why}; run this test as root, \
                 or where unprivileged user namespaces are allowed"
            );
        }
        Self { holder, mounted_at }
    }

    /// Where it is for those who [enter](Self::enter).
    pub fn inside(&self) -> &Path {
        self.mounted_at.path()
    }

    /// A command that runs the command of its arguments with this disk.
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.id().to_string());
        command.args(if is_root() { &["--mount"][..] } else { &["--user", "--mount"] });
        if !is_root() {
            command.arg("--preserve-credentials");
        }
        command.arg("--");
        command
    }

    /// Writes a file of other people's until only so much is free.
    pub fn fill(&self, leave: u64) {
        let mut file = File::options().create(true).append(true).open(self.filler());
        let file = file.as_mut().expect("the disk can be written to");
        loop {
            let too_much = self.free().saturating_sub(leave);
            let part = usize::try_from(too_much.min(1 << 20)).expect("a mebibyte at most");
            if part == 0 || file.write_all(&vec![0; part]).is_err() {
                break;
            }
            // A tmpfs gives whole pages.
            if too_much < 4_096 {
                break;
            }
        }
        assert!(self.free() <= leave.max(4_096), "{} bytes are still free", self.free());
    }

    /// Removes what [`fill`](Self::fill) has written.
    pub fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it is there");
    }

    fn filler(&self) -> PathBuf {
        self.outside().join("filler")
    }

    /// Where it is for the test.
    fn outside(&self) -> PathBuf {
        let path = self.mounted_at.path().strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(path)
    }

    /// Bytes.
    fn free(&self) -> u64 {
        let found = statvfs(self.outside()).expect("the disk is there");
        found.f_bavail * found.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn namespaces() -> &'static [&'static str] {
    if is_root() { &["--mount"] } else { &["--map-root-user", "--mount"] }
}
