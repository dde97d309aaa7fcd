package taskyard

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// dying is a server whose first two connections die without a word: the first once its
// watch was told that it began, the second at once.
type dying struct {
	taskyardv1.UnimplementedTaskServiceServer
	mutex sync.Mutex
	// connections have a number each, from 1 on; ended are those that are closed.
	connections int
	ended       []int
	// watches are the connections of the calls.
	watches []int
}

type connection struct{}

func (d *dying) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	d.connections++
	return context.WithValue(ctx, connection{}, d.connections)
}

func (d *dying) HandleConn(ctx context.Context, told stats.ConnStats) {
	if _, isEnd := told.(*stats.ConnEnd); isEnd {
		d.mutex.Lock()
		defer d.mutex.Unlock()
		d.ended = append(d.ended, ctx.Value(connection{}).(int))
	}
}

func (d *dying) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (d *dying) HandleRPC(context.Context, stats.RPCStats) {}

func (d *dying) WatchEvents(
	_ *taskyardv1.WatchEventsRequest, stream grpc.ServerStreamingServer[taskyardv1.WatchEventsResponse],
) error {
	number := stream.Context().Value(connection{}).(int)
	d.mutex.Lock()
	d.watches = append(d.watches, number)
	d.mutex.Unlock()
	if number != 2 {
		if err := stream.Send(message("a", started)); err != nil {
			return err
		}
	}
	if number == 3 {
		if err := stream.Send(message("b", 1)); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return status.FromContextError(stream.Context().Err()).Err()
}

// check compares what is so when nothing goes on any more.
func (d *dying) check(t *testing.T, watches, ended []int) {
	t.Helper()
	synctest.Wait()
	d.mutex.Lock()
	defer d.mutex.Unlock()
	slices.Sort(d.ended)
	if !slices.Equal(d.watches, watches) || !slices.Equal(d.ended, ended) {
		t.Errorf("watched on %v, ended %v, not %v and %v", d.watches, d.ended, watches, ended)
	}
}

// overDying calls with a client of such a server, in a time that passes at once. What is
// left in the end fails the test.
func overDying(t *testing.T, test func(*testing.T, *dying, *Client)) {
	synctest.Test(t, func(t *testing.T) {
		service := &dying{}
		server := grpc.NewServer(grpc.StatsHandler(service))
		taskyardv1.RegisterTaskServiceServer(server, service)
		healthy := health.NewServer()
		healthy.SetServingStatus("taskyard.v1.TaskService", healthpb.HealthCheckResponse_SERVING)
		healthpb.RegisterHealthServer(server, healthy)
		listener := bufconn.Listen(1 << 16)
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		defer func() {
			server.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		}()
		dial := func(ctx context.Context, _ string) (net.Conn, error) {
			return listener.DialContext(ctx)
		}
		client, err := Connect(t.Context(), "stage", grpc.WithContextDialer(dial))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		test(t, service, client)
	})
}

func sees(t *testing.T, watcher *Watcher, expected ...string) {
	t.Helper()
	var words []string
	for range expected {
		seen, err := watcher.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, inAWord(seen))
	}
	if !slices.Equal(words, expected) {
		t.Errorf("%v, not %v", words, expected)
	}
}

func TestAConnectionThatDiedIsReplaced(t *testing.T) {
	overDying(t, func(t *testing.T, server *dying, client *Client) {
		start := time.Now()
		watcher := client.Watch(Watch{Heartbeat: time.Second})
		sees(t, watcher, "Started", "Lost", "Restored", "a<1>b")
		// Two heartbeats and the grace, the grace again, and two rests.
		if took := time.Since(start); took < 12*time.Second || took > 12300*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		server.check(t, []int{1, 2, 3}, []int{2})
		watcher.Close()
		server.check(t, []int{1, 2, 3}, []int{2, 3})
		// The client's own is still there.
		_, err := client.Tasks.GetTask(t.Context(), &taskyardv1.GetTaskRequest{})
		if status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
		server.check(t, []int{1, 2, 3}, []int{2, 3})
	})
}

func TestAWatchThatEndsClosesItsOwnConnection(t *testing.T) {
	overDying(t, func(t *testing.T, server *dying, client *Client) {
		watcher := client.Watch(Watch{Heartbeat: time.Second, MaxOutage: 2 * time.Second})
		sees(t, watcher, "Started", "Lost")
		if _, err := watcher.Next(t.Context()); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
		server.check(t, []int{1, 2}, []int{2})
	})
}

func TestAClientThatIsClosedEndsItsWatches(t *testing.T) {
	overDying(t, func(t *testing.T, server *dying, client *Client) {
		watcher := client.Watch(Watch{Heartbeat: time.Second})
		defer watcher.Close()
		sees(t, watcher, "Started", "Lost", "Restored", "a<1>b")
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		if _, err := watcher.Next(t.Context()); status.Code(err) != codes.Canceled {
			t.Error(err)
		}
		server.check(t, []int{1, 2, 3}, []int{1, 2, 3})
	})
}
