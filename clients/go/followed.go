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
	// last is the number of the last event that was told.
	last uint64
}

// passOverTheKnown takes out of a message what was told by an earlier stream.
func (f *followed) passOverTheKnown(message *taskyardv1.WatchEventsResponse) {
	if message.GetSubmitted() != nil {
		if f.submitted {
			message.Control = nil
		}
		f.submitted = true
	}
	message.Events = slices.DeleteFunc(message.Events, func(event *taskyardv1.Event) bool {
		return event.GetSeq() <= f.last
	})
	if n := len(message.Events); n > 0 {
		f.last = message.Events[n-1].GetSeq()
	}
}
