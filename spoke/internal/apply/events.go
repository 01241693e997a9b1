package apply

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var events = resource{schema.GroupVersionKind{Version: "v1", Kind: "Event"}, "events", true}

const maxEvent = 120 // characters of a message that belong to an event

// event is what a controller said about an object.
type event struct {
	Metadata                      metav1.ObjectMeta
	Type, Reason, Message         string
	FirstTimestamp, LastTimestamp *metav1.Time
	EventTime                     *metav1.MicroTime
	Series                        *struct{ LastObservedTime *metav1.MicroTime }
}

// at is when it was last said; the API has had several places for that.
func (e event) at() time.Time {
	var last time.Time
	for _, t := range []*metav1.Time{e.FirstTimestamp, e.LastTimestamp} {
		if t != nil && t.After(last) {
			last = t.Time
		}
	}
	micro := []*metav1.MicroTime{e.EventTime}
	if e.Series != nil {
		micro = append(micro, e.Series.LastObservedTime)
	}
	for _, t := range micro {
		if t != nil && t.After(last) {
			last = t.Time
		}
	}
	if last.IsZero() {
		return e.Metadata.CreationTimestamp.Time
	}
	return last
}

// printed are the reasons of events that quote what a program of the provider printed.
var printed = []string{"Unhealthy", "ProbeWarning", "FailedPostStartHook", "FailedPreStopHook"}

func (e event) String() string {
	text := e.Message
	if slices.Contains(printed, e.Reason) {
		text, _, _ = strings.Cut(text, ":")
	}
	return strings.TrimSuffix(e.Reason+": "+text, ": ")
}

// compareEvents puts warnings last, and of these the newest.
func compareEvents(a, b event) int {
	warns := func(e event) int {
		if e.Type == "Warning" {
			return 1
		}
		return 0
	}
	if d := warns(a) - warns(b); d != 0 {
		return d
	}
	return a.at().Compare(b.at())
}

// lastEvent is what was last said about an object, or about its pod that is not well: a warning, if there
// is one. "" where nothing was said, or where it may not be read.
func (c *Cluster) lastEvent(ctx context.Context, a ailing, pod types.UID) (string, error) {
	if a.object == nil || a.object.GetUID() == "" {
		return "", nil
	}
	var all []event
	for _, uid := range []types.UID{a.object.GetUID(), pod} {
		if uid == "" {
			continue
		}
		found, err := c.api.eventsOf(ctx, a.Namespace, uid)
		if err != nil {
			return "", allowed(err)
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return "", nil
	}
	return slices.MaxFunc(all, compareEvents).String(), nil
}

func (a *api) eventsOf(ctx context.Context, namespace string, uid types.UID) ([]event, error) {
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where events about what is in no namespace are
	}
	raw, err := a.do(ctx, a.client.Get().AbsPath(events.path(namespace)...).
		Param("fieldSelector", "involvedObject.uid="+string(uid)).Param("limit", fmt.Sprint(pageSize)), nil)
	if err != nil {
		return nil, err
	}
	var l struct{ Items []event }
	if err := json.Unmarshal(raw, &l); err != nil {
		return nil, fmt.Errorf("read the list of events: %w", err)
	}
	return l.Items, nil
}
