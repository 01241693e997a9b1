package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/wheelwright-dev/wheelwright/integration/child"
	"github.com/wheelwright-dev/wheelwright/integration/controlplane"
)

// Cluster is one running Kubernetes cluster.
type Cluster struct {
	Name       string
	Kubeconfig string // the administrator's, self-contained

	harness   *Harness
	index     int
	dir       string
	config    *rest.Config
	authority *authority
	http      *http.Client
	processes []*child.Process // in the order of their start
}

func newCluster(h *Harness, index int) *Cluster {
	name := fmt.Sprintf("c%d", index+1)
	return &Cluster{Name: name, harness: h, index: index, dir: filepath.Join(h.dir, name)}
}

func (c *Cluster) file(name string) string { return filepath.Join(c.dir, name) }

// adopt connects to a cluster that somebody else runs.
func (c *Cluster) adopt() error {
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.get(context.Background(), "/readyz", nil); err != nil {
		return fmt.Errorf("use the cluster of %s: %w", c.Kubeconfig, err)
	}
	return nil
}

func (c *Cluster) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig %s: %w", c.Kubeconfig, err)
	}
	config.UserAgent = harnessAgent
	config.QPS, config.Burst = 200, 400
	c.config = config
	c.http, err = rest.HTTPClientFor(config)
	return err
}

// harnessAgent keeps the harness's own requests apart from those that a test counts.
const harnessAgent = "wheelwright-harness"

func (c *Cluster) stop() error {
	var errs []error
	for i := len(c.processes) - 1; i >= 0; i-- {
		errs = append(errs, c.processes[i].Stop())
	}
	c.processes = nil
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	return errors.Join(errs...)
}

// RESTConfig is a copy of the administrator's client configuration.
func (c *Cluster) RESTConfig() *rest.Config {
	config := rest.CopyConfig(c.config)
	config.UserAgent = ""
	return config
}

// Kubectl runs kubectl as administrator and returns what it printed; the error has its complaint.
func (c *Cluster) Kubectl(args ...string) (string, error) { return c.kubectl("", args...) }

// Apply sends manifests to the cluster by server-side apply.
func (c *Cluster) Apply(manifests string) error {
	_, err := c.kubectl(manifests, "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

// ApplyIn is Apply for manifests that do not say their namespace.
func (c *Cluster) ApplyIn(namespace, manifests string) error {
	_, err := c.kubectl(manifests, "-n", namespace, "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

func (c *Cluster) kubectl(input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.harness.bin.Path("kubectl"), append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s on %s: %w: %s", strings.Join(args, " "), c.Name, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// NewNamespace makes a namespace of a unique name, ready for pods, and deletes it after the test.
func (c *Cluster) NewNamespace(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test-%x", time.Now().UnixNano())
	if _, err := c.Kubectl("create", "namespace", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.Kubectl("delete", "namespace", name, "--wait=false"); err != nil {
			t.Log(err)
		}
	})
	if c.harness.controllers {
		c.Eventually(t, "the default service account of "+name, func() error {
			return c.get(t.Context(), "/api/v1/namespaces/"+name+"/serviceaccounts/default", nil)
		})
	}
	return name
}

// Eventually polls check until it returns nil; after a minute the test fails with its last error.
func (c *Cluster) Eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	if err := c.Wait(what, check); err != nil {
		t.Fatal(err)
	}
}

// Wait is Eventually for who has more to say of what did not come.
func (c *Cluster) Wait(what string, check func() error) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(deadline) {
			if err != nil {
				err = fmt.Errorf("%s on %s: %w", what, c.Name, err)
			}
			return err
		}
	}
}

// SetPodsReady makes running pods ready or sick, as a readiness probe would. Their workloads follow.
func (c *Cluster) SetPodsReady(t testing.TB, namespace, selector string, ready bool) {
	t.Helper()
	status := map[bool]string{true: "True", false: "False"}[ready]
	pods, err := c.Kubectl("-n", namespace, "get", "pods", "-l", selector, "-o", "name")
	if err != nil {
		t.Fatal(err)
	}
	for pod := range strings.FieldsSeq(pods) {
		patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":%q},{"type":"ContainersReady","status":%q}]}}`, status, status)
		if _, err := c.Kubectl("-n", namespace, "patch", pod, "--subresource=status", "--type=strategic", "-p", patch); err != nil {
			t.Fatal(err)
		}
	}
}

// InstallFlaggerCRD adds Flagger's CRDs and waits until they are served.
func (c *Cluster) InstallFlaggerCRD(ctx context.Context) error {
	path, err := controlplane.FlaggerCRD(ctx)
	if err != nil {
		return err
	}
	if _, err := c.Kubectl("apply", "--server-side", "-f", path); err != nil {
		return err
	}
	_, err = c.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/canaries.flagger.app",
		"crd/metrictemplates.flagger.app", "crd/alertproviders.flagger.app")
	return err
}

func (c *Cluster) get(ctx context.Context, path string, into any) error {
	return get(ctx, c.http, c.config.Host+path, into)
}

// get reads a URL's JSON, when into is given, and reports any other answer than 200.
func get(ctx context.Context, client *http.Client, url string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", harnessAgent)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %.300s", url, response.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}
