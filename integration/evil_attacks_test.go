package integration

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/integration/evilhub"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// attack is one thing that a hub tries. do does it, and says what the spoke has to say of it; empty: nothing that
// could be waited for.
type attack struct {
	name string
	do   func(s *scene) (want string)
}

// forged offers a release that is not what it says.
func forged(name, want string, spoil func(s *scene, r *evilhub.Recipe)) attack {
	return attack{name, func(s *scene) string {
		r := evilhub.Recipe{Version: s.next(), Key: &s.vendor}
		r.Files = evilhub.Evil(r.Version)
		spoil(s, &r)
		_, o := s.pack(r)
		s.hub.Want(s.desired(nil, o))
		return want
	}}
}

// swapped hands out other files than those that were signed.
func swapped(name, want string, spoil func(files []provenance.File) []provenance.File) attack {
	return forged(name, want, func(_ *scene, r *evilhub.Recipe) {
		r.Files = evilhub.App(r.Version)
		r.Handed = spoil(evilhub.App(r.Version))
	})
}

// spoilt hands out other bytes than the tar of a good release, under the digest of those bytes.
func spoilt(name, want string, spoil func(good []byte) []byte) attack {
	return attack{name, func(s *scene) string {
		version := s.next()
		good := must[[]byte](s.t)(evilhub.Recipe{Version: version, Files: evilhub.App(version), Key: &s.vendor}.Pack())
		bad := spoil(good)
		o := evilhub.Offer(version, bad)
		s.hub.Put(o.Digest, bundle.Compress(bad))
		s.hub.Want(s.desired(nil, o))
		return want
	}}
}

// entries rewrites a tar's entries with the standard library's writer.
func entries(good []byte, edit func(h *tar.Header, data []byte, w *tar.Writer) error) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	r := tar.NewReader(bytes.NewReader(good))
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		var data bytes.Buffer
		if _, err := data.ReadFrom(r); err != nil {
			panic(err)
		}
		if err := edit(h, data.Bytes(), w); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func keep(w *tar.Writer, h *tar.Header, data []byte) error {
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func replace(old, with string) func([]byte) []byte {
	return func(text []byte) []byte { return bytes.Replace(text, []byte(old), []byte(with), 1) }
}

// signatures are about who signed what.
func signatures() []attack {
	return []attack{
		forged("nobody's tag", "the tag is lightweight", func(_ *scene, r *evilhub.Recipe) { r.Key = nil }),
		forged("a stranger's key of the vendor's name", "not among the signers", func(s *scene, r *evilhub.Recipe) { r.Key = &s.thief }),
		forged("a tag without its signature", "carries no signature", func(_ *scene, r *evilhub.Recipe) {
			r.Signed = func(t []byte) []byte { return t[:bytes.Index(t, []byte("-----BEGIN"))] }
		}),
		forged("a signature over something else", "is not what is here", func(_ *scene, r *evilhub.Recipe) { r.Signed = replace("tagger V ", "tagger W ") }),
		forged("a signature for files", `namespace "file"`, func(_ *scene, r *evilhub.Recipe) { r.Namespace = "file" }),
		forged("a signature for statements", "for the namespace", func(_ *scene, r *evilhub.Recipe) { r.Namespace = signer.Channel }),
		forged("a key that has expired", "was valid until", func(s *scene, r *evilhub.Recipe) { r.Key = &s.old }),
		forged("a tag of tomorrow", "yet to come", func(_ *scene, r *evilhub.Recipe) { r.Tagged = time.Now().Add(24 * time.Hour) }),
		forged("a release of the vendor's other product", "of the distribution bank, this is shop", func(_ *scene, r *evilhub.Recipe) {
			r.Tag = func(t []byte) []byte { return append(t, "\nWheelwright-Distribution: bank\n"...) }
		}),
		forged("an old tag under a new name", "the tag object is of", func(_ *scene, r *evilhub.Recipe) { r.Inner = "1.0.0" }),
		forged("the same number with a v", "the tag object is of", func(_ *scene, r *evilhub.Recipe) { r.Inner = "v" + r.Version }),
		forged("a long reference's name", "long form", func(_ *scene, r *evilhub.Recipe) { r.Inner = "refs/tags/" + r.Version }),
		forged("a name that looks alike", "the byte", func(_ *scene, r *evilhub.Recipe) { r.Inner = strings.Replace(r.Version, "1", "１", 1) }),
		forged("a trailing dot", "dots", func(_ *scene, r *evilhub.Recipe) { r.Inner = r.Version + "." }),
		forged("the tag of another commit", "names commit", func(_ *scene, r *evilhub.Recipe) {
			r.Tag = func(t []byte) []byte { return append([]byte("object "+strings.Repeat("ab", 20)), t[47:]...) }
		}),
		forged("the tag of a tree", "want a commit", func(_ *scene, r *evilhub.Recipe) { r.Tag = replace("type commit", "type tree") }),
		forged("the tag of a tag", "want a commit", func(_ *scene, r *evilhub.Recipe) { r.Tag = replace("type commit", "type tag") }),
		forged("two names in one tag", "does not prove", func(_ *scene, r *evilhub.Recipe) { r.Tag = replace("\ntagger", "\ntag 1.0.0\ntagger") }),
		forged("a header more", "does not prove", func(_ *scene, r *evilhub.Recipe) { r.Tag = replace("+0000\n\n", "+0000\nencoding utf-8\n\n") }),
		forged("two signatures in one tag", "two signature blocks", func(_ *scene, r *evilhub.Recipe) {
			r.Signed = func(t []byte) []byte { return append(t, t[bytes.Index(t, []byte("-----BEGIN")):]...) }
		}),
		forged("words after the signature", "text after its signature", func(_ *scene, r *evilhub.Recipe) {
			r.Signed = func(t []byte) []byte { return append(t, "trust me\n"...) }
		}),
		forged("a zero byte in the message", "the byte 0x0", func(_ *scene, r *evilhub.Recipe) { r.Tag = replace("\n\n1.", "\n\n\x001.") }),
		forged("another content's sum", "Bundle-SHA256", func(_ *scene, r *evilhub.Recipe) {
			r.Tag = func(t []byte) []byte {
				return append(t, "\nBundle-SHA256: "+strings.Repeat("0", 64)+"\n"...)
			}
		}),
		forged("a second signer's tag of another release", "does not prove", func(_ *scene, r *evilhub.Recipe) {
			r.Proof = func(p *provenance.Proof) {
				p.Cosigned = [][]byte{bytes.ReplaceAll(p.Tag, []byte(r.Version), []byte("1.0.0"))}
			}
		}),
		forged("the tag's name in the bundle only", "does not prove", func(_ *scene, r *evilhub.Recipe) {
			r.Proof = func(p *provenance.Proof) { p.TagName = "9.9.9" }
		}),
	}
}

// contents are about what was signed.
func contents() []attack {
	settings := func(f []provenance.File) *provenance.File { return &f[1] }
	return []attack{
		swapped("an altered file", "tree id", func(f []provenance.File) []provenance.File {
			settings(f).Data = bytes.Replace(settings(f).Data, []byte("release: \""), []byte("release: \"evil "), 1)
			return f
		}),
		swapped("a file more", "tree id", func(f []provenance.File) []provenance.File {
			return append(f, provenance.File{Path: "app/evil.yaml", Data: []byte("kind: ConfigMap\n")})
		}),
		swapped("a file less", "tree id", func(f []provenance.File) []provenance.File { return f[:1] }),
		swapped("a file of another name", "tree id", func(f []provenance.File) []provenance.File {
			settings(f).Path = "app/Settings.yaml"
			return f
		}),
		swapped("a file that is executable", "tree id", func(f []provenance.File) []provenance.File {
			settings(f).Executable = true
			return f
		}),
		swapped("other files altogether", "tree id", func([]provenance.File) []provenance.File { return evilhub.Evil("x") }),
		forged("another path of the repository", "does not prove", func(_ *scene, r *evilhub.Recipe) {
			r.Proof = func(p *provenance.Proof) { p.Path, p.Trees = ".", p.Trees[:1] }
		}),
		forged("another commit than the tagged one", "does not prove", func(_ *scene, r *evilhub.Recipe) {
			r.Proof = func(p *provenance.Proof) { p.Commit = append(p.Commit, "more\n"...) }
		}),
		forged("another tree than the commit's", "does not prove", func(_ *scene, r *evilhub.Recipe) {
			r.Proof = func(p *provenance.Proof) { p.Trees[0] = bytes.Replace(p.Trees[0], []byte("dist"), []byte("tsid"), 1) }
		}),
		spoilt("a link among the files", "not a canonical bundle", func(good []byte) []byte {
			return entries(good, func(h *tar.Header, data []byte, w *tar.Writer) error {
				if strings.HasSuffix(h.Name, "settings.yaml") {
					return w.WriteHeader(&tar.Header{Name: h.Name, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"})
				}
				return keep(w, h, data)
			})
		}),
		spoilt("a file above the folder", "not a canonical bundle", func(good []byte) []byte {
			return bytes.Replace(good, []byte("files/app/settings.yaml"), []byte("files/../../settingsyaml"), 1)
		}),
		spoilt("a file twice", "not a canonical bundle", func(good []byte) []byte {
			return entries(good, func(h *tar.Header, data []byte, w *tar.Writer) error {
				if err := keep(w, h, data); err != nil || !strings.HasSuffix(h.Name, "settings.yaml") {
					return err
				}
				return keep(w, h, bytes.ReplaceAll(data, []byte("release"), []byte("esaeler")))
			})
		}),
		spoilt("something behind the end", "not a canonical bundle", func(good []byte) []byte { return append(good, make([]byte, 1024)...) }),
		spoilt("half a bundle", "not a canonical bundle", func(good []byte) []byte { return good[:len(good)/2] }),
		spoilt("nothing", "not a canonical bundle", func([]byte) []byte { return nil }),
		spoilt("noise", "not a canonical bundle", func([]byte) []byte {
			b := make([]byte, 10_000)
			_, _ = rand.Read(b)
			return b
		}),
	}
}

// fetched is a stream that a bundle goes down.
type fetched = grpc.ServerStreamingServer[syncv1.FetchBundleResponse]

// transports are about how a bundle comes.
func transports() []attack {
	served := func(name, want string, size uint64, serve func(s *scene, r *syncv1.FetchBundleRequest, stream fetched) error) attack {
		return attack{name, func(s *scene) string {
			version := s.next()
			_, o := s.pack(evilhub.Recipe{Version: version, Files: evilhub.App(version), Key: &s.vendor})
			if size > 0 {
				o.Size = size
			}
			s.hub.Behave(evilhub.Script{Fetch: func(r *syncv1.FetchBundleRequest, stream fetched) error { return serve(s, r, stream) }})
			s.hub.Want(s.desired(nil, o))
			return want
		}}
	}
	say := func(data []byte) func(*scene, *syncv1.FetchBundleRequest, fetched) error {
		return func(_ *scene, _ *syncv1.FetchBundleRequest, stream fetched) error {
			return stream.Send(&syncv1.FetchBundleResponse{Data: data})
		}
	}
	bomb := bundle.Compress(make([]byte, 256<<20))
	quick := []attack{
		served("another bundle under the digest", "does not have its digest", 0, say(bundle.Compress([]byte("something else")))),
		served("a bomb", "does not have its digest", 0, say(bomb)),
		served("a delta to what nobody signed", "does not have its digest", 0, delta(func(s *scene) []byte {
			evil := evilhub.Recipe{Version: "9.0.0", Key: &s.thief}
			evil.Files = evilhub.Evil(evil.Version)
			tar := must[[]byte](s.t)(evil.Pack())
			return must[[]byte](s.t)(bundle.Delta(s.t.Context(), s.tars[s.hub.Last().GetRunningVersion()], tar))
		})),
		served("a bomb of a delta", "does not have its digest", 0, delta(func(*scene) []byte { return bomb })),
		served("a delta on a bundle that was not offered", "was not offered", 0, func(_ *scene, r *syncv1.FetchBundleRequest, stream fetched) error {
			return stream.Send(&syncv1.FetchBundleResponse{Encoding: r.GetDigest(), Base: r.GetDigest(), Size: 10, Data: make([]byte, 10)})
		}),
		served("a bundle from its middle on", "from byte 1000", 0, func(_ *scene, r *syncv1.FetchBundleRequest, stream fetched) error {
			return stream.Send(&syncv1.FetchBundleResponse{Encoding: r.GetDigest(), Size: 2000, Offset: 1000, Data: make([]byte, 1000)})
		}),
	}
	if os.Getenv("WHEELWRIGHT_FIGURES") == "" { // each is tried again for a while before it is told
		return quick
	}
	return append(quick,
		served("nothing that is compressed", "does not have its digest", 0, say([]byte("plain"))),
		served("a bomb that is announced", "bundle too large", 1<<40, say(bomb)),
		served("data without an end", "more data than", 0, func(_ *scene, _ *syncv1.FetchBundleRequest, stream fetched) error {
			for {
				if err := stream.Send(&syncv1.FetchBundleResponse{Data: make([]byte, 64<<10)}); err != nil {
					return err
				}
			}
		}),
		served("other bytes where a stream broke", "does not have its digest", 0, func(s *scene, r *syncv1.FetchBundleRequest, stream fetched) error {
			m := &syncv1.FetchBundleResponse{Encoding: r.GetDigest(), Size: 2000, Offset: r.GetOffset(), Data: make([]byte, 1000)}
			if _, err := rand.Read(m.Data); err != nil {
				return err
			}
			return stream.Send(m) // and no more: the spoke asks for the rest
		}),
	)
}

// delta is sent as one on what the spoke offers first, and as the whole when it asks for that.
func delta(data func(s *scene) []byte) func(*scene, *syncv1.FetchBundleRequest, fetched) error {
	var offered atomic.Bool
	return func(s *scene, r *syncv1.FetchBundleRequest, stream fetched) error {
		d := data(s)
		m := &syncv1.FetchBundleResponse{Encoding: string(bundle.DigestOf(d)), Size: uint64(len(d)), Data: d}
		if have := r.GetHave(); len(have) > 0 {
			m.Base = have[0]
			offered.Store(true)
		} else if !offered.Load() {
			s.t.Error("the spoke offers no bundle to patch")
		}
		return stream.Send(m)
	}
}

// backwards are about what ran before.
func backwards() []attack {
	withdrawn := func(kind syncv1.WithdrawalKind, to func(s *scene) string) func(s *scene) {
		return func(s *scene) {
			running := s.hub.Last().GetRunningVersion()
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) {
				d.Withdrawals = []*syncv1.Withdrawal{{Version: running, Kind: kind, Reason: "it is bad", To: to(s)}}
			}))
		}
	}
	before := func(s *scene) string { return s.offers[len(s.offers)-2].GetVersion() }
	return []attack{
		{"a recall to an older release", func(s *scene) string {
			withdrawn(syncv1.WithdrawalKind_WITHDRAWAL_KIND_RECALLED, before)(s)
			return "is the hub's word alone"
		}},
		{"its approval in the provider's name", func(s *scene) string {
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) {
				d.Withdrawals = []*syncv1.Withdrawal{{Version: s.hub.Last().GetRunningVersion(), To: before(s)}}
				d.Decisions = []*syncv1.HubDecision{{Version: before(s), Approved: true, Author: "the provider", At: wire.Time(time.Now())}}
			}))
			return ""
		}},
		{"an undone rollout to an older release", func(s *scene) string {
			withdrawn(syncv1.WithdrawalKind_WITHDRAWAL_KIND_ROLLED_BACK, before)(s)
			return "" // it is asked already
		}},
		{"a recall to what nobody signed", func(s *scene) string {
			r := evilhub.Recipe{Version: "1.0.1", Key: &s.thief}
			r.Files = evilhub.Evil(r.Version)
			_, o := s.pack(r)
			running := s.hub.Last().GetRunningVersion()
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) {
				d.Withdrawals = []*syncv1.Withdrawal{{Version: running, To: "1.0.1"}}
			}, o))
			return "1.0.1"
		}},
		{"a pin to an older release", func(s *scene) string {
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) { d.Pin = &syncv1.HubPin{Version: before(s), Author: "the provider"} }))
			return "only a pin or a rollback of your own goes there"
		}},
		{"a pin to what is not there", func(s *scene) string {
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) { d.Pin = &syncv1.HubPin{Version: "9.9.9"} }))
			return "is not on offer"
		}},
		{"old releases only", func(s *scene) string {
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) { d.Offers = d.Offers[:1] }))
			return ""
		}},
		{"nothing at all", func(s *scene) string {
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) { d.Offers = nil }))
			return ""
		}},
		{"what runs, with other content that the vendor has signed", func(s *scene) string {
			running := s.hub.Last().GetRunningVersion()
			r := evilhub.Recipe{Version: running, Key: &s.vendor}
			r.Files = evilhub.Evil(running)
			_, o := s.pack(r)
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) { d.Offers[len(d.Offers)-1] = o }))
			return "TagMoved: " + running
		}},
		{"an older release with other content", func(s *scene) string {
			r := evilhub.Recipe{Version: before(s), Key: &s.vendor}
			r.Files = evilhub.Evil(r.Version)
			_, o := s.pack(r)
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) { d.Offers[len(d.Offers)-2] = o }))
			return "TagMoved: " + r.Version
		}},
	}
}

// statements are about what the vendor has said.
func statements() []attack {
	stated := func(name, want string, raw func(s *scene) []byte) attack {
		return attack{name, func(s *scene) string {
			s.hub.Want(s.desired(func(d *syncv1.DistributionOffers) { d.Channel = raw(s) }))
			return want
		}}
	}
	signed := func(s *scene, key evilhub.Key, st channel.Statement) []byte {
		one := must[channel.Signed](s.t)(channel.New(st))
		one = must[channel.Signed](s.t)(one.Sign(func(text []byte) ([]byte, error) { return signer.SignSSH(text, key.Signer, signer.Channel) }))
		return one.Bytes()
	}
	now := time.Now()
	recall := func(s *scene, distribution string) channel.Statement {
		return channel.Statement{Distribution: distribution, Sequence: 1, Latest: "1.0.0", Recalled: []string{s.hub.Last().GetRunningVersion()}, Issued: now.Add(-time.Minute), Expires: now.Add(time.Hour)}
	}
	return []attack{
		stated("a statement of a stranger's", "is not the vendor's", func(s *scene) []byte { return signed(s, s.thief, recall(s, "shop")) }),
		stated("a statement about another distribution", "is not the vendor's", func(s *scene) []byte { return signed(s, s.vendor, recall(s, "web")) }),
		stated("noise for a statement", "is not the vendor's", func(*scene) []byte { return []byte("trust me\n\n") }),
		stated("an altered statement", "is not the vendor's", func(s *scene) []byte {
			return bytes.Replace(signed(s, s.vendor, channel.Statement{Distribution: "shop", Sequence: 1, Latest: "1.0.0", Issued: now.Add(-time.Minute), Expires: now.Add(time.Hour)}),
				[]byte("latest 1.0.0\n"), []byte("latest 1.0.1\n"), 1)
		}),
		stated("a statement that has run out", "Frozen since", func(s *scene) []byte {
			return signed(s, s.vendor, channel.Statement{Distribution: "shop", Sequence: 1, Latest: "1.0.0", Issued: now.Add(-time.Hour), Expires: now.Add(-time.Minute)})
		}),
	}
}

// widenings are about more than what was subscribed to.
func widenings() []attack {
	evil := func(s *scene) *syncv1.Offer {
		r := evilhub.Recipe{Version: s.next(), Key: &s.thief}
		r.Files = evilhub.Evil(r.Version)
		_, o := s.pack(r)
		return o
	}
	wants := func(name, want string, state func(s *scene) *syncv1.DesiredState) attack {
		return attack{name, func(s *scene) string {
			s.hub.Want(state(s))
			return want
		}}
	}
	edited := func(name, want string, edit func(s *scene, o *syncv1.Offer)) attack {
		return wants(name, want, func(s *scene) *syncv1.DesiredState {
			o := evil(s)
			edit(s, o)
			return s.desired(nil, o)
		})
	}
	return []attack{
		wants("a distribution that nobody subscribed to", "", func(s *scene) *syncv1.DesiredState {
			d := s.desired(nil)
			d.Distributions = append(d.Distributions, &syncv1.DistributionOffers{Distribution: "evil", Url: "https://evil.example.com", Path: "dist", Offers: []*syncv1.Offer{evil(s)}})
			return d
		}),
		wants("the distribution twice", "", func(s *scene) *syncv1.DesiredState {
			d := s.desired(nil)
			d.Distributions = append(d.Distributions, &syncv1.DistributionOffers{Distribution: "shop", Url: "https://evil.example.com", Path: "dist", Offers: []*syncv1.Offer{evil(s)}})
			return d
		}),
		wants("another repository and path", "", func(s *scene) *syncv1.DesiredState {
			return s.desired(func(d *syncv1.DistributionOffers) { d.Url, d.Path = "file:///etc", "../../.." })
		}),
		edited("to be tried out only", "Breaks", func(_ *scene, o *syncv1.Offer) { o.Preflight = true }),
		edited("a version that is a path", "", func(_ *scene, o *syncv1.Offer) { o.Version = "../../../../etc/cron.d/evil" }),
		edited("no version", "", func(_ *scene, o *syncv1.Offer) { o.Version = "" }),
		edited("a version that clears the screen", "", func(_ *scene, o *syncv1.Offer) { o.Version = "\x1b[2J9.9.9" }),
		edited("a version of a million digits", "", func(_ *scene, o *syncv1.Offer) { o.Version = "9" + strings.Repeat("0", 1_000_000) + ".0.0" }),
		edited("a digest that is a path", "", func(_ *scene, o *syncv1.Offer) { o.Digest = "sha256:../../../../../../etc/passwd" }),
		edited("no digest", "", func(_ *scene, o *syncv1.Offer) { o.Digest = "" }),
		edited("a size that is none", "", func(_ *scene, o *syncv1.Offer) { o.Size = 1 << 63 }),
		edited("stops that go around", "", func(_ *scene, o *syncv1.Offer) { o.Stops = []string{o.Version, "9.9.9", "1.0.0", o.Version} }),
		edited("a variant that is a path", "", func(_ *scene, o *syncv1.Offer) { o.Variants = []string{"../../..", "", "app"} }),
		wants("twenty forged releases at once", "not among the signers", func(s *scene) *syncv1.DesiredState {
			var all []*syncv1.Offer
			for range 20 {
				all = append(all, evil(s))
			}
			return s.desired(nil, all...)
		}),
		wants("an order that nobody signed", "", func(s *scene) *syncv1.DesiredState {
			return s.desired(func(d *syncv1.DistributionOffers) {
				d.Orders = []*syncv1.SignedOrder{{Text: []byte("roll-back"), Signature: []byte("trust me")}}
			})
		}),
	}
}

// protocols are about the stream itself.
func protocols() []attack {
	said := func(name string, messages func(s *scene) []*syncv1.ConnectResponse) attack {
		return attack{name, func(s *scene) string {
			for _, m := range messages(s) {
				s.hub.Say(m)
			}
			return ""
		}}
	}
	greeted := func(name string, greeting func(w *syncv1.Welcome) []*syncv1.ConnectResponse) attack {
		return attack{name, func(s *scene) string {
			s.hub.Behave(evilhub.Script{Welcome: greeting})
			s.hub.Say(nil)
			s.ran("the spoke to come again")
			s.hub.Behave(evilhub.Script{})
			s.hub.Say(nil)
			return ""
		}}
	}
	// A hub that asks without end gets one renewal, tried again until it is one.
	renewed := attack{"renewals without end, that are none", func(s *scene) string {
		key := must[*ecdsa.PrivateKey](s.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		anothers := must[[]byte](s.t)(s.hub.Issue(&key.PublicKey, x509.ExtKeyUsageClientAuth))
		answers := []*syncv1.RenewResponse{{}, {Certificate: anothers, Authorities: s.hub.Authorities()}, {Certificate: []byte("certificate")}}
		var asked atomic.Int32
		s.hub.Behave(evilhub.Script{Renew: func(*syncv1.RenewRequest) (*syncv1.RenewResponse, error) {
			return answers[min(int(asked.Add(1)), len(answers))-1], nil
		}})
		s.cluster.Eventually(s.t, "the spoke to renew its certificate", func() error {
			for range 100 {
				s.hub.Say(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Renewal{Renewal: &syncv1.Renewal{}}})
			}
			if n := asked.Load(); int(n) < len(answers) {
				return fmt.Errorf("it asked %d times", n)
			}
			return nil
		})
		hellos := s.hub.Hellos()
		s.hub.Behave(evilhub.Script{})
		s.cluster.Eventually(s.t, "the spoke to come with its next certificate", func() error {
			if s.hub.Hellos() == hellos {
				return fmt.Errorf("it has not")
			}
			return nil
		})
		return ""
	}}
	welcome := func(w *syncv1.Welcome) *syncv1.ConnectResponse {
		return &syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Welcome{Welcome: w}}
	}
	return []attack{
		greeted("the welcome of another cluster", func(w *syncv1.Welcome) []*syncv1.ConnectResponse {
			w.Cluster = "globex/us-1"
			return []*syncv1.ConnectResponse{welcome(w)}
		}),
		greeted("no welcome", func(*syncv1.Welcome) []*syncv1.ConnectResponse {
			return []*syncv1.ConnectResponse{evilhub.Desired(&syncv1.DesiredState{Revision: 7})}
		}),
		greeted("two welcomes", func(w *syncv1.Welcome) []*syncv1.ConnectResponse {
			return []*syncv1.ConnectResponse{welcome(w), welcome(w)}
		}),
		greeted("a pulse of a century", func(w *syncv1.Welcome) []*syncv1.ConnectResponse {
			w.HeartbeatSeconds = 1<<32 - 1
			return []*syncv1.ConnectResponse{welcome(w)}
		}),
		greeted("an acknowledgement of the future", func(w *syncv1.Welcome) []*syncv1.ConnectResponse {
			w.AckedSeq = 1 << 62
			return []*syncv1.ConnectResponse{welcome(w)}
		}),
		renewed,
		said("an acknowledgement of what was not said", func(*scene) []*syncv1.ConnectResponse {
			return []*syncv1.ConnectResponse{{Body: &syncv1.ConnectResponse_Ack{Ack: &syncv1.Ack{Seq: 1 << 62}}}}
		}),
		said("an empty message", func(*scene) []*syncv1.ConnectResponse { return []*syncv1.ConnectResponse{{}} }),
		said("a welcome in the middle", func(*scene) []*syncv1.ConnectResponse {
			return []*syncv1.ConnectResponse{welcome(&syncv1.Welcome{Cluster: "globex/us-1"})}
		}),
		said("a thousand states", func(s *scene) (all []*syncv1.ConnectResponse) {
			for n := range 1000 {
				d := s.desired(func(d *syncv1.DistributionOffers) { d.Pin = &syncv1.HubPin{Version: fmt.Sprintf("9.%d.0", n)} })
				all = append(all, evilhub.Desired(d))
			}
			return all
		}),
		said("a message of three megabytes", func(s *scene) []*syncv1.ConnectResponse {
			d := s.desired(func(d *syncv1.DistributionOffers) {
				d.Withdrawals = []*syncv1.Withdrawal{{Version: "0.0.1", Reason: strings.Repeat("evil ", 600_000)}}
			})
			return []*syncv1.ConnectResponse{evilhub.Desired(d)}
		}),
	}
}

// moves are about taking the spoke to another hub.
func moves() []attack {
	moved := func(name, want string, spoil func(s *scene, text []byte, sign func(...evilhub.Key) []byte) []byte) attack {
		return attack{name, func(s *scene) string {
			authority := must[token.Token](s.t)(token.Parse(s.hub.Token()))
			now := time.Now().UTC().Truncate(time.Second)
			text := must[[]byte](s.t)(rehome.Statement{Cluster: evilhub.Cluster, From: authority.Pin, To: "127.0.0.1:1", Token: token.New(strings.Repeat("0f", 32)), Nonce: [16]byte{1},
				Issued: now, Expires: now.Add(time.Hour), Reason: "trust me"}.Text())
			sign := func(keys ...evilhub.Key) []byte {
				f := must[rehome.Signed](s.t)(rehome.ParseSigned(text))
				for _, k := range keys {
					f = must[rehome.Signed](s.t)(f.Sign(must[[]byte](s.t)(signer.SignSSH(text, k.Signer, rehome.Namespace))))
				}
				return f.Bytes()
			}
			m := &syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_ReHome{ReHome: &syncv1.SignedReHome{Signed: spoil(s, text, sign)}}}
			var last time.Time
			err := s.cluster.Wait(fmt.Sprintf("the spoke to say %q", want), func() error {
				if time.Since(last) > 5*time.Second { // it may be between two streams
					s.hub.Say(m)
					last = time.Now()
				}
				return s.heard(want)
			})
			if err != nil {
				s.t.Errorf("%s: %v", name, err)
			}
			if text := must[[]byte](s.t)(os.ReadFile(filepath.Join(s.spoke.Dir, "identity.json"))); !bytes.Contains(text, []byte(s.hub.Addr)) {
				s.t.Errorf("%s: the spoke is another hub's: %s", name, text)
			}
			if _, err := os.Lstat(filepath.Join(s.spoke.Dir, "identity.next.json")); err == nil {
				s.t.Errorf("%s: the spoke has joined another hub", name)
			}
			return ""
		}}
	}
	return []attack{
		moved("an invented re-home", "not a re-home", func(*scene, []byte, func(...evilhub.Key) []byte) []byte { return []byte("come to me") }),
		moved("a re-home that nobody signed", "none of the operators", func(_ *scene, text []byte, _ func(...evilhub.Key) []byte) []byte { return text }),
		moved("a re-home of strangers", "not among the signers", func(s *scene, _ []byte, sign func(...evilhub.Key) []byte) []byte { return sign(s.thief, s.old) }),
		moved("a re-home of the vendor alone", "none of the operators", func(s *scene, _ []byte, sign func(...evilhub.Key) []byte) []byte { return sign(s.vendor, s.thief) }),
		moved("a re-home of the provider alone", "for the vendor: ", func(s *scene, _ []byte, sign func(...evilhub.Key) []byte) []byte { return sign(s.maria, s.maria) }),
		moved("a re-home to another address than was signed", "is not what is here", func(s *scene, _ []byte, sign func(...evilhub.Key) []byte) []byte {
			return replace("to: 127.0.0.1:1", "to: 127.0.0.1:2")(sign(s.vendor, s.maria))
		}),
		moved("a re-home with another token than was signed", "is not what is here", func(s *scene, _ []byte, sign func(...evilhub.Key) []byte) []byte {
			return otherToken(sign(s.vendor, s.maria))
		}),
	}
}

// otherToken puts another token in the place of the one that was signed.
func otherToken(signed []byte) []byte {
	before, rest, _ := bytes.Cut(signed, []byte("token: "))
	_, after, _ := bytes.Cut(rest, []byte("\n"))
	return slices.Concat(before, fmt.Appendf(nil, "token: %s\n", token.New(strings.Repeat("0f", 32))), after)
}
