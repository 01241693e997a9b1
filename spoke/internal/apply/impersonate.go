package apply

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/transport"
)

// Identity is the service account as which a distribution's objects are written; the zero one is the spoke
// itself. What the spoke reads, its inventories and the credentials of plugins are its own affair always.
type Identity struct{ Namespace, Name string }

// Own reports that it is the spoke itself.
func (i Identity) Own() bool { return i == Identity{} }

// String is whom the API server knows it as.
func (i Identity) String() string {
	if i.Own() {
		return "the spoke"
	}
	return "system:serviceaccount:" + i.Namespace + ":" + i.Name
}

type identityKey struct{}

// as makes a context whose writes are an identity's.
func as(ctx context.Context, i Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, i)
}

// asSpoke makes a context whose writes are the spoke's.
func asSpoke(ctx context.Context) context.Context { return as(ctx, Identity{}) }

// identityOf is whose the writes of a context are; said is false where nobody thought of it.
func identityOf(ctx context.Context) (i Identity, said bool) {
	i, said = ctx.Value(identityKey{}).(Identity)
	return i, said
}

// errUnsaid keeps a write of which nobody said whose it is from being the spoke's, who may do more.
var errUnsaid = errors.New("a write was not sent: it does not say as whom it is made, which is a mistake of the spoke")

// voice is the one place through which every request goes out: whatever is not a mere look is made as the
// identity of its context.
type voice struct{ next http.RoundTripper }

func (t voice) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return t.next.RoundTrip(r)
	}
	i, said := identityOf(r.Context())
	switch {
	case !said:
		return nil, errUnsaid
	case i.Own():
		return t.next.RoundTrip(r)
	}
	r = r.Clone(r.Context())
	for key := range r.Header {
		if strings.HasPrefix(key, "Impersonate-") { // of a kubeconfig that impersonates: its groups would be added
			r.Header.Del(key)
		}
	}
	r.Header.Set(transport.ImpersonateUserHeader, i.String()) // the groups are those of a service account, by the API server's own rule
	return t.next.RoundTrip(r)
}

func (t voice) WrappedRoundTripper() http.RoundTripper { return t.next }

// identities are those that were seen to be taken.
type identities struct {
	mu     sync.Mutex
	proven map[Identity]time.Time
}

// acting makes a context in which a distribution's objects are written as spoke.yaml says. Before the first
// write it asks the API server who it takes the writer for, so that nobody on the way to it who drops a header
// makes it be the spoke.
func (c *Cluster) acting(ctx context.Context, distribution string) (context.Context, error) {
	if c.account == nil {
		return asSpoke(ctx), nil
	}
	i, err := c.account(distribution)
	if err != nil {
		return nil, err
	}
	ctx = as(ctx, i)
	if i.Own() {
		return ctx, nil
	}
	c.taken.mu.Lock()
	at, known := c.taken.proven[i]
	c.taken.mu.Unlock()
	if known && time.Since(at) < freshness {
		return ctx, nil
	}
	if err := c.prove(ctx, i); err != nil {
		return nil, err
	}
	c.taken.mu.Lock()
	defer c.taken.mu.Unlock()
	if c.taken.proven == nil {
		c.taken.proven = map[Identity]time.Time{}
	}
	c.taken.proven[i] = time.Now()
	return ctx, nil
}

// prove has the API server say whom it takes writes of ctx for.
func (c *Cluster) prove(ctx context.Context, i Identity) error {
	who, err := c.self(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return nil // before Kubernetes 1.28 nobody answers that
	case apierrors.IsForbidden(err):
		if m := denied.FindStringSubmatch(err.Error()); m != nil && strings.HasPrefix(m[2], "impersonate") {
			return refusalError{"ServiceAccount " + i.Namespace + "/" + i.Name + ": " + mayNotImpersonate(m[1], i.Namespace, i.Name)}
		}
		fallthrough
	case err != nil:
		return refusal("ServiceAccount", i.Namespace, i.Name, err)
	case who != i.String():
		return refusalError{fmt.Sprintf("ServiceAccount %s/%s: writes are to be made as this account, and the API server takes them for %s: something on the way drops the header Impersonate-User; see: kubectl auth whoami --as=%s",
			i.Namespace, i.Name, who, i)}
	}
	return nil
}

// mayNotImpersonate tells how the right is given, to whom, for one account and no other.
func mayNotImpersonate(user, namespace, account string) string {
	return fmt.Sprintf(`%s may not impersonate service account %s/%s, as which spoke.yaml has it write; add to a Role in namespace %[2]s the rule apiGroups: [""], resources: ["serviceaccounts"], resourceNames: [%[3]q], verbs: ["impersonate"], and bind it; then see: kubectl auth can-i impersonate serviceaccount/%[3]s -n %[2]s --as=%[1]s`,
		user, namespace, account)
}
