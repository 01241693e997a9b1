package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Account is a service account that a program beside the spoke speaks to the cluster as.
type Account struct {
	Namespace string
	Name      string
	// Rules, where there are any: the account is made, and may do this in its namespace and nothing else.
	// The spoke has to be allowed all of it itself. None: the account is there already.
	Rules []AccountRule
}

// AccountRule is a rule of a Role.
type AccountRule struct {
	APIGroups     []string `json:"apiGroups"`
	Resources     []string `json:"resources"`
	ResourceNames []string `json:"resourceNames,omitempty"`
	Verbs         []string `json:"verbs"`
}

// ErrNoNamespace: what is to be made has a namespace that is not there.
var ErrNoNamespace = errors.New("its namespace is not there yet")

// Credentials is a kubeconfig as a, with a token that ends by itself after about life, and the time when
// it does; the API server gives no less than ten minutes. It names the cluster as this spoke reaches it
// and has none of the spoke's own credentials.
func (c *Cluster) Credentials(ctx context.Context, a Account, life time.Duration) (kubeconfig []byte, expires time.Time, err error) {
	ctx = asSpoke(ctx)
	if len(a.Rules) > 0 {
		err := c.provide(ctx, a)
		if isMissingNamespace(err) != "" {
			return nil, time.Time{}, fmt.Errorf("make service account %s/%s: %w", a.Namespace, a.Name, ErrNoNamespace)
		}
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("make service account %s/%s: %w", a.Namespace, a.Name, err)
		}
	}
	request := map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"expirationSeconds": int64(life.Seconds())}}
	var answer struct {
		Status struct {
			Token               string    `json:"token"`
			ExpirationTimestamp time.Time `json:"expirationTimestamp"`
		} `json:"status"`
	}
	if err := c.api.post(ctx, request, &answer, serviceAccounts().path(a.Namespace, a.Name, "token")...); err != nil {
		return nil, time.Time{}, fmt.Errorf("request a token of service account %s/%s: %w; the spoke needs the verb create on serviceaccounts/token, and the account: `kubectl -n %s get serviceaccount %s`",
			a.Namespace, a.Name, err, a.Namespace, a.Name)
	}
	text, err := kubeconfigFor(c.reach, a.Namespace, answer.Status.Token)
	return text, answer.Status.ExpirationTimestamp, err
}

// provide makes the account and gives it its rules; where all is there already, nothing changes.
func (c *Cluster) provide(ctx context.Context, a Account) error {
	const group = "rbac.authorization.k8s.io"
	meta := map[string]any{"name": a.Name, "namespace": a.Namespace}
	roles := resource{schema.GroupVersionKind{Group: group, Version: "v1", Kind: "Role"}, "roles", true}
	bindings := resource{schema.GroupVersionKind{Group: group, Version: "v1", Kind: "RoleBinding"}, "rolebindings", true}
	for _, o := range []struct {
		resource
		more map[string]any
	}{
		{serviceAccounts(), map[string]any{"automountServiceAccountToken": false}},
		{roles, map[string]any{"rules": a.Rules}},
		{bindings, map[string]any{
			"roleRef":  map[string]any{"apiGroup": group, "kind": "Role", "name": a.Name},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "name": a.Name, "namespace": a.Namespace}},
		}},
	} {
		o.more["apiVersion"], o.more["kind"], o.more["metadata"] = o.GroupVersion().String(), o.Kind, meta
		data, err := json.Marshal(o.more)
		if err != nil {
			return fmt.Errorf("encode %s: %w", o.Kind, err)
		}
		if _, _, err := c.api.patch(ctx, o.resource, a.Namespace, a.Name, data, 0); err != nil {
			return fmt.Errorf("apply %s: %w", o.Kind, err)
		}
	}
	return nil
}

func serviceAccounts() resource {
	return resource{schema.GroupVersionKind{Version: "v1", Kind: "ServiceAccount"}, "serviceaccounts", true}
}

// kubeconfigFor is how reach gets to the API server, with another's token.
func kubeconfigFor(reach *rest.Config, namespace, token string) ([]byte, error) {
	ca := reach.CAData
	if len(ca) == 0 && reach.CAFile != "" {
		// By its bytes: the program may not see the spoke's files.
		loaded := rest.CopyConfig(reach)
		if err := rest.LoadTLSFiles(loaded); err != nil {
			return nil, fmt.Errorf("read the cluster's authority: %w", err)
		}
		ca = loaded.CAData
	}
	const name = "plugin"
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters[name] = &clientcmdapi.Cluster{
		Server: reach.Host + reach.APIPath, CertificateAuthorityData: ca, TLSServerName: reach.ServerName, InsecureSkipTLSVerify: reach.Insecure,
	}
	cfg.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	cfg.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name, Namespace: namespace}
	cfg.CurrentContext = name
	text, err := clientcmd.Write(*cfg)
	if err != nil {
		return nil, fmt.Errorf("write a kubeconfig: %w", err)
	}
	return text, nil
}
