package hub

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
)

func TestTheAdminContextIsKeptWhileItWorks(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	s, err := store.Open(filepath.Join(dir, storeFile), log)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	authority, err := identity.Open(filepath.Join(dir, authorityFolder))
	if err != nil {
		t.Fatal(err)
	}
	a := admin{path: filepath.Join(dir, adminFile), address: "127.0.0.1:1", store: s, authority: authority, log: log}
	ensure := func(at time.Time) clientcontext.Context {
		t.Helper()
		if err := a.ensure(at); err != nil {
			t.Fatal(err)
		}
		c, err := clientcontext.Load(a.path)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	now := time.Now()
	first := ensure(now)
	if c := ensure(now); c.Certificate != first.Certificate || c.Key != first.Key || c.Address != first.Address {
		t.Error("made anew for no reason")
	}
	a.address = "127.0.0.1:2"
	if c := ensure(now); c.Address != "127.0.0.1:2" || c.Certificate != first.Certificate {
		t.Error("want another address and the same certificate")
	}
	if c := ensure(now.Add(adminLife - adminRenew + time.Hour)); c.Certificate == first.Certificate {
		t.Error("want a new certificate before the old one ends")
	}
	before := ensure(now)
	if err := os.WriteFile(a.path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := ensure(now); c.Certificate == before.Certificate {
		t.Error("want a new certificate in place of a damaged file")
	}
}

// Whoever has the data folder ends copies of the admin's file by taking the file away.
func TestTheAdminsCopiesEndWithTheFile(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	s, err := store.Open(filepath.Join(dir, storeFile), log)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	authority, err := identity.Open(filepath.Join(dir, authorityFolder))
	if err != nil {
		t.Fatal(err)
	}
	a := admin{path: filepath.Join(dir, adminFile), address: "127.0.0.1:1", store: s, authority: authority, log: log}
	now := time.Now()
	ensure := func() clientcontext.Context {
		t.Helper()
		if err := a.ensure(now); err != nil {
			t.Fatal(err)
		}
		c, err := clientcontext.Load(a.path)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	copied := ensure()
	if !a.good(copied, now) {
		t.Error("the admin's certificate does not work")
	}
	if err := os.Remove(a.path); err != nil {
		t.Fatal(err)
	}
	if next := ensure(); a.good(copied, now) || !a.good(next, now) {
		t.Error("want the copy ended and the new file good")
	}
	all, err := s.Operators()
	if err != nil || len(all) != 1 || all[0].Role.String() != "admin" || all[0].By != "hub" {
		t.Errorf("got %v, %v", all, err)
	}
}
