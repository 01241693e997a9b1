package store

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
)

func TestAChannelGrowsByWhatFollows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s, err := Open(path, discard)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	state := func(n uint64, latest string, previous fleet.Digest) channel.Signed {
		t.Helper()
		one, err := channel.New(channel.Statement{Distribution: "shop", Sequence: n, Latest: latest, Issued: at, Expires: at.Add(time.Hour), Previous: previous})
		if err != nil {
			t.Fatal(err)
		}
		return one
	}
	add := func(one channel.Signed) error {
		return s.Audited(fleet.Event{Kind: fleet.EventStatement}, fleet.Entry{At: at, Actor: "a", Action: "channel publish", Object: "shop"}).AddStatement(one, at)
	}
	one := state(1, "1.0.0", "")
	if err := add(one); !errors.Is(err, ErrNotFound) {
		t.Errorf("of no distribution: %v", err)
	}
	if err := s.AddDistribution(fleet.Distribution{Name: "shop", URL: "https://example.com/shop.git"}); err != nil {
		t.Fatal(err)
	}
	before, err := s.Revision("shop")
	if err != nil {
		t.Fatal(err)
	}
	two := state(2, "1.1.0", one.Digest())
	for _, c := range []struct {
		one  channel.Signed
		want error
	}{{one, nil}, {one, ErrExists}, {state(1, "1.0.1", ""), ErrFork}, {state(3, "1.1.0", one.Digest()), ErrFork}, {two, nil}, {state(2, "1.0.0", one.Digest()), ErrFork}} {
		if err := add(c.one); !errors.Is(err, c.want) || strings.Contains(err2text(err), "names  before") {
			t.Errorf("statement %d, %s: got %v, want %v", c.one.Sequence, c.one.Latest, err, c.want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(path, discard); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	log, err := s.Channel("shop")
	last, _ := log.Last()
	if err != nil || len(log) != 2 || last.Digest() != two.Digest() || !last.At.Equal(at) {
		t.Errorf("after a restart: %v, %d statements, the last %s", err, len(log), last.Digest())
	}
	if after, err := s.Revision("shop"); err != nil || after != before+2 {
		t.Errorf("revision %d, then %d, %v: each statement is something to tell", before, after, err)
	}
}

func err2text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
