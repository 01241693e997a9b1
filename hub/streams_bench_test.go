package hub

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/wheelwright-dev/wheelwright/hub/internal/conductor"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// spokesVariable says how many streams the benchmark opens; clientsVariable makes the test binary their clients.
const (
	spokesVariable  = "WHEELWRIGHT_BENCH_STREAMS"
	clientsVariable = "WHEELWRIGHT_BENCH_CLIENTS"
	usualStreams    = 2000
	rounds          = 9
)

// BenchmarkStreams measures what a spoke's stream costs the hub: its memory at rest, a message of a fan-out, and
// coming back. The hub is whole, over real TLS; its clients are a second process, so that they are not in the
// figures; each is compared with a bare grpc server that is sent the same bytes by the same clients in turn.
func BenchmarkStreams(b *testing.B) {
	n := usualStreams
	if text := os.Getenv(spokesVariable); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	h, identities := fleetOf(b, n)
	bare := serveBare(b, h, n)
	c := startClients(b, identities, h.info.Addr, bare.addr)

	emptyHeap, emptyStacks := live()
	c.ask(b, "connect hub 0", n)
	heap, stacks := live()
	idle := int64(heap+stacks-emptyHeap-emptyStacks) / int64(n)
	fmt.Printf("FIGURE scale.b2-idle-kb %.1f KB heap and stacks of the hub for each idle stream, mutual TLS, %d of them in a second process\n", float64(idle)/1024, n)
	c.ask(b, "connect bare 0", n)

	var ours, theirs, ratios []float64
	offer := func(round int) {
		version := fmt.Sprintf("1.%d.0", round+1)
		digest := fleet.Digest(fmt.Sprintf("sha256:%064x", round+1))
		tag := conductor.Tag{Name: version, Hash: version, Judge: func(context.Context) (fleet.Release, []byte, error) {
			return fleet.Release{Distribution: "shop", Version: version, Phase: fleet.Available, Digest: digest, Size: 1000, Published: time.Now(),
				Variants: []fleet.VariantResult{{Name: "app", Objects: 1}}}, make([]byte, 1000), nil
		}}
		if err := h.conductor.Seen(b.Context(), fleet.Distribution{Name: "shop"}, tag); err != nil {
			b.Fatal(err)
		}
		h.conductor.Note("shop", conductor.Note{Kind: conductor.NotePolled})
		c.ask(b, "offered hub "+version, n)
	}
	for round := range rounds {
		hub := measured(func() { offer(round) })
		state, err := h.conductor.Offers(name(0), []string{"shop"})
		if err != nil {
			b.Fatal(err)
		}
		floor := measured(func() {
			bare.send(b, state.Encode())
			c.ask(b, fmt.Sprintf("offered bare 1.%d.0", round+1), n)
		})
		ours, theirs, ratios = append(ours, each(hub, n)), append(theirs, each(floor, n)), append(ratios, hub.Seconds()/floor.Seconds())
	}
	fmt.Printf("FIGURE scale.b3-vs-preencoded %.2f x CPU of a message from a tag to %d streams, %.1f us (%s), against a loop that sends the same bytes, %.1f us (%s); median of %d, ratios %s\n",
		median(ratios), n, median(ours), spread(ours), median(theirs), spread(theirs), rounds, spread(ratios))

	if err := harness.Profiled("scale.b3-vs-preencoded", func() {
		for round := range 10 * rounds {
			offer(rounds + round)
		}
	}); err != nil {
		b.Fatal(err)
	}

	ours, theirs, ratios = nil, nil, nil
	for round := range rounds {
		back := func(to string) time.Duration {
			c.ask(b, "disconnect "+to, n)
			for h.server.Stats().Connections+uint64(bare.open.Load()) > uint64(n)+4 { // the other side's, and the operator's
				runtime.Gosched()
			}
			return measured(func() { c.ask(b, fmt.Sprintf("connect %s %d", to, round+1), n) })
		}
		hub, floor := back("hub"), back("bare")
		ours, theirs, ratios = append(ours, each(hub, n)), append(theirs, each(floor, n)), append(ratios, hub.Seconds()/floor.Seconds())
	}
	fmt.Printf("FIGURE scale.b4-in-process-vs-bare %.2f x CPU of a stream that comes back to a whole hub, %.0f us (%s), against a bare grpc stream of mutual TLS, %.0f us (%s), sessions resumed on both; median of %d, ratios %s\n",
		median(ratios), median(ours), spread(ours), median(theirs), spread(theirs), rounds, spread(ratios))
	c.stop(b)
}

func each(d time.Duration, n int) float64 { return float64(d.Microseconds()) / float64(n) }

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func spread(all []float64) string {
	return fmt.Sprintf("%.2f to %.2f", slices.Min(all), slices.Max(all))
}

// measured is the CPU that this process uses while do runs, from a heap that was just collected.
func measured(do func()) time.Duration {
	runtime.GC()
	before := used()
	do()
	return used() - before
}

func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func name(i int) fleet.Cluster { return fleet.Cluster(fmt.Sprintf("acme/c-%05d", i)) }

// spokeIdentity is one of the fleet's, as its clients read it.
type spokeIdentity struct {
	Certificate, Key []byte
}

// fleetOf is a running hub and the identities of n clusters that it knows.
func fleetOf(b *testing.B, n int) (h *hub, file string) {
	b.Helper()
	b.Setenv("HOME", b.TempDir())
	h = &hub{Config: Config{Dir: filepath.Join(b.TempDir(), "data"), Listen: "127.0.0.1:0", Heartbeat: 5 * time.Minute, Poll: time.Hour, Log: slog.New(slog.DiscardHandler)}}
	var err error
	if h.settings, err = settle(h.Config); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := h.close(); err != nil {
			b.Error(err)
		}
	})
	if err := h.open(); err != nil {
		b.Fatal(err)
	}
	h.build()
	// In pre-flight a release is offered at once to everybody, in one message: no rollout decides who is next.
	if err := h.store.AddDistributionWith(fleet.Distribution{Name: "shop", URL: "https://example.com/shop.git", Interval: time.Hour}, store.Settings{Preflight: 24 * time.Hour}); err != nil {
		b.Fatal(err)
	}
	all := make([]spokeIdentity, n)
	for i := range all {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			b.Fatal(err)
		}
		token := rand.Text()
		if _, err := h.store.Invite(name(i), nil, token, [32]byte{1}, time.Now().Add(time.Minute)); err != nil {
			b.Fatal(err)
		}
		_, err = h.store.Redeem(token, [32]byte{1}, fleet.Fingerprint{byte(i), byte(i >> 8), 1}, time.Now(), func(c fleet.Cluster) (store.Certificate, error) {
			issued, err := h.authority.IssueSpoke(csr, c, 24*time.Hour)
			all[i].Certificate = issued.DER
			return store.Certificate{Fingerprint: issued.Fingerprint, NotAfter: issued.NotAfter, Issuer: issued.Issuer}, err
		})
		if err != nil {
			b.Fatal(err)
		}
		if all[i].Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
			b.Fatal(err)
		}
	}
	file = filepath.Join(b.TempDir(), "identities.json")
	text, err := json.Marshal(struct {
		Authority  []byte
		Identities []spokeIdentity
	}{h.authority.Authorities()[0], all})
	if err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		b.Fatal(err)
	}
	if _, err := h.listen(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over, ready := make(chan error, 1), make(chan Info, 1)
	go func() { over <- h.run(ctx, nil, func(i Info) { ready <- i }) }()
	<-ready
	b.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			b.Error(err)
		}
	})
	return h, file
}

// bareServer is what a program of a few lines does with the same streams: TLS, a grpc server with the hub's own
// options, and a loop over those who are connected that sends what was encoded before.
type bareServer struct {
	syncv1.UnimplementedSyncServiceServer
	addr string
	open atomic.Int64
	mu   sync.Mutex
	all  map[syncv1.SyncService_ConnectServer]struct{}
}

func (s *bareServer) Connect(stream syncv1.SyncService_ConnectServer) error {
	s.open.Add(1)
	defer s.open.Add(-1)
	if _, err := stream.Recv(); err != nil {
		return err
	}
	err := stream.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Welcome{Welcome: &syncv1.Welcome{Cluster: string(name(0)), Epoch: 1 << 60, HeartbeatSeconds: 300}}})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.all[stream] = struct{}{}
	s.mu.Unlock()
	_, err = stream.Recv() // which ends with the stream
	s.mu.Lock()
	delete(s.all, stream)
	s.mu.Unlock()
	return err
}

func (s *bareServer) send(b *testing.B, message any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream := range s.all {
		if err := stream.SendMsg(message); err != nil {
			b.Fatal(err)
		}
	}
}

func serveBare(b *testing.B, h *hub, n int) *bareServer {
	b.Helper()
	own, err := h.authority.ServerTLS(nil, 0)
	if err != nil {
		b.Fatal(err)
	}
	certificate, err := own.GetCertificate(nil)
	if err != nil {
		b.Fatal(err)
	}
	ca, err := x509.ParseCertificate(h.authority.Authorities()[0])
	if err != nil {
		b.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca)
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, NextProtos: []string{"h2"}}
	s := &bareServer{all: make(map[syncv1.SyncService_ConnectServer]struct{}, n)}
	server := grpc.NewServer(append(transport.ServerOptions(cfg), grpc.Creds(credentials.NewTLS(cfg)))...)
	syncv1.RegisterSyncServiceServer(server, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	b.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			b.Error(err)
		}
	})
	return s
}

// clients are the second process.
type clients struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startClients(b *testing.B, identities string, addresses ...string) *clients {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	c := &clients{cmd: exec.Command(self, addresses...)}
	c.cmd.Env = append(os.Environ(), clientsVariable+"="+identities)
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	c.out = bufio.NewScanner(out)
	if err := c.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// ask has the clients do something and waits until all of them have.
func (c *clients) ask(b *testing.B, what string, n int) {
	b.Helper()
	fmt.Fprintln(c.in, what)
	if !c.out.Scan() || c.out.Text() != fmt.Sprint(n) {
		b.Fatalf("%s: the clients say %q, want %d", what, c.out.Text(), n)
	}
}

func (c *clients) stop(b *testing.B) {
	b.Helper()
	if err := errors.Join(c.in.Close(), c.cmd.Wait()); err != nil {
		b.Error(err)
	}
}

// clientsMain is the second process: it does what it is told on its input, with every client at once.
func clientsMain(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var known struct {
		Authority  []byte
		Identities []spokeIdentity
	}
	if err := json.Unmarshal(text, &known); err != nil {
		return err
	}
	ca, err := x509.ParseCertificate(known.Authority)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	to := map[string][]*client{}
	for i, id := range known.Identities {
		key, err := x509.ParsePKCS8PrivateKey(id.Key)
		if err != nil {
			return err
		}
		for n, server := range []string{"hub", "bare"} {
			cfg := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(1),
				Certificates: []tls.Certificate{{Certificate: [][]byte{id.Certificate}, PrivateKey: key}}}
			to[server] = append(to[server], &client{number: i, addr: os.Args[n+1], cfg: cfg, offered: make(chan string, 64)})
		}
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Fields(lines.Text())
		var do func(*client) error
		switch words[0] {
		case "connect":
			session, err := strconv.ParseUint(words[2], 10, 64)
			if err != nil {
				return err
			}
			do = func(c *client) error { return c.connect(session + 1) }
		case "disconnect":
			do = (*client).disconnect
		case "offered":
			do = func(c *client) error { return c.await(words[2]) }
		}
		g := errgroup.Group{}
		g.SetLimit(map[bool]int{true: len(to["hub"]), false: 64}[words[0] == "offered"])
		for _, c := range to[words[1]] {
			g.Go(func() error { return do(c) })
		}
		if err := g.Wait(); err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		fmt.Println(len(to[words[1]]))
	}
	return nil
}

type client struct {
	number   int
	addr     string
	cfg      *tls.Config
	conn     *grpc.ClientConn
	revision uint64
	offered  chan string
	over     chan struct{}
}

func (c *client) connect(session uint64) (err error) {
	if c.conn, err = transport.Dial(c.addr, c.cfg); err != nil {
		return err
	}
	stream, err := syncv1.NewSyncServiceClient(c.conn).Connect(context.Background())
	if err != nil {
		return err
	}
	err = stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Hello{Hello: &syncv1.Hello{SpokeVersion: "dev", KubernetesVersion: "v1.36.3", JournalId: "j", Revision: c.revision,
		Instance: "i", Session: session, Subscriptions: []*syncv1.SubscriptionStatus{{Distribution: "shop", Variant: "app", Namespace: "shop"}}}}})
	if err != nil {
		return err
	}
	if m, err := stream.Recv(); err != nil || m.GetWelcome() == nil {
		return fmt.Errorf("got %v, %w, want a welcome", m, err)
	}
	c.over = make(chan struct{})
	go func() {
		defer close(c.over)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			d := m.GetDesired()
			if d == nil {
				continue
			}
			c.revision = d.GetRevision()
			for _, o := range d.GetDistributions() {
				if all := o.GetOffers(); len(all) > 0 {
					c.offered <- all[len(all)-1].GetVersion()
				}
			}
		}
	}()
	return nil
}

func (c *client) disconnect() error {
	err := c.conn.Close()
	<-c.over
	return err
}

func (c *client) await(version string) error {
	late := time.NewTimer(2 * time.Minute)
	defer late.Stop()
	for {
		select {
		case v := <-c.offered:
			if v == version {
				return nil
			}
		case <-late.C:
			return fmt.Errorf("%s was not offered %s", name(c.number), version)
		}
	}
}
