package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// api is the few verbs that this package needs, over bytes: the status code of an apply says whether
// the object was made, and metadata-only answers keep values of Secrets out of the spoke's memory.
type api struct {
	client  *rest.RESTClient
	host    string
	manager string
}

const (
	metadataOnly     = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
	metadataListOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
	pageSize         = 500

	maxRetries = 7                // after an answer that says when to come again
	maxWait    = 15 * time.Second // whatever it says
)

// resource is how a kind is addressed.
type resource struct {
	schema.GroupVersionKind
	plural     string
	namespaced bool
}

func (r resource) path(namespace string, name ...string) []string {
	p := []string{"/apis", r.Group, r.Version}
	if r.Group == "" {
		p = []string{"/api", r.Version}
	}
	if r.namespaced && namespace != "" {
		p = append(p, "namespaces", namespace)
	}
	return append(append(p, r.plural), name...)
}

// object's metadata, the only part of most answers that is read.
type partial struct {
	Metadata metav1.ObjectMeta `json:"metadata"`
}

// do sends a request; created, if asked for, says whether the answer was 201.
func (a *api) do(ctx context.Context, req *rest.Request, created *bool) ([]byte, error) {
	result := req.MaxRetries(maxRetries).Do(ctx)
	if err := result.Error(); err != nil { // unlike Raw's, it is the API server's own Status
		return nil, a.failed(ctx, err)
	}
	if created != nil {
		result.WasCreated(created)
	}
	return result.Raw()
}

// mode is how an object is applied; the zero one stores it and takes over fields that others have set.
type mode int

const (
	dryRun mode = 1 << iota // nothing is stored
	gentle                  // what others have set is a conflict
)

// patch applies data.
func (a *api) patch(ctx context.Context, r resource, namespace, name string, data []byte, m mode) (metav1.ObjectMeta, bool, error) {
	req := a.client.Patch(types.ApplyPatchType).AbsPath(r.path(namespace, name)...).
		Param("fieldManager", a.manager).SetHeader("Accept", metadataOnly).Body(data)
	if m&gentle == 0 {
		req = req.Param("force", "true")
	}
	if m&dryRun != 0 {
		req = req.Param("dryRun", "All")
	}
	var created bool
	raw, err := a.do(ctx, req, &created)
	if err != nil {
		return metav1.ObjectMeta{}, false, err
	}
	var p partial
	if err := json.Unmarshal(raw, &p); err != nil {
		return metav1.ObjectMeta{}, false, fmt.Errorf("read the API server's answer: %w", err)
	}
	return p.Metadata, created, nil
}

// post asks a question that is put as an object: answer is read from what comes back.
func (a *api) post(ctx context.Context, question any, answer any, path ...string) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("encode a request: %w", err)
	}
	raw, err := a.do(ctx, a.client.Post().AbsPath(path...).SetHeader("Content-Type", "application/json").Body(body), nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("read the API server's answer: %w", err)
	}
	return nil
}

// applied: the entry is of what this spoke's manager applied.
func (a *api) applied(e metav1.ManagedFieldsEntry) bool {
	return e.Manager == a.manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == ""
}

// get reads one object into v; accept "" reads all of it.
func (a *api) get(ctx context.Context, r resource, namespace, name, accept string, v any) error {
	req := a.client.Get().AbsPath(r.path(namespace, name)...)
	if accept != "" {
		req = req.SetHeader("Accept", accept)
	}
	raw, err := a.do(ctx, req, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("read the API server's answer: %w", err)
	}
	return nil
}

// list hands each page to read.
func (a *api) list(ctx context.Context, r resource, namespace, selector, accept string, read func([]byte) error) error {
	next := ""
	for {
		req := a.client.Get().AbsPath(r.path(namespace)...).
			Param("labelSelector", selector).Param("limit", fmt.Sprint(pageSize))
		if accept != "" {
			req = req.SetHeader("Accept", accept)
		}
		if next != "" {
			req = req.Param("continue", next)
		}
		raw, err := a.do(ctx, req, nil)
		if err != nil {
			return err
		}
		var page struct {
			Metadata metav1.ListMeta `json:"metadata"`
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			return fmt.Errorf("read the API server's answer: %w", err)
		}
		if err := read(raw); err != nil {
			return err
		}
		if next = page.Metadata.Continue; next == "" {
			return nil
		}
	}
}

func (a *api) listMetadata(ctx context.Context, r resource, namespace, selector string) ([]metav1.ObjectMeta, error) {
	var all []metav1.ObjectMeta
	err := a.list(ctx, r, namespace, selector, metadataListOnly, func(raw []byte) error {
		var l struct {
			Items []partial `json:"items"`
		}
		if err := json.Unmarshal(raw, &l); err != nil {
			return fmt.Errorf("read the list of %s: %w", r.plural, err)
		}
		for _, i := range l.Items {
			all = append(all, i.Metadata)
		}
		return nil
	})
	return all, err
}

func (a *api) listObjects(ctx context.Context, r resource, namespace, selector string) ([]unstructured.Unstructured, error) {
	var all []unstructured.Unstructured
	err := a.list(ctx, r, namespace, selector, "", func(raw []byte) error {
		var l unstructured.UnstructuredList
		if err := l.UnmarshalJSON(raw); err != nil {
			return fmt.Errorf("read the list of %s: %w", r.plural, err)
		}
		all = append(all, l.Items...)
		return nil
	})
	return all, err
}

// delete removes the object that has this UID, and what it owns in the background.
func (a *api) delete(ctx context.Context, r resource, namespace, name string, uid types.UID) error {
	background := metav1.DeletePropagationBackground
	body, err := json.Marshal(metav1.DeleteOptions{
		TypeMeta:          metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions:     &metav1.Preconditions{UID: &uid},
		PropagationPolicy: &background,
	})
	if err != nil {
		return fmt.Errorf("encode delete options: %w", err)
	}
	_, err = a.do(ctx, a.client.Delete().AbsPath(r.path(namespace, name)...).
		SetHeader("Content-Type", "application/json").Body(body), nil)
	return err
}

type counterKey struct{}

// counted makes a context whose requests are counted.
func counted(ctx context.Context) (context.Context, *atomic.Int64) {
	n := new(atomic.Int64)
	return context.WithValue(ctx, counterKey{}, n), n
}

// counter counts requests, and bounds how long an answer may put the next try off.
type counter struct{ next http.RoundTripper }

func (t counter) RoundTrip(r *http.Request) (*http.Response, error) {
	if n, ok := r.Context().Value(counterKey{}).(*atomic.Int64); ok {
		n.Add(1)
	}
	resp, err := t.next.RoundTrip(r)
	if err == nil && resp.Header.Get("Retry-After") != "" {
		if s, e := strconv.Atoi(resp.Header.Get("Retry-After")); e != nil || s > int(maxWait.Seconds()) {
			resp.Header.Set("Retry-After", fmt.Sprint(int(maxWait.Seconds())))
		}
	}
	return resp, err
}

func (t counter) WrappedRoundTripper() http.RoundTripper { return t.next }

// named is how an object is spoken of: "Deployment app/backend", "Namespace app".
func named(kind, namespace, name string) string {
	switch {
	case namespace != "" && name == "":
		name = "in namespace " + namespace
	case namespace != "":
		name = namespace + "/" + name
	}
	return strings.TrimSpace(kind + " " + name)
}
