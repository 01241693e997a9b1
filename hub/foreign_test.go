package hub

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
)

// office works on the data folder of a hub that does not run: it makes the identities that no hub would give out
// on its own.
type office struct {
	t         *testing.T
	store     *store.Store
	authority *identity.Authority
	tokens    int
}

func openOffice(t *testing.T, dir string) *office {
	t.Helper()
	s, err := store.Open(filepath.Join(dir, storeFile), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	a, err := identity.Open(filepath.Join(dir, authorityFolder))
	if err != nil {
		t.Fatal(err)
	}
	return &office{t: t, store: s, authority: a}
}

func (o *office) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) audited(c fleet.Cluster) store.Audited {
	return o.store.Audited(fleet.Event{Kind: fleet.EventIdentity, Cluster: c, At: time.Now()}, fleet.Entry{Actor: "hub", Action: "furnish"})
}

// spoke is a new certificate of a cluster, not recorded yet.
func (o *office) spoke(c fleet.Cluster, ttl time.Duration) (*tls.Certificate, [32]byte, fleet.Fingerprint, time.Time) {
	o.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	o.must(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	o.must(err)
	issued, err := o.authority.IssueSpoke(csr, c, ttl)
	o.must(err)
	public, err := identity.RequestKey(csr)
	o.must(err)
	return &tls.Certificate{Certificate: [][]byte{issued.DER}, PrivateKey: key}, issued.Fingerprint, public, issued.NotAfter
}

// join invites a cluster and redeems the token.
func (o *office) join(c fleet.Cluster, asks bool, ttl time.Duration) *tls.Certificate {
	o.t.Helper()
	o.tokens++
	id := fmt.Sprint("office", o.tokens)
	_, err := o.audited(c).Invite(c, nil, id, [32]byte{6}, time.Now().Add(time.Minute), asks)
	o.must(err)
	cert, fingerprint, key, notAfter := o.spoke(c, ttl)
	_, err = o.store.Redeem(id, [32]byte{6}, key, time.Now(), func(fleet.Cluster) (store.Certificate, error) {
		return store.Certificate{Fingerprint: fingerprint, NotAfter: notAfter}, nil
	})
	o.must(err)
	return cert
}

func (o *office) operator(name, role string, ttl time.Duration) *tls.Certificate {
	o.t.Helper()
	certificate, key, err := o.authority.IssueOperator(name, ttl)
	o.must(err)
	r, err := caller.ParseRole(role)
	o.must(err)
	o.must(o.store.KeepOperator(store.Operator{Name: name, Role: r, By: "hub", Fingerprint: certificate.Fingerprint, NotAfter: certificate.NotAfter}, false))
	pair, err := tls.X509KeyPair(certificate.PEM(), key)
	o.must(err)
	return &pair
}

// forgery is a certificate with the names of one of this hub's, signed by whomever; nil: by itself.
func forgery(t *testing.T, like *x509.Certificate, by *x509.Certificate, with crypto.Signer) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: like.SerialNumber, Subject: like.Subject, URIs: like.URIs, NotBefore: like.NotBefore, NotAfter: like.NotAfter,
		KeyUsage: like.KeyUsage, ExtKeyUsage: like.ExtKeyUsage, BasicConstraintsValid: true}
	if by == nil {
		by, with = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by, &key.PublicKey, with)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// otherHub is a certificate of another hub's authority, with the same names and the authority's own name too.
func otherHub(t *testing.T, like, authority *x509.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: authority.Subject, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: authority.SubjectKeyId}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pair := forgery(t, like, ca, key)
	pair.Certificate = append(pair.Certificate, ca.Raw)
	return pair
}

// foreigner is somebody whom the hub owes nothing.
type foreigner struct {
	name        string
	certificate *tls.Certificate
	may         string // the one method of which it is allowed to ask; empty: none
}

// foreigners makes one of every kind. The hub does not run.
func foreigners(t *testing.T, dir string) []foreigner {
	t.Helper()
	o := openOffice(t, dir)
	defer func() { o.must(o.store.Close()) }()
	ca, err := x509.ParseCertificate(o.authority.Authorities()[0])
	o.must(err)
	spoke := o.join("acme/eu-1", false, time.Hour)
	genuine, err := x509.ParseCertificate(spoke.Certificate[0])
	o.must(err)
	admin := o.operator("ada", "admin", time.Hour)
	boss, err := x509.ParseCertificate(admin.Certificate[0])
	o.must(err)

	removed := o.join("acme/removed-1", false, time.Hour)
	o.must(o.store.RemoveCluster("acme/removed-1"))
	rejected := o.join("acme/rejected-1", false, time.Hour)
	o.must(o.audited("acme/rejected-1").RejectCluster("acme/rejected-1", "why", time.Now()))
	rejoined := o.join("acme/rejoined-1", false, time.Hour)
	o.join("acme/rejoined-1", false, time.Hour)
	quarantined := o.join("acme/twice-1", false, time.Hour)
	o.must(o.store.Session("acme/twice-1", "a", 1, time.Now()))
	if o.store.Session("acme/twice-1", "b", 1, time.Now()) == nil {
		t.Error("a copy was let in")
	}
	superseded := o.join("acme/renewed-1", false, time.Hour)
	_, next, key, notAfter := o.spoke("acme/renewed-1", time.Hour)
	o.must(o.store.RenewIdentity(store.Renewal{Current: sha256.Sum256(superseded.Certificate[0]), Next: next, Key: key, NotAfter: notAfter}))
	_, err = o.store.Use(next, time.Now())
	o.must(err)
	outdated := o.join("acme/late-3", false, time.Millisecond)
	_, next, key, notAfter = o.spoke("acme/late-3", time.Hour)
	o.must(o.store.RenewIdentity(store.Renewal{Current: sha256.Sum256(outdated.Certificate[0]), Next: next, Key: key, NotAfter: notAfter}))
	_, err = o.store.Use(next, time.Now())
	o.must(err)
	unrecorded, _, _, _ := o.spoke("acme/eu-1", time.Hour)
	fired := o.operator("gone", "admin", time.Hour)
	o.must(o.store.Audited(fleet.Event{Kind: fleet.EventOperator}, fleet.Entry{Actor: "hub", Action: "furnish"}).RemoveOperator("gone"))

	listening, err := o.authority.ServerTLS(nil, 0)
	o.must(err)
	serving, err := listening.GetCertificate(nil)
	o.must(err)
	all := []foreigner{
		{"a stranger", nil, ""},
		{"a removed cluster", removed, ""},
		{"a rejected cluster", rejected, ""},
		{"a cluster that joined again since", rejoined, ""},
		{"a pending cluster", o.join("acme/pending-1", true, time.Hour), ""},
		{"a quarantined cluster", quarantined, ""},
		{"a superseded certificate", superseded, ""},
		{"a cluster's certificate that was never recorded", unrecorded, ""},
		{"an expired cluster", o.join("acme/late-1", false, time.Millisecond), "Renew"},
		{"an expired and pending cluster", o.join("acme/late-2", true, time.Millisecond), ""},
		{"an expired and superseded cluster", outdated, ""},
		{"an expired admin", o.operator("late", "admin", time.Millisecond), ""},
		{"a removed admin", fired, ""},
		{"a cluster of another hub", otherHub(t, genuine, ca), ""},
		{"an admin of another hub", otherHub(t, boss, ca), ""},
		{"a cluster that signed itself", forgery(t, genuine, nil, nil), ""},
		{"an admin that signed itself", forgery(t, boss, nil, nil), ""},
		{"a cluster signed by another cluster", forgery(t, boss, genuine, spoke.PrivateKey.(crypto.Signer)), ""},
		{"the hub's server certificate", serving, ""},
		{"a real certificate with another's key", &tls.Certificate{Certificate: admin.Certificate, PrivateKey: forgery(t, boss, nil, nil).PrivateKey}, ""},
		{"the authority itself", ownAuthority(t, dir), ""},
		{"an intermediate authority of a cluster's", underCluster(t, genuine, spoke, boss), ""},
	}
	return all
}

// ownAuthority is the hub's authority as a client: it signs, and is nobody.
func ownAuthority(t *testing.T, dir string) *tls.Certificate {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, authorityFolder, "*.pem"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

// underCluster is an admin's certificate signed by an authority that a cluster's own certificate signed.
func underCluster(t *testing.T, cluster *x509.Certificate, pair *tls.Certificate, like *x509.Certificate) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "between"}, NotBefore: cluster.NotBefore, NotAfter: cluster.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{{Scheme: "wheelwright", Host: "operator", Path: "/admin"}}}
	der, err := x509.CreateCertificate(rand.Reader, template, cluster, &key.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	between, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	forged := forgery(t, like, between, key)
	forged.Certificate = append(forged.Certificate, between.Raw, cluster.Raw)
	return forged
}

// methods are all that the hub serves and that is not for everybody: anybody may redeem a token and ask whether
// the hub lives.
func methods() (all []protoreflect.MethodDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		switch f.Package() {
		case "wheelwright.sync.v1", "wheelwright.fleet.v1", "grpc.reflection.v1", "grpc.reflection.v1alpha":
			for i := range f.Services().Len() {
				for k := range f.Services().Get(i).Methods().Len() {
					all = append(all, f.Services().Get(i).Methods().Get(k))
				}
			}
		}
		return true
	})
	slices.SortFunc(all, func(a, b protoreflect.MethodDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	return all
}

// filled is a request that names this cluster, and things that are there, wherever it can.
func filled(d protoreflect.MessageDescriptor, cluster string) *dynamicpb.Message {
	m := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if f.IsList() || f.IsMap() {
			continue
		}
		switch f.Kind() {
		case protoreflect.MessageKind:
			if strings.HasPrefix(string(f.Message().FullName()), "wheelwright.") && f.ContainingOneof() == nil {
				m.Set(f, protoreflect.ValueOfMessage(filled(f.Message(), cluster)))
			}
		case protoreflect.StringKind:
			text, known := map[protoreflect.Name]string{"cluster": cluster, "name": cluster, "distribution": "shop", "version": "1.1.0", "reason": "r",
				"digest": "sha256:" + strings.Repeat("0", 64)}[f.Name()]
			if known {
				m.Set(f, protoreflect.ValueOfString(text))
			}
		case protoreflect.BoolKind:
			m.Set(f, protoreflect.ValueOfBool(f.Name() == "dry_run" || f.Name() == "approve"))
		}
	}
	return m
}

// ask makes a call and reads at most one answer.
func ask(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, in *dynamicpb.Message) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	out := dynamicpb.NewMessage(m.Output())
	if !m.IsStreamingClient() && !m.IsStreamingServer() {
		err := conn.Invoke(ctx, path, in, out)
		return text(out), err
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: m.IsStreamingClient(), ServerStreams: true}, path)
	if err != nil {
		return "", err
	}
	_ = stream.SendMsg(in) // a stream that was refused says so below
	if err := stream.CloseSend(); err != nil {
		return "", err
	}
	err = stream.RecvMsg(out)
	return text(out), err
}

func text(m *dynamicpb.Message) string {
	b, err := protojson.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestNoMethodIsOpenToAForeigner(t *testing.T) {
	v := newVendor(t)
	dir := t.TempDir()
	furnish(t, dir, v.dir)
	strange := foreigners(t, dir)
	hub := start(t, Config{Dir: dir})
	acme := hub.hire(t, "p", "provider:acme")
	version := methods()[slices.IndexFunc(methods(), func(m protoreflect.MethodDescriptor) bool { return m.Name() == "GetVersion" })]
	if _, err := ask(t.Context(), acme.conn, version, dynamicpb.NewMessage(version.Input())); err != nil {
		t.Fatalf("nobody is let in: %v", err)
	}
	calls, allowed := 0, 0
	open := func(format string, args ...any) {
		allowed++
		t.Errorf(format, args...)
	}
	for _, f := range strange {
		conn := hub.dialRaw(t, f.certificate)
		greeted := connects(t, hub.Addr, hub.presenting(t, f.certificate))
		for _, m := range methods() {
			for _, in := range []*dynamicpb.Message{dynamicpb.NewMessage(m.Input()), filled(m.Input(), "acme/eu-1")} {
				if string(m.Name()) == f.may {
					continue
				}
				calls++
				answer, err := ask(t.Context(), conn, m, in)
				if !turnedAway(err, greeted) {
					open("%s by %s: %v %s", m.FullName(), f.name, err, answer)
				}
			}
		}
	}
	for _, m := range methods() { // a provider, about another's cluster
		if m.Parent().FullName() != "wheelwright.fleet.v1.FleetService" {
			continue
		}
		calls++
		in := filled(m.Input(), "globex/eu-1")
		answer, err := ask(t.Context(), acme.conn, m, in)
		named := strings.Contains(text(in), "globex")
		switch {
		case m.Name() == "CanI" && !strings.Contains(answer, `"allowed":true`) && !strings.Contains(answer, "globex"): // it asks what one may do
		case strings.Contains(answer, "globex"):
			open("%s tells a provider of another's cluster: %s", m.FullName(), answer)
		case named && !turnedAway(err, true) && status.Code(err) != codes.NotFound:
			open("%s by a provider about another's cluster: %v %s", m.FullName(), err, answer)
		}
	}
	fmt.Printf("FIGURE rpc.foreign-allowed %d of %d calls, every method by %d foreign identities, and by a provider about another's cluster\n", allowed, calls, len(strange))
}

// presenting sends a certificate whatever the server says it would take.
func (r *running) presenting(t *testing.T, certificate *tls.Certificate) *tls.Config {
	t.Helper()
	cfg := r.trust(t)
	if certificate != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	return cfg
}

// dialRaw connects with a certificate that the hub may not like.
func (r *running) dialRaw(t *testing.T, certificate *tls.Certificate) *grpc.ClientConn {
	t.Helper()
	conn, err := transport.Dial(r.Addr, r.presenting(t, certificate))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// turnedAway: the hub refused the caller, or there is no connection on which it could.
func turnedAway(err error, connects bool) bool {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return true
	case codes.Unavailable:
		return !connects
	}
	return false
}

// connects: the hub takes the certificate for long enough to say something.
func connects(t *testing.T, addr string, cfg *tls.Config) bool {
	t.Helper()
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err = conn.Read(make([]byte, 1)) // TLS 1.3 refuses a client after it is done
	return err == nil
}

func fingerprintOf(c *x509.Certificate) string {
	return fleet.FingerprintOf(c.RawSubjectPublicKeyInfo).String()
}
