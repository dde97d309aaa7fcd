package taskyard

import taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"

// Seen is what a watcher sees: one of the types of this file that say so. More may be
// added; pass over those that you do not know.
type Seen interface{ seen() }

type (
	// Submitted is seen when the task that is followed was submitted, or had been. Told
	// once.
	Submitted struct{ *taskyardv1.SubmitResponse }

	// Started is seen when the stream stands. Also after an outage before there was a
	// cursor: then the watch begins anew, and a live one does not know what happened in
	// between.
	Started struct{}

	// Events are at least one, in commit order.
	Events struct {
		Events []*taskyardv1.Event
		// Before: resume after it, and these events come again; empty at the very start.
		Before string
		// After: resume after it, and what follows comes next.
		After string
	}

	// SnapshotBegun is seen when a snapshot begins, perhaps again: what an earlier one
	// told is void.
	SnapshotBegun struct{}

	// Snapshot is a part of the snapshot.
	Snapshot struct {
		// Tasks that have not ended, in the order of submission.
		Tasks []*taskyardv1.Task
		// Workers are the pool, in the first parts.
		Workers []*taskyardv1.Worker
	}

	// SnapshotEnded is seen when the snapshot is complete; what follows are events.
	SnapshotEnded struct{}

	// CaughtUp is seen when what had happened when the watch was opened has been seen.
	CaughtUp struct{}

	// Heartbeat is seen when nothing has happened that the filter lets through; the
	// cursor went on.
	Heartbeat struct{}

	// Gap is seen where events are missing, as they are no longer kept.
	Gap struct{ *taskyardv1.WatchGap }

	// Draining is seen when the server began to drain; the stream is about to be lost.
	Draining struct{}

	// Lost is seen when the stream broke. It is tried again; told once, until
	// it stands.
	Lost struct{ Err *Error }

	// Restored is seen when the watch goes on, exactly where it had stopped. Instead of
	// [Started].
	Restored struct{}
)

func (Submitted) seen()     {}
func (Started) seen()       {}
func (Events) seen()        {}
func (SnapshotBegun) seen() {}
func (Snapshot) seen()      {}
func (SnapshotEnded) seen() {}
func (CaughtUp) seen()      {}
func (Heartbeat) seen()     {}
func (Gap) seen()           {}
func (Draining) seen()      {}
func (Lost) seen()          {}
func (Restored) seen()      {}
