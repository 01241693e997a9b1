package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// operators gives the stage's provider a list with one operator, who may order these verbs, and returns the
// operator's key.
func (s *stage) operators(verbs ...order.Verb) ssh.Signer {
	s.t.Helper()
	key, line := sshKey(s.t, "maria@vendor.example")
	file := filepath.Join(s.dir, "operators.keys")
	if err := os.WriteFile(file, []byte(strings.Replace(line, "git,", order.Namespace+",", 1)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.sub.Operators = verify.Operators{Cluster: "acme/eu-1", Files: []string{file}, Allow: []verify.Grant{{Principal: "maria@vendor.example", Verbs: verbs}}}
	if err := s.sub.Operators.Check(); err != nil {
		s.t.Fatal(err)
	}
	return key
}

// orderOf is an order of now that is good but for what the test changes.
func orderOf(verb order.Verb, target, running string) order.Order {
	now := time.Now().Truncate(time.Second)
	return order.Order{Verb: verb, Cluster: "acme/eu-1", Distribution: "shop", Target: target, Running: running, Nonce: order.NewNonce(),
		Issued: now, Expires: now.Add(10 * time.Minute), Reason: "latency"}
}

// signedBy is an order as the hub hands it over.
func signedBy(t *testing.T, key ssh.Signer, o order.Order, namespace string) *syncv1.SignedOrder {
	t.Helper()
	text, err := o.Text()
	if err != nil {
		t.Fatal(err)
	}
	sig, err := signer.SignSSH(text, key, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return &syncv1.SignedOrder{Text: text, Signature: sig}
}

// hand has the hub hand over orders beside its offer.
func (s *stage) hand(orders ...*syncv1.SignedOrder) {
	s.t.Helper()
	s.hear(func(d *syncv1.DistributionOffers) { d.Orders = orders })
}

// answer waits for what the spoke answers to an order.
func (s *stage) answer(o order.Order, accepted bool, text string) {
	s.t.Helper()
	s.cluster.Eventually(s.t, fmt.Sprintf("the answer %v to order %s that says %q", accepted, o.Nonce, text), func() error {
		all, err := s.journal.Pending(0, 0)
		if err != nil {
			return err
		}
		var got []string
		for _, e := range all {
			if e.Order != nil && e.Order.Nonce == o.Nonce.String() {
				if e.Order.Accepted == accepted && strings.Contains(e.Message, text) {
					return nil
				}
				got = append(got, fmt.Sprint(e.Order.Accepted, " ", e.Message))
			}
		}
		return fmt.Errorf("answers are %q", got)
	})
}

// An order that an operator signed does what the provider's own command would, once, whatever the hub makes of it.
func TestASignedOrderRollsBackOnce(t *testing.T) {
	s := newStage(t)
	key := s.operators(order.RollBack, order.Force)
	stop := s.installed("1.0.0", "a")
	defer func() { stop() }()
	s.upgraded(t, "1.1.0", "b")

	back := orderOf(order.RollBack, "1.0.0", "1.1.0")
	given := signedBy(t, key, back, order.Namespace)
	s.hand(given)
	i := s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0", "a")
	if !strings.Contains(i.Reason, "ordered by maria@vendor.example: latency") {
		t.Errorf("who ordered it is not said: %s", i.Reason)
	}
	s.answer(back, true, "ordered by maria@vendor.example (SHA256:")

	// The same operator has it taken up again; then the hub sends the first order once more, and after a restart.
	again := orderOf(order.Force, "1.1.0", "1.0.0")
	s.hand(given, signedBy(t, key, again, order.Namespace))
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.answer(again, true, "force")
	stop = s.restart(t, stop, func() {})
	s.hand(given)
	s.answer(back, true, "answered before: rollback")
	altered := back
	altered.Reason = "again"
	s.hand(given, signedBy(t, key, altered, order.Namespace))
	s.answer(back, false, "its nonce was used before")
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeWhole("1.1.0", "b")
	if n := len(s.record().Orders); n != 2 {
		t.Errorf("%d orders are remembered, want 2", n)
	}
}

// What a hub can do with orders that it may not give. Each is refused by name, and nothing happens for it.
func TestAHubCannotOrder(t *testing.T) {
	s := newStage(t)
	key := s.operators(order.RollBack)
	thief, _ := sshKey(t, "maria@vendor.example")
	stop := s.installed("1.0.0", "a")
	defer func() { stop() }()
	s.upgraded(t, "1.1.0", "b")
	rollback := func(change func(*order.Order)) order.Order {
		o := orderOf(order.RollBack, "1.0.0", "1.1.0")
		change(&o)
		return o
	}
	plain := func(*order.Order) {}
	late := func(o *order.Order) { o.Issued, o.Expires = o.Issued.Add(-time.Hour), o.Issued.Add(-time.Minute) }
	for _, c := range []struct {
		name, want string
		make       func() (order.Order, *syncv1.SignedOrder)
	}{
		{"invented", "the key is not among the signers", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(plain)
			return o, signedBy(t, thief, o, order.Namespace)
		}},
		{"without a signature", "a signature that begins", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(plain)
			m := signedBy(t, key, o, order.Namespace)
			m.Signature = nil
			return o, m
		}},
		{"altered", "what is signed is not what is here", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(plain)
			m := signedBy(t, key, o, order.Namespace)
			o.Target = "0.9.0"
			m.Text, _ = o.Text()
			return o, m
		}},
		{"of a signature for git", `namespace "git"`, func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(plain)
			return o, signedBy(t, key, o, "git")
		}},
		{"for another cluster", "it is for acme/us-1, and this is acme/eu-1", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(func(o *order.Order) { o.Cluster = "acme/us-1" })
			return o, signedBy(t, key, o, order.Namespace)
		}},
		{"for another distribution", "it is about tools, and was sent for shop", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(func(o *order.Order) { o.Distribution = "tools" })
			return o, signedBy(t, key, o, order.Namespace)
		}},
		{"kept back until it expired", "it expired at", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(late)
			return o, signedBy(t, key, o, order.Namespace)
		}},
		{"from the future", "ahead of the clock here", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(func(o *order.Order) { o.Issued, o.Expires = o.Issued.Add(time.Hour), o.Expires.Add(time.Hour) })
			return o, signedBy(t, key, o, order.Namespace)
		}},
		{"from before the journal", "the spoke's journal was made at", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(func(o *order.Order) { o.Issued = o.Issued.Add(-12 * time.Hour) })
			return o, signedBy(t, key, o, order.Namespace)
		}},
		{"of another verb than is allowed", "order [rollback], not force", func() (order.Order, *syncv1.SignedOrder) {
			o := orderOf(order.Force, "1.0.0", "1.1.0")
			return o, signedBy(t, key, o, order.Namespace)
		}},
		{"for where another release runs", "where 1.2.0 runs, and 1.1.0 runs here", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(func(o *order.Order) { o.Running = "1.2.0" })
			return o, signedBy(t, key, o, order.Namespace)
		}},
		{"to what never ran", "kept are [1.0.0]", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(func(o *order.Order) { o.Target = "0.9.0" })
			return o, signedBy(t, key, o, order.Namespace)
		}},
		{"under a large signature", "bytes, at most 8192", func() (order.Order, *syncv1.SignedOrder) {
			o := rollback(plain)
			m := signedBy(t, key, o, order.Namespace)
			m.Signature = append(m.Signature, make([]byte, 2<<20)...)
			return o, m
		}},
	} {
		o, m := c.make()
		s.hand(m, m)
		s.answer(o, false, c.want)
		if i := s.now(); i.Phase != fleet.Succeeded || i.Running != "1.1.0" {
			t.Fatalf("an order %s: %s with %s running: %s", c.name, i.Phase, i.Running, i.Reason)
		}
	}
	for name, text := range map[string][]byte{"empty": nil, "large": make([]byte, 2<<20), "in another form": []byte("rollback shop\n")} {
		s.hand(&syncv1.SignedOrder{Text: text, Signature: []byte(name)})
		s.told(fleet.EventOrder, "not an order as pkg/order writes it")
	}
	// A release that is authentic and refused for what runs stays refused when that runs.
	early := rollback(func(o *order.Order) { o.Running = "1.2.0" })
	m := signedBy(t, key, early, order.Namespace)
	s.hand(m)
	s.answer(early, false, "where 1.2.0 runs")
	s.upgraded(t, "1.2.0", "c")
	stop = s.restart(t, stop, func() {})
	s.hand(m)
	s.answer(early, false, "answered before: rollback")
	s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")

	// Where spoke.yaml names nobody, nobody's orders count.
	stop = s.restart(t, stop, func() { s.sub.Operators = verify.Operators{} })
	o := orderOf(order.RollBack, "1.1.0", "1.2.0")
	s.hand(signedBy(t, key, o, order.Namespace))
	s.answer(o, false, "spoke.yaml names no operators")
	s.reaches(fleet.Succeeded, "1.2.0", "1.2.0")
	s.mustBeWhole("1.2.0", "c")
	events := s.events(fleet.EventOrder)
	counted := map[string]int{}
	for _, e := range events {
		if counted[e]++; counted[e] > 2 {
			t.Errorf("told %d times: %s", counted[e], e)
		}
	}
	t.Logf("FIGURE orders.refused %d orders of %d that a hub made, altered, moved, delayed or repeated", len(slices.Compact(events)), len(events))
}

// Deletions beyond the budget take an order of their own, and where there are operators, nobody's unsigned word.
func TestDeletionsBeyondTheBudgetTakeTheirOwnOrder(t *testing.T) {
	s := newStage(t)
	key := s.operators(order.Force, order.WidenPrune)
	s.sub.FromHub.Decisions = true
	s.sub.Policy.Minor = fleet.AskFirst
	defer s.installed("1.0.0", names...)()
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	s.says(fleet.AwaitingApproval, "1.0.0", "it deletes 10 of 12 objects")
	s.answered(true, time.Now(), s.now().PhaseSince)
	s.told(fleet.EventDeclined, "wants the signed order of one")

	force := orderOf(order.Force, "1.1.0", "1.0.0")
	s.hand(signedBy(t, key, force, order.Namespace))
	s.answer(force, true, "still asked: it deletes 10 of 12 objects")
	twice := orderOf(order.Force, "1.1.0", "1.0.0")
	s.hand(signedBy(t, key, twice, order.Namespace))
	s.answer(twice, false, "another question")
	s.reaches(fleet.AwaitingApproval, "1.1.0", "1.0.0")
	s.mustBeWhole("1.0.0", names...)

	widen := orderOf(order.WidenPrune, "1.1.0", "1.0.0")
	s.hand(signedBy(t, key, widen, order.Namespace))
	s.answer(widen, true, "widen-prune")
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
	s.mustBeWhole("1.1.0")
	s.hand(signedBy(t, key, orderOf(order.WidenPrune, "1.1.0", "1.1.0"), order.Namespace))
	s.told(fleet.EventOrder, "no deletion beyond the budget is asked about")
}

// What was asked about a release before it was rejected is not answered by having it taken up again.
func TestTakingUpAgainDoesNotAnswerForDeletions(t *testing.T) {
	s := newStage(t)
	key := s.operators(order.Force)
	defer s.installed("1.0.0", names...)()
	s.vendor.release(t, "1.1.0", app("1.1.0", good))
	s.offer()
	s.says(fleet.AwaitingApproval, "1.0.0", "it deletes 10 of 12 objects")
	if _, err := s.agent.Reject(t.Context(), "shop", "", "no"); err != nil {
		t.Fatal(err)
	}
	s.reaches(fleet.Refused, "1.1.0", "1.0.0")
	force := orderOf(order.Force, "1.1.0", "1.0.0")
	s.hand(signedBy(t, key, force, order.Namespace))
	s.answer(force, true, "force")
	s.says(fleet.AwaitingApproval, "1.0.0", "it deletes 10 of 12 objects")
	s.mustBeWhole("1.0.0", names...)
}

// Tests that came to no verdict are run again by order, and count.
func TestAnOrderRunsTestsAgain(t *testing.T) {
	s := newStage(t)
	key := s.operators(order.RunConformance)
	defer s.firstOf("pass")()
	early := orderOf(order.RunConformance, "1.0.0", "1.0.0")
	s.hand(signedBy(t, key, early, order.Namespace))
	s.answer(early, false, "does not wait for a verdict of its tests")
	s.mode("unsure")
	s.second()
	s.says(fleet.AwaitingApproval, "1.0.0", "Inconclusive(")
	s.mode("pass")
	again := orderOf(order.RunConformance, "1.1.0", "1.0.0")
	s.hand(signedBy(t, key, again, order.Namespace))
	s.answer(again, true, "run-conformance")
	s.reaches(fleet.Succeeded, "1.1.0", "1.1.0")
}

// A file of keys that cannot be read says nothing about an order: it waits until its provider mended that.
func TestAnOrderWaitsForTheProvidersKeys(t *testing.T) {
	s := newStage(t)
	key := s.operators(order.RollBack)
	defer s.installed("1.0.0", "a")()
	s.upgraded(t, "1.1.0", "b")
	file := s.sub.Operators.Files[0]
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, file)
	back := orderOf(order.RollBack, "1.0.0", "1.1.0")
	s.hand(signedBy(t, key, back, order.Namespace))
	s.told(fleet.EventAgent, "an operator's order waits: read operators' keys")
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	s.answer(back, true, "rollback")
	s.reaches(fleet.RolledBack, "1.1.0", "1.0.0")
}
