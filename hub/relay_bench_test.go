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
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/relayed"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// asProcess is what this test's binary is when it is run again: "relay DIR" or "spokes FILE".
const asProcess = "WHEELWRIGHT_RELAY_BENCH"

// crowd is what a process of simulated spokes is told. Behind a relay where there is one, straight at the hub where not.
type crowd struct {
	Hub, Via     string
	CA           string
	Certificates []string // PEM, with the key
	Heartbeat    time.Duration
}

// beProcess runs what asProcess says until its standard input ends; false: nothing.
func beProcess() bool {
	what, where, found := strings.Cut(os.Getenv(asProcess), " ")
	if !found {
		return false
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }() // it dies with who started it
	var err error
	if what == "relay" {
		err = RunRelay(ctx, RelayConfig{Dir: where, Listen: relayHost + ":0", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))},
			func(i RelayInfo) { fmt.Println(i.Addr) })
	} else {
		err = beSpokes(ctx, where)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, what, err)
		os.Exit(1)
	}
	return true
}

// beSpokes keeps every spoke of a crowd connected, and says so once all are.
func beSpokes(ctx context.Context, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c crowd
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(c.CA))
	opening := errgroup.Group{}
	opening.SetLimit(16)
	var lives sync.WaitGroup
	for n, text := range c.Certificates {
		opening.Go(func() error {
			pair, err := tls.X509KeyPair([]byte(text), []byte(text))
			if err != nil {
				return err
			}
			s, err := c.connect(ctx, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}}, fmt.Sprintf("j%d", n))
			if err != nil {
				return fmt.Errorf("spoke %d: %w", n, err)
			}
			lives.Go(func() { _, _ = recvEnd(s) })
			lives.Go(func() {
				for beat := time.NewTicker(c.Heartbeat); ; {
					select {
					case <-beat.C:
						if s.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Heartbeat{Heartbeat: &syncv1.Heartbeat{At: wire.Time(time.Now())}}}) != nil {
							return
						}
					case <-ctx.Done():
						return
					}
				}
			})
			return nil
		})
	}
	if err := opening.Wait(); err != nil {
		return err
	}
	fmt.Println("connected")
	lives.Wait()
	return nil
}

func (c crowd) connect(ctx context.Context, cfg *tls.Config, journal string) (talk, error) {
	hub, err := transport.Dial(c.Hub, cfg, transport.Through(c.Via))
	if err != nil {
		return nil, err
	}
	var s talk
	if c.Via == "" {
		s, err = syncv1.NewSyncServiceClient(hub).Connect(ctx)
	} else {
		var ticket relayed.Ticket
		if ticket, err = relayed.Ask(ctx, hub); err != nil {
			return nil, err
		}
		_ = hub.Close()
		cfg = cfg.Clone()
		cfg.NextProtos = []string{transport.RelayProtocol}
		relay, dialErr := transport.Dial(c.Via, cfg)
		if dialErr != nil {
			return nil, dialErr
		}
		s, err = relayed.Open(ctx, relay, ticket)
	}
	if err != nil {
		return nil, err
	}
	if err := s.Send(greeting(journal, 1)); err != nil {
		return nil, err
	}
	_, err = s.Recv()
	return s, err
}

// again starts this binary once more, and returns the first line that it says.
func again(b *testing.B, as string) (line string, stop func()) {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), asProcess+"="+as)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	stop = sync.OnceFunc(func() { _ = in.Close(); _ = cmd.Wait() })
	b.Cleanup(stop)
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatalf("%s: %v", as, err)
	}
	return strings.TrimSpace(line), stop
}

// live is the memory of this process that is in use, stacks too, in bytes: after collections, in which stacks shrink.
func live() (heap, stacks float64) {
	var m runtime.MemStats
	for range 6 { // pools and finalizers take two; a stack is halved by one at most, as it is every two minutes of rest
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc), float64(m.StackInuse)
}

// What an idle spoke costs the hub behind a relay, and on a connection of its own. The hub is this process; relay and
// spokes are others.
func BenchmarkLiveMemoryPerIdleSpoke(b *testing.B) {
	const behindRelay, direct, beat = 2000, 500, 10 * time.Second
	dir := b.TempDir()
	crowds := map[string]*crowd{"behind": {Heartbeat: beat}, "direct": {Heartbeat: beat}}
	enrolled(b, dir, "behind", behindRelay, crowds["behind"])
	enrolled(b, dir, "direct", direct, crowds["direct"])
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	ready, over := make(chan Info, 1), make(chan error, 1)
	cfg := Config{Dir: dir, Listen: "127.0.0.1:0", Heartbeat: beat, Log: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))}
	go func() { over <- Run(ctx, cfg, func(i Info) { ready <- i }) }()
	hub := &running{Info: <-ready}
	admin, err := clientcontext.Load(hub.AdminContext)
	if err != nil {
		b.Fatal(err)
	}
	conn, err := clientcontext.Dial(admin, nil)
	if err != nil {
		b.Fatal(err)
	}
	hub.fleet = fleetv1.NewFleetServiceClient(conn)
	via, _ := again(b, "relay "+hub.joinRelay(b, "fra-1"))
	crowds["behind"].Via = via
	for name, c := range crowds {
		c.Hub, c.CA = hub.Addr, admin.CA
		data, err := json.Marshal(c)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".json"), data, 0o600)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	crowds = nil
	for b.Loop() {
		var heap, stacks float64 // of the last crowd, KB a spoke
		perSpoke := func(name string, n int) float64 {
			heapBefore, stacksBefore := live()
			line, stop := again(b, "spokes "+filepath.Join(dir, name+".json"))
			if line != "connected" {
				b.Fatalf("%s: %s", name, line)
			}
			time.Sleep(2 * beat) // heartbeats of both sides have gone by
			heapAfter, stacksAfter := live()
			list, err := hub.fleet.ListClusters(b.Context(), &fleetv1.ListClustersRequest{})
			if err != nil {
				b.Fatal(err)
			}
			connected := 0
			for _, c := range list.GetClusters() {
				if c.GetConnected() {
					connected++
				}
			}
			if connected != n {
				b.Fatalf("%d of %d are connected", connected, n)
			}
			if profile := os.Getenv("WHEELWRIGHT_HEAP"); profile != "" {
				f, err := os.Create(profile + "-" + name)
				if err != nil {
					b.Fatal(err)
				}
				if err := errors.Join(pprof.WriteHeapProfile(f), f.Close()); err != nil {
					b.Fatal(err)
				}
			}
			stop()
			await(b, "the spokes to be gone", func() bool {
				list, err := hub.fleet.ListClusters(b.Context(), &fleetv1.ListClustersRequest{})
				for _, c := range list.GetClusters() {
					if c.GetConnected() {
						return false
					}
				}
				return err == nil
			})
			heap, stacks = (heapAfter-heapBefore)/float64(n)/1024, (stacksAfter-stacksBefore)/float64(n)/1024
			return heap + stacks
		}
		apart, relayedKB := perSpoke("direct", direct), perSpoke("behind", behindRelay)
		fmt.Printf("FIGURE scale.b2-relay-kb %.1f KB %d simulated spokes behind one relay, live heap %.1f and stacks %.1f of the hub after collection, what it keeps of each spoke's state included; %.1f KB on connections of their own (%d)\n", relayedKB, behindRelay, heap, stacks, apart, direct)
		b.ReportMetric(relayedKB, "KB/spoke")
	}
	conn.Close()
	cancel()
	if err := <-over; err != nil {
		b.Error(err)
	}
}

// enrolled has n clusters in the store of a hub that does not run yet, as if each had joined.
func enrolled(b *testing.B, dir, provider string, n int, c *crowd) {
	b.Helper()
	authority, err := identity.Open(filepath.Join(dir, authorityFolder))
	if err != nil {
		b.Fatal(err)
	}
	s, err := store.Open(filepath.Join(dir, storeFile), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for i := range n {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			b.Fatal(err)
		}
		name, id := fleet.Cluster(fmt.Sprintf("%s/c-%d", provider, i)), rand.Text()
		if _, err := s.Invite(name, nil, id, [32]byte{1}, time.Now().Add(time.Hour)); err != nil {
			b.Fatal(err)
		}
		_, err = s.Redeem(id, [32]byte{1}, fleet.Fingerprint{}, time.Now(), func(name fleet.Cluster) (store.Certificate, error) {
			issued, err := authority.IssueSpoke(csr, name, 24*time.Hour)
			c.Certificates = append(c.Certificates, certificatePEM(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{issued.DER}, PrivateKey: key}}}))
			return store.Certificate{Fingerprint: issued.Fingerprint, NotAfter: issued.NotAfter, Issuer: issued.Issuer}, err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func certificatePEM(t testing.TB, cfg *tls.Config) string {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cfg.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cfg.Certificates[0].Certificate[0]})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}
