package journal

import (
	"log/slog"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestAMoveIsKeptWithWhatTheHubIsToldOfIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), File)
	open := func() *Journal {
		t.Helper()
		j, err := Open(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	if r, err := j.ReHome(); err != nil || !reflect.DeepEqual(r, ReHome{}) || r.UnderWay() {
		t.Errorf("before the first: %+v, %v", r, err)
	}
	at := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	told := func(state fleet.ReHomeState) fleet.Event {
		return fleet.Event{At: at, Kind: fleet.EventIdentity, Message: "m", ReHome: &fleet.ReHomeAnswer{Nonce: "0a", State: state}}
	}
	r := ReHome{Nonce: "0a", Issued: at, State: fleet.ReHomeMoving, From: "old:7443", Signed: []byte("signed"), Tried: true, Taken: []Taken{{"0a", at.Add(time.Hour)}}}
	if err := j.PutReHome(&r, told(fleet.ReHomeMoving)); err != nil || r.Left != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := j.PutReHome(&r, told(fleet.ReHomeMoved)); err != nil || r.Left != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if pends, err := j.Pends(r.Left); err != nil || !pends {
		t.Errorf("what tells the old hub does not pend: %v", err)
	}
	if err := j.Ack(r.Left); err != nil {
		t.Fatal(err)
	}
	if pends, err := j.Pends(r.Left); err != nil || pends {
		t.Errorf("it pends still: %v", err)
	}
	left := r
	if left.State = fleet.ReHomeMoved; j.PutReHome(&left, told(fleet.ReHomeMoved)) != nil || left.Left != 2 {
		t.Errorf("what tells the new hub is taken for what told the old one: %+v", left)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := Read(path)
	if err != nil || !reflect.DeepEqual(c.ReHome, left) {
		t.Errorf("at rest: %+v, %v", c.ReHome, err)
	}
	j = open()
	defer j.Close()
	if back, err := j.ReHome(); err != nil || !reflect.DeepEqual(back, left) {
		t.Errorf("after a restart: %+v, %v", back, err)
	}
	events, err := j.Pending(0, 0)
	if err != nil || len(events) != 1 || !reflect.DeepEqual(events[0].ReHome, told(fleet.ReHomeMoved).ReHome) {
		t.Errorf("events: %+v, %v", events, err)
	}
}
