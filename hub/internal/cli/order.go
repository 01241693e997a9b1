package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// ordering is what a person types of an order.
type ordering struct {
	to, running, reason, key string
	expires                  time.Duration
	dryRun, yes, wait        bool
}

func (a *app) orderCommand() *cobra.Command {
	o := ordering{}
	c := &cobra.Command{
		Use:   "order PROVIDER/NAME DISTRIBUTION VERB --reason WHY",
		Short: "Order a spoke, under your own SSH key, what no hub may order it by itself",
		Long: `order writes an order to one spoke, shows it, has you sign it with your own SSH key, here, and has the hub take it to
the spoke. The hub can neither make nor alter one: the spoke asks the list of its provider, under "operators" in its
spoke.yaml, whether your key counts and for what. Each order is obeyed once, before it expires, and only where what
runs is what you believe.

Verbs: rollback         back to --to, an earlier release that the spoke keeps, as "spoke rollback" does
       force            take --to up again, which is held there, or answer what its delivery asks, as "spoke approve"
                        does, but for deletions beyond the budget. Windows, pins and signatures count as before
       widen-prune      answer, once, that the delivery of --to may delete more than the deletion budget
       run-conformance  run the tests of --to again, which came to no verdict and wait for the provider

The key is a file, or, with its .pub file or without --key, the SSH agent's: hardware keys work through that.
$` + passphraseVariable + ` is the passphrase of an encrypted file where there is no terminal.`,
		Example: `  hub order acme/eu-1 shop rollback --to 1.3.0 --reason 'loses orders' --key ~/.ssh/id_ed25519 --wait
  hub order acme/eu-1 shop widen-prune --reason 'the old workers go' --expires 1h`,
		Args:              args(3, 3, "PROVIDER/NAME, DISTRIBUTION and VERB"),
		ValidArgsFunction: a.complete(clusterArg, distributionArg, verbArg),
		RunE: func(c *cobra.Command, given []string) error {
			if err := cluster(given[0]); err != nil {
				return err
			}
			verb, err := order.ParseVerb(given[2])
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if strings.TrimSpace(o.reason) == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("why? The provider reads it: `hub order %s --reason '…'`", strings.Join(given, " ")))
			}
			if verb == order.RollBack && o.to == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("back to what? `hub order %s --to VERSION`; `spoke status` at the cluster lists what it keeps", strings.Join(given, " ")))
			}
			return a.order(c.Context(), fleet.Cluster(given[0]), given[1], verb, o)
		},
	}
	c.Flags().StringVar(&o.to, "to", "", "`VERSION` that it is about (default, but for rollback: the one that is under way there)")
	c.Flags().StringVar(&o.running, "running", "", "`VERSION` that has to run for the order to be obeyed (default: what the hub heard last; - for nothing)")
	c.Flags().StringVar(&o.reason, "reason", "", "`WHY`")
	c.Flags().StringVar(&o.key, "key", "", "`FILE` of your SSH key, or its .pub file for the agent's (default: the only key of the agent)")
	c.Flags().DurationVar(&o.expires, "expires", 10*time.Minute, "how long it may be obeyed; at most 24h")
	c.Flags().BoolVar(&o.wait, "wait", false, "wait for the spoke's answer: exit code 0 accepted, 1 refused, 3 expired")
	c.Flags().BoolVar(&o.yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "show the order and what the hub says of it, and neither sign nor send it")
	_ = c.RegisterFlagCompletionFunc("key", cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault))
	return c
}

// order writes, shows, signs and sends one.
func (a *app) order(ctx context.Context, c fleet.Cluster, distribution string, verb order.Verb, o ordering) error {
	var text []byte
	var written order.Order
	err := a.call(ctx, func(ctx context.Context, hub fleetv1.FleetServiceClient) (err error) {
		if written, err = a.write(ctx, hub, c, distribution, verb, o); err != nil {
			return err
		}
		if text, err = written.Text(); err != nil {
			return exitcode.With(exitcode.Usage, err)
		}
		r, err := hub.SendOrder(ctx, &fleetv1.SendOrderRequest{Text: text, DryRun: true}) // before anything is signed
		if err != nil {
			return err
		}
		for _, w := range r.GetWarnings() {
			fmt.Fprintln(a.err, "warning:", plain(w))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if o.dryRun {
		fmt.Fprint(a.out, string(text))
		return nil
	}
	fmt.Fprint(a.err, string(text))
	if err := a.confirm("sign this and have it sent", o.yes); err != nil {
		return err
	}
	key, closeKey, err := a.sshKey(o.key)
	if err != nil {
		return exitcode.With(exitcode.Usage, err)
	}
	defer closeKey()
	sig, err := signer.SignSSH(text, key, order.Namespace)
	if err != nil {
		return exitcode.With(exitcode.Usage, fmt.Errorf("%w; name another key with --key FILE", err))
	}
	err = a.call(ctx, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		r, err := hub.SendOrder(ctx, &fleetv1.SendOrderRequest{Text: text, Signature: sig})
		if err == nil {
			fmt.Fprintf(a.out, "order %s handed over, signed by %s\n", written.Nonce, plain(r.GetOrder().GetKey()))
		}
		return err
	})
	if err != nil || o.wait {
		if err == nil {
			err = a.awaitAnswer(ctx, written)
		}
		return err
	}
	fmt.Fprintf(a.err, "next: hub get orders %s\n", c)
	return nil
}

// write makes the order out of what was typed and what the hub last heard. The spoke compares what it says with what
// is: a hub that is wrong, or lies, gets it refused.
func (a *app) write(ctx context.Context, hub fleetv1.FleetServiceClient, c fleet.Cluster, distribution string, verb order.Verb, o ordering) (order.Order, error) {
	now := a.now().UTC().Truncate(time.Second)
	w := order.Order{Verb: verb, Cluster: c, Distribution: distribution, Target: o.to, Running: o.running, Nonce: order.NewNonce(),
		Issued: now, Expires: now.Add(o.expires.Truncate(time.Second)), Reason: strings.TrimSpace(o.reason)}
	if w.Target == "" || w.Running == "" {
		r, err := hub.ListClusters(ctx, &fleetv1.ListClustersRequest{})
		if err != nil {
			return w, err
		}
		items, err := wanted(r.GetClusters(), []string{string(c)}, (*fleetv1.Cluster).GetName, "cluster", "hub get clusters")
		if err != nil {
			return w, err
		}
		for _, s := range items[0].GetSubscriptions() {
			if s.GetDistribution() != distribution {
				continue
			}
			if w.Target == "" {
				w.Target = s.GetTargetVersion()
			}
			if w.Running == "" {
				w.Running = s.GetRunningVersion()
			}
		}
	}
	if w.Running == "-" {
		w.Running = ""
	}
	if w.Target == "" {
		return w, exitcode.With(exitcode.Usage, fmt.Errorf("which release? Nothing of %s was under way on %s when it was last heard: name it with --to VERSION", distribution, c))
	}
	return w, nil
}

// errAnswered ends a wait.
var errAnswered = errors.New("answered")

// awaitAnswer waits until the spoke has answered, or the order has expired.
func (a *app) awaitAnswer(ctx context.Context, o order.Order) error {
	var got *fleetv1.Order
	err := a.follow(ctx, true, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		r, err := hub.ListOrders(ctx, &fleetv1.ListOrdersRequest{Cluster: string(o.Cluster), Nonce: o.Nonce.String()})
		if err != nil || len(r.GetOrders()) == 0 || fleet.OrderState(r.GetOrders()[0].GetState()) == fleet.OrderWaiting {
			return err
		}
		got = r.GetOrders()[0]
		return errAnswered
	})
	switch {
	case got == nil && err == nil:
		return exitcode.With(exitcode.Usage, errors.New("interrupted; the order stands until it expires"))
	case got == nil:
		return err
	}
	switch answer := plain(got.GetAnswer()); fleet.OrderState(got.GetState()) {
	case fleet.OrderAccepted:
		fmt.Fprintln(a.out, "accepted:", answer)
		fmt.Fprintf(a.err, "next: hub why %s %s\n", o.Cluster, o.Distribution)
		return nil
	case fleet.OrderRefused:
		return exitcode.With(exitcode.Failed, fmt.Errorf("refused by the spoke: %s", answer))
	}
	return exitcode.With(exitcode.TimedOut, fmt.Errorf("no answer of %s until the order expired; `hub get clusters %[1]s` shows whether it is connected", o.Cluster))
}

// listOrders is `hub get orders`.
func listOrders(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error) {
	req := &fleetv1.ListOrdersRequest{}
	if len(names) > 0 {
		req.Cluster = names[0]
	}
	r, err := hub.ListOrders(ctx, req)
	if err != nil {
		return printer.Answer{}, err
	}
	if issues {
		r.Orders = slices.DeleteFunc(r.Orders, func(o *fleetv1.Order) bool {
			s := fleet.OrderState(o.GetState())
			return s != fleet.OrderRefused && s != fleet.OrderExpired
		})
	}
	answer := printer.Answer{Message: r, Empty: "No orders",
		Headers: []string{"CLUSTER", "DISTRIBUTION", "VERB", "TO", "STATE", "SENT", "BY", "REASON"}, WideHeaders: []string{"NONCE", "KEY", "EXPIRES", "ANSWER"}}
	for _, m := range r.GetOrders() {
		o, err := order.Parse(m.GetText())
		if err != nil { // of a hub of another version
			continue
		}
		answer.Rows = append(answer.Rows, []string{string(o.Cluster), o.Distribution, string(o.Verb), o.Target, m.GetState(), stamp(m.GetSent()), plain(m.GetSentBy()), shorten(o.Reason, 60)})
		answer.WideRows = append(answer.WideRows, []string{o.Nonce.String(), plain(m.GetKey()), stamp(wire.Time(o.Expires)), shorten(m.GetAnswer(), 200)})
		answer.Names = append(answer.Names, o.Nonce.String())
	}
	return answer, nil
}
