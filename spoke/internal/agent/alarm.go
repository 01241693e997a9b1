package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/verify"
)

// withFirst are the first bundles with one more; what is known already stays (law 5).
func withFirst(first map[string]fleet.Digest, version string, d fleet.Digest) map[string]fleet.Digest {
	if _, known := first[version]; known {
		return first
	}
	first = maps.Clone(first)
	if first == nil {
		first = map[string]fleet.Digest{}
	}
	first[version] = d
	return first
}

// settledAs is the bundle that was first found good here under a version; empty: none was.
func (w *worker) settledAs(version string) fleet.Digest {
	i := w.rec.Installation
	if version == i.Running && i.Bundle != "" {
		return i.Bundle
	}
	if d := w.rec.First[version]; d != "" {
		return d
	}
	if t, ok := w.rec.Tried[version]; ok && t.Result.Outcome != fleet.OutcomeBreaks {
		return t.Result.Bundle
	}
	return ""
}

// settled is the input without what is offered under a version that was other content here before: that is
// taken under no name; what runs, and what is remembered, stays what it is. What the vendor itself has signed
// to be called back is withdrawn, whatever the hub says.
func (w *worker) settled(in input) (input, []*syncv1.Offer) {
	var moved []*syncv1.Offer
	for _, o := range in.offers.GetOffers() {
		if d := w.settledAs(o.GetVersion()); d != "" && string(d) != o.GetDigest() {
			moved = append(moved, o)
		}
	}
	var recalled []*syncv1.Withdrawal
	if last, ok := w.told.Last(); ok && in.offers != nil && !in.sub.Signers.None() {
		for _, v := range last.Recalled {
			if in.withdrawal(v) == "" {
				recalled = append(recalled, wire.Withdrawal(fleet.Withdrawal{Version: v, Kind: fleet.Recalled,
					Reason: fmt.Sprintf("signed by the vendor, statement %d", last.Sequence)}))
			}
		}
	}
	if len(moved)+len(recalled) == 0 {
		return in, nil
	}
	in.offers = proto.CloneOf(in.offers)
	in.offers.Withdrawals = append(in.offers.Withdrawals, recalled...)
	in.offers.Offers = slices.DeleteFunc(in.offers.Offers, func(o *syncv1.Offer) bool {
		return slices.ContainsFunc(moved, func(m *syncv1.Offer) bool { return m.GetVersion() == o.GetVersion() })
	})
	return in, moved
}

// alarms looks at what the hub says beside the releases, and says what is wrong with it, once.
func (w *worker) alarms(_ context.Context, in input) result {
	now := time.Now()
	var all []string
	for _, o := range w.moved {
		all = append(all, fmt.Sprintf("TagMoved: %s is offered as %s and was %s when it was first seen here; nothing of it is taken, ask the vendor why",
			o.GetVersion(), fleet.Digest(o.GetDigest()).Short(), w.settledAs(o.GetVersion()).Short()))
	}
	said, fresh := w.hear(in, now)
	all = append(all, said...)
	next := time.Duration(0)
	if last, ok := w.told.Last(); ok && !in.sub.Signers.None() {
		for _, f := range channel.Forks(w.told) {
			all = append(all, "Equivocation: the vendor's key has signed "+f.String()+"; `spoke audit export` keeps the proof")
		}
		c := &fleet.Channel{Sequence: last.Sequence, Latest: last.Latest, Issued: last.Issued, Expires: last.Expires}
		w.rec.Installation.Channel = c
		if c.Frozen(now) {
			all = append(all, fmt.Sprintf("Frozen since %s: the vendor's statement %d, that %s is the latest, was news until then, and the hub has none newer",
				fleet.Moment(last.Expires), last.Sequence, last.Latest))
		} else {
			next = last.Expires.Sub(now)
		}
	}
	text := oneLine(strings.Join(all, "; "))
	if text == w.rec.Installation.Alarm && !fresh {
		return result{after: next}
	}
	return w.sayAlarm(text, next)
}

// sayAlarm records what is wrong now, or that nothing is any more.
func (w *worker) sayAlarm(text string, next time.Duration) result {
	was := w.rec.Installation.Alarm
	rec := w.rec
	rec.Installation.Alarm = text
	if !w.known {
		w.rec = rec
		w.publish()
		return result{after: next}
	}
	var said []fleet.Event
	switch {
	case text == was:
	case text == "":
		w.log.Info("what was wrong with what the hub offers is over")
		said = []fleet.Event{event(time.Now(), rec.Installation, fleet.EventAgent, "over: "+was)}
	default:
		kind := fleet.EventAgent
		if strings.HasPrefix(text, string(fleet.EventTagMoved)) {
			kind = fleet.EventTagMoved
		}
		w.log.Error("something is wrong with what the hub offers", logging.Reason, text)
		said = []fleet.Event{event(time.Now(), rec.Installation, kind, text)}
	}
	if err := w.record(rec, said...); err != nil {
		return w.journalTrouble(err)
	}
	return result{after: next}
}

// hear takes a statement that is new, and says what is wrong with one that cannot be believed.
func (w *worker) hear(in input, now time.Time) (wrong []string, fresh bool) {
	raw := in.offers.GetChannel()
	if len(raw) == 0 || in.sub.Signers.None() {
		return nil, false
	}
	s, err := verify.Statement(raw, w.name, in.sub.Signers, now)
	switch {
	case errors.Is(err, verify.ErrUnproven):
		return []string{"a statement of what is current is not the vendor's: " + err.Error()}, false
	case err != nil:
		return []string{"a statement of what is current cannot be checked: " + err.Error()}, false
	}
	log, fresh := w.told.Add(s, now)
	if !fresh {
		return nil, false
	}
	w.told = log
	w.rec.Told = nil
	for _, one := range log {
		w.rec.Told = append(w.rec.Told, fleet.Told{Text: one.Bytes(), At: one.At})
	}
	w.log.Info("the vendor has said what is current", "sequence", s.Sequence, "latest", s.Latest, "expires", s.Expires)
	return nil, true
}

// remembered reads the statements of a record.
func remembered(told []fleet.Told) (channel.Log, error) {
	var log channel.Log
	for _, t := range told {
		s, err := channel.Parse(t.Text)
		if err != nil {
			return nil, err
		}
		log = append(log, channel.Seen{Signed: s, At: t.At})
	}
	return log, nil
}
