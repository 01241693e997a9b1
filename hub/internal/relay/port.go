package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
)

const (
	// maxGreeting bounds the first message of a TLS connection, in bytes: one with a resumed session has under 8,000.
	maxGreeting  = 32 << 10
	greetingWait = 10 * time.Second
	maxGreetings = 2048 // at once

	// What is passed on to the hub: joining, renewing and tickets take moments; spokes of before stay for long.
	maxPassed    = 4096
	passedPerSec = 500
	passedIdle   = 2 * time.Minute
	dialWait     = 10 * time.Second
	passedBuffer = 16 << 10
)

// port is what spokes dial. Who asks for the relay's own protocol is answered here, all else is passed on.
type port struct {
	listener net.Listener
	hub      string
	spokes   *inner
	counts   *counts
	log      *slog.Logger
	greeting chan struct{} // a place for each connection that has not said what it wants
	passed   chan struct{} // a place for each that is passed on
	rate     bucket
}

func newPort(l net.Listener, hub string, counts *counts, log *slog.Logger) *port {
	return &port{listener: l, hub: hub, counts: counts, log: log, greeting: make(chan struct{}, maxGreetings), passed: make(chan struct{}, maxPassed),
		spokes: &inner{addr: l.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}, rate: bucket{per: passedPerSec, left: passedPerSec}}
}

func (p *port) passing() int { return len(p.passed) }

// run accepts until ctx ends. What is passed on ends with it.
func (p *port) run(ctx context.Context) error {
	defer p.spokes.Close()
	stop := context.AfterFunc(ctx, func() { _ = p.listener.Close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := p.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("listen for spokes: %w", err)
		case err != nil: // such as too many open files: it passes
			p.log.Warn("a connection was not accepted", slog.Any(logging.Error, err))
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case p.greeting <- struct{}{}:
			all.Go(func() { p.take(ctx, conn) })
		default:
			p.refuse(conn, "as many as may are being greeted")
		}
	}
}

func (p *port) refuse(conn net.Conn, why string) {
	p.counts.refused.Add(1)
	p.log.Info("connection refused", slog.String(logging.Address, conn.RemoteAddr().String()), slog.String(logging.Reason, why))
	_ = conn.Close()
}

// take finds out what a connection wants.
func (p *port) take(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	protocols, said, err := greeting(conn, greetingWait)
	<-p.greeting
	stop()
	switch {
	case ctx.Err() != nil:
		_ = conn.Close()
	case err != nil:
		p.refuse(conn, err.Error())
	case slices.Contains(protocols, transport.RelayProtocol):
		p.spokes.hand(newGreeted(conn, said))
	case !slices.Contains(protocols, "h2"):
		p.refuse(conn, fmt.Sprintf("it speaks none of the hub's protocols but %q", protocols))
	default:
		p.pass(ctx, conn, said)
	}
}

var errSeen = errors.New("seen")

// greeting reads what a client says first in TLS, and what protocols it offers.
func greeting(conn net.Conn, wait time.Duration) (protocols []string, said []byte, err error) {
	if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
		return nil, nil, err
	}
	r := &recorder{Conn: conn}
	err = tls.Server(r, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		protocols = slices.Clone(hello.SupportedProtos)
		return nil, errSeen
	}}).Handshake()
	if !errors.Is(err, errSeen) {
		return nil, nil, fmt.Errorf("it did not say what it wants in TLS: %w", err)
	}
	return protocols, r.said.Bytes(), conn.SetDeadline(time.Time{})
}

// recorder keeps what is read, and writes nothing.
type recorder struct {
	net.Conn
	said bytes.Buffer
}

func (r *recorder) Read(b []byte) (int, error) {
	if r.said.Len() >= maxGreeting {
		return 0, fmt.Errorf("over %d bytes", maxGreeting)
	}
	n, err := r.Conn.Read(b[:min(len(b), maxGreeting-r.said.Len())])
	r.said.Write(b[:n])
	return n, err
}

func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }

// pass joins a connection with one to the hub. What goes through is between its two ends.
func (p *port) pass(ctx context.Context, conn net.Conn, said []byte) {
	select {
	case p.passed <- struct{}{}:
		defer func() { <-p.passed }()
	default:
		p.refuse(conn, "as many as may are passed on to the hub")
		return
	}
	if !p.rate.take(time.Now()) {
		p.refuse(conn, "more come than are passed on to the hub in a second")
		return
	}
	defer conn.Close()
	hub, err := (&net.Dialer{Timeout: dialWait}).DialContext(ctx, "tcp", p.hub)
	if err != nil {
		p.refuse(conn, "the hub cannot be reached: "+err.Error())
		return
	}
	defer hub.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close(); _ = hub.Close() })
	defer stop()
	p.counts.passed.Add(1)
	if _, err := hub.Write(said); err != nil {
		return
	}
	alive := func() {
		until := time.Now().Add(passedIdle)
		_ = conn.SetDeadline(until) // fails where it is closed, which the next read says too
		_ = hub.SetDeadline(until)
	}
	alive()
	var both sync.WaitGroup
	both.Go(func() { pump(hub, conn, alive) })
	both.Go(func() { pump(conn, hub, alive) })
	both.Wait()
}

// pump copies until one side ends, and says so to the other.
func pump(to, from net.Conn, alive func()) {
	buffer := make([]byte, passedBuffer)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			alive()
			if _, err := to.Write(buffer[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			if half, ok := to.(interface{ CloseWrite() error }); ok && errors.Is(err, io.EOF) {
				_ = half.CloseWrite()
			} else {
				_ = to.Close()
			}
			return
		}
	}
}

// bucket lets so many through in a second.
type bucket struct {
	per float64

	mu   sync.Mutex
	left float64
	at   time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.at.IsZero() {
		b.left = min(b.per, b.left+now.Sub(b.at).Seconds()*b.per)
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// greeted is a connection whose first words were read already. Its remote address knows it, so that who has a stream
// can end its connection: a stream that waits for its spoke to read is deaf to everything else.
type greeted struct {
	net.Conn
	first io.Reader
	from  net.Addr
}

type from struct {
	net.Addr
	conn net.Conn
}

func newGreeted(conn net.Conn, said []byte) *greeted {
	return &greeted{Conn: conn, first: io.MultiReader(bytes.NewReader(said), conn), from: from{conn.RemoteAddr(), conn}}
}

func (g *greeted) Read(b []byte) (int, error) { return g.first.Read(b) }
func (g *greeted) RemoteAddr() net.Addr       { return g.from }

// inner is the listener of what is for the relay itself.
type inner struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (i *inner) hand(conn net.Conn) {
	select {
	case i.conns <- conn:
	case <-i.done:
		_ = conn.Close()
	}
}

func (i *inner) Accept() (net.Conn, error) {
	select {
	case conn := <-i.conns:
		return conn, nil
	case <-i.done:
		return nil, net.ErrClosed
	}
}

func (i *inner) Close() error {
	i.once.Do(func() { close(i.done) })
	return nil
}

func (i *inner) Addr() net.Addr { return i.addr }
