package conductor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence/presencetest"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

type putFunc func(fleet.Digest, []byte) error

func (f putFunc) Put(d fleet.Digest, z []byte) error { return f(d, z) }

// world is a conductor on a real store, with one distribution.
type world struct {
	*Conductor
	store    *store.Store
	presence *presence.Registry
	shop     fleet.Distribution
	put      func(fleet.Digest, []byte) error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(filepath.Join(t.TempDir(), "hub.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{store: s, presence: presence.New(), shop: fleet.Distribution{Name: "shop", URL: "https://example.com/shop.git", Path: "dist"}}
	w.put = func(fleet.Digest, []byte) error { return nil }
	if err := s.AddDistribution(w.shop); err != nil {
		t.Fatal(err)
	}
	w.Conductor = New(Config{Store: s, Blobs: putFunc(func(d fleet.Digest, z []byte) error { return w.put(d, z) }),
		Compress: func(tar []byte) []byte { return tar[:len(tar)/2] }, Spokes: w.presence, Heartbeat: heartbeat, Log: log})
	return w
}

// offers are a cluster's, as its spoke reads them.
func offers(c *Conductor, cluster fleet.Cluster, subscriptions []string) (*syncv1.DesiredState, error) {
	d, err := c.Offers(cluster, subscriptions)
	if err != nil {
		return nil, err
	}
	m := &syncv1.ConnectResponse{}
	if err := proto.Unmarshal(d.Encode().Materialize(), m); err != nil {
		return nil, err
	}
	return m.GetDesired(), nil
}

func digest(c string) fleet.Digest { return fleet.Digest("sha256:" + strings.Repeat(c, 64)) }

// tag is one that builds; its digest is c 64 times.
func tag(name, c string) Tag {
	return Tag{Name: name, Hash: "hash of " + name, Judge: func(context.Context) (fleet.Release, []byte, error) {
		return fleet.Release{Distribution: "shop", Version: name, Phase: fleet.Available, Digest: digest(c), Size: 10,
			Variants: []fleet.VariantResult{{Name: "app", Objects: 3}}}, make([]byte, 10), nil
	}}
}

func (w *world) see(t *testing.T, tags ...Tag) {
	t.Helper()
	for _, tag := range tags {
		if err := w.Seen(t.Context(), w.shop, tag); err != nil {
			t.Fatal(err)
		}
	}
	w.polled(t)
}

// polled says that no more tags come for now, and has the conductor look.
func (w *world) polled(t *testing.T) {
	t.Helper()
	w.Note("shop", Note{Kind: NotePolled})
	w.lookNow(t)
}

func (w *world) lookNow(t *testing.T) {
	t.Helper()
	if _, err := w.look(time.Now()); err != nil {
		t.Fatal(err)
	}
}

func TestATagBecomesAnOffer(t *testing.T) {
	w := newWorld(t)
	session := presencetest.Register(w.presence, "acme/eu-1")
	stored := false
	w.put = func(d fleet.Digest, z []byte) error {
		if rs, _ := w.store.Releases("shop"); len(rs) != 0 {
			t.Error("the release was stored before its bundle")
		}
		stored = d == digest("a") && len(z) == 5
		return nil
	}
	w.see(t, tag("1.0.0", "a"))
	if !stored {
		t.Error("the bundle was not stored")
	}
	select {
	case <-session.Wake():
	default:
		t.Error("the connected spoke was not woken")
	}
	r, err := w.store.Release("shop", "1.0.0")
	if err != nil || r.Compressed != 5 {
		t.Errorf("got %+v, %v", r, err)
	}
	state, err := offers(w.Conductor, "acme/eu-1", []string{"shop"})
	if err != nil {
		t.Fatal(err)
	}
	if len(state.Distributions) != 1 || state.Distributions[0].Url != w.shop.URL || state.Distributions[0].Path != "dist" {
		t.Fatalf("got %v", state)
	}
	o := state.Distributions[0].Offers[0]
	if o.Version != "1.0.0" || o.Digest != string(digest("a")) || o.Size != 10 || !slices.Equal(o.Variants, []string{"app"}) {
		t.Errorf("got %v", o)
	}
	history, err := w.store.Events(store.EventFilter{})
	if err != nil || len(history) != 2 || history[0].Kind != fleet.EventPublished || history[1].Kind != fleet.EventRollout {
		t.Errorf("got %v, %v", history, err)
	}
}

func TestARejectedTagReachesNobody(t *testing.T) {
	w := newWorld(t)
	if _, err := offers(w.Conductor, "acme/eu-1", []string{"shop"}); err != nil {
		t.Fatal(err)
	}
	w.see(t, Tag{Name: "1.5.0", Hash: "h", Judge: func(context.Context) (fleet.Release, []byte, error) {
		return fleet.Release{Distribution: "shop", Version: "1.5.0", Phase: fleet.Rejected, Reasons: []string{"1 of 1 variants refused: app"},
			Variants: []fleet.VariantResult{{Name: "app", Reasons: []string{"image backend:latest"}}}}, nil, nil
	}})
	state, err := offers(w.Conductor, "acme/eu-1", []string{"shop"})
	if err != nil || len(state.Distributions[0].Offers) != 0 {
		t.Errorf("got %v, %v", state, err)
	}
	history, _ := w.store.Events(store.EventFilter{})
	if len(history) != 1 || history[0].Kind != fleet.EventRejected || history[0].Message != "app: image backend:latest (and 1 more); `hub release describe shop 1.5.0` has it all" {
		t.Errorf("got %v", history)
	}
	if _, sums, err := w.table("shop"); err != nil || len(sums) != 1 || len(sums[0].GetRejected()) != 1 {
		t.Errorf("the screen does not name it, though offers were asked for before: %v, %v", sums, err)
	}
}

func TestOneVersionHasOneTag(t *testing.T) {
	w := newWorld(t)
	w.see(t, tag("1.2.3", "a"), tag("v1.2.3", "b"))
	r, err := w.store.Release("shop", "v1.2.3")
	if err != nil || r.Phase != fleet.Rejected || !strings.Contains(r.Reasons[0], "tag 1.2.3") {
		t.Errorf("got %+v, %v", r, err)
	}
}

// Law 5: a release never changes.
func TestAJudgedTagIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	w.see(t, tag("1.0.0", "a"))
	again := tag("1.0.0", "b")
	again.Judge = func(context.Context) (fleet.Release, []byte, error) {
		t.Error("judged twice")
		return fleet.Release{}, nil, nil
	}
	w.see(t, again)
}

func TestOurOwnTroubleJudgesNothing(t *testing.T) {
	w := newWorld(t)
	full := errors.New("disk full")
	w.put = func(fleet.Digest, []byte) error { return full }
	if err := w.Seen(t.Context(), w.shop, tag("1.0.0", "a")); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	failing := Tag{Name: "1.0.0", Judge: func(context.Context) (fleet.Release, []byte, error) { return fleet.Release{}, nil, full }}
	if err := w.Seen(t.Context(), w.shop, failing); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	w.put = func(fleet.Digest, []byte) error { return nil }
	w.see(t, tag("1.0.0", "a")) // and it is tried again
	if r, err := w.store.Release("shop", "1.0.0"); err != nil || r.Phase != fleet.Available {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestADistributionAddedAgainOffersWhatIsInItsRange(t *testing.T) {
	w := newWorld(t)
	w.see(t, tag("1.0.0", "a"), tag("2.0.0", "b"))
	if err := w.store.RemoveDistribution("shop"); err != nil {
		t.Fatal(err)
	}
	w.shop.Tags = "<2.0.0"
	if err := w.store.AddDistribution(w.shop); err != nil {
		t.Fatal(err)
	}
	state, err := offers(w.Conductor, "acme/eu-1", []string{"shop"})
	if err != nil {
		t.Fatal(err)
	}
	if o := state.Distributions[0].Offers; len(o) != 1 || o[0].Version != "1.0.0" {
		t.Errorf("got %v", o)
	}
	_, sums, err := w.table("")
	if err != nil || sums[0].Latest != "1.0.0" {
		t.Errorf("got %v, %v", sums, err)
	}
}

func TestTagsOfOneDistributionTakeTurns(t *testing.T) {
	w := newWorld(t)
	var running, most int
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, v := range []string{"1.0.0", "1.0.1", "1.0.2", "1.0.3"} {
		tg := tag(v, v[4:])
		build := tg.Judge
		tg.Judge = func(ctx context.Context) (fleet.Release, []byte, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			defer func() { mu.Lock(); running--; mu.Unlock() }()
			return build(ctx)
		}
		all.Go(func() {
			if err := w.Seen(t.Context(), w.shop, tg); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most != 1 {
		t.Errorf("%d were judged at once", most)
	}
}

func TestRevisions(t *testing.T) {
	w := newWorld(t)
	if err := w.store.AddDistribution(fleet.Distribution{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	revision := func(names ...string) uint64 {
		t.Helper()
		s, err := offers(w.Conductor, "acme/eu-1", names)
		if err != nil {
			t.Fatal(err)
		}
		return s.Revision
	}
	before := revision("shop")
	if revision("shop") != before {
		t.Error("the same question has two revisions")
	}
	if revision("shop", "web") == before || revision("shop", "unknown") == before {
		t.Error("another set of subscriptions has the same revision")
	}
	if revision("web", "shop", "web") != revision("shop", "web") {
		t.Error("the order of subscriptions counts")
	}
	web := revision("web")
	w.see(t, tag("1.0.0", "a"))
	if revision("shop") == before {
		t.Error("a release did not change the revision")
	}
	if revision("web") != web {
		t.Error("a release of another distribution changed the revision")
	}
	first, _ := w.Offers("acme/eu-1", []string{"shop"})
	second, _ := w.Offers("acme/us-1", []string{"shop"})
	one, other := first.Encode(), second.Encode()
	if last := len(one) - 1; &one[last].ReadOnlyData()[0] != &other[last].ReadOnlyData()[0] || !bytes.Equal(one.Materialize(), other.Materialize()) {
		t.Error("two clusters do not share an answer")
	}
	if err := w.store.RemoveDistribution("shop"); err != nil {
		t.Fatal(err)
	}
	if s, _ := offers(w.Conductor, "acme/eu-1", []string{"shop"}); len(s.Distributions) != 0 || s.Revision == first.Revision {
		t.Errorf("after removal: %v", s)
	}
}

func TestNotes(t *testing.T) {
	w := newWorld(t)
	w.Note("shop", Note{Kind: NotePollFailed, Text: "no route to host"})
	w.Note("shop", Note{Kind: NoteIgnored, Tag: "nightly", Text: "tag nightly is no version"})
	if at, failure, notes := w.Poll("shop"); !at.IsZero() || failure != "no route to host" || !slices.Equal(notes, []string{"tag nightly is no version"}) {
		t.Errorf("got %v, %q, %q", at, failure, notes)
	}
	w.Note("shop", Note{Kind: NotePolled})
	if at, failure, _ := w.Poll("shop"); time.Since(at) > time.Minute || failure != "" {
		t.Errorf("got %v, %q", at, failure)
	}
	trouble := func() string {
		t.Helper()
		_, sums, err := w.table("shop")
		if err != nil {
			t.Fatal(err)
		}
		return sums[0].Trouble
	}
	if got := trouble(); got != "" {
		t.Errorf("trouble %q, want none", got)
	}
	w.Note("shop", Note{Kind: NoteDelayed, Tag: "1.2.0", Text: "tag 1.2.0 is not judged yet: disk full"})
	w.Note("shop", Note{Kind: NoteSettled, Tag: "nightly"})
	if _, _, notes := w.Poll("shop"); !slices.Equal(notes, []string{"tag 1.2.0 is not judged yet: disk full"}) {
		t.Errorf("what is over is still told: %q", notes)
	}
	if got := trouble(); !strings.Contains(got, "disk full") {
		t.Errorf("trouble %q, want the tag that waits", got)
	}
	w.Note("shop", Note{Kind: NotePollFailed, Text: "no route to host"})
	if got := trouble(); got != "no route to host" {
		t.Errorf("trouble %q, want that of the repository", got)
	}
	w.Forget("shop")
	if _, _, notes := w.Poll("shop"); notes != nil {
		t.Errorf("got %q", notes)
	}
}

// Law 5: a moved or deleted tag raises an alarm.
func TestAMovedTagRaisesOneAlarm(t *testing.T) {
	w := newWorld(t)
	moved := Note{Kind: NoteMoved, Tag: "1.0.0", Text: "moved from a to b"}
	for range 3 {
		w.Note("shop", moved)
	}
	w.Forget("shop") // as a restart does
	w.Note("shop", moved)
	w.Note("shop", Note{Kind: NoteDeleted, Tag: "1.0.0", Text: "is gone"})
	history, err := w.store.Events(store.EventFilter{})
	if err != nil || len(history) != 2 || history[0].Kind != fleet.EventTagMoved || history[1].Kind != fleet.EventTagDeleted {
		t.Errorf("got %v, %v", history, err)
	}
}

// reads counts how often the history is read.
type reads struct {
	*store.Store
	n *int
}

func (r reads) Events(f store.EventFilter) ([]fleet.Event, error) {
	*r.n++
	return r.Store.Events(f)
}

func TestAReplacedRepositoryCostsOneLookIntoTheHistory(t *testing.T) {
	w := newWorld(t)
	n := 0
	w.cfg.Store = reads{w.store, &n}
	for i := range 50 {
		w.Note("shop", Note{Kind: NoteDeleted, Tag: fmt.Sprintf("1.0.%d", i), Text: "gone"})
	}
	if n != 1 {
		t.Errorf("the history was read %d times", n)
	}
	if all, err := w.store.Events(store.EventFilter{}); err != nil || len(all) != 50 {
		t.Errorf("got %d alarms, %v", len(all), err)
	}
}

// table is what the status says now.
func (w *world) table(distribution string) ([]*fleetv1.StatusRow, []*fleetv1.DistributionSummary, error) {
	resp, err := w.Status(time.Now(), distribution, 0)
	return resp.GetRows(), resp.GetSummaries(), err
}

func TestStatusReadsStoreAndPresence(t *testing.T) {
	w := newWorld(t)
	w.see(t, tag("1.0.0", "a"))
	if _, err := w.store.Invite("acme/eu-1", nil, "0123456789abcdef", [32]byte{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	status := func() string {
		t.Helper()
		rows, sums, err := w.table("")
		if err != nil || len(rows) != 1 || len(sums) != 1 {
			t.Fatalf("got %v, %v, %v", rows, sums, err)
		}
		return rows[0].Phase
	}
	if got := status(); got != "NotJoined" {
		t.Errorf("got %s", got)
	}
	issue := func(fleet.Cluster) (store.Certificate, error) {
		return store.Certificate{Fingerprint: [32]byte{1}, NotAfter: time.Now().Add(time.Hour)}, nil
	}
	if _, err := w.store.Redeem("0123456789abcdef", [32]byte{}, fleet.Fingerprint{}, time.Now(), issue); err != nil {
		t.Fatal(err)
	}
	defer presencetest.Register(w.presence, "acme/eu-1").Close()
	if got := status(); got != "NoSubscription" {
		t.Errorf("got %s", got)
	}
	if err := w.store.Hello("acme/eu-1", "dev", "v1.36.3", []fleet.Installation{{Distribution: "shop"}}); err != nil {
		t.Fatal(err)
	}
	if got := status(); got != "Offered(1.0.0)" {
		t.Errorf("got %s", got)
	}
}
