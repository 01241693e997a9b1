package server

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"maps"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// farewell is how long a connection whose identity ended stays open, so that the answers that say so get out.
const farewell = time.Second

// watched are the transport's credentials; they tell the server of each connection that came with a certificate.
// A stream that waits for its client to read is deaf to its context: only the end of the connection ends it.
type watched struct {
	credentials.TransportCredentials
	server *Server
}

func (w watched) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	if t, ok := info.(credentials.TLSInfo); ok && len(t.State.PeerCertificates) > 0 {
		conn = w.server.track(conn, sha256.Sum256(t.State.PeerCertificates[0].Raw))
	}
	return conn, info, nil
}

func (w watched) Clone() credentials.TransportCredentials {
	return watched{w.TransportCredentials.Clone(), w.server}
}

func (s *Server) credentials(cfg *tls.Config) credentials.TransportCredentials {
	return watched{credentials.NewTLS(cfg), s}
}

// tracked is a connection that the server can end.
type tracked struct {
	net.Conn
	certificate [32]byte
	forget      func()
}

func (t *tracked) Close() error {
	t.forget()
	return t.Conn.Close()
}

func (s *Server) track(conn net.Conn, certificate [32]byte) *tracked {
	t := &tracked{Conn: conn, certificate: certificate}
	t.forget = sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.connections, t)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connections[t] = struct{}{}
	return t
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
	for c, cancel := range streams {
		if err := (&guarded{call: c, server: s}).check(); err != nil {
			cancel(cut{err})
		}
	}
	known := map[[32]byte]call{} // many connections have the same certificate
	for t := range connections {
		c, found := known[t.certificate]
		if !found {
			c.certificate = &t.certificate
			if err := s.recognise(&c, s.identities.Identity); err != nil {
				continue // the hub's own trouble; calls are refused meanwhile
			}
			known[t.certificate] = c
		}
		if c.stranger != "" {
			time.AfterFunc(farewell, func() { _ = t.Close() })
		}
	}
}
