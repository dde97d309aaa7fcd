//! A configuration file: any text is taken, or refused with words that name places in it.

#![no_main]

use std::{ffi::OsString, sync::LazyLock};

use clap::{ArgMatches, Command};
use taskyard::config;

/// Of a command line without any flags.
static MATCHES: LazyLock<ArgMatches> =
    LazyLock::new(|| Command::new("fuzz").args(config::args()).get_matches_from(["fuzz"]));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let path = taskyard_fuzz::path();
    std::fs::write(path, data).expect("it can be written");
    let named = [(OsString::from("TASKYARD_CONFIG"), path.as_os_str().to_owned())];
    // What is said of a value has room for some of it, and a file may have very many.
    let bound = 4_000 * data.len() + (1 << 20);
    let matches = &*MATCHES;
    let loaded = taskyard_fuzz::within(bound, || config::load(matches, named));
    match loaded {
        Ok(config) => {
            assert!(config.queue_max_tasks > 0 && config.max_payload > 0, "{config:?}");
            assert!(config.heartbeat > std::time::Duration::ZERO, "{config:?}");
        }
        Err(problems) => {
            assert!(problems.iter().count() > 0, "it is refused, and nothing is wrong");
            for problem in problems.iter() {
                assert!(!problem.wrong.is_empty(), "{problem:?}");
                assert!(problem.wrong.len() < 2_000, "{problem:?}");
            }
        }
    }
});
