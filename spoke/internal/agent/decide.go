package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
)

// decide takes what was decided at the hub for this provider: each decision once, whatever comes of it.
func (w *worker) decide(_ context.Context, in input) result {
	var news []fleet.HubDecision
	for _, m := range in.offers.GetDecisions() {
		if d, err := wire.FromHubDecision("", w.name, m); err == nil && d.At.After(w.rec.Decided) {
			news = append(news, d)
		}
	}
	if err := w.unheeded(in); err != nil {
		return w.journalTrouble(err)
	}
	slices.SortFunc(news, func(a, b fleet.HubDecision) int { return a.At.Compare(b.At) })
	for _, d := range news {
		if err := w.heed(in, d); err != nil {
			return w.journalTrouble(err)
		}
	}
	return result{}
}

// unheeded says once of a pin of the hub that it does not count here.
func (w *worker) unheeded(in input) error {
	m := in.offers.GetPin()
	if m == nil || in.sub.FromHub.Pins {
		w.unheard = ""
		return nil
	}
	text := fmt.Sprintf("the hub's pin at %s by %s does not count here: spoke.yaml says fromHub: {pins: false}", m.GetVersion(), cmp.Or(m.GetAuthor(), "somebody"))
	if text == w.unheard || !w.known {
		return nil
	}
	if err := w.record(w.rec, event(time.Now(), w.rec.Installation, fleet.EventDeclined, text)); err != nil {
		return err
	}
	w.unheard = text
	return nil
}

// heed does what was decided, or says why it does not count.
func (w *worker) heed(in input, d fleet.HubDecision) error {
	now, before := time.Now(), w.rec
	said := fmt.Sprintf("approved by %s at the hub", cmp.Or(d.Author, "somebody"))
	if !d.Approved {
		said = fmt.Sprintf("rejected by %s at the hub", cmp.Or(d.Author, "somebody"))
	}
	d.Reason = oneLine(d.Reason)
	kind, text := fleet.EventDeclined, ""
	switch {
	case !in.sub.FromHub.Decisions:
		text = fmt.Sprintf("%s was %s, which does not count here: spoke.yaml does not say fromHub: {decisions: true}", d.Version, said)
	case w.state.Phase != fleet.AwaitingApproval || w.state.Target != d.Version:
		text = fmt.Sprintf("%s was %s, and does not wait for an answer here", d.Version, said)
	case !d.Asked.IsZero() && !d.Asked.Equal(w.state.Since):
		text = fmt.Sprintf("%s was %s, which answers what was asked here at %s; what has been asked since %s wants an answer of its own: spoke approve %s",
			d.Version, said, d.Asked.UTC().Format(time.RFC3339), w.state.Since.UTC().Format(time.RFC3339), w.name)
	case d.Asked.IsZero() && !d.At.After(w.state.Since):
		text = fmt.Sprintf("%s was %s at %s, before it was asked for here at %s: it is not taken; compare the clocks, or answer with: spoke approve %s",
			d.Version, said, d.At.UTC().Format(time.RFC3339), w.state.Since.UTC().Format(time.RFC3339), w.name)
	case d.Approved && !in.sub.Operators.None() && w.asksToPrune():
		text = fmt.Sprintf("%s was %s, and it deletes more than the deletion budget: where spoke.yaml names operators, that wants the signed order of one, or: spoke approve %s", d.Version, said, w.name)
	case !d.Approved:
		w.rec.Decided = d.At
		w.log.Info("rejected at the hub", logging.Version, d.Version, "author", d.Author, logging.Reason, d.Reason)
		if err := w.feed(delivery.Event{Kind: delivery.Reject, Reason: because(said, d.Reason)}); err != nil {
			w.rec = before
			return err
		}
		return nil
	default:
		kind, text = fleet.EventAgent, because(d.Version+" was "+said, d.Reason)
	}
	w.log.Info("decided at the hub", logging.Version, d.Version, "author", d.Author, "says", text)
	rec := w.rec
	rec.Decided = d.At
	told := event(now, rec.Installation, kind, text)
	told.Version = d.Version
	if kind == fleet.EventDeclined {
		return w.record(rec, told)
	}
	w.rec = rec
	if _, err := w.approve(in, d.Version, everything, told); err != nil {
		w.rec = before
		return err
	}
	return nil
}
