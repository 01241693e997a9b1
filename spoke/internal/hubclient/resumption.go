package hubclient

import (
	"bytes"
	"crypto/tls"
	"slices"
)

// resumption keeps what lets the next connection go on with the TLS session of the one before, which spares both sides
// most of a handshake. It is of one identity and its hub's authorities: with others a connection proves itself anew.
type resumption struct {
	certificate []byte
	authorities [][]byte
	cache       tls.ClientSessionCache
}

func (r *resumption) of(id Identity) tls.ClientSessionCache {
	if r.cache == nil || !bytes.Equal(r.certificate, id.certificate) || !slices.EqualFunc(r.authorities, id.authorities, bytes.Equal) {
		*r = resumption{certificate: id.certificate, authorities: id.authorities, cache: tls.NewLRUClientSessionCache(1)}
	}
	return r.cache
}
