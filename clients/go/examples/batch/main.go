// Command batch submits the tasks of a file, one JSON object a line, and follows them to
// their end:
//
//	batch [-server ADDRESS] FILE
//
// It exits with 1 if a task did not succeed, with 2 if anything else went wrong, and with 130
// after Ctrl-C, which the tasks do not notice.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"

	taskyard "github.com/taskyard/taskyard/clients/go"
	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

const (
	// submitters is how many submissions are under way at a time.
	submitters = 32
	// longestLine is more than a server takes of a task.
	longestLine = 256 << 20
)

func main() {
	server := flag.String("server", "",
		"`address` of the server; TASKYARD_SERVER says it otherwise")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "Usage: batch [-server ADDRESS] FILE")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	failed, err := run(ctx, *server, flag.Arg(0))
	isInterrupted := ctx.Err() != nil
	stop()
	switch {
	case err != nil && isInterrupted:
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "batch:", err)
		os.Exit(2)
	case failed > 0:
		os.Exit(1)
	}
}

// run tells how many tasks did not succeed.
func run(ctx context.Context, address, path string) (int, error) {
	requests, err := readRequests(path)
	if err != nil {
		return 0, err
	}
	client, err := taskyard.Connect(ctx, address)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	watcher := client.Watch(taskyard.Watch{Filter: &taskyardv1.EventFilter{
		Types: []taskyardv1.EventType{
			taskyardv1.EventType_EVENT_TYPE_SUCCEEDED,
			taskyardv1.EventType_EVENT_TYPE_FAILED,
			taskyardv1.EventType_EVENT_TYPE_CANCELLED,
		},
	}})
	defer watcher.Close()
	// From its first cursor on, no end of a task is missed.
	for watcher.Cursor() == "" {
		if _, err := watcher.Next(ctx); err != nil {
			return 0, err
		}
	}

	interrupt := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	batch := newBatch(os.Stdout, len(requests), cancel)
	var submitting sync.WaitGroup
	submitting.Go(func() { submit(ctx, client, requests, batch) })
	for seen, err := range watcher.All(ctx) {
		switch seen := seen.(type) {
		case taskyard.Events:
			for _, event := range seen.Events {
				batch.ended(event)
			}
		case taskyard.Lost:
			batch.say("lost the server: " + seen.Err.Error())
		case taskyard.Restored:
			batch.say("the server is back")
		}
		if err != nil {
			// Unless the batch has ended before.
			cancel(err)
		}
	}
	submitting.Wait()
	cause := context.Cause(ctx)
	if interrupt.Err() != nil && !errors.Is(cause, errDone) {
		cause = errInterrupted
	}
	return batch.close(cause)
}

// readRequests reads all lines, so that nothing is submitted if one is wrong.
func readRequests(path string) ([]*taskyardv1.SubmitRequest, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var requests []*taskyardv1.SubmitRequest
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, longestLine)
	for number := 1; lines.Scan(); number++ {
		line := lines.Bytes()
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff")) // Some editors begin a text with it.
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		request := &taskyardv1.SubmitRequest{}
		if err := protojson.Unmarshal(line, request); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		requests = append(requests, request)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(requests) == 0 {
		return nil, fmt.Errorf("%s: there are no tasks", path)
	}
	return requests, nil
}

func submit(
	ctx context.Context, client *taskyard.Client, requests []*taskyardv1.SubmitRequest, batch *batch,
) {
	next := make(chan int)
	var working sync.WaitGroup
	for range submitters {
		working.Go(func() {
			for i := range next {
				submitted, err := client.Submit(ctx, requests[i])
				batch.submitted(i+1, submitted, err)
			}
		})
	}
	for i := range requests {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	working.Wait()
}
