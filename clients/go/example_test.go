package taskyard_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	taskyard "github.com/taskyard/taskyard/clients/go"
	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

func ExampleClient_Watch() {
	ctx := context.Background()
	client, err := taskyard.Connect(ctx, "localhost")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	for seen, err := range client.Watch(taskyard.Watch{Start: taskyard.Oldest}).All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		switch seen := seen.(type) {
		case taskyard.Events:
			for _, event := range seen.Events {
				fmt.Println(event.Seq, event.TaskId, event.Type)
			}
			// Keep seen.After, and begin with taskyard.After(it) another time.
		case taskyard.Lost:
			log.Print(seen.Err)
		case taskyard.Restored:
			log.Print("the server is back")
		}
	}
}

func ExampleError() {
	ctx := context.Background()
	client, err := taskyard.Connect(ctx, "localhost")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	_, err = client.Submit(ctx, &taskyardv1.SubmitRequest{
		Kind: "noop", WhenFull: taskyardv1.WhenFull_WHEN_FULL_REJECT,
	})
	var failed *taskyard.Error
	if errors.As(err, &failed) && failed.Reason == "QUEUE_FULL" {
		after, _ := failed.RetryAfter()
		log.Printf("%v; again in %v", failed, after)
	}
}
