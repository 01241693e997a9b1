package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// withdrawal says why a release is not to be taken any more; empty: it may be.
func (in input) withdrawal(version string) string {
	for _, m := range in.offers.GetWithdrawals() {
		if m.GetVersion() != version {
			continue
		}
		if d := wire.FromWithdrawal(m); d.Kind == fleet.TakenBack {
			if by, undone := strings.CutPrefix(oneLine(d.Reason), "undone "); undone {
				return "its rollout was undone " + by
			}
			return because("its rollout was undone", oneLine(d.Reason))
		}
		return because("recalled by the vendor", oneLine(m.GetReason()))
	}
	return ""
}

// withdrawn goes back from a release that was withdrawn while it is half on the cluster. One that nothing ran
// before is brought to its own end first: there is nowhere to go back to.
func (w *worker) withdrawn(_ context.Context, in input) result {
	target, running := w.state.Target, w.rec.Installation.Running
	if !w.state.Forward() || target == running || !w.canReturn() {
		return result{}
	}
	text := in.withdrawal(target)
	if text == "" {
		return result{}
	}
	w.log.Warn("a release is withdrawn while it is delivered", logging.Version, target, logging.Reason, text)
	if err := w.leave(heldFrom(w.rec, target, text), target, text, false); err != nil {
		return w.journalTrouble(err)
	}
	return result{}
}

// heldFrom is a record in which a version is held for good.
func heldFrom(rec journal.Record, version, why string) journal.Record {
	rec.Held = maps.Clone(rec.Held)
	if rec.Held == nil {
		rec.Held = map[string]journal.Hold{}
	}
	rec.Held[version] = journal.Hold{Reason: why, At: time.Now()}
	return rec
}

// without are the holds but for one version's.
func without(holds map[string]journal.Hold, version string) map[string]journal.Hold {
	holds = maps.Clone(holds)
	delete(holds, version)
	return holds
}

// dropped is why a release is not gone on with that has not touched the cluster, or was not, since it was
// withdrawn; empty: there is nothing to say.
func (w *worker) dropped(in input, target string) string {
	running := w.rec.Installation.Running
	if v := w.state.Target; underWay(w.state.Phase) && v != target && v != running {
		if why := in.withdrawal(v); why != "" {
			return v + " is not taken: " + why
		}
		if _, there := in.offer(v); !there {
			return v + " is not on offer any more"
		}
	}
	for _, v := range slices.Backward(slices.SortedFunc(maps.Keys(w.rec.Held), fleet.CompareTags)) {
		if why := in.withdrawal(v); why != "" && fleet.CompareTags(v, cmp.Or(target, running)) > 0 {
			return v + " is not taken: " + why
		}
	}
	return ""
}

// holdWithdrawn holds what is not gone on with since it was withdrawn, so that it is remembered.
func (w *worker) holdWithdrawn(in input) {
	if v := w.state.Target; underWay(w.state.Phase) && v != w.rec.Installation.Running {
		if why := in.withdrawal(v); why != "" {
			w.rec = heldFrom(w.rec, v, why)
		}
	}
}

// goBack leaves a release that runs and was withdrawn for the one that the policy has chosen instead, out of
// the spoke's own memory where that is in it; done is false where it is to be delivered like any other. It
// waits for the provider's window, and is theirs to be asked about.
func (w *worker) goBack(ctx context.Context, in input) (done bool, err error) {
	s, from := w.chosen, w.rec.Installation.Running
	remembered := slices.ContainsFunc(w.rec.Previous, func(p journal.Release) bool { return p.Version == s.Version })
	if !s.Return || s.Asks != "" || !remembered {
		return false, nil
	}
	w.rec.Installation.Wants, w.rec.Installation.Would = s.Version, s.Would
	if e, wait := w.closed(time.Now(), s.Version); wait {
		return true, w.returnLater(e)
	}
	_, rec, err := w.earlier(s.Version)
	if err == nil {
		rec.Floor = s.Version // its provider agreed, here or in spoke.yaml
		err = w.insideAgain(ctx, rec)
	}
	if err == nil {
		rec.Delivery.Keep, err = w.kept(ctx, rec.Manifest)
	}
	if err != nil {
		w.log.Warn("what was kept of a release cannot be gone back to; it is delivered like any other", logging.Version, s.Version, logging.Error, err)
		return false, nil
	}
	text := cmp.Or(in.withdrawal(from), s.Why)
	w.log.Warn("what runs was withdrawn", logging.Version, from, "to", s.Version, logging.Reason, text)
	return true, w.leave(heldFrom(rec, from, text), from, text, false)
}

// returnLater waits for the window in which a release is left.
func (w *worker) returnLater(e delivery.Event) error {
	switch p := w.state.Phase; {
	case p == fleet.RollbackFailed, p == fleet.AwaitingWindow && w.state.Target == e.Target && w.state.Deadline.Equal(e.Until):
		return nil
	case underWay(p) && p != fleet.AwaitingWindow:
		drop := delivery.Event{Kind: delivery.Content, Target: w.rec.Installation.Running, Reason: w.chosen.Why}
		if err := w.feed(drop); err != nil {
			return err
		}
	}
	e.Reason = fmt.Sprintf("%s; %s", w.chosen.Why, e.Reason)
	before := w.rec
	w.rec.Delivery = &journal.Attempt{Target: e.Target, Started: time.Now()}
	if err := w.feed(e); err != nil {
		w.rec = before
		return err
	}
	return nil
}
