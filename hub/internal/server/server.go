// Package server is the hub's one port: it listens, finds out who calls, and lets through what that
// caller may call. Every call passes begin and end, in step.go. It answers nothing
// itself but health and reflection; the services are the api packages'.
//
// It bounds what callers cost. Connections are let in at the rate of what they were measured to cost, and no faster than
// their handshakes are seen to get done (admission), a quarter of the files that the process may open is kept from them,
// and a message that nobody reads for a minute ends its stream. Streams that it ends say when to come back, and are
// spread for that.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/wheelwright-dev/wheelwright/hub/internal/access"
	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
)

// identities maps a certificate, by the SHA-256 of its DER, to whom it speaks for; store.ErrNotFound
// when it speaks for nobody. Use is asked for each call, Identity for each message where Edition, which is never 0, is
// another one than when it was asked last: it has grown by the time that whoever changed an answer is answered. Revoked
// receives after one of the answers became another.
type identities interface {
	Identity(fingerprint [32]byte) (store.Identity, error)
	Use(fingerprint [32]byte, now time.Time) (store.Identity, error)
	Edition() uint64
	Revoked() <-chan struct{}
}

// Config is what a server needs.
type Config struct {
	Listener    net.Listener // taken over; nil: listen on Listen
	Listen      string       // HOST:PORT
	TLS         *tls.Config  // refuses client certificates that are not the authority's
	Identities  identities
	Tokens      tokens                      // nil: none are taken
	Register    func(grpc.ServiceRegistrar) // adds the services
	GracePeriod time.Duration               // for calls under way when the server stops
	Age         time.Duration               // of a connection, at which its caller opens the next one, within a tenth; 0: never
	Reading     time.Duration               // for which a message may wait for its reader; 0: a minute
	Authorities func() []string             // pins of what the hub's certificate may come from
	Revoked     func()                      // asked after identities ended; nil: nobody else looks at them
	ComeBack    time.Duration               // after its certificate's end within which a spoke may renew it
	Log         *slog.Logger
}

// Server serves the hub's API.
type Server struct {
	grpc       *grpc.Server
	health     *health.Server
	listener   net.Listener
	identities identities
	tokens     tokens
	grace      time.Duration
	comeBack   time.Duration
	pins       func() []string
	revoked    func()
	log        *slog.Logger
	access     access.Table
	age        time.Duration
	reading    time.Duration
	admission  *admission
	saidBusy   occasional
	saidFiles  occasional
	sweeps     atomic.Uint32   // so far; a clock that costs nothing to read
	slow       atomic.Uint64   // streams that were cut since their callers did not read
	closing    context.Context // ends when no handshake is to begin or go on
	close      context.CancelFunc

	mu          sync.Mutex
	stopped     bool
	streams     map[*call]struct{} // those under way
	spokes      int                // of streams: those of spokes that never end
	connections map[*tracked]struct{}
}

// Stats counts what the server did since it was made, and has now.
type Stats struct {
	Connections  uint64 // open now
	Waiting      uint64 // connections and streams that wait for their turn, now
	Admitted     uint64 // connections
	RefusedBusy  uint64 // connections and streams that were too many at a time
	RefusedFiles uint64 // connections for which there were no files
	Slow         uint64 // streams that were cut since their callers did not read
}

// Stats is safe to call at any time.
func (s *Server) Stats() Stats {
	a := s.admission
	return Stats{Connections: uint64(a.open.Load()), Waiting: uint64(a.waiting.Load()), Admitted: uint64(a.admitted.Load()),
		RefusedBusy: uint64(a.busy.Load()), RefusedFiles: uint64(a.files.Load()), Slow: s.slow.Load()}
}

// Connections is how many spokes may be connected at a time, by the files that this process may open.
func (s *Server) Connections() int64 { return s.admission.most - s.admission.kept }

// ReconnectWithin is the time over which the spokes that are connected now have to spread themselves if they all have
// to come back, as measured so far.
func (s *Server) ReconnectWithin() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.admission.window(s.spokes)
}

// New listens at once, so that a port that is taken is told before anything else starts; calls are
// answered from Run on. A method that has no rule of who may call it is refused.
func New(cfg Config) (*Server, error) {
	s := &Server{
		identities: cfg.Identities, tokens: cfg.Tokens, grace: cfg.GracePeriod, comeBack: cfg.ComeBack, pins: cfg.Authorities, revoked: cfg.Revoked, log: cfg.Log,
		age: cfg.Age, reading: cmp.Or(cfg.Reading, time.Minute), admission: newAdmission(time.Now(), connectionsOf(files())),
		health: health.NewServer(), streams: map[*call]struct{}{}, connections: map[*tracked]struct{}{},
	}
	s.closing, s.close = context.WithCancel(context.Background())
	s.sweeps.Store(1) // 0 is for nothing
	options := append(transport.ServerOptions(cfg.TLS), transport.Age(cfg.Age), grpc.Creds(s.credentials(cfg.TLS)), grpc.UnaryInterceptor(s.unary), grpc.StreamInterceptor(s.stream()))
	s.grpc = grpc.NewServer(options...)
	cfg.Register(s.grpc)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	if err := s.rule(); err != nil {
		return nil, err
	}
	s.listener = cfg.Listener
	if s.listener == nil {
		l, err := listen(cfg.Listen)
		if err != nil {
			return nil, err
		}
		s.listener = l
	}
	s.listener = &sockets{Listener: s.listener, log: cfg.Log}
	return s, nil
}

// rule reads who may call what, once; that something may be called by nobody is a mistake to be seen at once.
func (s *Server) rule() (err error) {
	if s.access, err = access.Read(); err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	registered := map[string][]string{}
	for name, service := range s.grpc.GetServiceInfo() {
		registered[name] = nil
		for _, method := range service.Methods {
			registered[name] = append(registered[name], method.Name)
		}
	}
	if names := unruled(s.access, registered); len(names) > 0 {
		return fmt.Errorf("serve: nothing says who may call %v", names)
	}
	return nil
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: the port is taken: `ss -ltnp` shows by whom; stop that, or choose another address with --listen", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: not an address of this machine: `ip addr` lists them; choose one with --listen", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: not allowed: choose a port above 1023 with --listen", address)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: want HOST:PORT in --listen: %w", address, err)
	}
	return l, nil
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close lets go of the port of a server that was never run.
func (s *Server) Close() error {
	s.close()
	s.grpc.Stop()
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close %s: %w", s.Addr(), err)
	}
	return nil
}

// Run serves until ctx ends. Then streams that would never end are ended, a part of them at a time, calls under way
// have the grace period to finish, and what is left is cut off.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(s.listener) }()
	watched := make(chan struct{})
	watching, unwatch := context.WithCancel(context.WithoutCancel(ctx)) // also while calls under way finish
	go func() {
		defer close(watched)
		var both sync.WaitGroup
		both.Go(func() { s.watch(watching) })
		both.Go(func() { s.sweep(watching) })
		both.Wait()
	}()
	defer func() { unwatch(); <-watched }()
	s.log.Info("hub listens", slog.String(logging.Address, s.Addr().String()))
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", s.Addr(), err)
	case <-ctx.Done():
	}
	s.health.Shutdown()
	s.drain()
	s.close()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.grpc.GracefulStop()
	}()
	grace := time.NewTimer(s.grace)
	defer grace.Stop()
	select {
	case <-finished:
	case <-grace.C:
		s.log.Warn("calls under way were cut off", slog.Duration(logging.Duration, s.grace))
		s.grpc.Stop()
		<-finished
	}
	<-served
	return nil
}

// keep remembers a stream, so that it can be ended with its caller's right to it and, where it is endless, with the
// server.
func (s *Server) keep(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	endless := s.access[c.method].Endless
	if endless && s.age > 0 {
		c.until = time.Now().Add(aged(s.age))
	}
	if s.stopped && endless {
		ending.End(c.ctx, stopping(0, s.admission.window(s.spokes)))
	}
	c.kept = true
	s.streams[c] = struct{}{}
	if c.spoke = endless && c.who.Cluster != ""; c.spoke {
		s.spokes++
	}
}

func (s *Server) forget(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, c)
	if c.spoke {
		s.spokes--
	}
}
