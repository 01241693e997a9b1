package realnode

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/wheelwright-dev/wheelwright/integration/watched"
)

// startCloud stands in for a cloud: every Service of type LoadBalancer gets an address of its own, which kube-proxy
// leads to the Service and which this machine reaches.
func (n *Node) startCloud(ctx context.Context) error {
	client, err := dynamic.NewForConfig(n.Cluster.RESTConfig())
	if err != nil {
		return err
	}
	c := &cloud{services: client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "services"}), given: map[types.UID]netip.Addr{}}
	complain := func(err error) { fmt.Fprintf(n.options.Log, "realnode: addresses of load balancers: %v\n", err) }
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wait sync.WaitGroup
	wait.Go(func() {
		watched.Run(run, c.services, func(all map[string]*unstructured.Unstructured) {
			if err := c.give(run, all); err != nil && run.Err() == nil {
				complain(err)
			}
		}, complain)
	})
	n.closers = append(n.closers, func() error {
		cancel()
		wait.Wait()
		return nil
	})
	return nil
}

// cloud is used by one goroutine.
type cloud struct {
	services dynamic.NamespaceableResourceInterface
	given    map[types.UID]netip.Addr
}

// give gives an address to each Service that waits for one.
func (c *cloud) give(ctx context.Context, all map[string]*unstructured.Unstructured) error {
	for _, service := range all {
		kind, _, _ := unstructured.NestedString(service.Object, "spec", "type")
		has, _, _ := unstructured.NestedSlice(service.Object, "status", "loadBalancer", "ingress")
		if kind != "LoadBalancer" || len(has) > 0 || service.GetDeletionTimestamp() != nil {
			continue
		}
		address, ok := c.given[service.GetUID()]
		if !ok {
			address = netip.MustParsePrefix(balancerNetwork).Addr()
			for range len(c.given) + 1 {
				address = address.Next()
			}
			c.given[service.GetUID()] = address
		}
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": []any{map[string]any{"ip": address.String()}}}}})
		if err != nil {
			return err
		}
		if _, err := c.services.Namespace(service.GetNamespace()).Patch(ctx, service.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			return fmt.Errorf("give %s/%s one: %w", service.GetNamespace(), service.GetName(), err)
		}
	}
	return nil
}
