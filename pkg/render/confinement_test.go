package render

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestWeakness: what is missing is said loudly, and what to do; a whole sandbox is not talked about.
func TestWeakness(t *testing.T) {
	for confined, want := range map[string][]string{
		"landlock+seccomp": nil,
		"seccomp":          {"no Landlock", "lsm="},
		"landlock":         {"seccomp", "UDP", "allow seccomp"},
		"none":             {"neither Landlock nor", "Linux 5.13"},
	} {
		text := Weakness(confined)
		if (text == "") != (want == nil) {
			t.Errorf("%s: %q", confined, text)
		}
		var log bytes.Buffer
		warn(slog.New(slog.NewTextHandler(&log, nil)), confined)
		if (log.Len() > 0) != (want != nil) {
			t.Errorf("%s: logged %q", confined, log.String())
		}
		for _, w := range append(want, "level=WARN", "sandbox="+confined) {
			if want != nil && !strings.Contains(text, w) && !strings.Contains(log.String(), w) {
				t.Errorf("%s: no %q in %q or %q", confined, w, text, log.String())
			}
		}
	}
	if offered := Offered(); offered != confinement(strings.Split(offered, "+")) && offered != unconfined {
		t.Errorf("offered: %q", offered)
	}
}

// TestMemoryInContainer: a release that takes all memory must not end the container that the spoke is in.
func TestMemoryInContainer(t *testing.T) {
	for text, want := range map[string]int64{"max\n": 1 << 30, "536870912\n": 256 << 20, "9223372036854771712\n": 1 << 30, "": 1 << 30, "3221225472": 1 << 30} {
		if got := childMemory(cgroupLimit([]byte(text))); got != want {
			t.Errorf("%q: %d MiB, want %d", text, got>>20, want>>20)
		}
	}
}
