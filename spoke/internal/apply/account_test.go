package apply_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
)

// TestCredentialsAreScopedAndShort: an account of the spoke's making may do what its rules say, where
// they say it, until its token ends, and nothing of the spoke's own is handed over.
func TestCredentialsAreScopedAndShort(t *testing.T) {
	b := start(t)
	ns := b.scratch(t)
	account := apply.Account{Namespace: ns, Name: "smoke", Rules: []apply.AccountRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list"}}}}
	if _, _, err := b.hand.Credentials(t.Context(), account, 10*time.Minute); !errors.Is(err, apply.ErrNoNamespace) {
		t.Errorf("before its namespace is there: %v", err)
	}
	b.kubectl(t, "create", "namespace", ns)
	var text []byte
	for range 2 { // the second time all is there
		got, expires, err := b.hand.Credentials(t.Context(), account, 10*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if life := time.Until(expires); life < 9*time.Minute || life > 11*time.Minute {
			t.Errorf("it lives for %s", life)
		}
		text = got
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range cfg.AuthInfos {
		if a.Token == "" || len(a.ClientCertificateData) > 0 || a.ClientCertificate != "" || a.Exec != nil {
			t.Errorf("it has more than a token: %+v", a)
		}
	}
	can := func(verb, what, where string) bool {
		out, _ := b.Kubectl("--kubeconfig", file, "auth", "can-i", verb, what, "-n", where) // "no" is an error too
		return strings.HasPrefix(strings.TrimSpace(out), "yes")
	}
	if !can("list", "configmaps", ns) {
		t.Error("it may not do what its rules say")
	}
	if can("list", "secrets", ns) || can("delete", "configmaps", ns) || can("list", "configmaps", "default") {
		t.Error("it may do more than its rules say")
	}

	if _, _, err := b.hand.Credentials(t.Context(), apply.Account{Namespace: ns, Name: "nobody"}, 10*time.Minute); err == nil ||
		!strings.Contains(err.Error(), "kubectl -n "+ns+" get serviceaccount nobody") {
		t.Errorf("got %v", err)
	}
	b.kubectl(t, "create", "serviceaccount", "theirs", "-n", ns)
	if _, _, err := b.hand.Credentials(t.Context(), apply.Account{Namespace: ns, Name: "theirs"}, 10*time.Minute); err != nil {
		t.Error(err)
	}
}
