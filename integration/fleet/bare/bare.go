// Package bare is what a hub is measured against: a server of one grpc method over the same TLS settings, buffers
// and certificates as the hub's, which keeps its streams and sends the same bytes to each of them in a loop, and
// the clients of it. It knows nobody and stores nothing.
package bare

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// method is the only one: the client says one message and is answered with one; then the server sends.
const method = "/wheelwright.bare.Bare/Open"

var description = grpc.StreamDesc{StreamName: "Open", ServerStreams: true, ClientStreams: true}

// None stands for no argument and no result.
type None struct{}

// Server is driven over net/rpc.
type Server struct {
	mu      sync.Mutex
	streams []grpc.ServerStream
	server  *grpc.Server
}

// Listening is where a server is, and whom it can be told by.
type Listening struct {
	Addr string
	CA   []byte // PEM
}

// Listen serves clients whose certificates are of the authorities in PEM, on loopback.
func (s *Server) Listen(authorities []byte, l *Listening) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server != nil {
		return errors.New("listen: the server does already")
	}
	cert, ca, err := selfSigned()
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorities) {
		return errors.New("listen: no authority of the clients in PEM")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.server = grpc.NewServer(transport.ServerOptions(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots})...)
	described := description
	described.Handler = s.open
	s.server.RegisterService(&grpc.ServiceDesc{ServiceName: "wheelwright.bare.Bare", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{described}}, s)
	go func() { _ = s.server.Serve(listener) }() // its end is the process's
	*l = Listening{listener.Addr().String(), ca}
	return nil
}

func (s *Server) open(_ any, stream grpc.ServerStream) error {
	if err := stream.RecvMsg(&syncv1.FetchBundleRequest{}); err != nil {
		return err
	}
	if err := stream.SendMsg(&syncv1.FetchBundleResponse{}); err != nil {
		return err
	}
	s.mu.Lock()
	s.streams = append(s.streams, stream)
	s.mu.Unlock()
	<-stream.Context().Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = slices.DeleteFunc(s.streams, func(other grpc.ServerStream) bool { return other == stream })
	return nil
}

// Send sends so many random bytes to each stream, in messages as large as those that carry a bundle.
func (s *Server) Send(size int, streams *int) error {
	content := make([]byte, size)
	_, _ = rand.Read(content) // never fails
	s.mu.Lock()
	all := slices.Clone(s.streams)
	s.mu.Unlock()
	*streams = len(all)
	for _, stream := range all {
		for piece := range slices.Chunk(content, transport.ChunkSize) {
			if err := stream.SendMsg(&syncv1.FetchBundleResponse{Data: piece}); err != nil {
				return fmt.Errorf("send: %w", err)
			}
		}
	}
	return nil
}

func selfSigned() (cert tls.Certificate, ca []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, nil, err
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bare authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return cert, nil, err
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, nil, err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "bare"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	// The chain is as long as the hub's: both send the authority's certificate along.
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, own.Public(), key)
	if err != nil {
		return cert, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der, rootDER}, PrivateKey: own}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), nil
}
