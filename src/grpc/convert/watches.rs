//! A `WatchEventsRequest`, checked.

use std::time::Duration;

use super::{Checks, filters::event_filter};
use crate::{
    events::{Cursor, EventFilterSpec},
    handler::Violation,
    proto::v1,
};

/// A watch, checked.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Where it begins.
    pub start: WatchStart,
    /// Silence before a heartbeat, if the watcher says.
    pub heartbeat: Option<Duration>,
    /// Which events it wants.
    pub filter_spec: EventFilterSpec,
    /// First the tasks that have not ended.
    pub snapshot: bool,
    /// It ends once it has caught up.
    pub stop_when_caught_up: bool,
    /// It goes on after a gap.
    pub over_gaps: bool,
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
pub fn watch(request: v1::WatchEventsRequest) -> Result<Watch, Vec<Violation>> {
    let mut checks = Checks::default();
    let bounds = (Duration::from_millis(100), Duration::from_hours(1));
    let heartbeat = checks.duration("heartbeat_interval", request.heartbeat_interval, bounds);
    let start = start(&request, &mut checks);
    if request.include_snapshot && !request.after_cursor.is_empty() {
        checks.wrong("include_snapshot", "goes not together with after_cursor: give one of them");
    } else if request.include_snapshot && request.start != 0 {
        checks.wrong("include_snapshot", "goes not together with start: give one of them");
    }
    let over_gaps = match v1::GapPolicy::try_from(request.gap_policy) {
        Ok(v1::GapPolicy::Continue) => true,
        Ok(v1::GapPolicy::Unspecified | v1::GapPolicy::Fail) => false,
        Err(_) => {
            let wrong = format!("{} is neither FAIL (1) nor CONTINUE (2)", request.gap_policy);
            checks.wrong("gap_policy", wrong);
            false
        }
    };
    let filter_spec = event_filter(request.filter.unwrap_or_default(), &mut checks);
    checks.finish(Watch {
        start,
        heartbeat,
        filter_spec,
        snapshot: request.include_snapshot,
        stop_when_caught_up: request.stop_when_caught_up,
        over_gaps,
    })
}

fn start(request: &v1::WatchEventsRequest, checks: &mut Checks) -> WatchStart {
    let start = match v1::WatchStart::try_from(request.start) {
        Ok(v1::WatchStart::Oldest) => WatchStart::Oldest,
        Ok(v1::WatchStart::Unspecified | v1::WatchStart::Live) => WatchStart::Live,
        Err(_) => {
            checks.wrong("start", format!("{} is neither LIVE (1) nor OLDEST (2)", request.start));
            WatchStart::Live
        }
    };
    if request.after_cursor.is_empty() {
        return start;
    }
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
}
