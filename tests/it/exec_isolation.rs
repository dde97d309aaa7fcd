//! What a command of `exec` has from the server, and what not: by the real binary,
//! started by a parent that has a terminal, an open file and ignored signals to leave.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::process::{Said, Serve};

/// Its master keeps the terminal alive.
fn terminal() -> (OwnedFd, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).expect("granted");
    unlockpt(&master).expect("unlocked");
    let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("a path");
    let slave = File::options().read(true).write(true).open(name).expect("its other end");
    (master, slave)
}

/// A server with one command, which is this script of the shell.
fn serve(launcher: Command, dir: &Path, script: &str) -> Serve {
    let config = dir.join("taskyard.toml");
    let script = script.replace('{', "{{").replace('}', "}}");
    fs::write(&config, format!("[exec.it]\ncommand = [\"sh\", \"-c\", {script:?}]\n")).unwrap();
    let config = config.to_str().unwrap();
    Serve::under(launcher, &dir.join("data"), &["--config", config, "--drain-timeout", "2s"])
}

fn run(server: &Serve) -> Said {
    let task = r#"{"command":"it"}"#;
    server.run(&["submit", "exec", "--args", task, "--timeout", "20s", "--wait"])
}

fn stdout(server: &Serve) -> String {
    let said = run(server).ends(0);
    let result: Value = serde_json::from_str(&said.out).expect("a JSON object");
    result["stdout"].as_str().expect("text").to_owned()
}

fn end(server: Serve) {
    server.signal(Signal::TERM);
    assert_eq!(server.end().0, Some(0));
}

#[test]
fn a_command_that_asks_the_terminal_fails_at_once() {
    let dir = TempDir::new().unwrap();
    let (_master, slave) = terminal();
    // Makes the terminal on its stdin the controlling one of a new session.
    let mut launcher = Command::new("setsid");
    launcher.arg("--ctty").stdin(Stdio::from(slave)).stdout(Stdio::null());
    let server = serve(launcher, dir.path(), "read x </dev/tty");
    let said = run(&server).ends(1);
    assert!(said.err.contains("EXIT_STATUS") && said.err.contains("/dev/tty"), "{}", said.err);
    end(server);
}

#[test]
fn a_command_has_a_session_of_its_own_and_nothing_inherited() {
    let dir = TempDir::new().unwrap();
    let launcher = || {
        let leaves =
            "exec 7</dev/null 9>&2; trap '' USR1 QUIT PIPE RTMIN; ulimit -Sn 777; exec \"$@\"";
        let mut launcher = Command::new("bash");
        launcher.args(["-c", leaves, "bash"]).stdin(Stdio::null()).stdout(Stdio::null());
        launcher
    };

    let server = serve(launcher(), dir.path(), "cat /proc/$$/stat");
    let stat = stdout(&server);
    // pid (name) state ppid pgrp session tty_nr
    let (pid, rest) = stat.split_once(' ').expect("fields");
    let fields: Vec<_> = rest.rsplit_once(") ").expect("a name").1.split(' ').collect();
    assert_eq!(fields[2..5], [pid, pid, "0"], "group, session, terminal of {pid}: {stat}");
    end(server);

    let server = serve(launcher(), dir.path(), "ls -l /proc/self/fd");
    let listed = stdout(&server);
    let of = |line: &str| Some(line.split_once(" -> ")?.1.to_owned());
    // The list itself is open to `ls`.
    let open: Vec<_> =
        listed.lines().filter_map(of).filter(|to| !to.starts_with("/proc/")).collect();
    assert_eq!(open.len(), 3, "{listed}");
    assert_eq!(open[0], "/dev/null", "{listed}");
    end(server);

    let server =
        serve(launcher(), dir.path(), "grep -E '^Sig(Ign|Blk)' /proc/self/status; ulimit -n");
    let told = stdout(&server);
    for line in told.lines().filter(|line| line.starts_with("Sig")) {
        let (_, mask) = line.split_once(':').expect("a mask");
        // 32 and 33 are the C library's own, which lets nobody change them.
        let mask = u64::from_str_radix(mask.trim(), 16).map(|mask| mask & !(3 << 31));
        assert_eq!(mask, Ok(0), "{told}");
    }
    assert!(told.ends_with("\n777\n"), "the limit of whoever started the server: {told}");
    end(server);
}
