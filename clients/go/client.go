// Package taskyard is the client of Taskyard, a durable task service: a thin layer over
// the generated one, which is package taskyardv1.
//
// It owns addresses, connecting, what is worth another try, and a watch that goes on
// exactly where a broken one ended.
package taskyard

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	taskyardv1 "github.com/taskyard/taskyard/clients/go/taskyard/v1"
)

const (
	// maxAnswer is the longest answer that is read. A task carries a payload and a
	// result, and an operator may have raised the server's limits on both.
	maxAnswer = 256 << 20
	// connectTimeout is how long the connection may take to be made.
	connectTimeout = 5 * time.Second
	userAgent      = "taskyard-go/0.1.0"
)

// Client is a connection to a server, which it makes anew by itself when it breaks. It
// may be used by many goroutines at once.
type Client struct {
	// Tasks is the generated client of tasks and events. Its calls are made once each
	// and fail with an [*Error].
	Tasks taskyardv1.TaskServiceClient
	// Admin is the generated client for operators.
	Admin taskyardv1.AdminServiceClient

	// connections are nil if the connection was made otherwise.
	connections *connections
}

// Connect connects to a server at http://host:port, host:port or host; the port is 50051
// if none is given. Without an address it is that of the variable TASKYARD_SERVER, or
// http://127.0.0.1:50051. It fails if the address is none, or if no Taskyard answers there
// within 5 s. The options are added to those of the client.
func Connect(ctx context.Context, address string, options ...grpc.DialOption) (*Client, error) {
	target, err := parseAddress(cmp.Or(address, os.Getenv("TASKYARD_SERVER"), defaultAddress))
	if err != nil {
		return nil, err
	}
	options = append(dialOptions(), options...)
	made := &connections{dial: func() (*grpc.ClientConn, error) {
		// The dialer resolves the name at each connection: the server may have moved.
		return grpc.NewClient("passthrough:///"+target, options...)
	}}
	conn, err := made.make()
	if err != nil {
		return nil, newErrorf(codes.InvalidArgument, "cannot connect to http://%s: %v", target, err)
	}
	if err := probe(ctx, conn, target); err != nil {
		_ = made.closeAll()
		return nil, err
	}
	client := Over(conn)
	client.connections = made
	return client, nil
}

// Over is a client over a connection that was made otherwise, which [Client.Close] leaves
// open. It should have keep-alive: without it a server that has gone without a word is
// noticed late, and a watch is tried again on the same connection.
func Over(conn grpc.ClientConnInterface) *Client {
	over := wrapped{conn}
	return &Client{
		Tasks: taskyardv1.NewTaskServiceClient(over),
		Admin: taskyardv1.NewAdminServiceClient(over),
	}
}

// Close closes the connection. What is under way on it fails, and so do the watches.
func (c *Client) Close() error {
	if c.connections == nil {
		return nil
	}
	return c.connections.closeAll()
}

func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(userAgent),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		// The rests between calls are this package's; a server that is back must not
		// be missed for long.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: grpcbackoff.Config{
				BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second,
			},
			MinConnectTimeout: connectTimeout,
		}),
		// Finds out within 40 s that the machine at the other end has gone.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
	}
}

// probe asks for the health of the task service, whatever it is: that it is told is enough,
// as only a Taskyard knows that service.
func probe(ctx context.Context, conn grpc.ClientConnInterface, target string) error {
	bounded, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	_, err := healthpb.NewHealthClient(conn).Check(bounded, &healthpb.HealthCheckRequest{
		Service: taskyardv1.TaskService_ServiceDesc.ServiceName,
	})
	if err == nil {
		return nil
	}
	failed := asError(err, nil)
	switch {
	case ctx.Err() != nil:
		return newErrorf(failed.Code, "connecting to http://%s: %s", target, failed.message)
	case failed.Reason != "":
		return nil
	case failed.Code == codes.DeadlineExceeded:
		return newErrorf(codes.Unavailable, "no server answers at http://%s within %v", target, connectTimeout)
	case failed.Code == codes.Unavailable:
		cause := rootCause(failed.status.Message())
		return newErrorf(codes.Unavailable, "no server answers at http://%s: %s", target, cause)
	}
	return newErrorf(failed.Code, "no Taskyard answers at http://%s: %s", target, strangerSaid(failed.status.Message()))
}

// wrapped makes every call fail with an *Error.
type wrapped struct{ grpc.ClientConnInterface }

func (w wrapped) Invoke(
	ctx context.Context, method string, args, reply any, options ...grpc.CallOption,
) error {
	var trailer metadata.MD
	options = append(slices.Clip(options), grpc.Trailer(&trailer))
	if err := w.ClientConnInterface.Invoke(ctx, method, args, reply, options...); err != nil {
		return asError(err, trailer)
	}
	return nil
}

func (w wrapped) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := w.ClientConnInterface.NewStream(ctx, desc, method, options...)
	if err != nil {
		return nil, asError(err, nil)
	}
	return wrappedStream{stream}, nil
}

type wrappedStream struct{ grpc.ClientStream }

func (w wrappedStream) RecvMsg(message any) error {
	err := w.ClientStream.RecvMsg(message)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return asError(err, w.Trailer())
}
