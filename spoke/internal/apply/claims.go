package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// place is where objects of a kind are listed.
type place struct {
	resource
	namespace string
}

func (o object) place() place { return place{o.resource, o.GetNamespace()} }

func placesOf(objs []object) []place {
	places := map[place]bool{}
	for _, o := range objs {
		if !o.upcoming {
			places[o.place()] = true
		}
	}
	return slices.Collect(maps.Keys(places))
}

// labelled lists the metadata of what any distribution has in these places. Where a place may not be read
// the others are in the answer beside the error.
func (c *Cluster) labelled(ctx context.Context, places []place) (map[identity]metav1.ObjectMeta, error) {
	var mu sync.Mutex
	all := map[identity]metav1.ObjectMeta{}
	err := each(ctx, places, func(ctx context.Context, p place) error {
		found, err := c.api.listMetadata(ctx, p.resource, p.namespace, DistributionLabel)
		if ignoreMissing(err) != nil {
			return refusal(p.Kind, p.namespace, "", err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, m := range found {
			all[identity{p.GroupKind(), m.Namespace, m.Name}] = m
		}
		return nil
	})
	return all, err
}

// shared: distributions may meet in one namespace, and each may bring it.
func shared(gk schema.GroupKind) bool { return gk == namespaces.GroupKind() }

// claimed is a problem where o is another distribution's; owner is what its label says.
func claimed(o object, distribution, owner string) (Problem, bool) {
	if owner == "" || owner == distribution || distribution == "" || shared(o.resource.GroupKind()) {
		return Problem{}, false
	}
	flag := ""
	if ns := o.GetNamespace(); ns != "" {
		flag = "-n " + ns + " "
	}
	return Problem{o.String(), fmt.Sprintf("distributions %s and %s both declare it; let an overlay delete or rename it in one of them, or give one another namespace (where %[2]s is not subscribed any more: kubectl %[3]slabel %[4]s %[5]s %[6]s-)",
		distribution, owner, flag, strings.ToLower(o.GetKind()), o.GetName(), DistributionLabel)}, true
}

// claims are the objects that an Apply under way is about to send: two subscriptions that begin at the
// same moment do not see each other's label yet.
type claims struct {
	mu    sync.Mutex
	owner map[identity]string
}

// take claims objects for a distribution, or none of them and says why. Call the returned function
// when they are on the cluster.
func (c *claims) take(distribution string, objs []object) (free func(), problems []Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range objs {
		if p, other := claimed(o, distribution, c.owner[o.item().identity()]); other {
			problems = append(problems, p)
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	if c.owner == nil {
		c.owner = map[identity]string{}
	}
	for _, o := range objs {
		c.owner[o.item().identity()] = distribution
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, o := range objs {
			if id := o.item().identity(); c.owner[id] == distribution {
				delete(c.owner, id)
			}
		}
	}, nil
}

// unclaimed refuses a set some of whose objects are another distribution's.
func (c *Cluster) unclaimed(ctx context.Context, set Set, objs []object) error {
	found, err := c.labelled(ctx, placesOf(objs))
	if ours(err) {
		return err // what may not be listed is no reason; what may be written is for the API server to say
	}
	var problems []Problem
	for _, o := range objs {
		if p, other := claimed(o, set.Distribution, found[o.item().identity()].Labels[DistributionLabel]); other {
			problems = append(problems, p)
		}
	}
	more, err := c.forged(ctx, set, objs)
	if err != nil {
		return err
	}
	if problems = append(problems, more...); len(problems) > 0 {
		return refused(problems, len(set.Objects))
	}
	return nil
}
