package kube_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

func TestMain(m *testing.M) { harness.Main(m) }

// Every verb against a real API server.
func TestVerbs(t *testing.T) {
	c := harness.Shared(t, 1)[0]
	client, err := kube.Open(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, namespace, maps := t.Context(), c.NewNamespace(t), kube.Resource{APIVersion: "v1", Plural: "configmaps"}
	object := func(value string) kube.Object {
		return kube.Object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "labels": map[string]any{"app": "a"}}, "data": map[string]any{"k": value}}
	}
	made, err := client.Create(ctx, maps, namespace, object("1"))
	if err != nil || made.UID() == "" || made.Namespace() != namespace {
		t.Fatalf("%v, %v", made, err)
	}
	if _, err := client.Create(ctx, maps, namespace, object("1")); !kube.HasCode(err, http.StatusConflict) {
		t.Errorf("made twice: %v", err)
	}
	changed := make(chan error, 1)
	go func() { changed <- client.Changed(ctx, maps, namespace, "a", made.Version(), time.Minute) }()
	if o, err := client.Apply(ctx, maps, namespace, object("2"), "test", true); err != nil || o.Text("data", "k") != "2" {
		t.Errorf("applied: %v, %v", o, err)
	}
	if err := <-changed; err != nil {
		t.Errorf("watched: %v", err)
	}
	if _, err := client.Apply(ctx, maps, namespace, object("3"), "somebody-else", false); !kube.HasCode(err, http.StatusConflict) {
		t.Errorf("applied over another's field: %v", err)
	}
	if o, err := client.Merge(ctx, maps, namespace, "a", []byte(`{"data":{"k":null,"l":"4"}}`)); err != nil || o.Text("data", "l") != "4" || o.Text("data", "k") != "" {
		t.Errorf("merged: %v, %v", o, err)
	}
	if l, err := client.List(ctx, maps, namespace, "app=a"); err != nil || len(l) != 1 || l[0].Name() != "a" {
		t.Errorf("listed: %v, %v", l, err)
	}
	if err := client.Delete(ctx, maps, namespace, "a", "another-uid"); err != nil {
		t.Errorf("deleted another one: %v", err)
	}
	if o, err := client.Get(ctx, maps, namespace, "a"); err != nil || o.UID() != made.UID() {
		t.Errorf("got %v, %v", o, err)
	}
	if err := client.Delete(ctx, maps, namespace, "a", made.UID()); err != nil {
		t.Error(err)
	}
	if _, err := client.Get(ctx, maps, namespace, "a"); !kube.HasCode(err, http.StatusNotFound) {
		t.Errorf("after all: %v", err)
	}
	if at := client.ClusterIP(ctx, "default", "kubernetes"); at == "" {
		t.Error("the API server's own Service has no address")
	}
}
