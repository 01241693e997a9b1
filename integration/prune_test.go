package integration

import (
	"strings"
	"testing"
)

// What a new release no longer has is deleted, and nothing else: not what the provider added by hand,
// not the namespace, not a claim.
func TestPrune(t *testing.T) {
	s := tell(t, 1)
	const claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data\nspec:\n  accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 1Gi}}\n"
	s.must(s.vendor.Write("dist/base/database/claim.yaml", claim))
	s.must(s.vendor.Replace("base/database/kustomization.yaml", "- service.yaml\n", "- service.yaml\n- claim.yaml\n"))
	s.kubectl(0, "apply", "-f", "testdata/volume.yaml")
	t.Cleanup(func() {
		_, _ = s.real[0].Kubectl("delete", "-f", "testdata/volume.yaml", "--ignore-not-found", "--wait=false")
	})
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")
	s.kubectl(0, "-n", "shop", "create", "configmap", "by-hand")

	s.must(s.vendor.Replace("base/database/kustomization.yaml", "- claim.yaml\n", ""))
	s.must(s.vendor.Replace("base/backend/kustomization.yaml", "- hpa.yaml\n", ""))
	s.release("1.2.0", "Available")
	s.runs("1.2.0")
	if got := s.kubectl(0, "-n", "shop", "get", "hpa", "-o", "name"); got != "horizontalpodautoscaler.autoscaling/frontend" {
		t.Errorf("HPAs after the prune: %s; want the frontend's alone", got)
	}
	left := s.kubectl(0, "-n", "shop", "get", "configmaps,persistentvolumeclaims", "-o", "name")
	for _, kept := range []string{"configmap/by-hand", "persistentvolumeclaim/data"} {
		if !strings.Contains(left, kept) {
			t.Errorf("%s is gone; what is left:\n%s", kept, left)
		}
	}
}
