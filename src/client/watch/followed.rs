//! One task, followed from its submission to its end.

use super::super::tasks::is_terminal;
use crate::proto::v1::{
    EventType, SubmitRequest, WatchEventsResponse, watch_events_response::Control,
};

/// The task. A stream that broke is opened by the same request, which finds the same task
/// and tells it again from its beginning.
pub struct Followed {
    /// Has a `request_id`.
    pub request: SubmitRequest,
    /// It was told that it is submitted.
    is_submitted: bool,
    /// By what was told, it has ended.
    has_ended: bool,
    /// The number of the last event that was told.
    last: u64,
}

impl Followed {
    /// The task of this request.
    pub fn new(request: SubmitRequest) -> Self {
        Self { request, is_submitted: false, has_ended: false, last: 0 }
    }

    /// Whether it has ended, so that its stream may.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes out of a message what was told by an earlier stream.
    pub fn pass_over_the_known(&mut self, message: &mut WatchEventsResponse) {
        if let Some(Control::Submitted(submitted)) = &message.control {
            let is_known = std::mem::replace(&mut self.is_submitted, true);
            // Of a task that ended long ago there may be no events any more.
            self.has_ended = is_terminal(submitted.state());
            if is_known {
                message.control = None;
            }
        }
        message.events.retain(|event| event.seq > self.last);
        if let Some(last) = message.events.last() {
            self.last = last.seq;
            self.has_ended = matches!(
                last.r#type(),
                EventType::Succeeded | EventType::Failed | EventType::Cancelled
            );
        }
    }
}
