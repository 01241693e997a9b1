package server

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// farewell is how long a connection whose identity ended stays open, so that the answers that say so get out.
const farewell = time.Second

// watched are the transport's credentials; they let connections in and tell the server of each.
// A stream that waits for its client to read is deaf to its context: only the end of the connection ends it.
type watched struct {
	credentials.TransportCredentials
	server *Server
}

func (w watched) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	closed := context.AfterFunc(w.server.closing, func() { _ = raw.Close() })
	defer closed()
	shaken, gone, last, err := w.server.admission.connection(w.server.closing)
	if err != nil {
		w.server.turnedAway(err)
		return nil, nil, err
	}
	conn, info, err := w.TransportCredentials.ServerHandshake(raw)
	shaken(err == nil)
	if err != nil {
		gone()
		return nil, nil, err
	}
	shown := info.(credentials.TLSInfo)
	t := &tracked{Conn: conn, CommonAuthInfo: shown.CommonAuthInfo}
	if certs := shown.State.PeerCertificates; len(certs) > 0 {
		sum := sha256.Sum256(certs[0].Raw)
		t.certificate, t.key = &sum, fleet.FingerprintOf(certs[0].RawSubjectPublicKeyInfo)
	}
	if last && w.server.ofSpoke(t.certificate) {
		gone()
		w.server.admission.files.Add(1)
		w.server.turnedAway(errFiles)
		return nil, nil, errFiles
	}
	w.server.track(t, gone)
	return t, t, nil
}

// ofSpoke: the certificate is one of a cluster's.
func (s *Server) ofSpoke(certificate *[32]byte) bool {
	if certificate == nil {
		return false
	}
	id, err := s.identities.Identity(*certificate)
	return err == nil && id.Cluster != ""
}

// turnedAway says why connections are closed before they have said anything, now and then.
func (s *Server) turnedAway(err error) {
	switch {
	case errors.Is(err, errFiles) && s.saidFiles.due(time.Now()):
		s.log.Error("connections are turned away: "+err.Error()+"; "+MoreFiles, slog.Int64("connections", s.admission.most))
	case errors.Is(err, errBusy) && s.saidBusy.due(time.Now()):
		s.log.Warn("connections are turned away: " + err.Error() + "; their callers come back by themselves")
	}
}

func (w watched) Clone() credentials.TransportCredentials {
	return watched{w.TransportCredentials.Clone(), w.server}
}

func (s *Server) credentials(cfg *tls.Config) credentials.TransportCredentials {
	return watched{credentials.NewTLS(cfg), s}
}

// tracked is a connection that the server can end, and what its handshake told.
type tracked struct {
	net.Conn
	credentials.CommonAuthInfo
	certificate *[32]byte         // nil: its client has none
	key         fleet.Fingerprint // of the certificate's
	streams     atomic.Uint32     // of those that never end, how many it has opened
	forget      func()
}

// AuthType implements credentials.AuthInfo.
func (*tracked) AuthType() string { return "tls" }

func (t *tracked) Close() error {
	t.forget()
	return t.Conn.Close()
}

func (s *Server) track(t *tracked, gone func()) {
	t.forget = sync.OnceFunc(func() {
		gone()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.connections, t)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connections[t] = struct{}{}
}

// watch ends the streams of callers that may not have them any more as soon as that is so, whether or not
// anything is said on them, and then the connections of certificates that are not served at all.
func (s *Server) watch(ctx context.Context) {
	for {
		select {
		case <-s.identities.Revoked():
			s.review()
			if s.revoked != nil {
				s.revoked()
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) review() {
	s.mu.Lock()
	streams, connections := maps.Clone(s.streams), maps.Clone(s.connections)
	s.mu.Unlock()
	for c := range streams {
		if err := (&guarded{call: c, server: s}).check(); err != nil {
			ending.End(c.ctx, err)
		}
	}
	known := map[[32]byte]*call{} // many connections have the same certificate
	for t := range connections {
		if t.certificate == nil {
			continue
		}
		c, found := known[*t.certificate]
		if !found {
			c = &call{certificate: t.certificate}
			if err := s.recognise(c, s.identities.Identity); err != nil {
				continue // the hub's own trouble; calls are refused meanwhile
			}
			known[*t.certificate] = c
		}
		if c.stranger != "" {
			time.AfterFunc(farewell, func() { _ = t.Close() })
		}
	}
}
