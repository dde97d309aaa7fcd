//! What commands show on a terminal: the real binary on one of its own.

mod support;

use std::{fs, process::Command};

use support::{process::taskyard, terminal::Terminal};

/// In the foreground of its terminal, where Ctrl-C reaches it.
fn in_the_foreground(args: &[&str]) -> Command {
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg(taskyard().get_program()).args(args);
    command
}

#[test]
fn ctrl_c_leaves_no_torn_block_of_the_demo() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    // A file that takes a while to read, of which each worker gets several.
    let large = fs::File::create(dir.path().join("0")).expect("a file");
    large.set_len(1 << 30).expect("it is sparse");
    for copy in 1..8 {
        fs::hard_link(dir.path().join("0"), dir.path().join(copy.to_string())).expect("a link");
    }
    let path = dir.path().to_str().expect("a path");
    let mut terminal = Terminal::run(in_the_foreground(&["demo", path]));
    terminal.shows("/8");
    terminal.press("\u{3}");
    terminal.shows("stopping: running tasks may finish");
    // Echoed at the right edge it would move the lines below before they are cleared.
    assert!(!terminal.text().contains("^C"), "{:?}", terminal.text());
    terminal.press("\u{3}");
    terminal.ends(130);
}
