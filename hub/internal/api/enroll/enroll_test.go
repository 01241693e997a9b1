package enroll_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/api/enroll"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence/presencetest"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
)

const eu = fleet.Cluster("acme/eu-1")

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hub answers enrolments over real TLS, from a real store and a real authority.
type hub struct {
	t         *testing.T
	store     *store.Store
	authority *identity.Authority
	presence  *presence.Registry
	client    enrollv1.EnrollServiceClient
}

func build(t *testing.T) *hub {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(filepath.Join(dir, "hub.db"), log)
	must(t, err)
	a, err := identity.Open(filepath.Join(dir, "authority"))
	must(t, err)
	h := &hub{t: t, store: s, authority: a, presence: presence.New()}
	cfg, err := a.ServerTLS(nil, 0)
	must(t, err)
	server := grpc.NewServer(transport.ServerOptions(cfg)...)
	enrollv1.RegisterEnrollServiceServer(server, enroll.New(enroll.Config{
		Store: s, Authority: a, Presence: h.presence, TTL: 24 * time.Hour, Log: log,
	}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	roots := x509.NewCertPool()
	authority, err := x509.ParseCertificate(a.Authorities()[0])
	must(t, err)
	roots.AddCert(authority)
	conn, err := transport.Dial(l.Addr().String(), &tls.Config{RootCAs: roots})
	must(t, err)
	h.client = enrollv1.NewEnrollServiceClient(conn)
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		must(t, <-served)
		must(t, s.Close())
	})
	return h
}

func (h *hub) invite(name fleet.Cluster, ttl time.Duration) token.Token {
	h.t.Helper()
	made := token.New(h.authority.Pin())
	_, err := h.store.Invite(name, nil, made.ID, made.Hash(), time.Now().Add(ttl))
	must(h.t, err)
	return made
}

func (h *hub) enroll(with string, csr []byte) (*enrollv1.EnrollResponse, error) {
	return h.client.Enroll(h.t.Context(), &enrollv1.EnrollRequest{Token: with, Csr: csr})
}

func request(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "other/cluster"}}, key)
	must(t, err)
	return csr
}

func refused(t *testing.T, err error, want codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != want {
		t.Fatalf("got %v, want %v", err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestATokenBuysTheIdentityOfItsCluster(t *testing.T) {
	h := build(t)
	answer, err := h.enroll(h.invite(eu, time.Minute).String(), request(t))
	must(t, err)
	cert, err := x509.ParseCertificate(answer.GetCertificate())
	must(t, err)
	if answer.GetCluster() != string(eu) || cert.Subject.CommonName != string(eu) || !answer.GetNotAfter().AsTime().Equal(cert.NotAfter) {
		t.Errorf("%s, %v until %v", answer.GetCluster(), cert.Subject, answer.GetNotAfter().AsTime())
	}
	if len(answer.GetAuthorities()) != 1 || string(answer.GetAuthorities()[0]) != string(h.authority.Authorities()[0]) {
		t.Error("the authorities are not the hub's")
	}
	id, err := h.store.Identity(sha256.Sum256(answer.GetCertificate()))
	must(t, err)
	if id.Cluster != eu || !id.NotAfter.Equal(cert.NotAfter) {
		t.Errorf("identity %+v", id)
	}
	events, err := h.store.Events(store.EventFilter{Cluster: string(eu)})
	must(t, err)
	if len(events) != 1 || events[0].Kind != fleet.EventJoined || !strings.Contains(events[0].Message, "127.0.0.1") {
		t.Errorf("events %+v", events)
	}
}

func TestJoiningAgainEndsTheEarlierIdentityAndItsSession(t *testing.T) {
	h := build(t)
	first, err := h.enroll(h.invite(eu, time.Minute).String(), request(t))
	must(t, err)
	session := presencetest.Register(h.presence, eu)
	again := h.invite(eu, time.Minute)
	select {
	case <-session.Done():
		t.Fatal("the invitation alone ended the session")
	default:
	}
	second, err := h.enroll(again.String(), request(t))
	must(t, err)
	<-session.Done()
	if _, err := h.store.Identity(sha256.Sum256(first.GetCertificate())); err == nil {
		t.Error("the earlier certificate still counts")
	}
	_, err = h.store.Identity(sha256.Sum256(second.GetCertificate()))
	must(t, err)
}

func TestATokenThatBuysNothingSaysWhyAndWhatToDo(t *testing.T) {
	h := build(t)
	csr := request(t)
	used := h.invite(eu, time.Minute)
	_, err := h.enroll(used.String(), csr)
	must(t, err)
	_, err = h.enroll(used.String(), csr)
	refused(t, err, codes.Unauthenticated, "acme/eu-1", "used", "hub cluster invite acme/eu-1")
	_, err = h.enroll(h.invite(eu, -time.Second).String(), csr)
	refused(t, err, codes.Unauthenticated, "acme/eu-1", "expired", "hub cluster invite acme/eu-1")
	_, err = h.enroll(token.New(h.authority.Pin()).String(), csr)
	refused(t, err, codes.Unauthenticated, "does not know", "hub cluster invite PROVIDER/NAME")

	open := h.invite(eu, time.Minute)
	forged := token.New(h.authority.Pin())
	forged.ID = open.ID
	_, err = h.enroll(forged.String(), csr)
	refused(t, err, codes.Unauthenticated, "does not know")
	if strings.Contains(err.Error(), string(eu)) {
		t.Errorf("who only knows a token's id learns its cluster: %v", err)
	}
	elsewhere := token.New(strings.Repeat("0", 64))
	_, err = h.enroll(elsewhere.String(), csr)
	refused(t, err, codes.Unauthenticated, "another hub", "hub cluster invite")
	_, err = h.enroll("nonsense", csr)
	refused(t, err, codes.Unauthenticated, "hub cluster invite")
}

func TestABadRequestLeavesTheTokenGood(t *testing.T) {
	h := build(t)
	good := h.invite(eu, time.Minute)
	unsigned := request(t)
	unsigned[len(unsigned)-1] ^= 1
	for name, c := range map[string]struct {
		csr  []byte
		says string
	}{
		"none": {nil, "0 bytes"}, "noise": {[]byte("noise"), "PKCS#10"}, "enormous": {make([]byte, 100_000), "100000 bytes"},
		"not signed by its key": {unsigned, "not signed by its own key"},
	} {
		_, err := h.enroll(good.String(), c.csr)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := h.enroll(good.String(), request(t))
	must(t, err)
}

func TestOf100EnrolmentsWithOneTokenOneWins(t *testing.T) {
	h := build(t)
	one, csr := h.invite(eu, time.Minute).String(), request(t)
	var won, used atomic.Int64
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			_, err := h.enroll(one, csr)
			switch {
			case err == nil:
				won.Add(1)
			case status.Code(err) == codes.Unauthenticated && strings.Contains(err.Error(), "used"):
				used.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 || used.Load() != 99 {
		t.Errorf("%d won, %d were told it is used", won.Load(), used.Load())
	}
}
