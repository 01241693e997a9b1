package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/access"
	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
)

// call is one call on its way.
type call struct {
	ctx    context.Context // of the call, as what it has passed so far made it
	method string          // "/package.Service/Method"
	start  time.Time
	done   func() // at its end; nil: nothing

	certificate *[32]byte // fingerprint of the one that the caller presented; nil for none
	key         fleet.Fingerprint
	bearer      *caller.Caller // of a token that was proven; nil for none
	who         caller.Caller
	edition     atomic.Uint64 // of the record's answers about the caller, at which it was let in last; 0: none
	stranger    string        // why the caller is nobody the hub knows; empty when it knows
	refused     error         // why the hub does not serve whom it knows, as the answer to the call; nil where it does

	kept    bool          // among the server's streams
	spoke   bool          // of these one of a spoke's that never end
	conn    *tracked      // nil in tests of this package only
	until   time.Time     // when a stream that never ends is old; zero: never
	sending atomic.Uint32 // the sweep since which a message waits for its reader; 0: none does
	slow    bool          // it was cut for that; guarded by the server's mu
}

// begin is what each call passes before it is answered, in this order.
func (s *Server) begin(c *call) error {
	c.start = time.Now()
	if err := s.identify(c); err != nil {
		return err
	}
	if err := s.authorise(c); err != nil {
		return err
	}
	if err := s.admit(c); err != nil {
		return err
	}
	return s.announce(c)
}

// end is what each call passes afterwards. It is to be deferred.
func (s *Server) end(c *call, err *error) {
	if p := recover(); p != nil {
		s.log.Error("call panicked", slog.String(logging.Method, c.method), slog.Any(logging.Error, p), slog.String("stack", string(debug.Stack())))
		*err = status.Error(codes.Internal, "the hub has a fault here; its log has the details")
	}
	if *err != nil {
		*err = s.mapped(c, *err)
	}
	if c.kept {
		s.forget(c)
	}
	if c.done != nil {
		c.done()
	}
	s.logCall(c, *err)
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	c := &call{ctx: ctx, method: info.FullMethod}
	defer func() {
		if err != nil {
			resp = nil
		}
	}()
	defer s.end(c, &err)
	if err := s.begin(c); err != nil {
		return nil, err
	}
	return handler(c.ctx, req)
}

// stream is the interceptor of streams. It waits for as long as its handler, and there are thousands: with grpc's own
// and with what a handler has that never ends, what it has on the stack just fits what a stack of 8 KiB may hold without
// becoming one of 16 (a quarter, when memory is collected). Hence a closure, which is called without a frame more.
func (s *Server) stream() grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		g := s.guard(ss, info)
		defer s.end(g.call, &err)
		if err = s.enter(g); err != nil {
			return err
		}
		return handler(srv, g)
	}
}

func (s *Server) guard(ss grpc.ServerStream, info *grpc.StreamServerInfo) *guarded {
	return &guarded{ServerStream: ss, call: &call{ctx: ending.Stream(ss.Context()), method: info.FullMethod}, server: s}
}

func (s *Server) enter(g *guarded) error {
	if err := s.begin(g.call); err != nil {
		return err
	}
	s.keep(g.call)
	return g.check() // what ended before the call was kept was told to nobody
}

// guarded checks the caller anew for every message, either way: an identity that ends, ends its streams, and
// one that lost a right is told nothing more. As long as no answer of the record has changed, that is one comparison.
type guarded struct {
	grpc.ServerStream
	call   *call
	server *Server
}

func (g *guarded) Context() context.Context { return g.call.ctx }

func (g *guarded) RecvMsg(m any) error {
	if err := g.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return g.check()
}

func (g *guarded) SendMsg(m any) error {
	if err := g.check(); err != nil {
		return err
	}
	g.call.sending.Store(g.server.sweeps.Load())
	defer g.call.sending.Store(0)
	return g.ServerStream.SendMsg(m)
}

func (g *guarded) check() error {
	if g.call.certificate == nil && g.call.bearer == nil {
		return nil // nothing that could have ended
	}
	edition := g.server.identities.Edition() // first: what changes from here on is seen with the next message
	if g.call.edition.Load() == edition && time.Now().Before(g.call.who.NotAfter) {
		return nil
	}
	now := call{ctx: g.call.ctx, method: g.call.method, certificate: g.call.certificate, key: g.call.key, bearer: g.call.bearer}
	if err := g.server.recognise(&now, g.server.identities.Identity); err != nil {
		return err
	}
	if err := now.allowed(g.server.access); err != nil {
		return err
	}
	if g.call.bearer == nil { // a token's issuer keeps no editions
		g.call.edition.Store(edition)
	}
	return nil
}

// logCall says who called what and how it ended, never what was said.
func (s *Server) logCall(c *call, err error) {
	code := status.Code(err)
	level := slog.LevelDebug
	if code == codes.Unauthenticated || code == codes.PermissionDenied {
		level = slog.LevelInfo
	}
	if !s.log.Enabled(c.ctx, level) {
		return
	}
	who := c.who.String()
	if c.stranger != "" {
		who = "stranger"
	}
	attrs := []slog.Attr{
		slog.String(logging.Method, c.method), slog.String("caller", who), slog.String("code", code.String()),
		slog.Duration(logging.Duration, time.Since(c.start)),
	}
	if p, ok := peer.FromContext(c.ctx); ok {
		attrs = append(attrs, slog.String(logging.Address, p.Addr.String()))
	}
	if err != nil {
		attrs = append(attrs, slog.String(logging.Reason, status.Convert(err).Message()))
	}
	s.log.LogAttrs(c.ctx, level, "call", attrs...)
}

// identify finds out who calls, from the certificate of the connection and the hub's record of it alone, or from a
// token where there is no certificate.
func (s *Server) identify(c *call) (err error) {
	if p, ok := peer.FromContext(c.ctx); ok {
		if conn, ok := p.AuthInfo.(*tracked); ok {
			c.conn, c.certificate, c.key = conn, conn.certificate, conn.key
		}
	}
	if c.done, err = s.present(c); err != nil {
		return err
	}
	edition := s.identities.Edition()
	use := func(certificate [32]byte) (store.Identity, error) { return s.identities.Use(certificate, time.Now()) }
	if err := s.recognise(c, use); err != nil {
		return err
	}
	if c.stranger == "" {
		c.ctx = caller.With(c.ctx, c.who)
		if c.bearer == nil {
			c.edition.Store(edition)
		}
	}
	return nil
}

// recognise sets who the call's certificate speaks for now. Its errors are the hub's own trouble.
func (s *Server) recognise(c *call, find func([32]byte) (store.Identity, error)) error {
	c.who, c.stranger, c.refused = caller.Caller{}, "", nil
	if c.bearer != nil {
		return c.bears(time.Now())
	}
	if c.certificate == nil {
		c.stranger = "the call came without a client certificate or a token"
		return nil
	}
	id, err := find(*c.certificate)
	switch {
	case errors.Is(err, store.ErrNotFound):
		c.stranger = "the hub does not know this client certificate: its operator was removed, its relay was removed, its cluster was turned away, removed or joined again, or it is of an earlier data folder"
	case err != nil:
		s.log.Error("identity not looked up", slog.String(logging.Method, c.method), slog.Any(logging.Error, err))
		return status.Error(codes.Unavailable, "the hub cannot look up who calls; its log has the cause")
	case id.Standing != store.Accepted || id.Superseded():
		c.refused = refusal(id, c.key)
		c.stranger = status.Convert(c.refused).Message()
	case !time.Now().Before(id.NotAfter) && s.mayComeBack(c, id):
		c.who = caller.Caller{Cluster: id.Cluster, Fingerprint: *c.certificate, Key: c.key, Expired: id.NotAfter}
	case !time.Now().Before(id.NotAfter):
		c.stranger = fmt.Sprintf("the client certificate of %s expired at %s", caller.Caller{Cluster: id.Cluster, Operator: id.Operator, Relay: id.Relay}, id.NotAfter.Format(time.RFC3339))
	default:
		c.who = caller.Caller{Cluster: id.Cluster, Operator: id.Operator, Relay: id.Relay, Role: id.Role, Fingerprint: *c.certificate, Key: c.key, NotAfter: id.NotAfter}
	}
	return nil
}

// mayComeBack: a spoke whose certificate expired while it slept may renew it, and nothing else, for a while.
func (s *Server) mayComeBack(c *call, id store.Identity) bool {
	return id.Cluster != "" && c.method == renewMethod && time.Since(id.NotAfter) <= s.comeBack
}

const renewMethod = "/wheelwright.sync.v1.SyncService/Renew"

func (s *Server) authorise(c *call) error { return c.allowed(s.access) }

// admit has a spoke's streams beyond the first of a connection, whose handshake paid for that, wait for their turn.
func (s *Server) admit(c *call) error {
	if !s.access[c.method].Endless || c.who.Cluster == "" {
		return nil
	}
	s.mu.Lock()
	stopped, within := s.stopped, s.admission.window(s.spokes)
	s.mu.Unlock()
	if stopped {
		return stopping(0, within)
	}
	if c.conn != nil && c.conn.streams.Add(1) == 1 {
		return nil
	}
	err := s.admission.stream(c.ctx)
	if errors.Is(err, errBusy) {
		return comeBack(codes.ResourceExhausted, err.Error()+"; try again in a moment", rand.N(within))
	}
	return err
}

// announce tells operators what the hub's certificate may come from: a context file lasts for long, and an authority
// is rotated under it.
func (s *Server) announce(c *call) error {
	if c.stranger != "" || c.who.Operator == "" {
		return nil
	}
	if err := grpc.SetHeader(c.ctx, metadata.Pairs(transport.AuthoritiesHeader, strings.Join(s.pins(), ","))); err != nil {
		return fmt.Errorf("tell the authorities: %w", err)
	}
	return nil
}

// mapped gives a code to what a service returned without one. A cause of the hub's own goes to its
// log, and to the vendor's operators; a spoke or a provider is not told about the hub's inside.
func (s *Server) mapped(c *call, err error) error {
	if answer, ended := ending.Answer(c.ctx); ended && answer != nil {
		return answer
	}
	st, coded := status.FromError(err)
	cancelled := errors.Is(err, context.Canceled) || (coded && st.Code() == codes.Canceled)
	switch {
	case errors.Is(context.Cause(c.ctx), errTokenOver):
		return c.tokenOver()
	case coded:
		return err
	case cancelled, errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	s.log.Error("call ended with the hub's own trouble", slog.String(logging.Method, c.method), slog.Any(logging.Error, err))
	if c.audience()&access.Vendors != 0 {
		return status.Error(codes.Internal, err.Error())
	}
	return status.Error(codes.Internal, "the hub is in trouble; its log has the cause")
}
