package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/wheelwright-dev/wheelwright/integration/evilhub"
	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/integration/world"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// scene is a real spoke on a real API server that has joined the attacker's hub, and the vendor and provider
// whom it serves.
type scene struct {
	t       *testing.T
	hub     *evilhub.Hub
	cluster *harness.Cluster
	ns      string
	vendor  evilhub.Key
	thief   evilhub.Key
	maria   evilhub.Key // the provider's
	old     evilhub.Key // the vendor's, until it expired
	n       int         // of good releases
	mark    int
	signed  map[string]bool // versions that the vendor has signed
	offers  []*syncv1.Offer // of good releases
	tars    map[string][]byte
	oracle  *oracle
	spoke   *world.Spoke
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newScene(t *testing.T) *scene {
	c := harness.Shared(t, 1)[0]
	s := &scene{t: t, cluster: c, ns: c.NewNamespace(t), signed: map[string]bool{}, tars: map[string][]byte{}}
	s.hub = must[*evilhub.Hub](t)(evilhub.Start())
	s.vendor = must[evilhub.Key](t)(evilhub.NewKey("release@vendor.example", `namespaces="git,channel@wheelwright.dev,re-home@wheelwright.dev"`))
	s.maria = must[evilhub.Key](t)(evilhub.NewKey("maria@acme.example", ""))
	s.thief = must[evilhub.Key](t)(evilhub.NewKey("release@vendor.example", ""))
	s.old = must[evilhub.Key](t)(evilhub.NewKey("old@vendor.example", `namespaces="git",valid-before="20200101Z"`))
	bin := must[world.Binaries](t)(binaries())
	s.spoke = must[*world.Spoke](t)(world.NewSpoke(bin, t.TempDir(), evilhub.Cluster, c.Kubeconfig))
	s.write("vendor.allowed_signers", s.vendor.Line+s.old.Line)
	s.write("operators.keys", s.maria.Line)
	s.write("spoke.yaml", fmt.Sprintf(`version: 1
kubeconfig: %s
signers: {files: [vendor.allowed_signers]}
operators: {cluster: acme/eu-1, files: [operators.keys], allow: [{principal: maria@acme.example, verbs: [re-home]}]}
healthTimeout: 20s
subscriptions:
- {distribution: shop, variant: app, namespace: %s, versions: {range: ">=1.0.0"}}
`, c.Kubeconfig, s.ns))
	r := must[world.Result](t)(s.spoke.RunLine(t.Context(), fmt.Sprintf("spoke join --hub %s --token %s --data DIR", s.hub.Addr, s.hub.Token())))
	if r.Code != 0 {
		t.Fatalf("spoke join: %s", r.Err)
	}
	s.oracle = newOracle(t, c, s.ns)
	if err := s.spoke.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if code, err := s.spoke.Stop(); err != nil || code != 0 {
			t.Errorf("the spoke ended with %d, %v", code, err)
		}
		s.hub.Stop()
		if text, err := os.ReadFile(s.spoke.Log); t.Failed() && err == nil {
			t.Log(string(text[max(0, len(text)-60_000):]))
		}
	})
	return s
}

func (s *scene) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.spoke.Folder(), name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// pack makes a bundle and hands it out under its own digest.
func (s *scene) pack(r evilhub.Recipe) ([]byte, *syncv1.Offer) {
	s.t.Helper()
	tar := must[[]byte](s.t)(r.Pack())
	o := evilhub.Offer(r.Version, tar)
	s.hub.Put(o.Digest, bundle.Compress(tar))
	return tar, o
}

// good makes the next release that the vendor has signed, and has it offered.
func (s *scene) good() string {
	s.t.Helper()
	s.n++
	version := fmt.Sprintf("1.%d.0", s.n)
	tar, o := s.pack(evilhub.Recipe{Version: version, Files: evilhub.App(version), Key: &s.vendor})
	s.signed[version], s.tars[version] = true, tar
	s.offers = append(s.offers, o)
	return version
}

// next is a version above all good ones, for what is not.
func (s *scene) next() string {
	s.n++
	return fmt.Sprintf("1.%d.0", s.n)
}

// desired is what an honest hub would say, with what the attacker adds.
func (s *scene) desired(edit func(*syncv1.DistributionOffers), more ...*syncv1.Offer) *syncv1.DesiredState {
	d := &syncv1.DistributionOffers{Distribution: "shop", Url: "https://git.example.com/vendor/shop", Path: "dist", Offers: append(slices.Clone(s.offers), more...)}
	if edit != nil {
		edit(d)
	}
	return &syncv1.DesiredState{Revision: uint64(time.Now().UnixNano()), Distributions: []*syncv1.DistributionOffers{d}}
}

// hears waits until the spoke has said something that holds a text, since the last attack began.
func (s *scene) hears(want string) error {
	return s.cluster.Wait(fmt.Sprintf("the spoke to say %q", want), func() error { return s.heard(want) })
}

func (s *scene) heard(want string) error {
	said, _ := s.hub.Heard(s.mark)
	if slices.ContainsFunc(said, func(m string) bool { return strings.Contains(m, want) }) {
		return nil
	}
	return fmt.Errorf("it said %q", said[max(0, len(said)-6):])
}

// ran waits until the spoke has met something of the hub's script.
func (s *scene) ran(what string) {
	s.t.Helper()
	if err := s.cluster.Wait(what, func() error {
		if !s.hub.Ran() {
			return fmt.Errorf("it has not")
		}
		return nil
	}); err != nil {
		s.t.Error(err)
	}
}

// works has a good release offered, and waits until it runs: whatever was done before, the spoke still does
// what its vendor and its provider want.
func (s *scene) works() {
	s.t.Helper()
	version := s.good()
	s.hub.Behave(evilhub.Script{})
	s.hub.Want(s.desired(nil))
	if err := s.cluster.Wait("release "+version+" to run", func() error {
		if l := s.hub.Last(); l.GetRunningVersion() != version || l.GetPhase() != string(fleet.Succeeded) {
			return fmt.Errorf("%s %s, runs %s: %s", l.GetPhase(), l.GetTargetVersion(), l.GetRunningVersion(), l.GetReason())
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// oracle reads every object of the cluster back.
type oracle struct {
	t      *testing.T
	client dynamic.Interface
	kinds  []schema.GroupVersionResource
	ns     string
	there  map[string]bool // before the first attack
}

// made are kinds of which the cluster itself makes objects all the time.
var made = []string{"events", "leases", "endpoints", "endpointslices", "componentstatuses", "ipaddresses", "csinodes"}

func newOracle(t *testing.T, c *harness.Cluster, ns string) *oracle {
	t.Helper()
	o := &oracle{t: t, ns: ns, there: map[string]bool{}}
	o.client = must[dynamic.Interface](t)(newDynamic(c))
	disc := must[*discovery.DiscoveryClient](t)(discovery.NewDiscoveryClientForConfig(c.RESTConfig()))
	lists := must[[]*metav1.APIResourceList](t)(disc.ServerPreferredResources())
	for _, l := range lists {
		gv := must[schema.GroupVersion](t)(schema.ParseGroupVersion(l.GroupVersion))
		for _, r := range l.APIResources {
			if slices.Contains(r.Verbs, "list") && !slices.Contains(made, r.Name) {
				o.kinds = append(o.kinds, gv.WithResource(r.Name))
			}
		}
	}
	if len(o.kinds) < 40 {
		t.Fatalf("the API server names %d kinds only", len(o.kinds))
	}
	o.each(func(name string, _ *unstructured.Unstructured) { o.there[name] = true })
	return o
}

func newDynamic(c *harness.Cluster) (dynamic.Interface, error) {
	cfg := c.RESTConfig()
	cfg.QPS, cfg.Burst = 1000, 1000
	return dynamic.NewForConfig(cfg)
}

func (o *oracle) each(f func(name string, obj *unstructured.Unstructured)) {
	o.t.Helper()
	for _, kind := range o.kinds {
		list, err := o.client.Resource(kind).List(o.t.Context(), metav1.ListOptions{})
		if err != nil {
			o.t.Fatalf("list %s: %v", kind, err)
		}
		for i := range list.Items {
			obj := &list.Items[i]
			f(fmt.Sprintf("%s %s/%s", kind.Resource, obj.GetNamespace(), obj.GetName()), obj)
		}
	}
}

// foreign are the objects that neither were there before nor are of what the vendor has signed.
func (o *oracle) foreign(signed map[string]bool) (all []string) {
	o.t.Helper()
	o.each(func(name string, obj *unstructured.Unstructured) {
		switch {
		case o.there[name]:
		case name == "configmaps "+o.ns+"/settings":
			if release, _, _ := unstructured.NestedString(obj.Object, "data", "release"); !signed[release] {
				all = append(all, fmt.Sprintf("%s says %q, which nobody signed", name, release))
			}
		case obj.GetNamespace() == o.ns && strings.HasPrefix(obj.GetName(), "wheelwright-"): // the spoke's own inventory
		default:
			all = append(all, name)
		}
	})
	return all
}

func TestAHubThatIsTheAttacker(t *testing.T) {
	s := newScene(t)
	s.works()
	s.works() // there is something to go back to
	var all []attack
	for _, part := range [][]attack{signatures(), contents(), transports(), backwards(), statements(), widenings(), protocols(), moves()} {
		all = append(all, part...)
	}
	foreign := 0
	for n, a := range all {
		running := s.hub.Last().GetRunningVersion()
		_, s.mark = s.hub.Heard(0)
		begin := time.Now()
		if want := a.do(s); want != "" {
			if err := s.hears(want); err != nil {
				t.Errorf("%s: %v", a.name, err)
			}
		}
		if found := s.oracle.foreign(s.signed); len(found) > 0 {
			foreign += len(found)
			t.Errorf("%s: on the cluster is %q", a.name, found)
		}
		if now := s.hub.Last().GetRunningVersion(); now != running {
			t.Errorf("%s: %s ran, and %s runs", a.name, running, now)
		}
		t.Logf("%s: %s", a.name, time.Since(begin).Round(time.Millisecond))
		s.hub.Behave(evilhub.Script{})
		if n%10 == 9 || n == len(all)-1 {
			s.works()
		}
	}
	messages := s.fuzz()
	if found := s.oracle.foreign(s.signed); len(found) > 0 {
		foreign += len(found)
		t.Errorf("after %d altered messages: on the cluster is %q", messages, found)
	}
	s.works()
	fmt.Printf("FIGURE evilhub.attacks %d attacks, and %d altered messages, against a real spoke on a real API server\n", len(all), messages)
	fmt.Printf("FIGURE evilhub.foreign-objects %d objects\n", foreign)
	s.oracleSees()
}

// fuzz sends what an honest hub and an attacker would say, with bytes altered, and returns how much of it was
// still a message.
func (s *scene) fuzz() (messages int) {
	s.t.Helper()
	wanted := 300
	if os.Getenv("WHEELWRIGHT_FIGURES") != "" {
		wanted = 1000 // a stream that ends is opened again after a while: more of them is time, not load
	}
	evil := evilhub.Recipe{Version: s.next(), Key: &s.thief}
	evil.Files = evilhub.Evil(evil.Version)
	_, o := s.pack(evil)
	running := s.hub.Last().GetRunningVersion()
	seeds := [][]byte{}
	for _, m := range []*syncv1.ConnectResponse{
		evilhub.Desired(s.desired(nil)), evilhub.Desired(s.desired(nil, o)),
		evilhub.Desired(s.desired(func(d *syncv1.DistributionOffers) {
			d.Withdrawals = []*syncv1.Withdrawal{{Version: running, Reason: "bad", To: "1.1.0"}}
			d.Pin = &syncv1.HubPin{Version: "1.1.0", Author: "a"}
			d.Decisions = []*syncv1.HubDecision{{Version: running, Approved: true}}
			d.Channel, d.Orders = []byte("statement"), []*syncv1.SignedOrder{{Text: []byte("order")}}
		})),
		{Body: &syncv1.ConnectResponse_Welcome{Welcome: &syncv1.Welcome{Cluster: evilhub.Cluster, Epoch: 3, HeartbeatSeconds: 2}}},
		{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: 5}}},
	} {
		seeds = append(seeds, must[[]byte](s.t)(proto.Marshal(m)))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for messages < wanted {
		raw := slices.Clone(seeds[random.IntN(len(seeds))])
		for range 1 + random.IntN(8) {
			switch at := random.IntN(len(raw)); random.IntN(3) {
			case 0:
				raw[at] = byte(random.UintN(256))
			case 1:
				raw = slices.Delete(raw, at, min(len(raw), at+1+random.IntN(4)))
			default:
				raw = slices.Insert(raw, at, raw[at:min(len(raw), at+1+random.IntN(16))]...)
			}
			if len(raw) == 0 {
				break
			}
		}
		m := &syncv1.ConnectResponse{}
		if proto.Unmarshal(raw, m) != nil {
			continue
		}
		messages++
		s.hub.Say(m)
		if messages%100 == 0 { // what was sent is heard before more is
			s.works()
		}
	}
	return messages
}

// oracleSees shows that what is looked for would be found: where its provider asks for nobody's signature, the
// spoke takes what anybody signed.
func (s *scene) oracleSees() {
	s.t.Helper()
	text := must[[]byte](s.t)(os.ReadFile(s.spoke.Config))
	s.write("spoke.yaml", strings.Replace(string(text), "signers: {files: [vendor.allowed_signers]}\n", "", 1))
	r := evilhub.Recipe{Version: s.next(), Key: &s.thief}
	r.Files = evilhub.Evil(r.Version)
	_, o := s.pack(r)
	s.hub.Want(s.desired(nil, o))
	s.cluster.Eventually(s.t, "the oracle to see what nobody signed", func() error {
		if found := s.oracle.foreign(s.signed); len(found) < 2 {
			return fmt.Errorf("it sees %q", found)
		}
		return nil
	})
}
