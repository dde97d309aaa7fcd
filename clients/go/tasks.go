package taskyard

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

const (
	// oneWait is how long one call waits for the end of a task: short enough that
	// proxies and firewalls on the way keep the connection.
	oneWait = 5 * time.Minute
	// waitGrace is what a call that waits is given beyond its wait. The server answers
	// by itself; this is for one that hangs.
	waitGrace = 10 * time.Second
)

// IsTerminal tells whether a task in this state has ended.
func IsTerminal(state taskyardv1.TaskState) bool {
	switch state {
	case taskyardv1.TaskState_TASK_STATE_SUCCEEDED,
		taskyardv1.TaskState_TASK_STATE_FAILED,
		taskyardv1.TaskState_TASK_STATE_CANCELLED:
		return true
	}
	return false
}

// Submit submits a task, as often as it takes to know the outcome: a server that drains or
// has gone is looked for for 1 min. The task is given a random request_id if it has none, so
// that it is enqueued once.
//
// The deadline of ctx bounds all of it, also the wait for room in the queue. When it has
// passed, nothing was enqueued if the error has a reason; otherwise the outcome is unknown.
func (c *Client) Submit(
	ctx context.Context, request *taskyardv1.SubmitRequest,
) (*taskyardv1.SubmitResponse, error) {
	request = identified(request)
	return repeat(ctx, func(ctx context.Context) (*taskyardv1.SubmitResponse, error) {
		return c.Tasks.Submit(ctx, request)
	})
}

// Wait waits for the end of a task. One that FAILED or was CANCELLED is no error of the
// call: its state and error say so.
func (c *Client) Wait(ctx context.Context, taskID string) (*taskyardv1.Task, error) {
	for {
		task, err := c.waitOnce(ctx, taskID, time.Time{})
		if err != nil || IsTerminal(task.GetState()) {
			return task, err
		}
	}
}

// WaitUpTo waits as [Client.Wait] does, but no longer than timeout, after which the task
// is answered as it stands. If there is no server it fails after 1 min, or when the timeout
// has passed; one that hangs is given 10 s more.
func (c *Client) WaitUpTo(
	ctx context.Context, taskID string, timeout time.Duration,
) (*taskyardv1.Task, error) {
	end := time.Now().Add(timeout)
	for {
		task, err := c.waitOnce(ctx, taskID, end)
		if err != nil || IsTerminal(task.GetState()) || !time.Now().Before(end) {
			return task, err
		}
	}
}

// waitOnce waits for oneWait, or until the end if there is one and it comes before. There is
// no task if a server hung for so long, and is to be asked again.
func (c *Client) waitOnce(ctx context.Context, taskID string, end time.Time) (*taskyardv1.Task, error) {
	isEndless := end.IsZero()
	answer, err := repeatUntil(ctx, end, func(ctx context.Context) (*taskyardv1.WaitTaskResponse, error) {
		timeout := oneWait
		if !isEndless {
			timeout = min(max(time.Until(end), 0), oneWait)
		}
		calling, cancel := context.WithTimeout(ctx, timeout+waitGrace)
		defer cancel()
		request := &taskyardv1.WaitTaskRequest{TaskId: taskID, Timeout: durationpb.New(timeout)}
		begun := time.Now()
		answer, err := c.Tasks.WaitTask(calling, request)
		if !isEndless || !isDeadline(err) || ctx.Err() != nil {
			return answer, err
		}
		if time.Since(begun) >= timeout {
			return nil, nil
		}
		return nil, tooEarly(err)
	})
	return answer.GetTask(), err
}

// SubmitAndWait is [Client.Submit], then [Client.Wait]. If the deadline of ctx passes after
// the submission the task goes on, and the error, which is [context.DeadlineExceeded], has
// its id as the metadata task_id.
func (c *Client) SubmitAndWait(
	ctx context.Context, request *taskyardv1.SubmitRequest,
) (*taskyardv1.Task, error) {
	submitted, err := c.Submit(ctx, request)
	if err != nil {
		return nil, err
	}
	id := submitted.GetTaskId()
	task, err := c.Wait(ctx, id)
	if _, bounded := ctx.Deadline(); bounded && isDeadline(err) {
		late := newErrorf(codes.DeadlineExceeded, "the task %s was not done in time", id)
		late.Metadata = map[string]string{"task_id": id}
		return nil, late
	}
	return task, err
}

// SubmitAndWatch submits a task and follows it, over outages, to its end: first comes
// [Submitted], then this task's events, each once, then [io.EOF]. The task is given a
// random request_id if it has none. Closing the watcher does not cancel the task.
func (c *Client) SubmitAndWatch(request *taskyardv1.SubmitRequest) *Watcher {
	watcher := newWatcher(c, Watch{})
	watcher.followed = &followed{request: identified(request)}
	return watcher
}

// identified is a copy of the request that can be repeated.
func identified(request *taskyardv1.SubmitRequest) *taskyardv1.SubmitRequest {
	request = proto.CloneOf(request)
	if request == nil {
		request = &taskyardv1.SubmitRequest{}
	}
	if request.RequestId == "" {
		request.RequestId = newRequestID()
	}
	return request
}
