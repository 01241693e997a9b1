package agent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
)

// input is what others hand to a worker.
type input struct {
	sub     config.Subscription
	offers  *syncv1.DistributionOffers // nil: the hub never said anything about it
	trouble string                     // why spoke.yaml cannot be read now
}

// versions are those that may be taken.
func (in input) versions() []string {
	var all []string
	for _, o := range in.offers.GetOffers() {
		if !o.GetPreflight() {
			all = append(all, o.GetVersion())
		}
	}
	fleet.SortVersions(all)
	return all
}

// urls are the names under which an overlay may know the distribution's repository.
func (in input) urls() []string {
	return append([]string{in.offers.GetUrl()}, in.sub.Source...)
}

func (in input) digest(version string) fleet.Digest {
	for _, o := range in.offers.GetOffers() {
		if o.GetVersion() == version {
			return fleet.Digest(o.GetDigest())
		}
	}
	return ""
}

// offer is what may be taken of a version.
func (in input) offer(version string) (*syncv1.Offer, bool) {
	for _, o := range in.offers.GetOffers() {
		if o.GetVersion() == version && !o.GetPreflight() {
			return o, true
		}
	}
	return nil, false
}

// worker runs one subscription. All but box, seen and laid belong to its goroutine.
type worker struct {
	a     *Agent
	name  string
	log   *slog.Logger
	box   mailbox
	seen  atomic.Pointer[fleet.Installation] // for readers; never changed in place
	laid  atomic.Pointer[overlay.Overlay]    // likewise; nil: none was read
	book  atomic.Pointer[notes]              // likewise
	ended chan struct{}
	guard Guard

	known   bool         // the record is in the journal
	asked   bool         // the cluster was asked for one
	resumed bool         // a record that was there at the start was taken up
	tried   fleet.Digest // the recipe that a taken over release was last rendered for
	rec     journal.Record
	state   delivery.State
	ledger  ledger
	todo    []delivery.Effect
	wait    backoff             // of the effect that is first in todo
	trial   backoff             // of pre-flights
	sub     config.Subscription // of this round
	rules   ruleBook
	chosen  chosen       // by the policy, in this round or the last that got so far
	bounds  fleet.Digest // of this round: see boundsOf
	unheard string       // the hub's pin of which was said that it does not count
	replied replied      // signed orders of which something was said already
	work    scratch      // of the delivery under way
	saw     overlayed    // the provider's overlay
	watch   watching     // of what runs
	exam    *exam        // of the delivery under way; nil: none was begun
	tries   int          // exams of it
	unsure  string       // why the last of them came to no verdict
	// toldTests is what the hub was told last of each test of the delivery.
	toldTests map[string]string

	told  channel.Log     // of the vendor: what the record's Told reads as
	moved []*syncv1.Offer // of this round: offered as something else than before

	ledTo      []fleet.Traffic // where traffic was led last
	repository string          // where the distribution comes from, as the hub says
	beside     sync.WaitGroup  // of exams
}

// mailbox holds the newest input.
type mailbox struct {
	mu   sync.Mutex
	in   input
	news bool
	wake chan struct{}

	orders    []word
	interrupt func() // ends the round under way; nil between rounds
}

// poke wakes the worker.
func (b *mailbox) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// notes are the record and the inventory, for readers.
type notes struct {
	rec       journal.Record
	inventory apply.Inventory
}

func newWorker(a *Agent, name string) (*worker, error) {
	w := &worker{a: a, name: name, log: a.cfg.Log.With(logging.Distribution, name)}
	w.box.wake = make(chan struct{}, 1)
	w.ended = make(chan struct{})
	w.guard = a.cfg.Guard(name)
	rec, found, err := a.cfg.Memory.Record(name)
	if err != nil {
		return nil, fmt.Errorf("read the journal's record of %s: %w", name, err)
	}
	if !found {
		rec = journal.Record{Distribution: name, Installation: fleet.Installation{Distribution: name, Health: fleet.HealthUnknown}}
	}
	if rec, err = a.keeper.openRecord(rec); err != nil {
		w.log.Error("what was rendered before cannot be read: nothing is put back, and nothing returned to, until it can", logging.Error, err)
	}
	w.known, w.resumed = found, !found
	if err := w.take(rec); err != nil {
		return nil, err
	}
	return w, nil
}

// put replaces the worker's input and wakes it.
func (w *worker) put(in input) {
	w.box.mu.Lock()
	w.box.in, w.box.news = in, true
	w.box.mu.Unlock()
	w.box.poke()
}

func (w *worker) input() (in input, news bool) {
	w.box.mu.Lock()
	defer w.box.mu.Unlock()
	in, news = w.box.in, w.box.news
	w.box.news = false
	return in, news
}

// result is what a step says about the rest of the round and about the next one.
type result struct {
	after time.Duration // come again after that long; 0: nothing to come for
	stop  bool          // leave out the steps that begin something
}

// step is one line of the loop.
type step struct {
	name   string
	do     func(context.Context, input) result
	always bool // also after a step that said stop
}

// steps in their order. A release that is half on the cluster is finished before anything else is
// looked at; health and drift of what runs are looked at whatever the rest says.
func (w *worker) steps() []step {
	return []step{
		{name: "adopt", do: w.adopt},
		{name: "resume", do: w.resume},
		{name: "orders", do: w.obey, always: true},
		{name: "alarms", do: w.alarms, always: true},
		{name: "signed orders", do: w.signedOrders, always: true},
		{name: "withdrawn", do: w.withdrawn},
		{name: "finish", do: w.finish},
		{name: "overlay", do: w.loadOverlay},
		{name: "rebuild", do: w.rebuild},
		{name: "decide", do: w.decide},
		{name: "choose", do: w.choose},
		{name: "deliver", do: w.deliver},
		{name: "expire", do: w.expire},
		{name: "preflight", do: w.preflight},
		{name: "health", do: w.watchHealth, always: true},
		{name: "drift", do: w.correctDrift, always: true},
	}
}

// run works until ctx ends.
func (w *worker) run(ctx context.Context) {
	var watching sync.WaitGroup
	defer watching.Wait()
	defer w.closeOverlay()
	defer w.beside.Wait()
	defer w.endExam()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() {
		if err := w.guard.Run(ctx); err != nil && ctx.Err() == nil {
			w.log.Error("the cluster is not watched; drift is looked for now and then", logging.Error, err)
		}
	})
	for ctx.Err() == nil {
		next := w.uninterrupted(ctx)
		if next <= 0 {
			next = time.Minute
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-w.box.wake:
		case <-w.guard.Wake():
			w.watch.drift = time.Time{}
		case <-timer.C:
		}
		timer.Stop()
	}
}

// uninterrupted is a round, unless a person orders something: then it ends where it is, and the order
// comes first in the next one.
func (w *worker) uninterrupted(ctx context.Context) time.Duration {
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	w.box.mu.Lock()
	w.box.interrupt = cancel
	w.box.mu.Unlock()
	return w.round(work)
}

// round takes every step once and says when to come again.
func (w *worker) round(ctx context.Context) (next time.Duration) {
	in, news := w.input()
	w.sub = in.sub
	in, w.moved = w.settled(in)
	w.noteBounds(in.sub)
	if news {
		w.wait, w.trial = backoff{}, backoff{} // what failed may work with what is new
	}
	stopped := false
	for _, s := range w.steps() {
		if ctx.Err() != nil {
			return 0
		}
		if stopped && !s.always {
			continue
		}
		r := s.do(ctx, in)
		stopped = stopped || r.stop
		if r.after > 0 && (next == 0 || r.after < next) {
			next = r.after
		}
	}
	return next
}

// backoff is the waiting between tries, with full jitter above a floor.
type backoff struct {
	tries int
	until time.Time
}

func (b *backoff) failed(now time.Time, i Intervals) {
	d := i.RetryMax
	if b.tries < 16 {
		d = min(i.RetryMin<<b.tries, i.RetryMax)
	}
	b.tries++
	b.until = now.Add(d/2 + rand.N(d/2+1))
}

func (b *backoff) left(now time.Time) time.Duration { return b.until.Sub(now) }

func (w *worker) intervals() Intervals { return w.a.cfg.Every }
