//! What a task queue is about, apart from any machine: tasks and their states, queues,
//! events, cursors, and how large a worker pool should be.
//!
//! Everything here is pure: no clocks, no I/O, no threads. Each module owns its concept
//! and its rules; the state machine is [`task::decide`].

pub mod base32;
pub mod cursor;
pub mod event;
pub mod queue;
pub mod sizing;
pub mod task;
