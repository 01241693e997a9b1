package server

import (
	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Relayed judges a spoke that speaks through a relay as a message on a stream of its own would be: by the certificate
// that it proved to have when it asked for its ticket, of which key is the fingerprint. The error is the answer to it.
func (s *Server) Relayed(certificate [32]byte, key fleet.Fingerprint) (caller.Caller, error) {
	c := &call{method: syncv1.SyncService_Connect_FullMethodName, certificate: &certificate, key: key}
	if err := s.recognise(c, s.identities.Identity); err != nil {
		return caller.Caller{}, err
	}
	if err := c.allowed(s.access); err != nil {
		return caller.Caller{}, err
	}
	return c.who, nil
}
