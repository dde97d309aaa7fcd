//! `top` on a terminal of its own, against a real `serve`.

use rustix::process::Signal;

use crate::support::{
    process::{Serve, signal_to, taskyard},
    terminal::Terminal,
};

/// What takes a terminal's screen, and what gives it back.
const TAKEN: &str = "\u{1b}[?1049h";
const GIVEN_BACK: &str = "\u{1b}[?1049l";

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
