package agent_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// pruneCase is one of the ways in which fleet and GitOps tools have deleted what nobody asked them to
// delete.
type pruneCase struct {
	name    string
	do      func(t *testing.T, s *stage, stop func()) (stopped func())
	prepare func(s *stage)
	// consented are the ends of the paths of what may be deleted.
	consented []string
}

// names are enough objects for the deletion budget to matter: 5 may go unasked, the other 7 not.
var names = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}

func (s *stage) restart(t *testing.T, stop func(), between func()) func() {
	t.Helper()
	stop()
	between()
	return s.start(nil)
}

// again waits until the spoke has looked at everything once more, by an upgrade that it must take whole.
func (s *stage) upgraded(t *testing.T, version string, extra ...string) {
	t.Helper()
	s.vendor.release(t, version, app(version, good, extra...))
	s.offer()
	s.reaches(fleet.Succeeded, version, version)
}

func (s *stage) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.cluster.Kubectl(append([]string{"-n", s.ns}, args...)...)
	if err != nil {
		t.Fatal(out, err)
	}
	return out
}

func pruneCases() []pruneCase {
	empty := map[string]string{"kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: []\n"}
	broken := map[string]string{"kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [gone.yaml]\n"}
	crd := func(ns string) map[string]string {
		g := ns + ".example.com"
		return map[string]string{
			"crd.yaml":     "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: toys." + g + "}\nspec:\n  group: " + g + "\n  scope: Namespaced\n  names: {plural: toys, singular: toy, kind: Toy}\n  versions:\n  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}\n",
			"toy.yaml":     "apiVersion: " + g + "/v1\nkind: Toy\nmetadata: {name: one}\n",
			"a-claim.yaml": "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n",
		}
	}
	return []pruneCase{
		{name: "a release that renders to nothing", do: func(t *testing.T, s *stage, stop func()) func() {
			s.vendor.release(t, "1.1.0", empty)
			s.offer()
			s.reaches(fleet.Refused, "1.1.0", "1.0.0")
			return stop
		}},
		{name: "a release that does not render", do: func(t *testing.T, s *stage, stop func()) func() {
			s.vendor.release(t, "1.1.0", broken)
			s.offer()
			s.reaches(fleet.Refused, "1.1.0", "1.0.0")
			return stop
		}},
		{name: "inventory and journal lost", do: func(t *testing.T, s *stage, stop func()) func() {
			stop = s.restart(t, stop, func() {
				s.kubectl(t, "delete", "configmap", "wheelwright-shop")
				remove(t, filepath.Join(s.dir, "journal.db"))
			})
			s.offer()
			s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
			s.mustBeWhole("1.0.0", names...)
			return stop
		}},
		{name: "inventory and journal damaged", do: func(t *testing.T, s *stage, stop func()) func() {
			stop = s.restart(t, stop, func() {
				s.kubectl(t, "patch", "configmap", "wheelwright-shop", "--type=merge", "-p", `{"binaryData":{"inventory.json.gz":"bm90IGd6aXA="}}`)
				damage(t, filepath.Join(s.dir, "journal.db"))
			})
			s.offer()
			s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
			s.mustBeWhole("1.0.0", names...)
			if s.journal.SetAside() == "" {
				t.Error("the journal was not damaged")
			}
			return stop
		}},
		{name: "an overlay that renames everything", prepare: plainly, do: func(t *testing.T, s *stage, stop func()) func() {
			s.overlay.write(map[string]string{"kustomization.yaml": "resources:\n- " + url + "//dist/app\nnamePrefix: other-\n"})
			i := s.reaches(fleet.AwaitingApproval, "1.0.0", "1.0.0")
			if !strings.Contains(i.Reason, "12 of 12 objects") {
				t.Errorf("it does not say what is asked: %s", i.Reason)
			}
			s.mustBeWhole("1.0.0", names...)
			return stop
		}},
		{name: "copied labels", consented: []string{"configmaps/j"}, do: func(t *testing.T, s *stage, stop func()) func() {
			labels := s.kubectl(t, "get", "configmap", "j", "-o", `jsonpath={range .metadata.labels}{@}{end}`)
			if !strings.Contains(labels, "wheelwright.dev/distribution") {
				t.Fatal("no label to copy:", labels)
			}
			s.kubectl(t, "create", "configmap", "theirs")
			part := s.kubectl(t, "get", "configmap", "j", "-o", `jsonpath={.metadata.labels.applyset\.kubernetes\.io/part-of}`)
			s.kubectl(t, "label", "configmap", "theirs", "wheelwright.dev/distribution=shop", "applyset.kubernetes.io/part-of="+part)
			s.upgraded(t, "1.1.0", names[:9]...)
			s.kubectl(t, "get", "configmap", "theirs")
			return stop
		}},
		{name: "another object in the place of ours", do: func(t *testing.T, s *stage, stop func()) func() {
			stop = s.restart(t, stop, func() {
				s.kubectl(t, "delete", "configmap", "j")
				s.kubectl(t, "create", "configmap", "j")
				s.kubectl(t, "label", "configmap", "j", "wheelwright.dev/distribution=shop")
				s.vendor.release(t, "1.1.0", app("1.1.0", good, names[:9]...))
				s.sub.Terms.Drift = terms.Leave // else it is taken over as put back
			})
			s.offer()
			s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
			s.kubectl(t, "get", "configmap", "j")
			return stop
		}},
		{name: "a spoke joined again", do: func(t *testing.T, s *stage, stop func()) func() {
			stop = s.restart(t, stop, func() { s.dir = t.TempDir() })
			s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
			s.offer()
			s.mustBeWhole("1.0.0", names...)
			return stop
		}},
		{name: "a hub restored from an older backup", do: func(t *testing.T, s *stage, stop func()) func() {
			s.upgraded(t, "1.1.0", names...)
			s.vendor.mu.Lock()
			s.vendor.offer = s.vendor.offer[:1]
			s.vendor.mu.Unlock()
			s.offer()
			stop = s.restart(t, stop, func() {})
			s.offer()
			s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
			s.mustBeWhole("1.1.0", names...)
			return stop
		}},
		{name: "a hub that answers with nothing", do: func(t *testing.T, s *stage, stop func()) func() {
			for _, d := range []*syncv1.DesiredState{{}, {Revision: 9}, {Revision: 10, Distributions: []*syncv1.DistributionOffers{{Distribution: "shop", Url: url, Path: "dist"}}}} {
				if err := s.agent.SetDesired(d); err != nil {
					t.Fatal(err)
				}
				stop = s.restart(t, stop, func() {})
			}
			s.offer()
			s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
			s.mustBeWhole("1.0.0", names...)
			return stop
		}},
		{name: "a definition gone, and data that the release no longer has", consented: nil, do: func(t *testing.T, s *stage, stop func()) func() {
			s.vendor.release(t, "1.1.0", with(app("1.1.0", good, names...), crd(s.ns)))
			s.offer()
			s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
			stop = s.restart(t, stop, func() {
				s.kubectl(t, "delete", "crd", "toys."+s.ns+".example.com")
				s.sub.Terms.Drift = terms.Leave // else it is made again first
			})
			s.upgraded(t, "1.2.0", names...)
			s.kubectl(t, "get", "pvc", "data")
			return stop
		}},
		{name: "a namespace gone", prepare: plainly, do: func(t *testing.T, s *stage, stop func()) func() {
			other := s.ns + "-more"
			far := map[string]string{
				"ns.yaml":  "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + other + "}\n",
				"far.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: far, namespace: " + other + "}\ndata: {a: b}\n",
			}
			s.vendor.release(t, "1.1.0", with(app("1.1.0", good, names...), far))
			s.offer()
			s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
			stop = s.restart(t, stop, func() {
				s.kubectl(t, "delete", "namespace", other)
				s.vendor.release(t, "1.2.0", app("1.2.0", good, names...))
			})
			s.offer()
			s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")
			s.mustBeWhole("1.2.0", names...)
			return stop
		}},
		{name: "a subscription that moved to another namespace", do: func(t *testing.T, s *stage, stop func()) func() {
			other := s.cluster.NewNamespace(t)
			stop = s.restart(t, stop, func() { s.sub.Namespace = other })
			s.offer()
			i := s.reaches(fleet.AwaitingApproval, "1.0.0", "1.0.0")
			if !strings.Contains(i.Reason, "deletes") {
				t.Errorf("it does not say what is asked: %s", i.Reason)
			}
			s.mustBeWhole("1.0.0", names...)
			return stop
		}},
	}
}

// plainly lays an overlay over the release that changes nothing, and leaves namespaces as they are.
func plainly(s *stage) {
	s.sub.Overlay = config.Overlay{Path: "/provider"}
	s.overlay.write(map[string]string{"kustomization.yaml": "resources:\n- " + url + "//dist/app\n"})
}

// TestPruneMatrix takes a cluster through what has made others delete too much. A deletion counts as
// consented where a verified release within the budget no longer has the object.
func TestPruneMatrix(t *testing.T) {
	cases := pruneCases()
	if testing.Short() {
		cases = cases[:3]
	}
	var mu sync.Mutex
	unconsented := 0
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s := newStage(t)
				if c.prepare != nil {
					c.prepare(s)
				}
				mark := s.cluster.MarkRequests(t)
				stop := s.installed("1.0.0", names...)
				c.do(t, s, stop)()
				for _, r := range s.cluster.Requests(t, mark, "wheelwright") {
					path, _, _ := strings.Cut(r.URI, "?")
					ours := strings.Contains(path, s.ns)
					allowed := slices.ContainsFunc(c.consented, func(end string) bool { return strings.HasSuffix(path, end) })
					if strings.HasPrefix(r.Verb, "delete") && r.Code < 400 && ours && !r.DryRun() && !allowed {
						mu.Lock()
						unconsented++
						mu.Unlock()
						t.Errorf("deleted unasked: %s", path)
					}
				}
			})
		}
	})
	fmt.Printf("FIGURE prune.cases %d cases\n", len(cases))
	fmt.Printf("FIGURE prune.unconsented-deletions %d deletions of %d cases\n", unconsented, len(cases))
}
