package agent_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// members is how many ConfigMaps a release of these tests has; each of them is the invalid one once.
const members = 50

// trap is one way in which a cluster refuses one object of a release.
type trap struct {
	name string
	// set makes the namespace ready, before anything is installed.
	set func(t *testing.T, s *stage)
	// arm makes it ready for one position, where so many ConfigMaps are in the namespace.
	arm func(t *testing.T, s *stage, position, there int, first bool)
	// release is the set with its invalid object at a position, after the old release or as the first.
	release func(version string, position int, first bool) map[string]string
	// ends is the phase that this leads to, says what its reason has.
	ends func(position int) fleet.Phase
	says string
}

func traps(hook denier) []trap {
	spoilt := func(spoil func(string) string) func(string, int, bool) map[string]string {
		return func(version string, position int, _ bool) map[string]string {
			files := settings(version, members)
			name := fmt.Sprintf("c%02d.yaml", position)
			files[name] = spoil(files[name])
			return kustomized(files)
		}
	}
	always := func(p fleet.Phase) func(int) fleet.Phase { return func(int) fleet.Phase { return p } }
	return []trap{
		{name: "at the dry run", ends: always(fleet.Refused), says: "not a key!",
			release: spoilt(func(text string) string { return text + "  \"not a key!\": \"\"\n" })},
		{name: "by a webhook that lets dry runs pass", ends: always(fleet.RolledBack), says: "not here", set: hook.guard,
			release: spoilt(func(text string) string {
				return strings.Replace(text, "  labels:\n", "  labels:\n    test.wheelwright.dev/denied: \"yes\"\n", 1)
			})},
		{name: "by a quota that has room for each and not for all", set: func(t *testing.T, s *stage) {
			s.kubectl(t, "create", "quota", "few", "--hard=count/configmaps=1000")
		}, arm: fill, says: "exceeded quota", ends: func(position int) fleet.Phase {
			if position == 0 {
				return fleet.Refused // there is room for none, which a dry run sees
			}
			return fleet.RolledBack
		}, release: func(version string, _ int, first bool) map[string]string {
			files := settings(version, members)
			if first {
				return kustomized(files)
			}
			for i := range members { // beside the old ones, which change
				name := fmt.Sprintf("d%02d", i)
				files[name+".yaml"] = configMap(name, version)
			}
			return kustomized(files)
		}},
	}
}

// fill leaves room for as many ConfigMaps as the position says, and waits until the cluster knows it.
func fill(t *testing.T, s *stage, position, there int, first bool) {
	t.Helper()
	room := there + position
	if first && position > 0 {
		room++ // the inventory's
	}
	s.kubectl(t, "patch", "quota", "few", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"hard":{"count/configmaps":"%d"}}}`, room))
	s.cluster.Eventually(t, "the quota to be counted", func() error {
		got := s.kubectl(t, "get", "quota", "few", "-o", `jsonpath={.status.hard.count/configmaps} {.status.used.count/configmaps}`)
		if want := fmt.Sprintf("%d %d", room, there); got != want {
			return fmt.Errorf("hard and used are %s, want %s", got, want)
		}
		return nil
	})
}

// denier is a validating webhook that denies everything it is asked about but dry runs.
type denier struct{ server *httptest.Server }

func newDenier(t *testing.T) denier {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(deny)) // with an authority of its own
	t.Cleanup(server.Close)
	return denier{server}
}

func deny(w http.ResponseWriter, r *http.Request) {
	var review struct {
		APIVersion, Kind string
		Request          struct {
			UID    string
			DryRun bool
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer, err := json.Marshal(map[string]any{"apiVersion": review.APIVersion, "kind": review.Kind, "response": map[string]any{
		"uid": review.Request.UID, "allowed": review.Request.DryRun, "status": map[string]any{"code": http.StatusForbidden, "message": "not here"}}})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer) // an API server that went away asks again
}

// guard has a namespace's ConfigMaps that bear the label go past the webhook, and waits until they do.
func (d denier) guard(t *testing.T, s *stage) {
	t.Helper()
	ca := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.server.Certificate().Raw}))
	name := s.ns + ".example.com"
	if err := s.cluster.Apply(fmt.Sprintf(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: %[1]s}
webhooks:
- name: deny.%[1]s
  failurePolicy: Fail
  sideEffects: NoneOnDryRun
  admissionReviewVersions: [v1]
  clientConfig: {url: "%[2]s", caBundle: %[3]s}
  namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: [%[4]s]}]}
  objectSelector: {matchLabels: {test.wheelwright.dev/denied: "yes"}}
  rules:
  - {apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}
`, name, d.server.URL, ca, s.ns)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.cluster.Kubectl("delete", "validatingwebhookconfiguration", name); err != nil {
			t.Error(err)
		}
	})
	s.kubectl(t, "create", "configmap", "probe")
	s.cluster.Eventually(t, "the webhook to be asked", func() error {
		_, err := s.cluster.Kubectl("-n", s.ns, "label", "--overwrite", "configmap", "probe", "test.wheelwright.dev/denied=yes")
		switch {
		case err == nil:
			s.kubectl(t, "label", "configmap", "probe", "test.wheelwright.dev/denied-")
			return errors.New("it was not")
		case !strings.Contains(err.Error(), "not here"):
			return err
		}
		return nil
	})
	s.kubectl(t, "delete", "configmap", "probe")
}

// partials counts the cases, and those that left neither all of the old release nor nothing.
type partials struct {
	mu          sync.Mutex
	cases, left int
}

func (p *partials) count(left bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cases++
	if left {
		p.left++
	}
}

// TestNoPartialState offers releases with one object that the cluster refuses, at each position, and in
// three ways: what was there before is there afterwards, and nothing else (law 7). Beside `make figures`
// every seventh position is taken.
func TestNoPartialState(t *testing.T) {
	every, blocks := 7, 1
	switch {
	case testing.Short():
		every = 25
	case os.Getenv("WHEELWRIGHT_FIGURES") != "":
		every, blocks = 1, 2
	}
	hook := newDenier(t)
	var p partials
	t.Run("ways", func(t *testing.T) {
		for _, w := range traps(hook) {
			for block := range blocks {
				var positions []int
				for n := block * every; n < members; n += every * blocks {
					positions = append(positions, n)
				}
				t.Run(fmt.Sprintf("upgrade refused %s, from %d", w.name, positions[0]), func(t *testing.T) {
					t.Parallel()
					w.upgrades(t, positions, &p)
				})
			}
			t.Run("first install refused "+w.name, func(t *testing.T) {
				t.Parallel()
				w.installs(t, []int{0, members / 2, members - 1}, &p)
			})
		}
	})
	fmt.Printf("FIGURE partial.states-left %d states of %d cases\n", p.left, p.cases)
}

func (w trap) stage(t *testing.T) *stage {
	t.Helper()
	s := newStage(t)
	s.every.Refused = time.Hour
	s.cluster.Eventually(t, "the cluster's own ConfigMap", func() error {
		_, err := s.cluster.Kubectl("-n", s.ns, "get", "configmap", "kube-root-ca.crt")
		return err
	})
	if w.set != nil {
		w.set(t, s)
	}
	return s
}

// configMaps are the names of all that are in the namespace.
func (s *stage) configMaps(t *testing.T) []string {
	t.Helper()
	return strings.Fields(s.kubectl(t, "get", "configmaps", "-o", "name"))
}

// attempt offers the release of a position and waits for its end.
func (w trap) attempt(t *testing.T, s *stage, position, there int, running string) {
	t.Helper()
	if w.arm != nil {
		w.arm(t, s, position, there, running == "")
	}
	version := fmt.Sprintf("1.0.%d", position+1)
	s.vendor.release(t, version, w.release(version, position, running == ""))
	s.offer()
	if i := s.reaches(w.ends(position), version, running); !strings.Contains(i.Reason, w.says) {
		t.Errorf("position %d: the reason does not say %q: %s", position, w.says, i.Reason)
	}
}

// upgrades is one cluster that meets the positions one after the other: what failed is held, and the
// next version is taken.
func (w trap) upgrades(t *testing.T, positions []int, p *partials) {
	s := w.stage(t)
	s.vendor.release(t, "1.0.0", kustomized(settings("1.0.0", members)))
	defer s.start(nil)()
	s.offer()
	s.reaches(fleet.Succeeded, "1.0.0", "1.0.0")
	old, names := s.store(), s.configMaps(t)
	if len(old) != members {
		t.Fatalf("%d objects in the store, want %d", len(old), members)
	}
	for _, n := range positions {
		w.attempt(t, s, n, len(names), "1.0.0")
		now, left := s.store(), s.configMaps(t)
		partial := !slices.Equal(now, old) || !slices.Equal(left, names)
		if partial {
			t.Errorf("position %d: there are\n%s\nand %v, before were\n%s\nand %v", n, strings.Join(now, "\n"), left, strings.Join(old, "\n"), names)
		}
		p.count(partial)
	}
}

// installs is one cluster where nothing runs yet.
func (w trap) installs(t *testing.T, positions []int, p *partials) {
	s := w.stage(t)
	names := s.configMaps(t)
	defer s.start(nil)()
	for _, n := range positions {
		w.attempt(t, s, n, len(names), "")
		left := s.configMaps(t)
		if !slices.Equal(left, names) {
			t.Errorf("position %d: there are %v, before were %v", n, left, names)
		}
		p.count(!slices.Equal(left, names))
	}
}
