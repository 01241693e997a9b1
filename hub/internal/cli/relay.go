package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/hub"
	"github.com/wheelwright-dev/wheelwright/hub/internal/relay"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) relayCommand() *cobra.Command {
	return group("relay", "Run a relay between a hub and many spokes; invite and remove relays", a.relayInvite(), a.relayJoin(), a.relayServe(), a.relayRemove())
}

func (a *app) relayInvite() *cobra.Command {
	req := &fleetv1.InviteRelayRequest{}
	var ttl time.Duration
	c := &cobra.Command{
		Use:   "invite NAME --host HOST",
		Short: "Print the line with which a relay joins",
		Long: `invite prints one "hub relay join" line to run where the relay is to be. Its token works once, for ten minutes.

HOST is what spokes dial the relay by: its certificate is for that alone, and marked as a relay's, so that no spoke
takes it for the hub. A relay reads none of what is secret between a spoke and the hub, and can speak for neither.`,
		Example: "  hub relay invite fra-1 --host relay.fra.example.com",
		Args:    args(1, 1, "the relay's NAME"),
		RunE: func(c *cobra.Command, given []string) error {
			if len(req.Hosts) == 0 {
				return exitcode.With(exitcode.Usage, fmt.Errorf("what do spokes dial it by? `hub relay invite %s --host relay.example.com`", given[0]))
			}
			if ttl < time.Second || ttl > 10*time.Minute {
				return exitcode.With(exitcode.Usage, fmt.Errorf("--ttl %v: want 1s to 10m", ttl))
			}
			req.Name, req.TtlSeconds = given[0], uint32(ttl.Seconds())
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.InviteRelay(ctx, req)
				if err != nil {
					return err
				}
				if r.GetRejoin() {
					fmt.Fprintf(a.err, "relay %s has joined before: what it has now ends when this token is used\n", req.GetName())
				}
				if req.GetDryRun() {
					fmt.Fprintf(a.out, "relay %s %s\n", req.GetName(), done("invited", true))
					return nil
				}
				fmt.Fprintf(a.err, "token for relay %s, valid once, until %s; run this where the relay is to be, then hub relay serve:\n", req.GetName(), r.GetExpires().AsTime().Local().Format(time.DateTime))
				fmt.Fprintf(a.out, "hub relay join --hub %s --token %s --data ./relay-data\n", r.GetAddress(), r.GetToken())
				return nil
			})
		},
	}
	c.Flags().StringSliceVar(&req.Hosts, "host", nil, "name or address that spokes dial it by: `HOST`, repeatable")
	c.Flags().DurationVar(&ttl, "ttl", 10*time.Minute, "how long the token works: at most 10m")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}

func (a *app) relayJoin() *cobra.Command {
	var cfg relay.JoinConfig
	c := &cobra.Command{
		Use:   "join --hub HOST:PORT --token T --data DIR",
		Short: "Give this relay its identity at a hub",
		Long: `join redeems a one-time token for an identity, which it keeps in the data folder. The hub is believed only if its
authority is the one that the token is pinned to.`,
		Example: "  hub relay join --hub hub.example.com:7443 --token ww1.… --data ./relay-data",
		Args:    args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			if cfg.Hub == "" || cfg.Token == "" || cfg.Dir == "" {
				return exitcode.With(exitcode.Usage, errors.New("join needs --hub HOST:PORT, --token T and --data DIR: run the whole line that `hub relay invite NAME --host HOST` prints"))
			}
			if _, err := token.Parse(cfg.Token); err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			id, err := relay.Join(c.Context(), cfg)
			if err != nil {
				return exitcode.With(exitcode.Failed, err)
			}
			fmt.Fprintf(a.out, "joined %s as relay %s for %s; the certificates are valid until %s and renew themselves\n", id.Hub, id.Name, strings.Join(id.Hosts, ", "), id.NotAfter.UTC().Format(time.RFC3339))
			fmt.Fprintf(a.err, "next: hub relay serve --data %s --listen :7444\n", cfg.Dir)
			return nil
		},
	}
	c.Flags().StringVar(&cfg.Hub, "hub", "", "`HOST:PORT` of the hub")
	c.Flags().StringVar(&cfg.Token, "token", "", "one-time `TOKEN`")
	c.Flags().StringVar(&cfg.Dir, "data", "", "data `DIR`")
	c.Flags().BoolVar(&cfg.Force, "force", false, "replace the identity that the data folder holds")
	return c
}

func (a *app) relayServe() *cobra.Command {
	var cfg hub.RelayConfig
	var level, format string
	c := &cobra.Command{
		Use:   "serve --data DIR",
		Short: "Run a relay",
		Long: `serve carries the streams of many spokes to the hub over one connection, and keeps bundles for them: each crosses the
way to the hub once. Spokes reach it with "spoke join … --via HOST:PORT", or "spoke via HOST:PORT" later. What else
they say to the hub is passed on as it is, in TLS that ends at the hub.

The hub may be away at any time: the spokes are told so, keep what runs, and are still served the bundles that are here.
It stops on SIGINT or SIGTERM.`,
		Example: "  hub relay serve --data ./relay-data --listen :7444",
		Args:    args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := logging.New(a.err, level, format)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if cfg.Dir == "" {
				return exitcode.With(exitcode.Usage, errors.New("which data folder? Name it: `hub relay serve --data DIR`; `hub relay join` makes it"))
			}
			cfg.Log = log
			return exitcode.With(exitcode.Failed, hub.RunRelay(c.Context(), cfg, func(i hub.RelayInfo) {
				fmt.Fprintf(a.err, "hub: relay %s of the hub at %s, serving on %s\n", i.Name, i.Hub, i.Addr)
			}))
		},
	}
	c.Flags().StringVar(&cfg.Dir, "data", "", "data `DIR`")
	c.Flags().StringVar(&cfg.Listen, "listen", "", "`ADDR` to listen on (default 127.0.0.1:7444)")
	c.Flags().StringVar(&cfg.Metrics, "metrics", "", "`ADDR` for /metrics, /healthz and /readyz (default: none)")
	c.Flags().Int64Var(&cfg.Keep, "keep", 0, "`BYTES` of compressed bundles to keep at most (default 2 GiB)")
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	c.Flags().StringVar(&format, "log-format", "text", "text or json")
	return c
}

func (a *app) relayRemove() *cobra.Command {
	req := &fleetv1.RemoveRelayRequest{}
	var yes bool
	c := &cobra.Command{
		Use:   "remove NAME --reason WHY",
		Short: "End a relay's certificates and its connection, at once; its spokes keep what runs",
		Long: `remove ends what a relay is known by. The spokes behind it are not reached through it any more and keep what runs;
"spoke via HOST:PORT" leads each to another relay, "spoke via --direct" to the hub itself.`,
		Args:              args(1, 1, "the relay's NAME"),
		ValidArgsFunction: a.complete(relayArg),
		RunE: func(c *cobra.Command, given []string) error {
			if strings.TrimSpace(req.Reason) == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("why? The audit keeps it: `hub relay remove %s --reason '…'`", given[0]))
			}
			if err := a.confirm(fmt.Sprintf("end relay %s, and with it the way of the spokes behind it", given[0]), yes || req.DryRun); err != nil {
				return err
			}
			req.Name = given[0]
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				if _, err := hub.RemoveRelay(ctx, req); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "relay %s %s\n", given[0], done("removed", req.DryRun))
				return nil
			})
		},
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "`WHY`")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}

// listRelays is `hub get relays`.
func listRelays(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error) {
	r, err := hub.ListRelays(ctx, &fleetv1.ListRelaysRequest{})
	if err != nil {
		return printer.Answer{}, err
	}
	items, err := wanted(r.GetRelays(), names, (*fleetv1.Relay).GetName, "relay", "hub get relays")
	if err != nil {
		return printer.Answer{}, err
	}
	if issues {
		items = slices.DeleteFunc(slices.Clone(items), func(r *fleetv1.Relay) bool { return a.relayState(r) == relayConnected })
	}
	answer := printer.Answer{
		Message: &fleetv1.ListRelaysResponse{Relays: items}, Empty: "No relays. Invite one: hub relay invite NAME --host HOST",
		Headers: []string{"NAME", "STATE", "SPOKES", "HOSTS", "CERTIFICATE UNTIL"}, WideHeaders: []string{"JOINED", "CREATED", "BY"},
	}
	for _, r := range items {
		answer.Rows = append(answer.Rows, []string{r.GetName(), a.relayState(r), fmt.Sprint(r.GetSpokes()), strings.Join(r.GetHosts(), ","), stamp(r.GetCertificateNotAfter())})
		answer.WideRows = append(answer.WideRows, []string{stamp(r.GetJoined()), stamp(r.GetCreated()), r.GetCreatedBy()})
		answer.Names = append(answer.Names, r.GetName())
	}
	return answer, nil
}

const relayConnected = "Connected"

func (a *app) relayState(r *fleetv1.Relay) string {
	switch end := wire.FromTime(r.GetCertificateNotAfter()); {
	case r.GetConnected():
		return relayConnected
	case r.GetJoined() == nil:
		return "Invited"
	case !a.now().Before(end):
		return "Expired"
	}
	return "Away"
}
