package cli

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func someRelays() *fleetv1.ListRelaysResponse {
	day := 24 * time.Hour
	return &fleetv1.ListRelaysResponse{Relays: []*fleetv1.Relay{
		{Name: "ams-1", Hosts: []string{"relay.ams.example.com"}, Created: ago(60 * day), CreatedBy: "operator admin", Joined: ago(60 * day), CertificateNotAfter: ago(time.Minute)},
		{Name: "fra-1", Hosts: []string{"relay.fra.example.com", "10.0.0.7"}, Created: ago(9 * day), CreatedBy: "operator maria", Joined: ago(8 * day), CertificateNotAfter: later(22 * day), Connected: true, Spokes: 312},
		{Name: "fra-2", Hosts: []string{"fra-2.example.com"}, Created: ago(9 * day), CreatedBy: "operator maria", Joined: ago(8 * day), CertificateNotAfter: later(22 * day)},
		{Name: "nyc-1", Hosts: []string{"2001:db8::7"}, Created: ago(time.Minute), CreatedBy: "operator admin"},
	}}
}

func TestRelaysAreListed(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{"ListRelays": someRelays()})
	for name, args := range map[string]string{
		"relays.txt": "get relays", "relays-wide.txt": "get relays -o wide", "relays-issues.txt": "get relays --issues --no-headers",
		"relays.json": "get relay fra-1 -o json", "relays.yaml": "get relays nyc-1 -o yaml", "relays.names": "get relays -o name",
	} {
		code, out, errOut := h.hub(t, strings.Fields(args)...)
		if code != exitcode.OK || errOut != "" {
			t.Errorf("%s: exit code %d: %s", args, code, errOut)
		}
		golden(t, name, []byte(out))
	}
	if code, out, errOut := h.hub(t, "get", "relays", "ber-1"); code != exitcode.Failed || out != "" || !strings.Contains(errOut, "hub get relays") {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	t.Setenv(contextVariable, h.context)
	if code, out, _ := run(t, "__complete", "relay", "remove", ""); code != exitcode.OK || !strings.HasPrefix(out, "ams-1\nfra-1\nfra-2\nnyc-1\n") {
		t.Errorf("completion: exit code %d: %s", code, out)
	}
	h.set("ListRelays", &fleetv1.ListRelaysResponse{})
	code, out, errOut := h.hub(t, "get", "relays")
	if code != exitcode.OK {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	golden(t, "relays-none.txt", []byte(out+errOut))
}

// The line on stdout is what is run where the relay is to be; what is said about it is not part of it.
func TestARelayIsInvited(t *testing.T) {
	tok := token.New(strings.Repeat("0", 64)).String()
	invited := &fleetv1.InviteRelayResponse{Token: tok, Expires: later(10 * time.Minute), Address: "hub.example.com:7443"}
	h := serveAnswers(t, map[string]proto.Message{"InviteRelay": invited})
	until := invited.GetExpires().AsTime().Local().Format(time.DateTime) // the zone is the machine's
	said := func(args string) string {
		t.Helper()
		code, out, errOut := h.hub(t, strings.Fields(args)...)
		if code != exitcode.OK {
			t.Errorf("%s: exit code %d: %s", args, code, errOut)
		}
		text := fmt.Sprintf("$ hub %s\nstdout:\n%sstderr:\n%s", args, out, errOut)
		return strings.NewReplacer(tok, "TOKEN", until, "UNTIL").Replace(text)
	}
	screens := said("relay invite fra-1 --host relay.fra.example.com --host 10.0.0.7 --ttl 90s")
	if r := last[*fleetv1.InviteRelayRequest](t, h); r.GetName() != "fra-1" || strings.Join(r.GetHosts(), " ") != "relay.fra.example.com 10.0.0.7" || r.GetTtlSeconds() != 90 || r.GetDryRun() {
		t.Errorf("asked %v", r)
	}
	again := proto.CloneOf(invited)
	again.Rejoin = true
	h.set("InviteRelay", again)
	screens += said("relay invite fra-1 --host relay.fra.example.com")
	screens += said("relay invite fra-1 --host relay.fra.example.com --dry-run")
	if r := last[*fleetv1.InviteRelayRequest](t, h); !r.GetDryRun() || r.GetTtlSeconds() != 600 {
		t.Errorf("asked %v", r)
	}
	golden(t, "relay-invite.txt", []byte(screens))

	// The printed line is one that `hub relay join` takes: it fails at the hub, which is nowhere, and not before.
	_, line, _ := h.hub(t, "relay", "invite", "fra-1", "--host", "relay.fra.example.com")
	dir := filepath.Join(t.TempDir(), "relay-data")
	line = strings.NewReplacer("./relay-data", dir, "hub.example.com:7443", "127.0.0.1:1").Replace(line)
	if code, out, errOut := run(t, strings.Fields(line)[1:]...); code != exitcode.Failed || out != "" || !strings.Contains(errOut, "127.0.0.1:1") {
		t.Errorf("%s: exit code %d: %s%s", line, code, out, errOut)
	}
}

func TestARelayIsRemoved(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{"RemoveRelay": &fleetv1.RemoveRelayResponse{}})
	remove := []string{"relay", "remove", "fra-1", "--reason", "moved"}
	if code, out, errOut := h.hub(t, append(remove, "--dry-run")...); code != exitcode.OK || out+errOut != "relay fra-1 removed (dry run: nothing changed)\n" {
		t.Errorf("a dry run: exit code %d: %s%s", code, out, errOut)
	}
	if r := last[*fleetv1.RemoveRelayRequest](t, h); !r.GetDryRun() {
		t.Errorf("asked %v", r)
	}
	if code, out, errOut := h.hub(t, append(remove, "--yes")...); code != exitcode.OK || out+errOut != "relay fra-1 removed\n" {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	if r := last[*fleetv1.RemoveRelayRequest](t, h); r.GetName() != "fra-1" || r.GetReason() != "moved" || r.GetDryRun() {
		t.Errorf("asked %v", r)
	}
	h.refuse["RemoveRelay"] = status.Error(codes.NotFound, "no relay fra-1; `hub get relays` lists them")
	if code, out, errOut := h.hub(t, append(remove, "--yes")...); code != exitcode.Failed || out != "" || errOut != "hub: no relay fra-1; `hub get relays` lists them\n" {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
}

func TestWrongWordsAboutRelays(t *testing.T) {
	h := serveAnswers(t, nil)
	empty := t.TempDir()
	for _, c := range []struct {
		args string
		want []string
	}{
		{"relay invite", []string{"the relay's NAME", "hub relay invite --help"}},
		{"relay invite fra-1", []string{"what do spokes dial it by?", "hub relay invite fra-1 --host"}},
		{"relay invite fra-1 --host h --ttl 11m", []string{"--ttl 11m", "1s to 10m"}},
		{"relay invite fra-1 --host h --ttl 300ms", []string{"--ttl 300ms", "1s to 10m"}},
		{"relay remove", []string{"the relay's NAME", "hub relay remove --help"}},
		{"relay remove fra-1", []string{"why?", "hub relay remove fra-1 --reason"}},
		{"relay remove fra-1 --reason moved", []string{"end relay fra-1, and with it the way of the spokes behind it", "--yes"}},
		{"relay join", []string{"--hub HOST:PORT, --token T and --data DIR", "hub relay invite"}},
		{"relay join --hub h:1 --token x --data " + empty, []string{"join token"}},
		{"relay serve", []string{"which data folder?", "hub relay serve --data DIR", "hub relay join"}},
		{"relay serve --data " + empty + " --log-format xml", []string{"xml", "json"}},
		{"relay promote fra-1", []string{`"promote"`, "hub relay --help"}},
	} {
		code, out, errOut := h.hub(t, strings.Fields(c.args)...)
		if code != exitcode.Usage || out != "" {
			t.Errorf("hub %s: exit code %d, output %q: %s", c.args, code, out, errOut)
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
	if code, out, errOut := h.hub(t, "relay", "serve", "--data", empty); code != exitcode.Failed || out != "" || !strings.Contains(errOut, "has not joined") || !strings.Contains(errOut, "hub relay join") {
		t.Errorf("a relay that has not joined: exit code %d: %s%s", code, out, errOut)
	}
}
