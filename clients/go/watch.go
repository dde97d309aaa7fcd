package taskyard

import (
	"context"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// The rules of the loop are those of every client of Taskyard:
//
//  1. The cursor of every message that has one replaces the one before, also of a message
//     without events. Until there is one, a broken watch begins as it began at first, and
//     tells that instead of Restored.
//  2. While a snapshot is told no message has a cursor: a broken snapshot is told anew
//     from its beginning.
//  3. Nothing for two heartbeats and watchGrace is an outage, and so is a call that has
//     no answer for watchGrace: a connection that died without a word, as when a machine
//     loses its power, does not end by itself. It is tried again on a new connection.
//  4. An outage is a lost connection, UNAVAILABLE, an end without a status, and, once a
//     stream has stood, TOO_MANY_WATCHERS: the place that was its own may be taken for a
//     moment. Its tries rest as backoff says, or as the server asks; after
//     Watch.MaxOutage it ends the watch. It is over once a stream has stood for 1 s, so
//     that one that is accepted and dropped, again and again, is still an outage. A try
//     is not waited for beyond the longest outage.
//  5. WATCH_LIFETIME and WATCH_STALLED are no outage. The watch is opened again, after the
//     rest that the server asks for.
//  6. A task that is followed is submitted again, by the same request_id, until it was told
//     that it is submitted; that may wait for room, so no try of it is cut off. From then
//     on a broken stream is opened as a watch of this one task after the cursor, which
//     ends with the task: the server may have forgotten the request_id with the task, and
//     would run it again.
//  7. Everything else ends the watch: trying again would not help.

// watchGrace is the silence beyond two heartbeats that is taken for an outage, and how
// long a server may take to answer at all.
const watchGrace = 5 * time.Second

const (
	defaultHeartbeat = 15 * time.Second
	longestHeartbeat = time.Hour
	defaultMaxOutage = time.Minute
)

// Start is where a watch begins: [Live], [Oldest], [WithSnapshot] or [After] a cursor. The
// zero value is Live.
type Start struct {
	at     startAt
	cursor string
}

type startAt int

const (
	atLive startAt = iota
	atOldest
	atSnapshot
	atCursor
)

var (
	// Live begins with the next event.
	Live = Start{}
	// Oldest begins with the oldest event that is kept.
	Oldest = Start{at: atOldest}
	// WithSnapshot begins with the tasks and workers as they stand, then the events
	// after them.
	WithSnapshot = Start{at: atSnapshot}
)

// After begins after this cursor.
func After(cursor string) Start { return Start{at: atCursor, cursor: cursor} }

// Watch is what to watch, and how stubbornly. The zero value is all events from now on.
type Watch struct {
	// Start is where to begin.
	Start Start
	// Filter lets only these events through; nil is all.
	Filter *taskyardv1.EventFilter
	// UntilCaughtUp ends the watch once every event was seen that had happened when it
	// began, or when it was last opened.
	UntilCaughtUp bool
	// OverGaps goes on after events that are no longer kept, with [Gap], rather than end
	// with CURSOR_EXPIRED.
	OverGaps bool
	// Heartbeat is the silence before the server sends a heartbeat: 100 ms to 1 h; 0 is
	// 15 s.
	Heartbeat time.Duration
	// MaxOutage is the longest outage that is waited for; 0 is 1 min, and if it is
	// negative the first outage ends the watch.
	MaxOutage time.Duration
}

func (w Watch) withDefaults() Watch {
	if w.Heartbeat == 0 {
		w.Heartbeat = defaultHeartbeat
	}
	if w.MaxOutage == 0 {
		w.MaxOutage = defaultMaxOutage
	}
	return w
}

func (w Watch) request() *taskyardv1.WatchEventsRequest {
	request := &taskyardv1.WatchEventsRequest{
		AfterCursor:       w.Start.cursor,
		HeartbeatInterval: durationpb.New(w.Heartbeat),
		Filter:            w.Filter,
		IncludeSnapshot:   w.Start.at == atSnapshot,
		StopWhenCaughtUp:  w.UntilCaughtUp,
		GapPolicy:         taskyardv1.GapPolicy_GAP_POLICY_FAIL,
	}
	switch w.Start.at {
	case atLive:
		request.Start = taskyardv1.WatchStart_WATCH_START_LIVE
	case atOldest:
		request.Start = taskyardv1.WatchStart_WATCH_START_OLDEST
	}
	if w.OverGaps {
		request.GapPolicy = taskyardv1.GapPolicy_GAP_POLICY_CONTINUE
	}
	return request
}

// Watch watches events, over outages of the server and of the way to it. It connects when
// it is first asked.
func (c *Client) Watch(watch Watch) *Watcher {
	return newWatcher(c, watch)
}

func newWatcher(client *Client, watch Watch) *Watcher {
	watch = watch.withDefaults()
	return &Watcher{
		tasks: client.Tasks, connections: client.connections,
		watch: watch, outages: outages{maxOutage: watch.MaxOutage},
	}
}

// Watcher is a watch under way. It belongs to one goroutine at a time, and is to be
// closed unless it was read to its end.
type Watcher struct {
	tasks       taskyardv1.TaskServiceClient
	connections *connections
	// own is the connection that was made after a silence, if one was.
	own *grpc.ClientConn
	// watch is what to ask for next: its start is where the watch stands.
	watch Watch
	// followed is the task that is followed, if it is one.
	followed *followed
	// resumed: it is watched by its id, no longer by its submission.
	resumed bool
	stream  *stream
	outages outages
	// untold is what came after an outage, to be told after Restored.
	untold *taskyardv1.WatchEventsResponse
	// caughtUp: the stream told that it had caught up, so it may end.
	caughtUp bool
	// over is how the watch ended.
	over error
}

// Cursor is what to resume after; empty until the server has told one, and while a
// snapshot is not complete.
func (w *Watcher) Cursor() string { return w.watch.Start.cursor }

// Next is what comes next; [io.EOF] once it has caught up or the task has ended, if it was
// to end there, and otherwise what the server answered, if trying again is of no use or
// the outage is too long. If ctx ends it returns that as an error, loses nothing, and may be
// called again.
func (w *Watcher) Next(ctx context.Context) (Seen, error) {
	for w.over == nil {
		if message := w.untold; message != nil {
			w.untold = nil
			if seen := w.tell(message, true); seen != nil {
				return seen, nil
			}
			continue
		}
		// The stream of a submission ends by itself; a watch does not.
		if w.resumed && w.followed.endTold {
			w.end(io.EOF)
			break
		}
		got, err := w.message(ctx)
		if err != nil {
			return nil, asError(err, nil)
		}
		if got.err == nil {
			if seen := w.take(got.message); seen != nil {
				return seen, nil
			}
			continue
		}
		w.closeStream()
		if got.err == io.EOF && w.mayEnd() || w.followed != nil && w.followed.endTold {
			w.end(io.EOF)
			break
		}
		failed := newErrorf(codes.Unavailable, "the server ended the stream")
		if got.err != io.EOF {
			failed = asError(got.err, nil)
		}
		tell, again := w.outages.lose(failed)
		if !again {
			w.end(failed)
			break
		}
		if failed.silent {
			w.connectAnew()
		}
		if tell {
			return Lost{failed}, nil
		}
	}
	return nil, w.over
}

// All is everything that [Watcher.Next] sees up to the end or an error, which comes last.
// The watch is closed after it.
func (w *Watcher) All(ctx context.Context) iter.Seq2[Seen, error] {
	return func(yield func(Seen, error) bool) {
		defer w.Close()
		for {
			seen, err := w.Next(ctx)
			if err == io.EOF || !yield(seen, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the watch. After it, Next returns [io.EOF].
func (w *Watcher) Close() {
	if w.over == nil {
		w.end(io.EOF)
	}
}

func (w *Watcher) end(over error) {
	w.over = over
	w.untold = nil
	w.closeStream()
	w.closeConnection()
}

// connectAnew goes on over a new connection, if it is known how to make one.
func (w *Watcher) connectAnew() {
	if w.connections == nil {
		return
	}
	conn, err := w.connections.make()
	if err != nil {
		return // The client was closed, which the next try tells.
	}
	w.closeConnection()
	w.own, w.tasks = conn, taskyardv1.NewTaskServiceClient(wrapped{conn})
}

func (w *Watcher) closeConnection() {
	if w.own != nil {
		w.connections.close(w.own)
		w.own = nil
	}
}

func (w *Watcher) closeStream() {
	if w.stream != nil {
		w.stream.close()
		w.stream = nil
	}
}

// mayEnd tells whether it is no outage if the server ends the stream well.
func (w *Watcher) mayEnd() bool {
	if w.followed != nil {
		return w.followed.ended || w.resumed && w.followed.hadEnded
	}
	return w.watch.UntilCaughtUp && w.caughtUp
}

// message is the next message of the stream, which is opened if there is none, or its end.
// It fails only if ctx ends; what is under way is then kept.
func (w *Watcher) message(ctx context.Context) (got, error) {
	if w.stream == nil {
		w.stream = w.open()
	}
	// How long the heartbeat of a submission that is followed is, the server says:
	// keep-alive alone notices one that has gone.
	limit := forever
	if w.followed == nil || w.resumed {
		limit = 2*min(w.watch.Heartbeat, longestHeartbeat) + watchGrace
	}
	for {
		one, err := w.stream.next(ctx, limit)
		if err != nil || !one.opened {
			return one, err
		}
		w.caughtUp = false
	}
}

func (w *Watcher) open() *stream {
	tasks := w.tasks
	w.resumed = w.followed != nil && w.followed.submitted && w.Cursor() != ""
	if w.followed != nil && !w.resumed {
		// It may wait for room.
		return openStream(w.outages.restUntil, forever, func(ctx context.Context) (receiver, error) {
			return tasks.SubmitAndWatch(ctx, w.followed.request)
		})
	}
	request := w.watch.request()
	if w.followed != nil {
		request.StopWhenCaughtUp = w.followed.hadEnded
	}
	begins := time.Now()
	if w.outages.restUntil.After(begins) {
		begins = w.outages.restUntil
	}
	// A server that takes the connection and says nothing must not hold it up.
	return openStream(begins, w.outages.grace(begins), func(ctx context.Context) (receiver, error) {
		return tasks.WatchEvents(ctx, request)
	})
}

// take takes the message over; what is to be told first, if anything.
func (w *Watcher) take(message *taskyardv1.WatchEventsResponse) Seen {
	isNews := w.outages.stands()
	// Without a cursor it begins anew, and Started or SnapshotBegun says so.
	goesOn := w.Cursor() != "" || w.followed != nil
	if isNews && goesOn {
		w.untold = message
		return Restored{}
	}
	return w.tell(message, false)
}

// tell is what the message tells, if anything. From then on its cursor counts.
func (w *Watcher) tell(message *taskyardv1.WatchEventsResponse, restored bool) Seen {
	if w.followed != nil {
		w.followed.passOverTheKnown(message)
		w.watch.Filter = w.followed.filter()
	}
	before := w.Cursor()
	isTelling := w.watch.Start.at == atSnapshot
	if cursor := message.GetCursor(); cursor != "" {
		w.watch.Start = After(cursor)
	}
	switch control := message.GetControl().(type) {
	case *taskyardv1.WatchEventsResponse_Started:
		if isTelling {
			return SnapshotBegun{}
		} else if !restored {
			return Started{}
		}
	case *taskyardv1.WatchEventsResponse_Snapshot:
		return Snapshot{control.Snapshot.GetTasks(), control.Snapshot.GetWorkers()}
	case *taskyardv1.WatchEventsResponse_SnapshotEnd:
		return SnapshotEnded{}
	case *taskyardv1.WatchEventsResponse_CaughtUp:
		w.caughtUp = true
		return CaughtUp{}
	case *taskyardv1.WatchEventsResponse_Heartbeat:
		return Heartbeat{}
	case *taskyardv1.WatchEventsResponse_Gap:
		return Gap{control.Gap}
	case *taskyardv1.WatchEventsResponse_Draining:
		return Draining{}
	case *taskyardv1.WatchEventsResponse_Submitted:
		return Submitted{control.Submitted}
	default:
		if events := message.GetEvents(); len(events) > 0 {
			return Events{Events: events, Before: before, After: message.GetCursor()}
		}
	}
	return nil
}
