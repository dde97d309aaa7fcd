//! The settings through [`args`] and [`load`], as `serve` uses them.

use std::{collections::BTreeSet, ffi::OsString, io::Write};

use clap::Command;
use tempfile::NamedTempFile;

use super::{table::settings, *};
use crate::queue::Rate;

mod problems;
mod queues;

/// Loads what a command line, an environment and a file say.
#[derive(Default)]
struct Given<'g> {
    flags: &'g [&'g str],
    variables: &'g [(&'g str, &'g str)],
    file: Option<&'g str>,
}

impl Given<'_> {
    fn load(&self) -> Result<Config, Problems> {
        let mut variables = self.variables.iter().map(os).collect::<Vec<_>>();
        let file = self.file.map(written);
        if let Some(file) = &file {
            variables.push(("TASKYARD_CONFIG".into(), file.path().into()));
        }
        load_from(self.flags, variables)
    }

    /// The problems, one a line, the file's name left out.
    fn problems(&self) -> Vec<String> {
        let problems = self.load().expect_err("has problems");
        problems.iter().map(|problem| without_file(problem).to_string()).collect()
    }

    /// The locations of the problems, the file's name left out.
    fn locations(&self) -> Vec<String> {
        let problems = self.load().expect_err("has problems");
        problems.iter().map(|problem| without_file(problem).location.to_string()).collect()
    }
}

fn os((name, value): &(&str, &str)) -> (OsString, OsString) {
    (name.into(), value.into())
}

fn written(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn load_from(flags: &[&str], variables: Vec<(OsString, OsString)>) -> Result<Config, Problems> {
    let command = Command::new("serve").args(args());
    let matches = command.try_get_matches_from([&["serve"], flags].concat());
    load(&matches.expect("clap takes any value"), variables)
}

fn without_file(problem: &Problem) -> Problem {
    let mut problem = problem.clone();
    if let Location::File { file, .. } = &mut problem.location {
        *file = "FILE".into();
    }
    problem
}

fn from_file(text: &str) -> Given<'_> {
    Given { file: Some(text), ..Given::default() }
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(Given::default().load(), Ok(Config::default()));
}

#[test]
fn a_flag_goes_before_the_environment_before_the_file() {
    let file = Some("workers = 1\nmax_attempts = 1\nmax_crashes = 1\n");
    let variables = &[("TASKYARD_WORKERS", "2"), ("TASKYARD_MAX_ATTEMPTS", "2")];
    let config = Given { flags: &["--workers", "3"], variables, file }.load().expect("no problem");
    assert_eq!((config.workers.get(), config.max_attempts, config.max_crashes), (3, 2, 1));
}

#[test]
fn the_flag_names_the_file_before_the_environment() {
    let (flag, variable) = (written("max_attempts = 7"), written("max_attempts = 8"));
    let path = flag.path().to_str().expect("UTF-8");
    let variables = vec![("TASKYARD_CONFIG".into(), variable.path().into())];
    let config = load_from(&["--config", path], variables).expect("no problem");
    assert_eq!(config.max_attempts, 7);
}

#[test]
fn every_default_reads_back_from_each_source() {
    let config = Config::default();
    for setting in settings() {
        let (flag, variable, text) =
            (format!("--{}", setting.name), setting.variable(), setting.show(&config));
        let file = format!("{} = {text:?}", setting.key());
        for given in [
            Given { flags: &[&flag, &text], ..Given::default() },
            Given { variables: &[(&variable, &text)], ..Given::default() },
            from_file(&file),
        ] {
            assert_eq!(given.load().as_ref(), Ok(&config), "{}", setting.name);
        }
    }
}

#[test]
fn every_setting_reaches_its_own_field() {
    let others = [
        ("listen", "[::1]:7"),
        ("data-dir", "elsewhere"),
        ("durability", "memory"),
        ("disk-reserve", "7MiB"),
        ("workers", "7"),
        ("drain-timeout", "7s"),
        ("cancel-grace", "7s"),
        ("queue-max-tasks", "7"),
        ("queue-max-bytes", "7KiB"),
        ("max-queues", "7"),
        ("room-timeout", "7s"),
        ("max-payload", "7KiB"),
        ("max-message", "7MiB"),
        ("max-result", "7KiB"),
        ("max-log", "7MiB"),
        ("attempt-timeout", "7s"),
        ("max-attempts", "7"),
        ("initial-backoff", "7s"),
        ("max-backoff", "7s"),
        ("keep-finished", "7d"),
        ("keep-failed", "8d"),
        ("max-finished", "7"),
        ("max-finished-bytes", "7MiB"),
        ("keep-events", "7d"),
        ("max-events", "7000"),
        ("max-crashes", "7"),
        ("heartbeat", "7s"),
        ("max-watchers", "7"),
        ("max-watchers-per-connection", "7"),
        ("max-watchers-per-peer", "7"),
        ("watch-stall-timeout", "7s"),
        ("watch-lifetime", "7s"),
        ("max-connections", "7"),
        ("max-connections-per-address", "7"),
        ("max-request-bytes", "77MiB"),
        ("max-response-bytes", "77MiB"),
        ("response-stall-timeout", "7s"),
        ("fixed-queues", "true"),
        ("log", "debug"),
        ("log-format", "json"),
    ];
    assert_eq!(others.len(), settings().count());
    for (name, value) in others {
        // True without a declared queue is a mistake, which has a test of its own.
        let queue = "[queues.a]\n";
        let file = (name == "fixed-queues").then_some(queue);
        let flag = format!("--{name}");
        let config = Given { flags: &[&flag, value], file, ..Given::default() }.load().expect(name);
        for setting in settings() {
            let expected =
                if setting.name == name { value } else { &setting.show(&Config::default()) };
            assert_eq!(setting.show(&config), expected, "--{name} changed {}", setting.name);
        }
    }
}

#[test]
fn a_watch_has_a_second_at_least_or_is_not_limited() {
    for flag in ["--watch-stall-timeout", "--watch-lifetime"] {
        let load = |value| Given { flags: &[flag, value], ..Given::default() }.load();
        for right in ["0s", "1s"] {
            assert!(load(right).is_ok(), "{flag} {right}");
        }
        for wrong in ["1ms", "999ms"] {
            let problems = load(wrong).expect_err("it is too short");
            let said = format!("{problems:?}");
            assert!(said.contains("write 0s, or a duration from 1s to"), "{said}");
        }
    }
}

#[test]
fn every_setting_is_documented_with_its_bounds_and_default() {
    let mut names = BTreeSet::new();
    for setting in settings() {
        let help = setting.help();
        assert!(names.insert(setting.name), "{} is there twice", setting.name);
        assert!(help.contains(&setting.right()) && help.contains("[default: "), "{help}");
        assert!(!help.contains('\n') && !setting.placeholder().is_empty(), "{help}");
    }
    let workers = settings().find(|setting| setting.name == "drain-timeout").expect("there");
    assert_eq!(
        workers.help(),
        "How long a drain may take in all: a duration from 0s to 1h [default: 30s]"
    );
}

#[test]
fn bounds_are_included_and_what_is_beyond_is_not() {
    for (setting, within, beyond) in [
        ("--workers", ["1", "10000"], ["0", "10001"]),
        ("--drain-timeout", ["0s", "1h"], ["-1s", "1h 1ns"]),
        ("--queue-max-tasks", ["1", "100000000"], ["0", "100000001"]),
        ("--queue-max-bytes", ["1KiB", "1TiB"], ["1023", "1025GiB"]),
        ("--max-message", ["1088KiB", "256MiB"], ["-1", "257MiB"]),
        ("--max-result", ["0", "64MiB"], ["-1", "65MiB"]),
        ("--max-log", ["4MiB", "1TiB"], ["4095KiB", "1025GiB"]),
        ("--attempt-timeout", ["1ms", "30d"], ["999us", "721h"]),
        ("--initial-backoff", ["1ms", "1m"], ["999us", "24h 1ns"]),
        ("--max-backoff", ["1s", "1d"], ["0s", "25h"]),
        ("--keep-finished", ["0s", "3650d"], ["-1s", "3651d"]),
        ("--keep-failed", ["0s", "3650d"], ["-1s", "3651d"]),
        ("--keep-events", ["0s", "3650d"], ["-1s", "3651d"]),
        ("--max-finished", ["0", "1000000000"], ["-1", "1000000001"]),
        ("--max-finished-bytes", ["1MiB", "1PiB"], ["1023KiB", "1025TiB"]),
        ("--max-events", ["1000", "100000000000"], ["999", "100000000001"]),
        ("--fixed-queues", ["false", " false "], ["yes", ""]),
        ("--heartbeat", ["100ms", "1h"], ["99ms", "61m"]),
        ("--listen", ["localhost:0", "[::]:1"], ["localhost", "example.com:1"]),
        ("--log", ["info", "warn,taskyard=debug"], ["taskyard=loud", "=,="]),
        ("--durability", ["os", "memory"], ["", "FSYNC"]),
        ("--data-dir", [".", "a b"], ["", "a\0b"]),
    ] {
        for value in within {
            let flags = &[setting, value];
            assert!(Given { flags, ..Given::default() }.load().is_ok(), "{setting} {value}");
        }
        for value in beyond {
            let flag = format!("{setting}={value}");
            assert_eq!(
                Given { flags: &[&flag], ..Given::default() }.locations(),
                [setting],
                "{flag}"
            );
        }
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    let variables = &[
        ("TASKYARD_SERVER", "http://localhost:1"),
        ("TASKYARD_PORT", "tcp://10.0.0.1:50051"),
        ("TASKYARD_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ("TASKYARD_SERVICE_HOST", "10.0.0.1"),
        ("TASKYARD_TASK_ID", "t1"),
        ("TASKYARD_WORKERS", ""),
        ("TASKYARDS", "1"),
        ("HOME", "/"),
    ];
    assert_eq!(Given { variables, ..Given::default() }.load(), Ok(Config::default()));
}

#[test]
fn a_file_may_begin_with_a_byte_order_mark() {
    let with = from_file("\u{feff}workers = 3\n").load();
    assert!(with.is_ok() && with == from_file("workers = 3\n").load(), "{with:?}");
    // Locations are told as an editor shows them.
    assert_eq!(
        from_file("\u{feff}workrs = 3\n").locations(),
        from_file("workrs = 3\n").locations()
    );
}

#[test]
fn a_message_has_room_for_a_payload() {
    let given = Given { flags: &["--max-payload", "4MiB"], ..Given::default() };
    assert_eq!(
        given.problems(),
        ["--max-payload: a max_message of 4MiB has no room for a max_payload of 4MiB; \
          write a max_message of at least 4160KiB, or a smaller max_payload"]
    );
    let flags = &["--max-payload", "4MiB", "--max-message", "4160KiB"];
    assert!(Given { flags, ..Given::default() }.load().is_ok());
    let flags = &["--max-payload", "4MiB", "--max-message", "big"];
    assert_eq!(Given { flags, ..Given::default() }.locations(), ["--max-message"]);
}

#[test]
fn a_result_has_room_for_an_output() {
    let file = "max_result = \"1MiB\"\n[exec.a]\ncommand = [\"a\"]\nmax_output = \"90KiB\"\n";
    assert_eq!(from_file(file).locations(), ["FILE:4:14 exec.a.max_output"]);
    let file = "max_result = 1024\n[exec.a]\ncommand = [\"a\"]\n";
    assert_eq!(from_file(file).locations(), ["FILE:2:7 exec.a.max_output"]);
}

#[test]
fn a_command_is_declared_in_full() {
    let file = r#"
[exec.checksum]
command = ["sha256sum", "--", "{file}", "{{}}"]
working_dir = "/srv"
env = { LC_ALL = "C" }
max_output = "1KiB"
"#;
    let command = ExecCommand {
        command: ["sha256sum", "--", "{file}", "{{}}"].map(String::from).to_vec(),
        working_dir: Some("/srv".into()),
        env: BTreeMap::from([("LC_ALL".into(), "C".into())]),
        max_output: 1024,
    };
    let exec = BTreeMap::from([("checksum".to_owned(), command)]);
    assert_eq!(from_file(file).load(), Ok(Config { exec, ..Config::default() }));
}

#[test]
fn a_backoff_does_not_shrink() {
    let wrong = "a max_backoff of 1m is below the initial_backoff of 2m; \
                 write a larger max_backoff or a smaller initial_backoff";
    let flags = &["--initial-backoff", "2m"];
    let given = Given { flags, ..Given::default() };
    assert_eq!(given.problems(), [format!("--initial-backoff: {wrong}")]);
    let flags = &["--initial-backoff", "2m", "--max-backoff", "1m"];
    let given = Given { flags, ..Given::default() };
    assert_eq!(given.problems(), [format!("--max-backoff: {wrong}")]);
    let flags = &["--initial-backoff", "2m", "--max-backoff", "soon"];
    assert_eq!(Given { flags, ..Given::default() }.locations(), ["--max-backoff"]);
    let flags = &["--initial-backoff", "2m", "--max-backoff", "2m"];
    assert!(Given { flags, ..Given::default() }.load().is_ok());
}

#[test]
fn a_switch_may_stand_alone_and_be_a_boolean() {
    let file = Some("[queues.a]\n");
    for flags in [&["--fixed-queues"][..], &["--fixed-queues", "--workers", "2"]] {
        assert!(Given { flags, file, ..Given::default() }.load().expect("right").fixed_queues);
    }
    assert!(from_file("fixed_queues = true\n[queues.a]\n").load().expect("right").fixed_queues);
    assert_eq!(
        from_file("fixed_queues = 1\nworkers = true").problems(),
        [
            r#"FILE:1:16 fixed_queues: "1" is not possible; write true or false"#,
            "FILE:2:11 workers: is a boolean; write a whole number from 1 to 10000",
        ]
    );
}

const EXAMPLE: &str = include_str!("../../docs/taskyard.example.toml");

/// The example with every line that sets something made to set it.
fn example_in_force() -> String {
    let active = |line: &'static str| match line.strip_prefix("#") {
        Some(setting) if !setting.starts_with(' ') => setting,
        _ => line,
    };
    EXAMPLE.lines().map(active).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_as_it_stands_changes_nothing() {
    assert_eq!(from_file(EXAMPLE).load(), Ok(Config::default()));
}

#[test]
fn the_example_shows_every_setting_at_its_default() {
    let text = example_in_force();
    let mut config = from_file(&text).load().expect("no problem");
    let exec = std::mem::take(&mut config.exec);
    let queues = std::mem::take(&mut config.queues);
    assert_eq!(queues.keys().collect::<Vec<_>>(), ["mail"]);
    let rate = Some(Rate { per_second: 100.0, burst: 1 });
    let shown = queue::Settings { rate, ..config.queue_config().defaults };
    assert_eq!(queues["mail"].over(queue::Settings::default()), shown);
    assert_eq!(queues["mail"].names().count(), queue::Field::ALL.len());
    // The one default that differs between machines.
    let workers = Config::default().workers;
    assert_eq!(Config { workers, ..config }, Config { workers, ..Config::default() });
    assert_eq!(exec.keys().collect::<Vec<_>>(), ["checksum"]);
    let (text, _) = text.split_once("[queues.mail]").expect("the queue is after the settings");
    for setting in settings() {
        let key = format!("\n{} = ", setting.key());
        assert_eq!(text.matches(&key).count(), 1, "{}", setting.key());
        assert!(text.contains(&setting.right()), "{} is without its bounds", setting.key());
    }
}
