// Package transport holds what both ends of a connection must agree on: TLS settings, buffer sizes,
// keepalive and message limits. It opens connections; it does not know what is said on them.
package transport

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	// MaxMessage bounds one message in either direction, in bytes.
	MaxMessage = 4 << 20
	// ChunkSize is how much of a bundle one message carries, in bytes. With what stands around it, it has room in a
	// buffer of 32 KB; the next larger one that grpc has, where a message is put together or taken apart, is of 1 MB.
	ChunkSize = 32<<10 - 512
	// AuthoritiesHeader is what the hub tells operators with each answer: the pins of what its certificate may come
	// from, the newest last, separated by commas. A pin is the SHA-256 of a public key (SPKI, DER), hexadecimal.
	AuthoritiesHeader = "wheelwright-authorities"

	// A stream without a read buffer and with a small write buffer costs the hub about half the memory
	// of a default one, and thousands of them are idle most of the time.
	readBuffer  = 0
	writeBuffer = 4 << 10

	// window is what a client may send ahead of who reads it, in bytes, on one stream and on all of a connection:
	// it bounds what one that sends as fast as it can costs the hub.
	window = 1<<16 - 1
	// headers bounds those of one call, in bytes; a token is the longest of them.
	headers = 32 << 10

	ping        = 20 * time.Second
	pingTimeout = 10 * time.Second
	minPing     = 10 * time.Second
)

// ServerOptions are those of the hub's server. cfg decides who may connect.
func ServerOptions(cfg *tls.Config) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(cfg)),
		grpc.ForceServerCodecV2(Codec{}),
		grpc.ReadBufferSize(readBuffer),
		grpc.WriteBufferSize(writeBuffer),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.MaxHeaderListSize(headers),
		grpc.HeaderTableSize(0), // a connection has few calls: what they have in common is not worth a table of each
		grpc.MaxRecvMsgSize(MaxMessage),
		grpc.MaxConcurrentStreams(64),
		grpc.ConnectionTimeout(20 * time.Second),
		Age(0),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
	}
}

// Age is the option that has a connection, once it is older than age, give or take a tenth, make place for another:
// no call begins on it any more, and those under way have a quarter of that, or five minutes, to end. 0: connections
// get as old as they like.
func Age(age time.Duration) grpc.ServerOption {
	alive := keepalive.ServerParameters{Time: ping, Timeout: pingTimeout}
	if age > 0 {
		alive.MaxConnectionAge, alive.MaxConnectionAgeGrace = age, max(age/4, 5*time.Minute)
	}
	return grpc.KeepaliveParams(alive)
}

// Dial prepares a connection to a hub; the first call opens it. cfg carries authorities and the
// client's certificate; an empty ServerName becomes the address's host.
// more is added to the options that both sides agree on.
func Dial(addr string, cfg *tls.Config, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("hub address %q: want HOST:PORT: %w", addr, err)
	}
	cfg = cfg.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = host
	}
	if cfg.ClientSessionCache == nil {
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1) // a hub that comes back is known again
	}
	return grpc.NewClient("passthrough:///"+addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(cfg)),
		grpc.WithReadBufferSize(readBuffer),
		grpc.WithWriteBufferSize(writeBuffer),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: ping, Timeout: pingTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: 5 * time.Second}),
	}, more...)...)
}
