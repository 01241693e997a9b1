package pluginwire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// MaxMessage bounds every message in both directions, in bytes. The rendered sets of an application
// have tens of KiB.
const MaxMessage = 16 << 20

// serverName is what go-plugin's certificates are made out to.
const serverName = "localhost"

// Identity is a host's own certificate and key, for one process.
type Identity struct {
	PEM  []byte // the certificate, for the plugin's environment
	cert tls.Certificate
}

// NewIdentity makes one. Its curve is P-256 and not go-plugin's P-521, which some TLS libraries that
// gRPC is built with in other languages do not take.
func NewIdentity() (Identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Identity{}, fmt.Errorf("make a key for a plugin: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return Identity{}, fmt.Errorf("make a certificate for a plugin: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: serverName, Organization: []string{"Wheelwright plugin host"}}, DNSNames: []string{serverName},
		NotBefore: now.Add(-time.Minute), NotAfter: now.AddDate(10, 0, 0), // it ends with the process
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return Identity{}, fmt.Errorf("make a certificate for a plugin: %w", err)
	}
	return Identity{
		PEM:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
	}, nil
}

// Dial makes the connection; it connects with the first call. Nobody but the process that has the
// line's certificate is talked to.
func Dial(id Identity, line Line) (*grpc.ClientConn, error) {
	roots := x509.NewCertPool()
	roots.AddCert(line.Certificate)
	conn, err := grpc.NewClient("passthrough:///plugin",
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{id.cert}, RootCAs: roots, ServerName: serverName, MinVersion: tls.VersionTLS12,
		})),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, line.Network, line.Address)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithMaxHeaderListSize(64<<10), grpc.WithIdleTimeout(0), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to it: %w", err)
	}
	return conn, nil
}

// Greet is the first call: both sides agree on a contract, and the plugin says who it is.
func Greet(ctx context.Context, conn grpc.ClientConnInterface, plugin, hostVersion string) (*pluginv1.HandshakeResponse, error) {
	answer, err := pluginv1.NewPluginServiceClient(conn).Handshake(ctx, &pluginv1.HandshakeRequest{Contracts: Contracts(), HostVersion: hostVersion, Plugin: plugin})
	if err != nil {
		return nil, fmt.Errorf("handshake: %s", status.Convert(err).Message())
	}
	if !slices.Contains(Contracts(), answer.GetContract()) {
		return nil, ErrIncompatible{Speaks: "contract " + clip(answer.GetContract(), 20), Wanted: strings.Join(Contracts(), ", ")}
	}
	if len(answer.GetKinds()) == 0 {
		return nil, fmt.Errorf("handshake: it names no kind that it serves (conformance, canary, notifier)")
	}
	return answer, nil
}
