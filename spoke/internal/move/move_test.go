package move

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/integration/evilhub"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/hubclient"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// stand is a spoke without a cluster, that belongs to a hub.
type stand struct {
	t             *testing.T
	dir           string
	old           *evilhub.Hub
	journal       *journal.Journal
	client        *hubclient.Client
	mover         *Mover
	vendor, maria ssh.Signer
	operators     verify.Operators
	signers       []verify.Signers
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{t: t, dir: t.TempDir(), old: newHub(t)}
	list := func(name string) (ssh.Signer, string) {
		_, private, err := ed25519.GenerateKey(nil)
		s.must(err)
		key, err := ssh.NewSignerFromKey(private)
		s.must(err)
		path := filepath.Join(s.dir, name)
		s.must(os.WriteFile(path, []byte(name+" "+string(ssh.MarshalAuthorizedKey(key.PublicKey()))), 0o600))
		return key, path
	}
	var vendors, operators string
	s.vendor, vendors = list("vendor")
	s.maria, operators = list("maria")
	s.signers = []verify.Signers{{Files: []string{vendors}}}
	s.operators = verify.Operators{Cluster: evilhub.Cluster, Files: []string{operators}, Allow: []verify.Grant{{Principal: "maria", ReHome: true}}}
	_, err := hubclient.Join(t.Context(), hubclient.JoinConfig{Addr: s.old.Addr, Token: s.old.Token(), Dir: s.dir, Log: slog.New(slog.DiscardHandler)})
	s.must(err)
	s.open()
	return s
}

func newHub(t *testing.T) *evilhub.Hub {
	t.Helper()
	h, err := evilhub.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Stop)
	return h
}

func (s *stand) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// open builds the parts, as a start of the spoke does; nothing runs yet.
func (s *stand) open() {
	s.t.Helper()
	var err error
	log := slog.New(slog.DiscardHandler)
	s.journal, err = journal.Open(filepath.Join(s.dir, journal.File), log)
	s.must(err)
	s.client, err = hubclient.New(hubclient.Config{Dir: s.dir, Events: s.journal, OnDesired: func(*syncv1.DesiredState) error { return nil },
		OnReHome: func(b []byte) { s.mover.Take(b) }, Hello: func() (*syncv1.Hello, error) { return &syncv1.Hello{JournalId: s.journal.ID()}, nil }, Log: log})
	s.must(err)
	s.mover = New(Config{Dir: s.dir, Journal: s.journal, Hub: s.client, Trusted: func() (verify.Operators, []verify.Signers) { return s.operators, s.signers },
		Redact: func(text string) string { return text }, Log: log})
}

// run starts what open has built, and returns what ends it; the journal is closed then.
func (s *stand) run() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 2)
	go func() { ended <- s.client.Run(ctx) }()
	go func() { ended <- s.mover.Run(ctx) }()
	stopped := false
	stop = func() {
		s.t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			s.must(<-ended)
		}
		s.must(s.journal.Close())
	}
	s.t.Cleanup(stop)
	return stop
}

func (s *stand) identity() hubclient.Identity {
	s.t.Helper()
	id, err := hubclient.LoadIdentity(s.dir)
	s.must(err)
	return id
}

// statement is one from the old hub to a hub with this token.
func (s *stand) statement(to, text string) rehome.Statement {
	s.t.Helper()
	tok, err := token.Parse(text)
	s.must(err)
	now := time.Now().UTC().Truncate(time.Second).Add(time.Second) // not older than the journal
	return rehome.Statement{Cluster: evilhub.Cluster, From: s.identity().Pins()[0], To: to, Token: tok, Nonce: order.NewNonce(), Issued: now, Expires: now.Add(time.Hour), Reason: "r"}
}

func (s *stand) signed(st rehome.Statement, by ...ssh.Signer) []byte {
	s.t.Helper()
	text, err := st.Text()
	s.must(err)
	f, err := rehome.ParseSigned(text)
	s.must(err)
	for _, key := range by {
		sig, err := signer.SignSSH(text, key, rehome.Namespace)
		s.must(err)
		f, err = f.Sign(sig)
		s.must(err)
	}
	return f.Bytes()
}

func (s *stand) eventually(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			s.t.Fatalf("not within 20s: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// hears waits until a hub was told something.
func (s *stand) hears(h *evilhub.Hub, text string) {
	s.t.Helper()
	s.eventually("the hub to hear "+text, func() bool {
		said, _ := h.Heard(0)
		return slices.ContainsFunc(said, func(m string) bool { return strings.Contains(m, text) })
	})
}

const dead = "127.0.0.1:1"

func elsewhere() string { return token.New(strings.Repeat("0f", 32)).String() }

func TestASpokeGoesOverOnceTheNewHubLetsItIn(t *testing.T) {
	s := newStand(t)
	next := newHub(t)
	s.run()
	before := s.identity()
	s.mover.Take(s.signed(s.statement(next.Addr, next.Token()), s.vendor, s.maria))
	s.eventually("the spoke to be at the new hub", func() bool { return s.identity().Addr == next.Addr && next.Hellos() > 1 && s.mover.State() == nil })
	s.hears(s.old, "to "+next.Addr+", wanted by maria")
	s.hears(s.old, "joined "+next.Addr)
	s.hears(s.old, "to "+next.Addr+", which has let it in") // before it left
	s.hears(next, "came from "+s.old.Addr)
	if id := s.identity(); id.Fingerprint() == before.Fingerprint() || id.Pins()[0] == before.Pins()[0] {
		t.Error("the new identity is the old one")
	}
	if _, err := os.Lstat(filepath.Join(s.dir, hubclient.NextFile)); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestAMoveThatWasTakenIsNotTakenAgain(t *testing.T) {
	s := newStand(t)
	stop := s.run()
	first := s.statement(dead, elsewhere())
	second := s.statement("127.0.0.1:2", elsewhere())
	second.Issued = first.Issued.Add(time.Second)
	take := func(st rehome.Statement, want string) {
		t.Helper()
		s.mover.Take(s.signed(st, s.vendor, s.maria))
		s.hears(s.old, want)
	}
	take(first, "to "+dead+", wanted by")
	s.eventually("it says why it waits", func() bool {
		now := s.mover.State()
		return now != nil && strings.Contains(now.Waits, "the hub can't be reached")
	})
	take(second, "to 127.0.0.1:2, wanted by")
	take(first, "it was taken before")
	older := s.statement(dead, elsewhere())
	older.Issued = first.Issued
	take(older, "this one is older")
	stop()

	// A restart forgets none of it, and goes on.
	s.open()
	s.run()
	s.eventually("it goes on", func() bool { now := s.mover.State(); return now != nil && now.To == "127.0.0.1:2" })
	_, mark := s.old.Heard(0)
	s.mover.Take(s.signed(first, s.vendor, s.maria))
	s.eventually("it is refused again", func() bool {
		said, _ := s.old.Heard(mark)
		return strings.Contains(strings.Join(said, "\n"), "it was taken before")
	})
	if id := s.identity(); id.Addr != s.old.Addr {
		t.Errorf("it is at %s", id.Addr)
	}
}

func TestWhatNotBothHaveSignedMovesNothing(t *testing.T) {
	s := newStand(t)
	next := newHub(t)
	s.run()
	good := s.statement(next.Addr, next.Token())
	other := good
	other.To = "eve.example.com:7443"
	late := good
	late.Issued = good.Issued.Add(-time.Hour)
	for want, signed := range map[string][]byte{
		"not a re-home as pkg/rehome writes it":   []byte("go"),
		"for the provider: none of the operators": s.signed(good),
		"for the vendor: ":                        s.signed(good, s.maria),
		"what is signed is not what is here":      []byte(strings.Replace(string(s.signed(good, s.maria, s.vendor)), "to: "+good.To, "to: "+other.To, 1)),
		"so that nobody knows whether it was":     s.signed(late, s.maria, s.vendor),
	} {
		s.mover.Take(signed)
		s.hears(s.old, want)
	}
	s.mover.Take(s.signed(good, s.vendor))
	s.mover.Take(s.signed(good, s.vendor, s.vendor))
	s.hears(s.old, "none of the operators")
	if s.mover.State() != nil || s.identity().Addr != s.old.Addr || next.Hellos() > 0 {
		t.Errorf("it moves: %+v", s.mover.State())
	}
	// What is refused is forgotten: with another signature it counts.
	s.mover.Take(s.signed(good, s.vendor, s.maria))
	s.eventually("the spoke to be at the new hub", func() bool { return s.identity().Addr == next.Addr })
}

func TestAnExpiredMoveIsGivenUp(t *testing.T) {
	s := newStand(t)
	s.run()
	st := s.statement(dead, elsewhere())
	st.Expires = st.Issued.Add(time.Second)
	s.mover.Take(s.signed(st, s.vendor, s.maria))
	s.hears(s.old, "the statement has expired; last: join "+dead)
	s.eventually("nothing is under way", func() bool { return s.mover.State() == nil })
	if r, err := s.journal.ReHome(); err != nil || r.State != fleet.ReHomeGivenUp || len(r.Signed) > 0 || s.identity().Addr != s.old.Addr {
		t.Errorf("got %+v, %v", r, err)
	}
}

// A kill between any two steps leaves the old identity or the new one, and the next start goes on.
func TestAKillLeavesTheSpokeWithOneHub(t *testing.T) {
	for name, until := range map[string]func(s *stand, st rehome.Statement){
		"before the token is sent": func(*stand, rehome.Statement) {},
		"with the new identity beside the old": func(s *stand, st rehome.Statement) {
			_, err := s.client.JoinNext(s.t.Context(), st.To, st.Token, st.Cluster)
			s.must(err)
		},
		"after the new identity took its place": func(s *stand, st rehome.Statement) {
			_, err := s.client.JoinNext(s.t.Context(), st.To, st.Token, st.Cluster)
			s.must(err)
			s.must(s.client.TakeNext(st.From))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t)
			next := newHub(t)
			st := s.statement(next.Addr, next.Token())
			s.must(s.mover.judge(s.signed(st, s.vendor, s.maria)))
			until(s, st)
			s.must(s.journal.Close())
			s.open()
			s.run()
			s.hears(next, "came from "+s.old.Addr)
			if r, err := s.journal.ReHome(); err != nil || r.State != fleet.ReHomeMoved || s.identity().Addr != next.Addr {
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}

func TestASpokeThatJoinedElsewhereDoesNotMove(t *testing.T) {
	s := newStand(t)
	third := newHub(t)
	st := s.statement(dead, elsewhere())
	s.must(s.mover.judge(s.signed(st, s.vendor, s.maria)))
	_, err := hubclient.Join(t.Context(), hubclient.JoinConfig{Addr: third.Addr, Token: third.Token(), Dir: s.dir, Force: true, Log: slog.New(slog.DiscardHandler)})
	s.must(err)
	s.run()
	s.hears(third, hubclient.ErrOtherHub.Error())
	if s.identity().Addr != third.Addr {
		t.Errorf("it is at %s", s.identity().Addr)
	}
	if err := s.client.TakeNext(st.From); err == nil {
		t.Error("an identity of another hub is replaced")
	}
}
