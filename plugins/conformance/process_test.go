package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	"github.com/wheelwright-dev/wheelwright/plugins/conformance/internal/job"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// process is the built program, started as a spoke would.
type process struct {
	cmd  *exec.Cmd
	conn *grpc.ClientConn
}

func startProcess(t *testing.T, path, kubeconfig string) process {
	t.Helper()
	id, err := pluginwire.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "plugin") // a test's own folder is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	cmd := exec.Command(path)
	cmd.Env = append(pluginwire.Environment(id, folder), "KUBECONFIG="+kubeconfig, "TMPDIR="+folder)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := pluginwire.ReadLine(bufio.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pluginwire.Dial(id, line)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return process{cmd, conn}
}

// run streams to the end; made is called once a Job is there.
func (p process) run(ctx context.Context, call string, subject *pluginv1.Subject, made func()) (*pluginv1.Report, error) {
	stream, err := pluginv1.NewConformanceServiceClient(p.conn).Run(ctx, &pluginv1.RunRequest{Subject: subject, Moment: before,
		Call: &pluginv1.Call{Id: call, Deadline: timestamppb.New(time.Now().Add(time.Minute))}})
	if err != nil {
		return nil, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(m.GetProgress().GetMessage(), " is made") {
			made()
		}
		if m.GetReport() != nil {
			return m.GetReport(), nil
		}
	}
}

// granted is a kubeconfig that may do what README.md tells operators to grant, and nothing else.
func granted(t *testing.T, cluster *harness.Cluster, namespace string) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "    - {apiGroups:") {
			rules.WriteString(strings.TrimPrefix(line, "    "))
		}
	}
	if err := cluster.Apply(fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: plugin, namespace: %[1]s}\n---\n"+
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: plugin, namespace: %[1]s}\nrules:\n%[2]s---\n"+
		"apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: plugin, namespace: %[1]s}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: plugin}\n"+
		"subjects: [{kind: ServiceAccount, name: plugin, namespace: %[1]s}]\n", namespace, rules.String())); err != nil {
		t.Fatal(err)
	}
	token, err := cluster.Kubectl("-n", namespace, "create", "token", "plugin")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := clientcmd.LoadFromFile(cluster.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range cfg.AuthInfos {
		a.ClientCertificateData, a.ClientKeyData, a.Token = nil, nil, strings.TrimSpace(token)
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// With no more than what README.md grants: a killed process leaves its Job, and the next one sweeps it;
// one that is asked to end leaves nothing.
func TestKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program")
	}
	cluster := harness.Shared(t, 1)[0]
	namespace := cluster.NewNamespace(t)
	kubeconfig, path := granted(t, cluster, namespace), build(t)
	left := func() string {
		out, err := cluster.Kubectl("-n", namespace, "get", "jobs,pods", "-l", job.LabelTests, "-o", "name")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	subject := func(image string) *pluginv1.Subject {
		return &pluginv1.Subject{Distribution: "shop", Namespace: namespace, VersionTo: "1.0.0", Objects: []byte(strings.ReplaceAll(twoTests, "smoke:1", image)),
			Services: []*pluginv1.Service{{Name: "backend"}}}
	}
	first := startProcess(t, path, kubeconfig)
	if _, err := first.run(t.Context(), "one", subject("does-not-exist:1"), func() { _ = first.cmd.Process.Kill() }); err == nil {
		t.Fatal("a killed process made a report")
	}
	_ = first.cmd.Wait()
	if left() == "" {
		t.Fatal("the killed process left nothing to sweep")
	}
	second := startProcess(t, path, kubeconfig)
	report, err := second.run(t.Context(), "two", subject("smoke:1"), func() {})
	if err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, report, pass, "")
	nothing := func() error {
		if out := left(); out != "" {
			return fmt.Errorf("left: %s", out)
		}
		return nil
	}
	cluster.Eventually(t, "nothing is left after the next run", nothing)
	if _, err := second.run(t.Context(), "three", subject("does-not-exist:1"), func() { _ = second.cmd.Process.Signal(syscall.SIGTERM) }); err != nil {
		t.Logf("the call ended with the process: %v", err)
	}
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("asked to end: %v", err)
	}
	cluster.Eventually(t, "nothing is left by a process that was asked to end", nothing)
}
