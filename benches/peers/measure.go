package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// system is a task queue under load. Its queues come into being by themselves.
type system interface {
	// hold keeps the tasks of a queue from being run although no work was asked for.
	hold(ctx context.Context, queue string) error
	// submit returns when the system has taken the task. A client calls it once at a time.
	submit(ctx context.Context, client int, queue, payload string) error
	// submitFor submits batches for as long as more says, or tells errNotOffered.
	submitFor(ctx context.Context, client int, queue string, more func() bool, payload string) (int, error)
	// work runs the tasks of a queue, and calls begun with the payload as each begins, until
	// stop has returned.
	work(ctx context.Context, queue string, begun func(payload string)) (stop func(), err error)
	// unfinished is how many tasks of a queue wait or run.
	unfinished(ctx context.Context, queue string) (int, error)
	close()
}

// follower is a system whose workers are not in this process: it tells when it learned that
// the task had begun.
type follower interface {
	submitAndFollow(ctx context.Context, queue, payload string) (begun time.Time, err error)
}

var errNotOffered = errors.New("the system does not offer it")

// pollRest is between two questions whether all tasks have ended.
const pollRest = 10 * time.Millisecond

// numberDigits begin a payload: the number of the task.
const numberDigits = 20

func measure(ctx context.Context, system system, load load) (figures, error) {
	var measured figures
	var err error
	if measured.SubmitsPerSecond, err = submits(ctx, system, load); err != nil {
		return measured, fmt.Errorf("submitting one by one: %w", err)
	}
	if measured.BatchedPerSecond, err = batches(ctx, system, load); err != nil {
		return measured, fmt.Errorf("submitting in batches: %w", err)
	}
	if measured.LivesPerSecond, err = lives(ctx, system, load); err != nil {
		return measured, fmt.Errorf("whole lives: %w", err)
	}
	latencies, err := latencies(ctx, system, load)
	if err != nil {
		return measured, fmt.Errorf("idle latency: %w", err)
	}
	measured.LatencyP50Millis = quantile(latencies, 0.50)
	measured.LatencyP99Millis = quantile(latencies, 0.99)
	return measured, nil
}

func submits(ctx context.Context, system system, load load) (float64, error) {
	const queue = "submit"
	if err := system.hold(ctx, queue); err != nil {
		return 0, err
	}
	if err := warmUp(ctx, system, load, queue); err != nil {
		return 0, err
	}
	oneByOne := func(ctx context.Context, client int, more func() bool) (int, error) {
		submitted := 0
		for more() {
			if err := system.submit(ctx, client, queue, payload(load, submitted)); err != nil {
				return submitted, err
			}
			submitted++
		}
		return submitted, nil
	}
	return rate(ctx, load.clients, load.seconds, oneByOne)
}

func batches(ctx context.Context, system system, load load) (float64, error) {
	const queue = "batch"
	if err := system.hold(ctx, queue); err != nil {
		return 0, err
	}
	batched := func(ctx context.Context, client int, more func() bool) (int, error) {
		return system.submitFor(ctx, client, queue, more, payload(load, 0))
	}
	perSecond, err := rate(ctx, load.batchers, load.seconds, batched)
	if errors.Is(err, errNotOffered) {
		return 0, nil
	}
	return perSecond, err
}

// warmUp has every client connected.
func warmUp(ctx context.Context, system system, load load, queue string) error {
	group, ctx := errgroup.WithContext(ctx)
	for client := range load.clients {
		group.Go(func() error { return system.submit(ctx, client, queue, payload(load, 0)) })
	}
	return group.Wait()
}

// submitting submits for as long as more says, and tells how many tasks it submitted.
type submitting func(ctx context.Context, client int, more func() bool) (int, error)

// rate is how many tasks per second the clients submit, up to the last answer.
func rate(ctx context.Context, clients int, seconds float64, submit submitting) (float64, error) {
	var all atomic.Int64
	begun := time.Now()
	more := func() bool { return time.Since(begun).Seconds() < seconds }
	group, ctx := errgroup.WithContext(ctx)
	for client := range clients {
		group.Go(func() error {
			submitted, err := submit(ctx, client, more)
			all.Add(int64(submitted))
			return err
		})
	}
	err := group.Wait()
	return float64(all.Load()) / time.Since(begun).Seconds(), err
}

// lives has tasks submitted while workers run them, to the end of the last.
func lives(ctx context.Context, system system, load load) (float64, error) {
	const queue = "lives"
	stop, err := system.work(ctx, queue, func(string) {})
	if err != nil {
		return 0, err
	}
	defer stop()
	if err := warmUp(ctx, system, load, queue); err != nil {
		return 0, err
	}
	if err := untilFinished(ctx, system, queue); err != nil {
		return 0, err
	}
	begun := time.Now()
	var next atomic.Int64
	group, groupCtx := errgroup.WithContext(ctx)
	for client := range load.clients {
		group.Go(func() error {
			for number := next.Add(1); number <= int64(load.tasks); number = next.Add(1) {
				if err := system.submit(groupCtx, client, queue, payload(load, int(number))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if err := untilFinished(ctx, system, queue); err != nil {
		return 0, err
	}
	return float64(load.tasks) / time.Since(begun).Seconds(), nil
}

func untilFinished(ctx context.Context, system system, queue string) error {
	for {
		unfinished, err := system.unfinished(ctx, queue)
		if err != nil || unfinished == 0 {
			return err
		}
		select {
		case <-time.After(pollRest):
		case <-ctx.Done():
			return fmt.Errorf("%d tasks have not ended: %w", unfinished, ctx.Err())
		}
	}
}

// latencies are from the call of submit to the begin of the task, in milliseconds and in
// order, where nothing else is done.
func latencies(ctx context.Context, system system, load load) ([]float64, error) {
	const queue = "latency"
	begun := make(chan int, load.samples)
	at := make([]time.Time, load.samples)
	stop, err := system.work(ctx, queue, func(payload string) {
		number := number(payload)
		at[number] = time.Now()
		begun <- number
	})
	if err != nil {
		return nil, err
	}
	defer stop()
	sent := make([]time.Time, load.samples)
	ticks := time.NewTicker(time.Duration(float64(time.Second) / load.perSecond))
	defer ticks.Stop()
	for sample := range load.samples {
		<-ticks.C
		sent[sample] = time.Now()
		if follower, follows := system.(follower); follows {
			at[sample], err = follower.submitAndFollow(ctx, queue, payload(load, sample))
			begun <- sample
		} else {
			err = system.submit(ctx, 0, queue, payload(load, sample))
		}
		if err != nil {
			return nil, err
		}
	}
	latencies := make([]float64, 0, load.samples)
	for range load.samples {
		select {
		case sample := <-begun:
			latencies = append(latencies, at[sample].Sub(sent[sample]).Seconds()*1e3)
		case <-ctx.Done():
			return nil, fmt.Errorf("of %d tasks %d have begun: %w", load.samples, len(latencies), ctx.Err())
		}
	}
	slices.Sort(latencies)
	return latencies, nil
}

func quantile(sorted []float64, at float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(at*float64(len(sorted))), len(sorted)-1)]
}

func payload(load load, number int) string {
	return fmt.Sprintf("%0*d", numberDigits, number) + strings.Repeat("x", load.payload-numberDigits)
}

func number(payload string) int {
	number, err := strconv.Atoi(payload[:numberDigits])
	if err != nil {
		panic("a task of somebody else: " + payload)
	}
	return number
}
