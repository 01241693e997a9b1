package hub

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// Years of releases still reach a spoke in one message, and an operator in one answer.
func TestAHistoryOfThousandsOfReleases(t *testing.T) {
	const available, rejected = 1000, 30
	v := newVendor(t)
	v.tag(t, "1.0.0", "example.com/backend:1.0.0")
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(filepath.Join(dir, storeFile), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	variants := []fleet.VariantResult{{Name: "app-istio", Objects: 15}, {Name: "app-kubernetes", Objects: 15}, {Name: "app-linkerd", Objects: 15}}
	for i := range available {
		r := fleet.Release{Distribution: "shop", Version: fmt.Sprintf("1.%d.%d", 1+i/100, i%100), Phase: fleet.Available, Variants: variants,
			Digest: fleet.Digest(fmt.Sprintf("sha256:%064x", i)), Commit: strings.Repeat("a", 40), Size: 60_000}
		if err := s.PutRelease(r, r.Commit); err != nil {
			t.Fatal(err)
		}
	}
	for i := range rejected {
		r := fleet.Release{Distribution: "shop", Version: fmt.Sprintf("2.0.%d", i), Phase: fleet.Rejected}
		for range 1000 {
			r.Reasons = append(r.Reasons, strings.Repeat("a long reason ", 15))
		}
		if err := s.PutRelease(r, "h"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	hub := start(t, Config{Dir: dir})
	if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir, IntervalSeconds: 3600}}); err != nil {
		t.Fatal(err)
	}
	list, err := hub.fleet.ListReleases(t.Context(), &fleetv1.ListReleasesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(list.GetReleases()); n < available+rejected {
		t.Errorf("%d releases listed", n)
	}
	if size := proto.Size(list); size < transport.MaxMessage {
		t.Errorf("the answer has only %d bytes: this tests nothing", size)
	}
	hub.eventually(t, "their rollouts, which begin all at once", func() bool {
		_, err := hub.fleet.GetRollout(t.Context(), &fleetv1.GetRolloutRequest{Distribution: "shop", Version: "1.1.0"})
		return err == nil
	})
	stream, _ := hub.dial(t, hub.enrol(t, "acme/eu-1")).connect(t, 0)
	state := hear(t, stream).GetDesired()
	if n := len(state.GetDistributions()[0].GetOffers()); n < available {
		t.Errorf("%d offers", n)
	}
	size := proto.Size(state) * 5000 / available
	t.Logf("5000 offers are %d bytes", size)
	if size > transport.MaxMessage/4 {
		t.Errorf("%d bytes for 5000 offers leave little room below %d", size, transport.MaxMessage)
	}
}
