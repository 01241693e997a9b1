// Package spokes is a fleet of spokes that are not there: thousands in one process, each with an identity, a TLS
// connection and a stream of its own, speaking the real protocol to a real hub. They fetch bundles and verify
// them, and render and apply nothing: a release takes them a set time and then succeeds or fails as they are told.
// What is measured with them is called simulated.
//
// Service is driven over net/rpc by package fleet, from another process.
package spokes

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Service holds one fleet. Its exported methods are those of net/rpc, and may be called concurrently.
type Service struct {
	ctx context.Context

	mu     sync.Mutex
	opened Opening
	roster Roster
	roots  *x509.CertPool
	spokes []*spoke
	stop   context.CancelFunc // of those that were begun
	honest int                // of those
	ended  sync.WaitGroup

	fails   map[string][]int // spokes, by the version that fails there
	count   Counters
	waiting []*waiter
	library library
}

// New makes a service whose spokes end with ctx.
func New(ctx context.Context) *Service { return &Service{ctx: ctx, library: newLibrary()} }

// None stands for no argument and no result.
type None struct{}

// Opening says what the fleet is.
type Opening struct {
	File          string        // that Enrol wrote
	Addr          string        // of the hub
	Distributions []string      // spoke n subscribes to the one at n modulo their number
	Takes         time.Duration // a release, once its bundle is there, until it is healthy
	Retry         time.Duration // longest wait before a new stream; 0: as long as the real spoke's
	Settled       bool          // every session counts as one that has lasted, after which back-off begins anew
}

// Open makes the spokes that File has identities of, and connects none of them. It returns how many.
func (s *Service) Open(o Opening, size *int) error {
	roster, err := Load(o.File)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		return errors.New("open the fleet: spokes are connected")
	}
	s.opened, s.roster, s.roots, s.spokes = o, roster, x509.NewCertPool(), nil
	s.roots.AppendCertsFromPEM(roster.CA)
	s.fails, s.count = map[string][]int{}, Counters{Running: map[string]int{}, Handshakes: map[int64]int{}}
	for n, id := range roster.Spokes {
		one, err := s.newSpoke(n, id)
		if err != nil {
			return err
		}
		s.spokes = append(s.spokes, one)
	}
	*size = len(s.spokes)
	return nil
}

// config is for one identity. The cache of sessions is the spoke's, over all of its connections.
func (s *Service) config(id Identity) (*tls.Config, error) {
	key, err := x509.ParsePKCS8PrivateKey(id.Key)
	if err != nil {
		return nil, fmt.Errorf("key of %s: %w", id.Name, err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(1), RootCAs: s.roots,
		Certificates: []tls.Certificate{{Certificate: [][]byte{id.Certificate}, PrivateKey: key}}, VerifyConnection: s.shook}, nil
}

// Range is the spokes from From up to, and without, To.
type Range struct{ From, To int }

func (s *Service) within(r Range) ([]*spoke, error) {
	if r.From < 0 || r.To > len(s.spokes) || r.From > r.To {
		return nil, fmt.Errorf("spokes %d to %d of %d", r.From, r.To, len(s.spokes))
	}
	return s.spokes[r.From:r.To], nil
}

// Connect keeps spokes connected from now on, until Disconnect. It does not wait for them.
func (s *Service) Connect(r Range, _ *None) error {
	if err := s.begin(r, func(ctx context.Context, one *spoke) { one.run(ctx) }); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.honest += r.To - r.From
	return nil
}

func (s *Service) begin(r Range, run func(context.Context, *spoke)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.within(r)
	if err != nil {
		return err
	}
	if s.stop == nil {
		var ctx context.Context
		ctx, s.stop = context.WithCancel(s.ctx)
		for _, one := range s.spokes {
			one.ctx = ctx
		}
	}
	for _, one := range all {
		if one.begun {
			return fmt.Errorf("spoke %d is under way already", one.n)
		}
		one.begun = true
		s.ended.Go(func() { run(one.ctx, one) })
	}
	return nil
}

// Disconnect ends every spoke's connection, and returns when they have ended.
func (s *Service) Disconnect(None, *None) error {
	s.mu.Lock()
	stop := s.stop
	s.stop = nil
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
	s.ended.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.honest = 0
	for _, one := range s.spokes {
		one.begun = false
	}
	return nil
}

// Cut closes every connection under the spokes, as a network does that fails.
func (s *Service) Cut(None, *None) error {
	s.mu.Lock()
	var wires []*wire
	for _, one := range s.spokes {
		if one.wire != nil {
			wires = append(wires, one.wire)
		}
	}
	s.mu.Unlock()
	for _, w := range wires {
		_ = w.Close() // one that is closed already is cut too
	}
	return nil
}

// Failure is a version that spokes fail with.
type Failure struct {
	Version string
	Spokes  []int
}

// Fail has spokes fail with a version.
func (s *Service) Fail(f Failure, _ *None) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[f.Version] = f.Spokes
	return nil
}

func (s *Service) failing(version string, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.fails[version], n)
}

// Clock is how far spoke N's is ahead.
type Clock struct {
	N  int
	By time.Duration
}

// Skew puts a spoke's clock ahead, or behind.
func (s *Service) Skew(c Clock, _ *None) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.N < 0 || c.N >= len(s.spokes) {
		return fmt.Errorf("spoke %d of %d", c.N, len(s.spokes))
	}
	s.spokes[c.N].skew = c.By
	return nil
}

// Goal is what a number of spokes is to be.
type Goal struct {
	State   State
	Version string // of Runs
	Spokes  int
	Within  time.Duration
}

// State is of a spoke.
type State int

const (
	Connected State = iota // it has heard the hub's welcome on the stream that it has now
	Away                   // it is to be, and is not
	Runs                   // it runs Version, and the hub has acknowledged that it said so
)

func (s State) String() string { return [...]string{"connected", "away", "running"}[s] }

func (g Goal) String() string {
	if g.State == Runs {
		return fmt.Sprintf("%d spokes running %s", g.Spokes, g.Version)
	}
	return fmt.Sprintf("%d spokes %s", g.Spokes, g.State)
}

type waiter struct {
	Goal
	reached chan time.Time
}

// Await returns when the goal was reached.
func (s *Service) Await(g Goal, at *time.Time) error {
	w := &waiter{g, make(chan time.Time, 1)}
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	s.changedLocked()
	s.mu.Unlock()
	timeout := time.NewTimer(g.Within)
	defer timeout.Stop()
	select {
	case *at = <-w.reached:
		return nil
	case <-timeout.C:
	case <-s.ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = slices.DeleteFunc(s.waiting, func(other *waiter) bool { return other == w })
	return fmt.Errorf("wait for %v: %d are after %v; a connection ended last by: %v", g, s.numberLocked(g), g.Within, s.count.Ended)
}

func (s *Service) numberLocked(g Goal) int {
	switch g.State {
	case Connected:
		return s.count.Connected
	case Away:
		return s.honest - s.count.Connected
	}
	return s.count.Running[g.Version]
}

// changedLocked lets those go on whose goal is reached.
func (s *Service) changedLocked() {
	s.waiting = slices.DeleteFunc(s.waiting, func(w *waiter) bool {
		if s.numberLocked(w.Goal) < w.Spokes {
			return false
		}
		w.reached <- time.Now()
		return true
	})
}

// Counters are since Open, or since the last Reset; Connected and Running are of the moment.
type Counters struct {
	Connected  int
	Running    map[string]int // spokes, by the version that they run and the hub has acknowledged
	Handshakes map[int64]int  // by the second of their end, Unix time
	Resumed    int            // handshakes that took up an earlier session
	Dials      int
	Received   int64 // bytes, TLS included
	Sent       int64
	Fetches    int
	Deltas     int           // of the fetches
	Bundles    int64         // bytes of bundles as they were sent
	Written    int64         // messages of those that attack
	Repelled   int           // how often one of them was cut off
	Repulse    string        // why the last of them was
	Ended      string        // why the last connection of the others ended, or their last fetch failed
	CPU        time.Duration // of this process, since its start
}

// Count returns the counters.
func (s *Service) Count(_ None, c *Counters) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	*c = s.count
	c.Running, c.Handshakes = map[string]int{}, map[int64]int{}
	for version, n := range s.count.Running {
		c.Running[version] = n
	}
	for second, n := range s.count.Handshakes {
		c.Handshakes[second] = n
	}
	var err error
	c.CPU, err = cpu()
	return err
}

func cpu() (time.Duration, error) {
	var used syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), err
}

// Reset begins the counters anew.
func (s *Service) Reset(None, *None) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count = Counters{Connected: s.count.Connected, Running: s.count.Running, Handshakes: map[int64]int{}}
	return nil
}

func (s *Service) counted(f func(c *Counters)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.count)
}

// shook counts a handshake at its end on the client's side.
func (s *Service) shook(state tls.ConnectionState) error {
	s.counted(func(c *Counters) {
		c.Handshakes[time.Now().Unix()]++
		if state.DidResume {
			c.Resumed++
		}
	})
	return nil
}
