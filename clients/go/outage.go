package taskyard

import (
	"time"

	"google.golang.org/grpc/codes"
)

const (
	// steady: a stream that has stood for so long ends the outage before it.
	steady = time.Second
	// leastTry is how long a try may take, however little is left of the longest outage.
	leastTry = 100 * time.Millisecond
)

// outages are how long a watch has had no stream, and when it is tried again.
type outages struct {
	// maxOutage: an outage that is longer ends the watch.
	maxOutage time.Duration
	current   *outage
	// hasStood: some stream has told something.
	hasStood bool
	// restUntil: the stream is not opened before.
	restUntil time.Time
}

type outage struct {
	failures int
	since    time.Time
	told     bool
	// standsSince: a stream tells something again, since then; zero if none does.
	standsSince time.Time
}

// stands notes that the stream tells something: whether that is news after an outage that
// was told.
func (o *outages) stands() bool {
	o.hasStood = true
	if o.current == nil {
		return false
	}
	if o.current.standsSince.IsZero() {
		o.current.standsSince = time.Now()
	}
	told := o.current.told
	o.current.told = false
	return told
}

// lose notes that there is no stream: whether that is to be told, and whether it is of use
// to wait.
func (o *outages) lose(failed *Error) (tell, again bool) {
	now := time.Now()
	o.fall(now)
	if failed.pushback.kind == pushbackNever {
		return false, false
	}
	if failed.Reason == "WATCH_LIFETIME" || failed.Reason == "WATCH_STALLED" {
		o.restUntil = now.Add(max(failed.pushback.rest, leastRest))
		return false, true
	}
	isCrowded := failed.Reason == "TOO_MANY_WATCHERS" && o.hasStood
	if failed.Code != codes.Unavailable && !isCrowded {
		return false, false
	}
	if o.current == nil {
		o.current = &outage{since: now}
	}
	outage := o.current
	outage.failures++
	rest := failed.pushback.rest
	if failed.pushback.kind == pushbackUnsaid {
		rest = backoff(outage.failures)
	}
	o.restUntil = now.Add(max(rest, leastRest))
	if o.restUntil.After(outage.since.Add(o.maxOutage)) {
		return false, false
	}
	tell = !outage.told
	outage.told = true
	return tell, true
}

// grace is for how long an answer is waited for if a try begins at that moment: in an
// outage not longer than is waited for.
func (o *outages) grace(begins time.Time) time.Duration {
	if o.current == nil {
		return watchGrace
	}
	left := o.current.since.Add(o.maxOutage).Sub(begins)
	return min(watchGrace, max(left, leastTry))
}

// fall notes that no stream stands any more. If one has stood for long enough, that was the
// end of the outage before it.
func (o *outages) fall(now time.Time) {
	if o.current == nil || o.current.standsSince.IsZero() {
		return
	}
	stood := now.Sub(o.current.standsSince)
	o.current.standsSince = time.Time{}
	if stood >= steady {
		o.current = nil
	}
}
