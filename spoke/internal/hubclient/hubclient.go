// Package hubclient is the spoke's end of the wire: it joins a hub with a one-time token, keeps one
// stream open, sends events until they are acknowledged, hands over what the hub offers, fetches
// bundles and renews the spoke's certificate. A hub that is away is never an error here: Run says so
// once and keeps trying. It decides nothing about what is offered and stores nothing but the identity.
package hubclient

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// events is the journal, as far as the wire needs it. Pending is ascending and above after; Ack forgets
// up to and including seq; Notify yields after something was appended.
type events interface {
	Pending(after uint64, max int) ([]fleet.Event, error)
	Ack(seq uint64) error
	Notify() <-chan struct{}
}

// Config is what a Client needs. All is required, but where nil is said to mean something.
type Config struct {
	Dir string // data folder with the identity that Join wrote
	// Hello makes the first message of each stream. Its error ends Run.
	Hello  func() (*syncv1.Hello, error)
	Events events
	// OnDesired takes what the hub offers now; it replaces what came before. It must keep it and return
	// soon, or the stream looks dead. After an error the hub is asked again.
	OnDesired func(*syncv1.DesiredState) error
	// OnReHome takes a statement that moves this spoke to another hub, which is to be judged; nil: they are left
	// alone. It must return at once.
	OnReHome func(signed []byte)
	// Held are the bundles that need not be fetched whole; nil: none.
	Held held
	// Redact takes values out of every text that is sent; nil: it is sent as it is.
	Redact func(string) string
	Log    *slog.Logger
}

// Client is one spoke's connection to its hub.
type Client struct {
	cfg         Config
	log         *slog.Logger
	rehello     chan struct{}
	connected   atomic.Bool
	lastContact atomic.Int64 // unix nanoseconds; 0: never
	refused     atomic.Pointer[refusal]
	turnWait    time.Duration

	mu    sync.Mutex
	conn  *grpc.ClientConn       // of the present session
	sizes map[fleet.Digest]int64 // of the offers, bytes of the canonical tar

	renewed time.Time    // when the certificate was, last; only the session's
	within  atomic.Int64 // time.Duration over which the hub wants its spokes to come back when they are cut off; 0: it did not say
	tickets resumption   // only Run's
	outage  outage
}

// errLocal is trouble on this side of the wire, which no reconnect heals.
type errLocal struct{ error }

func (e errLocal) Unwrap() error { return e.error }

var (
	errRehello = errors.New("the subscriptions changed")
	errRenewed = errors.New("the certificate was renewed")
)

// mostTold bounds for how long a hub may send a spoke away.
const mostTold = 10 * time.Minute

// stable is how long a stream has to last before the backoff starts from the bottom again.
const stable = time.Minute

// New checks that Dir holds an identity; it opens no connection.
func New(cfg Config) (*Client, error) {
	if _, err := LoadIdentity(cfg.Dir); err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, log: cfg.Log, rehello: make(chan struct{}, 1), turnWait: turnWait}, nil
}

// Connected reports whether a stream is up, greeted from both sides.
func (c *Client) Connected() bool { return c.connected.Load() }

// LastContact is when the hub last said anything; zero for never since the start.
func (c *Client) LastContact() time.Time {
	if n := c.lastContact.Load(); n != 0 {
		return time.Unix(0, n)
	}
	return time.Time{}
}

// Rehello says hello again on a new stream: subscriptions changed. It does not wait.
func (c *Client) Rehello() {
	select {
	case c.rehello <- struct{}{}:
	default:
	}
}

// Run keeps the stream until ctx ends, then returns nil. It returns an error only for trouble of this
// side: the journal's or Hello's.
func (c *Client) Run(ctx context.Context) error {
	for attempt := 0; ; attempt++ {
		started := time.Now()
		err := c.session(ctx)
		var local errLocal
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &local):
			return local.error
		case errors.Is(err, errRehello), errors.Is(err, errRenewed):
			c.log.Debug("saying hello again", logging.Reason, err.Error())
			attempt = -1
			continue
		case time.Since(started) >= stable && reopens(err):
			c.log.Debug("opening the next stream", logging.Reason, err.Error())
			attempt = -1
			continue
		}
		c.lost(err)
		if time.Since(started) >= stable {
			attempt = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.rehello: // the next stream says it anyway, but somebody waits for it
		case <-time.After(pause(err, attempt, time.Duration(c.within.Swap(0)), rand.Float64())):
		}
	}
}

// refusal is what the hub said to a spoke that it does not serve.
type refusal struct {
	reason  string
	pending bool
}

// Refused is why the hub does not serve this spoke, one line; empty where it does, or does not answer. pending:
// it waits for the vendor to accept it.
func (c *Client) Refused() (reason string, pending bool) {
	if r := c.refused.Load(); r != nil {
		return r.reason, r.pending
	}
	return "", false
}

// refusalOf is the detail of the hub's answer; nil where it has none.
func refusalOf(err error) *syncv1.Refusal {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*syncv1.Refusal); ok {
			return r
		}
	}
	return nil
}

// retryAfter is what the hub says of when to come back, and whether it does.
func retryAfter(err error) (after time.Duration, told bool) {
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok && r.GetRetryDelay().IsValid() {
			return min(max(r.GetRetryDelay().AsDuration(), 0), mostTold), true
		}
	}
	return 0, false
}

// reopens: the hub is well, and wants the next stream at once.
func reopens(err error) bool {
	after, told := retryAfter(err)
	return told && after == 0 && status.Code(err) == codes.Unavailable
}

// pause is the wait after a failed attempt: what waits for a person is asked for gently, and what the hub says counts
// as it is. within is set where a hub that had welcomed this spoke said over how long its spokes spread themselves.
func pause(err error, attempt int, within time.Duration, jitter float64) time.Duration {
	spread := func(least, more time.Duration) time.Duration { return least + time.Duration(jitter*float64(more)) }
	switch refusalOf(err).GetKind() {
	case syncv1.RefusalKind_REFUSAL_KIND_PENDING:
		return spread(2*time.Second, 3*time.Second)
	case syncv1.RefusalKind_REFUSAL_KIND_QUARANTINED, syncv1.RefusalKind_REFUSAL_KIND_SUPERSEDED:
		return spread(15*time.Second, 15*time.Second)
	}
	if after, told := retryAfter(err); told && after > 0 {
		return after
	}
	return max(spread(0, within), Backoff(attempt, jitter))
}

// Backoff is the wait after the failed attempt number attempt, from 0: full jitter below a ceiling that
// doubles from 0.5 s to 30 s, so that spokes of a restarted hub come back spread out. jitter is in [0,1).
func Backoff(attempt int, jitter float64) time.Duration {
	const first, most = 500 * time.Millisecond, 30 * time.Second
	ceiling := most
	if attempt < 6 {
		ceiling = min(most, first<<max(attempt, 0))
	}
	return time.Duration(jitter * float64(ceiling))
}

func (c *Client) heard() { c.lastContact.Store(time.Now().UnixNano()) }

func (c *Client) setConn(conn *grpc.ClientConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
}

func (c *Client) setSizes(d *syncv1.DesiredState) {
	sizes := map[fleet.Digest]int64{}
	for _, dist := range d.GetDistributions() {
		for _, o := range dist.GetOffers() {
			sizes[fleet.Digest(o.GetDigest())] = int64(o.GetSize())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sizes = sizes
}

// outage is what was said about the present one; only Run's goroutine touches it.
type outage struct {
	since time.Time // zero: connected, or nothing said yet
	kind  string
}

// lost logs once per outage and kind of cause.
func (c *Client) lost(err error) {
	kind, level, next := diagnose(err)
	c.refused.Store(nil)
	if code := status.Code(err); code == codes.PermissionDenied || code == codes.Unauthenticated {
		c.refused.Store(&refusal{reason: status.Convert(err).Message(), pending: kind == "pending"})
	}
	if c.outage.since.IsZero() {
		c.outage.since = time.Now()
	}
	if kind == c.outage.kind {
		c.log.Debug("the hub is still away", logging.Error, err)
		return
	}
	c.outage.kind = kind
	c.log.Log(context.Background(), level, "no connection to the hub: what runs stays as it is, events are kept and sent later",
		logging.Error, err, "next", next)
}

func (c *Client) found(id Identity, w *syncv1.Welcome) {
	attrs := []any{logging.Cluster, w.GetCluster(), logging.Address, id.Addr, "hub_version", w.GetHubVersion()}
	if !c.outage.since.IsZero() {
		attrs = append(attrs, "after", time.Since(c.outage.since).Round(time.Second))
	}
	c.outage = outage{}
	c.refused.Store(nil)
	c.log.Info("connected to the hub", attrs...)
	if w.GetCluster() != id.Cluster {
		c.log.Warn("the hub knows this spoke by another name", "joined_as", id.Cluster, logging.Cluster, w.GetCluster())
	}
}

// wireError names the hub and leaves the wire's own words out of what people read.
type wireError struct {
	addr string
	err  error
}

func (e wireError) Unwrap() error { return e.err }

func (e wireError) Error() string {
	if s, ok := status.FromError(e.err); ok {
		return "hub " + e.addr + ": " + s.Message()
	}
	return "hub " + e.addr + ": " + e.err.Error()
}
