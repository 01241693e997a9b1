package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const testVersion = "9.9.9-rc.1"

// sources copies what the programs are built from into a folder of its own.
func sources(t *testing.T, programs []string) string {
	t.Helper()
	args := []string{"list", "-deps", "-f", "{{with .Module}}{{if .Main}}{{$.Dir}}{{end}}{{end}}"}
	for _, p := range programs {
		args = append(args, source(p))
	}
	c := exec.CommandContext(t.Context(), "go", args...)
	c.Dir = "../.."
	out, err := c.Output()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	copyFile := func(name string) {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755), os.WriteFile(filepath.Join(to, name), data, 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	copyFile("go.mod")
	copyFile("go.sum")
	for _, dir := range strings.Fields(string(out)) {
		rel, err := filepath.Rel(root, dir)
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Type().IsRegular() {
				copyFile(filepath.Join(rel, e.Name()))
			}
		}
	}
	return to
}

func read(t *testing.T, elements ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestRelease: the same sources in two folders give the same bytes, the sums are theirs, and the bill names
// all that the binaries are made of. WHEELWRIGHT_FIGURES builds everything, the second time from nothing.
func TestRelease(t *testing.T) {
	r := release{version: testVersion, commit: "0123456789", platforms: []string{"linux/" + runtime.GOARCH}, programs: []string{"plugins/notify"}}
	all := os.Getenv("WHEELWRIGHT_FIGURES") != ""
	if all {
		r.platforms, r.programs = []string{"linux/amd64", "linux/arm64"}, []string{"hub", "spoke", "plugins/canary", "plugins/conformance", "plugins/notify"}
	}
	var outs []string
	for i := range 2 {
		if i == 1 && all {
			t.Setenv("GOCACHE", t.TempDir())
		}
		r.dir, r.out = sources(t, r.programs), t.TempDir()
		if err := r.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		outs = append(outs, r.out)
	}
	sums := string(read(t, outs[0], "SHA256SUMS"))
	entries, err := os.ReadDir(outs[0])
	if err != nil || len(entries) != 2*len(r.platforms)+1 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		one, two := read(t, outs[0], e.Name()), read(t, outs[1], e.Name())
		if !bytes.Equal(one, two) {
			t.Errorf("%s differs between two builds", e.Name())
		}
		line := fmt.Sprintf("%x  %s\n", sha256.Sum256(one), e.Name())
		if e.Name() != "SHA256SUMS" && !strings.Contains(sums, line) {
			t.Errorf("SHA256SUMS lacks %q:\n%s", line, sums)
		}
	}
	for _, platform := range r.platforms {
		stem := fmt.Sprintf("wheelwright_%s_%s", testVersion, strings.ReplaceAll(platform, "/", "_"))
		checkBill(t, read(t, outs[0], stem+".cdx.json"), unpack(t, stem, read(t, outs[0], stem+".tar.gz"), r.programs))
	}
}

// unpack reads the archive and checks that nothing in it is of this machine.
func unpack(t *testing.T, stem string, archive []byte, programs []string) map[string][]byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if !z.ModTime.IsZero() || z.Name != "" {
		t.Errorf("%s: gzip header %+v", stem, z.Header)
	}
	found := map[string][]byte{}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	goroot, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	for entries := tar.NewReader(z); ; {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Mode != 0o755 {
			t.Errorf("%s: %+v", h.Name, h)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		data, err := io.ReadAll(entries)
		if err != nil {
			t.Fatal(err)
		}
		for _, own := range []string{root, os.TempDir() + "/", strings.TrimSpace(string(goroot)) + "/"} {
			if len(own) > 5 && bytes.Contains(data, []byte(own)) {
				t.Errorf("%s holds %s", h.Name, own)
			}
		}
		if !bytes.Contains(data, []byte(testVersion)) {
			t.Errorf("%s does not know its version", h.Name)
		}
		found[strings.TrimPrefix(h.Name, stem+"/")] = data
	}
	for _, p := range programs {
		if found[p] == nil {
			t.Errorf("%s has no %s", stem, p)
		}
	}
	return found
}

// checkBill compares the bill with what the binaries say of themselves.
func checkBill(t *testing.T, text []byte, binaries map[string][]byte) {
	t.Helper()
	var bill billDocument
	if err := json.Unmarshal(text, &bill); err != nil {
		t.Fatal(err)
	}
	by, over := map[string]component{}, map[string][]string{}
	for _, c := range bill.Components {
		if _, twice := by[c.Ref]; twice {
			t.Errorf("%s stands there twice", c.Ref)
		}
		by[c.Ref] = c
	}
	for _, d := range bill.Dependencies {
		over[d.Ref] = d.Over
	}
	if c := bill.Metadata.Component; c.Name != module || c.Version != testVersion {
		t.Errorf("the bill is of %s %s", c.Name, c.Version)
	}
	modules := 0
	for name, data := range binaries {
		info, err := buildinfo.Read(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		ref := "binary:" + name
		if h := by[ref].Hashes; len(h) != 1 || h[0] != (hash{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(data))}) {
			t.Errorf("%s: %v", name, h)
		}
		if !slices.Contains(by[ref].Properties, property{"wheelwright:go", info.GoVersion}) || !slices.Contains(by[ref].Properties, property{"wheelwright:build:-trimpath", "true"}) {
			t.Errorf("%s: how it was built: %v", name, by[ref].Properties)
		}
		if len(over[ref]) != len(info.Deps)+1 || !slices.Contains(over[ref], purl("std", info.GoVersion)) {
			t.Errorf("%s has %d modules, the bill %d", name, len(info.Deps), len(over[ref]))
		}
		for _, m := range info.Deps {
			modules++
			c := by[purl(m.Path, m.Version)]
			if c.Name != m.Path || c.Version != m.Version || !slices.Contains(c.Properties, property{"wheelwright:go.sum", m.Sum}) || !slices.Contains(over[ref], c.Ref) {
				t.Errorf("%s: %s %s %s is in the bill as %+v", name, m.Path, m.Version, m.Sum, c)
			}
		}
	}
	if modules == 0 {
		t.Error("no modules at all")
	}
}

func TestReleaseRefuses(t *testing.T) {
	for version, want := range map[string]string{"": "VERSION=", "1.0.0-3-gabc-dirty": "commit them", "../1.0.0": "file's name"} {
		r := release{version: version, out: t.TempDir()}
		if err := r.run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", version, err, want)
		}
	}
}
