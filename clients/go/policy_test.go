package taskyard

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// published is the retry policy for generated clients.
func published(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "service-config.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheFiguresAreThoseThatArePublished(t *testing.T) {
	var config struct {
		MethodConfig []struct {
			RetryPolicy struct {
				InitialBackoff, MaxBackoff string
				BackoffMultiplier          int
				RetryableStatusCodes       []codes.Code
			}
		}
	}
	if err := json.Unmarshal([]byte(published(t)), &config); err != nil {
		t.Fatal(err)
	}
	if len(config.MethodConfig) != 1 {
		t.Fatalf("there are %d policies", len(config.MethodConfig))
	}
	policy := config.MethodConfig[0].RetryPolicy
	expected, err := time.ParseDuration(policy.InitialBackoff)
	longest, err2 := time.ParseDuration(policy.MaxBackoff)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	for failures := 1; failures <= 20; failures++ {
		if is := longestBackoff(failures); is != expected {
			t.Errorf("%v after %d failures, not %v", is, failures, expected)
		}
		expected = min(expected*time.Duration(policy.BackoffMultiplier), longest)
	}
	if expected != longest {
		t.Errorf("it never came to %v", longest)
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		failed := newErrorf(code, "no")
		_, callAgain := restAfter(1, failed)
		_, watchAgain := (&outages{maxOutage: time.Hour}).lose(failed)
		isPublished := slices.Contains(policy.RetryableStatusCodes, code)
		if callAgain != isPublished || watchAgain != isPublished {
			t.Errorf("%v: a call %v, a watch %v", code, callAgain, watchAgain)
		}
	}
}

// unready refuses the first submissions with these pushbacks, of which "" is none.
type unready struct {
	taskyardv1.UnimplementedTaskServiceServer
	pushbacks []string
	// attempts are what gRPC says of those before, in each call.
	attempts [][]string
}

func (u *unready) Submit(
	ctx context.Context, _ *taskyardv1.SubmitRequest,
) (*taskyardv1.SubmitResponse, error) {
	u.attempts = append(u.attempts, metadata.ValueFromIncomingContext(ctx, "grpc-previous-rpc-attempts"))
	if len(u.pushbacks) == 0 {
		return &taskyardv1.SubmitResponse{TaskId: "t1"}, nil
	}
	pushback := u.pushbacks[0]
	u.pushbacks = u.pushbacks[1:]
	refused := status.Error(codes.Unavailable, "not now")
	if pushback == "" {
		return nil, refused
	}
	return nil, errors.Join(grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", pushback)), refused)
}

func TestAGeneratedClientRetriesByWhatIsPublished(t *testing.T) {
	service := &unready{pushbacks: []string{"", "1"}}
	server := grpc.NewServer()
	taskyardv1.RegisterTaskServiceServer(server, service)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(published(t)))
	if err != nil {
		t.Fatal(err)
	}
	request := &taskyardv1.SubmitRequest{Kind: "noop", RequestId: "once"}
	answer, err := taskyardv1.NewTaskServiceClient(conn).Submit(t.Context(), request)
	if err != nil || answer.GetTaskId() != "t1" {
		t.Errorf("%v, %v", answer, err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	server.Stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if !slices.EqualFunc(service.attempts, [][]string{nil, {"1"}, {"2"}}, slices.Equal) {
		t.Errorf("the attempts were %v", service.attempts)
	}
}
