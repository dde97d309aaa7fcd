package taskyard

import (
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

// connections are those of a client: its own, and those that its watches made anew after a
// silence.
type connections struct {
	dial func() (*grpc.ClientConn, error)

	mutex  sync.Mutex
	open   map[*grpc.ClientConn]struct{}
	closed bool
}

// make makes one more, to be closed by close or by closeAll.
func (c *connections) make() (*grpc.ClientConn, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.closed {
		return nil, newErrorf(codes.Canceled, "the client is closed")
	}
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	if c.open == nil {
		c.open = map[*grpc.ClientConn]struct{}{}
	}
	c.open[conn] = struct{}{}
	return conn, nil
}

func (c *connections) close(conn *grpc.ClientConn) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if _, isOpen := c.open[conn]; isOpen {
		delete(c.open, conn)
		_ = conn.Close()
	}
}

func (c *connections) closeAll() error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.closed = true
	var errs []error
	for conn := range c.open {
		errs = append(errs, conn.Close())
	}
	c.open = nil
	return errors.Join(errs...)
}
