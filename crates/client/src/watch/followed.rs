//! One task, followed from its submission to its end.

use taskyard_proto::v1::{
    Event, EventFilter, EventType, SubmitRequest, WatchEventsResponse,
    watch_events_response::Control,
};

use super::super::tasks::is_terminal;

/// The task. Until it is known to be submitted, a stream that broke is opened by the same
/// request, which finds the same task. From then on its events are watched: the server
/// forgets the `request_id` with the task, and would then run it again.
pub struct Followed {
    /// Has a `request_id`.
    pub request: SubmitRequest,
    /// Of the task, once it was told that it is submitted.
    task_id: Option<String>,
    /// By what was told, it has ended.
    has_ended: bool,
    /// Its end was among the events that were told.
    end_is_told: bool,
    /// The number of the last event that was told.
    last: u64,
}

impl Followed {
    /// The task of this request.
    pub fn new(request: SubmitRequest) -> Self {
        Self { request, task_id: None, has_ended: false, end_is_told: false, last: 0 }
    }

    /// What to watch, once it is known to be submitted.
    pub fn filter(&self) -> Option<EventFilter> {
        let task_ids = vec![self.task_id.clone()?];
        Some(EventFilter { task_ids, ..EventFilter::default() })
    }

    /// Whether it has ended, so that the stream of its submission may.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether its last event so far was its end, so that there is nothing more to watch.
    pub fn end_is_told(&self) -> bool {
        self.end_is_told
    }

    /// Takes out of a message what was told by an earlier stream.
    pub fn pass_over_the_known(&mut self, message: &mut WatchEventsResponse) {
        if let Some(Control::Submitted(submitted)) = &message.control {
            let before = self.task_id.replace(submitted.task_id.clone());
            // Of a task that ended long ago there may be no events any more.
            self.has_ended = is_terminal(submitted.state());
            if before.is_some() {
                message.control = None;
            }
        }
        message.events.retain(|event| event.seq > self.last);
        if let Some(last) = message.events.last() {
            self.last = last.seq;
            self.end_is_told = ends(last);
            self.has_ended = self.end_is_told;
        }
    }
}

/// Whether it is the last event of a task, unless that is redriven.
fn ends(event: &Event) -> bool {
    matches!(event.r#type(), EventType::Succeeded | EventType::Failed | EventType::Cancelled)
}
