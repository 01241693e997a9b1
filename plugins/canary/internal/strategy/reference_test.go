package strategy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// reference clones the public reference distribution, which is not part of this project.
func reference(t *testing.T) (dir string) {
	t.Helper()
	bundle, err := filepath.Abs("../../../../../shared/distributions/app-distribution.gitbundle")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bundle); err != nil {
		t.Skip("the reference input is absent: ../shared/distributions/app-distribution.gitbundle")
	}
	dir = filepath.Join(t.TempDir(), "app")
	run(t, "git", "clone", "-q", bundle, dir)
	return dir
}

func run(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v %s", command, err, out)
	}
}

func build(t *testing.T, repo, tag, variant string) []strategy.Object {
	t.Helper()
	run(t, "git", "-C", repo, "checkout", "-q", tag)
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(repo, "dist", variant))
	if err != nil {
		t.Fatal(err)
	}
	text, err := rendered.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return objects(t, string(text))
}

// Every Canary of every variant is understood whole, in both versions of the API, except the one
// expression that no router can evaluate.
func TestReferenceDistribution(t *testing.T) {
	repo := reference(t)
	want := map[string]string{
		"app-kubernetes": "backend BlueGreen 0%x5 100%x1; cache BlueGreen 0%x10 100%x1; database BlueGreen 0%x10 100%x1; frontend BlueGreen 0%x5 100%x1",
		"app-istio": "backend Progressive 10%x1 20%x1 30%x1 40%x1 50%x1; cache BlueGreen 0%x5 100%x1; database Mirror 0%+100%x10 100%x1; " +
			"frontend ABTest 100%of-matchesx10",
		"app-linkerd": "backend Progressive 10%x1 20%x1 30%x1 40%x1 50%x1; cache BlueGreen 0%x5 100%x1; database BlueGreen 0%x10 100%x1; " +
			"frontend Progressive 10%x1 20%x1 30%x1 40%x1 50%x1",
	}
	routers := map[string]string{"app-kubernetes": strategy.RouterNone, "app-istio": strategy.RouterIstio, "app-linkerd": strategy.RouterLinkerd}
	for _, tag := range []string{"1.0.0", "1.1.0", "1.2.0", "1.4.0", "2.0.0"} {
		for variant, router := range routers {
			all := build(t, repo, tag, variant)
			release, err := strategy.Read(all, strategy.Options{Router: router})
			if err != nil {
				t.Fatalf("%s %s: %v", tag, variant, err)
			}
			if got := courses(release.Services); got != want[variant] {
				t.Errorf("%s %s:\n got %s\nwant %s", tag, variant, got, want[variant])
			}
			for _, w := range release.Warnings {
				if variant != "app-istio" || !strings.Contains(w.String(), "match[0].headers.user-agent.regex: is no RE2 expression") {
					t.Errorf("%s %s: %v", tag, variant, w)
				}
			}
			for _, s := range release.Services {
				if s.Interval.String() != "10s" || s.Threshold != 10 || len(s.Metrics) != 2 || len(s.Webhooks) != 2 || s.Webhooks[0].Type != strategy.PreRollout ||
					s.Webhooks[1].Type != strategy.Rollout || s.ProgressDeadline.String() != "1m0s" || s.Autoscaler.Name != s.Name || s.HasService || len(s.Ports) != 3 {
					t.Errorf("%s %s: %+v", tag, variant, s)
				}
			}
		}
	}
}

// From 1.1.0 to 1.2.0 the backend's configuration changes: its candidate needs the new hashed ConfigMap
// beside the one that runs, and nothing of the stable side is in what is applied.
func TestReferenceCandidates(t *testing.T) {
	repo := reference(t)
	stable, next := build(t, repo, "1.1.0", "app-kubernetes"), build(t, repo, "1.2.0", "app-kubernetes")
	release, err := strategy.Read(next, strategy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	running := map[string]bool{}
	for _, o := range stable {
		running[name(o)] = true
	}
	for _, s := range release.Services {
		c, err := s.MakeCandidate(stable, next, strategy.Making{})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Warnings) > 0 || (s.Name == "backend") != (len(c.Needs) == 1) {
			t.Errorf("%s: needs %d objects, warnings %v", s.Name, len(c.Needs), c.Warnings)
		}
		for _, o := range c.Objects() {
			js, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			objs, err := manifest.FromJSON(js)
			if problems := manifest.Validate(objs); err != nil || len(problems) > 0 {
				t.Errorf("%s: %v, %v", name(o), err, problems)
			}
			if running[name(o)] {
				t.Errorf("%s: %s is of the stable side", s.Name, name(o))
			}
		}
	}
}

func name(o strategy.Object) string {
	m, _ := o["metadata"].(map[string]any)
	return fmt.Sprint(o["kind"], " ", m["namespace"], "/", m["name"])
}

// courses writes services in one line.
func courses(services []strategy.Service) string {
	var out []string
	for _, s := range services {
		line := s.Name + " " + string(s.Strategy)
		for _, step := range s.Steps {
			line += fmt.Sprintf(" %d%%", step.Weight)
			if step.Mirror > 0 {
				line += fmt.Sprintf("+%d%%", step.Mirror)
			}
			if step.Matched {
				line += "of-matches"
			}
			line += fmt.Sprintf("x%d", step.Passes)
		}
		if len(s.Return) > 0 {
			line += fmt.Sprintf(" back %v", s.Return)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}
