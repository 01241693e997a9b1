package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/access"
	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
)

// call is one call on its way through the steps.
type call struct {
	ctx    context.Context // of the call, as the steps so far made it
	method string          // "/package.Service/Method"

	certificate *[32]byte // fingerprint of the one that the caller presented; nil for none
	key         fleet.Fingerprint
	bearer      *caller.Caller // of a token that was proven; nil for none
	who         caller.Caller
	stranger    string // why the caller is nobody the hub knows; empty when it knows
	refused     error  // why the hub does not serve whom it knows, as the answer to the call; nil where it does
}

// step does its part of a call around what comes after it.
type step func(c *call, next func() error) error

func (s *Server) through(c *call, handle func() error) error {
	next := handle
	for i := len(s.steps) - 1; i >= 0; i-- {
		do, after := s.steps[i], next
		next = func() error { return do(c, after) }
	}
	return next()
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	c := &call{ctx: ctx, method: info.FullMethod}
	err = s.through(c, func() (err error) {
		resp, err = handler(c.ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	c := &call{ctx: ss.Context(), method: info.FullMethod}
	return s.through(c, func() error {
		defer s.keep(c)()
		g := &guarded{ServerStream: ss, call: c, server: s}
		if err := g.check(); err != nil { // what ended before the call was kept was told to nobody
			return err
		}
		return handler(srv, g)
	})
}

// guarded checks the caller anew for every message, either way: an identity that ends, ends its streams, and
// one that lost a right is told nothing more.
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
	return g.ServerStream.SendMsg(m)
}

func (g *guarded) check() error {
	if g.call.certificate == nil && g.call.bearer == nil {
		return nil // nothing that could have ended
	}
	now := *g.call
	if err := g.server.recognise(&now, g.server.identities.Identity); err != nil {
		return err
	}
	return now.allowed(g.server.access)
}

func (s *Server) recoverPanic(c *call, next func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("call panicked", slog.String(logging.Method, c.method), slog.Any(logging.Error, p), slog.String("stack", string(debug.Stack())))
			err = status.Error(codes.Internal, "the hub has a fault here; its log has the details")
		}
	}()
	return next()
}

// logCall says who called what and how it ended, never what was said.
func (s *Server) logCall(c *call, next func() error) error {
	start := time.Now()
	err := next()
	code := status.Code(err)
	level := slog.LevelDebug
	if code == codes.Unauthenticated || code == codes.PermissionDenied {
		level = slog.LevelInfo
	}
	if !s.log.Enabled(c.ctx, level) {
		return err
	}
	who := c.who.String()
	if c.stranger != "" {
		who = "stranger"
	}
	attrs := []slog.Attr{
		slog.String(logging.Method, c.method), slog.String("caller", who), slog.String("code", code.String()),
		slog.Duration(logging.Duration, time.Since(start)),
	}
	if p, ok := peer.FromContext(c.ctx); ok {
		attrs = append(attrs, slog.String(logging.Address, p.Addr.String()))
	}
	if err != nil {
		attrs = append(attrs, slog.String(logging.Reason, status.Convert(err).Message()))
	}
	s.log.LogAttrs(c.ctx, level, "call", attrs...)
	return err
}

// identify finds out who calls, from the certificate of the connection and the hub's record of it alone, or from a
// token where there is no certificate.
func (s *Server) identify(c *call, next func() error) error {
	if p, ok := peer.FromContext(c.ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			presented := info.State.PeerCertificates[0]
			sum := sha256.Sum256(presented.Raw)
			c.certificate, c.key = &sum, fleet.FingerprintOf(presented.RawSubjectPublicKeyInfo)
		}
	}
	done, err := s.present(c)
	if err != nil {
		return err
	}
	defer done()
	use := func(certificate [32]byte) (store.Identity, error) { return s.identities.Use(certificate, time.Now()) }
	if err := s.recognise(c, use); err != nil {
		return err
	}
	if c.stranger == "" {
		c.ctx = caller.With(c.ctx, c.who)
	}
	return next()
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

func (s *Server) authorise(c *call, next func() error) error {
	if err := c.allowed(s.access); err != nil {
		return err
	}
	return next()
}

// announce tells operators what the hub's certificate may come from: a context file lasts for long, and an authority
// is rotated under it.
func (s *Server) announce(c *call, next func() error) error {
	if c.stranger == "" && c.who.Operator != "" {
		if err := grpc.SetHeader(c.ctx, metadata.Pairs(transport.AuthoritiesHeader, strings.Join(s.pins(), ","))); err != nil {
			return fmt.Errorf("tell the authorities: %w", err)
		}
	}
	return next()
}

// mapError gives a code to what a service returned without one. A cause of the hub's own goes to its
// log, and to the vendor's operators; a spoke or a provider is not told about the hub's inside.
func (s *Server) mapError(c *call, next func() error) error {
	err := next()
	if err == nil {
		return nil
	}
	var ended cut
	if errors.As(context.Cause(c.ctx), &ended) {
		return ended.error
	}
	st, coded := status.FromError(err)
	cancelled := errors.Is(err, context.Canceled) || (coded && st.Code() == codes.Canceled)
	switch {
	case errors.Is(context.Cause(c.ctx), errTokenOver):
		return c.tokenOver()
	case cancelled && errors.Is(context.Cause(c.ctx), errStopping):
		return status.Error(codes.Unavailable, errStopping.Error()+"; try again in a moment")
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
