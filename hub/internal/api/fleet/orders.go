package fleetapi

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// orderly takes orders to spokes, and keeps them.
type orderly interface {
	Order(now time.Time, by caller.Who, o fleet.SignedOrder, dry bool) (warnings []string, err error)
}

// SendOrder takes an operator's signed order to a spoke. The hub looks at the signature so that a mistake is seen
// before an incident; it decides nothing by it.
func (s *Service) SendOrder(ctx context.Context, req *fleetv1.SendOrderRequest) (*fleetv1.SendOrderResponse, error) {
	if n := len(req.GetSignature()); n > order.MaxSignature {
		return nil, invalid("a signature of %d bytes, want at most %d", n, order.MaxSignature)
	}
	given, err := order.Parse(req.GetText())
	if err != nil {
		return nil, invalid("%v; `hub order` writes and signs one", err)
	}
	if _, err := mine(ctx, string(given.Cluster), given.Distribution); err != nil {
		return nil, err
	}
	key := ""
	if !req.GetDryRun() || len(req.GetSignature()) > 0 {
		if key, err = signer.ClaimedBy(req.GetText(), req.GetSignature(), order.Namespace); err != nil {
			return nil, invalid("%s: %v; `hub order` signs it as it has to be", given, err)
		}
	}
	by, now := who(ctx), time.Now()
	o := fleet.SignedOrder{Cluster: given.Cluster, Distribution: given.Distribution, Nonce: given.Nonce.String(), Text: req.GetText(), Signature: req.GetSignature(),
		Key: key, By: by.Actor, Sent: now, Expires: given.Expires}
	warnings, err := s.cfg.Conductor.Order(now, by, o, req.GetDryRun())
	if err != nil {
		return nil, s.refused(fmt.Sprintf("hand over %s", given), err)
	}
	resp := &fleetv1.SendOrderResponse{Order: orderMessage(now, o), Warnings: warnings}
	return resp, s.veil(scopeOf(ctx), resp)
}

// ListOrders lists the orders to the clusters that the caller sees, newest first.
func (s *Service) ListOrders(ctx context.Context, req *fleetv1.ListOrdersRequest) (*fleetv1.ListOrdersResponse, error) {
	sc, now := scopeOf(ctx), time.Now()
	if req.GetCluster() != "" {
		c, err := fleet.ParseCluster(req.GetCluster())
		if err != nil {
			return nil, invalid("%v", err)
		}
		if err := sc.must(c); err != nil {
			return nil, err
		}
	}
	all := slices.DeleteFunc(slices.Clone(s.cfg.Store.Orders()), func(o fleet.SignedOrder) bool {
		return !sc.sees(string(o.Cluster)) || req.GetCluster() != "" && req.GetCluster() != string(o.Cluster) || req.GetNonce() != "" && req.GetNonce() != o.Nonce
	})
	slices.SortFunc(all, func(a, b fleet.SignedOrder) int {
		return cmp.Or(b.Sent.Compare(a.Sent), cmp.Compare(a.Nonce, b.Nonce))
	})
	resp := &fleetv1.ListOrdersResponse{}
	for _, o := range all {
		resp.Orders = append(resp.Orders, orderMessage(now, o))
	}
	return resp, s.veil(sc, resp)
}

func orderMessage(now time.Time, o fleet.SignedOrder) *fleetv1.Order {
	return &fleetv1.Order{Text: o.Text, Signature: o.Signature, SentBy: o.By, Sent: wire.Time(o.Sent), State: string(o.State(now)), Answer: o.Answer,
		Answered: wire.Time(o.Answered), Key: o.Key}
}
