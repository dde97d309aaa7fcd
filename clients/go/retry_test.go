package taskyard

import (
	"context"
	"errors"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
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
	if _, again := restAfter(1000, asError(unavailable, nil)); !again {
		t.Error("it gives up by the number of tries")
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
		start := time.Now()
		_, err := repeat(t.Context(), lost)
		// The last rest, of 5 s at most, would have ended beyond it.
		took := time.Since(start)
		if status.Code(err) != codes.Unavailable || took <= maxElapsed-5*time.Second || took > maxElapsed {
			t.Errorf("%v after %v", err, took)
		}
		if calls < 15 || calls > 40 {
			t.Errorf("%d calls", calls)
		}
		start = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = repeat(ctx, lost)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// A server that drains for half a minute, and is back some seconds after.
func TestADrainIsWaitedForAndItsEndIsNoticed(t *testing.T) {
	draining := asError(unavailable, metadata.Pairs("grpc-retry-pushback-ms", "1000"))
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := repeat(t.Context(), func(context.Context) (int, error) {
			switch lasts := time.Since(start); {
			case lasts < 30*time.Second:
				return 0, draining
			case lasts < 40*time.Second:
				return 0, unavailable
			}
			return 1, nil
		})
		if took := time.Since(start); err != nil || took > 46*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestATryThatStoodForLongEndsTheOutageBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		answer, err := repeat(t.Context(), func(context.Context) (int, error) {
			calls++
			if calls%3 == 0 {
				time.Sleep(100 * time.Second)
			}
			if calls <= 12 {
				return 0, unavailable
			}
			return calls, nil
		})
		if answer != 13 || err != nil {
			t.Errorf("%d, %v", answer, err)
		}
	})
}

// waiting answers each wait for the end of a task, and keeps its time and its timeout.
type waiting struct {
	taskyardv1.TaskServiceClient
	answer func(context.Context, time.Duration) (*taskyardv1.WaitTaskResponse, error)
	begun  []time.Time
	asked  []time.Duration
}

func (w *waiting) WaitTask(
	ctx context.Context, request *taskyardv1.WaitTaskRequest, _ ...grpc.CallOption,
) (*taskyardv1.WaitTaskResponse, error) {
	w.begun = append(w.begun, time.Now())
	w.asked = append(w.asked, request.GetTimeout().AsDuration())
	return w.answer(ctx, request.GetTimeout().AsDuration())
}

func TestAWaitKeepsItsTimeoutOverItsRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &waiting{answer: func(context.Context, time.Duration) (*taskyardv1.WaitTaskResponse, error) {
			return nil, unavailable
		}}
		start := time.Now()
		_, err := (&Client{Tasks: server}).WaitUpTo(t.Context(), "t1", time.Second)
		if status.Code(err) != codes.Unavailable || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if len(server.asked) < 4 {
			t.Errorf("it was asked for %v", server.asked)
		}
		for i, asked := range server.asked {
			if left := time.Second - server.begun[i].Sub(start); asked != left || left <= 0 {
				t.Errorf("it was asked for %v when %v were left", asked, left)
			}
		}
	})
}

func TestAWaitGivesAServerThatHangsSomeGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &waiting{answer: func(ctx context.Context, _ time.Duration) (*taskyardv1.WaitTaskResponse, error) {
			<-ctx.Done()
			return nil, asError(ctx.Err(), nil)
		}}
		start := time.Now()
		_, err := (&Client{Tasks: server}).WaitUpTo(t.Context(), "t1", time.Second)
		if !isDeadline(err) || time.Since(start) != time.Second+waitGrace {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func (w *waiting) Submit(
	context.Context, *taskyardv1.SubmitRequest, ...grpc.CallOption,
) (*taskyardv1.SubmitResponse, error) {
	return &taskyardv1.SubmitResponse{TaskId: "t1"}, nil
}

func TestATaskThatIsNotDoneInTimeIsToldWithItsID(t *testing.T) {
	for name, answer := range map[string]func(context.Context) error{
		"the wait hangs": func(ctx context.Context) error {
			<-ctx.Done()
			return asError(ctx.Err(), nil)
		},
		"no server answers": func(context.Context) error { return unavailable },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &waiting{answer: func(ctx context.Context, _ time.Duration) (*taskyardv1.WaitTaskResponse, error) {
					return nil, answer(ctx)
				}}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := (&Client{Tasks: server}).SubmitAndWait(ctx, &taskyardv1.SubmitRequest{Kind: "noop"})
				var failed *Error
				if !errors.As(err, &failed) || !errors.Is(err, context.DeadlineExceeded) ||
					err.Error() != "the task t1 was not done in time" || failed.Metadata["task_id"] != "t1" {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

func TestAnEndlessWaitDoesNotSpin(t *testing.T) {
	late := newErrorf(codes.DeadlineExceeded, "late")
	synctest.Test(t, func(t *testing.T) {
		server := &waiting{answer: func(context.Context, time.Duration) (*taskyardv1.WaitTaskResponse, error) {
			return nil, late
		}}
		start := time.Now()
		_, err := (&Client{Tasks: server}).Wait(t.Context(), "t1")
		if !isDeadline(err) || len(server.begun) < 10 || len(server.begun) > 40 || time.Since(start) < 10*time.Second {
			t.Errorf("%v after %d calls and %v", err, len(server.begun), time.Since(start))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		// One that hangs is asked again and again.
		const hangs = 20
		calls := 0
		server := &waiting{answer: func(ctx context.Context, _ time.Duration) (*taskyardv1.WaitTaskResponse, error) {
			if calls++; calls > hangs {
				task := &taskyardv1.Task{State: taskyardv1.TaskState_TASK_STATE_FAILED}
				return &taskyardv1.WaitTaskResponse{Task: task}, nil
			}
			<-ctx.Done()
			return nil, asError(ctx.Err(), nil)
		}}
		start := time.Now()
		task, err := (&Client{Tasks: server}).Wait(t.Context(), "t1")
		if err != nil || !IsTerminal(task.GetState()) {
			t.Errorf("%v, %v", task, err)
		}
		if took := time.Since(start); took != hangs*(oneWait+waitGrace) {
			t.Errorf("it took %v", took)
		}
	})
}

func TestRequestIDsAreVersion4UUIDs(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	if id := newRequestID(); !form.MatchString(id) || id == newRequestID() {
		t.Error(id)
	}
}
