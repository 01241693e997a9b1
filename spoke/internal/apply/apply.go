// Package apply is the spoke's hand on its cluster: it dry-runs a rendered set of objects, applies it
// with server-side apply, keeps an inventory of what it put there, prunes what a new set no longer
// has, reads health and puts drift back. It is the only user of client-go's clients.
//
// It decides nothing: when to apply, to which release to return and how long to wait is the agent's.
// It deletes what a release no longer has in Prune, what was made of a release that never ran in Undo,
// and what cannot be changed, in order to make it anew, where the provider's terms consent; pods that a
// StatefulSet waits for in vain in Unstick. A Namespace, a CustomResourceDefinition, a PersistentVolume
// or a PersistentVolumeClaim is deleted only where the terms name it.
//
// What it writes for a distribution it writes as the Identity that its Config names, by impersonation; and nothing
// that is outside of the Set's envelope is written for the first time or put back.
//
// Nouns: a Set is what should be on the cluster; an Inventory is what was put there, by UID; a Change
// is what an operation did.
package apply

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// Labels that the spoke sets.
const (
	DistributionLabel = "wheelwright.dev/distribution" // on every object of a distribution
	InventoryLabel    = "wheelwright.dev/inventory"    // on the ConfigMap that holds its inventory
)

// HookRunAnnotation says on an object which delivery it was made for. Such an object is a hook: see Item.
const HookRunAnnotation = "wheelwright.dev/hook-run"

const (
	defaultManager = "wheelwright"
	workers        = 16 // requests in flight per operation; more gains nothing on a small API server
	requestTimeout = time.Minute
)

// Config says which cluster, and as whom.
type Config struct {
	Kubeconfig   string // file; empty: in-cluster credentials, else KUBECONFIG's rules
	Context      string // of the kubeconfig; empty: its current one
	FieldManager string // owner of what is applied; default "wheelwright"

	// Patience bounds how long one object is retried while the cluster is getting ready for it: a
	// namespace that is going away, a definition not served yet, a webhook not up. Default 30s.
	Patience time.Duration

	// Account says as whom a distribution's objects are written, each time anew. Nil, and its zero answer: as the
	// spoke itself. An error: nothing is written.
	Account func(distribution string) (Identity, error)

	Log           *slog.Logger
	WrapTransport func(http.RoundTripper) http.RoundTripper // nil: none; sees every request
}

// Cluster is one Kubernetes cluster. Its methods may be called concurrently, but not two that write
// for the same distribution.
type Cluster struct {
	log      *slog.Logger
	api      *api
	kinds    *kinds
	http     *http.Client
	reach    *rest.Config // as it was read
	patience time.Duration
	claims   claims
	account  func(distribution string) (Identity, error)
	taken    identities
	flips    oscillations // what others take from us again and again
}

// New reads the credentials; it sends no request.
func New(c Config) (*Cluster, error) {
	cfg, err := restConfig(c.Kubeconfig, c.Context)
	if err != nil {
		return nil, err
	}
	reach := rest.CopyConfig(cfg)
	if c.FieldManager == "" {
		c.FieldManager = defaultManager
	}
	if c.Patience == 0 {
		c.Patience = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	cfg.QPS = -1 // the API server's own priority and fairness decides; 429 is retried by client-go
	cfg.Timeout = requestTimeout
	cfg.UserAgent = c.FieldManager
	cfg.WarningHandlerWithContext = warnings{c.Log}
	cfg.NegotiatedSerializer = statusCodec()
	if c.WrapTransport != nil {
		cfg.Wrap(c.WrapTransport)
	}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return voice{next} })
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return counter{next} })
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("use the credentials for %s: %w", cfg.Host, err)
	}
	rc, err := rest.UnversionedRESTClientForConfigAndClient(cfg, client)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", cfg.Host, err)
	}
	disc, err := discovery.NewDiscoveryClientForConfigAndClient(cfg, client)
	if err != nil {
		return nil, fmt.Errorf("make a client for %s: %w", cfg.Host, err)
	}
	a := &api{client: rc, host: cfg.Host, manager: c.FieldManager}
	return &Cluster{log: c.Log, api: a, kinds: &kinds{api: a, disc: disc}, http: client, reach: reach, patience: c.Patience, account: c.Account}, nil
}

// Close lets go of idle connections.
func (c *Cluster) Close() {
	for rt := c.http.Transport; rt != nil; {
		if idle, ok := rt.(interface{ CloseIdleConnections() }); ok {
			idle.CloseIdleConnections()
			return
		}
		wrapper, ok := rt.(interface{ WrappedRoundTripper() http.RoundTripper })
		if !ok {
			return
		}
		rt = wrapper.WrappedRoundTripper()
	}
}

// Version is the API server's, such as "v1.36.3"; empty when it cannot be had.
func (c *Cluster) Version(ctx context.Context) string {
	v, err := c.kinds.disc.ServerVersionWithContext(ctx)
	if err != nil {
		return ""
	}
	return v.GitVersion
}

func restConfig(file, kubecontext string) (*rest.Config, error) {
	if file == "" && kubecontext == "" {
		cfg, err := rest.InClusterConfig()
		if err == nil {
			return cfg, nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, fmt.Errorf("read the in-cluster credentials: %w", err)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	where := "KUBECONFIG or ~/.kube/config"
	if file != "" {
		rules.ExplicitPath, where = file, file
	}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules,
		&clientcmd.ConfigOverrides{CurrentContext: kubecontext}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig (%s): %w; set kubeconfig and context in spoke.yaml, and try: kubectl config view", where, err)
	}
	return cfg, nil
}

// statusCodec decodes the API server's Status objects and nothing else: objects are read as bytes.
func statusCodec() runtime.NegotiatedSerializer {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return serializer.NewCodecFactory(s).WithoutConversion()
}

type warnings struct{ log *slog.Logger }

func (w warnings) HandleWarningHeaderWithContext(ctx context.Context, code int, _ string, text string) {
	if code == 299 && text != "" {
		w.log.DebugContext(ctx, "the API server warns", logging.Reason, text)
	}
}
