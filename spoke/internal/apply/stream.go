package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/fields"
)

// Between two requests of a stream. It grows until a stream has been steady for a while.
const (
	leastPause = 250 * time.Millisecond
	mostPause  = 30 * time.Second
	steady     = 5 * time.Second
)

// streamFor bounds one watch request; the next one goes on where it ended. Different lengths keep many
// streams from being renewed at the same moment.
func streamFor() time.Duration { return 5*time.Minute + rand.N(5*time.Minute) }

// stream keeps one spot in sight until ctx ends: a list, then a watch that goes on from it, and a list
// again when the API server no longer knows how to go on.
func (w *Watch) stream(ctx context.Context, s spot) {
	version, told, pause := "", "", leastPause
	for ctx.Err() == nil {
		began := time.Now()
		var err error
		if version == "" {
			version, err = w.list(ctx, s)
		}
		if err == nil {
			version, err = w.follow(ctx, s, version)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			told = ""
		case !errors.Is(err, ErrUnreachable) && err.Error() != told:
			told = err.Error()
			w.c.log.WarnContext(ctx, "changes are not noticed at once", logging.Distribution, w.distribution, logging.Error, err)
		}
		if err == nil && time.Since(began) > max(steady, 2*pause) {
			pause = leastPause
		}
		t := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		pause = min(2*pause, mostPause)
	}
}

func (s spot) selector(distribution string) string { return s.label + "=" + distribution }

// watched is the part of an object that is looked at.
type watched struct {
	Metadata struct {
		Name, Namespace, UID, ResourceVersion string
		DeletionTimestamp                     *string
		ManagedFields                         []metav1.ManagedFieldsEntry
	}
}

func (w *Watch) sight(s spot, o watched) (identity, sight) {
	m := o.Metadata
	ours := fields.Owned(m.ManagedFields, w.c.api.manager)
	v := sight{uid: m.UID, owned: ours.Digest(), leaving: m.DeletionTimestamp != nil}
	if s.label == InventoryLabel && !ours.Has(fields.Path{"binaryData", inventoryKey}) {
		v.owned = ""
	}
	return identity{s.GroupKind(), m.Namespace, m.Name}, v
}

// list takes in what is there, and returns the version from which a watch goes on.
func (w *Watch) list(ctx context.Context, s spot) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	objects, version := map[identity]sight{}, ""
	err := w.c.api.list(ctx, s.resource, s.namespace, s.selector(w.distribution), metadataListOnly, func(raw []byte) error {
		var page struct {
			Metadata metav1.ListMeta
			Items    []watched
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			return fmt.Errorf("read the list of %s: %w", s.plural, err)
		}
		for _, o := range page.Items {
			id, v := w.sight(s, o)
			objects[id] = v
		}
		version = page.Metadata.ResourceVersion
		return nil
	})
	if apierrors.IsNotFound(err) { // the kind went, and its objects with it
		w.replace(s, objects)
	}
	if err != nil {
		return "", refusal(s.Kind, s.namespace, "", err)
	}
	w.replace(s, objects)
	return version, nil
}

// follow takes in changes from a version on, and returns the version to go on from: "" after a list.
func (w *Watch) follow(ctx context.Context, s spot, version string) (string, error) {
	limit := streamFor()
	ctx, cancel := context.WithTimeout(ctx, limit+time.Minute)
	defer cancel()
	body, err := w.c.api.watch(ctx, s.place, s.selector(w.distribution), version, limit)
	if err != nil {
		if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
			return "", nil
		}
		if !errors.Is(err, ErrUnreachable) {
			version = "" // whatever it is, a list starts anew
		}
		return version, refusal(s.Kind, s.namespace, "", err)
	}
	defer body.Close()
	events := json.NewDecoder(body)
	for {
		var e struct {
			Type   string
			Object json.RawMessage
		}
		if err := events.Decode(&e); err != nil { // the server ends a stream when its time is over
			return version, nil
		}
		if e.Type == "ERROR" {
			return "", nil
		}
		var o watched
		if err := json.Unmarshal(e.Object, &o); err != nil {
			return "", fmt.Errorf("read a change of %s: %w", s.plural, err)
		}
		if v := o.Metadata.ResourceVersion; v != "" {
			version = v
		}
		if e.Type == "BOOKMARK" {
			continue
		}
		id, v := w.sight(s, o)
		w.change(s, id, v, e.Type == "DELETED")
	}
}

// watch opens a stream of changes of metadata. It is not the client's own request, which ends after a
// minute.
func (a *api) watch(ctx context.Context, p place, selector, version string, limit time.Duration) (io.ReadCloser, error) {
	url := a.client.Get().Timeout(0).AbsPath(p.path(p.namespace)...).
		Param("watch", "true").Param("allowWatchBookmarks", "true").
		Param("labelSelector", selector).Param("resourceVersion", version).
		Param("timeoutSeconds", strconv.Itoa(int(limit.Seconds()))).URL()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask for changes of %s: %w", p.plural, err)
	}
	req.Header.Set("Accept", metadataOnly)
	client := http.Client{Transport: a.client.Client.Transport}
	resp, err := client.Do(req)
	if err != nil {
		return nil, a.failed(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, a.failed(ctx, err)
	}
	status := metav1.Status{}
	if json.Unmarshal(raw, &status) != nil || status.Kind != "Status" {
		status = metav1.Status{Message: fmt.Sprintf("the API server answered %s", resp.Status)}
	}
	status.Status, status.Code = metav1.StatusFailure, int32(resp.StatusCode)
	return nil, a.failed(ctx, &apierrors.StatusError{ErrStatus: status})
}
