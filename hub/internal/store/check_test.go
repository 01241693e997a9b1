package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/rollout"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

// furnished has a record of nearly every kind.
func furnished(t *testing.T) (s *Store, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "hub.db")
	s, err := Open(path, discard)
	must(t, err)
	m := enter(t, s, false)
	must(t, m.session(1))
	must(t, s.AddDistribution(fleet.Distribution{Name: "shop", URL: "u"}))
	must(t, s.PutRelease(release("1.0.0", fleet.Available, digest("a")), "h"))
	must(t, s.Hello(eu, "v1", "v1.33", []fleet.Installation{installation("1.0.0", start)}))
	i := installation("1.1.0", time.Now())
	_, err = s.RecordEvents(eu, "j", []fleet.Event{
		{Seq: 1, Kind: fleet.EventPhase, Distribution: "shop", Installation: &i},
		{Seq: 2, Kind: fleet.EventPreflight, Distribution: "shop", Preflight: &fleet.Preflight{Version: "1.0.0", Outcome: fleet.OutcomeOk}},
		{Seq: 3, Kind: fleet.EventAgent},
	})
	must(t, err)
	r, err := newRollout(s, rollout.State{Distribution: "shop", Version: "1.0.0", Plan: plan.Default(), Phase: fleet.RolloutProgressing}, nil, byAdmin)
	must(t, err)
	r.Members = map[fleet.Cluster]rollout.Member{eu: {Mark: fleet.MarkDone, Since: start}}
	must(t, s.SaveRollout(r, []fleet.Cluster{eu}, nil, byAdmin))
	must(t, s.PutPin(fleet.HubPin{Cluster: eu, Distribution: "shop", Version: "1.0.0"}, fleet.Event{Kind: fleet.EventPinned, Cluster: eu}, byAdmin))
	must(t, s.PutDecision(fleet.HubDecision{Cluster: eu, Distribution: "shop", Version: "1.0.0"}, fleet.Event{Kind: fleet.EventDecided, Cluster: eu}, byAdmin))
	return s, path
}

func problems(r Report) (all []string) {
	for _, f := range r.Findings {
		for _, p := range f.Problems {
			all = append(all, f.Part+": "+p)
		}
	}
	return all
}

func TestACheckFindsASoundStoreSound(t *testing.T) {
	s, path := furnished(t)
	_, err := Check(path)
	wantErr(t, err, ErrLocked, path)
	must(t, s.Close())
	before, err := os.ReadFile(path)
	must(t, err)
	r, err := Check(path)
	must(t, err)
	if p := problems(r); p != nil || len(r.Findings) < 30 {
		t.Errorf("%d findings, problems %q", len(r.Findings), p)
	}
	same(t, "bundles that are needed", r.Bundles, []Bundle{{Digest: digest("a"), Release: "shop 1.0.0"}})
	after, err := os.ReadFile(path)
	must(t, err)
	if !slices.Equal(before, after) {
		t.Error("the check changed the file")
	}
	missing := filepath.Join(t.TempDir(), "none.db")
	if _, err := Check(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("the check made a file")
	}
}

// Each kind of damage that pages and records can have while every page is readable is found, and named.
func TestACheckNamesWhatIsDamaged(t *testing.T) {
	drop := func(bucket []byte, key string) func(*txn) error {
		return func(tx *txn) error { return tx.Bucket(bucket).Delete([]byte(key)) }
	}
	write := func(bucket []byte, key, value string) func(*txn) error {
		return func(tx *txn) error { return tx.Bucket(bucket).Put([]byte(key), []byte(value)) }
	}
	first := func(bucket []byte, do func(b *bolt.Bucket, k, v []byte) error) func(*txn) error {
		return func(tx *txn) error {
			k, v := tx.Bucket(bucket).Cursor().First()
			return do(tx.Bucket(bucket), k, slices.Clone(v))
		}
	}
	flip := func(b *bolt.Bucket, k, v []byte) error {
		v[len(v)/2] ^= 1
		return b.Put(k, v)
	}
	for name, c := range map[string]struct {
		damage func(*txn) error
		want   string
	}{
		"a record":               {write(bucketPins, "acme/eu-1\x00shop", "{"), "records of pins: \"acme/eu-1 shop\""},
		"a role":                 {write(bucketOperators, "ada", `{"role":"god"}`), "records of operators: \"ada\""},
		"a cluster":              {drop(bucketClusters, string(eu)), "clusters of installations: \"acme/eu-1\": cluster acme/eu-1 is not there"},
		"a certificate":          {first(bucketIdentities, func(b *bolt.Bucket, k, _ []byte) error { return b.Delete(k) }), "certificates of clusters: "},
		"a list of certificates": {first(bucketFingerprints, func(b *bolt.Bucket, k, _ []byte) error { return b.Delete(k) }), "holders of certificates: "},
		"a release":              {drop(bucketReleases, "shop\x001.0.0"), "releases of digests: "},
		"an index":               {drop(bucketDigests, string(digest("a"))), "digests of releases: \"shop 1.0.0\""},
		"a rollout":              {first(bucketRollouts, func(b *bolt.Bucket, k, _ []byte) error { return b.Delete(k) }), "rollouts of members: "},
		"an event":               {drop(bucketEvents, string(number(3))), "order of events: \"4\": the one before it is missing"},
		"a link": {first(bucketEvents, func(b *bolt.Bucket, _, _ []byte) error {
			return put(b, number(6), eventRecord{Cluster: eu, Kind: "Phase"})
		}), "order of events: \"6\": it names"},
		"the beginning of a chain": {write([]byte(bucketHeads), clusterChain(eu), string(number(1))), "newest events: "},
		"a chain":                  {drop([]byte(bucketHeads), clusterChain(eu)), "lists of events: \"acme/eu-1\""},
		"a health": {write(bucketJournals, string(eu)+"\x00j", `{"acked":3,"health":[{"distribution":"bank","health":"Healthy"}]}`),
			"health in journals: \"acme/eu-1 j\": it has that of bank"},
		"a health in two": {func(tx *txn) error {
			for _, j := range []string{"j", "k"} {
				if err := write(bucketJournals, string(eu)+"\x00"+j, `{"acked":3,"health":[{"distribution":"shop","health":"Healthy"}]}`)(tx); err != nil {
					return err
				}
			}
			return nil
		}, "health in journals: \"acme/eu-1 k\": another journal"},
		"the audit": {first(bucketAudit, flip), "chain of the audit: entry 1: "},
		"a bucket":  {func(tx *txn) error { return tx.DeleteBucket(bucketPins) }, "buckets: bucket pins is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			s, path := furnished(t)
			must(t, s.update(c.damage))
			must(t, s.Close())
			r, err := Check(path)
			must(t, err)
			if found := problems(r); !slices.ContainsFunc(found, func(p string) bool { return strings.HasPrefix(p, c.want) }) {
				t.Errorf("found %q, want one that begins with %q", found, c.want)
			}
		})
	}
}

func TestASnapshotIsTheStoreOfItsMoment(t *testing.T) {
	s, _ := furnished(t)
	defer func() { must(t, s.Close()) }()
	snap, err := s.Snapshot()
	must(t, err)
	defer func() { must(t, snap.Close()) }()
	_, err = s.RecordEvents(eu, "j", []fleet.Event{{Seq: 4, Kind: fleet.EventAgent}}) // while it is read
	must(t, err)
	path := filepath.Join(t.TempDir(), "hub.db")
	f, err := os.Create(path)
	must(t, err)
	n, err := io.Copy(f, snap)
	must(t, err)
	must(t, f.Close())
	same(t, "size", n, snap.Size)
	r, err := Check(path)
	must(t, err)
	if p := problems(r); p != nil {
		t.Errorf("problems %q", p)
	}
	restored, err := Open(path, discard)
	must(t, err)
	defer func() { must(t, restored.Close()) }()
	acked, err := restored.AckedSeq(eu, "j")
	must(t, err)
	same(t, "acknowledged", acked, uint64(3))
}

// What is compacted is what was there, and what a kill leaves on the way is in nobody's way.
func TestAFileThatIsMostlyFreeIsWrittenAnew(t *testing.T) {
	s, path := furnished(t)
	must(t, s.update(func(tx *txn) error {
		for range 3000 {
			if err := appendEvent(tx, fleet.Event{At: start, Cluster: us, Kind: fleet.EventAgent, Message: strings.Repeat("x", 1000)}); err != nil {
				return err
			}
		}
		return nil
	}))
	s.Keep(History{Events: 10})
	must(t, s.Tidy(time.Now()))
	before := s.Stats()
	must(t, s.Close())
	must(t, os.WriteFile(path+".compact", []byte("of one that was killed"), 0o600))

	db, err := openChecked(path)
	must(t, err)
	want := contents(t, db)
	db, err = lean(db, 1<<20, discard)
	must(t, err)
	same(t, "contents", contents(t, db), want)
	must(t, db.Close())
	s, err = Open(path, discard)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	if after := s.Stats(); before.Free < before.Size/2 || after.Size > before.Size/4 {
		t.Errorf("%d bytes, %d of them free; then %d bytes", before.Size, before.Free, after.Size)
	}
	if leftovers, _ := filepath.Glob(path + ".*"); len(leftovers) > 0 {
		t.Errorf("left over: %q", leftovers)
	}
	if e, err := s.Events(EventFilter{Cluster: string(us)}); err != nil || len(e) != 10 || e[9].ID < 3000 {
		t.Errorf("events %v, %v", e, err)
	}
	must(t, s.AppendEvent(fleet.Event{Kind: fleet.EventAgent}))
}

// contents are all keys and values, with the numbers that buckets count on from.
func contents(t *testing.T, db *bolt.DB) (all []string) {
	t.Helper()
	must(t, db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			all = append(all, fmt.Sprintf("%s %d", name, b.Sequence()))
			return b.ForEach(func(k, v []byte) error {
				all = append(all, fmt.Sprintf("%s %x %x", name, k, v))
				return nil
			})
		})
	}))
	return all
}
