// Package move takes a spoke from one hub to another, where its vendor and its provider have both signed that they
// want it: it judges a statement by the provider's own files, joins the new hub beside the old one, waits until that
// has let the spoke in, and then puts the new identity in the place of the old one. The hub that is left only carries
// the statement. What runs on the cluster is nothing to it.
//
// Each step is in the journal before it is made, so that a killed spoke belongs to the old hub or to the new one, and
// goes on where it was.
package move

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/hubclient"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// memory is the part of the journal about moves. PutReHome is durable when it returns.
type memory interface {
	PutReHome(*journal.ReHome, ...fleet.Event) error
	ReHome() (journal.ReHome, error)
	Pends(seq uint64) (bool, error)
	Created() time.Time // of what was before, the journal knows nothing
}

// hub is the spoke's end of the wire; hubclient.Client is one.
type hub interface {
	Connected() bool
	JoinNext(ctx context.Context, addr string, t token.Token, cluster fleet.Cluster) (hubclient.Identity, error)
	GreetNext(ctx context.Context) error
	TakeNext(from string) error
}

// Config is what a Mover works with; all is required.
type Config struct {
	Dir     string // data folder with the identities
	Journal memory
	Hub     hub
	// Trusted are whose signatures count, by spoke.yaml as it is now.
	Trusted func() (verify.Operators, []verify.Signers)
	Redact  func(string) string // takes values out of what the hub is told
	Log     *slog.Logger
}

// tellWait is how long a spoke that goes waits for the hub that it leaves to hear of it.
const tellWait = 10 * time.Second

// State is a move that is under way.
type State struct {
	To      string // HOST:PORT
	Expires time.Time
	Waits   string // what for, one line; empty: nothing was heard yet
	Key     string // fingerprint of the key for the new hub; empty: it has not joined there yet
	Pending bool   // the vendor has to accept that key
}

// Mover moves one spoke.
type Mover struct {
	cfg   Config
	box   chan []byte // the newest statement that was not judged yet
	state atomic.Pointer[State]

	// Run's alone.
	rec     journal.ReHome
	attempt int
	next    time.Time // when the next step is due
}

// New starts nothing.
func New(c Config) *Mover { return &Mover{cfg: c, box: make(chan []byte, 1)} }

// State is the move that is under way; nil: none.
func (m *Mover) State() *State { return m.state.Load() }

// Take has a statement judged. It does not wait; one that was not judged yet makes way.
func (m *Mover) Take(signed []byte) {
	for {
		select {
		case m.box <- signed:
			return
		default:
		}
		select {
		case <-m.box:
		default:
		}
	}
}

// Run goes on with the move that is in the journal, and makes those that Take is handed, until ctx ends; then it
// returns nil. Its errors are the journal's.
func (m *Mover) Run(ctx context.Context) (err error) {
	if m.rec, err = m.cfg.Journal.ReHome(); err != nil {
		return err
	}
	if !m.rec.UnderWay() { // a spoke that was killed as it gave up
		if err := hubclient.DropNext(m.cfg.Dir); err != nil {
			m.cfg.Log.Warn("an identity that is not needed any more is still there", logging.Error, err)
		}
	}
	for err == nil {
		var next <-chan time.Time
		if m.rec.UnderWay() {
			next = time.After(time.Until(m.next))
		}
		select {
		case <-ctx.Done():
			return nil
		case signed := <-m.box:
			err = m.judge(signed)
		case <-next:
			err = m.step(ctx)
		}
	}
	return err
}

// judge takes a statement, or refuses it. What is refused is forgotten: its provider may mend spoke.yaml.
func (m *Mover) judge(signed []byte) error {
	s, err := rehome.ParseSigned(signed)
	if err != nil {
		m.cfg.Log.Warn("a re-home is refused", logging.Error, err)
		rec := m.rec
		return m.cfg.Journal.PutReHome(&rec, fleet.Event{At: time.Now(), Kind: fleet.EventAgent, Message: m.cfg.Redact("a re-home is refused: " + err.Error())})
	}
	if m.rec.UnderWay() && m.rec.Nonce == s.Nonce.String() {
		return nil // handed over again: the answer is on its way
	}
	id, err := hubclient.LoadIdentity(m.cfg.Dir)
	var d verify.ReHomed
	if err == nil {
		operators, vendor := m.cfg.Trusted()
		d, err = verify.ReHome(s, operators, vendor, id.Pins(), time.Now())
	}
	if err == nil {
		err = m.due(s)
	}
	if err != nil {
		m.cfg.Log.Warn("a re-home is refused", logging.Address, s.To, logging.Reason, err.Error())
		rec := m.rec
		return m.cfg.Journal.PutReHome(&rec, m.event(s.Nonce.String(), fleet.ReHomeRefused, err.Error()))
	}
	m.cfg.Log.Warn("the spoke moves to another hub: what runs stays as it is", logging.Address, s.To, "by", d.By(), logging.Reason, s.Reason)
	rec := journal.ReHome{Nonce: s.Nonce.String(), Issued: s.Issued, State: fleet.ReHomeMoving, From: id.Addr, Signed: signed}
	rec.Taken = slices.DeleteFunc(slices.Clone(m.rec.Taken), func(t journal.Taken) bool { return !time.Now().Before(t.Until) })
	rec.Taken = append(rec.Taken, journal.Taken{Nonce: rec.Nonce, Until: s.Expires})
	if err := m.cfg.Journal.PutReHome(&rec, m.event(rec.Nonce, fleet.ReHomeMoving, fmt.Sprintf("to %s, wanted by %s: %s", s.To, d.By(), s.Reason))); err != nil {
		return err
	}
	m.rec, m.attempt, m.next = rec, 0, time.Now()
	m.state.Store(&State{To: s.To, Expires: s.Expires})
	return nil
}

// due says why a statement that is authentic is not for now.
func (m *Mover) due(s rehome.Signed) error {
	switch made := m.cfg.Journal.Created(); {
	case s.Issued.Before(made):
		return fmt.Errorf("the spoke's journal was made at %s, after it was issued, so that nobody knows whether it was taken: prepare another", made.Format(time.RFC3339))
	case slices.ContainsFunc(m.rec.Taken, func(t journal.Taken) bool { return t.Nonce == s.Nonce.String() }):
		return errors.New("it was taken before: prepare another")
	case s.Issued.Before(m.rec.Issued):
		return fmt.Errorf("one that was issued at %s was taken before, and this one is older: prepare another", m.rec.Issued.UTC().Format(time.RFC3339))
	}
	return nil
}

func (m *Mover) event(nonce string, state fleet.ReHomeState, text string) fleet.Event {
	return fleet.Event{At: time.Now(), Kind: fleet.EventIdentity, Message: m.cfg.Redact(text), ReHome: &fleet.ReHomeAnswer{Nonce: nonce, State: state}}
}

// step does what comes next. Its errors are the journal's.
func (m *Mover) step(ctx context.Context) error {
	s, err := rehome.ParseSigned(m.rec.Signed)
	if err != nil {
		return m.giveUp("the journal's copy of it: " + err.Error())
	}
	was := m.state.Load()
	if was == nil { // after a restart
		was = &State{To: s.To, Expires: s.Expires}
	}
	now := *was
	defer func() {
		if m.rec.UnderWay() {
			m.state.Store(&now)
		} else {
			m.state.Store(nil)
		}
	}()
	id, err := hubclient.LoadIdentity(m.cfg.Dir)
	switch {
	case err == nil && id.Addr == s.To && slices.Contains(id.Pins(), s.Token.Pin):
		return m.arrived(s)
	case err == nil && !slices.Contains(id.Pins(), s.From):
		return m.giveUp(hubclient.ErrOtherHub.Error())
	case s.Fresh(time.Now()) != nil:
		why := "the statement has expired"
		if now.Waits != "" {
			why += "; last: " + now.Waits
		}
		return m.giveUp(why)
	case err != nil:
		m.later(&now, err)
		return nil
	}
	next, err := hubclient.LoadNext(m.cfg.Dir)
	if err != nil || next.Addr != s.To || !slices.Contains(next.Pins(), s.Token.Pin) { // none, or of a re-home that this one replaced
		return m.join(ctx, s, &now)
	}
	now.Key = next.Fingerprint()
	return m.greet(ctx, s, &now)
}

// later has the step tried again, and says why.
func (m *Mover) later(now *State, err error) {
	m.next = time.Now().Add(hubclient.Pause(err, m.attempt))
	m.attempt++
	if text := err.Error(); text != now.Waits {
		now.Waits = text
		m.cfg.Log.Info("the move to another hub waits", logging.Address, now.To, logging.Reason, text)
	}
}

// join makes the identity at the new hub.
func (m *Mover) join(ctx context.Context, s rehome.Signed, now *State) error {
	tried := m.rec.Tried
	if !tried { // before the token can be spent
		m.rec.Tried = true
		if err := m.cfg.Journal.PutReHome(&m.rec); err != nil {
			return err
		}
	}
	next, err := m.cfg.Hub.JoinNext(ctx, s.To, s.Token, s.Cluster)
	switch {
	case ctx.Err() != nil && err != nil:
		return nil
	case errors.Is(err, hubclient.ErrTokenRefused) && tried:
		return m.giveUp(fmt.Sprintf("%v; if it is used, the answer to this spoke was lost on the way, or somebody else has used it: `hub cluster reject %s` at the new hub, and prepare another", err, s.Cluster))
	case errors.Is(err, hubclient.ErrTokenRefused):
		return m.giveUp(fmt.Sprintf("%v; if it is used, that was somebody else, such as the hub that carried it: `hub cluster reject %s` at the new hub, and prepare another", err, s.Cluster))
	case errors.Is(err, hubclient.ErrOtherCluster):
		return m.giveUp(err.Error())
	case err != nil:
		m.later(now, err)
		return nil
	}
	m.cfg.Log.Info("joined the new hub", logging.Address, s.To, "key", next.Fingerprint())
	now.Key, now.Pending, m.attempt, m.next = next.Fingerprint(), next.Pending, 0, time.Now()
	// Without the fingerprint: the hub that carries this may be the one that it is compared in spite of.
	return m.cfg.Journal.PutReHome(&m.rec, m.event(m.rec.Nonce, fleet.ReHomeMoving, fmt.Sprintf("joined %s, and goes over once that has let it in", s.To)))
}

// greet asks the new hub whether it has let the spoke in, and goes over where it has.
func (m *Mover) greet(ctx context.Context, s rehome.Signed, now *State) error {
	err := m.cfg.Hub.GreetNext(ctx)
	now.Pending = errors.Is(err, hubclient.ErrPending)
	switch {
	case ctx.Err() != nil && err != nil:
		return nil
	case errors.Is(err, hubclient.ErrTurnedAway):
		return m.giveUp(err.Error())
	case err != nil:
		m.later(now, err)
		return nil
	}
	if m.rec.Left == 0 {
		text := fmt.Sprintf("to %s, which has let it in; `hub cluster remove %s` forgets it here", s.To, s.Cluster)
		if err := m.cfg.Journal.PutReHome(&m.rec, m.event(m.rec.Nonce, fleet.ReHomeMoved, text)); err != nil {
			return err
		}
	}
	if err := m.tell(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	switch err := m.cfg.Hub.TakeNext(s.From); {
	case errors.Is(err, hubclient.ErrOtherHub):
		return m.giveUp(err.Error())
	case err != nil:
		m.later(now, err)
		return nil
	}
	return m.arrived(s)
}

// tell waits until the hub that is left has heard of it, if it listens.
func (m *Mover) tell(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tellWait)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for m.cfg.Hub.Connected() {
		pends, err := m.cfg.Journal.Pends(m.rec.Left)
		if err != nil || !pends {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
	return nil
}

// arrived tells the new hub.
func (m *Mover) arrived(s rehome.Signed) error {
	m.cfg.Log.Warn("the spoke has moved to another hub", logging.Address, s.To, "from", m.rec.From)
	return m.over(fleet.ReHomeMoved, "came from "+m.rec.From)
}

// giveUp stays with the hub that there is.
func (m *Mover) giveUp(why string) error {
	m.cfg.Log.Error("the spoke does not move to another hub, and stays where it is", logging.Reason, why)
	if err := m.over(fleet.ReHomeGivenUp, why); err != nil {
		return err
	}
	if err := hubclient.DropNext(m.cfg.Dir); err != nil {
		m.cfg.Log.Warn("an identity that is not needed any more is still there", logging.Error, err)
	}
	return nil
}

func (m *Mover) over(state fleet.ReHomeState, text string) error {
	m.rec.State, m.rec.Signed, m.rec.Tried = state, nil, false
	return m.cfg.Journal.PutReHome(&m.rec, m.event(m.rec.Nonce, state, text))
}
