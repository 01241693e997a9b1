package render

import (
	"encoding/gob"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Layers are what stands between a kustomization and the machine. Only this child of the tests can leave
// one out: what ships has no such switch.
func Layers() []string {
	return []string{"scan", "options", "tree", "transport", "environment", "seccomp", "landlock"}
}

// EscapeName is the first argument of a child that renders with layers missing.
const EscapeName = "wheelwright-escape"

// EscapeWork is what that child is given.
type EscapeWork struct {
	Off     []string
	Dir     string // of the sources on disk, each in a folder of its number, with release and overlay below
	Sources []Source
}

// EscapeResult is what came of one source.
type EscapeResult struct {
	Refused  bool // by the scan
	Problem  string
	Manifest string
}

// EscapeMain is the child. It marks on its standard error where each source begins, for the trace.
func EscapeMain() bool {
	if len(os.Args) < 2 || os.Args[1] != EscapeName {
		return false
	}
	var work EscapeWork
	if err := gob.NewDecoder(os.Stdin).Decode(&work); err != nil {
		fmt.Fprintln(os.Stderr, "escape:", err)
		os.Exit(1)
	}
	off := func(layer string) bool { return slices.Contains(work.Off, layer) }
	if !off("transport") {
		denyHTTP()
	}
	if len(work.Off) <= 1 {
		closeInherited()
		limitSelf()
	}
	must := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "escape: %s: %v\n", what, err)
			os.Exit(1)
		}
	}
	if !off("landlock") && landlockABI() > 0 {
		must("landlock", restrictFiles())
	}
	if !off("seccomp") && auditArch != 0 {
		must("seccomp", filterSyscalls())
	}
	runtime.LockOSThread()
	var results []EscapeResult
	for i, src := range work.Sources {
		fmt.Fprintf(os.Stderr, "== %d\n", i)
		results = append(results, escape(src, work, i, off))
	}
	fmt.Fprintf(os.Stderr, "== done\n")
	must("answer", json.NewEncoder(os.Stdout).Encode(results))
	os.Exit(0)
	return true
}

// escape renders as build does, but for what is switched off.
func escape(src Source, work EscapeWork, i int, off func(string) bool) (res EscapeResult) {
	defer func() {
		if p := recover(); p != nil {
			res.Problem = fmt.Sprint("panic: ", p)
		}
	}()
	t := newTree()
	t.mount(releaseRoot, src.Bundle)
	s := newScan(t, src, Limits{}.withDefaults())
	root, err := s.root()
	if err != nil {
		return EscapeResult{Refused: true, Problem: err.Error()}
	}
	if !off("scan") {
		s.walk(root)
		if s.weigh(root); len(s.problems) > 0 {
			return EscapeResult{Refused: true, Problem: strings.Join(s.problems, "; ")}
		}
	}
	var files filesys.FileSystem = t
	if off("tree") {
		files, root = filesys.MakeFsOnDisk(), filepath.Join(work.Dir, fmt.Sprint(i), path.Clean("/"+root))
	}
	opts := krusty.MakeDefaultOptions()
	if off("options") {
		opts.LoadRestrictions = types.LoadRestrictionsNone
		opts.PluginConfig = types.EnabledPluginConfig(types.BploUseStaticallyLinked)
		opts.PluginConfig.FnpLoadingOptions = types.FnPluginLoadingOptions{EnableExec: true, Network: true, NetworkName: "host"}
		opts.PluginConfig.HelmConfig = types.HelmConfig{Enabled: true, Command: "helm"}
	}
	rendered, err := krusty.MakeKustomizer(opts).Run(files, root)
	if err != nil {
		return EscapeResult{Problem: err.Error()}
	}
	text, err := rendered.AsYaml()
	if err != nil {
		return EscapeResult{Problem: err.Error()}
	}
	return EscapeResult{Manifest: string(text)}
}
