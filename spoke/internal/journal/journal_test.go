package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

const childPath = "JOURNAL_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		appendForEver(path)
	}
	os.Exit(m.Run())
}

// appendForEver is the child of the durability test: it prints each number once it is acknowledged.
func appendForEver(path string) {
	j, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open", j.ID())
	for i := 0; ; i++ {
		ev := fleet.Event{At: time.Now(), Kind: fleet.EventPhase, Distribution: "shop", Message: strings.Repeat("x", i%3000)}
		if i%3 == 0 {
			err = j.PutRecord(Record{Distribution: "shop", Manifest: bytes.Repeat([]byte{byte(i)}, 40_000), Installation: fleet.Installation{Objects: i}}, ev)
			if err == nil {
				continue
			}
		}
		seq, err := j.Append(ev)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(seq)
	}
}

func opened(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func reopen(t *testing.T, j *Journal) *Journal {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return opened(t, j.path)
}

// Law 9.
func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	id, acked := "", uint64(0)
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childPath+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if got, ok := strings.CutPrefix(lines.Text(), "open "); ok {
				if id != "" && got != id {
					t.Errorf("round %d: another journal", round)
				}
				id = got
				continue
			}
			seq, err := strconv.ParseUint(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("child says %s", lines.Text())
			}
			acked = seq
			if n == 20+7*round {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
	}
	j := opened(t, path)
	if j.SetAside() != "" || j.ID() != id {
		t.Fatalf("the journal was set aside to %q", j.SetAside())
	}
	events, err := j.Pending(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if uint64(len(events)) < acked {
		t.Errorf("%d events, %d were acknowledged", len(events), acked)
	}
	for i, e := range events {
		if e.Seq != uint64(i+1) {
			t.Fatalf("event %d has number %d: a gap", i, e.Seq)
		}
	}
	r, found, err := j.Record("shop")
	if err != nil || !found {
		t.Fatal(found, err)
	}
	if r.Manifest[0] != byte(r.Installation.Objects) {
		t.Error("the record's set is of another record")
	}
}

func TestEvents(t *testing.T) {
	j := opened(t, filepath.Join(t.TempDir(), "journal.db"))
	at := time.Unix(1700000000, 0).UTC()
	inst := fullInstallation()
	for i := range 5 {
		seq, err := j.Append(fleet.Event{Seq: 99, ID: 99, At: at, Kind: fleet.EventPhase, Distribution: "shop", Version: "1.0.0", Message: "m", Installation: &inst})
		if err != nil || seq != uint64(i+1) {
			t.Fatal(seq, err)
		}
	}
	select {
	case <-j.Notify():
	default:
		t.Error("no word of new events")
	}
	got, err := j.Pending(2, 2)
	if err != nil {
		t.Fatal(err)
	}
	want := fleet.Event{Seq: 3, At: at, Kind: fleet.EventPhase, Distribution: "shop", Version: "1.0.0", Message: "m", Installation: &inst}
	if len(got) != 2 || !reflect.DeepEqual(got[0], want) || got[1].Seq != 4 {
		t.Errorf("got %+v", got)
	}
	if err := j.Ack(4); err != nil {
		t.Fatal(err)
	}
	j = reopen(t, j)
	if got, _ := j.Pending(0, 0); len(got) != 1 || got[0].Seq != 5 {
		t.Errorf("after Ack(4): %+v", got)
	}
	if err := j.Ack(5); err != nil {
		t.Fatal(err)
	}
	j = reopen(t, j)
	if seq, err := j.Append(fleet.Event{Kind: fleet.EventAgent}); err != nil || seq != 6 {
		t.Errorf("numbering after a restart with nothing pending: %d, %v", seq, err)
	}
	if err := j.Ack(40); err != nil {
		t.Fatal(err)
	}
	if seq, _ := j.Append(fleet.Event{Kind: fleet.EventAgent}); seq != 41 {
		t.Errorf("after an acknowledgement from the future: %d, want 41", seq)
	}
}

func fullInstallation() fleet.Installation {
	d := fleet.Digest("sha256:" + strings.Repeat("a", 64))
	at := time.Unix(1700000001, 5).UTC()
	return fleet.Installation{
		Distribution: "shop", Variant: "app-istio", Namespace: "shop", Policy: fullPolicy(),
		Running: "1.0.0", Bundle: d, Overlay: d, Rendered: d, Phase: fleet.RolledBack, Target: "1.1.0", Reason: "r", PhaseSince: at,
		Health: fleet.Healthy, HealthMessage: "m", Objects: 24, Ready: 23, DriftCorrected: 2, Drifted: 3, DriftMessage: "d", ObservedAt: at, Wants: "1.0.0", Would: "1.2.0", Declined: true,
		SignedBy: []string{"release@example.com"}, Alarm: "TagMoved: 1.1.0", Channel: &fleet.Channel{Sequence: 3, Latest: "1.1.0", Issued: at, Expires: at},
		Canary: &fleet.Canary{Step: 2, Steps: 5, Held: true, Gate: fleet.GateIncrease, Traffic: []fleet.Traffic{{Service: "backend", Weight: 33, Mirror: 10, Matches: true}, {Service: "web"}}},
	}
}

func fullPolicy() fleet.Policy {
	windows, err := fleet.ParseWindows([]string{"Mon-Fri 22:00-04:00 Europe/Berlin", "daily 01:00-03:00 UTC"})
	if err != nil {
		panic(err)
	}
	return fleet.Policy{Range: "1.x", Prereleases: true, Patch: fleet.Automatic, Minor: fleet.AskFirst, Major: fleet.NeverTaken, Windows: windows,
		Pin:     &fleet.Pin{Version: "1.0.0", Reason: "audit", Source: fleet.PinOverlay, Author: "ada", Until: time.Unix(1800000000, 0).UTC()},
		FromHub: fleet.FromHub{Told: true, Pins: true, Decisions: true, Rollbacks: true}}
}

func TestARecordComesBackWhole(t *testing.T) {
	j := opened(t, filepath.Join(t.TempDir(), "journal.db"))
	inst := fullInstallation()
	whole := func(v any) {
		t.Helper()
		for f := range reflect.TypeOf(v).NumField() {
			if reflect.ValueOf(v).Field(f).IsZero() {
				t.Fatalf("test leaves %T.%s unset", v, reflect.TypeOf(v).Field(f).Name)
			}
		}
	}
	whole(inst)
	whole(inst.Policy)
	whole(*inst.Policy.Pin)
	whole(*inst.Canary)
	whole(inst.Canary.Traffic[0])
	at := time.Unix(1700000002, 0).UTC()
	rel := func(v, set string) Release {
		return Release{v, "app-istio", "shop", "sha256:b" + "", "o", "r", []byte(set), []string{"release@example.com"}}
	}
	trial := fleet.Preflight{Version: "1.2.0", Bundle: "b", Overlay: "o", Outcome: fleet.OutcomeChanges, Changes: []fleet.KindChange{{Kind: "Service", Verb: fleet.VerbCreate, Count: 2}},
		Reason: "asks", Reversibility: fleet.OneWay, At: at}
	want := Record{Distribution: "shop", Installation: inst, Manifest: []byte("set 1"), Inventory: []byte("{}"),
		Delivery: &Attempt{"1.1.0", "b", "o", "r", []byte("set 2"), fleet.Settling, at, at.Add(time.Minute),
			2, true, []string{"deletes 9 of 20"}, []string{"deletes 9 of 20"}, []string{"foos.example.com"}, "accepted", true, true, []byte("course"), []byte("walk"), []byte("counted"), 2, at, []string{"release@example.com"}},
		Previous: []Release{rel("1.0.0", "set 1"), rel("0.9.0", "set 0")},
		Held:     map[string]Hold{"1.1.1": {"o", "database: CrashLoopBackOff", at, at.Add(time.Hour)}},
		Tried:    map[string]Trial{"1.2.0": {"recipe", trial}},
		Pin:      &fleet.Pin{Version: "1.0.0", Reason: "freeze", Source: fleet.PinSpoke, Author: "ada", Until: at.Add(time.Hour)},
		Decided:  at.Add(time.Second),
		Floor:    "1.1.0", First: map[string]fleet.Digest{"1.0.0": "b"}, Told: []fleet.Told{{Text: []byte("statement"), At: at}},
		Orders: []Answered{{"00ff", "sum", at.Add(time.Hour), true, "rolled back"}}}
	whole(want)
	if err := j.PutRecord(want, fleet.Event{Kind: fleet.EventPreflight, Distribution: "shop", Preflight: &trial}); err != nil {
		t.Fatal(err)
	}
	j = reopen(t, j)
	got, found, err := j.Record("shop")
	if err != nil || !found || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v\ngot  %+v\nwant %+v", found, err, got, want)
	}
	if evs, _ := j.Pending(0, 0); len(evs) != 1 || !reflect.DeepEqual(evs[0].Preflight, &trial) {
		t.Errorf("the event of the record: %v", evs)
	}
	if n := blobs(t, j); n != 5 {
		t.Errorf("%d blobs, want 5: set 1 is shared", n)
	}
	if _, found, err := j.Record("other"); found || err != nil {
		t.Error(found, err)
	}

	want.Delivery, want.Previous = nil, nil
	for i := range 9 {
		want.Previous = append(want.Previous, rel(fmt.Sprint(i), fmt.Sprint("set ", i)))
	}
	if err := j.PutRecord(want); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := j.Record("shop"); len(got.Previous) != KeepPrevious || got.Previous[0].Version != "0" {
		t.Errorf("previous: %+v", got.Previous)
	}
	if err := j.DeleteRecord("shop"); err != nil {
		t.Fatal(err)
	}
	if n := blobs(t, j); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
	if err := j.PutRecord(Record{}); err == nil {
		t.Error("a record without a name: want an error")
	}
}

// The journal of an earlier spoke knows no pins, steps and windows.
func TestAnEarlierRecordIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := opened(t, path)
	earlier := `{"schema":1,"installation":{"distribution":"shop","range":"1.x","pin":{"version":"1.0.0","source":"overlay"},"running":"1.0.0","phase":"Succeeded"}}`
	err := j.update(func(tx *bolt.Tx) error { return tx.Bucket(recordBucket).Put([]byte("shop"), []byte(earlier)) })
	if err != nil {
		t.Fatal(err)
	}
	got, found, err := reopen(t, j).Record("shop")
	want := Record{Distribution: "shop", Installation: fleet.Installation{Distribution: "shop", Running: "1.0.0", Phase: fleet.Succeeded,
		Policy: fleet.Policy{Range: "1.x", Pin: &fleet.Pin{Version: "1.0.0", Source: "overlay"}}}}
	if err != nil || !found || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v\ngot  %+v\nwant %+v", found, err, got, want)
	}
}

func blobs(t *testing.T, j *Journal) (n int) {
	t.Helper()
	if err := j.view(func(tx *bolt.Tx) error { n = tx.Bucket(blobBucket).Stats().KeyN; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestDesiredState(t *testing.T) {
	j := opened(t, filepath.Join(t.TempDir(), "journal.db"))
	if d, err := j.Desired(); d != nil || err != nil {
		t.Fatal(d, err)
	}
	want := &syncv1.DesiredState{Revision: 7, Distributions: []*syncv1.DistributionOffers{{Distribution: "shop"}}}
	if err := j.PutDesired(want); err != nil {
		t.Fatal(err)
	}
	j = reopen(t, j)
	if d, err := j.Desired(); err != nil || !proto.Equal(d, want) {
		t.Error(d, err)
	}
}

func TestASecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	opened(t, path)
	_, err := Open(path, slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "spoke already running") {
		t.Errorf("got %v", err)
	}
}

func TestTwoThatCreateAtOnceEndWithOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			j, err := Open(path, slog.New(slog.DiscardHandler))
			if err == nil {
				j.Append(fleet.Event{Kind: fleet.EventAgent})
				j.Close()
			} else if !errors.Is(err, ErrLocked) && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	j := opened(t, path)
	if evs, err := j.Pending(0, 0); err != nil || len(evs) == 0 {
		t.Error(evs, err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestANewerSchemaIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := opened(t, path)
	if err := j.update(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(schemaKey, []byte("2")) }); err != nil {
		t.Fatal(err)
	}
	j.Close()
	_, err := Open(path, slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(path + ".corrupt*"); len(left) != 0 {
		t.Error("it was set aside")
	}
}

func TestADamagedFileIsSetAside(t *testing.T) {
	filled := func(t *testing.T) (string, []byte) {
		path := filepath.Join(t.TempDir(), "journal.db")
		j := opened(t, path)
		for i := range 50 {
			if err := j.PutRecord(Record{Distribution: "shop", Manifest: bytes.Repeat([]byte("y"), 9000+i)}, fleet.Event{Kind: fleet.EventPhase, Message: strings.Repeat("m", 300)}); err != nil {
				t.Fatal(err)
			}
		}
		j.Close()
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return path, data
	}
	for name, damage := range map[string]func([]byte) []byte{
		"empty":            func(b []byte) []byte { return nil },
		"text":             func(b []byte) []byte { return []byte("no journal\n") },
		"zeros":            func(b []byte) []byte { return make([]byte, len(b)) },
		"cut short":        func(b []byte) []byte { return b[:len(b)/3] },
		"one page only":    func(b []byte) []byte { return b[:4096] },
		"noise in the end": func(b []byte) []byte { return fill(b, 2*4096, len(b)) },
		"a changed event":  func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(`"kind":"Phase"`), []byte(`"kind":"Phase,`)) },
		"a changed set":    func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("yyyyyyyy"), []byte("yyyyzyyy")) },
	} {
		t.Run(name, func(t *testing.T) {
			path, data := filled(t)
			if err := os.WriteFile(path, damage(bytes.Clone(data)), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(path); !errors.Is(err, ErrDamaged) {
				t.Errorf("Read: %v", err)
			}
			var said bytes.Buffer
			j, err := Open(path, slog.New(slog.NewTextHandler(&said, nil)))
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			if !strings.HasPrefix(j.SetAside(), path+".corrupt-") || !strings.Contains(said.String(), j.SetAside()) {
				t.Errorf("set aside to %q, said %s", j.SetAside(), said.String())
			}
			if !exists(j.SetAside()) {
				t.Error("the damaged file is gone")
			}
			if seq, err := j.Append(fleet.Event{Kind: fleet.EventAgent}); seq != 1 || err != nil {
				t.Error(seq, err)
			}
		})
	}
}

func fill(b []byte, from, to int) []byte {
	for i := from; i < to; i++ {
		b[i] = byte(i*7 + 3)
	}
	return b
}

func TestDamageInTheMiddleOfARunIsAnErrorForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := opened(t, path)
	if err := j.PutRecord(Record{Distribution: "shop", Manifest: bytes.Repeat([]byte("y"), 100_000)}); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := j.Record("shop"); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "restart spoke") {
			t.Errorf("got %v", err)
		}
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	j = opened(t, path)
	if j.SetAside() == "" {
		t.Error("want it set aside")
	}
}

func TestReadOfARestingJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	if _, err := Read(path); !errors.Is(err, ErrAbsent) || exists(path) {
		t.Errorf("got %v", err)
	}
	j := opened(t, path)
	if err := j.PutRecord(Record{Distribution: "shop"}, fleet.Event{Kind: fleet.EventPhase}); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v", err)
	}
	j.Close()
	c, err := Read(path)
	if err != nil || len(c.Records) != 1 || c.Pending != 1 || c.ID != j.ID() {
		t.Errorf("%+v %v", c, err)
	}
}

// A hub that is away for months does not fill the disk: the oldest events go, and how many is said.
func TestEventsForAHubThatStaysAwayAreBounded(t *testing.T) {
	j := opened(t, filepath.Join(t.TempDir(), "journal.db"))
	at := time.Unix(1700000000, 0).UTC()
	const all = 3*KeepEvents + 7
	err := j.update(func(tx *bolt.Tx) error {
		for n := range all {
			if _, err := appendEvent(tx, fleet.Event{At: at.Add(time.Duration(n) * time.Second), Kind: fleet.EventHealth, Message: "m"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := j.Pending(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got); n > KeepEvents || n < KeepEvents-dropEvents-1 || got[n-1].Seq != all {
		t.Errorf("%d events to number %d", n, got[n-1].Seq)
	}
	for n := range got[1:] {
		if got[n+1].Seq != got[n].Seq+1 {
			t.Fatalf("event %d follows %d", got[n+1].Seq, got[n].Seq)
		}
	}
	want := fmt.Sprintf("%d events from 2023-11-14T22:13:20Z to %s were dropped", got[0].Seq, at.Add(time.Duration(got[0].Seq-1)*time.Second).Format(time.RFC3339))
	if got[0].Kind != fleet.EventAgent || !strings.HasPrefix(got[0].Message, want) {
		t.Errorf("in their place: %+v, want %s", got[0], want)
	}
	if err := j.Ack(all); err != nil {
		t.Fatal(err)
	}
	if seq, err := j.Append(fleet.Event{Kind: fleet.EventAgent}); err != nil || seq != all+1 {
		t.Errorf("afterwards: %d, %v", seq, err)
	}
}
