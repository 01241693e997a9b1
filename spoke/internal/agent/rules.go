package agent

import (
	"slices"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/rules"
)

// ruleBook is the health rules in force, compiled: the vendor's out of a bundle, and the provider's,
// which come first.
type ruleBook struct {
	bundle fleet.Digest
	own    []rules.Rule
	book   *rules.Book
}

// healthRules are those of the release that was applied last. Rules that cannot be read count for
// nothing: publication and spoke.yaml have refused what is in error already.
func (w *worker) healthRules() *rules.Book {
	d := w.rec.Installation.Bundle
	if w.state.Forward() {
		d = w.rec.Delivery.Bundle
	}
	r := &w.rules
	if r.bundle == d && slices.Equal(r.own, w.sub.Health) {
		return r.book
	}
	*r = ruleBook{bundle: d, own: w.sub.Health}
	all := slices.Clone(r.own)
	vendors, err := w.a.vendorRules(d)
	if err != nil {
		w.log.Warn("the vendor's health rules cannot be read", logging.Error, err)
	}
	if all = append(all, vendors...); len(all) == 0 {
		return nil
	}
	if r.book, err = rules.Compile(all); err != nil {
		w.log.Warn("the health rules cannot be used", logging.Error, err)
	}
	return r.book
}

// vendorRules are in the bundle's wheelwright.yaml; a bundle that is not in the cache any more has none.
func (a *Agent) vendorRules(d fleet.Digest) ([]rules.Rule, error) {
	if d == "" {
		return nil, nil
	}
	tar, err := a.cache.get(d)
	if err != nil {
		return nil, nil
	}
	b, err := bundle.Open(tar)
	if err != nil {
		return nil, err
	}
	found, err := render.Health(b.Files())
	if err != nil {
		return nil, err
	}
	all := make([]rules.Rule, len(found))
	for n, h := range found {
		all[n] = rules.Rule(h)
	}
	return all, nil
}
