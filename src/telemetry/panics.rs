//! Panics as log lines.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic, thread,
};

use super::Throttle;
use crate::supervisor::message_of;

/// Handlers may panic as often as tasks are submitted for them. What has failed for it is
/// told by a line of its own.
static PANICS: Throttle = Throttle::new("there were panics");

/// From now on panics are log lines, in the format of the others.
pub fn log_panics() {
    panic::set_hook(Box::new(|info| {
        let cause = message_of(info.payload());
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        PANICS.line(|left_out| {
            tracing::error!(thread, place, cause, left_out, "panicked");
            // A line of its own: finding its names takes long, and the process may end meanwhile.
            let backtrace = Backtrace::capture();
            if backtrace.status() == BacktraceStatus::Captured {
                tracing::error!(thread, %backtrace, "the way to the panic");
            }
        });
    }));
}
