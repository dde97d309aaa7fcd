//! The real binary, with and without the library before it.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    power::{
        control::{Control, library},
        trace::Marker,
    },
    support::{
        PATIENCE,
        process::{signal_to, taskyard},
    },
};

/// A data directory whose files are traced, over any number of processes.
#[derive(Debug)]
pub struct Traced {
    pub data_dir: PathBuf,
    pub trace: PathBuf,
    pub control: Control,
    rules: PathBuf,
    _own: TempDir,
}

impl Traced {
    pub fn of(data_dir: &Path) -> Self {
        let own = tempfile::tempdir().expect("a temporary directory");
        let (trace, rules) = (own.path().join("trace"), own.path().join("rules"));
        let control = Control::make(&rules);
        Self { data_dir: data_dir.to_owned(), trace, control, rules, _own: own }
    }

    pub fn marker(&self) -> Marker {
        Marker::open(&self.trace).expect("the trace can be written")
    }

    /// Starts the binary, traced; or tells what it said when it did not start.
    pub fn start(&self) -> Result<Server, String> {
        self.start_with(&[])
    }

    /// The same, with settings as the environment gives them.
    pub fn start_with(&self, settings: &[(&str, &str)]) -> Result<Server, String> {
        let mut command = taskyard();
        command.envs(settings.iter().copied());
        command
            .env("LD_PRELOAD", library())
            .env("POWER_DIR", &self.data_dir)
            .env("POWER_TRACE", &self.trace)
            .env("POWER_CONTROL", &self.rules);
        Server::spawn(command, &self.data_dir)
    }
}

/// A server, killed when dropped.
#[derive(Debug)]
pub struct Server {
    pub address: String,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts the binary as it is.
    pub fn plain(data_dir: &Path) -> Result<Self, String> {
        Self::spawn(taskyard(), data_dir)
    }

    fn spawn(mut command: Command, data_dir: &Path) -> Result<Self, String> {
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--workers", "2"])
            .args(["--max-crashes", "1000", "--drain-timeout", "10s", "--data-dir"])
            .arg(data_dir)
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().expect("the binary runs");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let (bound, address) = mpsc::channel();
        let lines = Arc::clone(&log);
        // Ends with the process.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    let address = rest.split_whitespace().next().expect("an address");
                    // The test may have given up.
                    let _ = bound.send(address.to_owned());
                }
                let mut lines = lines.lock().expect("nobody panics with it");
                lines.push_str(&line);
                lines.push('\n');
            }
        });
        // Also when the process has ended without it.
        let address = address.recv_timeout(PATIENCE);
        let server = Self { address: address.clone().unwrap_or_default(), child, log };
        match address {
            Ok(_) => Ok(server),
            Err(_) => Err(server.said()),
        }
    }

    /// What it has logged so far.
    pub fn said(&self) -> String {
        self.log.lock().expect("nobody panics with it").clone()
    }

    /// Asks it to drain, and waits for the end.
    pub fn drain(mut self) -> Option<i32> {
        signal_to(&self.child, Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("it was started") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end: {}", self.said());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
