package agent

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// idle is an agent that does nothing, on a folder.
func idle(t *testing.T, dir string) (*Agent, *journal.Journal) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	j, err := journal.Open(filepath.Join(t.TempDir(), "journal.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	a, err := New(Config{Dir: dir, Memory: j, Offers: j, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return a, j
}

func TestHeldIsWhatRunsThenTheNewest(t *testing.T) {
	a, j := idle(t, t.TempDir())
	tars := map[string][]byte{}
	of := func(name string) fleet.Digest {
		tars[name] = []byte(name)
		return bundle.DigestOf(tars[name])
	}
	offer := func(names ...string) *syncv1.DistributionOffers {
		o := &syncv1.DistributionOffers{Distribution: names[0]}
		for _, v := range names[1:] {
			o.Offers = append(o.Offers, &syncv1.Offer{Version: v, Digest: string(of(names[0] + v))})
		}
		return o
	}
	shop := offer("shop", "1.9.0", "1.10.0", "1.11.0", "2.0.0", "2.1.0")
	// What a hub may say is no file's name.
	shop.Offers = append(shop.Offers, &syncv1.Offer{Version: "3.0.0", Digest: "sha256:../../../x"})
	if err := a.SetDesired(&syncv1.DesiredState{Revision: 1, Distributions: []*syncv1.DistributionOffers{offer("bank", "1.0.0", "1.1.0"), shop}}); err != nil {
		t.Fatal(err)
	}
	for _, r := range []journal.Record{
		{Distribution: "bank", Installation: fleet.Installation{Distribution: "bank", Bundle: of("bank1.0.0")}},
		{Distribution: "shop", Installation: fleet.Installation{Distribution: "shop", Bundle: of("shop1.9.0")},
			Previous: []journal.Release{{Bundle: of("shop1.8.0")}, {Bundle: of("shop1.7.0")}}},
	} {
		if err := j.PutRecord(r); err != nil {
			t.Fatal(err)
		}
	}
	for name, tar := range tars {
		if name == "shop1.11.0" || name == "shop1.7.0" || name == "shop2.1.0" {
			continue // not in the cache
		}
		if err := a.cache.put(bundle.DigestOf(tar), tar); err != nil {
			t.Fatal(err)
		}
	}
	want := []fleet.Digest{of("shop1.9.0"), of("shop2.0.0"), of("shop1.10.0"), of("shop1.8.0")}
	if got := a.Held(of("shop2.1.0")); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := a.Held(of("nothing on offer")); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	for _, d := range want {
		if tar, err := a.Tar(d); err != nil || bundle.DigestOf(tar) != d {
			t.Errorf("%s: %d bytes, %v", d, len(tar), err)
		}
	}
	// A damaged one is no base, and is not offered again.
	if err := os.WriteFile(a.cache.path(want[0]), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Tar(want[0]); !errors.Is(err, errDamaged) {
		t.Errorf("got %v", err)
	}
	if got := a.Held(of("shop2.1.0")); !slices.Equal(got, want[1:]) {
		t.Errorf("got %v, want %v", got, want[1:])
	}
}
