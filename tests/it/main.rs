//! Tests of the whole: the library's server and client, and the real binary.
//!
//! One program, as each would link all that the server needs. By `cargo test` all tests are
//! threads of one process, by `cargo nextest run` each has a process of its own; they pass
//! either way. Whoever looks at what belongs to the process uses `support::is_alone`.

mod admin;
mod backpressure;
mod bad_data_dir;
mod bad_input;
mod bad_wire;
mod blocking_handlers;
mod bulk;
mod cli;
mod cli_operate;
mod cli_terminal;
mod cli_watch;
mod client_connect;
mod client_scenarios;
mod client_watch;
mod crash;
mod crowd;
mod damage;
mod damaged_log;
mod dead_letters;
mod disk_full;
mod drain;
mod exec_isolation;
mod exec_output;
mod failures;
mod locked;
mod log_output;
mod old_formats;
mod paths;
mod power;
mod process_start;
mod published;
mod pushed_back;
mod queues;
mod races;
mod reads;
mod retry_after_crash;
mod service;
mod shutdown;
mod standards;
mod store_conformance;
mod store_model;
mod submit_and_watch;
mod submit_batch;
mod submit_stream;
mod support;
mod top;
mod values;
mod very_many;
mod watch;
mod watch_checker;
mod watch_ends;
mod watch_filters;
mod watch_hazards;
mod watch_snapshots;
mod watch_unread;
mod wire_memory;
mod wire_rules;
