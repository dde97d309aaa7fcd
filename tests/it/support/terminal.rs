//! A program on a terminal of its own.

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
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

/// The longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program on a terminal.
pub struct Terminal {
    master: File,
    /// Kept open, so that its modes can be read when the program has ended.
    slave: File,
    pub child: Child,
    output: Receiver<Vec<u8>>,
    said: Vec<u8>,
}

impl Terminal {
    pub fn run(command: Command) -> Self {
        Self::sized(command, 80)
    }

    /// So many columns wide.
    pub fn sized(mut command: Command, columns: u16) -> Self {
        command.env("TERM", "xterm-256color");
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("a path");
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
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

    pub fn shows(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.text().contains(text) {
            let left = until.saturating_duration_since(Instant::now());
            let more = self.output.recv_timeout(left);
            self.said.extend(more.unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.text())));
        }
    }

    /// As it shows once it is drawn anew: of a screen that only changes, words may be
    /// written in part.
    pub fn shows_when_drawn_anew(&mut self, text: &str) {
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

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).into_owned()
    }

    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("they are pressed");
    }

    /// Ends with this code, and leaves a terminal that echoes lines.
    pub fn ends(&mut self, code: i32) {
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
