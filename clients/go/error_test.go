package taskyard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// refusal is an error of the server, with details.
func refusal(code codes.Code, reason string, details ...protoadapt.MessageV1) *Error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "taskyard", Metadata: map[string]string{"a": "b"}}
	st, err := status.New(code, "it is\nrefused").WithDetails(append(details, info)...)
	if err != nil {
		panic(err)
	}
	return fromStatus(st, nil)
}

func TestEverythingHasItsName(t *testing.T) {
	failed := refusal(codes.InvalidArgument, "INVALID_FIELDS",
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "kind", Description: "is required"},
		}},
		&errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{
			{Subject: "t1", Description: "has ended"},
		}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(7 * time.Millisecond)})
	if failed.Code != codes.InvalidArgument || failed.Reason != "INVALID_FIELDS" || failed.Metadata["a"] != "b" {
		t.Errorf("%+v", failed)
	}
	if !slices.Equal(failed.Violations, []Violation{{"kind", "is required"}, {"t1", "has ended"}}) {
		t.Errorf("%v", failed.Violations)
	}
	if rest, asked := failed.RetryAfter(); rest != 7*time.Millisecond || !asked {
		t.Errorf("%v, %v", rest, asked)
	}
	if failed.Error() != "it is refused (INVALID_FIELDS)" {
		t.Errorf("%q", failed.Error())
	}
	if st, ok := status.FromError(fmt.Errorf("wrapped: %w", failed)); !ok || st.Code() != codes.InvalidArgument {
		t.Errorf("%v", st)
	}
}

func TestWhatHappenedOnThisSideIsToldAsWhatItIs(t *testing.T) {
	for _, one := range []struct {
		err     error
		code    codes.Code
		message string
	}{
		{context.DeadlineExceeded, codes.DeadlineExceeded, "the deadline passed before the server answered"},
		{context.Canceled, codes.Canceled, "the call was cancelled"},
		{status.Error(codes.Canceled, "context canceled"), codes.Canceled, "the call was cancelled"},
		{
			status.Error(codes.Unavailable, `last connection error: connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`),
			codes.Unavailable, "the connection to the server was lost: dial tcp 127.0.0.1:1: connect: connection refused",
		},
		{
			status.Error(codes.Canceled, "stream terminated by RST_STREAM with error code: CANCEL"),
			codes.Unavailable, "the connection to the server was lost: stream terminated by RST_STREAM with error code: CANCEL",
		},
		{
			status.Error(codes.Internal, "server closed the stream without sending trailers"),
			codes.Unavailable, "the connection to the server was lost: server closed the stream without sending trailers",
		},
		{status.Error(codes.Internal, ""), codes.Internal, "the server answered Internal without a message"},
		{status.Error(codes.Unknown, "a\n b"), codes.Unknown, "a b"},
	} {
		failed := asError(one.err, nil)
		if failed.Code != one.code || failed.Error() != one.message || failed.Reason != "" {
			t.Errorf("%v: %v, %q", one.err, failed.Code, failed.Error())
		}
		if status.Code(failed) != one.code {
			t.Errorf("%v: its status is %v", one.err, status.Code(failed))
		}
	}
	if !errors.Is(asError(context.Canceled, nil), context.Canceled) {
		t.Error("errors.Is does not know it")
	}
}

func TestThePushbackOfTheTrailerComesFirst(t *testing.T) {
	asked := &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}
	pushed := func(value string) pushback {
		return readPushback(metadata.Pairs("grpc-retry-pushback-ms", value), asked)
	}
	for value, expected := range map[string]pushback{
		"700": {pushbackAfter, 700 * time.Millisecond}, "-1": {kind: pushbackNever}, "x": {kind: pushbackNever},
	} {
		if is := pushed(value); is != expected {
			t.Errorf("%q: %v", value, is)
		}
	}
	if is := readPushback(nil, asked); is != (pushback{pushbackAfter, time.Second}) {
		t.Errorf("without a trailer: %v", is)
	}
	if is := readPushback(nil, nil); is != (pushback{}) {
		t.Errorf("unsaid: %v", is)
	}
}
