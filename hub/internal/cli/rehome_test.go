package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// twoHubs are the one that a spoke leaves, and the one that it joins.
func twoHubs(t *testing.T) (old, next *answers) {
	t.Helper()
	from, to := strings.Repeat("a1", 32), strings.Repeat("b2", 32)
	old = serveAnswers(t, map[string]proto.Message{
		"GetVersion":   &fleetv1.GetVersionResponse{Version: "1.0.0", AuthorityPin: from},
		"ListClusters": &fleetv1.ListClustersResponse{Clusters: []*fleetv1.Cluster{{Name: "acme/eu-1", Labels: map[string]string{"env": "staging"}}}},
		"SendReHome":   &fleetv1.SendReHomeResponse{ReHome: &fleetv1.ReHome{Keys: []string{"SHA256:a", "SHA256:b"}}, Warnings: []string{"acme/eu-1 is not connected"}},
	})
	next = serveAnswers(t, map[string]proto.Message{
		"GetVersion":    &fleetv1.GetVersionResponse{Version: "1.0.0", AuthorityPin: to},
		"InviteCluster": &fleetv1.InviteClusterResponse{Token: token.New(to).String(), Address: "new.example.com:7443", Rejoin: true},
	})
	return old, next
}

func TestAReHomeIsPreparedSignedAndSent(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	old, next := twoHubs(t)
	file := filepath.Join(t.TempDir(), "eu-1.re-home")
	prepare := []string{"cluster", "re-home", "prepare", "acme/eu-1", "--to", next.context, "--reason", "broken into", "--expires", "48h", "-o", file}
	code, out, errOut := old.hub(t, prepare...)
	if code != exitcode.OK || !strings.Contains(out, "written to "+file) || !strings.Contains(errOut, "next: hub cluster re-home sign "+file) || !strings.Contains(errOut, "has joined the new hub before") {
		t.Fatalf("exit code %d: %s%s", code, out, errOut)
	}
	if req := last[*fleetv1.InviteClusterRequest](t, next); req.GetName() != "acme/eu-1" || req.GetLabels()["env"] != "staging" || req.GetAcceptAutomatically() || req.GetTtlSeconds() != 48*3600 {
		t.Errorf("the new hub was asked %v", req)
	}
	s, err := readReHome(file)
	if err != nil || s.Cluster != "acme/eu-1" || s.From != strings.Repeat("a1", 32) || s.To != "new.example.com:7443" || s.Token.Pin != strings.Repeat("b2", 32) ||
		!s.Issued.Equal(moment.Truncate(time.Second)) || s.Expires.Sub(s.Issued) != 48*time.Hour || s.Reason != "broken into" {
		t.Fatalf("got %+v, %v", s, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a file with a token in it: %v, %v", info.Mode(), err)
	}
	if code, _, errOut := old.hub(t, prepare...); code != exitcode.Usage || !strings.Contains(errOut, "is left alone") {
		t.Errorf("prepared twice: exit code %d: %s", code, errOut)
	}
	var keys []string
	for n, want := range []string{"the other company", "hub cluster re-home send " + file} {
		_, key, fingerprint := sshFiles(t, "")
		if code, _, errOut := old.hub(t, "cluster", "re-home", "sign", file, "--key", key); code != exitcode.Usage || !strings.Contains(errOut, "--yes") || !strings.Contains(errOut, "reason: broken into\n") {
			t.Errorf("without a terminal: exit code %d: %s", code, errOut)
		}
		code, out, errOut := old.hub(t, "cluster", "re-home", "sign", file, "--key", key, "--yes")
		if code != exitcode.OK || !strings.Contains(out, fingerprint) || !strings.Contains(errOut, want) {
			t.Errorf("signature %d: exit code %d: %s%s", n+1, code, out, errOut)
		}
		if code, _, errOut := old.hub(t, "cluster", "re-home", "sign", file, "--key", key, "--yes"); code != exitcode.Usage || !strings.Contains(errOut, "keys of their own") {
			t.Errorf("twice: exit code %d: %s", code, errOut)
		}
		keys = append(keys, fingerprint)
	}
	code, out, errOut = old.hub(t, "cluster", "re-home", "send", file)
	if code != exitcode.OK || !strings.Contains(out, "handed over, signed by SHA256:a and SHA256:b") || !strings.Contains(errOut, "warning: acme/eu-1 is not connected") || !strings.Contains(errOut, "hub get re-homes acme/eu-1") {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	sent, err := rehome.ParseSigned(last[*fleetv1.SendReHomeRequest](t, old).GetSigned())
	if err != nil || len(sent.Signatures) != 2 {
		t.Fatalf("sent %+v, %v", sent, err)
	}
	for n, sig := range sent.Signatures {
		if by, err := signer.ClaimedBy(s.Text, sig, rehome.Namespace); err != nil || by != keys[n] {
			t.Errorf("signature %d is of %s, %v", n+1, by, err)
		}
	}
	if code, out, _ = old.hub(t, "cluster", "re-home", "send", file, "--dry-run"); code != exitcode.OK || !last[*fleetv1.SendReHomeRequest](t, old).GetDryRun() || !strings.Contains(out, "dry run") {
		t.Errorf("a dry run: exit code %d: %s", code, out)
	}
}

func TestAReHomeThatCannotBe(t *testing.T) {
	old, next := twoHubs(t)
	file := filepath.Join(t.TempDir(), "x.re-home")
	if err := os.WriteFile(file+".bad", []byte("move"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"prepare acme --to " + next.context + " --reason x", exitcode.Usage, "PROVIDER/NAME"},
		{"prepare acme/eu-1 --reason x", exitcode.Usage, "--to FILE"},
		{"prepare acme/eu-1 --to " + next.context, exitcode.Usage, "--reason"},
		{"prepare acme/eu-1 --to " + next.context + " --reason x --expires 169h", exitcode.Usage, "--expires 169h"},
		{"prepare acme/eu-1 --to " + next.context + " --reason \x1b[2J", exitcode.Usage, "does not show"},
		{"prepare acme/us-1 --to " + next.context + " --reason x", exitcode.Failed, "hub get clusters"},
		{"prepare acme/eu-1 --to " + old.context + " --reason x", exitcode.Usage, "belongs to already"},
		{"prepare acme/eu-1 --to " + file + " --reason x", exitcode.Usage, file},
		{"sign " + file, exitcode.Usage, "no such file"},
		{"sign " + file + ".bad --yes", exitcode.Usage, "hub cluster re-home prepare"},
		{"send " + file + ".bad", exitcode.Usage, "hub cluster re-home prepare"},
	} {
		args := append([]string{"cluster", "re-home"}, strings.Fields(c.args)...)
		if strings.HasPrefix(c.args, "prepare") {
			args = append(args, "-o", file)
		}
		if code, out, errOut := old.hub(t, args...); code != c.code || out != "" || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: exit code %d: %s%s", c.args, code, out, errOut)
		}
		if _, err := os.Lstat(file); !os.IsNotExist(err) {
			t.Fatalf("%s left a file: %v", c.args, err)
		}
	}
	old.set("GetVersion", &fleetv1.GetVersionResponse{Version: "0.9.0"})
	if code, _, errOut := old.hub(t, "cluster", "re-home", "prepare", "acme/eu-1", "--to", next.context, "--reason", "x", "-o", file); code != exitcode.Failed || !strings.Contains(errOut, "upgrade it first") {
		t.Errorf("a hub of before: exit code %d: %s", code, errOut)
	}
}

func TestReHomesAreListed(t *testing.T) {
	some := func() *fleetv1.ListReHomesResponse {
		return &fleetv1.ListReHomesResponse{ReHomes: []*fleetv1.ReHome{
			{Cluster: "acme/eu-1", To: "new.example.com:7443", Nonce: strings.Repeat("01", 16), Reason: "broken into", Expires: later(time.Hour), Keys: []string{"SHA256:a", "SHA256:b"},
				SentBy: "operator maria", Sent: ago(time.Minute), State: "Moving", Answer: "joined new.example.com:7443, and goes over once that has let it in", Answered: ago(time.Minute)},
			{Cluster: "acme/us-1", To: "new.example.com:7443", Nonce: strings.Repeat("02", 16), Reason: "broken into", Expires: later(time.Hour), Keys: []string{"SHA256:a", "SHA256:c"},
				SentBy: "operator maria", Sent: ago(time.Hour), State: "Refused", Answer: "for the provider: \x1b[2Jspoke.yaml allows nobody to move this spoke", Answered: ago(time.Minute)},
		}}
	}
	h := serveAnswers(t, map[string]proto.Message{"ListReHomes": some()})
	for name, args := range map[string]string{"re-homes.txt": "get re-homes", "re-homes-wide.txt": "get re-homes -o wide", "re-homes-issues.txt": "get re-homes --issues", "re-homes.names": "get re-homes -o name"} {
		code, out, errOut := h.hub(t, strings.Fields(args)...)
		if code != exitcode.OK {
			t.Errorf("%s: exit code %d: %s", args, code, errOut)
		}
		golden(t, name, []byte(out))
		h.set("ListReHomes", some())
	}
}
