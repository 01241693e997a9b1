package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"
)

// RelayProtocol is the ALPN name under which a relay answers spokes itself. Whatever else comes to its port it passes
// on to the hub as it is.
const RelayProtocol = "wheelwright-relay"

// ErrRelay: who answers is a relay where the hub was expected, or the other way about.
var ErrRelay = errors.New("hub and relay were taken for each other")

// RelayName is the name of the relay that a certificate marks its holder as; empty: it is no relay's. The mark is the
// URI wheelwright://relay/NAME.
func RelayName(c *x509.Certificate) string {
	for _, u := range c.URIs {
		if u.Scheme == "wheelwright" && u.Host == "relay" {
			if name := strings.TrimPrefix(u.Path, "/"); name != "" {
				return name
			}
			return "?"
		}
	}
	return ""
}

// NotRelay is a tls.Config's VerifyConnection for who dials the hub: a relay has a certificate of the same authority,
// and must not pass for the hub by it.
func NotRelay(s tls.ConnectionState) error {
	if name := RelayName(s.PeerCertificates[0]); name != "" {
		return fmt.Errorf("%w: relay %s answers in the hub's place", ErrRelay, name)
	}
	return nil
}

// IsRelay is the one for who dials a relay.
func IsRelay(s tls.ConnectionState) error {
	if RelayName(s.PeerCertificates[0]) == "" || s.NegotiatedProtocol != RelayProtocol {
		return fmt.Errorf("%w: who answers there is no relay; want the address of a `hub relay serve`", ErrRelay)
	}
	return nil
}

// Through has a connection that is dialled to the hub go to via, a relay's HOST:PORT, which passes it on as it is: who
// is spoken to stays the hub. Empty: it goes to the hub.
func Through(via string) grpc.DialOption {
	if via == "" {
		return grpc.EmptyDialOption{}
	}
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", via)
	})
}
