//! How what is wrong is told: all of it, each with its location and what would be right.

use super::*;

#[test]
fn every_problem_is_told_with_its_place() {
    let file = r#"
workers = 0
drain_timeout = 30
colour = "blue"
drian_timeout = "30s"
max_attempts = 1.5

[exec.Bad]
command = ["{program}", "{file"]
"#;
    let right =
        "write lower-case letters, digits, - and _, the first a letter or digit, at most 63 in all";
    let keys = settings().map(super::settings::Setting::key).collect::<Vec<_>>().join(", ");
    let variables = &[("TASKYARD_WORKERS", "many"), ("TASKYARD_WORKER", "3")];
    let flags = &["--listen", "nowhere", "--log", "="];
    assert_eq!(
        Given { flags, variables, file: Some(file) }.problems(),
        [
            r#"FILE:2:11 workers: "0" is not possible; write a whole number from 1 to 10000"#,
            r#"FILE:3:17 drain_timeout: "30" has no unit; write 30s if seconds are meant"#,
            &format!("FILE:4:1 colour: is not a setting; the settings are {keys}, exec, queues"),
            "FILE:5:1 drian_timeout: is not a setting; did you mean drain_timeout?",
            "FILE:6:16 max_attempts: is a float; write a whole number from 1 to 100",
            &format!("FILE:8:7 exec.Bad: is not a name for a command; {right}"),
            "FILE:9:12 exec.Bad.command[0]: names a program that a task could choose; \
             write one without a placeholder",
            "FILE:9:25 exec.Bad.command[1]: \"{file\" has a { that is not closed; \
             write {name}, or {{ for a brace itself",
            "TASKYARD_WORKER: is not a setting; did you mean TASKYARD_WORKERS?",
            r#"TASKYARD_WORKERS: "many" is not possible; write a whole number from 1 to 10000"#,
            r#"--listen: "nowhere" is not possible; write an IP address or localhost, and a port, such as 127.0.0.1:50051 or [::]:50051"#,
            r#"--log: "=" is not possible; write a level or directives, such as info or warn,taskyard=debug"#,
        ]
    );
}

#[test]
fn the_list_reads_well() {
    let given = Given { flags: &["--workers", "x", "--heartbeat", "1"], ..Given::default() };
    assert_eq!(
        given.load().expect_err("has problems").to_string(),
        "the configuration has 2 problems:\n  \
           --heartbeat: \"1\" has no unit; write 1s if seconds are meant\n  \
           --workers: \"x\" is not possible; write a whole number from 1 to 10000"
    );
    let given = Given { flags: &["--workers", "x"], ..Given::default() };
    let message = given.load().expect_err("has problems").to_string();
    assert!(message.starts_with("the configuration has 1 problem:\n"), "{message}");
}

#[test]
fn a_long_value_is_cut() {
    let value = "9".repeat(100_000);
    let message = Given { flags: &["--workers", &value], ..Given::default() }.problems();
    assert!(message[0].len() < 200, "{}", message[0].len());
}

#[test]
fn columns_count_characters() {
    let locations = from_file("exec = { \"é\" = 1 }").locations();
    assert_eq!(locations, ["FILE:1:10 exec.é", "FILE:1:16 exec.é"]);
}

#[test]
fn every_syntax_error_is_told_and_nothing_is_guessed_from_its_line() {
    let locations =
        from_file("workers = = 3\nmax_attempts = 0\nlog_format = text\n[exec\n").locations();
    assert_eq!(locations, ["FILE:1:11", "FILE:2:16 max_attempts", "FILE:3:14", "FILE:4:6"]);
}

#[test]
fn a_broken_table_is_one_problem() {
    let locations =
        from_file("[exec.a\ncommand = [\"a\"]\nmax_output = 1\n[exec.b]\nx = 1\n").locations();
    assert_eq!(locations, ["FILE:1:8", "FILE:4:7 exec.b.command", "FILE:5:1 exec.b.x"]);
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let given = Given { flags: &["--config", "/does/not/exist"], ..Given::default() };
    let problems = given.problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("--config: cannot read \"/does/not/exist\": "), "{problems:?}");
    let binary = NamedTempFile::new().expect("a temporary file");
    std::fs::write(binary.path(), b"workers = \xff").expect("written");
    let problems = load_from(&[], vec![("TASKYARD_CONFIG".into(), binary.path().into())]);
    let problems = problems.expect_err("not text").to_string();
    assert!(problems.contains("it is not UTF-8 text after byte 10"), "{problems}");
}

#[test]
fn everything_wrong_with_a_command_is_told() {
    let file = r#"
[exec.a]
command = []
working_dir = ""
max_output = "2MiB"
commnad = 1
[exec.b]
command = [1, "\u0000", "}"]
working_dir = 1
env = { "A=B" = "x", C = 1 }
max_output = true
[exec.c]
env = 1
[exec]
d = 1
"#;
    assert_eq!(
        from_file(file).locations(),
        [
            "FILE:3:11 exec.a.command",
            "FILE:4:15 exec.a.working_dir",
            "FILE:5:14 exec.a.max_output",
            "FILE:6:1 exec.a.commnad",
            "FILE:8:12 exec.b.command[0]",
            "FILE:8:15 exec.b.command[1]",
            "FILE:8:25 exec.b.command[2]",
            "FILE:9:15 exec.b.working_dir",
            "FILE:10:9 exec.b.env.A=B",
            "FILE:10:26 exec.b.env.C",
            "FILE:11:14 exec.b.max_output",
            "FILE:12:7 exec.c.command",
            "FILE:13:7 exec.c.env",
            "FILE:15:5 exec.d",
        ]
    );
    assert_eq!(from_file("exec = 3").locations(), ["FILE:1:8 exec"]);
}
