package apply

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
)

// The marks of an ApplySet, by which kubectl and others see that objects belong together
// (kubernetes/enhancements, KEP-3659). Its parent is the ConfigMap that holds the inventory.
const (
	partOfLabel           = "applyset.kubernetes.io/part-of"
	applySetLabel         = "applyset.kubernetes.io/id"
	toolingAnnotation     = "applyset.kubernetes.io/tooling"
	kindsAnnotation       = "applyset.kubernetes.io/contains-group-kinds"
	moreSpacesAnnotation  = "applyset.kubernetes.io/additional-namespaces"
	tooling               = "wheelwright/v1"
	managedByLabel, maker = "app.kubernetes.io/managed-by", "wheelwright"
)

// applySetID is derived from the parent, so that no object can claim to be one under another name.
func applySetID(distribution, namespace string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{InventoryName(distribution), namespace, configMaps.Kind, configMaps.Group}, ".")))
	return "applyset-" + base64.RawURLEncoding.EncodeToString(sum[:]) + "-v1"
}

// applySetAnnotations names the kinds and the other namespaces in which the members are.
func applySetAnnotations(inv Inventory) map[string]string {
	kinds, spaces := map[string]bool{}, map[string]bool{}
	for _, i := range inv.Items {
		kinds[i.GroupKind().String()] = true
		if i.Namespace != "" && i.Namespace != inv.Namespace {
			spaces[i.Namespace] = true
		}
	}
	return map[string]string{
		toolingAnnotation:    tooling,
		kindsAnnotation:      listed(kinds),
		moreSpacesAnnotation: listed(spaces),
	}
}

func listed(names map[string]bool) string {
	var all []string
	for n := range names {
		all = append(all, n)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}
