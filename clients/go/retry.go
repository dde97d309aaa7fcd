package taskyard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

const (
	// maxElapsed is for how long after its first failure a call is made again and again, as
	// that of a watch: more than a drain and a restart of the server. A try that stood for
	// longer, as one that waited for room, did not fail in the outage before it.
	maxElapsed = time.Minute
	// longestPushback: a longer one ends the tries, as people want to know.
	longestPushback = 30 * time.Second
	// leastRest is the shortest rest between two tries, whatever the server asks for.
	leastRest = 10 * time.Millisecond
)

// pushback is what the server says about another try.
type pushback struct {
	kind pushbackKind
	rest time.Duration
}

type pushbackKind int

const (
	pushbackUnsaid pushbackKind = iota
	pushbackAfter
	pushbackNever
)

// readPushback reads it from the trailing metadata or, without it, from the details.
func readPushback(trailer metadata.MD, asked *errdetails.RetryInfo) pushback {
	if values := trailer.Get("grpc-retry-pushback-ms"); len(values) > 0 {
		millis, err := strconv.ParseUint(strings.TrimSpace(values[0]), 10, 32)
		if err != nil {
			return pushback{kind: pushbackNever}
		}
		return pushback{pushbackAfter, time.Duration(millis) * time.Millisecond}
	}
	if asked.GetRetryDelay() == nil {
		return pushback{}
	}
	return pushback{pushbackAfter, max(0, asked.GetRetryDelay().AsDuration())}
}

// longestBackoff doubles from 100 ms up to 5 s with the failures in a row.
func longestBackoff(failures int) time.Duration {
	doublings := min(max(failures-1, 0), 10)
	return min(100*time.Millisecond<<doublings, 5*time.Second)
}

// backoff is the rest after so many failures in a row: between half and all of the longest,
// so that many clients spread.
func backoff(failures int) time.Duration {
	half := longestBackoff(failures) / 2
	return half + mathrand.N(half)
}

// restAfter tells how long to rest after so many failures, and whether to try again.
func restAfter(failures int, err *Error) (time.Duration, bool) {
	if err.Code != codes.Unavailable && !err.early {
		return 0, false
	}
	switch err.pushback.kind {
	case pushbackAfter:
		rest := max(err.pushback.rest, leastRest)
		return rest, rest <= longestPushback
	case pushbackNever:
		return 0, false
	default:
		return backoff(failures), true
	}
}

// repeat calls until there is an answer, maxElapsed is over, or ctx ends. Only for
// what may safely be repeated.
func repeat[T any](ctx context.Context, call func(context.Context) (T, error)) (T, error) {
	return repeatUntil(ctx, time.Time{}, call)
}

// repeatUntil repeats as repeat does, but begins no rest and no try after the end, if it is
// not zero: then it fails as the last try did.
func repeatUntil[T any](
	ctx context.Context, end time.Time, call func(context.Context) (T, error),
) (T, error) {
	var nothing T
	var since time.Time
	for failures := 1; ; failures++ {
		begun := time.Now()
		answer, err := call(ctx)
		if err == nil {
			return answer, nil
		}
		failed := asError(err, nil)
		if time.Since(begun) > maxElapsed {
			failures = 1
		}
		if failures == 1 {
			since = time.Now()
		}
		rest, again := restAfter(failures, failed)
		if !again || time.Since(since)+rest > maxElapsed {
			return nothing, failed
		}
		isLast := false
		if !end.IsZero() {
			left := time.Until(end)
			isLast = left <= rest
			rest = min(rest, left)
		}
		if err := sleep(ctx, rest); err != nil {
			return nothing, ended(err, failed)
		}
		if isLast {
			return nothing, failed
		}
	}
}

// ended is the error of a context that ended between two tries, with why the last failed.
func ended(err error, last *Error) *Error {
	e := asError(err, nil)
	e.message = fmt.Sprintf("%s; at last %s", e.message, last.message)
	return e
}

func sleep(ctx context.Context, rest time.Duration) error {
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newRequestID is random, in the form of a version 4 UUID: with it, repeating a
// submission whose outcome is unknown is safe.
func newRequestID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // It never fails.
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// tooEarly is the error of a wait that was to be longer.
func tooEarly(err error) *Error {
	e := *asError(err, nil)
	e.early = true
	return &e
}

func isDeadline(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
