//! A `WatchEventsRequest`, checked.

use std::time::Duration;

use super::Checks;
use crate::{events::Cursor, handler::Violation, proto::v1};

/// A watch, checked.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Where it begins.
    pub start: WatchStart,
    /// Silence before a heartbeat, if the watcher says.
    pub heartbeat: Option<Duration>,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With the next event.
    Live,
    /// With the oldest.
    Oldest,
    /// After this cursor.
    After(Cursor),
}

/// Checks a watch.
///
/// # Errors
/// Everything that is wrong with it.
pub fn watch(request: &v1::WatchEventsRequest) -> Result<Watch, Vec<Violation>> {
    let mut checks = Checks::default();
    let bounds = (Duration::from_millis(100), Duration::from_hours(1));
    let heartbeat = checks.duration("heartbeat_interval", request.heartbeat_interval, bounds);
    let start = match v1::WatchStart::try_from(request.start) {
        Ok(v1::WatchStart::Oldest) => WatchStart::Oldest,
        Ok(v1::WatchStart::Unspecified | v1::WatchStart::Live) => WatchStart::Live,
        Err(_) => {
            checks.wrong("start", format!("{} is neither LIVE (1) nor OLDEST (2)", request.start));
            WatchStart::Live
        }
    };
    let start = if request.after_cursor.is_empty() {
        start
    } else {
        if request.start != 0 {
            checks.wrong("start", "goes not together with after_cursor: give one of them");
        }
        match request.after_cursor.parse() {
            Ok(cursor) => WatchStart::After(cursor),
            Err(wrong) => {
                checks.wrong("after_cursor", format!("{wrong}"));
                start
            }
        }
    };
    checks.finish(Watch { start, heartbeat })
}
