// Package watched keeps the objects of one kind as a cluster has them, for the stand-ins of the real node. It is a
// list and a watch, begun again whenever they end, and no cache for anyone else.
package watched

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// Run calls changed with every object there is, by namespace/name, at the beginning and after each change, until ctx
// is done. The map is changed's to read until it returns. What goes wrong is told to failed and tried again.
func Run(ctx context.Context, client dynamic.ResourceInterface, changed func(map[string]*unstructured.Unstructured), failed func(error)) {
	for ctx.Err() == nil {
		if err := follow(ctx, client, changed); err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// follow goes on until the watch ends, as every watch does after some minutes.
func follow(ctx context.Context, client dynamic.ResourceInterface, changed func(map[string]*unstructured.Unstructured)) error {
	list, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	all := map[string]*unstructured.Unstructured{}
	for i := range list.Items {
		all[key(&list.Items[i])] = &list.Items[i]
	}
	changed(all)
	watcher, err := client.Watch(ctx, metav1.ListOptions{ResourceVersion: list.GetResourceVersion()})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for event := range watcher.ResultChan() {
		object, ok := event.Object.(*unstructured.Unstructured)
		switch {
		case event.Type == watch.Error || !ok:
			return fmt.Errorf("watch: %v", event.Object)
		case event.Type == watch.Deleted:
			delete(all, key(object))
		default:
			all[key(object)] = object
		}
		changed(all)
	}
	return nil
}

func key(o *unstructured.Unstructured) string { return o.GetNamespace() + "/" + o.GetName() }
