package spokes

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/transport"
)

// wire is a connection that counts its bytes, and can go deaf.
type wire struct {
	net.Conn
	service *Service

	mu     sync.Mutex
	deaf   bool
	closed chan struct{}
	once   sync.Once
}

func (w *wire) Read(b []byte) (int, error) {
	w.mu.Lock()
	deaf := w.deaf
	w.mu.Unlock()
	if deaf {
		<-w.closed
		return 0, net.ErrClosed
	}
	n, err := w.Conn.Read(b)
	w.service.counted(func(c *Counters) { c.Received += int64(n) })
	return n, err
}

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	w.service.counted(func(c *Counters) { c.Sent += int64(n) })
	return n, err
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return w.Conn.Close()
}

// goDeaf leaves what comes from now on in the kernel's buffers.
func (w *wire) goDeaf() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = true
}

// dial prepares a connection to the hub as spokes do.
func (s *spoke) dial() (*grpc.ClientConn, error) {
	return transport.Dial(s.service.opened.Addr, s.tls, grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		s.service.counted(func(c *Counters) { c.Dials++ })
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		w := &wire{Conn: conn, service: s.service, closed: make(chan struct{})}
		s.service.mu.Lock()
		defer s.service.mu.Unlock()
		s.wire = w
		return w, nil
	}))
}
