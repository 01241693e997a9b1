package render_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

// What must never stand in a manifest.
const (
	fetchedCanary = "canary-from-the-network"
	secretCanary  = "canary-from-the-machine"
	fetchedObject = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + fetchedCanary + "}\n"
)

// ground is where the hostile sources are tried.
type ground struct {
	dir     string // with bin, secret and the sources
	at      string // the server's address
	sources []render.Source
	names   []string
}

func newGround(t *testing.T) ground {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			http.Redirect(w, r, "/x.yaml", http.StatusFound)
			return
		}
		fmt.Fprint(w, fetchedObject)
	}))
	server.Config.SetKeepAlivesEnabled(false) // so that every source that gets through opens a socket
	server.Start()
	t.Cleanup(server.Close)
	g := ground{dir: t.TempDir(), at: strings.TrimPrefix(server.URL, "http://")}
	write := func(name, text string, mode os.FileMode) {
		name = filepath.Join(g.dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("secret", "a="+secretCanary, 0o644)
	for _, program := range []string{"bin/git", "bin/helm", "bin/docker", "bin/ssh", "plugins/evil.example.com/v1/run/Run"} {
		write(program, "#!/bin/sh\nexit 0\n", 0o755)
	}
	fill := strings.NewReplacer("@AT", g.at, "@DIR", g.dir, "@URL64", base64.StdEncoding.EncodeToString([]byte(server.URL+"/x.yaml")))
	for i, h := range hostiles() {
		texts := with(shop, nil)
		for name, text := range h.more {
			texts[fill.Replace(name)] = fill.Replace(text)
		}
		if h.k != "" {
			texts["v/kustomization.yaml"] = fill.Replace(h.k)
		}
		src := shopSource("v")
		src.Bundle = files(texts)
		g.sources, g.names = append(g.sources, src), append(g.names, h.name)
		for _, f := range src.Bundle {
			write(filepath.Join("sources", strconv.Itoa(i), "release", f.Path), string(f.Data), 0o644)
		}
	}
	return g
}

// calls are what the kernel was asked for during one source.
type calls struct{ processes, sockets, files, refused int }

var (
	straceLine = regexp.MustCompile(`^(\d+) +(?:<\.\.\. )?(\w+)(.*)$`)
	straceEnd  = regexp.MustCompile(`= (-?\d+)`)
	straceMark = regexp.MustCompile(`^\d+ +write\(2, "== (\w+)`)
)

// trace reads what strace wrote, by source. Threads are no processes.
func trace(t *testing.T, text string, sources int) []calls {
	t.Helper()
	found, at, begun := make([]calls, sources), -1, map[string]string{}
	for line := range strings.Lines(text) {
		if m := straceMark.FindStringSubmatch(line); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				at = sources // done
				continue
			}
			at = n
		}
		m := straceLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || at < 0 || at >= sources {
			continue
		}
		pid, call, rest := m[1], m[2], m[3]
		if strings.Contains(rest, "<unfinished ...>") {
			begun[pid] = rest
			continue
		}
		if strings.Contains(line, "resumed>") {
			rest = begun[pid] + rest
		}
		ends := straceEnd.FindAllStringSubmatch(rest, -1)
		if len(ends) == 0 {
			continue
		}
		count(&found[at], call, rest, !strings.HasPrefix(ends[len(ends)-1][1], "-") || strings.Contains(rest, "EINPROGRESS"))
	}
	if at != sources {
		t.Fatalf("the trace ends at source %d of %d", at, sources)
	}
	return found
}

func count(c *calls, call, rest string, succeeded bool) {
	var n *int
	switch call {
	case "execve", "execveat", "fork", "vfork":
		n = &c.processes
	case "clone", "clone3":
		if strings.Contains(rest, "CLONE_THREAD") {
			return
		}
		n = &c.processes
	case "socket", "socketpair", "connect", "bind", "io_uring_setup":
		n = &c.sockets
	case "open", "openat", "openat2", "creat":
		n = &c.files
	default:
		return
	}
	if succeeded {
		*n++
	} else {
		c.refused++
	}
}

// run renders every source in one child that lacks some layers, under strace.
func (g ground) run(t *testing.T, strace string, off ...string) ([]calls, []render.EscapeResult) {
	t.Helper()
	var work bytes.Buffer
	if err := gob.NewEncoder(&work).Encode(render.EscapeWork{Off: off, Dir: filepath.Join(g.dir, "sources"), Sources: g.sources}); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), strace, "-f", "-qq", "-s", "16", "-o", log,
		"-e", "trace=execve,execveat,fork,vfork,clone,clone3,socket,socketpair,connect,bind,io_uring_setup,open,openat,openat2,creat,write",
		"-e", "signal=none", self, render.EscapeName)
	cmd.Env = []string{}
	if slices.Contains(off, "environment") {
		cmd.Env = []string{"PATH=" + filepath.Join(g.dir, "bin"), "HOME=" + g.dir, "KUSTOMIZE_PLUGIN_HOME=" + filepath.Join(g.dir, "plugins"), "CANARY=" + secretCanary}
	}
	cmd.Stdin = &work
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("off %v: %v\n%.2000s", off, err, stderr.Bytes())
	}
	var results []render.EscapeResult
	if err := json.Unmarshal(out.Bytes(), &results); err != nil || len(results) != len(g.sources) {
		t.Fatalf("off %v: %d results, %v", off, len(results), err)
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	return trace(t, string(text), len(g.sources)), results
}

// foreign looks for what is not the source's own, as it is and as a Secret holds it.
func foreign(manifest string) bool {
	manifest = strings.Join(strings.Fields(manifest), "")
	coded := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text))[:24] }
	for _, text := range []string{fetchedCanary, secretCanary, "root:x:", coded(fetchedObject), coded(secretCanary), coded("a=" + secretCanary)} {
		if strings.Contains(manifest, text) {
			return true
		}
	}
	return false
}

// TestEscapes: whichever one layer is missing, no hostile kustomization starts a process, opens a socket or
// a file, or gets into its manifest what is not its own. With all of them missing most do: the trace sees it.
func TestEscapes(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace here: apt-get install strace")
	}
	if weak := render.Weakness(render.Offered()); weak != "" {
		t.Skip(weak) // a layer less than the matrix is about
	}
	g := newGround(t)
	if len(g.sources) < 80 {
		t.Fatalf("%d sources, want 80", len(g.sources))
	}
	cells, escapes, attempts := 0, 0, 0
	var alone []string
	for _, off := range append([]string{""}, render.Layers()...) {
		missing := []string{}
		if off != "" {
			missing = append(missing, off)
		}
		found, results := g.run(t, strace, missing...)
		refused := 0
		for i, c := range found {
			cells++
			attempts += c.refused
			if results[i].Refused {
				refused++
			}
			if c.processes+c.sockets+c.files > 0 || foreign(results[i].Manifest) {
				escapes++
				t.Errorf("without %s, %s: %d processes, %d sockets, %d files; %+v", off, g.names[i], c.processes, c.sockets, c.files, results[i])
			}
		}
		alone = append(alone, fmt.Sprintf("%s %d", off, refused))
	}
	t.Logf("refused by the scan, by the layer that is missing: %s; asked of the kernel and refused: %d", strings.Join(alone, ", "), attempts)
	g.control(t, strace)
	fmt.Printf("FIGURE sandbox.escapes %d of %d cells: %d hostile kustomizations, each of %d layers missing in turn, under strace; 0 processes, 0 sockets, 0 files\n",
		escapes, cells, len(g.sources), len(render.Layers()))
}

// control shows that the trace would see it: without any layer, most sources do what they mean to.
func (g ground) control(t *testing.T, strace string) {
	t.Helper()
	found, results := g.run(t, strace, render.Layers()...)
	var processes, sockets, files, leaks, nothing int
	for i, c := range found {
		processes += min(1, c.processes)
		sockets += min(1, c.sockets)
		files += min(1, c.files)
		if foreign(results[i].Manifest) {
			leaks++
		}
		if c.processes+c.sockets == 0 && !foreign(results[i].Manifest) {
			nothing++
			t.Logf("harmless by itself: %s: %.150s", g.names[i], results[i].Problem)
		}
	}
	if acting := len(found) - nothing; acting < 80 {
		t.Errorf("without any layer only %d sources do what they mean to, want 80", acting)
	}
	t.Logf("without any layer: of %d sources %d started processes, %d opened sockets, %d files, %d got foreign content; %d did nothing", len(found), processes, sockets, files, leaks, nothing)
	if processes < 20 || sockets < 30 || leaks < 15 {
		t.Errorf("without any layer only %d sources started processes, %d opened sockets, %d got foreign content: the check proves little", processes, sockets, leaks)
	}
}

// TestLayersAlone: what each layer stops with all the others missing. Three of them stop everything each.
func TestLayersAlone(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil || render.Weakness(render.Offered()) != "" {
		t.Skip("no strace here, or no whole sandbox")
	}
	g := newGround(t)
	enough := []string{"scan", "seccomp", "landlock"}
	layers := enough
	if os.Getenv("WHEELWRIGHT_FIGURES") != "" {
		layers = render.Layers()
	}
	for _, alone := range layers {
		found, results := g.run(t, strace, slices.DeleteFunc(render.Layers(), func(l string) bool { return l == alone })...)
		through := 0
		for i, c := range found {
			if c.processes+c.sockets > 0 || foreign(results[i].Manifest) {
				through++
				if slices.Contains(enough, alone) {
					t.Errorf("with nothing but %s, %s: %+v; %+v", alone, g.names[i], c, results[i])
				}
			}
		}
		t.Logf("with nothing but %s: %d of %d get through", alone, through, len(found))
	}
}

// TestHostileIsRefused: what ships refuses each of them beforehand, as the source's fault, or renders it
// without anything foreign where nothing is acted on.
func TestHostileIsRefused(t *testing.T) {
	g := newGround(t)
	r := newRenderer(t, render.Config{})
	for i, h := range hostiles() {
		res, err := r.Render(t.Context(), g.sources[i])
		var be *render.BuildError
		switch {
		case err == nil && foreign(string(res.Manifest)):
			t.Errorf("%s: foreign content", h.name)
		case h.plain && err == nil:
		case !errors.As(err, &be):
			t.Errorf("%s: got %v, want a BuildError", h.name, err)
		}
	}
}

// TestReportSandbox is the part of TestLesserKernels that runs where a call is missing.
func TestReportSandbox(t *testing.T) {
	if os.Getenv("WHEELWRIGHT_TEST_REPORT") == "" {
		t.Log("runs as part of TestLesserKernels")
		return
	}
	var log bytes.Buffer
	r := newRenderer(t, render.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	res, err := r.Render(t.Context(), shopSource("plain"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("REPORT offered=%s child=%s\n%s", render.Offered(), res.Sandbox, log.String())
}

// TestLesserKernels: where the kernel has no Landlock, no seccomp or neither, which strace pretends, a
// release is rendered all the same, it is known with what, and it is said.
func TestLesserKernels(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil || render.Weakness(render.Offered()) != "" {
		t.Skip("no strace here, or no whole sandbox")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for missing, want := range map[string]string{"landlock_create_ruleset": "seccomp", "seccomp": "landlock", "landlock_create_ruleset,seccomp": "none"} {
		cmd := exec.CommandContext(t.Context(), strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+missing, "-e", "inject="+missing+":error=ENOSYS", "-e", "signal=none",
			self, "-test.run=^TestReportSandbox$")
		cmd.Env = append(os.Environ(), "WHEELWRIGHT_TEST_REPORT=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("without %s: %v\n%s", missing, err, out)
		}
		for _, w := range []string{"REPORT offered=" + want + " child=" + want + "\n", "level=WARN", "confined less than it should be", "sandbox=" + want} {
			if !strings.Contains(string(out), w) {
				t.Errorf("without %s: no %q in\n%s", missing, w, out)
			}
		}
	}
}
