package hub

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

func TestMain(m *testing.M) {
	if beProcess() {
		return
	}
	if render.ChildMain() || pluginhost.ChildMain() {
		return
	}
	if file := os.Getenv(clientsVariable); file != "" {
		if err := clientsMain(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv(hubVariable); dir != "" {
		if err := hubMain(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// hubVariable makes the test binary a hub on the folder that it names.
const hubVariable = "WHEELWRIGHT_TEST_HUB"

// hubMain runs a hub until its input ends; it writes the address, and logs to standard error.
func hubMain(dir string) error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return Run(ctx, Config{Dir: dir, Listen: "127.0.0.1:0", Heartbeat: 5 * time.Minute, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}, func(i Info) { fmt.Println(i.Addr) })
}

// running is a hub and an operator who is connected to it.
type running struct {
	Info
	fleet fleetv1.FleetServiceClient
	leave func() error // of the operator
	stop  func()
	asks  bool // enrol makes clusters that wait to be accepted
}

// start runs a hub on dir. It is stopped at the end of the test, or before by stop.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	ready, over := make(chan Info, 1), make(chan error, 1)
	go func() { over <- Run(ctx, cfg, func(i Info) { ready <- i }) }()
	var info Info
	select {
	case info = <-ready:
	case err := <-over:
		cancel()
		t.Fatalf("hub ended: %v", err)
	}
	r := connected(t, info)
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		r.leave()
		cancel()
		if err := <-over; err != nil {
			t.Errorf("hub ended: %v", err)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// connected is a hub that runs somewhere, and its operator.
func connected(t *testing.T, info Info) *running {
	t.Helper()
	c, err := clientcontext.Load(info.AdminContext)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := clientcontext.Dial(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &running{Info: info, fleet: fleetv1.NewFleetServiceClient(conn), leave: conn.Close}
}

// eventually waits for a condition, asking again after each change that the hub tells of.
func (r *running) eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	changes, err := r.fleet.Watch(ctx, &fleetv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := changes.Recv(); err != nil {
			t.Fatalf("waiting for %s: %v", what, err)
		}
		if ask() {
			return
		}
	}
}

func (r *running) release(t *testing.T, version string) *fleetv1.Release {
	t.Helper()
	var found *fleetv1.Release
	r.eventually(t, "release "+version, func() bool {
		resp, err := r.fleet.GetRelease(t.Context(), &fleetv1.GetReleaseRequest{Distribution: "shop", Version: version})
		if err != nil && status.Code(err) != codes.NotFound {
			t.Fatal(err)
		}
		found = resp.GetRelease()
		return err == nil
	})
	return found
}

func (r *running) row(t *testing.T) *fleetv1.StatusRow {
	t.Helper()
	s, err := r.fleet.GetStatus(t.Context(), &fleetv1.GetStatusRequest{})
	if err != nil || len(s.GetRows()) != 1 {
		t.Fatalf("got %v, %v, want one row", s, err)
	}
	return s.GetRows()[0]
}

// vendor is a distribution repository.
type vendor struct{ dir string }

func newVendor(t *testing.T) vendor {
	t.Helper()
	v := vendor{t.TempDir()}
	v.git(t, "init", "-q", "-b", "main")
	v.write(t, "dist/base/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [backend.yaml]\n")
	v.write(t, "dist/app/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../base]\n")
	return v
}

func (v vendor) git(t *testing.T, args ...string) {
	t.Helper()
	c := exec.Command("git", args...)
	c.Dir = v.dir
	c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=v", "GIT_AUTHOR_EMAIL=v@example.com", "GIT_COMMITTER_NAME=v", "GIT_COMMITTER_EMAIL=v@example.com")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (v vendor) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(v.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tag commits a backend of this image and tags it.
func (v vendor) tag(t *testing.T, name, image string) {
	t.Helper()
	v.write(t, "dist/base/backend.yaml", `apiVersion: apps/v1
kind: Deployment
metadata:
  name: backend
spec:
  selector:
    matchLabels: {app: backend}
  template:
    metadata:
      labels: {app: backend}
    spec:
      containers:
      - name: backend
        image: `+image+"\n")
	v.git(t, "add", "-A")
	v.git(t, "commit", "-q", "--allow-empty", "-m", name)
	v.git(t, "tag", "-a", "-m", name, name)
}

// provider is a spoke's side of the wire, spoken by hand.
type provider struct {
	client syncv1.SyncServiceClient
	close  func() error
}

// enrol turns an invitation into an identity, as `spoke join` does, and keeps what it needs to dial again.
func (r *running) enrol(t *testing.T, name string) *tls.Config {
	t.Helper()
	invitation, err := r.fleet.InviteCluster(t.Context(), &fleetv1.InviteClusterRequest{Name: name, AcceptAutomatically: !r.asks, Labels: map[string]string{"env": "test"}})
	if err != nil {
		t.Fatal(err)
	}
	if invitation.GetAddress() != r.Addr {
		t.Errorf("spokes are told %s, the hub is at %s", invitation.GetAddress(), r.Addr)
	}
	cfg := r.trust(t)
	conn, err := transport.Dial(r.Addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	id, err := enrollv1.NewEnrollServiceClient(conn).Enroll(t.Context(), &enrollv1.EnrollRequest{Token: invitation.GetToken(), Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	if id.GetCluster() != name {
		t.Errorf("enrolled as %s, want %s", id.GetCluster(), name)
	}
	cfg.Certificates = []tls.Certificate{{Certificate: [][]byte{id.GetCertificate()}, PrivateKey: key}}
	return cfg
}

// trust is what a client without an identity dials with.
func (r *running) trust(t *testing.T) *tls.Config {
	t.Helper()
	c, err := clientcontext.Load(r.AdminContext)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(c.CA))
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
}

func (r *running) dial(t *testing.T, identity *tls.Config) provider {
	t.Helper()
	conn, err := transport.Dial(r.Addr, identity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return provider{syncv1.NewSyncServiceClient(conn), conn.Close}
}

// connect says Hello and returns the Welcome.
func (p provider) connect(t *testing.T, revision uint64) (syncv1.SyncService_ConnectClient, *syncv1.Welcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	s, err := p.client.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	say(t, s, &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: &syncv1.Hello{SpokeVersion: "dev", KubernetesVersion: "v1.36.3",
		JournalId: "j1", Revision: revision, Subscriptions: []*syncv1.SubscriptionStatus{{Distribution: "shop", Variant: "app", Namespace: "shop"}}}}})
	welcome := hear(t, s).GetWelcome()
	if welcome == nil {
		t.Fatal("the first answer is no Welcome")
	}
	return s, welcome
}

func say(t *testing.T, s syncv1.SyncService_ConnectClient, m *syncv1.ConnectRequest) {
	t.Helper()
	if err := s.Send(m); err != nil {
		t.Fatal(err)
	}
}

// hear is the next message that is no heartbeat.
func hear(t *testing.T, s syncv1.SyncService_ConnectClient) *syncv1.ConnectResponse {
	t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetHeartbeat() == nil {
			return m
		}
	}
}

func settled(seq uint64, version string) *syncv1.ConnectRequest {
	return &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: &syncv1.Event{
		Seq: seq, Kind: syncv1.EventKind_EVENT_KIND_PHASE, Distribution: "shop", Version: version, Message: "runs",
		Status: &syncv1.SubscriptionStatus{Distribution: "shop", Variant: "app", Namespace: "shop", Phase: "Succeeded",
			RunningVersion: version, TargetVersion: version, Health: "Healthy", Objects: 1, Ready: 1},
	}}}
}

// fetch gets a bundle and checks its digest.
func (p provider) fetch(t *testing.T, o *syncv1.Offer) {
	t.Helper()
	s, err := p.client.FetchBundle(t.Context(), &syncv1.FetchBundleRequest{Digest: o.GetDigest()})
	if err != nil {
		t.Fatal(err)
	}
	var z []byte
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		z = append(z, m.GetData()...)
	}
	tar, err := bundle.Decompress(z, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(tar)
	if err != nil {
		t.Fatal(err)
	}
	if string(b.Digest()) != o.GetDigest() || uint64(len(tar)) != o.GetSize() {
		t.Errorf("fetched %s of %d bytes, offered %v", b.Digest(), len(tar), o)
	}
}

// TestATagReachesASpokeAndARestartLosesNothing is the hub's whole job, with the spoke's part played by
// hand.
func TestATagReachesASpokeAndARestartLosesNothing(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.0.0", "example.com/backend:1.0.0")
	v.tag(t, "nightly", "example.com/backend:nightly") // no release
	dir := filepath.Join(t.TempDir(), "data")
	hub := start(t, Config{Dir: dir})
	if !hub.FirstStart {
		t.Error("a new folder, and not the first start")
	}
	added, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir, IntervalSeconds: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if d := added.GetDistribution(); d.GetPath() != "dist" || len(d.GetNotes()) != 0 {
		t.Errorf("added %v", d)
	}
	if r := hub.release(t, "1.0.0"); r.GetPhase() != "Available" || len(r.GetVariants()) != 1 || r.GetVariants()[0].GetName() != "app" || r.GetCompressedSize() == 0 {
		t.Fatalf("got %v", r)
	}
	v.tag(t, "1.1.0", "example.com/backend:latest")
	if r := hub.release(t, "1.1.0"); r.GetPhase() != "Rejected" || !strings.Contains(r.String(), "latest") {
		t.Fatalf("got %v", r)
	}

	// A spoke joins, is offered the good release and fetches it.
	identity := hub.enrol(t, "acme/eu-1")
	spoke := hub.dial(t, identity)
	stream, first := spoke.connect(t, 0)
	desired := hear(t, stream).GetDesired()
	if len(desired.GetDistributions()) != 1 || len(desired.GetDistributions()[0].GetOffers()) != 1 {
		t.Fatalf("got %v", desired)
	}
	if d := desired.GetDistributions()[0]; d.GetUrl() != v.dir || d.GetPath() != "dist" {
		t.Errorf("got %v", d)
	}
	spoke.fetch(t, desired.GetDistributions()[0].GetOffers()[0])
	say(t, stream, settled(1, "1.0.0"))
	if m := hear(t, stream); m.GetAck().GetSeq() != 1 {
		t.Fatalf("got %v, want the acknowledgement", m)
	}
	if r := hub.row(t); r.GetPhase() != "Succeeded" || r.GetRunningVersion() != "1.0.0" || r.GetHealth() != "Healthy" || r.GetLabels()["env"] != "test" {
		t.Errorf("got %v", r)
	}

	// The next tag comes down the open stream.
	v.tag(t, "1.2.0", "example.com/backend:1.2.0")
	desired = hear(t, stream).GetDesired()
	if offers := desired.GetDistributions()[0].GetOffers(); len(offers) != 2 || offers[1].GetVersion() != "1.2.0" {
		t.Fatalf("got %v", desired)
	}
	if r := hub.row(t); r.GetPhase() != "Offered(1.2.0)" {
		t.Errorf("got %v", r)
	}

	// Whoever has it is not sent it again, before and after a restart.
	stream, _ = spoke.connect(t, desired.GetRevision())
	say(t, stream, settled(2, "1.2.0"))
	if m := hear(t, stream); m.GetAck().GetSeq() != 2 {
		t.Fatalf("got %v, want only the acknowledgement", m)
	}
	admin, err := os.ReadFile(hub.AdminContext)
	if err != nil {
		t.Fatal(err)
	}
	hub.stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stopping hub ended the stream with %v", err)
	}
	hub = start(t, Config{Dir: dir, Listen: hub.Addr})
	if hub.FirstStart {
		t.Error("an old folder, and the first start")
	}
	if again, err := os.ReadFile(hub.AdminContext); err != nil || string(again) != string(admin) {
		t.Errorf("the admin's context changed: %v", err)
	}
	hub.eventually(t, "notes", func() bool {
		list, err := hub.fleet.ListDistributions(t.Context(), &fleetv1.ListDistributionsRequest{})
		if err != nil || len(list.GetDistributions()) != 1 {
			t.Fatalf("got %v, %v", list, err)
		}
		d := list.GetDistributions()[0]
		return d.GetLatest() == "1.2.0" && d.GetReleasesAvailable() == 2 && d.GetReleasesRejected() == 1 &&
			d.GetLastPolled() != nil && d.GetLastError() == "" && len(d.GetNotes()) == 1
	})
	if r := hub.row(t); r.GetRunningVersion() != "1.2.0" || r.GetTargetVersion() != "1.2.0" {
		t.Errorf("got %v", r)
	}
	spoke = hub.dial(t, identity)
	stream, second := spoke.connect(t, desired.GetRevision())
	if second.GetAckedSeq() != 2 || second.GetEpoch() <= first.GetEpoch() {
		t.Errorf("got %v after %v", second, first)
	}
	v.tag(t, "1.3.0", "example.com/backend:1.3.0") // the first thing to be sent
	if offers := hear(t, stream).GetDesired().GetDistributions()[0].GetOffers(); len(offers) != 3 {
		t.Errorf("got %v", offers)
	}
	events, err := hub.fleet.ListEvents(t.Context(), &fleetv1.ListEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, e := range events.GetEvents() {
		kinds = append(kinds, e.GetKind())
	}
	for _, k := range []string{"Published", "Rejected", "Invited", "Joined", "Phase"} {
		if !slices.Contains(kinds, k) {
			t.Errorf("no event %s among %v", k, kinds)
		}
	}

	// A cluster that is removed is gone at once.
	if _, err := hub.fleet.RemoveCluster(t.Context(), &fleetv1.RemoveClusterRequest{Name: "acme/eu-1"}); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("the removed cluster's stream ended with %v", err)
	}
}

func TestARemovedDistributionIsWatchedNoMore(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.0.0", "example.com/backend:1.0.0")
	hub := start(t, Config{Dir: t.TempDir()})
	add := func() {
		t.Helper()
		if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir, IntervalSeconds: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	add()
	hub.release(t, "1.0.0")
	if _, err := hub.fleet.RemoveDistribution(t.Context(), &fleetv1.RemoveDistributionRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	list, err := hub.fleet.ListReleases(t.Context(), &fleetv1.ListReleasesRequest{Distribution: "shop"})
	if err != nil || len(list.GetReleases()) != 1 {
		t.Errorf("its releases: got %v, %v", list, err)
	}
	v.tag(t, "1.1.0", "example.com/backend:1.1.0")
	add()
	hub.release(t, "1.1.0")
}

// Law 5: a release never changes.
func TestAMovedTagChangesNothing(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.0.0", "example.com/backend:1.0.0")
	dir := t.TempDir()
	hub := start(t, Config{Dir: dir})
	if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir, IntervalSeconds: 1}}); err != nil {
		t.Fatal(err)
	}
	digest := hub.release(t, "1.0.0").GetDigest()
	v.git(t, "tag", "-d", "1.0.0")
	v.tag(t, "1.0.0", "example.com/backend:6.6.6")
	alarms := func() (n int) {
		events, err := hub.fleet.ListEvents(t.Context(), &fleetv1.ListEventsRequest{Distribution: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events.GetEvents() {
			if e.GetKind() == "TagMoved" {
				n++
			}
		}
		return n
	}
	hub.eventually(t, "the alarm", func() bool { return alarms() == 1 })
	noted := func() bool {
		list, err := hub.fleet.ListDistributions(t.Context(), &fleetv1.ListDistributionsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		notes := list.GetDistributions()[0].GetNotes()
		return len(notes) == 1 && strings.Contains(notes[0], "1.0.0")
	}
	hub.eventually(t, "the note", noted)
	hub.stop()
	hub = start(t, Config{Dir: dir})
	hub.eventually(t, "the note again", noted)
	if n := alarms(); n != 1 {
		t.Errorf("%d alarms of one move", n)
	}
	if got := hub.release(t, "1.0.0").GetDigest(); got != digest {
		t.Errorf("the release changed from %s to %s", digest, got)
	}
}

func TestWhatCannotStartSaysWhy(t *testing.T) {
	dir := t.TempDir()
	hub := start(t, Config{Dir: dir, Metrics: "127.0.0.1:0"})
	yaml := filepath.Join(t.TempDir(), "hub.yaml")
	if err := os.WriteFile(yaml, []byte("version: 1\nlisten: 127.0.0.1:0\nadvertize: [x]\npoll: soon\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		cfg   Config
		words []string
	}{
		{"no folder", Config{}, []string{"hub serve --data"}},
		{"a file", Config{Dir: file}, []string{file}},
		{"in use", Config{Dir: dir, Listen: "127.0.0.1:0"}, []string{dir, "in use by another process"}},
		{"port taken", Config{Dir: t.TempDir(), Listen: hub.Addr}, []string{hub.Addr, "--listen"}},
		{"metrics port taken", Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Metrics: hub.Metrics}, []string{hub.Metrics, "--metrics"}},
		{"no address", Config{Dir: t.TempDir(), Listen: "here"}, []string{"HOST:PORT", "--listen"}},
		{"config", Config{Dir: t.TempDir(), File: yaml}, []string{yaml, "2 problems", "advertize: unknown key", "poll: "}},
		{"advertise", Config{Dir: t.TempDir(), Advertise: "a:b"}, []string{"--advertise", "a:b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Log = slog.New(slog.DiscardHandler)
			err := Run(t.Context(), c.cfg, func(Info) { t.Error("started") })
			if err == nil {
				t.Fatal("want an error")
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
		})
	}
	// A folder whose authority was lost must not get another while clusters trust the old one.
	hub.enrol(t, "acme/eu-1")
	hub.stop()
	if err := os.RemoveAll(filepath.Join(dir, authorityFolder)); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), Config{Dir: dir, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}, nil)
	if err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("got %v", err)
	}
}
