package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence"
	"github.com/wheelwright-dev/wheelwright/hub/internal/presence/presencetest"
	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// asks is a conductor that has nothing to say but what a test lets it, and notes what it was asked.
type asks struct {
	err   error
	asked []any
}

func (a *asks) note(what ...any) error {
	a.asked = append(a.asked, what)
	return a.err
}

func (a *asks) Status(_ time.Time, distribution string, limit int) (*fleetv1.GetStatusResponse, error) {
	r := &fleetv1.GetStatusResponse{}
	if distribution == "shop" {
		r.Summaries = []*fleetv1.DistributionSummary{{Distribution: "shop"}}
	}
	return r, a.note("status", distribution, limit)
}

func (a *asks) ProviderStatus(_ time.Time, provider, distribution string, limit int) (*fleetv1.GetStatusResponse, error) {
	return &fleetv1.GetStatusResponse{}, a.note("status of", provider, distribution, limit)
}

func (*asks) Named() (map[fleet.Cluster]bool, error) {
	return map[fleet.Cluster]bool{"acme/eu-1": true, "globex/eu-1": true}, nil
}

func (a *asks) RemoveDistribution(_ time.Time, by caller.Who, name string, dry bool, remove func() error) ([]*fleetv1.Rollout, error) {
	if err := a.note("remove", by, name, dry); err != nil || dry {
		return nil, err
	}
	return nil, remove()
}

func (a *asks) Explain(_ time.Time, c fleet.Cluster, d string) (*fleetv1.ExplainResponse, error) {
	return &fleetv1.ExplainResponse{}, a.note("explain", c, d)
}

func (a *asks) PlanRollout(_ time.Time, d, v string, yaml []byte) (*fleetv1.RolloutPlan, error) {
	return &fleetv1.RolloutPlan{}, a.note("plan", d, v, string(yaml))
}

func (a *asks) StartRollout(_ time.Time, by caller.Who, d, v string, yaml []byte, reason string, dry bool) (*fleetv1.Rollout, error) {
	return &fleetv1.Rollout{}, a.note("start", by, d, v, string(yaml), reason, dry)
}

func (a *asks) Rollouts(d string, limit int) ([]*fleetv1.Rollout, error) {
	return nil, a.note("rollouts", d, limit)
}

func (a *asks) Rollout(_ time.Time, d, v string) (*fleetv1.Rollout, error) {
	return &fleetv1.Rollout{}, a.note("rollout", d, v)
}

func (a *asks) Decide(_ time.Time, by caller.Who, d, v string, c rollout.Command, dry bool) (*fleetv1.Rollout, error) {
	return &fleetv1.Rollout{}, a.note("decide", by, d, v, c, dry)
}

func (a *asks) Recall(now time.Time, by caller.Who, r fleet.Recall, dry bool) (*fleetv1.RecallReleaseResponse, error) {
	if !r.At.Equal(now) {
		return nil, errors.New("a recall of another time")
	}
	r.At = time.Time{}
	return &fleetv1.RecallReleaseResponse{}, a.note("recall", by, r, dry)
}

func (a *asks) Pin(now time.Time, by caller.Who, p fleet.HubPin, dry bool) ([]string, error) {
	p.Created = time.Time{}
	return []string{"odd"}, a.note("pin", by, p, dry)
}

func (a *asks) Unpin(_ time.Time, by caller.Who, c fleet.Cluster, d, reason string, dry bool) error {
	return a.note("unpin", by, c, d, reason, dry)
}

func (a *asks) Order(_ time.Time, by caller.Who, o fleet.SignedOrder, dry bool) ([]string, error) {
	return []string{"odd"}, a.note("order", by, o.Cluster, o.Distribution, o.Nonce, dry)
}

func (a *asks) Pins(_ time.Time, d string) ([]*fleetv1.Pin, error) { return nil, a.note("pins", d) }

func (a *asks) DecideDelivery(_ time.Time, by caller.Who, d fleet.HubDecision, dry bool) (string, []string, error) {
	d.At = time.Time{}
	return "1.4.0", nil, a.note("delivery", by, d, dry)
}

func (*asks) Preflight(distribution string) (map[string]time.Time, error) {
	return map[string]time.Time{"2.0.0": time.Unix(8, 0)}, nil
}

func (*asks) Poll(string) (time.Time, string, []string) {
	return time.Unix(7, 0), "no route to host", []string{"nightly: not a semantic version"}
}

var admin = caller.Caller{Operator: "admin", Role: caller.Role{Kind: caller.Admin}}

// watching lists what is watched.
type watching map[string]bool

func (w watching) Start(d fleet.Distribution) { w[d.Name] = true }
func (w watching) Stop(name string)           { delete(w, name) }

type world struct {
	*Service
	store    *store.Store
	presence *presence.Registry
	watching watching
	asks     *asks
	tags     func() ([]string, error)
}

func newWorld(t *testing.T) (*world, context.Context) {
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
	authority, err := identity.Open(filepath.Join(t.TempDir(), "authority"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{store: s, presence: presence.New(), watching: watching{}, asks: &asks{}, tags: func() ([]string, error) { return []string{"1.0.0"}, nil }}
	w.Service = New(Config{Store: s, Conductor: w.asks, Spokes: w.presence, Watchers: w.watching, Authority: authority,
		Tags:    func(context.Context, fleet.Distribution) ([]string, error) { return w.tags() },
		Address: "hub.example.com:7443", Interval: 30 * time.Second, Heartbeat: 10 * time.Second, Log: log})
	return w, caller.With(t.Context(), admin)
}

// wantStatus checks an error's code and that its text holds every word.
func wantStatus(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Errorf("got %v, want %v: %s", s.Code(), code, s.Message())
	}
	for _, w := range words {
		if !strings.Contains(s.Message(), w) {
			t.Errorf("%q is not in: %s", w, s.Message())
		}
	}
}

func TestAddDistribution(t *testing.T) {
	w, ctx := newWorld(t)
	add := func(dry bool) (*fleetv1.AddDistributionResponse, error) {
		return w.AddDistribution(ctx, &fleetv1.AddDistributionRequest{DryRun: dry, Distribution: &fleetv1.Distribution{Name: "shop", Url: "https://example.com/shop.git"}})
	}
	if _, err := add(true); err != nil {
		t.Fatal(err)
	}
	if len(w.watching) != 0 {
		t.Error("a dry run began to watch")
	}
	r, err := add(false)
	if err != nil {
		t.Fatal(err)
	}
	if d := r.GetDistribution(); d.Path != "dist" || d.IntervalSeconds != 30 || len(d.Notes) != 0 || !w.watching["shop"] {
		t.Errorf("got %v", d)
	}
	_, err = add(false)
	wantStatus(t, err, codes.AlreadyExists, "shop", "hub distribution remove shop")

	list, err := w.ListDistributions(ctx, nil)
	if err != nil || len(list.Distributions) != 1 {
		t.Fatalf("got %v, %v", list, err)
	}
	if d := list.Distributions[0]; d.LastError != "no route to host" || d.LastPolled.AsTime() != time.Unix(7, 0).UTC() || len(d.Notes) != 1 {
		t.Errorf("got %v", d)
	}
	remove := func(name string, dry bool) error {
		_, err := w.RemoveDistribution(ctx, &fleetv1.RemoveDistributionRequest{Name: name, DryRun: dry})
		return err
	}
	wantStatus(t, remove("web", true), codes.NotFound, "web", "hub get distributions")
	wantStatus(t, remove("web", false), codes.NotFound, "web", "hub get distributions")
	if err := remove("shop", true); err != nil || !w.watching["shop"] {
		t.Errorf("dry run: %v, watching %v", err, w.watching)
	}
	if err := remove("shop", false); err != nil || w.watching["shop"] {
		t.Errorf("got %v, watching %v", err, w.watching)
	}
}

func TestSetSigners(t *testing.T) {
	w, ctx := newWorld(t)
	const anna = "anna@vendor.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGfzhZ5zkWAbCyC9eQCq0oYFqqQ7ngvOGkh5ZWYRWz0y"
	set := func(dry bool, threshold uint32, texts ...string) (*fleetv1.SetSignersResponse, error) {
		m := &fleetv1.Signers{Threshold: threshold}
		for _, text := range texts {
			m.Files = append(m.Files, &fleetv1.SignerFile{Name: "keys", Text: text})
		}
		return w.SetSigners(ctx, &fleetv1.SetSignersRequest{Distribution: "shop", Signers: m, DryRun: dry})
	}
	_, err := set(false, 1, anna)
	wantStatus(t, err, codes.NotFound, "shop", "hub get distributions")
	if _, err := w.AddDistribution(ctx, &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: "https://example.com/shop.git"}}); err != nil {
		t.Fatal(err)
	}
	for text, words := range map[string][]string{
		"nonsense": {"shop", "keys", "line 1"}, "# nobody": {"no signers"},
	} {
		_, err := set(false, 0, text)
		wantStatus(t, err, codes.InvalidArgument, words...)
	}
	_, err = set(false, 2, anna)
	wantStatus(t, err, codes.InvalidArgument, "threshold of 2 with 1 keys")
	_, err = set(false, 1)
	wantStatus(t, err, codes.InvalidArgument, "without keys")

	signers := func() *fleetv1.Signers {
		list, err := w.ListDistributions(ctx, nil)
		if err != nil || len(list.Distributions) != 1 {
			t.Fatalf("got %v, %v", list, err)
		}
		return list.Distributions[0].GetSigners()
	}
	if _, err := set(true, 0, anna); err != nil || signers() != nil {
		t.Errorf("dry run: %v, %v", err, signers())
	}
	r, err := set(false, 0, anna)
	if err != nil || len(r.GetSigners().GetKeys()) != 1 || signers().GetThreshold() != 1 || signers().GetFiles()[0].GetText() != anna || !w.watching["shop"] {
		t.Errorf("got %v, %v; kept %v", r, err, signers())
	}
	if _, err := set(false, 0); err != nil || signers() != nil {
		t.Errorf("nobody: %v, %v", err, signers())
	}
}

func TestSpokesHearOfADistributionThatComesOrGoes(t *testing.T) {
	w, ctx := newWorld(t)
	session := presencetest.Register(w.presence, "acme/eu-1")
	defer session.Close()
	woken := func(what string) {
		t.Helper()
		select {
		case <-session.Wake():
		default:
			t.Errorf("%s: the connected spoke was not woken", what)
		}
	}
	if err := w.store.PutRelease(fleet.Release{Distribution: "shop", Version: "2.0.0", Phase: fleet.Available, Digest: "sha256:aa"}, "h"); err != nil {
		t.Fatal(err)
	}
	r, err := w.AddDistribution(ctx, &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: "https://example.com/shop.git", Tags: "<2.0.0"}})
	if err != nil {
		t.Fatal(err)
	}
	if notes := r.GetDistribution().GetNotes(); len(notes) != 1 || !strings.Contains(notes[0], "watched before") {
		t.Errorf("got notes %q", notes)
	}
	woken("added")
	list, err := w.ListDistributions(ctx, nil)
	if err != nil || list.Distributions[0].Latest != "" {
		t.Errorf("out of range and latest: %v, %v", list, err)
	}
	if _, err := w.RemoveDistribution(ctx, &fleetv1.RemoveDistributionRequest{Name: "shop"}); err != nil {
		t.Fatal(err)
	}
	woken("removed")
}

func TestDistributionsThatAreRefused(t *testing.T) {
	w, ctx := newWorld(t)
	for _, c := range []struct {
		d    *fleetv1.Distribution
		word string
	}{
		{&fleetv1.Distribution{Name: "Shop", Url: "https://e.com/x"}, "distribution name"},
		{&fleetv1.Distribution{Name: "shop"}, "--git"},
		{&fleetv1.Distribution{Name: "shop", Url: "./shop"}, "absolute"},
		{&fleetv1.Distribution{Name: "shop", Url: "github.com/vendor/shop"}, "https://github.com/vendor/shop"},
		{&fleetv1.Distribution{Name: "shop", Url: "--upload-pack=x"}, "not a URL"},
		{&fleetv1.Distribution{Name: "shop", Url: "ext::sh -c x"}, ""},
		{&fleetv1.Distribution{Name: "shop", Url: "ftp://e.com/x"}, "scheme"},
		{&fleetv1.Distribution{Name: "shop", Url: "https://me:hunter2@e.com/x"}, "password"},
		{&fleetv1.Distribution{Name: "shop", Url: "https://e.com/x", Path: "../x"}, "path"},
		{&fleetv1.Distribution{Name: "shop", Url: "https://e.com/x", Path: "/x"}, "path"},
		{&fleetv1.Distribution{Name: "shop", Url: "https://e.com/x", Tags: "newest"}, "--tags"},
		{&fleetv1.Distribution{Name: "shop", Url: "https://e.com/x", IntervalSeconds: 1 << 30}, "--interval"},
	} {
		_, err := w.AddDistribution(ctx, &fleetv1.AddDistributionRequest{Distribution: c.d})
		wantStatus(t, err, codes.InvalidArgument, c.word)
		if strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	for _, url := range []string{"/srv/shop", "git@example.com:vendor/shop.git", "ssh://git@example.com/shop", "file:///srv/shop"} {
		if err := checkURL(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	good := &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: "https://e.com/x", Tags: ">=2.0.0"}}
	for cause, word := range map[error]string{gitrepo.ErrUnreachable: "hub distribution add shop", gitrepo.ErrEmpty: "push a commit", gitrepo.ErrNotFound: "correct --git", gitrepo.ErrTooLarge: "correct --git"} {
		w.tags = func() ([]string, error) { return nil, fmt.Errorf("list tags of https://e.com/x: %w", cause) }
		_, err := w.AddDistribution(ctx, good)
		wantStatus(t, err, codes.FailedPrecondition, "shop", "https://e.com/x", word)
	}
	for _, c := range []struct {
		tags []string
		word string
	}{{nil, "no tags yet"}, {[]string{"nightly", "v1"}, "none of 2 tags"}, {[]string{"nightly", "1.0.0"}, "none of 1 version tags is in range"}} {
		w.tags = func() ([]string, error) { return c.tags, nil }
		r, err := w.AddDistribution(ctx, &fleetv1.AddDistributionRequest{Distribution: good.Distribution, DryRun: true})
		if err != nil || len(r.Distribution.Notes) != 1 || !strings.Contains(r.Distribution.Notes[0], c.word) {
			t.Errorf("%v: got %v, %v", c.tags, r, err)
		}
	}
}

func TestReleases(t *testing.T) {
	w, ctx := newWorld(t)
	if err := w.store.AddDistribution(fleet.Distribution{Name: "shop", URL: "/srv/shop"}); err != nil {
		t.Fatal(err)
	}
	d := fleet.Digest("sha256:" + strings.Repeat("a", 64))
	for _, r := range []fleet.Release{
		{Version: "1.10.0", Phase: fleet.Rejected, Variants: []fleet.VariantResult{{Name: "app", Objects: 3, Reasons: []string{"image x:latest"}}}},
		{Version: "1.9.0", Phase: fleet.Available, Digest: d, Size: 10, Compressed: 5},
	} {
		r.Distribution = "shop"
		if err := w.store.PutRelease(r, "h"); err != nil {
			t.Fatal(err)
		}
	}
	join(t, w, "acme/eu-1")
	if err := w.store.Hello("acme/eu-1", "dev", "v1", []fleet.Installation{{Distribution: "shop", Running: "1.9.0"}}); err != nil {
		t.Fatal(err)
	}
	list, err := w.ListReleases(ctx, &fleetv1.ListReleasesRequest{})
	if err != nil || len(list.Releases) != 2 || list.Releases[0].Version != "1.9.0" || !slices.Equal(list.Releases[0].RunningOn, []string{"acme/eu-1"}) {
		t.Fatalf("got %v, %v", list, err)
	}
	if v := list.Releases[1].Variants; len(v) != 1 || v[0].Objects != 3 || v[0].Reasons[0] != "image x:latest" {
		t.Errorf("got %v", v)
	}
	one, err := w.GetRelease(ctx, &fleetv1.GetReleaseRequest{Distribution: "shop", Version: "1.9.0"})
	if err != nil || one.Release.CompressedSize != 5 || one.Release.Digest != string(d) {
		t.Errorf("got %v, %v", one, err)
	}
	all, err := w.ListDistributions(ctx, nil)
	if err != nil || all.Distributions[0].Latest != "1.9.0" || all.Distributions[0].ReleasesAvailable != 1 || all.Distributions[0].ReleasesRejected != 1 {
		t.Errorf("got %v, %v", all, err)
	}
	_, err = w.GetRelease(ctx, &fleetv1.GetReleaseRequest{Distribution: "shop", Version: "9.0.0"})
	wantStatus(t, err, codes.NotFound, "9.0.0", "hub get releases shop")
	_, err = w.GetRelease(ctx, &fleetv1.GetReleaseRequest{Distribution: "web", Version: "9.0.0"})
	wantStatus(t, err, codes.NotFound, "web", "hub get distributions")
	_, err = w.ListReleases(ctx, &fleetv1.ListReleasesRequest{Distribution: "web"})
	wantStatus(t, err, codes.NotFound, "web")
	_, err = w.GetStatus(ctx, &fleetv1.GetStatusRequest{Distribution: "web"})
	wantStatus(t, err, codes.NotFound, "web")
}

// join redeems a token as EnrollService does.
func join(t *testing.T, w *world, name fleet.Cluster) {
	t.Helper()
	r, err := w.InviteCluster(caller.With(t.Context(), admin), &fleetv1.InviteClusterRequest{Name: string(name), AcceptAutomatically: true})
	if err != nil {
		t.Fatal(err)
	}
	redeem(t, w, r.GetToken())
}

func redeem(t *testing.T, w *world, given string) {
	t.Helper()
	tok, err := token.Parse(given)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(fleet.Cluster) (store.Certificate, error) {
		return store.Certificate{Fingerprint: [32]byte{1}, NotAfter: time.Now().Add(time.Hour)}, nil
	}
	if _, err := w.store.Redeem(tok.ID, tok.Hash(), fleet.Fingerprint{}, time.Now(), issue); err != nil {
		t.Fatal(err)
	}
}

func TestClusters(t *testing.T) {
	w, ctx := newWorld(t)
	r, err := w.InviteCluster(ctx, &fleetv1.InviteClusterRequest{Name: "acme/eu-1", Labels: map[string]string{"env": "dev"}})
	if err != nil || r.Rejoin || r.Address != "hub.example.com:7443" || time.Until(r.Expires.AsTime()) > 10*time.Minute {
		t.Fatalf("got %v, %v", r, err)
	}
	if tok, err := token.Parse(r.Token); err != nil || tok.Pin != w.cfg.Authority.Pin() {
		t.Errorf("got %v, %v", tok.Pin, err)
	}
	join(t, w, "acme/eu-1")
	if r, err := w.InviteCluster(ctx, &fleetv1.InviteClusterRequest{Name: "acme/eu-1", TtlSeconds: 60}); err != nil || !r.Rejoin {
		t.Errorf("rejoin: got %v, %v", r, err)
	}
	session := presencetest.Register(w.presence, "acme/eu-1")
	list, err := w.ListClusters(ctx, nil)
	if err != nil || len(list.Clusters) != 1 || !list.Clusters[0].Connected || list.Clusters[0].Joined == nil || list.Clusters[0].LastSeen == nil {
		t.Fatalf("got %v, %v", list, err)
	}
	remove := func(dry bool) error {
		_, err := w.RemoveCluster(ctx, &fleetv1.RemoveClusterRequest{Name: "acme/eu-1", DryRun: dry})
		return err
	}
	if err := remove(true); err != nil || !w.presence.Connected("acme/eu-1") {
		t.Errorf("dry run: %v", err)
	}
	if err := remove(false); err != nil {
		t.Fatal(err)
	}
	<-session.Done()
	wantStatus(t, remove(false), codes.NotFound, "acme/eu-1", "hub get clusters")
	wantStatus(t, remove(true), codes.NotFound, "acme/eu-1", "hub get clusters")

	history, err := w.ListEvents(ctx, &fleetv1.ListEventsRequest{Cluster: "acme/eu-1"})
	if err != nil || len(history.Events) < 4 {
		t.Fatalf("got %v, %v", history, err)
	}
	last := history.Events[len(history.Events)-1]
	if last.Kind != "Removed" || !strings.HasPrefix(last.Message, "operator admin removed the cluster") {
		t.Errorf("got %v", last)
	}
	if newer, err := w.ListEvents(ctx, &fleetv1.ListEventsRequest{AfterId: last.Id}); err != nil || len(newer.Events) != 0 {
		t.Errorf("got %v, %v", newer, err)
	}
}

func TestInvitationsThatAreRefused(t *testing.T) {
	w, ctx := newWorld(t)
	for _, c := range []struct {
		req  *fleetv1.InviteClusterRequest
		word string
	}{
		{&fleetv1.InviteClusterRequest{Name: "acme"}, "PROVIDER/NAME"},
		{&fleetv1.InviteClusterRequest{Name: "acme/eu-1", TtlSeconds: 601, AcceptAutomatically: true}, "10m"},
		{&fleetv1.InviteClusterRequest{Name: "acme/eu-1", TtlSeconds: 7*24*3600 + 1}, "168h"},
		{&fleetv1.InviteClusterRequest{Name: "acme/eu-1", Labels: map[string]string{"a b": "c"}}, "label"},
		{&fleetv1.InviteClusterRequest{Name: "acme/eu-1", Labels: map[string]string{"a": "\x1b[2J"}}, "label"},
	} {
		_, err := w.InviteCluster(ctx, c.req)
		wantStatus(t, err, codes.InvalidArgument, c.word)
	}
	if list, err := w.ListClusters(ctx, nil); err != nil || len(list.Clusters) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
}

func TestPreflights(t *testing.T) {
	w, ctx := newWorld(t)
	add := func(seconds uint32) error {
		_, err := w.AddDistribution(ctx, &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: "/srv/shop", PreflightSeconds: seconds}})
		return err
	}
	wantStatus(t, add(86401), codes.InvalidArgument, "--preflight 24h0m1s", "24h")
	if err := add(30); err != nil {
		t.Fatal(err)
	}
	list, err := w.ListDistributions(ctx, nil)
	if err != nil || list.Distributions[0].PreflightSeconds != 30 {
		t.Errorf("got %v, %v", list, err)
	}
	d := fleet.Digest("sha256:" + strings.Repeat("a", 64))
	if err := w.store.PutRelease(fleet.Release{Distribution: "shop", Version: "2.0.0", Phase: fleet.Available, Digest: d}, "h"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []fleet.Cluster{"acme/us-1", "acme/eu-1", "acme/other"} {
		if _, err := w.store.Invite(c, nil, string(c), [32]byte{}, time.Now()); err != nil {
			t.Fatal(err)
		}
		subscribed := fleet.Installation{Distribution: "shop", Running: "1.0.0", Phase: fleet.Succeeded}
		if c == "acme/other" {
			subscribed.Distribution = "bank"
		}
		if err := w.store.Hello(c, "v1", "v1.33", []fleet.Installation{subscribed}); err != nil {
			t.Fatal(err)
		}
	}
	defer presencetest.Register(w.presence, "acme/us-1").Close()
	p := fleet.Preflight{Version: "2.0.0", Bundle: d, Outcome: fleet.OutcomeBreaks, Reason: "no such patch target", At: time.Now().Add(-time.Minute)}
	if _, err := w.store.RecordEvents("acme/us-1", "j", []fleet.Event{{Seq: 1, At: p.At, Kind: fleet.EventPreflight, Distribution: "shop", Version: "2.0.0", Preflight: &p}}); err != nil {
		t.Fatal(err)
	}
	r, err := w.GetRelease(ctx, &fleetv1.GetReleaseRequest{Distribution: "shop", Version: "2.0.0"})
	if err != nil || len(r.Clusters) != 2 || r.At == nil || r.Release.PreflightUntil.AsTime() != time.Unix(8, 0).UTC() {
		t.Fatalf("got %v, %v", r, err)
	}
	eu, us := r.Clusters[0], r.Clusters[1]
	if eu.Cluster != "acme/eu-1" || eu.Preflight != nil || eu.Connected || eu.RunningVersion != "1.0.0" {
		t.Errorf("got %v", eu)
	}
	if !us.Connected || us.Preflight.GetReason() != "no such patch target" || us.PreflightAgeSeconds < 60 || us.PreflightAgeSeconds > 90 || us.Phase != "Succeeded" {
		t.Errorf("got %v", us)
	}
	history, err := w.ListEvents(ctx, &fleetv1.ListEventsRequest{Cluster: "acme/us-1"})
	if err != nil || len(history.Events) != 1 || history.Events[0].Kind != "Preflight" {
		t.Errorf("got %v, %v", history, err)
	}
}
