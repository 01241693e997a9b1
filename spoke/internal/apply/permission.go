package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// everyVerb is what the spoke does with objects that it keeps; delete is asked for where it may delete.
var everyVerb = []string{"get", "list", "watch", "create", "patch", "delete"}

// rights are verbs by where they are needed.
type rights map[place]map[string]bool

func (r rights) need(p place, verbs ...string) {
	if r[p] == nil {
		r[p] = map[string]bool{}
	}
	for _, v := range verbs {
		r[p][v] = true
	}
}

// rule is one of those that the API server says hold for whoever asks.
type rule struct {
	Verbs         []string `json:"verbs"`
	APIGroups     []string `json:"apiGroups"`
	Resources     []string `json:"resources"`
	ResourceNames []string `json:"resourceNames"`
}

// grants reports that the rule allows a verb on the objects of these names; a rule for some names says nothing about
// lists.
func (r rule) grants(verb, group, plural string, names []string) bool {
	any := func(list []string, want string) bool {
		return slices.Contains(list, "*") || slices.Contains(list, want)
	}
	named := len(r.ResourceNames) == 0 || len(names) > 0 && verb != "list" && verb != "watch" &&
		!slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(r.ResourceNames, n) })
	return named && any(r.Verbs, verb) && any(r.APIGroups, group) && any(r.Resources, plural)
}

// nowhere is a namespace that no cluster has: what is allowed there is allowed everywhere, as it has to
// be for objects without a namespace. It answers for all of them at once.
const nowhere = "wheelwright-check-nowhere"

// lacking asks what of r whoever ctx speaks as may not do, with the objects of these names: one question for each
// namespace, and more only where its answer is said not to be all.
func (c *Cluster) lacking(ctx context.Context, r rights, names map[place][]string) (map[place][]string, error) {
	spaces := map[string][]place{}
	for p := range r {
		ns := p.namespace
		if !p.namespaced {
			ns = nowhere
		}
		spaces[ns] = append(spaces[ns], p)
	}
	var mu sync.Mutex
	missing := map[place][]string{}
	err := each(ctx, slices.Sorted(maps.Keys(spaces)), func(ctx context.Context, ns string) error {
		rules, whole, err := c.rulesIn(ctx, ns)
		if err != nil {
			return err
		}
		for _, p := range spaces[ns] {
			var lacks []string
			for _, verb := range everyVerb {
				if !r[p][verb] || slices.ContainsFunc(rules, func(r rule) bool { return r.grants(verb, p.Group, p.plural, names[p]) }) {
					continue
				}
				if !whole {
					if ok, err := c.may(ctx, p, verb, names[p]); err != nil {
						return err
					} else if ok {
						continue
					}
				}
				lacks = append(lacks, verb)
			}
			if len(lacks) > 0 {
				mu.Lock()
				missing[p] = lacks
				mu.Unlock()
			}
		}
		return nil
	})
	return missing, err
}

// rulesIn asks what whoever ctx speaks as may do in a namespace; whole says that the answer is all of it.
func (c *Cluster) rulesIn(ctx context.Context, namespace string) (rules []rule, whole bool, err error) {
	var answer struct {
		Status struct {
			ResourceRules []rule `json:"resourceRules"`
			Incomplete    bool   `json:"incomplete"`
		} `json:"status"`
	}
	question := map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
		"spec": map[string]any{"namespace": namespace},
	}
	err = c.api.post(ctx, question, &answer, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews")
	if err != nil && !ours(err) { // whoever may not ask is asked verb by verb
		return nil, false, nil
	}
	return answer.Status.ResourceRules, !answer.Status.Incomplete, err
}

// may asks for one verb. Where that may not be asked either, the dry run has to tell.
func (c *Cluster) may(ctx context.Context, p place, verb string, names []string) (bool, error) {
	name := ""
	if len(names) == 1 && verb != "list" && verb != "watch" {
		name = names[0]
	}
	var answer struct {
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	question := map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": map[string]any{"namespace": p.namespace, "verb": verb, "group": p.Group, "version": p.Version, "resource": p.plural, "name": name}},
	}
	who, _ := identityOf(ctx)
	err := c.api.post(ctx, question, &answer, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil && !ours(err) {
		err = fmt.Errorf("ask whether %s may %s %s: %s; try: kubectl auth can-i %[2]s %[3]s", who, verb, p.plural, oneLine(err.Error()))
	}
	return answer.Status.Allowed, err
}

// whoami is the name that the API server has for whom ctx speaks as.
func (c *Cluster) whoami(ctx context.Context) string {
	if who, err := c.self(ctx); err == nil && who != "" {
		return who
	}
	i, _ := identityOf(ctx)
	return i.String()
}

// self asks the API server.
func (c *Cluster) self(ctx context.Context) (string, error) {
	var answer struct {
		Status struct {
			UserInfo struct {
				Username string `json:"username"`
			} `json:"userInfo"`
		} `json:"status"`
	}
	question := map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
	err := c.api.post(ctx, question, &answer, "/apis/authentication.k8s.io/v1/selfsubjectreviews")
	return answer.Status.UserInfo.Username, err
}

// reading and writing are everyVerb, by whose they are where a distribution's objects are written as another.
var reading, writing = everyVerb[:3], everyVerb[3:]

// only are the rights to some verbs.
func (r rights) only(verbs []string) rights {
	some := rights{}
	for p, all := range r {
		for _, v := range verbs {
			if all[v] {
				some.need(p, v)
			}
		}
	}
	return some
}

// permitted files what may not be done, as the rule to add, and returns the places where nothing could even be
// tried. What the release's objects take is asked for whom they are written as, and all else for the spoke.
func (k *check) permitted(ctx context.Context, release, books rights) (closed map[place]bool, err error) {
	closed = map[place]bool{}
	if i, _ := identityOf(ctx); i.Own() {
		for p, verbs := range books {
			release.need(p, slices.Collect(maps.Keys(verbs))...)
			k.names[p] = append(k.names[p], InventoryName(k.set.Distribution))
		}
		err := k.ask(ctx, release, everyVerb, closed)
		k.mute = closed[place{configMaps, k.set.Namespace}]
		return closed, err
	}
	if err := k.ask(ctx, release.only(writing), writing, closed); err != nil {
		return closed, err
	}
	if err := k.ask(asSpoke(ctx), release.only(reading), reading, closed); err != nil {
		return closed, err
	}
	shut, of := map[place]bool{}, k.names
	k.names = map[place][]string{}
	for p := range books {
		k.names[p] = []string{InventoryName(k.set.Distribution)}
	}
	err = k.ask(asSpoke(ctx), books, everyVerb, shut)
	k.mute, k.names = shut[place{configMaps, k.set.Namespace}], of
	return closed, err
}

// ask files what of r whoever ctx speaks as may not do; verbs are what a rule that is added had best name.
func (k *check) ask(ctx context.Context, r rights, verbs []string, closed map[place]bool) error {
	missing, err := k.c.lacking(ctx, r, k.names)
	if err != nil || len(missing) == 0 {
		return err
	}
	user := k.c.whoami(ctx)
	for p, lacks := range missing {
		k.problem(Problem{named(p.Kind, p.namespace, ""), missingVerbs(user, strings.Join(lacks, ", "), p.plural, p.Group, p.namespace, verbs)})
		closed[p] = closed[p] || slices.Contains(lacks, "patch") || slices.Contains(lacks, "create")
	}
	return nil
}
