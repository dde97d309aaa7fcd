package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	taskyard "github.com/taskyard/taskyard/clients/go"
	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// taskyardSystem is Taskyard through its client: each submission has a request_id, and
// batches are calls of SubmitBatch. Its workers are in the server.
type taskyardSystem struct {
	load    load
	clients []*taskyard.Client
}

func openTaskyard(ctx context.Context, address string, load load) (system, error) {
	t := &taskyardSystem{load: load}
	for range load.clients {
		client, err := taskyard.Connect(ctx, address)
		if err != nil {
			return nil, err
		}
		t.clients = append(t.clients, client)
	}
	return t, nil
}

func taskyardTask(queue, payload string) *taskyardv1.SubmitRequest {
	return &taskyardv1.SubmitRequest{
		Kind: "noop", Queue: queue, Payload: &taskyardv1.SubmitRequest_Data{Data: []byte(payload)},
	}
}

// hold pauses the queue, as the workers always run.
func (t *taskyardSystem) hold(ctx context.Context, queue string) error {
	return pause(ctx, t.clients[0].Admin, queue)
}

func pause(ctx context.Context, admin taskyardv1.AdminServiceClient, queue string) error {
	_, err := admin.PauseQueue(ctx, &taskyardv1.PauseQueueRequest{Queue: queue})
	return err
}

func (t *taskyardSystem) submit(ctx context.Context, client int, queue, payload string) error {
	_, err := t.clients[client].Submit(ctx, taskyardTask(queue, payload))
	return err
}

func (t *taskyardSystem) submitFor(
	ctx context.Context, client int, queue string, more func() bool, payload string,
) (int, error) {
	batch := &taskyardv1.SubmitBatchRequest{}
	for range t.load.batch {
		batch.Requests = append(batch.Requests, taskyardTask(queue, payload))
	}
	submitted := 0
	for more() {
		answer, err := t.clients[client].Tasks.SubmitBatch(ctx, batch)
		if err != nil {
			return submitted, err
		}
		for _, result := range answer.GetResults() {
			if refused := result.GetError(); refused != nil {
				return submitted, errors.New(refused.GetMessage())
			}
		}
		submitted += len(answer.GetResults())
	}
	return submitted, nil
}

func (t *taskyardSystem) work(context.Context, string, func(string)) (func(), error) {
	return func() {}, nil
}

func (t *taskyardSystem) submitAndFollow(ctx context.Context, queue, payload string) (time.Time, error) {
	watcher := t.clients[0].SubmitAndWatch(taskyardTask(queue, payload))
	defer watcher.Close()
	var begun time.Time
	for seen, err := range watcher.All(ctx) {
		if err != nil {
			return begun, err
		}
		if events, some := seen.(taskyard.Events); some && begun.IsZero() && hasStarted(events.Events) {
			begun = time.Now()
		}
	}
	return begun, startedOrError(begun)
}

func hasStarted(events []*taskyardv1.Event) bool {
	for _, event := range events {
		if event.GetType() == taskyardv1.EventType_EVENT_TYPE_STARTED {
			return true
		}
	}
	return false
}

func startedOrError(begun time.Time) error {
	if begun.IsZero() {
		return errors.New("the watch of a task has ended before the task began")
	}
	return nil
}

func (t *taskyardSystem) unfinished(ctx context.Context, queue string) (int, error) {
	return unfinishedOf(ctx, t.clients[0].Admin, queue)
}

func unfinishedOf(ctx context.Context, admin taskyardv1.AdminServiceClient, queue string) (int, error) {
	answer, err := admin.ListQueues(ctx, &taskyardv1.ListQueuesRequest{Queue: queue})
	if err != nil {
		return 0, err
	}
	if len(answer.GetQueues()) != 1 {
		return 0, fmt.Errorf("there is no queue %s", queue)
	}
	counts := answer.GetQueues()[0].GetCounts()
	if failed := counts.GetFailed(); failed > 0 {
		return 0, fmt.Errorf("%d tasks have failed", failed)
	}
	return int(counts.GetScheduled() + counts.GetQueued() + counts.GetRunning()), nil
}

func (t *taskyardSystem) close() {
	for _, client := range t.clients {
		_ = client.Close()
	}
}

// taskyardGenerated is Taskyard through the generated client alone: submissions have no
// request_id, and batches go over SubmitStream.
type taskyardGenerated struct {
	load  load
	conns []*grpc.ClientConn
	tasks []taskyardv1.TaskServiceClient
	admin taskyardv1.AdminServiceClient
}

func openTaskyardGenerated(_ context.Context, address string, load load) (system, error) {
	t := &taskyardGenerated{load: load}
	for range load.clients {
		conn, err := grpc.NewClient(
			"passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		t.conns = append(t.conns, conn)
		t.tasks = append(t.tasks, taskyardv1.NewTaskServiceClient(conn))
	}
	t.admin = taskyardv1.NewAdminServiceClient(t.conns[0])
	return t, nil
}

func (t *taskyardGenerated) hold(ctx context.Context, queue string) error {
	return pause(ctx, t.admin, queue)
}

func (t *taskyardGenerated) submit(ctx context.Context, client int, queue, payload string) error {
	_, err := t.tasks[client].Submit(ctx, taskyardTask(queue, payload))
	return err
}

// submitFor has no more than eight batches under way.
func (t *taskyardGenerated) submitFor(
	ctx context.Context, client int, queue string, more func() bool, payload string,
) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := t.tasks[client].SubmitStream(ctx)
	if err != nil {
		return 0, err
	}
	underWay := make(chan struct{}, 8*t.load.batch)
	sent := make(chan error, 1)
	go func() {
		sent <- sendWhile(ctx, stream, more, taskyardTask(queue, payload), underWay)
	}()
	submitted := 0
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return submitted, <-sent
		}
		if err != nil {
			return submitted, err
		}
		for _, ack := range answer.GetAcks() {
			if refused := ack.GetError(); refused != nil {
				return submitted, errors.New(refused.GetMessage())
			}
			<-underWay
			submitted++
		}
	}
}

func sendWhile(
	ctx context.Context, stream taskyardv1.TaskService_SubmitStreamClient, more func() bool,
	task *taskyardv1.SubmitRequest, underWay chan<- struct{},
) error {
	for sequence := uint64(0); more(); sequence++ {
		select {
		case underWay <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		err := stream.Send(&taskyardv1.SubmitStreamRequest{Sequence: sequence, Request: task})
		if err != nil {
			return err
		}
	}
	return stream.CloseSend()
}

func (t *taskyardGenerated) work(context.Context, string, func(string)) (func(), error) {
	return func() {}, nil
}

func (t *taskyardGenerated) submitAndFollow(ctx context.Context, queue, payload string) (time.Time, error) {
	var begun time.Time
	stream, err := t.tasks[0].SubmitAndWatch(ctx, taskyardTask(queue, payload))
	for err == nil {
		var message *taskyardv1.WatchEventsResponse
		message, err = stream.Recv()
		if begun.IsZero() && hasStarted(message.GetEvents()) {
			begun = time.Now()
		}
	}
	if !errors.Is(err, io.EOF) {
		return begun, err
	}
	return begun, startedOrError(begun)
}

func (t *taskyardGenerated) unfinished(ctx context.Context, queue string) (int, error) {
	return unfinishedOf(ctx, t.admin, queue)
}

func (t *taskyardGenerated) close() {
	for _, conn := range t.conns {
		_ = conn.Close()
	}
}
