package agent

import (
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
)

// closed is the event of a release that would be applied while its provider's windows are closed. Only a
// change of release waits: what is first installed, and another overlay over what runs, do not.
func (w *worker) closed(now time.Time, target string) (delivery.Event, bool) {
	running, ws := w.rec.Installation.Running, w.chosen.windows
	if running == "" || target == running || ws.Open(now) {
		return delivery.Event{}, false
	}
	e := delivery.Event{Kind: delivery.Closed, Target: target, Until: ws.Next(now)}
	e.Reason = fmt.Sprintf("its maintenance window opens at %s (%s)", fleet.Moment(e.Until), ws)
	if e.Until.IsZero() {
		e.Reason = fmt.Sprintf("its maintenance window never opens (%s)", ws)
	}
	if said := w.chosen.errand(); said != "" {
		e.Reason = said + "; " + e.Reason
	}
	return e, true
}

// opens is when the window opens that a release waits for; the zero time: none does.
func (w *worker) opens() time.Time {
	if w.state.Phase != fleet.AwaitingWindow {
		return time.Time{}
	}
	return w.state.Deadline
}

// goOn takes up what waits and need not any more: a window that has opened or is another one, an approval
// that the policy asked for and does not now. The delivery is looked at again before anything is applied.
func (w *worker) goOn(in input, want plan, changed bool) error {
	now := time.Now()
	switch w.state.Phase {
	case fleet.AwaitingApproval:
		if changed && w.state.Target == w.chosen.Version {
			return w.feed(delivery.Event{Kind: delivery.Approve})
		}
	case fleet.AwaitingWindow:
		e, wait := w.closed(now, w.state.Target)
		switch d := w.rec.Delivery; {
		case wait && e.Until.Equal(w.state.Deadline):
			return nil
		case wait:
			return w.feed(e)
		case d != nil && len(d.Manifest) > 0:
			return w.feed(delivery.Event{Kind: delivery.Opened})
		}
		start := delivery.Event{Kind: delivery.Start, Target: w.state.Target, Previous: w.canReturn()}
		w.begin(in, want, start.Target)
		return w.feed(start)
	}
	return nil
}
