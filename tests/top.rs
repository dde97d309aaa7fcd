//! `top` on a terminal of its own, against a real `serve`.

mod support;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::Signal,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use support::process::{Serve, signal_to, taskyard};

/// What takes a terminal's screen, and what gives it back.
const TAKEN: &str = "\u{1b}[?1049h";
const GIVEN_BACK: &str = "\u{1b}[?1049l";

/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program on a terminal.
struct Terminal {
    master: File,
    /// Kept open, so that its modes can be read when the program has ended.
    slave: File,
    child: Child,
    output: Receiver<Vec<u8>>,
    said: Vec<u8>,
}

impl Terminal {
    fn run(mut command: Command) -> Self {
        command.env("TERM", "xterm-256color");
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("a path");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let slave = File::options().read(true).write(true).open(name).expect("its other end");
        let end = || Stdio::from(slave.try_clone().expect("a handle"));
        let child =
            command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("it is started");
        let master = File::from(master);
        let (sender, output) = channel();
        let mut reader = master.try_clone().expect("a handle");
        // Ends with the terminal.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { master, slave, child, output, said: Vec::new() }
    }

    fn shows(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.text().contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            let more = self.output.recv_timeout(left);
            self.said.extend(more.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.text())));
        }
    }

    /// As it shows once it is drawn anew: of a screen that only changes, words may be
    /// written in part.
    fn shows_when_drawn_anew(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        for rows in [25, 24].into_iter().cycle() {
            self.said.clear();
            let size = Winsize { ws_row: rows, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&self.master, size).expect("a size");
            // Frames come at each interval, whether anything changes or not.
            while self.said.len() < 1 << 16 {
                assert!(Instant::now() < until, "no {text:?} in {:?}", self.text());
                let Ok(more) = self.output.recv_timeout(Duration::from_millis(300)) else { break };
                self.said.extend(more);
                if self.text().contains(text) {
                    return;
                }
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("they are pressed");
    }

    /// Ends with this code, and leaves a terminal that echoes lines.
    fn ends(&mut self, code: i32) {
        let status = self.child.wait().expect("it has ended");
        assert_eq!(status.code(), Some(code), "{:?}", self.text());
        let modes = tcgetattr(&self.slave).expect("modes").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO), "{modes:?}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `top` of a server with work, when it is drawn; blanks are not written.
fn top(serve: &Serve) -> Terminal {
    serve.submit(&["noop", "--queue", "mail"]);
    let mut terminal = Terminal::run(serve.command(&["top", "--interval", "100ms"]));
    for text in [TAKEN, "live", "queues", "mail", "worker-2", "events", "quit"] {
        terminal.shows(text);
    }
    terminal
}

#[test]
fn it_gives_the_terminal_back_however_it_ends() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("data"), &[]);
    for keys in ["q", "\u{3}", "\u{1b}", "?3z q"] {
        let mut terminal = top(&serve);
        terminal.press(keys);
        terminal.ends(0);
        terminal.shows(GIVEN_BACK);
        terminal.shows("\u{1b}[?25h");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut terminal = top(&serve);
        signal_to(&terminal.child, signal);
        terminal.ends(0);
        terminal.shows(GIVEN_BACK);
    }
}

#[test]
fn another_store_in_the_old_ones_place_is_news() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("old"), &[]);
    let address = serve.address.trim_start_matches("http://").to_owned();
    let mut terminal = top(&serve);
    serve.signal(Signal::KILL);
    serve.end();
    let serve = Serve::at(&address, &dir.path().join("new"), &[]);
    let task = serve.submit(&["noop", "--queue", "post"]);
    terminal.shows_when_drawn_anew(&task);
    // And what comes then.
    let task = serve.submit(&["noop", "--queue", "post"]);
    terminal.shows_when_drawn_anew(&task);
    terminal.press("q");
    terminal.ends(0);
}

#[test]
fn a_missing_server_is_told_before_the_screen_is_taken() {
    let mut command = taskyard();
    command.args(["top", "--server", "127.0.0.1:1"]);
    let mut terminal = Terminal::run(command);
    terminal.ends(4);
    terminal.shows("no server answers at http://127.0.0.1:1");
    terminal.shows("taskyard serve");
    assert!(!terminal.text().contains(TAKEN), "{:?}", terminal.text());
}

#[test]
fn what_cannot_work_is_told_without_a_screen() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("data"), &[]);
    // No terminal at all.
    assert!(serve.run(&["top"]).ends(2).err.contains("top draws on a terminal"));
    let mut terminal = Terminal::run(serve.command(&["top", "--queue", "A B"]));
    terminal.ends(3);
    terminal.shows("filter.queues[0]");
    assert!(!terminal.text().contains(TAKEN), "{:?}", terminal.text());
}
