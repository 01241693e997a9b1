package cli

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/hub"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
)

// serving runs a hub on dir until stop is called.
func serving(t *testing.T, dir string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, over := make(chan struct{}), make(chan error, 1)
	go func() {
		over <- hub.Run(ctx, hub.Config{Dir: dir, Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}, func(hub.Info) { close(ready) })
	}()
	select {
	case <-ready:
	case err := <-over:
		cancel()
		t.Fatalf("hub ended: %v", err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-over; err != nil {
			t.Errorf("hub ended: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// command runs one and returns what it wrote.
func command(t *testing.T, code int, args ...string) (out, errors string) {
	t.Helper()
	var o, e strings.Builder
	if got := Main(args, &o, &e); got != code {
		t.Fatalf("hub %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, o.String(), e.String())
	}
	return o.String(), e.String()
}

// unpack is what the help says.
func unpack(t *testing.T, file string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "restored")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xf", file, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	return dir
}

func wantWords(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q is not in:\n%s", w, text)
		}
	}
}

func TestAHubIsPutBackFromABackup(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "hub.tar")
	stop := serving(t, dir)
	t.Setenv(contextVariable, filepath.Join(dir, "admin.yaml"))
	command(t, exitcode.OK, "cluster", "invite", "acme/eu-1", "--label", "env=prod")

	// While it works, and with the keys, which only the machine itself gives.
	_, said := command(t, exitcode.Usage, "check", "--data", dir)
	wantWords(t, said, "a hub runs on "+dir, "hub backup --data "+dir)
	out, _ := command(t, exitcode.OK, "backup", "--data", dir, file)
	wantWords(t, out, "KEYS", "yes")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v, want it readable for its owner only", info.Mode(), err)
	}
	before, _ := command(t, exitcode.OK, "get", "clusters", "-o", "json")
	stop()
	pin, _ := os.ReadFile(filepath.Join(dir, "authority", "authority.pem"))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}

	restored := unpack(t, file)
	out, _ = command(t, exitcode.OK, "check", "--data", restored)
	wantWords(t, out, "records of clusters", "chain of the audit", "authority", "files of the backup")
	serving(t, restored)
	t.Setenv(contextVariable, filepath.Join(restored, "admin.yaml"))
	after, _ := command(t, exitcode.OK, "get", "clusters", "-o", "json")
	if before != after {
		t.Errorf("clusters before:\n%s\nafter:\n%s", before, after)
	}
	if same, _ := os.ReadFile(filepath.Join(restored, "authority", "authority.pem")); string(same) != string(pin) {
		t.Error("the authority is another")
	}
	audit, _ := command(t, exitcode.OK, "audit", "export")
	wantWords(t, audit, `"action":"backup"`)
	command(t, exitcode.OK, "audit", "verify")
}

func TestABackupOverTheWireHasNoKeys(t *testing.T) {
	dir, file := t.TempDir(), filepath.Join(t.TempDir(), "hub.tar")
	stop := serving(t, dir)
	t.Setenv(contextVariable, filepath.Join(dir, "admin.yaml"))
	command(t, exitcode.OK, "cluster", "invite", "acme/eu-1")
	out, said := command(t, exitcode.OK, "backup", file, "-o", "json")
	var answer struct {
		Keys  bool
		Files int
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Keys || answer.Files != 1 {
		t.Errorf("answered %s, %v", out, err)
	}
	wantWords(t, said, "the authority's keys are not in it")
	data, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(data), "PRIVATE KEY") {
		t.Errorf("a private key is in the backup, or %v", err)
	}
	restored := unpack(t, file)
	out, _ = command(t, exitcode.Failed, "check", "--data", restored)
	wantWords(t, out, "authority: authority "+filepath.Join(restored, "authority"), "next: put the folder")

	// A backup of the folder when the hub is stopped; and what was there stays where a backup fails.
	stop()
	command(t, exitcode.OK, "backup", "--data", dir, file)
	command(t, exitcode.OK, "check", "--data", unpack(t, file))
	good, _ := os.ReadFile(file)
	_, said = command(t, exitcode.Usage, "backup", file, "--timeout", "1s")
	wantWords(t, said, "cannot be reached")
	if now, _ := os.ReadFile(file); string(now) != string(good) {
		t.Error("the backup before is gone")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	_, said = command(t, exitcode.Usage, "backup", "--data", t.TempDir(), file)
	wantWords(t, said, "is no hub's data folder")
}

func TestACheckSaysWhatIsDamagedAndWhatToDo(t *testing.T) {
	dir := t.TempDir()
	serving(t, dir)()
	out, _ := command(t, exitcode.OK, "check", "--data", dir, "-o", "json")
	var answer struct {
		Sound    bool
		Findings []struct {
			Part     string
			Problems []string
			Next     string
		}
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil || !answer.Sound || len(answer.Findings) < 20 {
		t.Errorf("answered %s, %v", out, err)
	}
	_, said := command(t, exitcode.OK, "check", "--data", dir, "--compact")
	wantWords(t, said, "bytes")

	path := filepath.Join(dir, "hub.db")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	clear(data[2*os.Getpagesize():])
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ = command(t, exitcode.Failed, "check", "--data", dir)
	wantWords(t, out, "database", "page ", "next: mv "+path)
	command(t, exitcode.Usage, "check")
	command(t, exitcode.Usage, "check", "--data", filepath.Join(dir, "none"))
}
