package hubclient

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// keeper is a relay's end of bundles, under a relay's own certificate of the hub's authority, that serves what it likes.
type keeper struct {
	syncv1.UnimplementedSyncServiceServer

	mu    sync.Mutex
	serve func(r *syncv1.FetchBundleRequest, s answers) error
	asked int
}

func (k *keeper) FetchBundle(r *syncv1.FetchBundleRequest, s answers) error {
	k.mu.Lock()
	k.asked++
	serve := k.serve
	k.mu.Unlock()
	return serve(r, s)
}

// keeps starts a relay's port for bundles. marked: its certificate says that it is a relay's.
func (h *testHub) keeps(marked bool, protocol string) (k *keeper, addr string) {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	if marked {
		template.URIs = []*url.URL{{Scheme: "wheelwright", Host: "relay", Path: "/fra-1"}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, h.ca.cert, &key.PublicKey, h.ca.key)
	if err != nil {
		h.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	k = &keeper{}
	server := grpc.NewServer(transport.ServerOptions(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{protocol}})...)
	syncv1.RegisterSyncServiceServer(server, k)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	h.t.Cleanup(func() { server.Stop(); <-done })
	return k, l.Addr().String()
}

// What a relay serves in a bundle's place ends in an error that says so, and nothing of it is taken; what it serves that
// is the bundle is taken from it all the same.
func TestARelayThatAltersABundleIsFoundOut(t *testing.T) {
	var lines []string
	for i := range 5000 {
		lines = append(lines, fmt.Sprintf("line %d of a tar %d", i, i*i))
	}
	old := []byte(strings.Join(lines, "\n"))
	lines[77] = "what the vendor changed"
	tar := []byte(strings.Join(lines, "\n"))
	lines[77] = "what the relay made up "
	forged := []byte(strings.Join(lines, "\n"))
	digest, base, z := bundle.DigestOf(tar), bundle.DigestOf(old), bundle.Compress(tar)
	delta := func(to []byte) encoding {
		made, err := bundle.Delta(t.Context(), old, to)
		if err != nil {
			t.Fatal(err)
		}
		return encoding{base, made}
	}
	// plainly is how a relay sends: whole, without a word about the encoding.
	plainly := func(z []byte) func(*syncv1.FetchBundleRequest, answers) error {
		return func(_ *syncv1.FetchBundleRequest, s answers) error {
			return s.Send(&syncv1.FetchBundleResponse{Data: z})
		}
	}
	as := func(e encoding) func(*syncv1.FetchBundleRequest, answers) error {
		return func(_ *syncv1.FetchBundleRequest, s answers) error { return e.all(s) }
	}
	bent := bytes.Clone(z)
	bent[len(bent)/2] ^= 1
	h := newHub(t)
	h.fetch = func(int, *syncv1.FetchBundleRequest, answers) error {
		t.Error("the hub was asked around the relay")
		return status.Error(codes.Internal, "asked around the relay")
	}
	s := joined(t, h.start())
	k, addr := h.keeps(true, transport.RelayProtocol)
	if _, err := SetVia(s.dir, addr); err != nil {
		t.Fatal(err)
	}
	s.client.cfg.Held = cached{base: old}
	s.client.setSizes(&syncv1.DesiredState{Distributions: []*syncv1.DistributionOffers{{Offers: []*syncv1.Offer{{Digest: string(digest), Size: uint64(len(tar))}}}}})
	for _, c := range []struct {
		name  string
		serve func(*syncv1.FetchBundleRequest, answers) error
		is    error // nil: it is the bundle
		asked int
	}{
		{"the bundle", plainly(z), nil, 1},
		{"another bundle", plainly(bundle.Compress(forged)), ErrDigest, 1},
		{"the bundle before", plainly(bundle.Compress(old)), ErrDigest, 1},
		{"another bundle in the encoding's name", as(encoding{"", bundle.Compress(forged)}), ErrDigest, 1},
		{"an altered byte", plainly(bent), ErrDigest, 1},
		{"the bundle, cut off", plainly(z[:len(z)/2]), ErrDigest, 1},
		{"its last byte is missing", plainly(z[:len(z)-1]), ErrDigest, 1},
		{"the bundle, and more", plainly(append(bytes.Clone(z), bundle.Compress([]byte("more"))...)), ErrDigest, 1},
		{"nothing", func(*syncv1.FetchBundleRequest, answers) error { return nil }, ErrDigest, 1},
		{"a bomb", plainly(bundle.Compress(make([]byte, 64<<20))), ErrDigest, 1},
		{"a true delta", as(delta(tar)), nil, 1},
		{"a forged delta", as(delta(forged)), ErrEncoding, 2}, // the second time nothing is offered to be patched
		{"a forged delta, then another bundle", func(r *syncv1.FetchBundleRequest, s answers) error {
			if len(r.GetHave()) > 0 {
				return delta(forged).all(s)
			}
			return plainly(bundle.Compress(forged))(r, s)
		}, ErrDigest, 2},
		{"a forged delta, then the bundle", func(r *syncv1.FetchBundleRequest, s answers) error {
			if len(r.GetHave()) > 0 {
				return delta(forged).all(s)
			}
			return plainly(z)(r, s)
		}, nil, 2},
		{"a delta on what is not here", as(encoding{digest, delta(tar).data}), ErrEncoding, 2},
		{"more than a bundle can have", plainly(make([]byte, 2*len(tar)+(1<<20))), errTooLarge, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			k.mu.Lock()
			k.serve, k.asked = c.serve, 0
			k.mu.Unlock()
			got, err := s.client.Fetch(t.Context(), digest)
			if c.is == nil && (err != nil || !bytes.Equal(got, tar)) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if c.is != nil && (!errors.Is(err, c.is) || got != nil || !strings.Contains(err.Error(), digest.Short())) {
				t.Errorf("got %d bytes, %v, want none and %v", len(got), err, c.is)
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.asked != c.asked {
				t.Errorf("it was asked %d times, want %d", k.asked, c.asked)
			}
		})
	}
}

// A certificate of the hub's authority is not enough: a relay is marked as one, and speaks as one.
func TestNobodyElseServesInARelaysPlace(t *testing.T) {
	h := newHub(t)
	s := joined(t, h.start())
	for name, c := range map[string]struct {
		marked   bool
		protocol string
	}{
		"it is not marked": {false, transport.RelayProtocol}, "it speaks as a hub": {true, "h2"},
	} {
		k, addr := h.keeps(c.marked, c.protocol)
		k.serve = func(*syncv1.FetchBundleRequest, answers) error {
			t.Errorf("%s: it is asked", name)
			return nil
		}
		id, err := SetVia(s.dir, addr)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := id.dialNearest(nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		stream, err := syncv1.NewSyncServiceClient(conn).FetchBundle(ctx, &syncv1.FetchBundleRequest{Digest: string(fleet.Digest("sha256:" + strings.Repeat("0", 64)))})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			t.Errorf("%s: got %v", name, err)
		}
		cancel()
		conn.Close()
	}
}
