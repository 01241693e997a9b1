package store

import (
	"log/slog"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestNoticesSurvive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	reopen := func(s *Store) *Store {
		t.Helper()
		if s != nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := reopen(nil)
	defer func() { must(s.Close()) }()
	if all, ever, err := s.Noted(); err != nil || ever || len(all) != 0 {
		t.Errorf("a new store: %v %t %v", all, ever, err)
	}
	at := time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC)
	held := Transition{Rollout: 7, Distribution: "shop", Version: "1.2.0", Phase: fleet.RolloutHolding, Since: at, Text: "one failed"}
	over := Transition{Rollout: 300, Distribution: "shop", Version: "1.1.0", Phase: fleet.RolloutCompleted, Since: at}
	made, err := s.Note([]Transition{held, over}, nil, []Transition{held}, []string{"chat", "commits"})
	must(err)
	if len(made) != 2 || made[0].Notifier != "chat" || made[1].Number <= made[0].Number {
		t.Errorf("made %v", made)
	}
	name := ReleaseName{"shop", "1.2.0"}
	must(s.PutTold("commits", name, &Told{Sum: "a", State: fleet.MarkUnderway}))
	must(s.PutTold("commits", name, &Told{Sum: "b", State: fleet.MarkFailed}))
	must(s.PutTold("commits", ReleaseName{"shop", "1.1.0"}, &Told{Sum: "c", State: fleet.MarkDone}))
	must(s.PutTold("commits", ReleaseName{"shop", "1.1.0"}, nil))

	s = reopen(s)
	noted, ever, err := s.Noted()
	must(err)
	if want := map[uint64]Transition{7: {Rollout: 7, Phase: fleet.RolloutHolding, Since: at}, 300: {Rollout: 300, Phase: fleet.RolloutCompleted, Since: at}}; !ever || !reflect.DeepEqual(noted, want) {
		t.Errorf("noted %v", noted)
	}
	for _, notifier := range []string{"chat", "commits"} {
		waiting, err := s.Notices(notifier)
		must(err)
		if len(waiting) != 1 || !reflect.DeepEqual(waiting[0].Transition, held) || waiting[0].Notifier != notifier {
			t.Errorf("waiting for %s: %v", notifier, waiting)
		}
	}
	told, err := s.Told("commits")
	must(err)
	if want := map[ReleaseName]Told{name: {Sum: "b", State: fleet.MarkFailed}}; !reflect.DeepEqual(told, want) {
		t.Errorf("told %v", told)
	}
	if told, err := s.Told("chat"); err != nil || len(told) != 0 {
		t.Errorf("told chat %v %v", told, err)
	}
	// Told of it, in order; a rollout that the hub forgot is forgotten here.
	must(s.DropNotice(made[0]))
	more, err := s.Note(nil, []uint64{300}, []Transition{over, held}, []string{"chat"})
	must(err)
	waiting, err := s.Notices("chat")
	must(err)
	if !reflect.DeepEqual(waiting, more) || len(more) != 2 || waiting[0].Version != "1.1.0" {
		t.Errorf("waiting %v, made %v", waiting, more)
	}
	if noted, _, err := s.Noted(); err != nil || len(noted) != 1 {
		t.Errorf("noted %v %v", noted, err)
	}
	// A notifier that is no more leaves nothing; without any, nothing is left at all.
	must(s.KeepNotices([]string{"commits"}))
	if waiting, err := s.Notices("chat"); err != nil || len(waiting) != 0 {
		t.Errorf("waiting for nobody: %v %v", waiting, err)
	}
	if told, err := s.Told("commits"); err != nil || len(told) != 1 {
		t.Errorf("told %v %v", told, err)
	}
	must(s.KeepNotices(nil))
	must(s.KeepNotices(nil))
	must(s.db.View(func(tx *bolt.Tx) error {
		if tx.Bucket([]byte(bucketNotices)) != nil {
			t.Error("the bucket is left")
		}
		return nil
	}))
}
