package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
)

// vendorKey is made by ssh-keygen, with its line of a file of signers.
func vendorKey(t *testing.T) (key, signers string) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is absent")
	}
	dir := t.TempDir()
	key = filepath.Join(dir, "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	signers = filepath.Join(dir, "signers")
	if err := os.WriteFile(signers, []byte("release@vendor.example "+string(public)), 0o600); err != nil {
		t.Fatal(err)
	}
	return key, signers
}

// told is what a spoke exports that was told these, in their order, and found these digests.
func told(t *testing.T, cluster string, heard time.Time, at time.Time, first map[string]string, files ...string) string {
	t.Helper()
	d := &localv1.Audited{Distribution: "shop"}
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d.Told = append(d.Told, &localv1.Told{Statement: raw, At: wire.Time(at)})
	}
	for v, digest := range first {
		d.First = append(d.First, &localv1.First{Version: v, Digest: digest})
	}
	text, err := protojson.Marshal(&localv1.AuditExport{Cluster: cluster, LastContact: wire.Time(heard), Distributions: []*localv1.Audited{d}})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "export.json")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAChannelIsSignedAndTwoSpokesStoriesCompared(t *testing.T) {
	key, signers := vendorKey(t)
	dir := t.TempDir()
	sign := func(out string, args ...string) string {
		t.Helper()
		out = filepath.Join(dir, out)
		code, _, errOut := run(t, append([]string{"channel", "sign", "shop", "--key", key, "--out", out}, args...)...)
		if code != exitcode.OK {
			t.Fatalf("sign %v: exit code %d: %s", args, code, errOut)
		}
		return out
	}
	one := sign("one", "--latest", "1.0.0")
	two := sign("two", "--latest", "1.1.0", "--previous", one, "--recalled", "1.0.1")
	other := sign("other", "--latest", "1.0.0", "--previous", one)
	three := sign("three", "--latest", "1.2.0", "--previous", two)
	raw, err := os.ReadFile(three)
	if err != nil {
		t.Fatal(err)
	}
	s, err := channel.Parse(raw)
	if err != nil || s.Sequence != 3 || s.Latest != "1.2.0" || !s.Recalls("1.0.1") {
		t.Errorf("the third: %+v, %v", s.Statement, err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"channel", "sign", "shop", "--key", key}, "--latest VERSION"},
		{[]string{"channel", "sign", "web", "--key", key, "--latest", "1.0.0", "--previous", one}, "about distribution shop"},
		{[]string{"channel", "sign", "shop", "--key", key, "--latest", "1.0.1", "--previous", two}, "is called back too"},
		{[]string{"channel", "sign", "shop", "--key", key, "--latest", "1.0.0", "--previous", filepath.Join(dir, "none")}, "the first statement"},
		{[]string{"channel", "sign", "shop", "--key", key, "--latest", "new"}, "new"},
		{[]string{"audit", "compare", one, two}, "spoke audit export"},
	} {
		if code, _, errOut := run(t, c.args...); code != exitcode.Usage || !strings.Contains(errOut, c.want) {
			t.Errorf("hub %s: exit code %d: %s", strings.Join(c.args, " "), code, errOut)
		}
	}

	early, late := time.Now().Add(-2*time.Hour), time.Now()
	same := map[string]string{"1.0.0": "sha256:aa"}
	acme := told(t, "acme/eu-1", late, early, same, one, two)
	for name, c := range map[string]struct {
		file string
		code int
		want string
	}{
		"the same":       {told(t, "globex/us-1", late, late, same, one, two), exitcode.OK, "acme/eu-1 and globex/us-1 were told the same"},
		"not yet":        {told(t, "globex/us-1", early, early, same, one), exitcode.OK, "were told the same"},
		"a fork":         {told(t, "globex/us-1", late, late, same, one, other), exitcode.Failed, "FORK: two statements with the sequence 2"},
		"withheld":       {told(t, "globex/us-1", late, early, same, one), exitcode.Failed, "WITHHELD: acme/eu-1 had statement 2"},
		"other contents": {told(t, "globex/us-1", late, late, map[string]string{"1.0.0": "sha256:bb"}, one, two), exitcode.Failed, "CONTENT: 1.0.0 is sha256:aa on acme/eu-1 and sha256:bb on globex/us-1"},
	} {
		code, out, errOut := run(t, "audit", "compare", acme, c.file, "--signers", signers)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d\n%s%s", name, code, out, errOut)
		}
	}
	_, strangers := vendorKey(t)
	if code, _, errOut := run(t, "audit", "compare", acme, acme, "--signers", strangers); code != exitcode.Usage || !strings.Contains(errOut, "not among the signers") {
		t.Errorf("somebody else's key: exit code %d: %s", code, errOut)
	}
}
