package conductor

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// orders are kept as they were handed over, with what they leave in the history and the audit.
type orders interface {
	PutOrder(fleet.SignedOrder, fleet.Event, fleet.Entry) error // store.ErrExists
	OrdersTo(cluster fleet.Cluster, distribution string) []fleet.SignedOrder
}

// mostWaiting orders to one subscription are on their way at a time: a spoke looks at no more.
const mostWaiting = 16

// waiting are the orders that a spoke may still answer.
func waiting(now time.Time, all []fleet.SignedOrder) (on []fleet.SignedOrder) {
	for _, o := range all {
		if o.State(now) == fleet.OrderWaiting {
			on = append(on, o)
		}
	}
	return on
}

// ordered is a parcel that holds orders too.
func (p *parcel) ordered(on []fleet.SignedOrder) *parcel {
	if len(on) == 0 {
		return p
	}
	own := &syncv1.DistributionOffers{}
	for _, o := range on[:min(len(on), mostWaiting)] {
		own.Orders = append(own.Orders, &syncv1.SignedOrder{Text: o.Text, Signature: o.Signature})
	}
	return p.with(own)
}

// Order takes an operator's signed order to a spoke, and sends it on as it is. What is refused here is what the spoke
// would refuse in any case; whether the signature counts is for its spoke.yaml to say.
func (c *Conductor) Order(now time.Time, who Who, given fleet.SignedOrder, dry bool) (warnings []string, err error) {
	o, err := order.Parse(given.Text)
	if err != nil {
		return nil, refuse(ErrInvalid, "%v", err)
	}
	if _, err := c.watched(o.Distribution); err != nil {
		return nil, err
	}
	news, i, err := c.subscribed(o.Cluster, o.Distribution)
	switch {
	case err != nil:
		return nil, err
	case i == nil:
		return nil, refuse(ErrConflict, "the spoke of %s has not joined yet, so that nobody there takes orders; `hub cluster invite %s` prints the line to run", o.Cluster, o.Cluster)
	}
	if err := o.Fresh(now); err != nil {
		return nil, refuse(ErrConflict, "%s: %v", o, err)
	}
	if n := len(waiting(now, c.cfg.Store.OrdersTo(o.Cluster, o.Distribution))); n >= mostWaiting {
		return nil, refuse(ErrConflict, "%d orders to %s about %s wait for an answer already; `hub get orders %s` lists them", n, o.Cluster, o.Distribution, o.Cluster)
	}
	if i.Running != o.Running {
		warnings = append(warnings, fmt.Sprintf("it is for where %s runs, and %s ran when %s was last heard: the spoke refuses it unless that is so", orNone(o.Running), orNone(i.Running), o.Cluster))
	}
	if !news.Connected {
		warnings = append(warnings, fmt.Sprintf("%s is not connected: the order reaches it when it is back, until %s", o.Cluster, o.Expires.Format(time.RFC3339)))
	}
	if dry {
		return warnings, nil
	}
	e := fleet.Event{At: now, Cluster: o.Cluster, Distribution: o.Distribution, Version: o.Target, Kind: fleet.EventOrder,
		Message: bounded(fmt.Sprintf("%s handed over an order to %s, signed by %s: %s", who.Actor, o, given.Key, o.Reason))}
	entry := said(now, who, "order "+string(o.Verb), o.Cluster, o.Distribution, o.Target, fmt.Sprintf("%s (order %s, signed by %s)", o.Reason, o.Nonce, given.Key))
	err = c.cfg.Store.PutOrder(given, e, entry)
	switch {
	case errors.Is(err, store.ErrExists):
		return nil, refuse(ErrExists, "order %s is here already; `hub get orders %s` shows what came of it", o.Nonce, o.Cluster)
	case err != nil:
		return nil, fmt.Errorf("keep an order to %s: %w", o.Cluster, err)
	}
	c.cfg.Spokes.Wake(o.Cluster)
	c.cfg.Spokes.Changed()
	return slices.Clip(warnings), nil
}

func orNone(version string) string {
	if version == "" {
		return "nothing"
	}
	return version
}
