package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// builder fills one pin's cache folder.
type builder struct {
	pin
	source   string // the nested module
	target   string // the cache folder
	version  string
	progress io.Writer
}

// ensure adds the paths of the pin's binaries and files to paths, making what is missing. With
// given binaries nothing is built.
func (b *builder) ensure(ctx context.Context, cache string, given, paths map[string]string) error {
	var err error
	if b.version, err = pinnedVersion(b.source, b.module); err != nil {
		return err
	}
	b.target = filepath.Join(cache, b.folder+"-"+b.version)
	missing := func() (names []string) {
		for name := range b.packages {
			if paths[name] = filepath.Join(b.target, name); given != nil {
				paths[name] = given[name]
			} else if !executable(paths[name]) {
				names = append(names, name)
			}
		}
		for name := range b.files {
			if paths[name] = filepath.Join(b.target, name+".yaml"); !exists(paths[name]) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	if len(missing()) == 0 {
		return nil
	}
	if err := os.MkdirAll(b.target, 0o755); err != nil {
		return fmt.Errorf("make the cache of control plane binaries: %w", err)
	}
	unlock, err := lockFile(ctx, b.target+".lock", b.progress)
	if err != nil {
		return err
	}
	defer unlock()
	b.sweep()
	for _, name := range missing() {
		if b.packages[name] != "" {
			err = b.build(ctx, name)
		} else {
			err = b.extract(ctx, name)
		}
		if err != nil {
			return fmt.Errorf("%w; `cd %s && go mod download` shows whether the modules can be had", err, filepath.Join("integration", "controlplane", b.folder))
		}
	}
	return nil
}

// sweep removes what a builder that was killed left unfinished.
func (b *builder) sweep() {
	unfinished, _ := filepath.Glob(filepath.Join(b.target, ".*"))
	for _, path := range unfinished {
		os.Remove(path)
	}
}

func (b *builder) build(ctx context.Context, name string) error {
	begin := time.Now()
	flags := "-s -w"
	if b.folder == "kubernetes" {
		part := strings.Split(strings.TrimPrefix(b.version, "v"), ".")
		const version = " -X k8s.io/component-base/version."
		flags += version + "gitVersion=" + b.version + version + "gitMajor=" + part[0] + version + "gitMinor=" + part[1]
	}
	aside := filepath.Join(b.target, fmt.Sprintf(".%s.%d", name, os.Getpid()))
	defer os.Remove(aside)
	done := make(chan struct{})
	defer close(done)
	go b.report(name, begin, done)
	if _, err := b.goCommand(ctx, "build", "-trimpath", "-tags", b.tags, "-ldflags", flags, "-o", aside, b.packages[name]); err != nil {
		return fmt.Errorf("build %s %s: %w", name, b.version, err)
	}
	if err := os.Rename(aside, filepath.Join(b.target, name)); err != nil {
		return fmt.Errorf("build %s %s: %w", name, b.version, err)
	}
	fmt.Fprintf(b.progress, "controlplane: built %s %s in %.0f s\n", name, b.version, time.Since(begin).Seconds())
	return nil
}

// report says now and then that a build is still going on.
func (b *builder) report(name string, begin time.Time, done <-chan struct{}) {
	fmt.Fprintf(b.progress, "controlplane: building %s %s, once (kept in %s)\n", name, b.version, b.target)
	tick := time.NewTicker(20 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			fmt.Fprintf(b.progress, "controlplane: building %s %s, %.0f s so far\n", name, b.version, time.Since(begin).Seconds())
		}
	}
}

// extract copies a module's own files: they would not survive `go clean -modcache` there.
func (b *builder) extract(ctx context.Context, name string) error {
	out, err := b.goCommand(ctx, "mod", "download", "-json", b.module+"@"+b.version)
	if err != nil {
		return fmt.Errorf("download %s %s: %w", b.module, b.version, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return fmt.Errorf("download %s %s: %w", b.module, b.version, err)
	}
	var all []byte
	for _, pattern := range alternatives(b.files[name]) {
		paths, err := filepath.Glob(filepath.Join(module.Dir, pattern))
		if err != nil || len(paths) == 0 {
			return fmt.Errorf("find %s in %s %s: nothing matches", pattern, b.module, b.version)
		}
		for _, path := range paths {
			if filepath.Base(path) == "kustomization.yaml" {
				continue
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all = append(append(all, data...), "\n---\n"...)
		}
	}
	return writeAside(filepath.Join(b.target, name+".yaml"), all)
}

// alternatives expands one {a,b} in a pattern.
func alternatives(pattern string) []string {
	before, rest, found := strings.Cut(pattern, "{")
	if !found {
		return []string{pattern}
	}
	list, after, _ := strings.Cut(rest, "}")
	var out []string
	for a := range strings.SplitSeq(list, ",") {
		out = append(out, before+a+after)
	}
	return out
}

// goCommand runs go in the nested module, for this machine whatever the caller builds for.
func (b *builder) goCommand(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.source
	for _, kv := range os.Environ() {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "GOOS", "GOARCH", "GOFLAGS", "GOWORK", "CGO_ENABLED", "PWD":
		default:
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "CGO_ENABLED=0", "GOWORK=off", "PWD="+b.source)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return nil, fmt.Errorf("go %s: %w\n  %s", args[0], err, strings.Join(lines[max(0, len(lines)-10):], "\n  "))
	}
	return out, nil
}
