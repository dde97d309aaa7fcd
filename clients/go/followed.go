package taskyard

import (
	"slices"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// followed is one task, from its submission on.
type followed struct {
	request *taskyardv1.SubmitRequest
	// submitted: it was told that it is submitted.
	submitted bool
	// ended: by what was told, it has ended, so that its stream may.
	ended bool
	// last is the number of the last event that was told.
	last uint64
}

// passOverTheKnown takes out of a message what was told by an earlier stream.
func (f *followed) passOverTheKnown(message *taskyardv1.WatchEventsResponse) {
	if submitted := message.GetSubmitted(); submitted != nil {
		// Of a task that ended long ago there may be no events any more.
		f.ended = IsTerminal(submitted.GetState())
		if f.submitted {
			message.Control = nil
		}
		f.submitted = true
	}
	message.Events = slices.DeleteFunc(message.Events, func(event *taskyardv1.Event) bool {
		return event.GetSeq() <= f.last
	})
	if n := len(message.Events); n > 0 {
		last := message.Events[n-1]
		f.last = last.GetSeq()
		f.ended = isEnd(last.GetType())
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
