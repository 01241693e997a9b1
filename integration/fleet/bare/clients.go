package bare

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// parallel set-ups of streams: more only wait for the processor.
const parallel = 64

// Clients is driven over net/rpc.
type Clients struct {
	mu       sync.Mutex
	conns    []*grpc.ClientConn
	total    int64 // bytes that came
	wanted   int64
	complete chan time.Time
}

// Opening is of a stream for each of these certificates.
type Opening struct {
	Listening
	Certificates [][]byte // DER
	Keys         [][]byte // PKCS#8
}

// Open opens a connection and a stream for each certificate and returns when all were answered.
func (c *Clients) Open(o Opening, _ *None) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(o.CA)
	group, ctx := errgroup.WithContext(context.Background())
	group.SetLimit(parallel)
	for n, certificate := range o.Certificates {
		group.Go(func() error {
			key, err := x509.ParsePKCS8PrivateKey(o.Keys[n])
			if err != nil {
				return err
			}
			return c.open(ctx, o.Addr, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots,
				Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}})
		})
	}
	return group.Wait()
}

func (c *Clients) open(ctx context.Context, addr string, cfg *tls.Config) error {
	conn, err := transport.Dial(addr, cfg)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.conns = append(c.conns, conn)
	c.mu.Unlock()
	stream, err := conn.NewStream(context.WithoutCancel(ctx), &description, method) // it outlives its opening
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	if err := stream.SendMsg(&syncv1.FetchBundleRequest{}); err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	if err := stream.RecvMsg(&syncv1.FetchBundleResponse{}); err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	go func() {
		for {
			m := &syncv1.FetchBundleResponse{}
			if stream.RecvMsg(m) != nil {
				return
			}
			c.came(len(m.GetData()))
		}
	}()
	return nil
}

func (c *Clients) came(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total += int64(n); c.complete != nil && c.total >= c.wanted {
		c.complete <- time.Now()
		c.complete = nil
	}
}

// Wanted is how many bytes are to come to all clients together from now on, and within what time.
type Wanted struct {
	Bytes  int64
	Within time.Duration
}

// Expect begins to count.
func (c *Clients) Expect(None, *None) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total = 0
	return nil
}

// Await returns when the last byte came since Expect.
func (c *Clients) Await(w Wanted, at *time.Time) error {
	complete := make(chan time.Time, 1)
	c.mu.Lock()
	c.wanted, c.complete = w.Bytes, complete
	c.mu.Unlock()
	c.came(0)
	select {
	case *at = <-complete:
		return nil
	case <-time.After(w.Within):
		c.mu.Lock()
		defer c.mu.Unlock()
		return fmt.Errorf("wait for %d bytes: %d came within %v", w.Bytes, c.total, w.Within)
	}
}

// Close closes every connection.
func (c *Clients) Close(None, *None) error {
	c.mu.Lock()
	conns := c.conns
	c.conns = nil
	c.mu.Unlock()
	var all error
	for _, conn := range conns {
		all = errors.Join(all, conn.Close())
	}
	return all
}
