package taskyard_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	taskyard "github.com/taskyard/taskyard/clients/go"
	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

// listen is a port of this machine on which connections get to serve.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

// silent accepts, reads and says nothing.
func silent(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func notFound(t *testing.T, http1, http2 bool) string {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(http1)
	server.Config.Protocols.SetUnencryptedHTTP2(http2)
	server.Start()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func nobody(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	return listener.Addr().String()
}

func TestConnectTellsWhatIsWrong(t *testing.T) {
	for name, one := range map[string]struct {
		address string
		code    codes.Code
		told    string
	}{
		"nobody":         {nobody(t), codes.Unavailable, "no server answers at http://127.0.0.1:"},
		"closes at once": {listen(t, func(net.Conn) {}), codes.Unavailable, "no server answers at"},
		"silent":         {listen(t, silent), codes.DeadlineExceeded, "the deadline passed"},
		"HTTP/1":         {notFound(t, true, false), codes.Unavailable, "speaks HTTP/1,"},
		"HTTP/2":         {notFound(t, false, true), codes.Unimplemented, "no Taskyard answers at"},
		"another gRPC":   {otherGRPC(t), codes.NotFound, "no Taskyard answers at"},
		"no address":     {"https://localhost", codes.InvalidArgument, "TLS"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := taskyard.Connect(ctx, one.address)
			check(t, err, one.code)
			if !strings.Contains(err.Error(), one.told) {
				t.Errorf("%q does not tell %q", err, one.told)
			}
			t.Log(err)
		})
	}
}

// otherGRPC is healthy, but no Taskyard.
func otherGRPC(t *testing.T) string {
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	return listener.Addr().String()
}

func TestTheEnvironmentNamesTheServer(t *testing.T) {
	address := nobody(t)
	t.Setenv("TASKYARD_SERVER", address)
	_, err := taskyard.Connect(t.Context(), "")
	check(t, err, codes.Unavailable)
	if !strings.Contains(err.Error(), "http://"+address) {
		t.Errorf("%q does not tell %s", err, address)
	}
}

func TestASilentServerIsNotWaitedForWithoutADeadline(t *testing.T) {
	t.Parallel()
	start := time.Now()
	_, err := taskyard.Connect(t.Context(), listen(t, silent))
	check(t, err, codes.Unavailable)
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestNothingHangsPastItsDeadline(t *testing.T) {
	request := &taskyardv1.SubmitRequest{Kind: "noop"}
	for name, call := range map[string]func(context.Context, *taskyard.Client) error{
		"submit": func(ctx context.Context, client *taskyard.Client) error {
			_, err := client.Submit(ctx, request)
			return err
		},
		"wait": func(ctx context.Context, client *taskyard.Client) error {
			_, err := client.Wait(ctx, "t1")
			return err
		},
		"wait up to": func(ctx context.Context, client *taskyard.Client) error {
			_, err := client.WaitUpTo(ctx, "t1", time.Hour)
			return err
		},
		"submit and watch": func(ctx context.Context, client *taskyard.Client) error {
			return drain(ctx, client.SubmitAndWatch(request))
		},
		"watch": func(ctx context.Context, client *taskyard.Client) error {
			return drain(ctx, client.Watch(taskyard.Watch{}))
		},
		"generated": func(ctx context.Context, client *taskyard.Client) error {
			_, err := client.Admin.GetPool(ctx, &taskyardv1.GetPoolRequest{})
			return err
		},
	} {
		for kind, address := range map[string]string{"nobody": nobody(t), "silent": listen(t, silent)} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				client := over(t, address)
				ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
				defer cancel()
				start := time.Now()
				err := call(ctx, client)
				if name == "generated" && kind == "nobody" {
					check(t, err, codes.Unavailable)
				} else {
					check(t, err, codes.DeadlineExceeded)
				}
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		}
	}
}

// over is a client that was not asked to connect yet.
func over(t *testing.T, address string) *taskyard.Client {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return taskyard.Over(conn)
}

func drain(ctx context.Context, watcher *taskyard.Watcher) error {
	for _, err := range watcher.All(ctx) {
		if err != nil {
			return err
		}
	}
	return nil
}

func check(t *testing.T, err error, code codes.Code) {
	t.Helper()
	var failed *taskyard.Error
	if !errors.As(err, &failed) || failed.Code != code || status.Code(err) != code || failed.Reason != "" {
		t.Fatalf("%v (%T), not %v", err, err, code)
	}
	checkIsOneLine(t, err)
}

// pushing refuses the first submissions with these pushbacks.
type pushing struct {
	taskyardv1.UnimplementedTaskServiceServer
	pushbacks []string
	calls     atomic.Int64
	ids       chan string
}

func (p *pushing) Submit(
	ctx context.Context, request *taskyardv1.SubmitRequest,
) (*taskyardv1.SubmitResponse, error) {
	p.ids <- request.GetRequestId()
	call := int(p.calls.Add(1))
	if call > len(p.pushbacks) {
		return &taskyardv1.SubmitResponse{TaskId: "t1"}, nil
	}
	err := grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", p.pushbacks[call-1]))
	return nil, errors.Join(err, status.Error(codes.Unavailable, "not now"))
}

func TestThePushbackOfATrailerIsHonoured(t *testing.T) {
	submit := func(pushbacks ...string) (*pushing, error) {
		service := &pushing{pushbacks: pushbacks, ids: make(chan string, 10)}
		server := grpc.NewServer()
		taskyardv1.RegisterTaskServiceServer(server, service)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		defer func() {
			server.Stop()
			<-served
		}()
		request := &taskyardv1.SubmitRequest{Kind: "noop"}
		_, err = over(t, listener.Addr().String()).Submit(t.Context(), request)
		if request.GetRequestId() != "" {
			t.Error("the caller's request was changed")
		}
		return service, err
	}
	start := time.Now()
	service, err := submit("300", "0")
	if err != nil || service.calls.Load() != 3 || time.Since(start) < 300*time.Millisecond {
		t.Errorf("%v after %d calls and %v", err, service.calls.Load(), time.Since(start))
	}
	if first := <-service.ids; first == "" || first != <-service.ids || first != <-service.ids {
		t.Error("the request_id is not the same")
	}
	service, err = submit("-1")
	if status.Code(err) != codes.Unavailable || service.calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, service.calls.Load())
	}
}
