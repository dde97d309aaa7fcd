package taskyard

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// receiver is what the generated client returns of a watch.
type receiver interface {
	Header() (metadata.MD, error)
	Recv() (*taskyardv1.WatchEventsResponse, error)
}

// stream is one stream of a watch, read by a goroutine of its own so that waiting for it
// can be given up without losing it. The goroutine is at most one message ahead.
type stream struct {
	got  chan got
	stop context.CancelFunc
	done chan struct{}
	// silentSince is since when it has been listened to in vain.
	silentSince time.Time
	opened      bool
}

// got is one thing that a stream brought: that it stands, a message, or its end.
type got struct {
	opened  bool
	message *taskyardv1.WatchEventsResponse
	err     error
}

// forever is no bound of a wait.
const forever time.Duration = 0

// openStream rests, then calls. If the server has not answered after grace, the stream
// has failed.
func openStream(
	restUntil time.Time, grace time.Duration, call func(context.Context) (receiver, error),
) *stream {
	ctx, stop := context.WithCancel(context.Background())
	s := &stream{got: make(chan got), stop: stop, done: make(chan struct{})}
	bring := func(one got) bool {
		select {
		case s.got <- one:
			return one.err == nil
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(s.done)
		if sleep(ctx, time.Until(restUntil)) != nil {
			return
		}
		calling, giveUp := context.WithCancel(ctx)
		defer giveUp()
		messages, err := callWithin(calling, giveUp, grace, call)
		if !bring(got{opened: err == nil, err: err}) {
			return
		}
		for {
			message, err := messages.Recv()
			if !bring(got{message: message, err: err}) {
				return
			}
		}
	}()
	return s
}

func callWithin(
	ctx context.Context,
	giveUp context.CancelFunc,
	grace time.Duration,
	call func(context.Context) (receiver, error),
) (receiver, error) {
	isInTime := func() bool { return true }
	if grace != forever {
		isInTime = time.AfterFunc(grace, giveUp).Stop
	}
	messages, err := call(ctx)
	if err == nil {
		// It comes when the server has accepted the call. Why it does not come, Recv
		// tells.
		_, err = messages.Header()
	}
	if !isInTime() {
		err = silence("the server does not answer")
	}
	return messages, err
}

// next is what comes next: its end also if it was silent for limit. It fails only if ctx
// ends.
func (s *stream) next(ctx context.Context, limit time.Duration) (got, error) {
	if err := ctx.Err(); err != nil {
		return got{}, err
	}
	var silent <-chan time.Time
	if s.opened && limit != forever {
		if s.silentSince.IsZero() {
			s.silentSince = time.Now()
		}
		timer := time.NewTimer(time.Until(s.silentSince.Add(limit)))
		defer timer.Stop()
		silent = timer.C
	}
	// What has come is taken before it is asked whether it came in time.
	select {
	case one := <-s.got:
		return s.note(one), nil
	default:
	}
	select {
	case one := <-s.got:
		return s.note(one), nil
	case <-silent:
		return got{err: silence("the server has gone silent")}, nil
	case <-ctx.Done():
		return got{}, ctx.Err()
	}
}

func (s *stream) note(one got) got {
	s.opened = s.opened || one.opened
	s.silentSince = time.Time{}
	return one
}

func silence(message string) *Error {
	failed := newErrorf(codes.Unavailable, "%s", message)
	failed.silent = true
	return failed
}

// close ends the stream and waits for its goroutine.
func (s *stream) close() {
	s.stop()
	<-s.done
}
