package cli

import (
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// sshFiles are a key in a file, with a passphrase where there is one, and its public half beside it.
func sshFiles(t *testing.T, passphrase string) (private ed25519.PrivateKey, file, fingerprint string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "id_ed25519")
	for name, text := range map[string][]byte{file: pem.EncodeToMemory(block), file + ".pub": ssh.MarshalAuthorizedKey(key)} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return private, file, ssh.FingerprintSHA256(key)
}

func orderAnswers() map[string]proto.Message {
	return map[string]proto.Message{
		"ListClusters": &fleetv1.ListClustersResponse{Clusters: []*fleetv1.Cluster{{Name: "acme/eu-1",
			Subscriptions: []*syncv1.SubscriptionStatus{{Distribution: "shop", RunningVersion: "1.4.0", TargetVersion: "1.5.0"}}}}},
		"SendOrder": &fleetv1.SendOrderResponse{Order: &fleetv1.Order{Key: "SHA256:of-the-hub"}, Warnings: []string{"acme/eu-1 is not connected"}},
	}
}

// sent is the last order that the hub was handed, once its signature was seen to be of that key.
func sent(t *testing.T, h *answers, fingerprint string) order.Order {
	t.Helper()
	req := last[*fleetv1.SendOrderRequest](t, h)
	by, err := signer.ClaimedBy(req.GetText(), req.GetSignature(), order.Namespace)
	if err != nil || by != fingerprint {
		t.Fatalf("signed by %s, %v; want %s", by, err, fingerprint)
	}
	o, err := order.Parse(req.GetText())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestAnOrderIsSignedHere(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	h := serveAnswers(t, orderAnswers())
	_, file, fingerprint := sshFiles(t, "")
	line := []string{"order", "acme/eu-1", "shop", "rollback", "--to", "1.3.0", "--reason", "loses orders", "--key", file}
	code, out, errOut := h.hub(t, append(line, "--dry-run")...)
	if req := last[*fleetv1.SendOrderRequest](t, h); code != exitcode.OK || !req.GetDryRun() || len(req.GetSignature()) > 0 || out != string(req.GetText()) ||
		!strings.Contains(out, "\nrunning: 1.4.0\n") || !strings.Contains(errOut, "warning: acme/eu-1 is not connected") {
		t.Errorf("a dry run: exit code %d: %s%s", code, out, errOut)
	}
	code, out, errOut = h.hub(t, append(line, "--yes")...)
	o := sent(t, h, fingerprint)
	if code != exitcode.OK || !strings.Contains(errOut, "verb: rollback\n") || !strings.Contains(errOut, "next: hub get orders acme/eu-1") || !strings.Contains(out, o.Nonce.String()) {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	if o.Verb != order.RollBack || o.Cluster != "acme/eu-1" || o.Distribution != "shop" || o.Target != "1.3.0" || o.Running != "1.4.0" || o.Reason != "loses orders" ||
		!o.Issued.Equal(moment.Truncate(time.Second)) || o.Expires.Sub(o.Issued) != 10*time.Minute || o.Nonce == (order.Nonce{}) {
		t.Errorf("got %+v", o)
	}
	// What is not named is what the hub last heard; nothing running is said with a dash.
	if code, _, errOut = h.hub(t, "order", "acme/eu-1", "shop", "widen-prune", "--reason", "the old workers go", "--running", "-", "--expires", "1h", "--key", file, "--yes"); code != exitcode.OK {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	if o = sent(t, h, fingerprint); o.Target != "1.5.0" || o.Running != "" || o.Expires.Sub(o.Issued) != time.Hour {
		t.Errorf("got %+v", o)
	}
	if code, _, errOut = h.hub(t, append(line[:6:6], "--reason", "x")...); code != exitcode.Usage || !strings.Contains(errOut, "--yes") {
		t.Errorf("without a terminal and --yes: exit code %d: %s", code, errOut)
	}
}

func TestTheKeyOfAnOrder(t *testing.T) {
	h := serveAnswers(t, orderAnswers())
	private, file, fingerprint := sshFiles(t, "sesame")
	line := func(more ...string) (int, string) {
		code, _, errOut := h.hub(t, append([]string{"order", "acme/eu-1", "shop", "force", "--reason", "mended", "--yes"}, more...)...)
		return code, errOut
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	if code, errOut := line("--key", file); code != exitcode.Usage || !strings.Contains(errOut, passphraseVariable) {
		t.Errorf("encrypted, without a terminal: exit code %d: %s", code, errOut)
	}
	if code, errOut := line(); code != exitcode.Usage || !strings.Contains(errOut, "--key FILE") {
		t.Errorf("without a key: exit code %d: %s", code, errOut)
	}
	t.Setenv(passphraseVariable, "wrong")
	if code, errOut := line("--key", file); code != exitcode.Usage || !strings.Contains(errOut, "passphrase is wrong") || strings.Contains(errOut, "wrong,x") {
		t.Errorf("a wrong passphrase: exit code %d: %s", code, errOut)
	}
	t.Setenv(passphraseVariable, "sesame")
	if code, errOut := line("--key", file); code != exitcode.OK {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	sent(t, h, fingerprint)

	// A real agent, as ssh-agent speaks.
	keys := agent.NewKeyring()
	socket := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, conn) }()
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", socket)
	if code, errOut := line(); code != exitcode.Usage || !strings.Contains(errOut, "has no keys") {
		t.Errorf("an agent without keys: exit code %d: %s", code, errOut)
	}
	other, otherFile, otherFingerprint := sshFiles(t, "")
	if err := keys.Add(agent.AddedKey{PrivateKey: other}); err != nil {
		t.Fatal(err)
	}
	if code, errOut := line(); code != exitcode.OK {
		t.Errorf("the agent's only key: exit code %d: %s", code, errOut)
	}
	sent(t, h, otherFingerprint)
	if code, errOut := line("--key", file+".pub"); code != exitcode.Usage || !strings.Contains(errOut, "does not have "+fingerprint) {
		t.Errorf("a key that the agent does not have: exit code %d: %s", code, errOut)
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	if code, errOut := line(); code != exitcode.Usage || !strings.Contains(errOut, "has 2 keys") {
		t.Errorf("one of two: exit code %d: %s", code, errOut)
	}
	if code, errOut := line("--key", file+".pub"); code != exitcode.OK {
		t.Errorf("the named one of two: exit code %d: %s", code, errOut)
	}
	sent(t, h, fingerprint)
	if code, errOut := line("--key", otherFile+".nowhere"); code != exitcode.Usage || !strings.Contains(errOut, "nowhere") {
		t.Errorf("a file that is not there: exit code %d: %s", code, errOut)
	}
}

func TestAnOrderThatCannotBeIsNotSigned(t *testing.T) {
	h := serveAnswers(t, orderAnswers())
	for _, c := range []struct {
		args string
		want string
	}{
		{"order acme shop rollback --to 1.3.0 --reason x", "PROVIDER/NAME"},
		{"order acme/eu-1 shop reboot --reason x", "run-conformance, force, widen-prune, rollback"},
		{"order acme/eu-1 shop rollback --to 1.3.0", "--reason"},
		{"order acme/eu-1 shop rollback --reason x", "--to VERSION"},
		{"order acme/eu-1 shop rollback --to latest --reason x", "target"},
		{"order acme/eu-1 shop rollback --to 1.3.0 --reason x --expires 25h", "at most 24h"},
		{"order acme/eu-1 shop rollback --to 1.3.0 --reason x --expires 0s", "expires before"},
		{"order acme/eu-1 tools force --reason x", "name it with --to"},
		{"order acme/eu-1 shop", "PROVIDER/NAME, DISTRIBUTION and VERB"},
	} {
		code, out, errOut := h.hub(t, append(strings.Fields(c.args), "--yes")...)
		if code != exitcode.Usage || out != "" || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: exit code %d: %s%s", c.args, code, out, errOut)
		}
	}
}

func someOrders(t *testing.T) *fleetv1.ListOrdersResponse {
	t.Helper()
	text := func(verb order.Verb, target string, n byte) []byte {
		o := order.Order{Verb: verb, Cluster: "acme/eu-1", Distribution: "shop", Target: target, Running: "1.4.0", Nonce: order.Nonce{n},
			Issued: moment.Truncate(time.Second), Expires: moment.Truncate(time.Second).Add(10 * time.Minute), Reason: "loses orders"}
		b, err := o.Text()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return &fleetv1.ListOrdersResponse{Orders: []*fleetv1.Order{
		{Text: text(order.RollBack, "1.3.0", 1), State: "Waiting", SentBy: "operator maria", Sent: ago(time.Minute), Key: "SHA256:abc"},
		{Text: text(order.Force, "1.5.0", 2), State: "Refused", SentBy: "operator maria", Sent: ago(time.Hour), Key: "SHA256:abc", Answer: "force of shop to 1.5.0 is refused: \x1b[2Jit expired", Answered: ago(time.Minute)},
		{Text: text(order.WidenPrune, "1.4.0", 3), State: "Accepted", SentBy: "operator oidc:ines", Sent: ago(2 * time.Hour), Key: "SHA256:def", Answer: "widen-prune ordered by ines", Answered: ago(time.Hour)},
		{Text: []byte("of another version"), State: "Expired", SentBy: "operator maria", Sent: ago(3 * time.Hour)},
	}}
}

func TestOrdersAreListed(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{"ListOrders": someOrders(t)})
	for name, args := range map[string]string{"orders.txt": "get orders", "orders-wide.txt": "get orders -o wide", "orders-issues.txt": "get orders acme/eu-1 --issues", "orders.names": "get orders -o name"} {
		code, out, errOut := h.hub(t, strings.Fields(args)...)
		if code != exitcode.OK {
			t.Errorf("%s: exit code %d: %s", args, code, errOut)
		}
		golden(t, name, []byte(out))
		h.set("ListOrders", someOrders(t))
	}
}

func TestAnOrdersAnswerIsWaitedFor(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "")
	_, file, _ := sshFiles(t, "")
	for state, want := range map[string]int{"Accepted": exitcode.OK, "Refused": exitcode.Failed, "Expired": exitcode.TimedOut} {
		say := orderAnswers()
		all := someOrders(t)
		all.Orders = all.Orders[:1]
		say["ListOrders"] = all
		h := serveAnswers(t, say)
		done := make(chan struct{})
		var code int
		var o, e bytes.Buffer
		go func() {
			defer close(done)
			code = h.hubInto(t.Context(), &o, &e, "order", "acme/eu-1", "shop", "rollback", "--to", "1.3.0", "--reason", "x", "--key", file, "--yes", "--wait")
		}()
		answered := proto.CloneOf(all)
		answered.Orders[0].State, answered.Orders[0].Answer = state, "the spoke's own word"
		h.untilAsked(t, (*fleetv1.ListOrdersRequest)(nil))
		h.set("ListOrders", answered)
		<-done
		if code != want || state != "Expired" && !strings.Contains(o.String()+e.String(), "the spoke's own word") {
			t.Errorf("%s: exit code %d: %s%s", state, code, o.String(), e.String())
		}
	}
}

func TestWhatIMayDoIsToldByTheHub(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{
		"WhoAmI": &fleetv1.WhoAmIResponse{Name: "operator oidc:maria", Role: "viewer", CredentialKind: "OIDC token", Credential: "https://login.vendor.example 248", NotAfter: later(time.Hour), Groups: []string{"support"}},
		"CanI":   &fleetv1.CanIResponse{Permissions: []*fleetv1.Permission{{Method: "StartRollout", Reason: "operator maria, whose role is \"viewer\": it is for admin", Roles: []string{"admin"}}}},
	})
	code, out, errOut := h.hub(t, "auth", "whoami", "-o", "wide")
	golden(t, "whoami-wide.txt", []byte(out))
	if code != exitcode.OK {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	code, out, _ = h.hub(t, "auth", "can-i", "rollout", "start")
	if req := last[*fleetv1.CanIRequest](t, h); code != exitcode.Failed || !strings.HasPrefix(out, "no - operator maria") || req.GetMethod() != "StartRollout" || req.GetDecision() != "" {
		t.Errorf("exit code %d: %s; asked %v", code, out, req)
	}
	if code, out, _ = h.hub(t, "auth", "can-i", "StartRollout", "-o", "json"); code != exitcode.Failed || !strings.Contains(out, "StartRollout") {
		t.Errorf("exit code %d: %s", code, out)
	}
	h.set("CanI", &fleetv1.CanIResponse{Permissions: []*fleetv1.Permission{{Method: "DecideRollout", Allowed: true}}})
	code, out, _ = h.hub(t, "auth", "can-i", "rollout", "pause", "--cluster", "acme/eu-1")
	if req := last[*fleetv1.CanIRequest](t, h); code != exitcode.OK || out != "yes\n" || req.GetMethod() != "DecideRollout" || req.GetDecision() != "pause" || req.GetCluster() != "acme/eu-1" {
		t.Errorf("exit code %d: %s; asked %v", code, out, req)
	}
	if code, out, _ = h.hub(t, "auth", "can-i", "--list"); code != exitcode.OK || !strings.Contains(out, "DecideRollout") {
		t.Errorf("exit code %d: %s", code, out)
	}
	for _, args := range [][]string{{"auth", "can-i"}, {"auth", "can-i", "pin", "--list"}, {"auth", "can-i", "pin", "--cluster", "eu-1"}} {
		if code, _, errOut := h.hub(t, args...); code != exitcode.Usage || errOut == "" {
			t.Errorf("%v: exit code %d: %s", args, code, errOut)
		}
	}
}

// Every command that asks the hub is a word of can-i, and every word is of a method that there is.
func TestWordsOfCanI(t *testing.T) {
	service := fleetv1.File_wheelwright_fleet_v1_fleet_proto.Services().Get(0).Methods()
	named := map[string]bool{}
	for word, method := range methods() {
		named[method] = true
		found := false
		for n := range service.Len() {
			found = found || string(service.Get(n).Name()) == method
		}
		if !found {
			t.Errorf("%s: there is no method %s", word, method)
		}
		if c, _, err := (&app{}).root().Find(strings.Fields(word)); err != nil || !strings.HasSuffix(c.CommandPath(), word) {
			t.Errorf("there is no command %q: %v", word, err)
		}
	}
	for n := range service.Len() {
		switch name := string(service.Get(n).Name()); name {
		case "Watch", "WhoAmI", "CanI": // of no command alone
		default:
			if !named[name] {
				t.Errorf("no command is named for %s", name)
			}
		}
	}
}

func TestAContextForTokens(t *testing.T) {
	h := serveAnswers(t, map[string]proto.Message{"WhoAmI": &fleetv1.WhoAmIResponse{Name: "operator oidc:maria"}})
	file := filepath.Join(t.TempDir(), "people.yaml")
	code, _, errOut := h.hub(t, "auth", "context", "-o", file, "--exec-command", "printf", "--exec-arg", "%s", "--exec-arg", "a.b.c")
	text, err := os.ReadFile(file)
	if code != exitcode.OK || err != nil || strings.Contains(string(text), "PRIVATE") || !strings.Contains(string(text), "tokenCommand") {
		t.Errorf("exit code %d: %s\n%s%v", code, errOut, text, err)
	}
	for _, more := range [][]string{{"-o", file, "--token-file", "x"}, {"--token-file", "x"}, {"-o", file + "2"}, {"-o", file + "2", "--token-file", "x", "--exec-command", "y"}, {"-o", file + "2", "--token-file", "x", "--exec-arg", "y"}} {
		if code, _, errOut := h.hub(t, append([]string{"auth", "context"}, more...)...); code != exitcode.Usage || errOut == "" {
			t.Errorf("%v: exit code %d: %s", more, code, errOut)
		}
	}
}
