package main

import (
	"context"
	"errors"
	"time"

	"github.com/hibiken/asynq"
)

// asynqSystem is asynq on Redis.
type asynqSystem struct {
	load      load
	redis     asynq.RedisClientOpt
	client    *asynq.Client
	inspector *asynq.Inspector
}

func openAsynq(_ context.Context, address string, load load) (system, error) {
	redis := asynq.RedisClientOpt{Addr: address, PoolSize: load.clients}
	client := asynq.NewClient(redis)
	if err := client.Ping(); err != nil {
		return nil, err
	}
	return &asynqSystem{
		load: load, redis: redis, client: client, inspector: asynq.NewInspector(redis),
	}, nil
}

func (a *asynqSystem) hold(context.Context, string) error { return nil }

func (a *asynqSystem) submit(ctx context.Context, _ int, queue, payload string) error {
	_, err := a.client.EnqueueContext(ctx, asynq.NewTask("noop", []byte(payload)), asynq.Queue(queue))
	return err
}

// asynq enqueues one task at a time.
func (a *asynqSystem) submitFor(context.Context, int, string, func() bool, string) (int, error) {
	return 0, errNotOffered
}

func (a *asynqSystem) work(_ context.Context, queue string, begun func(string)) (func(), error) {
	config := asynq.Config{
		Concurrency: a.load.workers, Queues: map[string]int{queue: 1}, LogLevel: asynq.ErrorLevel,
	}
	if a.load.eager {
		config.TaskCheckInterval = time.Millisecond
	}
	server := asynq.NewServer(a.redis, config)
	err := server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		begun(string(task.Payload()))
		return nil
	}))
	return server.Shutdown, err
}

func (a *asynqSystem) unfinished(_ context.Context, queue string) (int, error) {
	info, err := a.inspector.GetQueueInfo(queue)
	if err != nil {
		return 0, err
	}
	if failed := info.Retry + info.Archived; failed > 0 {
		return 0, errors.New("tasks have failed")
	}
	return info.Pending + info.Active, nil
}

func (a *asynqSystem) close() {
	_ = a.inspector.Close()
	_ = a.client.Close()
}
