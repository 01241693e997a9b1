package store

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// bytesOf are the values of a cluster in a bucket, by their keys.
func bytesOf(t *testing.T, s *Store, bucket []byte, cluster fleet.Cluster) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, v []byte) error {
			if name, _, _ := strings.Cut(string(k), "\x00"); name == string(cluster) {
				all[string(k)] = string(v)
			}
			return nil
		})
	}))
	return all
}

func health(seq uint64, i fleet.Installation) []fleet.Event {
	return []fleet.Event{{Seq: seq, At: i.ObservedAt, Kind: fleet.EventHealth, Distribution: i.Distribution, Version: i.Running, Installation: &i}}
}

// Where only health changes, one record of the cluster is written, and it is there after a restart.
func TestHealthIsWrittenWithTheJournal(t *testing.T) {
	s, reopen := fresh(t)
	invite(t, s, eu, "t", start)
	shop, bank := installation("1.0.0", start), installation("1.0.0", start)
	bank.Distribution = "bank"
	must(t, s.Hello(eu, "v1", "v1.33", []fleet.Installation{shop, bank}))
	whole := bytesOf(t, s, bucketInstallations, eu)

	shop.Health, shop.HealthMessage, shop.Ready, shop.ObservedAt = fleet.Degraded, "one is gone", shop.Ready-1, start.Add(time.Minute)
	bank.Health, bank.DriftMessage, bank.ObservedAt = fleet.Degraded, "somebody's", start.Add(2*time.Minute)
	for n, i := range []fleet.Installation{shop, bank} {
		_, err := s.RecordEvents(eu, "j", health(uint64(n+1), i))
		must(t, err)
	}
	told := func(when string) {
		t.Helper()
		for _, want := range []fleet.Installation{shop, bank} {
			got, _ := s.Installation(eu, want.Distribution)
			same(t, when, got, want)
		}
	}
	told("at once")
	same(t, "the installations' own record", bytesOf(t, s, bucketInstallations, eu), whole)
	s = reopen()
	told("after a restart")

	shop.Running, shop.Phase, shop.ObservedAt = "1.1.0", fleet.Succeeded, start.Add(3*time.Minute)
	e := health(3, shop)
	e[0].Kind = fleet.EventPhase
	_, err := s.RecordEvents(eu, "j", e)
	must(t, err)
	told("after a delivery")
	for key, record := range bytesOf(t, s, bucketJournals, eu) {
		if strings.Contains(record, "health") {
			t.Errorf("journal %q has health that is in the installations' record: %s", key, record)
		}
	}
	s = reopen()
	told("after a delivery and a restart")
}

// Whatever comes in whichever order of whichever journals: what memory has is what a new process reads, and a check is
// content.
func TestHealthInJournalsIsThatOfMemory(t *testing.T) {
	for seed := range uint64(6) {
		path := filepath.Join(t.TempDir(), "hub.db")
		s, err := Open(path, discard)
		must(t, err)
		random, now, seqs := rand.New(rand.NewPCG(seed, 1)), start, map[string]uint64{}
		invite(t, s, eu, "t", start)
		said := func() fleet.Installation {
			i := installation("1.0.0", now)
			i.Distribution = []string{"shop", "bank", "mint"}[random.IntN(3)]
			i.Health, i.Ready = []fleet.Health{fleet.Healthy, fleet.Degraded}[random.IntN(2)], random.IntN(9)
			if known, found := s.Installation(eu, i.Distribution); found {
				i.Running, i.PhaseSince = known.Running, known.PhaseSince
			}
			return i
		}
		steps := []func() string{
			func() string {
				journal := fmt.Sprint("j", random.IntN(maxJournals+2))
				var all []fleet.Event
				for range 1 + random.IntN(3) {
					i := said()
					if random.IntN(5) == 0 {
						i.Running = fmt.Sprint("1.0.", random.IntN(9))
					}
					seqs[journal]++
					all = append(all, health(seqs[journal], i)...)
				}
				_, err := s.RecordEvents(eu, journal, all)
				must(t, err)
				return fmt.Sprintf("%d events of %s", len(all), journal)
			},
			func() string {
				journal := fmt.Sprint("j", random.IntN(maxJournals+2))
				seqs[journal]++
				_, err := s.RecordEvents(eu, journal, []fleet.Event{{Seq: seqs[journal], At: now, Kind: fleet.EventAgent}})
				must(t, err)
				return "an event of no installation of " + journal
			},
			func() string {
				must(t, s.Hello(eu, fmt.Sprint("v", random.IntN(3)), "v1.33", []fleet.Installation{said()}))
				return "a hello"
			},
			func() string {
				must(t, s.Heard(map[fleet.Cluster]time.Time{eu: now}))
				return "heard"
			},
			func() string {
				must(t, s.RemoveCluster(eu))
				invite(t, s, eu, fmt.Sprint("t", now.Unix()), start)
				return "removed and invited"
			},
		}
		var done []string
		for step := range 120 {
			now = now.Add(time.Second)
			n := 0
			if step%4 == 3 {
				n = random.IntN(len(steps))
			}
			done = append(done, steps[n]())
			if step%10 != 9 {
				continue
			}
			want := slices.Clone(s.memory.installations.rows[eu])
			must(t, s.Close())
			r, err := Check(path)
			must(t, err)
			if p := problems(r); p != nil {
				t.Fatalf("seed %d, after %q: problems %q", seed, done, p)
			}
			s, err = Open(path, discard)
			must(t, err)
			if got := s.memory.installations.rows[eu]; !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, after %q:\n got %+v\nwant %+v", seed, done, got, want)
			}
		}
		must(t, s.Close())
	}
}

// A file of schema 5 has health in the installations' records only, and is read; its hub does not read one of now.
func TestAFileOfBeforeHealthWasInJournalsIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s, err := open(path, discard, steps()[:4])
	must(t, err)
	invite(t, s, eu, "t", start)
	i := installation("1.0.0", start)
	must(t, s.update(func(tx *txn) error {
		for bucket, value := range map[string]string{string(bucketInstallations): string(eu), string(bucketJournals): string(eu) + "\x00j"} {
			var record any = []installationRecord{*installationRecordOf(&i)}
			if bucket == string(bucketJournals) {
				record = journalRecord{Acked: 1, At: start}
			}
			if err := put(tx.Bucket([]byte(bucket)), []byte(value), record); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.Close())
	s, err = Open(path, discard)
	must(t, err)
	got, _ := s.Installation(eu, "shop")
	same(t, "of before", got, i)
	i.Health, i.ObservedAt = fleet.Degraded, start.Add(time.Second)
	_, err = s.RecordEvents(eu, "j", health(2, i))
	must(t, err)
	must(t, s.Close())
	_, err = open(path, discard, steps()[:4])
	wantErr(t, err, ErrNewerSchema, path)
	s, err = Open(path, discard)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	got, _ = s.Installation(eu, "shop")
	same(t, "of now", got, i)
}
