package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/hub"
	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func someOperators() *fleetv1.ListOperatorsResponse {
	day := 24 * time.Hour
	return &fleetv1.ListOperatorsResponse{Operators: []*fleetv1.Operator{
		{Name: "admin", Role: "admin", Created: ago(40 * day), CreatedBy: "hub", CertificateNotAfter: later(325 * day), Credential: strings.Repeat("a1", 32)},
		{Name: "ci@acme", Role: "provider:acme", Created: ago(85 * day), CreatedBy: "operator admin", CertificateNotAfter: later(5 * day), Credential: strings.Repeat("b2", 32)},
		{Name: "maria", Role: "approver:qa", Created: ago(91 * day), CreatedBy: "operator admin", CertificateNotAfter: ago(day), Credential: strings.Repeat("c3", 32)},
		{Name: "wall", Role: "viewer", Created: ago(time.Hour), CreatedBy: "operator admin", CertificateNotAfter: later(90 * day), Credential: strings.Repeat("d4", 32)},
	}}
}

func TestOperatorsAreListed(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{"ListOperators": someOperators()})
	for name, args := range map[string]string{
		"operators.txt": "get operators", "operators-wide.txt": "get operators -o wide", "operators-issues.txt": "get operators --issues --no-headers",
		"operators.json": "get operator maria -o json", "operators.names": "get operators -o name", "operators.yaml": "get operators wall -o yaml",
	} {
		code, out, errOut := h.hub(t, strings.Fields(args)...)
		if code != exitcode.OK {
			t.Errorf("%s: exit code %d: %s", args, code, errOut)
		}
		golden(t, name, []byte(out))
	}
	if code, out, errOut := h.hub(t, "get", "operators", "nobody"); code != exitcode.Failed || out != "" || !strings.Contains(errOut, "hub get operators") {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	t.Setenv(contextVariable, h.context)
	if code, out, _ := run(t, "__complete", "operator", "remove", ""); code != exitcode.OK || !strings.HasPrefix(out, "admin\nci@acme\n") {
		t.Errorf("completion: exit code %d: %s", code, out)
	}
}

func TestAnOperatorsFileIsWrittenOnceAndForItsOwner(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{"RemoveOperator": &fleetv1.RemoveOperatorResponse{},
		"AddOperator": &fleetv1.AddOperatorResponse{Address: "hub.example.com:7443", Operator: &fleetv1.Operator{Name: "maria", Role: "approver:qa", CertificateNotAfter: later(90 * 24 * time.Hour)}}})
	file := filepath.Join(t.TempDir(), "maria.yaml")
	add := []string{"operator", "add", "maria", "--role", "approver:qa", "-o", file}
	code, out, errOut := h.hub(t, append(add, "--dry-run")...)
	if _, err := os.Lstat(file); code != exitcode.OK || err == nil || out != "operator maria added as approver:qa until 2026-05-30T12:00:00Z (dry run: nothing changed)\n" {
		t.Errorf("a dry run: exit code %d: %s%s, %v", code, out, errOut, err)
	}
	code, out, errOut = h.hub(t, add...)
	if code != exitcode.OK || out != "operator maria added as approver:qa until 2026-05-30T12:00:00Z: "+file+"\n" || !strings.Contains(errOut, "next: give "+file) {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("got %v, %v", info, err)
	}
	req := last[*fleetv1.AddOperatorRequest](t, h)
	if csr, err := x509.ParseCertificateRequest(req.GetCsr()); err != nil || csr.CheckSignature() != nil || req.GetTtlSeconds() != 90*24*3600 {
		t.Errorf("asked %v, %v", req, err)
	}
	before, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(before, []byte("PRIVATE KEY")) || bytes.Contains(req.GetCsr(), []byte("PRIVATE")) {
		t.Errorf("got %v", err)
	}

	// Neither a file nor a link is written over, and the hub is not even asked.
	asked := len(h.asked)
	link := filepath.Join(t.TempDir(), "link.yaml")
	if err := os.Symlink(filepath.Join(t.TempDir(), "nowhere"), link); err != nil {
		t.Fatal(err)
	}
	for _, there := range []string{file, link} {
		add[len(add)-1] = there
		if code, out, errOut = h.hub(t, add...); code != exitcode.Usage || out != "" || !strings.Contains(errOut, there+" is there already") || !strings.Contains(errOut, "-o FILE") {
			t.Errorf("exit code %d: %s%s", code, out, errOut)
		}
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, before) || len(h.asked) != asked {
		t.Errorf("the file was touched or the hub was asked: %v", err)
	}

	// A hub that refuses leaves no file behind.
	h.refuse["AddOperator"] = status.Error(codes.AlreadyExists, "operator maria exists; `hub operator remove maria`")
	refused := filepath.Join(t.TempDir(), "refused.yaml")
	add[len(add)-1] = refused
	if code, out, errOut = h.hub(t, add...); code != exitcode.Failed || out != "" || !strings.Contains(errOut, "hub operator remove maria") {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	if _, err := os.Lstat(refused); err == nil {
		t.Error("a file was left behind")
	}
	if code, out, errOut = h.hub(t, "operator", "remove", "maria", "--reason", "left", "--yes"); code != exitcode.OK || out != "operator maria removed\n" {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	if r := last[*fleetv1.RemoveOperatorRequest](t, h); r.GetName() != "maria" || r.GetReason() != "left" || r.GetDryRun() {
		t.Errorf("asked %v", r)
	}
}

func TestWrongWordsAboutOperators(t *testing.T) {
	t.Chdir(t.TempDir())
	h := serveAnswers(t, nil)
	for _, c := range []struct {
		args string
		want []string
	}{
		{"operator add", []string{"the operator's NAME"}},
		{"operator add maria", []string{"which role?", "hub operator add maria --role"}},
		{"operator add maria --role boss", []string{`"boss"`, "approver:ROLE"}},
		{"operator add maria --role approver:admin", []string{"write admin"}},
		{"operator add maria --role viewer --ttl 2y", []string{"--ttl", "2y"}},
		{"operator add maria --role viewer --ttl 366d", []string{"--ttl 366d", "365d"}},
		{"operator add maria --role viewer --ttl 10s", []string{"--ttl 10s", "1m"}},
		{"operator add maria --role viewer -o /does/not/exist/m.yaml", []string{"/does/not/exist/m.yaml", "-o FILE"}},
		{"operator remove maria", []string{"why?", "--reason"}},
		{"operator remove maria --reason left", []string{"--yes"}},
		{"operator promote maria", []string{`"promote"`, "hub operator --help"}},
	} {
		code, out, errOut := h.hub(t, strings.Fields(c.args)...)
		if code != exitcode.Usage || out != "" {
			t.Errorf("hub %s: exit code %d, output %q", c.args, code, out)
		}
		for _, w := range c.want {
			if !strings.Contains(errOut, w) {
				t.Errorf("hub %s: the error does not mention %q: %s", c.args, w, errOut)
			}
		}
	}
	if len(h.asked) != 0 {
		t.Errorf("the hub was asked %v", h.asked)
	}
}

// From the admin's file to a provider's own, at a hub as it runs.
func TestARoleIsWhatItsFileCanDo(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ready, over := make(chan hub.Info, 1), make(chan error, 1)
	cfg := hub.Config{Dir: filepath.Join(dir, "data"), Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)}
	go func() { over <- hub.Run(ctx, cfg, func(i hub.Info) { ready <- i }) }()
	var info hub.Info
	select {
	case info = <-ready:
	case err := <-over:
		t.Fatal(err)
	}
	defer func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}()
	as := func(file, args string) (int, string, string) {
		t.Helper()
		return run(t, append(strings.Fields(args), "--context", file)...)
	}
	acme, wall := filepath.Join(dir, "acme.yaml"), filepath.Join(dir, "wall.yaml")
	for _, c := range []struct {
		file, args string
		code       int
		want       string
	}{
		{info.AdminContext, "operator add ci@acme --role provider:acme --ttl 30d -o " + acme, exitcode.OK, "operator ci@acme added as provider:acme until "},
		{info.AdminContext, "operator add wall --role viewer -o " + wall, exitcode.OK, "added as viewer"},
		{info.AdminContext, "operator add wall --role admin -o " + filepath.Join(dir, "more.yaml"), exitcode.Failed, "operator wall exists, with the role viewer"},
		{info.AdminContext, "operator add admin --role admin -o " + filepath.Join(dir, "more.yaml"), exitcode.Failed, "hub serve --data DIR"},
		{info.AdminContext, "operator remove admin --reason x --yes", exitcode.Failed, "remove that file and start"},
		{info.AdminContext, "cluster invite acme/eu-1", exitcode.OK, "spoke join"},
		{info.AdminContext, "cluster invite globex/eu-1", exitcode.OK, "spoke join"},
		{acme, "version", exitcode.OK, ""},
		{acme, "get clusters -o name", exitcode.OK, "acme/eu-1\n"},
		{acme, "status", exitcode.OK, "acme/eu-1"},
		{acme, "get pins", exitcode.OK, "No pins"},
		{acme, "get events", exitcode.OK, "made a token"},
		{acme, "get releases", exitcode.OK, "No releases"},
		{acme, "get events globex/eu-1", exitcode.Usage, "may not see or change cluster globex/eu-1; `hub get clusters`"},
		{acme, "why globex/eu-1 shop", exitcode.Usage, "may not see or change cluster globex/eu-1"},
		{acme, "pin globex/eu-1 shop 1.0.0 --reason x", exitcode.Usage, "may not see or change cluster globex/eu-1"},
		{acme, "pin acme/eu-1 shop 1.0.0 --reason x", exitcode.Failed, "no distribution shop"},
		{acme, "get operators", exitcode.Usage, `operator ci@acme, whose role is "provider:acme", may not call ListOperators`},
		{acme, "cluster remove acme/eu-1 --yes", exitcode.Usage, "may not call RemoveCluster: it is for admin or vendor-operator; `hub auth can-i --list` says what it may, and an admin gives a role with `hub operator add"},
		{wall, "get clusters -o name", exitcode.OK, "acme/eu-1\nglobex/eu-1\n"},
		{wall, "get operators -o name", exitcode.OK, "admin\nci@acme\nwall\n"},
		{wall, "audit verify", exitcode.OK, "4 entries, whole"},
		{wall, "cluster invite acme/eu-2", exitcode.Usage, "operator wall, whose role is \"viewer\", may not call InviteCluster"},
		{info.AdminContext, "operator remove ci@acme --reason left --yes --dry-run", exitcode.OK, "dry run"},
		{info.AdminContext, "operator remove ci@acme --reason left --yes", exitcode.OK, "operator ci@acme removed\n"},
		{acme, "get clusters", exitcode.Usage, "its operator was removed"},
		{info.AdminContext, "get events", exitcode.OK, "operator admin took the role provider:acme from operator ci@acme: left"},
	} {
		code, out, errOut := as(c.file, c.args)
		if code != c.code || !strings.Contains(out+errOut, c.want) || c.file == acme && strings.Contains(out, "globex") {
			t.Errorf("%s: hub %s: exit code %d, want %d and %q: %s%s", filepath.Base(c.file), c.args, code, c.code, c.want, out, errOut)
		}
	}
	c, err := clientcontext.Load(wall)
	if err != nil || c.Address != info.Addr {
		t.Errorf("got %v, %v", c.Address, err)
	}
}
