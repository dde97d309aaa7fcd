package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/beanstalkd/go-beanstalk"
)

// beanstalkdSystem has no workers of its own: here they are loops of reserve and delete.
type beanstalkdSystem struct {
	address string
	load    load
	clients []*beanstalk.Conn
	control *beanstalk.Conn
}

const (
	beanstalkdPriority = 1024
	// timeToRun is how long a task may be reserved.
	timeToRun = time.Hour
	// reserveTimeout bounds how long a worker that is told to stop goes on.
	reserveTimeout = time.Second
)

func openBeanstalkd(_ context.Context, address string, load load) (system, error) {
	b := &beanstalkdSystem{address: address, load: load}
	for range load.clients {
		conn, err := beanstalk.Dial("tcp", address)
		if err != nil {
			return nil, err
		}
		b.clients = append(b.clients, conn)
	}
	var err error
	b.control, err = beanstalk.Dial("tcp", address)
	return b, err
}

func (b *beanstalkdSystem) hold(context.Context, string) error { return nil }

func (b *beanstalkdSystem) submit(_ context.Context, client int, queue, payload string) error {
	tube := beanstalk.NewTube(b.clients[client], queue)
	_, err := tube.Put([]byte(payload), beanstalkdPriority, 0, timeToRun)
	return err
}

// beanstalkd puts one task at a time, and its client does not send ahead.
func (b *beanstalkdSystem) submitFor(context.Context, int, string, func() bool, string) (int, error) {
	return 0, errNotOffered
}

func (b *beanstalkdSystem) work(ctx context.Context, queue string, begun func(string)) (func(), error) {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	stop := func() {
		cancel()
		working.Wait()
	}
	for range b.load.workers {
		conn, err := beanstalk.Dial("tcp", b.address)
		if err != nil {
			stop()
			return nil, err
		}
		working.Go(func() {
			defer conn.Close()
			if err := workOff(ctx, beanstalk.NewTubeSet(conn, queue), begun); err != nil {
				panic(fmt.Sprintf("a worker of beanstalkd: %v", err))
			}
		})
	}
	return stop, nil
}

func workOff(ctx context.Context, tubes *beanstalk.TubeSet, begun func(string)) error {
	for ctx.Err() == nil {
		id, payload, err := tubes.Reserve(reserveTimeout)
		if errors.Is(err, beanstalk.ErrTimeout) {
			continue
		}
		if err != nil {
			return err
		}
		begun(string(payload))
		if err := tubes.Conn.Delete(id); err != nil {
			return err
		}
	}
	return nil
}

func (b *beanstalkdSystem) unfinished(_ context.Context, queue string) (int, error) {
	stats, err := beanstalk.NewTube(b.control, queue).Stats()
	if err != nil {
		return 0, err
	}
	unfinished := 0
	for _, state := range []string{"ready", "reserved", "delayed", "buried"} {
		count, err := strconv.Atoi(stats["current-jobs-"+state])
		if err != nil {
			return 0, err
		}
		unfinished += count
	}
	return unfinished, nil
}

func (b *beanstalkdSystem) close() {
	for _, conn := range append(b.clients, b.control) {
		_ = conn.Close()
	}
}
