// Package simfleet is a fleet of spokes that are not there: any number in one process, each with an
// identity, a TLS connection and a stream of its own, speaking the real protocol to a real hub. They fetch,
// render and apply nothing: a release takes them a set time and then succeeds or fails as they are told.
// What is measured with them is called simulated.
package simfleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// enrolments under way at once; more only wait for the hub's processor.
const parallel = 16

// Config says what the fleet is.
type Config struct {
	Context      string // the operator's context file
	Distribution string // that every spoke subscribes to
	Size         int
	Name         func(n int) string            // "provider/name"
	Labels       func(n int) map[string]string // nil: none
	Takes        time.Duration                 // a release, from the offer to health
}

// Fleet is all spokes. Its methods may be called concurrently.
type Fleet struct {
	cfg    Config
	addr   string
	roots  *x509.CertPool
	Hub    fleetv1.FleetServiceClient // as the operator
	conn   *grpc.ClientConn
	spokes []*spoke

	mu    sync.Mutex
	fails map[string]func(n int) bool // by version
	news  chan struct{}               // closed and replaced when a spoke's state changes
}

// Open dials the hub as its operator, and has every spoke invited and enrolled.
func Open(ctx context.Context, cfg Config) (*Fleet, error) {
	f := &Fleet{cfg: cfg, fails: map[string]func(int) bool{}, news: make(chan struct{})}
	if err := f.dial(); err != nil {
		return nil, err
	}
	for n := range cfg.Size {
		f.spokes = append(f.spokes, &spoke{fleet: f, n: n, name: cfg.Name(n), journal: fmt.Sprintf("simulated-%d-%d", n, time.Now().UnixNano())})
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, s := range f.spokes {
		g.Go(func() error {
			if err := s.enrol(ctx); err != nil {
				return fmt.Errorf("enrol %s: %w", s.name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return f, nil
}

// Close lets go of the operator's connection.
func (f *Fleet) Close() error { return f.conn.Close() }

func (f *Fleet) dial() error {
	data, err := os.ReadFile(f.cfg.Context)
	if err != nil {
		return err
	}
	var c struct{ Address, CA, Certificate, Key string }
	if err := yaml.Unmarshal(data, &c); err != nil {
		return fmt.Errorf("read %s: %w", f.cfg.Context, err)
	}
	pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key))
	if err != nil {
		return fmt.Errorf("read %s: %w", f.cfg.Context, err)
	}
	f.addr, f.roots = c.Address, x509.NewCertPool()
	f.roots.AppendCertsFromPEM([]byte(c.CA))
	f.conn, err = transport.Dial(c.Address, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: f.roots, Certificates: []tls.Certificate{pair}},
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20)))
	f.Hub = fleetv1.NewFleetServiceClient(f.conn)
	return err
}

// Run keeps every spoke connected until ctx ends.
func (f *Fleet) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, s := range f.spokes {
		all.Go(func() { s.run(ctx) })
	}
	all.Wait()
	return nil
}

// Fail has the spokes for which which is true fail with a version.
func (f *Fleet) Fail(version string, which func(n int) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[version] = which
}

func (f *Fleet) failing(version string, n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	which := f.fails[version]
	return which != nil && which(n)
}

// Connected is how many spokes have heard the hub's welcome on the stream that they have now.
func (f *Fleet) Connected() int { return f.count(func(s *spoke) bool { return s.connected }) }

// Skew puts a spoke's clock ahead, or behind.
func (f *Fleet) Skew(n int, by time.Duration) { f.spokes[n].set(func() { f.spokes[n].skew = by }) }

// Redial has the operator's connection tried at once, and not only when its patience with a hub that was
// away is over.
func (f *Fleet) Redial() { f.conn.ResetConnectBackoff() }

// Running is how many spokes run version, and the hub has acknowledged that they said so.
func (f *Fleet) Running(version string) int {
	return f.count(func(s *spoke) bool { return s.running == version && s.acked == s.seq })
}

func (f *Fleet) count(is func(*spoke) bool) int {
	n := 0
	for _, s := range f.spokes {
		s.mu.Lock()
		if is(s) {
			n++
		}
		s.mu.Unlock()
	}
	return n
}

// breath is the least time between two looks of Await: to look costs the processor that is measured.
const breath = 10 * time.Millisecond

// Await waits until done is true; it is asked again after changes of spokes.
func (f *Fleet) Await(ctx context.Context, what string, done func() bool) error {
	for {
		f.mu.Lock()
		news := f.news
		f.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		}
		time.Sleep(breath)
	}
}

func (f *Fleet) changed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.news)
	f.news = make(chan struct{})
}

// enrol invites the spoke as the operator, and redeems the token as the spoke.
func (s *spoke) enrol(ctx context.Context) error {
	req := &fleetv1.InviteClusterRequest{Name: s.name, AcceptAutomatically: true}
	if s.fleet.cfg.Labels != nil {
		req.Labels = s.fleet.cfg.Labels(s.n)
	}
	invited, err := s.fleet.Hub.InviteCluster(ctx, req)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: s.name}}, key)
	if err != nil {
		return err
	}
	// The operator's context is how the simulated spoke knows the hub; the token's pin is the real one's way.
	r, err := enrollv1.NewEnrollServiceClient(s.fleet.conn).Enroll(ctx, &enrollv1.EnrollRequest{Token: invited.GetToken(), Csr: csr})
	if err != nil {
		return err
	}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(1), RootCAs: s.fleet.roots,
		Certificates: []tls.Certificate{{Certificate: append([][]byte{r.GetCertificate()}, r.GetAuthorities()...), PrivateKey: key}}}
	return nil
}
