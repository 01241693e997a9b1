//go:build linux

package pluginhost

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// A list that changes ends what is not in it any more, with the calls that it is in, and nothing else.
func TestUse(t *testing.T) {
	one, two := example("good", ""), example("slow", "")
	two.Name, two.Timeout = "two", time.Minute
	h, _ := host(t, Config{Plugins: []Plugin{one, two}})
	before, err := h.named("example").ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n, err := h.Notifier("two")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := n.Notify(t.Context(), &pluginv1.NotifyRequest{Call: &pluginv1.Call{Id: "1"}, Event: &pluginv1.Event{}})
		ended <- err
	}()
	if _, err := h.Describe(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	if err := h.Use([]Plugin{one, one}); err == nil || h.named("two") == nil {
		t.Fatalf("a list in error is taken: %v", err)
	}
	if err := h.Use([]Plugin{one}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the call of a plugin that went: %v", err)
	}
	if _, err := h.Notifier("two"); !errors.Is(err, ErrNoPlugin) {
		t.Errorf("a plugin that went: %v", err)
	}
	if after, err := h.named("example").ready(t.Context()); err != nil || after != before {
		t.Errorf("the one that stayed was started again: %v", err)
	}
	h.Close()
	if err := h.Use([]Plugin{one}); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed host: %v", err)
	}
}

func TestInspect(t *testing.T) {
	p := example("good", "")
	p.Path = filepath.Join(t.TempDir(), "smoke")
	h, _ := host(t, Config{Plugins: []Plugin{p}})
	if err := h.Inspect("example"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(p.Path, []byte("another"), 0o700); err != nil {
		t.Fatal(err)
	}
	var sum *ErrChecksum
	for range 2 {
		if err := h.Inspect("example"); !errors.As(err, &sum) {
			t.Errorf("another file: %v", err)
		}
	}
	copyFile(t, built.path, p.Path)
	if err := h.Inspect("example"); err != nil {
		t.Error(err)
	}
	if err := h.Inspect("none"); !errors.Is(err, ErrNoPlugin) {
		t.Errorf("no plugin: %v", err)
	}
}
