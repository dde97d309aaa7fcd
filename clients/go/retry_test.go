package taskyard

import (
	"context"
	"errors"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

var unavailable = status.Error(codes.Unavailable, "")

func TestRestsGrowAndAreBounded(t *testing.T) {
	ms := time.Millisecond
	for failures, most := range map[int]time.Duration{1: 100 * ms, 3: 400 * ms, 6: 3200 * ms, 7: 5000 * ms, 1000: 5000 * ms} {
		for range 100 {
			if rest := backoff(failures); rest < most/2 || rest >= most {
				t.Fatalf("%v after %d failures", rest, failures)
			}
		}
	}
}

func TestOnlyLostCallsAreRepeated(t *testing.T) {
	pushed := func(value string) *Error {
		return asError(unavailable, metadata.Pairs("grpc-retry-pushback-ms", value))
	}
	for name, one := range map[string]struct {
		failures int
		err      *Error
		rest     time.Duration
		again    bool
	}{
		"the last try":     {tries, asError(unavailable, nil), 0, false},
		"a refusal":        {1, refusal(codes.ResourceExhausted, "QUEUE_FULL"), 0, false},
		"a pushback":       {1, pushed("700"), 700 * time.Millisecond, true},
		"at once":          {1, pushed("0"), leastRest, true},
		"never":            {1, pushed("-1"), 0, false},
		"a pushback of 1h": {1, pushed("3600000"), time.Hour, false},
	} {
		if rest, again := restAfter(one.failures, one.err); rest != one.rest || again != one.again {
			t.Errorf("%s: %v, %v", name, rest, again)
		}
	}
	if _, again := restAfter(tries-1, asError(unavailable, nil)); !again {
		t.Error("it gives up too early")
	}
}

func TestACallIsRepeatedUntilItIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, calls := time.Now(), 0
		answer, err := repeat(t.Context(), func(context.Context) (int, error) {
			if calls++; calls < 4 {
				return 0, unavailable
			}
			return calls, nil
		})
		if answer != 4 || err != nil {
			t.Errorf("%d, %v", answer, err)
		}
		if took := time.Since(start); took < 350*time.Millisecond || took >= 700*time.Millisecond {
			t.Errorf("it rested %v", took)
		}
	})
}

func TestTriesAreBoundedAndSoIsTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		lost := func(context.Context) (int, error) {
			calls++
			return 0, unavailable
		}
		if _, err := repeat(t.Context(), lost); status.Code(err) != codes.Unavailable || calls != 10 {
			t.Errorf("%v after %d calls", err, calls)
		}
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := repeat(ctx, lost)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestRequestIDsAreVersion4UUIDs(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if id := newRequestID(); !form.MatchString(id) || id == newRequestID() {
		t.Error(id)
	}
}
