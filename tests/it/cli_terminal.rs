//! What commands show on a terminal: the real binary on one of its own.

use std::{fs, process::Command};

use crate::support::{
    process::{Serve, taskyard},
    terminal::Terminal,
};

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

#[test]
fn tables_and_events_fit_the_terminal() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serve = Serve::start(&dir.path().join("data"), &[]);
    let long = "reports-of-all-customers-in-production-of-the-last-quarter";
    let id = serve.submit(&["noop", "--queue", long]);
    serve.run(&["wait", &id]).ends(0);
    for columns in [80, 100, 200] {
        let commands: [&[&str]; 4] = [
            &["list"],
            &["queues"],
            &["workers"],
            &["watch", "--from-start", "--task", &id, "--count", "3"],
        ];
        for args in commands {
            let mut terminal = Terminal::sized(serve.command(args), columns);
            terminal.ends(0);
            terminal.shows(if args == ["workers"] { "worker-2" } else { "repor" });
            let told = terminal.text();
            let lines: Vec<_> = told.lines().filter(|line| !line.contains("to go on")).collect();
            let fits = |line: &&str| line.chars().count() <= columns.into();
            assert!(lines.iter().all(fits), "{args:?} at {columns}: {told}");
            // Not more than the time of the day, unless midnight has just passed.
            let has_date = |line: &&&str| line.starts_with("20") && line.get(4..5) == Some("-");
            assert_eq!(lines.iter().filter(has_date).count(), 0, "{args:?} at {columns}: {told}");
        }
    }
    // Where nobody looks at a terminal there is everything, as in JSON.
    for args in [&["list"][..], &["queues"], &["list", "--wide"]] {
        assert!(serve.run(args).ends(0).out.contains(long), "{args:?}");
    }
    let mut terminal = Terminal::sized(serve.command(&["list", "--wide"]), 80);
    terminal.shows(long);
    terminal.ends(0);
}
