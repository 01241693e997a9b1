package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

const (
	// mostOrders are looked at of those that the hub hands over at a time.
	mostOrders = 16
	// mostAnswered are remembered; an order past them is refused, so that none is forgotten while it lives.
	mostAnswered = 1000
)

// replied are the signed orders that the hub hands over now and of which something was said since the spoke's start,
// by what they are and what was said.
type replied map[[sha256.Size]byte]string

// signedOrders takes what operators ordered under their own signatures. The hub hands an order over for as long as
// it has no answer to it, and each comes to one answer, whatever the hub does: that is in the journal beside what was
// done, in one transaction.
func (w *worker) signedOrders(ctx context.Context, in input) result {
	all := in.offers.GetOrders()
	if len(all) == 0 {
		w.replied = nil
		return result{}
	}
	if !w.resumed || !w.known && !w.asked {
		return result{after: w.intervals().RetryMin} // what runs is not known yet
	}
	said, late := replied{}, result{}
	for _, m := range all[:min(len(all), mostOrders)] {
		id := sha256.Sum256(slices.Concat(m.GetText(), []byte{0}, m.GetSignature()))
		text, err := w.orderedBy(ctx, in, m, w.replied[id])
		switch {
		case err != nil:
			return w.journalTrouble(err)
		case ctx.Err() != nil:
			return result{}
		case text == unreadable:
			late.after = w.intervals().RetryMax
		}
		said[id] = text
	}
	w.replied = said
	return late
}

// unreadable: the provider's own files cannot be read now, and the order waits for them.
const unreadable = "the operators' keys cannot be read"

// orderedBy judges one order, and carries it out or says why not. before is what was said of it since the start.
func (w *worker) orderedBy(ctx context.Context, in input, m *syncv1.SignedOrder, before string) (said string, err error) {
	now := time.Now()
	d, err := in.sub.Operators.Order(m.GetText(), m.GetSignature(), now)
	sum := sha256.Sum256(m.GetText())
	digest := hex.EncodeToString(sum[:])
	switch {
	case errors.Is(err, verify.ErrNotSigned):
		return w.refuseUnsigned(m, oneLine(err.Error()), before)
	case err != nil && !errors.Is(err, verify.ErrNotAllowed):
		if before == unreadable {
			return before, nil
		}
		return unreadable, w.record(w.rec, event(now, w.rec.Installation, fleet.EventAgent, "an operator's order waits: "+err.Error()))
	}
	if err == nil {
		err = w.due(in, d)
	}
	if was, known := w.answered(d.Nonce.String()); known {
		switch {
		case before != "":
			return before, nil
		case was.Text != digest:
			return w.retell(d, "its nonce was used before, for another order", false)
		}
		return w.retell(d, fmt.Sprintf("answered before: %s", was.Answer), was.Accepted)
	}
	if err != nil && !now.Before(d.Until()) { // nothing to remember: it stays over
		if before != "" {
			return before, nil
		}
		return w.retell(d, err.Error(), false)
	}
	return w.settle(ctx, in, d, digest, err)
}

// due says why an authentic order is not for now and here.
func (w *worker) due(in input, d verify.Ordered) error {
	made, running := w.a.cfg.Offers.Created(), w.rec.Installation.Running
	switch {
	case d.Distribution != in.sub.Distribution:
		return fmt.Errorf("%w: it is about %s, and was sent for %s", verify.ErrNotAllowed, d.Distribution, in.sub.Distribution)
	case d.Issued.Before(made):
		return fmt.Errorf("%w: the spoke's journal was made at %s, after it was issued, so that nobody knows whether it was obeyed: order it anew", verify.ErrNotAllowed, made.Format(time.RFC3339))
	case d.Running != running:
		return fmt.Errorf("%w: it is for where %s runs, and %s runs here", verify.ErrNotAllowed, orNothing(d.Running), orNothing(running))
	case len(w.rec.Orders) >= mostAnswered:
		return fmt.Errorf("%w: %d orders are remembered already, each until it has expired", verify.ErrNotAllowed, mostAnswered)
	}
	return nil
}

func orNothing(version string) string {
	if version == "" {
		return "nothing"
	}
	return version
}

func (w *worker) answered(nonce string) (journal.Answered, bool) {
	for _, a := range w.rec.Orders {
		if a.Nonce == nonce {
			return a, true
		}
	}
	return journal.Answered{}, false
}

// settle brings an order to its one answer: no says why it is not obeyed; nil: it is tried.
func (w *worker) settle(ctx context.Context, in input, d verify.Ordered, digest string, no error) (said string, err error) {
	before, now := w.rec, time.Now()
	remember := func(accepted bool, text string) journal.Record {
		rec := before
		rec.Orders = slices.DeleteFunc(slices.Clone(before.Orders), func(a journal.Answered) bool { return !now.Before(a.Until) })
		rec.Orders = append(rec.Orders, journal.Answered{Nonce: d.Nonce.String(), Text: digest, Until: d.Until(), Accepted: accepted, Answer: text})
		return rec
	}
	if no == nil {
		text := oneLine(fmt.Sprintf("%s ordered by %s: %s", d.Order, d, d.Reason))
		w.rec = remember(true, text)
		if no = w.obeyOrder(ctx, in, d, func(note string) fleet.Event {
			return w.reply(d, strings.TrimSuffix(text+"; "+note, "; "), true)
		}); no == nil {
			w.log.Warn("an operator's order is carried out", "order", d.Order.String(), "by", d.String(), logging.Reason, d.Reason)
			return text, nil
		}
		w.rec = before
		if ctx.Err() != nil { // interrupted: it comes first in the next round again
			return "", nil
		}
	}
	text := oneLine(fmt.Sprintf("%s ordered by %s is refused: %v", d.Order, d, no))
	w.log.Warn("an operator's order is refused", "order", d.Order.String(), "by", d.String(), logging.Reason, no)
	return text, w.record(remember(false, text), w.reply(d, text, false))
}

// obeyOrder does what the provider's own command would, in one transaction with the event that said makes; where it
// fails nothing has changed.
func (w *worker) obeyOrder(ctx context.Context, in input, d verify.Ordered, said func(note string) fleet.Event) error {
	switch d.Verb {
	case order.RollBack:
		_, _, err := w.rollBack(ctx, in, d.Target, fmt.Sprintf("ordered by %s: %s", d.Principal, d.Reason), false, said(""))
		return err
	case order.Force:
		if w.waitsWith(d.Target) {
			return w.answer(in, d.Target, func(ask string) bool { return !strings.HasPrefix(ask, prunes) }, said)
		}
		_, err := w.approve(in, d.Target, func(ask string) bool { return !strings.HasPrefix(ask, prunes) }, said(""))
		return err
	case order.WidenPrune:
		if !w.waitsWith(d.Target) || !w.asksToPrune() {
			return fmt.Errorf("%w: no deletion beyond the budget is asked about for %s", fleet.ErrNothingWaits, d.Target)
		}
		return w.answer(in, d.Target, func(ask string) bool { return strings.HasPrefix(ask, prunes) }, said)
	case order.RunConformance:
		again := delivery.Event{Kind: delivery.Retest}
		if _, effects := delivery.Next(time.Now(), w.state, again); w.state.Target != d.Target || slices.Contains(effects, delivery.Unexpected) {
			return fmt.Errorf("%w: %s does not wait for a verdict of its tests", fleet.ErrNothingWaits, d.Target)
		}
		return w.feed(again, said(""))
	}
	return fmt.Errorf("%s: this spoke does not know it", d.Verb)
}

// waitsWith: what is asked of the provider are the questions that are written down beside the delivery, before
// anything of it is on the cluster.
func (w *worker) waitsWith(version string) bool {
	return w.state.Phase == fleet.AwaitingApproval && w.state.Target == version && !w.state.Applied && !w.state.Walk.Asked && w.rec.Delivery != nil
}

// prunes begins the question about deletions beyond the budget.
const prunes = "it deletes "

// asksToPrune: that question is not answered yet.
func (w *worker) asksToPrune() bool {
	d := w.rec.Delivery
	return d != nil && slices.ContainsFunc(unanswered(*d), func(ask string) bool { return strings.HasPrefix(ask, prunes) })
}

func everything(string) bool { return true }

// answered are the questions of a delivery with a yes, those that answers picks among them.
func answered(d journal.Attempt, answers func(string) bool) []string {
	var yes []string
	for _, ask := range d.Asks {
		if answers(ask) || slices.Contains(d.Approved, ask) {
			yes = append(yes, ask)
		}
	}
	return yes
}

func unanswered(d journal.Attempt) []string {
	return slices.DeleteFunc(slices.Clone(d.Asks), func(ask string) bool { return slices.Contains(d.Approved, ask) })
}

// answer says yes to some of what is asked; with the last of it the delivery goes on.
func (w *worker) answer(in input, version string, answers func(string) bool, said func(note string) fleet.Event) error {
	if err := w.mayTake(in, version); err != nil {
		return err
	}
	d, before := *w.rec.Delivery, w.rec
	was := unanswered(d)
	d.Approved = answered(d, answers)
	left := unanswered(d)
	if len(left) == len(was) && len(left) > 0 {
		return fmt.Errorf("%w: what is asked about %s is another question: %s", fleet.ErrNothingWaits, version, strings.Join(left, "; "))
	}
	w.rec.Delivery = &d
	var err error
	if len(left) > 0 {
		err = w.record(w.rec, said("still asked: "+strings.Join(left, "; ")))
	} else {
		err = w.feed(delivery.Event{Kind: delivery.Approve}, said(""))
	}
	if err != nil {
		w.rec = before
	}
	return err
}

// reply is the answer for the hub.
func (w *worker) reply(d verify.Ordered, text string, accepted bool) fleet.Event {
	e := event(time.Now(), w.rec.Installation, fleet.EventOrder, text)
	e.Version, e.Order = d.Target, &fleet.OrderAnswer{Nonce: d.Nonce.String(), Accepted: accepted}
	return e
}

// retell answers without doing anything.
func (w *worker) retell(d verify.Ordered, why string, accepted bool) (string, error) {
	text := oneLine(fmt.Sprintf("%s ordered by %s: %s", d.Order, d, why))
	if !accepted {
		w.log.Warn("an operator's order is refused", "order", d.Order.String(), "by", d.String(), logging.Reason, why)
	}
	return text, w.record(w.rec, w.reply(d, text, accepted))
}

// refuseUnsigned answers what nobody is known to have ordered, once. Nothing is remembered by what it says: whoever
// made it up could use up an order that is still to come.
func (w *worker) refuseUnsigned(m *syncv1.SignedOrder, why, before string) (string, error) {
	if before != "" {
		return before, nil
	}
	w.log.Warn("an order is refused", logging.Reason, why)
	e := event(time.Now(), w.rec.Installation, fleet.EventOrder, "an order is refused: "+why)
	if claimed, err := order.Parse(m.GetText()); err == nil {
		e.Order = &fleet.OrderAnswer{Nonce: claimed.Nonce.String()}
	}
	return why, w.record(w.rec, e)
}
