package taskyard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// Flow control holds up who sends too fast, and ends no connection.
func TestAStreamThatIsPushedBackKeepsItsConnection(t *testing.T) {
	const tasks = 10_000
	for _, size := range []int{0, 40, 300} {
		t.Run(fmt.Sprintf("%d bytes", size), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			server := startServer(t, "127.0.0.1:0", t.TempDir(), "--queue-max-tasks", "100")
			connection, err := grpc.NewClient(server.address,
				grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = connection.Close() }()
			client := taskyardv1.NewTaskServiceClient(connection)
			watch, err := client.WatchEvents(ctx, &taskyardv1.WatchEventsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := watch.Recv(); err != nil {
				t.Fatal(err)
			}
			stream, err := client.SubmitStream(ctx)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for sequence := range uint64(tasks) {
					request := &taskyardv1.SubmitRequest{
						Kind:    "noop",
						Payload: &taskyardv1.SubmitRequest_Data{Data: make([]byte, size)},
					}
					// Why it is not sent is told by Recv.
					_ = stream.Send(&taskyardv1.SubmitStreamRequest{Sequence: sequence, Request: request})
				}
				_ = stream.CloseSend()
			}()
			taken := 0
			for {
				message, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatalf("after %d: %v", taken, err)
				}
				for _, ack := range message.GetAcks() {
					if ack.GetAck() == nil {
						t.Fatalf("refused: %v", ack)
					}
					taken++
				}
			}
			if taken != tasks {
				t.Fatalf("%d of %d were taken", taken, tasks)
			}
			// The watch on the same connection has missed nothing.
			for left := tasks; left > 0; {
				message, err := watch.Recv()
				if err != nil {
					t.Fatalf("%d events are missing: %v", left, err)
				}
				for _, event := range message.GetEvents() {
					if event.GetType() == taskyardv1.EventType_EVENT_TYPE_SUCCEEDED {
						left--
					}
				}
			}
		})
	}
}
