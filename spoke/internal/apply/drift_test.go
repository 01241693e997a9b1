package apply_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

func told(all []apply.Drifted) []string {
	var lines []string
	for _, d := range all {
		lines = append(lines, d.String())
	}
	return lines
}

func wantDrift(t *testing.T, got []apply.Drifted, want ...string) {
	t.Helper()
	var lines []string
	for _, d := range got {
		line := fmt.Sprintf("%s %v by %s", d.Object, d.Fields, d.By)
		for what, is := range map[string]bool{" corrected": d.Corrected, " missing": d.Missing, " contested": d.Contested} {
			if is {
				line += what
			}
		}
		if (d.By == "" || d.Contested) != d.At.IsZero() {
			line += " at " + d.At.String()
		}
		lines = append(lines, line)
	}
	for n, line := range lines { // the marks come in any order
		parts := strings.Split(line, " by ")
		lines[n] = parts[0] + " by " + strings.Join(sortedFields(parts[1]), " ")
	}
	wantList(t, "drifted", lines, want...)
}

func sortedFields(s string) []string {
	by, marks, _ := strings.Cut(s, " ")
	var out []string
	for _, m := range []string{"contested", "corrected", "missing"} {
		if strings.Contains(marks, m) {
			out = append(out, m)
		}
	}
	if strings.Contains(marks, " at ") {
		out = append(out, marks)
	}
	return append([]string{by}, out...)
}

// What people delete and edit by hand is put back, and it is said what and by whom; what controllers
// write is not drift.
func TestDriftIsPutBack(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	set := setOf(ns, "1.0.0", shop(t, ns, "blue"))
	inv := b.install(t, set)
	b.healthy(t, inv)

	before := b.requests.Load()
	inv, drifted, err := b.hand.Drift(ctx, set, inv, true) // controllers wrote statuses and annotations since
	if err != nil || len(drifted) != 0 {
		t.Fatalf("status churn: %v, %v", told(drifted), err)
	}
	n := b.requests.Load() - before
	fmt.Printf("FIGURE drift.quiet-requests %d requests of 10 objects of 9 kinds\n", n)
	if n > 10 {
		t.Errorf("%d requests where nothing drifted", n)
	}

	spoil := func() {
		t.Helper()
		b.kubectl(t, "-n", ns, "delete", "service", "backend")
		b.kubectl(t, "-n", ns, "set", "image", "deployment/backend", "backend=podinfo:mine")
		b.kubectl(t, "-n", ns, "patch", "configmap", "backend", "--field-manager=hostile", "-p", `{"data":{"key":"by hand"}}`)
		b.kubectl(t, "-n", ns, "label", "secret", "backend", "wheelwright.dev/distribution-")
		b.kubectl(t, "-n", ns, "patch", "role", "backend", "--type=json", "--field-manager=hostile", "-p", `[{"op":"remove","path":"/rules"}]`)
		b.kubectl(t, "-n", ns, "scale", "deployment", "cache", "--replicas=2") // not declared: the autoscaler's
		b.kubectl(t, "-n", ns, "annotate", "--overwrite", "hpa", "backend", "note=mine")
	}
	spoil()
	fixed := []string{
		"ConfigMap " + ns + "/backend [data.key] by hostile",
		"Deployment " + ns + "/backend [spec.template.spec.containers[name=backend].image] by kubectl-set",
		"Role " + ns + "/backend [rules] by hostile",
		"Secret " + ns + "/backend [metadata.labels[wheelwright.dev/distribution]] by ", // who only takes away leaves no name
	}
	service := "Service " + ns + "/backend [] by "
	mark := b.MarkRequests(t)
	same, drifted, err := b.hand.Drift(ctx, set, inv, false)
	if err != nil || asJSON(t, same) != asJSON(t, inv) {
		t.Fatalf("a report changes nothing: %v", err)
	}
	wantDrift(t, drifted, append([]string{service + " missing"}, fixed...)...)
	for _, r := range b.Requests(t, mark, "wheelwright") {
		if r.Writes() && !strings.Contains(r.URI, "dryRun=All") {
			t.Errorf("a report writes: %s %s", r.Verb, r.URI)
		}
	}
	inv, drifted, err = b.hand.Drift(ctx, set, inv, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{service + " corrected missing"}
	for _, f := range fixed {
		want = append(want, f+" corrected")
	}
	wantDrift(t, drifted, want...)
	for want, args := range map[string][]string{
		"podinfo:3.1.0":  {"get", "deployment", "backend", "-o", "jsonpath={.spec.template.spec.containers[0].image}"},
		"blue":           {"get", "configmap", "backend", "-o", "jsonpath={.data.key}"},
		"shop":           {"get", "secret", "backend", "-o", `jsonpath={.metadata.labels.wheelwright\.dev/distribution}`},
		"2":              {"get", "deployment", "cache", "-o", "jsonpath={.spec.replicas}"},
		"mine":           {"get", "hpa", "backend", "-o", "jsonpath={.metadata.annotations.note}"},
		`["configmaps"]`: {"get", "role", "backend", "-o", "jsonpath={.rules[0].resources}"},
	} {
		if got := b.kubectl(t, append([]string{"-n", ns}, args...)...); got != want {
			t.Errorf("%s: %q, want %q", strings.Join(args, " "), got, want)
		}
	}
	if stored, _, err := b.hand.ReadInventory(ctx, "shop", ns); err != nil || uid(stored, "Service") != uid(inv, "Service") {
		t.Errorf("the new Service's UID is not in the cluster's inventory: %v", err)
	}
	if _, drifted, err = b.hand.Drift(ctx, set, inv, true); err != nil || len(drifted) != 0 {
		t.Errorf("put back once and for all: %v, %v", told(drifted), err)
	}

	b.kubectl(t, "-n", ns, "delete", "configmap", "wheelwright-shop")
	if _, drifted, err = b.hand.Drift(ctx, set, inv, true); err != nil {
		t.Fatal(err)
	}
	wantDrift(t, drifted, "ConfigMap "+ns+"/wheelwright-shop [] by  corrected missing")
	if _, found, err := b.hand.ReadInventory(ctx, "shop", ns); err != nil || !found {
		t.Errorf("the inventory is not put back: %v", err)
	}
}

// An object on its way out is waited for, and one that somebody made anew is made ours again.
func TestDriftWaitsForWhatIsOnItsWayOut(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	guarded := strings.Replace(configMap("guarded", "1"), "name: guarded", "name: guarded, finalizers: [example.com/guard]", 1)
	set := setOf(ns, "1.0.0", objects(t, guarded, configMap("replaced", "1")))
	inv := b.install(t, set)
	t.Cleanup(func() {
		_, _ = b.Kubectl("-n", ns, "patch", "configmap", "guarded", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	})
	b.kubectl(t, "-n", ns, "delete", "configmap", "guarded", "--wait=false")
	b.kubectl(t, "-n", ns, "delete", "configmap", "replaced")
	b.kubectl(t, "-n", ns, "create", "configmap", "replaced", "--from-literal=key=theirs")
	inv, drifted, err := b.hand.Drift(ctx, set, inv, true)
	if err != nil || len(drifted) != 1 || drifted[0].Object != "ConfigMap "+ns+"/replaced" || drifted[0].By != "kubectl-create" || !drifted[0].Corrected {
		t.Fatalf("%v, %v", told(drifted), err)
	}
	b.kubectl(t, "-n", ns, "patch", "configmap", "guarded", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	b.gone(t, "-n", ns, "get", "configmap", "guarded", "--ignore-not-found", "-o", "name")
	_, drifted, err = b.hand.Drift(ctx, set, inv, true)
	if err != nil {
		t.Fatal(err)
	}
	wantDrift(t, drifted, "ConfigMap "+ns+"/guarded [] by  corrected missing")
}

// flip has a manager set a field, as a controller of its own mind does.
func (b bench) flip(t *testing.T, ns, patch string) {
	t.Helper()
	b.kubectl(t, "-n", ns, "patch", "configmap", "a", "--type=merge", "--field-manager=hostile", "-p", patch)
}

// Two who both mean to have a field do not flip it for ever: the fourth time in ten minutes it is left,
// and both are named. All else is put back as before.
func TestOscillationIsStopped(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	for _, c := range []struct{ what, take, again, left string }{
		{"set", `{"data":{"key":"hostile %d"}}`, `{"data":{"key":"hostile for ever","other":"hostile"}}`, "hostile for ever two"},
		{"taken away", `{"data":{"key":null}}`, `{"data":{"key":null,"other":"hostile"}}`, " two"},
	} {
		t.Run(c.what, func(t *testing.T) {
			ns := b.NewNamespace(t)
			manifest := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {key: ours, other: two}\n"
			set := setOf(ns, "1.0.0", objects(t, manifest))
			inv := b.install(t, set)
			data := func() string {
				return b.kubectl(t, "-n", ns, "get", "configmap", "a", "-o", "jsonpath={.data.key} {.data.other}")
			}
			b.flip(t, ns, `{"metadata":{"labels":{"mark":"hostile"}}}`) // so that there is a name for who took a field away
			var drifted []apply.Drifted
			var err error
			for n := range 3 {
				b.flip(t, ns, strings.Replace(c.take, "%d", fmt.Sprint(n), 1))
				if inv, drifted, err = b.hand.Drift(ctx, set, inv, true); err != nil {
					t.Fatal(err)
				}
				wantDrift(t, drifted, "ConfigMap "+ns+"/a [data.key] by hostile corrected")
				if got := data(); got != "ours two" {
					t.Fatalf("flip %d: %q", n, got)
				}
			}
			b.flip(t, ns, strings.Replace(c.take, "%d", "3", 1))
			for range 2 {
				if inv, drifted, err = b.hand.Drift(ctx, set, inv, true); err != nil || len(drifted) != 1 || drifted[0].Corrected || !drifted[0].Contested {
					t.Fatalf("%v, %v", told(drifted), err)
				}
				if wantText(t, drifted[0].String(), "ConfigMap "+ns+"/a: data.key ", "wheelwright", "again and again"); c.what == "set" {
					wantText(t, drifted[0].String(), "wheelwright and hostile")
				}
				if got := data(); got == "ours two" {
					t.Fatal("the contested field was put back")
				}
			}
			b.flip(t, ns, c.again)
			if inv, drifted, err = b.hand.Drift(ctx, set, inv, true); err != nil || len(drifted) != 2 {
				t.Fatalf("%v, %v", told(drifted), err)
			}
			if got := data(); got != strings.TrimSpace(c.left) {
				t.Errorf("only the contested field is left: %q", got)
			}
			if got := inv.Items[0].Contested; len(got) != 1 || got[0] != "data.key" {
				t.Errorf("%q", got)
			}
			next := setOf(ns, "1.1.0", objects(t, manifest, configMap("b", "1")))
			if inv, _, err = b.hand.Apply(ctx, next, inv); err != nil {
				t.Fatal(err)
			}
			if inv, drifted, err = b.hand.Drift(ctx, next, inv, true); err != nil || len(drifted) != 0 || data() != "ours two" {
				t.Errorf("another set begins anew: %q, %v, %v", data(), told(drifted), err)
			}
		})
	}
}

func uid(inv apply.Inventory, kind string) string {
	for _, i := range inv.Items {
		if i.Kind == kind {
			return i.UID
		}
	}
	return ""
}

// The whole namespace deleted by hand comes back; an object that is refused does not stop the others.
func TestDriftAfterTheNamespaceIsGone(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.scratch(t)
	set := setOf(ns, "1.0.0", objects(t, configMap("a", "1"), deployment("web", "podinfo:1")))
	inv := b.install(t, set)
	b.kubectl(t, "delete", "namespace", ns)
	gone := func(want int) {
		t.Helper()
		if _, drifted, err := b.hand.Drift(ctx, set, inv, false); err != nil || len(drifted) != want {
			t.Fatalf("reported: %v, %v", told(drifted), err)
		}
	}
	gone(2)
	b.gone(t, "get", "namespace", ns, "--ignore-not-found", "-o", "name") // nor is it made for a report's sake
	inv, drifted, err := b.hand.Drift(ctx, set, inv, true)
	if err != nil || len(drifted) != 3 || !drifted[0].Missing || !drifted[1].Missing || !drifted[2].Missing {
		t.Fatalf("%v, %v", told(drifted), err)
	}
	b.healthy(t, inv)

	b.kubectl(t, "-n", ns, "delete", "deployment/web", "configmap/a")
	if err := b.Apply(strings.ReplaceAll(strings.ReplaceAll(deployment("web", "podinfo:1"), "metadata: {name: web}", "metadata: {name: web, namespace: "+ns+"}"), "app: web", "app: theirs")); err != nil {
		t.Fatal(err)
	}
	_, drifted, err = b.hand.Drift(ctx, set, inv, true)
	if !errors.Is(err, apply.ErrRefused) {
		t.Fatalf("%v", err)
	}
	wantText(t, err.Error(), "Deployment "+ns+"/web: ", "immutable")
	wantDrift(t, drifted, "ConfigMap "+ns+"/a [] by  corrected missing")
}
