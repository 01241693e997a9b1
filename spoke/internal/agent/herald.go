package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/delivery"
)

// Bounds of the news that are kept for notifiers, and of the tries for each of them.
const (
	mostNews  = 64
	mostTries = 8
)

// herald carries news to the notifiers, beside everything else: nobody waits for it. A piece of news is tried
// a bounded number of times, and neither outlives the spoke nor is told again by the next one.
type herald struct {
	plugins plugins
	log     *slog.Logger
	every   Intervals
	news    chan news
	commit  func(fleet.Digest) string // of a bundle; "" where that is not known
}

// news is one event for one notifier.
type news struct {
	plugin string
	event  *pluginv1.Event
	bundle fleet.Digest
}

func newHerald(c Config, commit func(fleet.Digest) string) *herald {
	return &herald{plugins: c.Plugins, log: c.Log, every: c.Every, news: make(chan news, mostNews), commit: commit}
}

// tell never waits: what is too much is dropped, and said.
func (h *herald) tell(e *pluginv1.Event, b fleet.Digest) {
	if h.plugins == nil {
		return
	}
	for _, name := range h.plugins.Named(pluginv1.Kind_KIND_NOTIFIER) {
		select {
		case h.news <- news{name, e, b}:
		default:
			h.log.Warn("too much is to be told: a notifier is not told of this", logging.Plugin, name, logging.Phase, e.GetPhase(), logging.Version, e.GetVersionTo())
		}
	}
}

// run carries until ctx ends, and waits then for what it carries.
func (h *herald) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	free := make(chan struct{}, mostNews)
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-h.news:
			select {
			case free <- struct{}{}:
			case <-ctx.Done():
				return
			}
			all.Go(func() {
				defer func() { <-free }()
				h.carry(ctx, n)
			})
		}
	}
}

func (h *herald) carry(ctx context.Context, n news) {
	log := h.log.With(logging.Plugin, n.plugin, logging.Phase, n.event.GetPhase(), logging.Version, n.event.GetVersionTo())
	n.event = proto.CloneOf(n.event) // one for each notifier
	n.event.Commit = h.commit(n.bundle)
	for wait := (backoff{}); ; {
		err := h.try(ctx, n)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			log.Info("a notifier was told")
			return
		case errors.Is(err, pluginhost.ErrNoPlugin), wait.tries+1 >= mostTries:
			log.Error("a notifier could not be told, and is not any more", logging.Error, err, "tries", wait.tries+1)
			return
		}
		log.Warn("a notifier could not be told; it is tried again", logging.Error, err)
		wait.failed(time.Now(), h.every)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait.left(time.Now())):
		}
	}
}

func (h *herald) try(ctx context.Context, n news) error {
	to, err := h.plugins.Notifier(n.plugin)
	if err != nil {
		return err
	}
	_, err = to.Notify(ctx, &pluginv1.NotifyRequest{Call: &pluginv1.Call{Id: n.event.GetId()}, Event: n.event})
	return err
}

// commitOf is the commit that a bundle was made of.
func (a *Agent) commitOf(d fleet.Digest) string {
	if d == "" {
		return ""
	}
	tar, err := a.cache.get(d)
	if err != nil {
		return ""
	}
	b, err := bundle.Open(tar)
	if err != nil {
		return ""
	}
	claim, err := b.Proof().Check(b.Files())
	if err != nil {
		return ""
	}
	return claim.Commit
}

// proclaim tells the notifiers how a delivery ended, or that its provider is asked; from is what ran before.
func (w *worker) proclaim(e delivery.Event, old, n delivery.State, from string) {
	asks := n.Phase == fleet.AwaitingApproval
	if e.Kind == delivery.Content || e.Kind == delivery.Restart || n.Phase == old.Phase && n.Target == old.Target || !n.Phase.Terminal() && !asks {
		return
	}
	var b fleet.Digest
	if w.rec.Delivery != nil {
		b = w.rec.Delivery.Bundle
	}
	told := &pluginv1.Event{
		At: timestamppb.New(n.Since), Distribution: w.name, VersionFrom: from, VersionTo: n.Target, Cluster: string(w.a.cfg.Cluster),
		Phase: string(n.Phase), Severity: severity(n.Phase), Message: oneLine(w.a.cfg.Private.Text(story(n, w.rec))), Terminal: n.Phase.Terminal(), Verdict: w.verdictOf(n),
		Repository: w.repository, Tag: n.Target,
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q %d", told.GetCluster(), told.GetDistribution(), told.GetVersionTo(), told.GetPhase(), n.Since.UnixNano()))
	told.Id = fmt.Sprintf("%x", sum[:10])
	w.a.herald.tell(told, b)
}

func severity(p fleet.Phase) pluginv1.Severity {
	switch p {
	case fleet.Succeeded:
		return pluginv1.Severity_SEVERITY_INFO
	case fleet.RollbackFailed:
		return pluginv1.Severity_SEVERITY_ERROR
	}
	return pluginv1.Severity_SEVERITY_WARNING
}

// verdictOf is what the tests said; nil: nothing was tested.
func (w *worker) verdictOf(n delivery.State) *pluginv1.Verdict {
	switch {
	case n.Applied, n.Proof == delivery.Accepted:
		return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_INCONCLUSIVE, Reason: oneLine(w.a.cfg.Private.Text(n.Reason))}
	case n.Proof == delivery.Passed:
		return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_PASS}
	case n.Proof == delivery.Disproved:
		return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_FAIL, Reason: oneLine(w.a.cfg.Private.Text(n.Reason))}
	}
	return nil
}
