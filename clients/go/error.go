package taskyard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Error is why a call failed: the status of the server, or of the way to it, taken
// apart. Every call of a [Client], also of its generated clients, fails with an *Error.
//
//	var failed *taskyard.Error
//	if errors.As(err, &failed) && failed.Reason == "QUEUE_FULL" { … }
//
// [status.FromError] reads it as well, and errors.Is knows [context.DeadlineExceeded] and
// [context.Canceled].
type Error struct {
	// Code is DeadlineExceeded if the deadline passed on either side, and Unavailable
	// if the connection was lost, whatever the transport made of it.
	Code codes.Code
	// Reason is the server's, such as QUEUE_FULL: stable, to be compared by programs.
	// Empty if no Taskyard answered.
	Reason string
	// Metadata goes with the reason, by name: such as the cursor to go on after.
	Metadata map[string]string
	// Violations is everything that is wrong with the request.
	Violations []Violation

	message  string
	status   *status.Status
	pushback pushback
	// silent: nobody said it. Its connection cannot be trusted any more.
	silent bool
	// early: a deadline that passed before its time. Another try may be given its own.
	early bool
}

// Violation is one thing that is wrong with a request, or with the state of what it is
// about.
type Violation struct {
	// Subject is the field, such as retry.max_attempts, or the thing in question, such
	// as a task.
	Subject string
	// Description is what is wrong with it.
	Description string
}

// Error is one line for a person.
func (e *Error) Error() string { return e.message }

// GRPCStatus is what [status.FromError] reads.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// Is makes the errors of package context known to errors.Is.
func (e *Error) Is(target error) bool {
	return target == context.DeadlineExceeded && e.Code == codes.DeadlineExceeded ||
		target == context.Canceled && e.Code == codes.Canceled
}

// RetryAfter is how long the server asks to wait before another try, if it does.
func (e *Error) RetryAfter() (time.Duration, bool) {
	return e.pushback.rest, e.pushback.kind == pushbackAfter
}

// FromStatus takes the status of one task of a batch or of a stream apart. It is nil for
// OK.
func FromStatus(one *spb.Status) *Error {
	if one.GetCode() == int32(codes.OK) {
		return nil
	}
	return fromStatus(status.FromProto(one), nil)
}

func newErrorf(code codes.Code, format string, args ...any) *Error {
	message := oneLine(fmt.Sprintf(format, args...))
	return &Error{Code: code, message: message, status: status.New(code, message)}
}

// asError is the error of a call that failed.
func asError(err error, trailer metadata.MD) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fromStatus(status.FromContextError(err), trailer)
	}
	return fromStatus(status.Convert(err), trailer)
}

func fromStatus(st *status.Status, trailer metadata.MD) *Error {
	e := &Error{Code: st.Code(), status: st, Metadata: map[string]string{}}
	var asked *errdetails.RetryInfo
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason = detail.GetReason()
			maps.Copy(e.Metadata, detail.GetMetadata())
		case *errdetails.BadRequest:
			for _, v := range detail.GetFieldViolations() {
				e.Violations = append(e.Violations, Violation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.PreconditionFailure:
			for _, v := range detail.GetViolations() {
				e.Violations = append(e.Violations, Violation{v.GetSubject(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			asked = detail
		}
	}
	e.pushback = readPushback(trailer, asked)
	if e.Reason == "" && isBroken(st) {
		e.Code = codes.Unavailable
		e.status = status.New(e.Code, st.Message())
	}
	e.message = told(e, st)
	return e
}

// isBroken tells whether the transport made this status of a stream that was cut off,
// rather than a server that answered.
func isBroken(st *status.Status) bool {
	switch st.Code() {
	case codes.Unknown, codes.Internal, codes.Canceled:
	default:
		return false
	}
	for _, sign := range []string{
		"stream terminated by RST_STREAM",
		"server closed the stream without sending trailers",
		"unexpected EOF",
		"transport: ",
	} {
		if strings.HasPrefix(st.Message(), sign) {
			return true
		}
	}
	return false
}

func told(e *Error, st *status.Status) string {
	message := oneLine(st.Message())
	if e.Reason != "" {
		return fmt.Sprintf("%s (%s)", message, e.Reason)
	}
	switch {
	case e.Code == codes.DeadlineExceeded:
		return "the deadline passed before the server answered"
	case e.Code == codes.Canceled && message == context.Canceled.Error():
		return "the call was cancelled"
	case strings.Contains(message, "unexpected HTTP status code"),
		strings.Contains(message, "unexpected content-type"):
		return "what answers is no Taskyard: " + strangerSaid(message)
	case e.Code == codes.Unavailable:
		return "the connection to the server was lost: " + rootCause(message)
	case message == "":
		return fmt.Sprintf("the server answered %v without a message", e.Code)
	}
	return message
}

// rootCause takes out of gRPC's message the part that says something.
func rootCause(message string) string {
	for {
		_, inner, found := strings.Cut(message, "desc = ")
		if !found {
			break
		}
		message = inner
		if unquoted, err := strconv.Unquote(inner); err == nil {
			message = unquoted
		}
	}
	message = strings.TrimPrefix(message, "transport: ")
	message = strings.TrimPrefix(message, "Error while dialing: ")
	switch {
	case message == "":
		return "no reason is known"
	case strings.Contains(message, "looked like an HTTP/1.1 header"):
		return "what answers speaks HTTP/1, not gRPC"
	}
	return oneLine(message)
}

// strangerSaid is what another kind of server answered, without what gRPC adds.
func strangerSaid(message string) string {
	what, _, _ := strings.Cut(message, "; transport:")
	return oneLine(what)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
