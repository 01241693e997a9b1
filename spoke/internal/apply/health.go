package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/rules"
)

// HealthReport is of all objects of an inventory together.
type HealthReport struct {
	Health         fleet.Health // Degraded: an object failed or is missing; InProgress: one is not there yet
	Objects, Ready int
	Message        string // the first object that is not well, and why; one line without values
	Requests       int
}

// ailing is an object that is not well.
type ailing struct {
	Item
	failed bool
	why    string
	object *unstructured.Unstructured // nil: not looked into
}

// Hooks is the health of objects of an inventory that were made for one delivery: Healthy when all have ended well.
func (c *Cluster) Hooks(ctx context.Context, inv Inventory, objs []*unstructured.Unstructured) (HealthReport, error) {
	inv.Items = slices.DeleteFunc(slices.Clone(inv.Items), func(i Item) bool {
		return !i.Hook || !slices.ContainsFunc(objs, func(o *unstructured.Unstructured) bool { return i.is(o, inv.Namespace) })
	})
	for n := range inv.Items {
		inv.Items[n].Hook, inv.Items[n].Leaving, inv.Items[n].Passing = false, false, false
	}
	return c.Health(ctx, inv, nil)
}

// Health asks for the state of every object of an inventory, with one list for each kind and
// namespace, and looks into the pods and the last event of the first workload that is not well. A kind
// that the book, or we ourselves, have a rule about is judged by it, and by nothing else. Values of Secrets
// are never asked for, and those of ConfigMaps only by a rule. Hooks do not count.
func (c *Cluster) Health(ctx context.Context, inv Inventory, book *rules.Book) (HealthReport, error) {
	ctx, requests := counted(ctx)
	items := slices.DeleteFunc(inv.Current().Items, func(i Item) bool { return i.Hook })
	report := HealthReport{Health: fleet.HealthUnknown, Objects: len(items)}
	if len(items) == 0 {
		report.Message = "nothing is installed"
		return report, nil
	}
	ill, err := c.examine(ctx, inv.Distribution, items, book)
	if err != nil {
		return report, fmt.Errorf("read the health of %s: %w", inv.Distribution, err)
	}
	report.Health, report.Ready = fleet.Healthy, len(items)-len(ill)
	slices.SortFunc(ill, compareAiling)
	if len(ill) > 0 {
		report.Health = fleet.InProgress
		if ill[0].failed {
			report.Health = fleet.Degraded
		}
		if report.Message, err = c.diagnose(ctx, ill); err != nil {
			return report, fmt.Errorf("read the health of %s: %w", inv.Distribution, err)
		}
	}
	report.Requests = int(requests.Load())
	return report, nil
}

// compareAiling puts failures first, then workloads, whose pods have something to say.
func compareAiling(a, b ailing) int {
	rank := func(x ailing) int {
		r := 0
		if !x.failed {
			r += 2
		}
		if stageOf(x.GroupKind()) != stageWorkloads {
			r++
		}
		return r
	}
	if d := rank(a) - rank(b); d != 0 {
		return d
	}
	return strings.Compare(a.Item.String(), b.Item.String())
}

func (c *Cluster) examine(ctx context.Context, distribution string, items []Item, book *rules.Book) ([]ailing, error) {
	var want []schema.GroupVersionKind
	for _, i := range items {
		want = append(want, i.GroupVersionKind)
	}
	served, err := c.kinds.having(ctx, want)
	if err != nil {
		return nil, err
	}
	var ill []ailing
	places := map[place][]Item{}
	for _, i := range items {
		r, ok := served.like(i.GroupVersionKind)
		if !ok {
			ill = append(ill, ailing{Item: i, failed: true, why: served.notServed(i.GroupVersionKind)})
			continue
		}
		p := place{r, i.Namespace}
		places[p] = append(places[p], i)
	}
	var mu sync.Mutex
	err = each(ctx, slices.Collect(maps.Keys(places)), func(ctx context.Context, p place) error {
		found, err := c.examineKind(ctx, p, distribution, places[p], book)
		mu.Lock()
		defer mu.Unlock()
		ill = append(ill, found...)
		return err
	})
	return ill, err
}

func (c *Cluster) examineKind(ctx context.Context, at place, distribution string, items []Item, book *rules.Book) ([]ailing, error) {
	r, namespace := at.resource, at.namespace
	selector := DistributionLabel + "=" + distribution
	found := map[string]*unstructured.Unstructured{}
	var err error
	accept := ""
	if existenceIsAll(r.GroupKind()) && !book.About(r.Group, r.Version, r.Kind) {
		accept = metadataOnly
		list, e := c.api.listMetadata(ctx, r, namespace, selector)
		for _, m := range list {
			u := &unstructured.Unstructured{Object: map[string]any{}}
			u.SetDeletionTimestamp(m.DeletionTimestamp)
			found[m.Name] = u
		}
		err = e
	} else {
		list, e := c.api.listObjects(ctx, r, namespace, selector)
		for n := range list {
			list[n].SetGroupVersionKind(r.GroupVersionKind)
			found[list[n].GetName()] = &list[n]
		}
		err = e
	}
	if ignoreMissing(err) != nil {
		return nil, refusal(r.Kind, namespace, "", err)
	}
	var ill []ailing
	for _, i := range items {
		u, ok := found[i.Name]
		if !ok { // perhaps only its label is gone
			u = &unstructured.Unstructured{}
			if err := c.api.get(ctx, r, i.Namespace, i.Name, accept, u); ignoreMissing(err) != nil {
				return nil, refusal(r.Kind, namespace, i.Name, err)
			} else if err != nil && i.Passing && i.UID != "" {
				continue // it was there, and has finished
			} else if err != nil {
				ill = append(ill, ailing{Item: i, failed: true, why: "it is not on the cluster"})
				continue
			}
		}
		if a, ok := assess(i, u, book); !ok {
			ill = append(ill, a)
		}
	}
	return ill, nil
}

// assess judges one object; ok is true where it is well.
func assess(i Item, u *unstructured.Unstructured, book *rules.Book) (ailing, bool) {
	a := ailing{Item: i, object: u}
	if u.GetDeletionTimestamp() != nil {
		a.why = "it is being deleted"
		return a, false
	}
	if verdict, message, ok, err := judge(u, book); ok {
		a.failed, a.why = verdict == rules.Failed, message
		if err != nil {
			a.why = "its health cannot be told: " + err.Error()
		}
		return a, verdict == rules.Current
	}
	if existenceIsAll(i.GroupKind()) || waitsForPods(i, u) || suspended(i, u) {
		return a, true
	}
	if a.why = unfinished(i, u); a.why != "" {
		return a, false
	}
	res, err := status.Compute(u)
	switch {
	case err != nil:
		a.failed, a.why = true, "its status cannot be read: "+err.Error()
	case res.Status == status.CurrentStatus:
		return a, true
	case res.Status == status.FailedStatus:
		a.failed, a.why = true, res.Message
	default:
		a.why = res.Message
	}
	return a, false
}

// judge asks the rules that somebody wrote, and then our own.
func judge(u *unstructured.Unstructured, book *rules.Book) (v rules.Verdict, message string, ok bool, err error) {
	if v, message, ok, err = book.Judge(u.Object); ok {
		return v, message, ok, err
	}
	own, err := rules.Builtin()
	if err != nil {
		return rules.Unknown, "", true, err
	}
	return own.Judge(u.Object)
}

// unfinished: a release whose Job (a migration, say) still runs is not there yet; kstatus asks only that
// it was started.
func unfinished(i Item, u *unstructured.Unstructured) string {
	if i.Group != "batch" || i.Kind != "Job" {
		return ""
	}
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, v := range conditions {
		if c, _ := v.(map[string]any); (c["type"] == "Complete" || c["type"] == "Failed") && c["status"] == "True" {
			return ""
		}
	}
	return "it has not finished yet"
}

// suspended: a Job that waits for a person holds nothing up.
func suspended(i Item, u *unstructured.Unstructured) bool {
	yes, _, _ := unstructured.NestedBool(u.Object, "spec", "suspend")
	return yes && i.Group == "batch" && i.Kind == "Job"
}

// waitsForPods: a claim that is not bound yet may be waiting for its first pod. Where a pod needs it,
// that pod says so.
func waitsForPods(i Item, u *unstructured.Unstructured) bool {
	phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
	return i.Group == "" && i.Kind == "PersistentVolumeClaim" && phase != "Lost"
}

// existenceIsAll: kinds that do nothing by themselves, or whose conditions say nothing about the
// release (an autoscaler without metrics is not a broken application).
func existenceIsAll(gk schema.GroupKind) bool {
	switch gk.Group {
	case "":
		switch gk.Kind {
		case "ConfigMap", "Secret", "ServiceAccount", "LimitRange", "ResourceQuota", "Endpoints", "PersistentVolume":
			return true
		}
	case "batch":
		return gk.Kind == "CronJob"
	case "admissionregistration.k8s.io", "autoscaling", "discovery.k8s.io", "networking.k8s.io", "node.k8s.io",
		"policy", "rbac.authorization.k8s.io", "scheduling.k8s.io", "storage.k8s.io":
		return true
	}
	return false
}

// diagnosed bounds how many workloads are looked into before one is found that says more than a count.
const diagnosed = 3

// diagnose tells what is wrong with the first object that has something to tell.
func (c *Cluster) diagnose(ctx context.Context, ill []ailing) (string, error) {
	first, pod := ill[0], types.UID("")
	for _, a := range ill[:min(diagnosed, len(ill))] {
		if a.failed != first.failed || a.object == nil {
			break
		}
		s, err := c.consult(ctx, a)
		if err != nil {
			return "", err
		}
		if s.why != "" {
			a.why, pod = s.why, s.pod
			first = a
			break
		}
	}
	said, err := c.lastEvent(ctx, first, pod)
	if err != nil {
		return "", err
	}
	text := first.Item.String() + ": " + first.why
	if first.why == "" {
		text = first.Item.String() + ": not ready"
	}
	suffix := ""
	if said != "" && !strings.Contains(text, said) {
		suffix = " (event: " + oneLineTo(said, maxEvent) + ")"
	}
	if n := len(ill) - 1; n > 0 {
		suffix += fmt.Sprintf(" (and %d more)", n)
	}
	return oneLineTo(text, maxMessage-len([]rune(suffix))) + suffix, nil
}
