package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/hubclient"
)

// member is the data folder of a spoke that has joined.
func member(t *testing.T) (dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: moment, NotAfter: moment.Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, self, self, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	data, err := json.Marshal(map[string]any{"schema": 1, "cluster": "acme/eu-1", "hub": "hub.example.com:7443", "certificate": certificate, "authorities": certificate,
		"key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))})
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, hubclient.IdentityFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTheWayToTheHubIsShownAndChanged(t *testing.T) {
	dir := member(t)
	t.Setenv(dataVariable, dir)
	before, err := hubclient.LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	const direct = "acme/eu-1 reaches the hub at hub.example.com:7443 directly\n"
	through := func(relay string) string {
		return "acme/eu-1 reaches the hub at hub.example.com:7443 through the relay at " + relay + "\n"
	}
	for _, c := range []struct{ args, says, via string }{
		{"via", direct, ""},
		{"via relay.fra.example.com:7444", through("relay.fra.example.com:7444"), "relay.fra.example.com:7444"},
		{"via", through("relay.fra.example.com:7444"), "relay.fra.example.com:7444"},
		{"via [2001:db8::7]:7444", through("[2001:db8::7]:7444"), "[2001:db8::7]:7444"},
		{"via --direct", direct, ""},
		{"via --direct", direct, ""},
	} {
		if code, out, text := invoke(t, strings.Fields(c.args)...); code != 0 || out != c.says || text != "" {
			t.Errorf("spoke %s: exit code %d: %s%s", c.args, code, out, text)
		}
		id, err := hubclient.LoadIdentity(dir)
		if err != nil || id.Via != c.via || id.Addr != before.Addr || id.Fingerprint() != before.Fingerprint() {
			t.Errorf("spoke %s left %+v, %v", c.args, id, err)
		}
		// What does not run remembers it too.
		code, out, _ := invoke(t, "status", "-o", "json")
		r := &localv1.GetStatusResponse{}
		if err := protojson.Unmarshal([]byte(out), r); err != nil || code != 1 || r.GetVia() != c.via {
			t.Errorf("status after spoke %s: exit code %d, through %q: %v", c.args, code, r.GetVia(), err)
		}
	}
}

func TestWrongWordsAboutTheWay(t *testing.T) {
	dir := member(t)
	if code, _, text := invoke(t, "via", "relay:7444", "--data", dir); code != 0 {
		t.Fatal(text)
	}
	empty := t.TempDir()
	for _, c := range []struct {
		args string
		code int
		says []string
	}{
		{"via relay:7444 --direct --data " + dir, 2, []string{"HOST:PORT or --direct, not both"}},
		{"via relay --data " + dir, 2, []string{`relay address "relay"`, "HOST:PORT, or --direct"}},
		{"via :7444 --data " + dir, 2, []string{`relay address ":7444"`, "HOST:PORT, or --direct"}},
		{"via a:1 b:2 --data " + dir, 2, []string{"a relay's HOST:PORT, --direct or nothing", "spoke via --help"}},
		{"via relay:7444 --data " + empty, 1, []string{"has not joined", "hub cluster invite"}},
		{"via --data " + empty, 1, []string{"has not joined", "hub cluster invite"}},
		{"join --hub hub:7443 --via relay --token x --data " + empty, 2, []string{"--via", `relay address "relay"`, "HOST:PORT"}},
	} {
		code, out, text := invoke(t, strings.Fields(c.args)...)
		if code != c.code || out != "" {
			t.Errorf("spoke %s: exit code %d, want %d; stdout %q: %s", c.args, code, c.code, out, text)
		}
		for _, s := range c.says {
			if !strings.Contains(text, s) {
				t.Errorf("spoke %s: %q does not say %q", c.args, text, s)
			}
		}
	}
	if code, _, text := invoke(t, "via", "", "--data", dir); code != 2 || !strings.Contains(text, `relay address ""`) {
		t.Errorf("an empty address: exit code %d: %s", code, text)
	}
	if id, err := hubclient.LoadIdentity(dir); err != nil || id.Via != "relay:7444" {
		t.Errorf("wrong words left %q, %v", id.Via, err)
	}
}

func TestStatusSaysThroughWhichRelayARunningSpokeGoes(t *testing.T) {
	s := newStand()
	s.via = "relay.fra.example.com:7444"
	serve(t, s)
	if code, out, text := invoke(t, "status"); code != 0 || text != "" || !strings.Contains(out, "\nacme/eu-1; connected to hub:7443 through the relay at relay.fra.example.com:7444\n") {
		t.Errorf("%d\n%s%s", code, out, text)
	}
	code, out, _ := invoke(t, "status", "-o", "json")
	r := &localv1.GetStatusResponse{}
	if err := protojson.Unmarshal([]byte(out), r); err != nil || code != 0 || r.GetVia() != s.via {
		t.Errorf("%d %q: %v\n%s", code, r.GetVia(), err, out)
	}
}
