package plugintest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wheelwright-dev/wheelwright/pkg/plugintest"
)

// built is the example plugin; see testdata/plugin.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "plugintest-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		built = filepath.Join(dir, "example")
		build := exec.Command("go", "build", "-o", built, "./testdata/plugin")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return 1
		}
		code := m.Run()
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

func TestAGoodPlugin(t *testing.T) {
	plugintest.Run(t, plugintest.Config{Path: built, Args: []string{"good"}})
}

// TestBadPlugins: the checks are worth nothing if they see nothing.
func TestBadPlugins(t *testing.T) {
	for _, tt := range []struct{ mode, check, want string }{
		{"crash-start", "starts and shakes hands", "exit status 3"},
		{"chatter", "starts and shakes hands", "where a handshake line belongs"},
		{"wrong-protocol", "starts and shakes hands", "speaks plugin protocol 99"},
		{"plain", "starts and shakes hands", "mutual TLS is not optional"},
		{"stateful", "conformance: the same answers to the same questions", "asked twice"},
		{"no-verdict", "conformance: one report", "want pass, fail or inconclusive"},
		{"wrong-verdict", "conformance: one report", "1 tests failed, and the verdict is OUTCOME_PASS"},
		{"guess", "canary: no verdict without evidence", "passes a candidate that does not exist"},
		{"crash", "serves what it says", "Notify ends it"},
		{"ignore-term", "ends within a second of SIGTERM", "still runs"},
		{"noise", "logs little", "a spoke drops"},
	} {
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()
			var found []string
			for _, r := range plugintest.Check(t.Context(), plugintest.Config{Path: built, Args: []string{tt.mode}, Timeout: 5 * time.Second}, nil) {
				if !r.OK() {
					found = append(found, r.String())
					if strings.HasPrefix(r.Name, tt.check) && strings.Contains(r.Problem, tt.want) {
						return
					}
				}
			}
			t.Errorf("want %q: %q, got:\n%s", tt.check, tt.want, strings.Join(found, "\n"))
		})
	}
}
