package apply_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

func patterns(t *testing.T, texts ...string) []terms.Pattern {
	t.Helper()
	var all []terms.Pattern
	for _, s := range texts {
		p, err := terms.ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func migration(image string) string {
	return fmt.Sprintf("apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: m, image: %q}]}}}\n", image)
}

func service(spec string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {" + spec + "ports: [{port: 80}]}\n"
}

// What cannot be changed is found by dry run. With consent it is made anew, without it is refused with
// the words to write; what would be refused anew too is never deleted.
func TestRecreateWithConsent(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	headless, plain := service("clusterIP: None, "), service("type: NodePort, ")
	inv := b.install(t, setOf(ns, "1", objects(t, configMap("a", "1"), migration("m:1"), headless)))
	next := setOf(ns, "2", objects(t, configMap("a", "2"), migration("m:2"), plain))
	before := b.kubectl(t, "-n", ns, "get", "job,service", "-o", "jsonpath={.items[*].metadata.uid}")

	report, err := b.hand.Check(ctx, next, inv)
	if err != nil || len(report.Problems) != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	wantText(t, report.Err().Error(), "Job "+ns+"/migrate: spec.template: ", "immutable", "consent with recreate: [Job/"+ns+"/migrate] in spoke.yaml, or try: kubectl -n "+ns+" delete job migrate",
		"Service "+ns+"/web: spec.clusterIP", "recreate: [Service/"+ns+"/web]")

	next.Terms = terms.Terms{Recreate: patterns(t, "Job", "Service/web")}
	if report, err = b.hand.Check(ctx, next, inv); err != nil || report.Err() != nil {
		t.Fatal(err, report.Err())
	}
	var steps []string
	for _, s := range report.Steps {
		steps = append(steps, string(s.Verb)+" "+s.Object)
	}
	wantList(t, "steps", steps, "change ConfigMap "+ns+"/a", "recreate Job "+ns+"/migrate", "recreate Service "+ns+"/web")
	if after := b.kubectl(t, "-n", ns, "get", "job,service", "-o", "jsonpath={.items[*].metadata.uid}"); after != before {
		t.Fatalf("a check deleted something: %s, %s", before, after)
	}
	inv, change, err := b.hand.Apply(ctx, next, inv)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "recreated", change.Recreated, "Job "+ns+"/migrate", "Service "+ns+"/web")
	if got := b.kubectl(t, "-n", ns, "get", "job,service", "-o", "jsonpath={.items[*].spec.template.spec.containers[0].image} {.items[1].spec.type}"); got != "m:2 NodePort" {
		t.Errorf("%s", got)
	}
	if inv.Settled().Items[0].Made || uid(inv, "Job") == "" || strings.Contains(before, uid(inv, "Job")) {
		t.Errorf("%+v", inv.Items)
	}

	bad := setOf(ns, "3", objects(t, configMap("a", "3"), strings.Replace(migration("m:3"), "Never", "Sometimes", 1), plain))
	bad.Terms = next.Terms
	if report, err = b.hand.Check(ctx, bad, inv); err != nil || len(report.Problems) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	was := uid(inv, "Job")
	if _, _, err := b.hand.Apply(ctx, bad, inv); !errors.Is(err, apply.ErrRefused) {
		t.Fatal(err)
	}
	if got := b.kubectl(t, "-n", ns, "get", "job", "migrate", "-o", "jsonpath={.metadata.uid}"); got != was {
		t.Error("deleted for something that cannot be made")
	}
}

// Somebody else's object is not deleted, whatever the terms say of its kind. Data has to be named.
func TestRecreateIsNotForOthersObjects(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	if err := b.Apply(strings.Replace(migration("theirs:1"), "name: migrate", "name: migrate, namespace: "+ns, 1)); err != nil {
		t.Fatal(err)
	}
	claim := func(size string) string {
		return "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [" + size + "], storageClassName: none, resources: {requests: {storage: 1Gi}}}\n"
	}
	inv := b.install(t, setOf(ns, "1", objects(t, claim("ReadWriteOnce"))))
	set := setOf(ns, "2", objects(t, migration("ours:1"), claim("ReadWriteMany")))
	set.Terms = terms.Terms{Recreate: patterns(t, "Job", "PersistentVolumeClaim")}
	report, err := b.hand.Check(ctx, set, inv)
	if err != nil || len(report.Problems) != 2 {
		t.Fatalf("%+v, %v", report, err)
	}
	wantText(t, report.Err().Error(), "what is there is not the release's to delete", "PersistentVolumeClaim "+ns+"/data: ")
	if _, _, err := b.hand.Apply(ctx, set, inv); !errors.Is(err, apply.ErrRefused) {
		t.Fatal(err)
	}
	if got := b.kubectl(t, "-n", ns, "get", "job", "migrate", "-o", "jsonpath={.spec.template.spec.containers[0].image}"); got != "theirs:1" {
		t.Error(got)
	}
	set.Objects = objects(t, claim("ReadWriteMany"))
	set.Terms = terms.Terms{Recreate: patterns(t, "PersistentVolumeClaim/data")}
	if _, change, err := b.hand.Apply(ctx, set, inv); err != nil || len(change.Recreated) != 1 {
		t.Errorf("named: %+v, %v", change, err)
	}
}

// The spoke dies between the deletion and the creation: the next attempt finds nothing, and creates.
func TestRecreateIsTakenUpAgain(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	inv := b.install(t, setOf(ns, "1", objects(t, migration("m:1"), configMap("a", "1"))))
	next := setOf(ns, "2", objects(t, migration("m:2"), configMap("a", "1")))
	next.Terms = terms.Terms{Recreate: patterns(t, "Job")}
	deleted := false
	dying, err := apply.New(apply.Config{Kubeconfig: b.Kubeconfig, WrapTransport: func(rt http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			if deleted && r.Method == http.MethodPatch {
				return nil, syscall.ECONNREFUSED
			}
			deleted = deleted || r.Method == http.MethodDelete
			return rt.RoundTrip(r)
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	half, _, err := dying.Apply(ctx, next, inv)
	if !errors.Is(err, apply.ErrUnreachable) || !deleted {
		t.Fatal(err)
	}
	b.gone(t, "-n", ns, "get", "job", "migrate", "--ignore-not-found")
	inv, change, err := b.hand.Apply(ctx, next, half.Unsure())
	if err != nil || len(change.Created) != 1 {
		t.Fatalf("%+v, %v", change, err)
	}
	if got := b.kubectl(t, "-n", ns, "get", "job", "migrate", "-o", "jsonpath={.spec.template.spec.containers[0].image}"); got != "m:2" {
		t.Error(got)
	}

	// One that does not go is waited for, and made when it is gone.
	b.kubectl(t, "-n", ns, "patch", "job", "migrate", "--type=merge", "-p", `{"metadata":{"finalizers":["test.wheelwright.dev/hold"]}}`)
	hasty, _ := connect(t, apply.Config{Kubeconfig: b.Kubeconfig, Patience: 500 * time.Millisecond})
	last := setOf(ns, "3", objects(t, migration("m:3"), configMap("a", "1")))
	last.Terms = next.Terms
	half, _, err = hasty.Apply(ctx, last, inv)
	if !errors.Is(err, apply.ErrRefused) {
		t.Fatal(err)
	}
	wantText(t, err.Error(), "Job "+ns+"/migrate: ", "waits for its finalizers", "test.wheelwright.dev/hold")
	b.kubectl(t, "-n", ns, "patch", "job", "migrate", "--type=merge", "-p", `{"metadata":{"finalizers":[]}}`)
	if _, change, err = b.hand.Apply(ctx, last, half); err != nil || len(change.Created)+len(change.Recreated) != 1 {
		t.Fatalf("%+v, %v", change, err)
	}
}

// The steps of a plan: what leaves is deleted or, where it holds data, kept.
func TestPlanOfDeletions(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	ns := b.NewNamespace(t)
	claim := "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: %s}\nspec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}\n"
	old := b.install(t, setOf(ns, "1", objects(t, configMap("a", "1"), configMap("b", "1"), fmt.Sprintf(claim, "data"), fmt.Sprintf(claim, "cache"))))
	next := setOf(ns, "2", objects(t, configMap("a", "1"), configMap("c", "1")))
	next.Terms = terms.Terms{Delete: patterns(t, "PersistentVolumeClaim/cache")}
	report, err := b.hand.Check(ctx, next, old)
	if err != nil || report.Err() != nil {
		t.Fatal(err, report.Err())
	}
	if report.Deletions != 2 || report.Inventory != 4 {
		t.Errorf("%d deletions of %d", report.Deletions, report.Inventory)
	}
	if got, want := fmt.Sprint(report.Changes()), "[create 1 ConfigMap delete 1 ConfigMap delete 1 PersistentVolumeClaim keep 1 PersistentVolumeClaim]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if fleet.Verbs[0] != report.Changes()[0].Verb {
		t.Error("the order is not that of the verbs")
	}
	now, _, err := b.hand.Apply(ctx, next, old)
	if err != nil {
		t.Fatal(err)
	}
	change, err := b.hand.Prune(ctx, old, now, next.Terms)
	if err != nil {
		t.Fatal(err)
	}
	wantList(t, "deleted", change.Deleted, "ConfigMap "+ns+"/b", "PersistentVolumeClaim "+ns+"/cache")
	wantList(t, "kept", change.Kept, "PersistentVolumeClaim "+ns+"/data")
}
