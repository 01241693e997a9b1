// Package controlplane builds etcd, Kubernetes' own programs, kwok and Prometheus at the versions that the
// nested modules beside it pin, once, into a cache in the user's cache folder, and takes kwok's stages and
// the CRDs of Flagger, the Gateway API and Istio out of their modules. It starts nothing: package harness does.
//
// KUBEBUILDER_ASSETS names a folder of binaries to use instead, WHEELWRIGHT_CACHE another cache.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Dir finds the control plane's binaries and files.
type Dir struct {
	paths map[string]string
}

// Path of a binary (etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubectl, kwok, prometheus;
// where asked for by name kubelet, kube-proxy, coredns, podinfo, podcli, flagger, loadtester, rollouts-controller, hey too) or file
// (stages, flagger-crd, argorollouts-crd, gatewayapi-crd, istio-crd); empty where it is not to be had.
func (d Dir) Path(name string) string { return d.paths[name] }

// pin is one nested module below integration/controlplane: what is built or copied out of it.
type pin struct {
	folder   string            // below integration/controlplane
	module   string            // the module whose version names the cache folder
	packages map[string]string // binary -> package
	onDemand map[string]string // the same, built only when asked for by name: what the real node needs
	tags     string            // build tags
	files    map[string]string // file in the cache -> glob inside the module, several files joined
}

func pins() []pin {
	return []pin{
		{folder: "kubernetes", module: "k8s.io/kubernetes", packages: map[string]string{
			"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
			"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
			"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
			"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
		}, onDemand: map[string]string{
			"kubelet":    "k8s.io/kubernetes/cmd/kubelet",
			"kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
		}},
		{folder: "etcd", module: "go.etcd.io/etcd/server/v3", packages: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"}},
		{folder: "kwok", module: "sigs.k8s.io/kwok", packages: map[string]string{"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
			files: map[string]string{"stages": "kustomize/stage/{pod/fast,node/fast,node/heartbeat-with-lease}/*.yaml"}},
		// Of its service discoveries only Kubernetes' (and files and static ones, which are always there): the
		// clouds' libraries are most of the build.
		{folder: "prometheus", module: "github.com/prometheus/prometheus", packages: map[string]string{"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"},
			tags: "remove_all_sd,enable_kubernetes_sd"},
		{folder: "flagger", module: "github.com/fluxcd/flagger", files: map[string]string{"flagger-crd": "artifacts/flagger/crd.yaml"},
			onDemand: map[string]string{
				"flagger":    "github.com/fluxcd/flagger/cmd/flagger",
				"loadtester": "github.com/fluxcd/flagger/cmd/loadtester",
			}},
		{folder: "argorollouts", module: "github.com/argoproj/argo-rollouts", files: map[string]string{"argorollouts-crd": "manifests/crds/*.yaml"},
			onDemand: map[string]string{"rollouts-controller": "github.com/argoproj/argo-rollouts/cmd/rollouts-controller"}},
		{folder: "gatewayapi", module: "sigs.k8s.io/gateway-api", files: map[string]string{"gatewayapi-crd": "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"}},
		{folder: "coredns", module: "github.com/coredns/coredns", onDemand: map[string]string{"coredns": "github.com/coredns/coredns"}},
		{folder: "podinfo", module: "github.com/stefanprodan/podinfo", onDemand: map[string]string{
			"podinfo": "github.com/stefanprodan/podinfo/cmd/podinfo",
			"podcli":  "github.com/stefanprodan/podinfo/cmd/podcli",
		}},
		{folder: "hey", module: "github.com/rakyll/hey", onDemand: map[string]string{"hey": "github.com/rakyll/hey"}},
		{folder: "istio", module: "istio.io/api", files: map[string]string{"istio-crd": "kubernetes/customresourcedefinitions.gen.yaml"}},
	}
}

// binaries are all that the pin can build.
func (p pin) binaries() map[string]string {
	all := map[string]string{}
	maps.Copy(all, p.packages)
	maps.Copy(all, p.onDemand)
	return all
}

// Binaries finds what is named, the simulated clusters' needs where nothing is, and makes what is missing
// into the cache, one process at a time. From nothing those needs take about ten minutes on two cores and
// half a gigabyte of disk, what only the real node needs some five minutes more; later it takes
// milliseconds. Lines about what is built go to progress.
func Binaries(ctx context.Context, progress io.Writer, names ...string) (Dir, error) {
	root, err := projectRoot()
	if err != nil {
		return Dir{}, err
	}
	cache, err := cacheFolder()
	if err != nil {
		return Dir{}, err
	}
	d := Dir{paths: map[string]string{}}
	given := assets()
	for _, p := range pins() {
		if len(names) > 0 {
			p.packages = p.binaries()
			unwanted := func(name, _ string) bool { return !slices.Contains(names, name) }
			maps.DeleteFunc(p.packages, unwanted)
			maps.DeleteFunc(p.files, unwanted)
		}
		b := builder{pin: p, source: filepath.Join(root, "integration", "controlplane", p.folder), progress: progress}
		if err := b.ensure(ctx, cache, given, d.paths); err != nil {
			return Dir{}, err
		}
	}
	return d, nil
}

// Built is the path of a binary that is there already, given or in the cache; empty where it is not. It
// makes nothing, so that a quick test can do without.
func Built(name string) string {
	if given := assets(); given != nil {
		return given[name]
	}
	root, err := projectRoot()
	if err != nil {
		return ""
	}
	cache, err := cacheFolder()
	if err != nil {
		return ""
	}
	for _, p := range pins() {
		version, err := pinnedVersion(filepath.Join(root, "integration", "controlplane", p.folder), p.module)
		path := filepath.Join(cache, p.folder+"-"+version, name)
		if err == nil && p.binaries()[name] != "" && executable(path) {
			return path
		}
	}
	return ""
}

// FlaggerCRD is the path of Flagger's own CustomResourceDefinitions; it needs no cluster.
func FlaggerCRD(ctx context.Context) (string, error) {
	d, err := Binaries(ctx, os.Stderr, "flagger-crd")
	return d.Path("flagger-crd"), err
}

// RouteCRDs are the paths of the Gateway API's and Istio's own CustomResourceDefinitions; they need no cluster.
func RouteCRDs(ctx context.Context) (gatewayAPI, istio string, err error) {
	d, err := Binaries(ctx, os.Stderr, "gatewayapi-crd", "istio-crd")
	return d.Path("gatewayapi-crd"), d.Path("istio-crd"), err
}

// RolloutsCRD is the path of Argo Rollouts' own CustomResourceDefinitions; it needs no cluster.
func RolloutsCRD(ctx context.Context) (string, error) {
	d, err := Binaries(ctx, os.Stderr, "argorollouts-crd")
	return d.Path("argorollouts-crd"), err
}

// assets lists the binaries in KUBEBUILDER_ASSETS; nil where that is not set.
func assets() map[string]string {
	folder := os.Getenv("KUBEBUILDER_ASSETS")
	if folder == "" {
		return nil
	}
	found := map[string]string{}
	for _, p := range pins() {
		for name := range p.binaries() {
			if path := filepath.Join(folder, name); executable(path) {
				found[name] = path
			}
		}
	}
	return found
}

// projectRoot is the folder of the project's go.mod, found upwards from the working directory.
func projectRoot() (string, error) {
	const module = "module github.com/wheelwright-dev/wheelwright\n"
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the project's root: %w", err)
	}
	for at := dir; ; at = filepath.Dir(at) {
		if data, err := os.ReadFile(filepath.Join(at, "go.mod")); err == nil && strings.HasPrefix(string(data), module) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find the project's root: no go.mod of Wheelwright in %s or above: run this inside the source tree", dir)
		}
	}
}

func cacheFolder() (string, error) {
	base := os.Getenv("WHEELWRIGHT_CACHE")
	if base == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache folder (WHEELWRIGHT_CACHE can name one): %w", err)
		}
		base = filepath.Join(user, "wheelwright")
	}
	base, err := filepath.Abs(base)
	return filepath.Join(base, "controlplane"), err
}

// pinnedVersion reads the version of a module from a nested go.mod.
func pinnedVersion(folder, module string) (string, error) {
	data, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil {
		return "", fmt.Errorf("read the pinned version of %s: %w", module, err)
	}
	match := regexp.MustCompile(`(?m)^(?:require)?\s*` + regexp.QuoteMeta(module) + ` (v[^\s]+)`).FindSubmatch(data)
	if match == nil {
		return "", fmt.Errorf("read the pinned version of %s: %s does not require it", module, filepath.Join(folder, "go.mod"))
	}
	return string(match[1]), nil
}

// lockFile waits for the lock on path, which dies with its holder.
func lockFile(ctx context.Context, path string, progress io.Writer) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock the cache of control plane binaries: %w", err)
	}
	begin, said := time.Now(), time.Time{}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			break
		}
		if time.Since(said) > 20*time.Second {
			said = time.Now()
			fmt.Fprintf(progress, "controlplane: another process is building into %s, waiting (%.0f s so far)\n", strings.TrimSuffix(path, ".lock"), time.Since(begin).Seconds())
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("wait for %s: %w", path, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

func writeAside(path string, data []byte) error {
	aside := filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%d", filepath.Base(path), os.Getpid()))
	defer os.Remove(aside)
	if err := os.WriteFile(aside, data, 0o644); err != nil {
		return err
	}
	return os.Rename(aside, path)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
