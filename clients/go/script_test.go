package taskyard

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// script is a server whose streams do what is written: one element for each stream that is
// opened. When it is over, streams are refused as UNAVAILABLE.
type script struct {
	taskyardv1.TaskServiceClient
	streams [][]any
	// asked is what each stream was asked for.
	asked []string
}

// Steps of a stream are messages, errors, and the following.
type (
	// rest is silence.
	rest time.Duration
	// deaf is a server that never answers.
	deaf struct{}
)

type scripted struct {
	grpc.ServerStreamingClient[taskyardv1.WatchEventsResponse]
	ctx   context.Context
	steps []any
}

func (s *script) WatchEvents(
	ctx context.Context, request *taskyardv1.WatchEventsRequest, _ ...grpc.CallOption,
) (grpc.ServerStreamingClient[taskyardv1.WatchEventsResponse], error) {
	asked := strings.ToLower(strings.TrimPrefix(request.GetStart().String(), "WATCH_START_"))
	if request.GetIncludeSnapshot() {
		asked = "snapshot"
	}
	if cursor := request.GetAfterCursor(); cursor != "" {
		asked = "after " + cursor
	}
	if tasks := request.GetFilter().GetTaskIds(); len(tasks) > 0 {
		asked += " of " + strings.Join(tasks, ",")
		if request.GetStopWhenCaughtUp() {
			asked += " until caught up"
		}
	}
	return s.open(ctx, asked)
}

func (s *script) SubmitAndWatch(
	ctx context.Context, request *taskyardv1.SubmitRequest, _ ...grpc.CallOption,
) (grpc.ServerStreamingClient[taskyardv1.WatchEventsResponse], error) {
	return s.open(ctx, request.GetRequestId())
}

func (s *script) open(
	ctx context.Context, asked string,
) (grpc.ServerStreamingClient[taskyardv1.WatchEventsResponse], error) {
	s.asked = append(s.asked, asked)
	if len(s.streams) == 0 {
		return nil, unavailable
	}
	steps := s.streams[0]
	s.streams = s.streams[1:]
	return &scripted{ctx: ctx, steps: steps}, nil
}

func (s *scripted) Header() (metadata.MD, error) {
	if len(s.steps) > 0 && s.steps[0] == (deaf{}) {
		<-s.ctx.Done()
	}
	return nil, nil
}

func (s *scripted) Recv() (*taskyardv1.WatchEventsResponse, error) {
	for len(s.steps) > 0 {
		step := s.steps[0]
		s.steps = s.steps[1:]
		switch step := step.(type) {
		case rest:
			if err := sleep(s.ctx, time.Duration(step)); err != nil {
				return nil, err
			}
		case error:
			return nil, step
		case *taskyardv1.WatchEventsResponse:
			return step, nil
		}
	}
	<-s.ctx.Done()
	return nil, s.ctx.Err()
}

func message(cursor string, control any) *taskyardv1.WatchEventsResponse {
	message := &taskyardv1.WatchEventsResponse{Cursor: cursor}
	switch control := control.(type) {
	case int:
		message.Events = []*taskyardv1.Event{{Seq: uint64(control)}}
	case taskyardv1.EventType:
		message.Events = []*taskyardv1.Event{{Seq: 9, Type: control}}
	case []int:
		for _, seq := range control {
			message.Events = append(message.Events, &taskyardv1.Event{Seq: uint64(seq)})
		}
	case *taskyardv1.WatchStarted:
		message.Control = &taskyardv1.WatchEventsResponse_Started{Started: control}
	case *taskyardv1.WatchHeartbeat:
		message.Control = &taskyardv1.WatchEventsResponse_Heartbeat{Heartbeat: control}
	case *taskyardv1.WatchSnapshot:
		message.Control = &taskyardv1.WatchEventsResponse_Snapshot{Snapshot: control}
	case *taskyardv1.WatchSnapshotEnd:
		message.Control = &taskyardv1.WatchEventsResponse_SnapshotEnd{SnapshotEnd: control}
	case *taskyardv1.WatchCaughtUp:
		message.Control = &taskyardv1.WatchEventsResponse_CaughtUp{CaughtUp: control}
	case *taskyardv1.WatchGap:
		message.Control = &taskyardv1.WatchEventsResponse_Gap{Gap: control}
	case *taskyardv1.WatchDraining:
		message.Control = &taskyardv1.WatchEventsResponse_Draining{Draining: control}
	case *taskyardv1.SubmitResponse:
		message.Control = &taskyardv1.WatchEventsResponse_Submitted{Submitted: control}
	}
	return message
}

var (
	started   = &taskyardv1.WatchStarted{}
	heartbeat = &taskyardv1.WatchHeartbeat{}
	part      = &taskyardv1.WatchSnapshot{}
	partsEnd  = &taskyardv1.WatchSnapshotEnd{}
	caughtUp  = &taskyardv1.WatchCaughtUp{}
	succeeded = taskyardv1.EventType_EVENT_TYPE_SUCCEEDED
	submitted = &taskyardv1.SubmitResponse{TaskId: "t1"}
	hadFailed = &taskyardv1.SubmitResponse{
		TaskId: "t1", State: taskyardv1.TaskState_TASK_STATE_FAILED,
	}
	expired = refusal(codes.OutOfRange, "CURSOR_EXPIRED")
	crowded = refusal(codes.ResourceExhausted, "TOO_MANY_WATCHERS")
)

// pushed is an end for this reason with that pushback.
func pushed(reason, millis string) *Error {
	code := codes.Unavailable
	if reason == "WATCH_STALLED" {
		code = codes.ResourceExhausted
	}
	failed := refusal(code, reason)
	failed.pushback = readPushback(metadata.Pairs("grpc-retry-pushback-ms", millis), nil)
	return failed
}

// inAWord writes what was seen in a word.
func inAWord(seen Seen) string {
	if events, ok := seen.(Events); ok {
		var seqs []string
		for _, event := range events.Events {
			seqs = append(seqs, fmt.Sprint(event.GetSeq()))
		}
		return events.Before + "<" + strings.Join(seqs, ",") + ">" + events.After
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", seen), "taskyard.")
}
