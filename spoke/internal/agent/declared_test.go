package agent

import (
	"reflect"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

func TestServicesAreToldWhoStepsBeforeThem(t *testing.T) {
	services := []*pluginv1.Service{{Name: "frontend"}, {Name: "backend"}, {Name: "cache"}}
	unknown := ordered(services, map[string][]string{"frontend": {"backend", "bakend"}, "mail": {"cache"}})
	if want := []string{"bakend", "mail"}; !reflect.DeepEqual(unknown, want) {
		t.Errorf("unknown are %v, want %v", unknown, want)
	}
	if got := services[0].GetAfter(); !reflect.DeepEqual(got, []string{"backend"}) || len(services[1].GetAfter()) > 0 || len(services[2].GetAfter()) > 0 {
		t.Errorf("frontend steps after %v, the others after %v and %v", got, services[1].GetAfter(), services[2].GetAfter())
	}
}

// What configures a plugin and what is a test stays in the set, and is not for the cluster.
func TestASetIsCompletedAndMarked(t *testing.T) {
	const set = `apiVersion: v1
kind: Service
metadata: {name: backend}
---
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: backend}
---
apiVersion: batch/v1
kind: Job
metadata: {name: smoke, annotations: {wheelwright.dev/test: before-traffic}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: charted, annotations: {helm.sh/hook: "post-install, test"}}
`
	const added = `apiVersion: v1
kind: Service
metadata: {name: backend, namespace: shop}
spec: {type: ExternalName}
---
apiVersion: v1
kind: Service
metadata: {name: cache, namespace: shop}
`
	text, count, err := completed([]byte(set), []byte(added), []string{"Canary shop/backend"}, nil, "shop")
	if err != nil {
		t.Fatal(err)
	}
	objs, err := manifest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(objs) != 5 || count != 2 || strings.Contains(string(text), "ExternalName") {
		t.Errorf("%d objects, %d of them applied, want 5 and 2:\n%s", len(objs), count, text)
	}
	var left []string
	for _, o := range applicable(objs) {
		left = append(left, o.GetKind()+" "+o.GetName())
	}
	if want := []string{"Service backend", "Service cache"}; !reflect.DeepEqual(left, want) {
		t.Errorf("applied are %v, want %v", left, want)
	}
	again, _, err := completed(text, []byte(added), []string{"Canary shop/backend"}, nil, "shop")
	if err != nil || string(again) != string(text) {
		t.Errorf("once more it is another: %v\n%s", err, again)
	}
	objs, err = manifest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	unmarked(objs)
	for _, o := range objs {
		if o.GetKind() == "Canary" && len(o.GetAnnotations()) > 0 {
			t.Errorf("a mark is left: %v", o.GetAnnotations())
		}
	}
}
