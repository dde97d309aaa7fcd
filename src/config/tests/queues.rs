//! The tables `[queues.NAME]`, and what they have to fit to.

use super::*;
use crate::queue::Overrides;

#[test]
fn a_queue_is_declared_in_full() {
    let file = r#"
[queues.mail]
max_tasks = 7
max_bytes = "7KiB"
max_running = 2
rate_limit = "30/m"
burst = 5
weight = 3
max_attempts = 4
initial_backoff = "2s"
max_backoff = "2m"
attempt_timeout = "1d"
[queues."a.b"]
max_running = 0
rate_limit = "none"
[queues.plain]
"#;
    let mail = Overrides {
        max_tasks: Some(7),
        max_bytes: Some(7 << 10),
        max_running: Some(Some(2)),
        rate: Some(Some(Rate { per_second: 0.5, burst: 5 })),
        weight: Some(3),
        max_attempts: Some(4),
        initial_backoff: Some(Duration::from_secs(2)),
        max_backoff: Some(Duration::from_mins(2)),
        attempt_timeout: Some(Duration::from_hours(24)),
    };
    let unlimited = Overrides { max_running: Some(None), rate: Some(None), ..Overrides::default() };
    let queues = [("mail", mail), ("a.b", unlimited), ("plain", Overrides::default())];
    let queues = queues.map(|(name, own)| (name.to_owned(), own)).into();
    assert_eq!(from_file(file).load(), Ok(Config { queues, ..Config::default() }));
}

#[test]
fn everything_wrong_with_a_queue_is_told() {
    let file = r#"
[queues.Mail]
wieght = 1
colour = 1
[queues.a]
max_tasks = 0
max_bytes = 1
max_running = 10001
rate_limit = 5
burst = 0
weight = 0
max_attempts = true
initial_backoff = "1"
max_backoff = "2d"
attempt_timeout = "0s"
[queues.b]
burst = 5
[queues.c]
rate_limit = "none"
burst = 5
[queues.d]
rate_limit = "9/d"
burst = 5.5
[queues.e]
rate_limit = "8/d"
weight = 1001
[queues.f]
initial_backoff = "5m"
[queues.g]
initial_backoff = "2s"
max_backoff = "1s"
[queues]
h = 3
"#;
    let keys = "max_tasks, max_bytes, max_running, rate_limit, weight, max_attempts, \
                initial_backoff, max_backoff, attempt_timeout, burst";
    let rate =
        "a rate from 8.64/d to 1000000/s such as \"100/s\", \"30/m\" or \"5/h\", or \"none\"";
    let burst = "belongs to a rate_limit; write one beside it, such as \"100/s\"";
    let shrinks = "write a larger max_backoff or a smaller initial_backoff";
    assert_eq!(
        from_file(file).problems(),
        [
            "FILE:2:9 queues.Mail: is not a name for a queue; write lower-case letters, digits, \
             ., - and _, the first a letter or digit, at most 63 in all",
            "FILE:3:1 queues.Mail.wieght: is not a setting; did you mean weight?",
            &format!("FILE:4:1 queues.Mail.colour: is not a setting; the settings are {keys}"),
            r#"FILE:6:13 queues.a.max_tasks: "0" is not possible; write a whole number from 1 to 100000000"#,
            r#"FILE:7:13 queues.a.max_bytes: "1" is not possible; write a size from 1KiB to 1TiB"#,
            r#"FILE:8:15 queues.a.max_running: "10001" is not possible; write a whole number from 0 to 10000"#,
            r#"FILE:9:14 queues.a.rate_limit: "5" is not a rate; write one such as 100/s, 30/m, 5/h or 0.5/s, or none"#,
            r#"FILE:10:9 queues.a.burst: "0" is not possible; write a whole number from 1 to 1000000"#,
            r#"FILE:11:10 queues.a.weight: "0" is not possible; write a whole number from 1 to 1000"#,
            "FILE:12:16 queues.a.max_attempts: is a boolean; write a whole number from 1 to 100",
            r#"FILE:13:19 queues.a.initial_backoff: "1" has no unit; write 1s if seconds are meant"#,
            r#"FILE:14:15 queues.a.max_backoff: "2d" is not possible; write a duration from 1ms to 24h"#,
            r#"FILE:15:19 queues.a.attempt_timeout: "0s" is not possible; write a duration from 1ms to 30d"#,
            &format!("FILE:17:9 queues.b.burst: {burst}"),
            &format!("FILE:20:9 queues.c.burst: {burst}"),
            "FILE:23:9 queues.d.burst: is a float; write a whole number from 1 to 1000000",
            &format!(r#"FILE:25:14 queues.e.rate_limit: "8/d" is not possible; write {rate}"#),
            r#"FILE:26:10 queues.e.weight: "1001" is not possible; write a whole number from 1 to 1000"#,
            &format!(
                "FILE:28:19 queues.f.initial_backoff: a max_backoff of 1m is below the \
                 initial_backoff of 5m; {shrinks}"
            ),
            &format!(
                "FILE:31:15 queues.g.max_backoff: a max_backoff of 1s is below the \
                 initial_backoff of 2s; {shrinks}"
            ),
            "FILE:33:5 queues.h: is an integer; write a table [queues.NAME] with its settings",
        ]
    );
    assert_eq!(
        from_file("queues = 3").problems(),
        ["FILE:1:10 queues: is an integer; write tables [queues.NAME], one for each"]
    );
}

#[test]
fn the_backoff_of_a_queue_is_held_against_what_it_inherits() {
    let file = Some("[queues.a]\ninitial_backoff = \"2m\"\n");
    let flags = &["--max-backoff", "2m"];
    assert!(Given { flags, file, ..Given::default() }.load().is_ok());
    // What is inherited is unknown: only its own problem is told.
    let flags = &["--max-backoff", "soon"];
    assert_eq!(Given { flags, file, ..Given::default() }.locations(), ["--max-backoff"]);
    let flags = &["--initial-backoff", "3m", "--max-backoff", "4m"];
    let file = Some("[queues.a]\nmax_backoff = \"2m\"\n");
    assert_eq!(
        Given { flags, file, ..Given::default() }.locations(),
        ["FILE:2:15 queues.a.max_backoff"]
    );
}

#[test]
fn fixed_queues_have_to_be_declared() {
    let wrong = "is true, but no queue is declared; declare one as a table [queues.NAME] in the \
                 configuration file, or write false";
    for file in ["fixed_queues = true", "fixed_queues = true\n[queues]\n"] {
        assert_eq!(from_file(file).problems(), [format!("FILE:1:16 fixed_queues: {wrong}")]);
    }
}

#[test]
fn there_are_no_more_declared_queues_than_may_exist() {
    let queues = |count: usize| {
        (0..count).fold(String::new(), |file, number| {
            file + &format!(
                "[queues.q{number}]
"
            )
        })
    };
    let file = queues(3);
    let given = |most| Given { flags: most, file: Some(&file), ..Given::default() };
    assert!(given(&["--max-queues", "3"]).load().is_ok());
    assert_eq!(
        given(&["--max-queues", "2"]).problems(),
        ["FILE:1:2 queues: declares 3 queues, and max_queues is 2; \
          write fewer or a larger max_queues"]
    );
    assert_eq!(given(&["--max-queues", "few"]).locations(), ["--max-queues"]);
    let file = queues(10_001);
    let given = Given { flags: &["--max-queues", "100000"], file: Some(&file), ..Given::default() };
    assert_eq!(given.problems(), ["FILE:1:2 queues: declares 10001 queues; write at most 10000"]);
}
