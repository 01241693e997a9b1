package envelope

import (
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

// coreGroup is the name that the group without one goes by.
const coreGroup = "core"

const anyone = "*"

// Kind is one kind, or with * any kind of a group. An empty group is the core one; * is any.
type Kind struct{ Name, Group string }

func (k Kind) String() string {
	switch k.Group {
	case "":
		return k.Name + "." + coreGroup
	case anyone:
		return k.Name
	}
	return k.Name + "." + k.Group
}

func (k Kind) matches(gk schema.GroupKind) bool {
	return (k.Name == anyone || k.Name == gk.Kind) && (k.Group == anyone || k.Group == gk.Group)
}

var (
	kindName  = regexp.MustCompile(`^([A-Z][A-Za-z0-9]{0,62}|\*)$`)
	groupName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
)

// ParseDenied reads KIND of any group, KIND.GROUP or *.GROUP.
func ParseDenied(text string) (Kind, error) { return parseKind(text, Kind{Group: anyone}) }

// ParseAllowed reads KIND.GROUP, *.GROUP, or a KIND of Kubernetes' own: another group may have a kind of the
// same name, which is then not meant.
func ParseAllowed(text string) (Kind, error) {
	own, known := builtin[text]
	k, err := parseKind(text, Kind{Group: own.group})
	if err == nil && !known && !strings.Contains(text, ".") {
		return k, fmt.Errorf("%q: name its group, as in %s.example.com, or *.GROUP for all kinds of one: it is no kind of Kubernetes' own", text, strings.Replace(text, anyone, "Widget", 1))
	}
	return k, err
}

func parseKind(text string, k Kind) (Kind, error) {
	name, group, grouped := strings.Cut(text, ".")
	if !kindName.MatchString(name) || grouped && !groupName.MatchString(group) || name == anyone && !grouped {
		return k, fmt.Errorf("%q: want KIND, KIND.GROUP or *.GROUP, such as Deployment.apps; the group without a name is written core", text)
	}
	if k.Name = name; grouped {
		k.Group = strings.TrimSuffix(group, coreGroup)
		if group != coreGroup {
			k.Group = group
		}
	}
	return k, nil
}

// ParseClusterScoped reads KIND or KIND/NAME, each with its group like ParseAllowed.
func ParseClusterScoped(text string) (terms.Pattern, error) {
	p, err := terms.ParsePattern(text)
	if err != nil {
		return p, err
	}
	k, err := ParseAllowed(p.Kind)
	switch {
	case err != nil:
		return p, err
	case p.Namespace != "":
		return p, fmt.Errorf("%q: want KIND or KIND/NAME: these objects have no namespace", text)
	case builtin[k.Name].group == k.Group && builtin[k.Name].namespaced:
		return p, fmt.Errorf("%q: %s is namespaced: see envelope.namespaces and envelope.kinds", text, k)
	}
	p.Kind = k.String()
	return p, nil
}

type own struct {
	group      string
	namespaced bool
}

// builtin are Kubernetes' own kinds.
var builtin = builtins()

func builtins() map[string]own {
	all := map[string]own{}
	for _, of := range []struct{ group, namespaced, without string }{
		{"", "ConfigMap Endpoints Event LimitRange PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount", "Namespace Node PersistentVolume"},
		{"admissionregistration.k8s.io", "", "MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration"},
		{"apiextensions.k8s.io", "", "CustomResourceDefinition"},
		{"apiregistration.k8s.io", "", "APIService"},
		{"apps", "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet", ""},
		{"autoscaling", "HorizontalPodAutoscaler", ""},
		{"batch", "CronJob Job", ""},
		{"certificates.k8s.io", "PodCertificateRequest", "CertificateSigningRequest ClusterTrustBundle"},
		{"coordination.k8s.io", "Lease LeaseCandidate", ""},
		{"discovery.k8s.io", "EndpointSlice", ""},
		{"flowcontrol.apiserver.k8s.io", "", "FlowSchema PriorityLevelConfiguration"},
		{"networking.k8s.io", "Ingress NetworkPolicy", "IngressClass IPAddress ServiceCIDR"},
		{"node.k8s.io", "", "RuntimeClass"},
		{"policy", "PodDisruptionBudget", ""},
		{"rbac.authorization.k8s.io", "Role RoleBinding", "ClusterRole ClusterRoleBinding"},
		{"resource.k8s.io", "ResourceClaim ResourceClaimTemplate", "DeviceClass ResourceSlice"},
		{"scheduling.k8s.io", "", "PriorityClass"},
		{"storage.k8s.io", "CSIStorageCapacity", "CSIDriver CSINode StorageClass VolumeAttachment VolumeAttributesClass"},
		{"storagemigration.k8s.io", "", "StorageVersionMigration"},
	} {
		for _, kind := range strings.Fields(of.namespaced) {
			all[kind] = own{of.group, true}
		}
		for _, kind := range strings.Fields(of.without) {
			all[kind] = own{of.group, false}
		}
	}
	return all
}

// Namespaced tells what is known of a kind without a cluster.
func Namespaced(gk schema.GroupKind) (namespaced, known bool) {
	k, ok := builtin[gk.Kind]
	return k.namespaced, ok && k.group == gk.Group
}
