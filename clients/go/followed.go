package taskyard

import (
	"slices"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// followed is one task, from its submission on. Until it was told that it is submitted, a
// stream that broke is opened by the same request, which finds the same task. From then on
// its events are watched: the server may have forgotten the request_id with the task, and
// would then run it again.
type followed struct {
	request *taskyardv1.SubmitRequest
	// submitted: it was told that it is submitted.
	submitted bool
	taskID    string
	// ended: by what was told, it has ended, so that the stream of its submission may.
	ended bool
	// hadEnded: it had when it was submitted. What is kept of its events has happened, and
	// its end may not be among them.
	hadEnded bool
	// endTold: the last event that was told is its end, so that there is nothing more to
	// watch.
	endTold bool
	// last is the number of the last event that was told.
	last uint64
}

// filter lets only this task's events through. It is nil until the task is submitted.
func (f *followed) filter() *taskyardv1.EventFilter {
	if !f.submitted {
		return nil
	}
	return &taskyardv1.EventFilter{TaskIds: []string{f.taskID}}
}

// passOverTheKnown takes out of a message what was told by an earlier stream.
func (f *followed) passOverTheKnown(message *taskyardv1.WatchEventsResponse) {
	if submitted := message.GetSubmitted(); submitted != nil {
		// Of a task that ended long ago there may be no events any more.
		f.hadEnded = IsTerminal(submitted.GetState())
		f.ended = f.hadEnded
		if f.submitted {
			message.Control = nil
		}
		f.submitted, f.taskID = true, submitted.GetTaskId()
	}
	message.Events = slices.DeleteFunc(message.Events, func(event *taskyardv1.Event) bool {
		return event.GetSeq() <= f.last
	})
	if n := len(message.Events); n > 0 {
		last := message.Events[n-1]
		f.last = last.GetSeq()
		f.endTold = isEnd(last.GetType())
		f.ended = f.endTold
	}
}

// isEnd tells whether a task has ended with this event.
func isEnd(event taskyardv1.EventType) bool {
	switch event {
	case taskyardv1.EventType_EVENT_TYPE_SUCCEEDED,
		taskyardv1.EventType_EVENT_TYPE_FAILED,
		taskyardv1.EventType_EVENT_TYPE_CANCELLED:
		return true
	}
	return false
}
