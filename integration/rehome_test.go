package integration

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/wheelwright-dev/wheelwright/integration/world"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
)

// nowhere is a kubeconfig of a cluster that does not answer: a move needs none.
const nowhere = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

// removal is a spoke that is moved between two hubs, and those who move it.
type removal struct {
	*story
	old, next *world.Hub
	spoke     *world.Spoke
	files     int
}

// person makes an SSH key, and returns its file and its line of allowed signers.
func (r *removal) person(principal, namespaces string) (file, line string) {
	r.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	r.must(err)
	block, err := ssh.MarshalPrivateKey(private, "")
	r.must(err)
	key, err := ssh.NewPublicKey(public)
	r.must(err)
	file = filepath.Join(r.dir, strings.ReplaceAll(principal, "@", "-at-"))
	r.must(os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	r.must(os.WriteFile(file+".pub", ssh.MarshalAuthorizedKey(key), 0o600))
	return file, fmt.Sprintf("%s namespaces=%q %s", principal, namespaces, ssh.MarshalAuthorizedKey(key))
}

// prepared is a statement with the signatures of these keys.
func (r *removal) prepared(from, to *world.Hub, expires string, keys ...string) string {
	r.t.Helper()
	r.files++
	file := filepath.Join(r.dir, fmt.Sprintf("%d.re-home", r.files))
	_, err := from.Must(r.ctx, "cluster", "re-home", "prepare", r.spoke.Cluster, "--to", to.Context(), "--reason", "another hub", "--expires", expires, "-o", file)
	r.must(err)
	for _, key := range keys {
		_, err := from.Must(r.ctx, "cluster", "re-home", "sign", file, "--key", key, "--yes")
		r.must(err)
	}
	return file
}

func (r *removal) send(h *world.Hub, file string) {
	r.t.Helper()
	_, err := h.Must(r.ctx, "cluster", "re-home", "send", file, "--dry-run")
	r.must(err)
	_, err = h.Must(r.ctx, "cluster", "re-home", "send", file)
	r.must(err)
}

// comesTo waits until a hub shows what became of the last re-home.
func (r *removal) comesTo(h *world.Hub, state fleet.ReHomeState, text string) {
	r.t.Helper()
	r.must(world.Await(r.patiently(), fmt.Sprintf("the re-home to be %s", state), func(ctx context.Context) error {
		out, err := h.Must(ctx, "get", "re-homes", r.spoke.Cluster, "-o", "json")
		if err != nil {
			return err
		}
		all := &fleetv1.ListReHomesResponse{}
		if err := protojson.Unmarshal([]byte(out), all); err != nil {
			return err
		}
		if len(all.GetReHomes()) != 1 || all.GetReHomes()[0].GetState() != string(state) || !strings.Contains(all.GetReHomes()[0].GetAnswer(), text) {
			return errorf("hub get re-homes: %s", out)
		}
		return nil
	}))
}

// status waits until the spoke is as check wants it.
func (r *removal) status(what string, check func(*localv1.GetStatusResponse) bool) (s *localv1.GetStatusResponse) {
	r.t.Helper()
	r.must(world.Await(r.patiently(), what, func(ctx context.Context) error {
		out, err := r.spoke.Run(ctx, "status", "-o", "json")
		if err != nil {
			return err
		}
		s = &localv1.GetStatusResponse{}
		if err := protojson.Unmarshal([]byte(out.Out), s); err != nil {
			return errorf("spoke status: exit code %d: %s%w", out.Code, out.Err, err)
		}
		if !check(s) {
			return errorf("spoke status: %s", out.Out)
		}
		return nil
	}))
	return s
}

func (r *removal) at(h *world.Hub) func(*localv1.GetStatusResponse) bool {
	return func(s *localv1.GetStatusResponse) bool {
		return s.GetConnected() && s.GetHub() == h.Addr && s.GetReHome() == nil
	}
}

// pending: it belongs to one hub, and waits to be let in at another.
func (r *removal) pending(at, to *world.Hub) func(*localv1.GetStatusResponse) bool {
	return func(s *localv1.GetStatusResponse) bool {
		h := s.GetReHome()
		return s.GetConnected() && s.GetHub() == at.Addr && h.GetTo() == to.Addr && h.GetPending() && strings.HasPrefix(h.GetKeyFingerprint(), "SHA256:")
	}
}

// steals spends the token of a statement, as whoever sees it may; the vendor turns that one away.
func (r *removal) steals(file string) {
	r.t.Helper()
	raw, err := os.ReadFile(file)
	r.must(err)
	s, err := rehome.ParseSigned(raw)
	r.must(err)
	base := file + ".eve"
	eve, err := world.NewSpokeIn(r.bin, base, filepath.Join(base, "data"), r.spoke.Cluster, r.spoke.Kubeconfig)
	r.must(err)
	if out, err := eve.RunLine(r.ctx, fmt.Sprintf("spoke join --hub %s --token %s --data DIR", s.To, s.Token)); err != nil || out.Code != 0 {
		r.t.Fatalf("%v, %+v", err, out)
	}
	_, err = r.next.Must(r.ctx, "cluster", "reject", r.spoke.Cluster, "--reason", "nobody of ours", "--yes")
	r.must(err)
}

func (r *removal) tells(h *world.Hub, wants ...string) {
	r.t.Helper()
	out, err := h.Must(r.ctx, "get", "events", r.spoke.Cluster, "-o", "json")
	r.must(err)
	for _, want := range wants {
		if !strings.Contains(out, want) {
			r.t.Errorf("no event at %s says %q: %s", h.Dir, want, out)
		}
	}
}

// A spoke is moved from one hub to another by a statement that vendor and provider have signed, while nobody logs in
// at its cluster; what they did not both sign, and a new hub that it does not come to, change nothing.
func TestReHome(t *testing.T) {
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r := &removal{story: &story{t: t, dir: t.TempDir(), ctx: ctx, bin: bin}}
	for name, h := range map[string]**world.Hub{"old": &r.old, "new": &r.next} {
		dir := filepath.Join(r.dir, name)
		r.must(os.Mkdir(dir, 0o755))
		*h, err = world.NewHub(bin, dir)
		r.must(err)
		r.must((*h).Start(ctx))
		t.Cleanup(func() {
			if _, err := (*h).Stop(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Logf("%s hub:\n%s", name, world.Tail((*h).Log, 40))
			}
		})
	}
	vendor, vendorLine := r.person("release@vendor.example", "git,"+rehome.Namespace)
	maria, mariaLine := r.person("maria@acme.example", rehome.Namespace)
	stranger, _ := r.person("eve@example.com", rehome.Namespace)
	kubeconfig := filepath.Join(r.dir, "kubeconfig")
	r.must(os.WriteFile(kubeconfig, []byte(nowhere), 0o600))
	r.spoke, err = world.NewSpoke(bin, r.dir, names[0], kubeconfig)
	r.must(err)
	for name, text := range map[string]string{"vendor.keys": vendorLine, "operators.keys": mariaLine, "spoke.yaml": fmt.Sprintf(`version: 1
kubeconfig: %s
signers: {files: [vendor.keys]}
operators:
  cluster: %s
  files: [operators.keys]
  allow: [{principal: maria@acme.example, verbs: [re-home]}]
subscriptions:
- {distribution: shop, variant: app-kubernetes, namespace: shop, versions: {range: "1.x"}}
`, kubeconfig, r.spoke.Cluster)} {
		r.must(os.WriteFile(filepath.Join(r.spoke.Folder(), name), []byte(text), 0o600))
	}
	r.must(r.spoke.Join(ctx, r.old, "--label", "env=staging"))
	r.must(r.spoke.Start())
	t.Cleanup(func() {
		if _, err := r.spoke.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("spoke:\n%s", world.Tail(r.spoke.Log, 60))
		}
	})
	r.status("the spoke to be at the old hub", r.at(r.old))

	t.Run("what one company signed goes nowhere", func(t *testing.T) {
		file := r.prepared(r.old, r.next, "1h", vendor)
		if out, err := r.old.Run(ctx, "cluster", "re-home", "send", file); err != nil || out.Code != 2 || !strings.Contains(out.Err, "hub cluster re-home sign") {
			t.Errorf("one signature: %v, %+v", err, out)
		}
		if out, err := r.old.Run(ctx, "cluster", "re-home", "sign", file, "--key", vendor, "--yes"); err != nil || out.Code != 2 || !strings.Contains(out.Err, "keys of their own") {
			t.Errorf("the same key again: %v, %+v", err, out)
		}
		r.send(r.old, r.prepared(r.old, r.next, "1h", vendor, stranger))
		r.comesTo(r.old, fleet.ReHomeRefused, "none of the operators who are allowed to re-home has signed it")
		r.status("the spoke to be where it was", r.at(r.old))
	})
	t.Run("a token that somebody else has used moves nobody", func(t *testing.T) {
		file := r.prepared(r.old, r.next, "1h", vendor, maria)
		r.steals(file)
		r.send(r.old, file)
		r.comesTo(r.old, fleet.ReHomeGivenUp, "it was used already")
		r.tells(r.old, "that was somebody else, such as the hub that carried it")
		r.status("the spoke to be where it was", r.at(r.old))
		if out, err := r.old.Run(ctx, "cluster", "re-home", "send", file); err != nil || out.Code != 1 || !strings.Contains(out.Err, "hub get re-homes") {
			t.Errorf("the same again: %v, %+v", err, out)
		}
	})
	t.Run("a token that was spent while nobody heard the answer is said", func(t *testing.T) {
		file := r.prepared(r.old, r.next, "1h", vendor, maria)
		_, err := r.next.Stop()
		r.must(err)
		r.send(r.old, file)
		r.status("the spoke to have tried", func(s *localv1.GetStatusResponse) bool { return s.GetReHome().GetWaits() != "" })
		r.must(r.spoke.Kill())
		r.must(r.next.Start(ctx))
		r.steals(file)
		r.must(r.spoke.Start())
		r.comesTo(r.old, fleet.ReHomeGivenUp, "the answer to this spoke was lost on the way, or somebody else has used it")
		r.status("the spoke to be where it was", r.at(r.old))
	})
	t.Run("a new hub that is away is given up when the statement expires", func(t *testing.T) {
		file := r.prepared(r.old, r.next, "15s", vendor, maria)
		_, err := r.next.Stop()
		r.must(err)
		r.send(r.old, file)
		s := r.status("the spoke to say why it waits", func(s *localv1.GetStatusResponse) bool { return s.GetReHome().GetWaits() != "" })
		if !strings.Contains(s.GetReHome().GetWaits(), "the hub can't be reached") || !s.GetConnected() {
			t.Errorf("got %v", s)
		}
		r.comesTo(r.old, fleet.ReHomeGivenUp, "the statement has expired; last: join "+r.next.Addr)
		r.status("the spoke to be where it was", r.at(r.old))
		r.must(r.next.Start(ctx))
	})
	t.Run("what both have signed moves it, over a kill", func(t *testing.T) {
		r.send(r.old, r.prepared(r.old, r.next, "1h", maria, vendor))
		s := r.status("the spoke to wait at the new hub", r.pending(r.old, r.next))
		r.comesTo(r.old, fleet.ReHomeMoving, "joined "+r.next.Addr)
		key := s.GetReHome().GetKeyFingerprint()
		if key == s.GetKeyFingerprint() {
			t.Error("the new identity has the old key")
		}
		r.must(r.spoke.Kill())
		if out, err := r.spoke.Run(ctx, "status"); err != nil || !strings.Contains(out.Out, "the move to the hub "+r.next.Addr) || !strings.Contains(out.Out, key) {
			t.Errorf("while it does not run: %v, %+v", err, out)
		}
		r.must(r.spoke.Start())
		if s = r.status("the spoke to wait again", r.pending(r.old, r.next)); s.GetReHome().GetKeyFingerprint() != key {
			t.Errorf("another key after the kill: %v", s)
		}
		_, err := r.next.Must(ctx, "cluster", "accept", r.spoke.Cluster, "--fingerprint", key)
		r.must(err)
		if s = r.status("the spoke to be at the new hub", r.at(r.next)); s.GetKeyFingerprint() != key {
			t.Errorf("it moved with another key: %v", s)
		}
		r.comesTo(r.old, fleet.ReHomeMoved, "hub cluster remove "+r.spoke.Cluster)
		r.tells(r.old, "handed over the re-home", "re-home Refused: ", "re-home GivenUp: ", "re-home Moving: to "+r.next.Addr, "re-home Moved: to "+r.next.Addr)
		r.must(world.Await(r.patiently(), "the new hub to hear where it came from", func(ctx context.Context) error {
			out, err := r.next.Must(ctx, "get", "events", r.spoke.Cluster, "-o", "json")
			if err == nil && !strings.Contains(out, "re-home Moved: came from "+r.old.Addr) {
				err = errorf("hub get events: %s", out)
			}
			return err
		}))
		if out, err := r.next.Must(ctx, "get", "clusters", "-o", "json"); err != nil || !strings.Contains(out, "staging") {
			t.Errorf("its labels did not come with it: %v %s", err, out)
		}
		if _, err := os.Lstat(filepath.Join(r.spoke.Dir, "identity.next.json")); !os.IsNotExist(err) {
			t.Errorf("the identity that was taken is still there: %v", err)
		}
	})
	t.Run("what the new hub publishes is offered", func(t *testing.T) {
		root, err := world.Root()
		r.must(err)
		v, err := world.NewVendor(ctx, filepath.Join(r.dir, "vendor"), filepath.Join(root, "deploy", "examples", "shop"))
		r.must(err)
		r.must(v.Git(ctx, "-c", "gpg.format=ssh", "-c", "user.signingkey="+vendor, "tag", "-s", "-m", "1.1.0", "1.1.0"))
		_, err = r.next.Must(ctx, "distribution", "add", "shop", "--git", v.Dir, "--interval", "1s")
		r.must(err)
		r.must(world.Await(r.patiently(), "the spoke to be offered the release", func(ctx context.Context) error {
			out, err := r.spoke.Run(ctx, "render", "shop", "1.1.0")
			if err == nil && (out.Code != 0 || !strings.Contains(out.Out, "kind: Deployment")) {
				err = errorf("spoke render: exit code %d: %s", out.Code, out.Err)
			}
			return err
		}))
	})
	t.Run("it comes back where the hub that it leaves dies on the way", func(t *testing.T) {
		r.send(r.next, r.prepared(r.next, r.old, "1h", vendor, maria))
		s := r.status("the spoke to wait at the old hub", r.pending(r.next, r.old))
		r.must(r.next.Kill())
		_, err := r.old.Must(ctx, "cluster", "accept", r.spoke.Cluster, "--fingerprint", s.GetReHome().GetKeyFingerprint())
		r.must(err)
		r.status("the spoke to be at the old hub again", r.at(r.old))
	})
}
