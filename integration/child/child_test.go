package child_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/child"
)

func TestOneThatEndsSaysWhy(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	p, err := child.Start("the sad one", log, nil, "sh", "-c", "echo 'address already in use' >&2; exit 3")
	if err != nil {
		t.Fatal(err)
	}
	err = p.Await(t.Context(), "its readiness", func(context.Context) error { return errors.New("not yet") })
	for _, want := range []string{"wait for its readiness", "the sad one ended by itself (exit status 3)", "address already in use"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if !p.Ended() || !p.PortTaken() || p.Stop() == nil {
		t.Errorf("ended %v, port taken %v: its end is not told", p.Ended(), p.PortTaken())
	}
	if _, err := child.Start("nobody", log, nil, "/does/not/exist"); err == nil || !strings.Contains(err.Error(), "start nobody") {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestStopEndsTheWholeGroup(t *testing.T) {
	dir := t.TempDir()
	p, err := child.Start("a parent", filepath.Join(dir, "log"), nil, "sh", "-c", "sleep 1000 & echo $! > child; wait")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Await(t.Context(), "its child", func(context.Context) error {
		text, err := os.ReadFile(filepath.Join(dir, "child"))
		if err == nil && len(text) == 0 {
			err = errors.New("nothing written")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(-p.PID(), 0) == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process of the group lives")
		}
	}
}
