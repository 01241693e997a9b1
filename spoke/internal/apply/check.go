package apply

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// standInNamespace is where objects are tried whose own namespace does not exist yet: every cluster
// has it.
const standInNamespace = "default"

// Check has the API server try the objects of a set without storing anything. Problems of the set are in
// the report; an error is about the check itself.
//
// prev is the last Inventory known: what it shows as applied exactly so is not tried again. The zero one
// tries everything.
func (c *Cluster) Check(ctx context.Context, set Set, prev Inventory) (CheckReport, error) {
	ctx, requests := counted(ctx)
	k := &check{c: c, set: set, prev: prev, items: prev.byIdentity(), comes: map[string]bool{set.Namespace: true}, missing: map[string]bool{}, names: map[place][]string{}}
	ctx, err := c.acting(ctx, set.Distribution)
	if err == nil {
		err = k.run(ctx)
	}
	k.report.Requests = int(requests.Load())
	k.report.sort()
	if err != nil {
		return k.report, fmt.Errorf("check %s: %w", set, err)
	}
	return k.report, nil
}

type check struct {
	c     *Cluster
	set   Set
	prev  Inventory
	items map[identity]Item              // of prev
	comes map[string]bool                // namespaces that are there once the set is applied
	roles map[string]bool                // "Role app/reader", of the set
	known map[identity]metav1.ObjectMeta // what distributions have in the places of what is new
	shut  map[place]bool                 // where it may not be tried
	mute  bool                           // the inventory may not be written
	names map[place][]string             // of what is written
	blind bool                           // not all of that could be read

	mu      sync.Mutex // guards what follows
	missing map[string]bool
	report  CheckReport
}

func (k *check) run(ctx context.Context) error {
	k.report.Objects, k.report.Inventory = len(k.set.Objects), len(k.prev.Items)
	if len(k.set.Objects) == 0 {
		return fmt.Errorf("nothing to check: %w", ErrEmptySet)
	}
	sums := k.set.sum()
	applied := k.prev.appliedOf(sums) && len(k.prev.Current().Items) == len(k.prev.Items)
	if applied && k.set.Envelope.None() {
		return nil
	}
	k.c.kinds.age(freshness) // what was served yesterday may not be today
	objs, problems, err := k.c.prepare(ctx, k.set, sums)
	if err != nil {
		return err
	}
	k.report.Problems = problems
	if objs, err = k.inside(ctx, objs); err != nil || applied {
		return err
	}
	own := k.survey(objs)
	todo := slices.DeleteFunc(slices.Clone(objs), func(o object) bool { return o.standsIn(k.items[o.item().identity()]) })
	need, err := k.leaving(ctx, objs)
	if err != nil {
		return err
	}
	for _, o := range todo {
		need.need(o.place(), everyVerb[:5]...)
		k.names[o.place()] = append(k.names[o.place()], o.GetName())
		if !keeps(o.resource.GroupKind()) || o.consents(k.set.Terms) {
			need.need(o.place(), "delete")
		}
	}
	books := rights{}
	books.need(place{configMaps, k.set.Namespace}, "get", "create", "patch", "delete")
	if k.shut, err = k.permitted(ctx, need, books); err != nil {
		return err
	}
	if k.prev.Applied == "" || k.prev.Namespace != k.set.Namespace {
		if err := k.groundwork(ctx, own); err != nil {
			return err
		}
	}
	return k.try(ctx, todo)
}

// survey notes what comes with the set, and returns its own Namespace object of the subscription's
// namespace, or nil.
func (k *check) survey(objs []object) (own *object) {
	k.roles = map[string]bool{}
	for n, o := range objs {
		switch o.GetKind() {
		case "Namespace":
			k.comes[o.GetName()] = true
			if o.GetName() == k.set.Namespace {
				own = &objs[n]
			}
		case "Role", "ClusterRole", "ServiceAccount":
			k.roles[o.String()] = true
		}
	}
	return own
}

// leaving notes what becomes of objects that the set no longer has, and which rights that takes.
func (k *check) leaving(ctx context.Context, objs []object) (rights, error) {
	need := rights{}
	stays := map[identity]bool{}
	for _, o := range objs {
		stays[o.item().identity()] = true
	}
	for _, o := range k.set.Objects { // a problem is no reason to announce a deletion
		gvk := o.GroupVersionKind()
		stays[identity{gvk.GroupKind(), o.GetNamespace(), o.GetName()}] = true
	}
	served, err := k.c.kinds.having(ctx, nil)
	if err != nil {
		return nil, err
	}
	for _, i := range k.prev.Items {
		if stays[i.identity()] {
			continue
		}
		if !mayPrune(i, k.set.Terms) {
			k.step(fleet.VerbKeep, i.Kind, i.String())
			continue
		}
		if !i.Hook { // of a delivery that is over: nobody's loss
			k.step(fleet.VerbDelete, i.Kind, i.String())
			k.report.Deletions++
		}
		if r, ok := served.like(i.GroupVersionKind); ok {
			need.need(place{r, i.Namespace}, "get", "delete")
			k.names[place{r, i.Namespace}] = append(k.names[place{r, i.Namespace}], i.Name)
		}
	}
	return need, nil
}

// inside are the objects within the envelope. The others are in the report, and not even tried.
func (k *check) inside(ctx context.Context, objs []object) ([]object, error) {
	objs, out := k.set.divided(objs)
	more, err := k.c.besideOutside(ctx, k.set)
	for _, o := range more { // a hook that is sent is among both
		if !slices.Contains(out, o) {
			out = append(out, o)
		}
	}
	k.report.Outside = out
	return objs, err
}

// try has the API server try objects that are new or differ.
func (k *check) try(ctx context.Context, todo []object) error {
	fresh := slices.DeleteFunc(slices.Clone(todo), func(o object) bool { return k.items[o.item().identity()].UID != "" || k.shut[o.place()] })
	var unread error
	if k.known, unread = k.c.labelled(ctx, placesOf(fresh)); ours(unread) {
		return unread
	}
	k.blind = unread != nil
	forged, err := k.c.forged(ctx, k.set, todo)
	if err != nil {
		return err
	}
	for _, p := range forged {
		k.problem(p)
	}
	if err := each(ctx, todo, k.one); err != nil {
		return err
	}
	if k.blind && len(k.report.Problems) == 0 { // else one rule, with all verbs, was named already
		k.problem(Problem{"distribution " + k.set.Distribution, unread.Error()})
	}
	return nil
}

// groundwork tries what Apply writes besides the set: the inventory, and the namespace if it is missing.
func (k *check) groundwork(ctx context.Context, own *object) error {
	if k.mute {
		return nil
	}
	name := InventoryName(k.set.Distribution)
	data, err := inventoryObject(Inventory{Distribution: k.set.Distribution, Namespace: k.set.Namespace})
	if err != nil {
		return err
	}
	_, _, err = k.c.api.patch(asSpoke(ctx), configMaps, k.set.Namespace, name, data, dryRun)
	kind, ns := "ConfigMap", k.set.Namespace
	if isMissingNamespace(err) == k.set.Namespace {
		k.missing[k.set.Namespace] = true
		if err = nil; own == nil {
			kind, ns, name = "Namespace", "", k.set.Namespace
			_, _, err = k.c.api.patch(ctx, namespaces, "", name, bareNamespace(name), dryRun)
		}
	}
	if err == nil || ours(err) {
		return err
	}
	if kind == "Namespace" {
		_, why, _ := strings.Cut(noNamespace(ctx, name, err).Error(), ": ")
		k.problem(Problem{named(kind, "", name), why})
		return nil
	}
	k.problem(Problem{named(kind, ns, name), explain(kind, ns, name, err)})
	return nil
}

func (k *check) problem(p Problem) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report.Problems = append(k.report.Problems, p)
}

func (k *check) unchecked(o object, why string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report.Unchecked = append(k.report.Unchecked, o.String()+": "+why)
}

func (k *check) step(v fleet.Verb, kind, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report.Steps = append(k.report.Steps, Step{v, kind, name})
}

func (k *check) isMissing(namespace string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.missing[namespace]
}

func (k *check) one(ctx context.Context, o object) error {
	ns := o.GetNamespace()
	switch {
	case k.shut[o.place()]:
		return nil // the rule to add was named
	case o.upcoming:
		k.unchecked(o, "its definition comes with the release")
		k.step(fleet.VerbCreate, o.GetKind(), o.String())
		return nil
	case k.isMissing(ns):
		return k.elsewhere(ctx, o)
	}
	owner, labelled := k.known[o.item().identity()]
	if p, other := claimed(o, k.set.Distribution, owner.Labels[DistributionLabel]); other {
		k.problem(p)
		return nil
	}
	f, err := k.c.put(ctx, o, dryRun)
	if err == nil {
		k.taken(o, f, labelled)
		return nil
	}
	if m := isMissingNamespace(err); m != "" && m == ns && k.comes[m] {
		k.mu.Lock()
		k.missing[m] = true
		k.mu.Unlock()
		return k.elsewhere(ctx, o)
	}
	if apierrors.IsInvalid(err) {
		return k.anew(ctx, o, err)
	}
	return k.judge(o, err, "")
}

// taken files an object that the API server would take.
func (k *check) taken(o object, f offer, labelled bool) {
	was := k.items[o.item().identity()]
	switch {
	case f.created:
		k.step(fleet.VerbCreate, o.GetKind(), o.String())
	case was.Digest == "" && was.UID == string(f.meta.UID) && was.Owned != "" && was.Owned == k.c.owned(f.meta):
		// Nobody knows what was applied last, and it is there as it would be.
	default:
		k.step(fleet.VerbChange, o.GetKind(), o.String())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report.Conflicts = append(k.report.Conflicts, f.taken...)
	if !f.created && was.UID == "" && !labelled && !k.blind && !shared(o.resource.GroupKind()) {
		k.report.Adopted = append(k.report.Adopted, o.String())
	}
}

// anew files an object that the API server calls invalid: as it is, or because what is there cannot
// become it.
func (k *check) anew(ctx context.Context, o object, invalid error) error {
	s, err := k.c.standing(ctx, o)
	if err != nil {
		if ours(err) {
			return err
		}
		return k.judge(o, invalid, "")
	}
	text := explain(o.GetKind(), o.GetNamespace(), o.GetName(), invalid)
	switch {
	case !s.there || !s.anew:
		return k.judge(o, invalid, "")
	case !k.c.ours(s.meta, k.set.Distribution):
		k.problem(Problem{o.String(), text + "; it would have to be made anew, and what is there is not the release's to delete; try: " + deletion(o)})
	case o.consents(k.set.Terms):
		k.step(fleet.VerbRecreate, o.GetKind(), o.String())
	default:
		k.problem(Problem{o.String(), fmt.Sprintf("%s; it would have to be made anew: consent with recreate: [%s] in spoke.yaml, or try: %s", text, pattern(o), deletion(o))})
	}
	return nil
}

// elsewhere tries an object in a namespace that exists, under a name that nobody has.
func (k *check) elsewhere(ctx context.Context, o object) error {
	k.step(fleet.VerbCreate, o.GetKind(), o.String())
	name, data, err := double(o, standInNamespace)
	if err != nil {
		return err
	}
	_, _, err = k.c.api.patch(ctx, o.resource, standInNamespace, name, data, dryRun)
	if apierrors.IsForbidden(err) && denied.MatchString(err.Error()) {
		k.unchecked(o, fmt.Sprintf("namespace %s does not exist yet, and the spoke may not try it in %s", o.GetNamespace(), standInNamespace))
		return nil
	}
	return k.judge(o, err, name)
}

// judge files what the API server said; double is the name that was tried instead of o's, or "".
func (k *check) judge(o object, err error, double string) error {
	if err == nil || ours(err) {
		return err
	}
	if why := k.waitsForSet(o, err); why != "" {
		k.unchecked(o, why)
		if double == "" && k.items[o.item().identity()].UID == "" {
			k.step(fleet.VerbCreate, o.GetKind(), o.String())
		} else if double == "" {
			k.step(fleet.VerbChange, o.GetKind(), o.String())
		}
		return nil
	}
	text := explain(o.GetKind(), o.GetNamespace(), o.GetName(), err)
	if double != "" {
		text = strings.ReplaceAll(text, double, o.GetName())
	}
	k.problem(Problem{o.String(), text})
	return nil
}

// waitsForSet says why a refusal means nothing: the API server looked for another object of the set,
// or has a webhook that cannot be tried.
func (k *check) waitsForSet(o object, err error) string {
	var st apierrors.APIStatus
	if !errors.As(err, &st) {
		return ""
	}
	text := st.Status().Message
	if st.Status().Code == http.StatusBadRequest && strings.Contains(text, "does not support dry run") {
		return "an admission webhook of the cluster does not support dry runs"
	}
	if code := st.Status().Code; (code != http.StatusForbidden && code != http.StatusNotFound) || denied.MatchString(text) {
		return ""
	}
	switch o.GetKind() {
	case "RoleBinding", "ClusterRoleBinding":
		kind, _, _ := unstructured.NestedString(o.Object, "roleRef", "kind")
		name, _, _ := unstructured.NestedString(o.Object, "roleRef", "name")
		ns := o.GetNamespace()
		if kind == "ClusterRole" {
			ns = ""
		}
		if role := named(kind, ns, name); k.roles[role] && strings.Contains(text, "not found") {
			return role + " comes with the release"
		}
	case "Pod":
		name, _, _ := unstructured.NestedString(o.Object, "spec", "serviceAccountName")
		if name == "" {
			name = "default"
		}
		if account := named("ServiceAccount", o.GetNamespace(), name); strings.Contains(text, "service account") && (k.roles[account] || k.isMissing(o.GetNamespace())) {
			return account + " comes with the release"
		}
	}
	return ""
}
