package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/rehome"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) reHomeCommand() *cobra.Command {
	c := group("re-home", "Move a cluster's spoke to another hub, under the vendor's and the provider's own keys",
		a.reHomePrepare(), a.reHomeSign(), a.reHomeSend())
	c.Long = `re-home moves a spoke to another hub without anybody logging in at its cluster. A statement that says where to is signed
with an SSH key of the vendor's and with one of the provider's, in a file that the two hand along; the hub that the
spoke leaves carries it, and can neither make nor alter one. The spoke asks its provider's spoke.yaml alone whether
both count: "operators" that are allowed re-home, and the "signers" of every subscription.

  prepare   invites the cluster at the new hub and writes the file
  sign      adds a signature; the vendor does it, and the provider
  send      hands it to the hub that the spoke belongs to now

The spoke joins the new hub beside the old one, and goes over once the new one has let it in: compare the fingerprint
that "spoke status" prints at the cluster, then "hub cluster accept" at the new hub. What runs is not touched.`
	return c
}

// preparing is what a person types of a re-home.
type preparing struct {
	to, reason, file string
	expires          time.Duration
}

func (a *app) reHomePrepare() *cobra.Command {
	p := preparing{}
	c := &cobra.Command{
		Use:   "prepare PROVIDER/NAME --to CONTEXT --reason WHY",
		Short: "Invite a cluster at another hub, and write the statement that moves it there",
		Long: `prepare speaks to two hubs: to the one of the context in use, which the spoke belongs to, and to the one of the context
file --to. It invites the cluster there, with the labels that it has here, and writes the file that has to be signed. The
token in it works until the statement expires, and lets nobody in by itself.`,
		Example:           "  hub cluster re-home prepare acme/eu-1 --to new/admin.yaml --reason 'the old hub was broken into'",
		Args:              args(1, 1, "the cluster's PROVIDER/NAME"),
		ValidArgsFunction: a.complete(clusterArg),
		RunE: func(c *cobra.Command, given []string) error {
			name, err := fleet.ParseCluster(given[0])
			switch p.file = cmp.Or(p.file, strings.ReplaceAll(given[0], "/", "-")+".re-home"); {
			case err != nil:
				return exitcode.With(exitcode.Usage, err)
			case p.to == "":
				return exitcode.With(exitcode.Usage, fmt.Errorf("where to? Name the context file of the new hub: `hub cluster re-home prepare %s --to FILE`", name))
			case strings.TrimSpace(p.reason) == "":
				return exitcode.With(exitcode.Usage, fmt.Errorf("why? Those who sign read it: `hub cluster re-home prepare %s --reason '…'`", name))
			case p.expires < time.Second || p.expires > rehome.MaxLife:
				return exitcode.With(exitcode.Usage, fmt.Errorf("--expires %v: want 1s to %v", p.expires, rehome.MaxLife))
			}
			return a.prepare(c.Context(), name, p)
		},
	}
	c.Flags().StringVar(&p.to, "to", "", "context `FILE` of the new hub")
	c.Flags().StringVar(&p.reason, "reason", "", "`WHY`")
	c.Flags().DurationVar(&p.expires, "expires", 24*time.Hour, "how long the whole move may take, signatures and acceptance included; at most 168h")
	c.Flags().StringVarP(&p.file, "output", "o", "", "`FILE` to write (default: PROVIDER-NAME.re-home); one that is there is left alone")
	_ = c.RegisterFlagCompletionFunc("to", cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault))
	return c
}

// prepare asks both hubs, and writes the file.
func (a *app) prepare(ctx context.Context, name fleet.Cluster, p preparing) (err error) {
	now := a.now().UTC().Truncate(time.Second)
	s := rehome.Statement{Cluster: name, Nonce: order.NewNonce(), Issued: now, Expires: now.Add(p.expires.Truncate(time.Second)), Reason: strings.TrimSpace(p.reason)}
	if err := order.CheckReason(s.Reason); err != nil {
		return exitcode.With(exitcode.Usage, err)
	}
	var cluster *fleetv1.Cluster
	err = a.call(ctx, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		r, err := hub.ListClusters(ctx, &fleetv1.ListClustersRequest{})
		if err != nil {
			return err
		}
		items, err := wanted(r.GetClusters(), []string{string(name)}, (*fleetv1.Cluster).GetName, "cluster", "hub get clusters")
		if err != nil {
			return err
		}
		cluster = items[0]
		s.From, err = authorityOf(ctx, hub)
		return err
	})
	if err != nil {
		return err
	}
	place, err := os.OpenFile(p.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case errors.Is(err, os.ErrExist):
		return exitcode.With(exitcode.Usage, fmt.Errorf("%s is there already and is left alone: it may be signed; name another with -o FILE", p.file))
	case err != nil:
		return exitcode.With(exitcode.Usage, fmt.Errorf("write %s: %w; name another with -o FILE", p.file, err))
	}
	defer func() {
		if err = errors.Join(err, place.Close()); err != nil {
			_ = os.Remove(p.file)
		}
	}()
	if err := a.inviteThere(ctx, cluster, p, &s); err != nil {
		return err
	}
	text, err := s.Text()
	if err != nil {
		return exitcode.With(exitcode.Failed, err)
	}
	if _, err := place.Write(text); err != nil {
		return exitcode.With(exitcode.Failed, fmt.Errorf("write %s: %w", p.file, err))
	}
	fmt.Fprintf(a.out, "%s written to %s, good until %s\n", s, p.file, fleet.Moment(s.Expires))
	fmt.Fprintf(a.err, "next: hub cluster re-home sign %s --key KEY   # the vendor, and then the provider\n", p.file)
	return nil
}

// inviteThere fills in what the new hub says.
func (a *app) inviteThere(ctx context.Context, c *fleetv1.Cluster, p preparing, s *rehome.Statement) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return a.at(ctx, p.to, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		pin, err := authorityOf(ctx, hub)
		if err != nil {
			return err
		}
		if pin == s.From {
			return exitcode.With(exitcode.Usage, fmt.Errorf("--to %s is the hub that %s belongs to already; name the context file of another", p.to, c.GetName()))
		}
		r, err := hub.InviteCluster(ctx, &fleetv1.InviteClusterRequest{Name: c.GetName(), Labels: c.GetLabels(), TtlSeconds: uint32(p.expires.Seconds())})
		if err != nil {
			return err
		}
		if r.GetRejoin() {
			fmt.Fprintf(a.err, "%s has joined the new hub before: its identity there ends when the token is used\n", c.GetName())
		}
		s.To = r.GetAddress()
		s.Token, err = token.Parse(r.GetToken())
		return err
	})
}

// authorityOf is the pin of a hub's authority.
func authorityOf(ctx context.Context, hub fleetv1.FleetServiceClient) (string, error) {
	v, err := hub.GetVersion(ctx, &fleetv1.GetVersionRequest{})
	if err == nil && v.GetAuthorityPin() == "" {
		err = exitcode.With(exitcode.Failed, fmt.Errorf("the hub is of version %s, which does not know re-homes: upgrade it first", plain(v.GetVersion())))
	}
	return v.GetAuthorityPin(), err
}

func (a *app) reHomeSign() *cobra.Command {
	var keyFile string
	var yes bool
	c := &cobra.Command{
		Use:   "sign FILE",
		Short: "Add your signature to a re-home; no hub is asked",
		Long: `sign shows the statement and adds a signature over it to the file. The vendor signs, with as many keys as the "signers" of
each subscription in spoke.yaml ask for, and the provider, with a key of an operator who is allowed re-home there. The keys
have to be listed for the namespace ` + rehome.Namespace + `:

  release@vendor.example namespaces="git,` + rehome.Namespace + `" ssh-ed25519 AAAA…

The key is a file, or, with its .pub file or without --key, the SSH agent's: hardware keys work through that.
$` + passphraseVariable + ` is the passphrase of an encrypted file where there is no terminal.`,
		Example: "  hub cluster re-home sign acme-eu-1.re-home --key ~/.ssh/id_ed25519",
		Args:    args(1, 1, "the FILE that hub cluster re-home prepare wrote"),
		RunE: func(_ *cobra.Command, given []string) error {
			s, err := readReHome(given[0])
			if err == nil {
				err = s.Fresh(a.now())
			}
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			fmt.Fprint(a.err, string(s.Text))
			if err := a.confirm("sign this", yes); err != nil {
				return err
			}
			key, done, err := a.sshKey(keyFile)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			defer done()
			n, err := addSignature(given[0], s, key)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			fmt.Fprintf(a.out, "%s signed by %s; signatures in %s: %d\n", s.Statement, ssh.FingerprintSHA256(key.PublicKey()), given[0], n)
			if n == 1 {
				fmt.Fprintf(a.err, "next: hub cluster re-home sign %s --key KEY   # the other company\n", given[0])
			} else {
				fmt.Fprintf(a.err, "next: hub cluster re-home send %s\n", given[0])
			}
			return nil
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "`FILE` of your SSH key, or its .pub file for the agent's (default: the only key of the agent)")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	_ = c.RegisterFlagCompletionFunc("key", cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault))
	return c
}

func readReHome(file string) (rehome.Signed, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return rehome.Signed{}, err
	}
	s, err := rehome.ParseSigned(raw)
	if err != nil {
		return s, fmt.Errorf("%s: %w; `hub cluster re-home prepare` writes one", file, err)
	}
	return s, nil
}

// addSignature replaces the file, and returns how many signatures are in it.
func addSignature(file string, s rehome.Signed, key ssh.Signer) (int, error) {
	for _, sig := range s.Signatures {
		if by, err := signer.ClaimedBy(s.Text, sig, rehome.Namespace); err != nil {
			return 0, fmt.Errorf("%s: %w: prepare it anew", file, err)
		} else if by == ssh.FingerprintSHA256(key.PublicKey()) {
			return 0, fmt.Errorf("%s has a signature of %s already; vendor and provider sign with keys of their own: name another with --key FILE", file, by)
		}
	}
	sig, err := signer.SignSSH(s.Text, key, rehome.Namespace)
	if err != nil {
		return 0, fmt.Errorf("%w; name another key with --key FILE", err)
	}
	if s, err = s.Sign(sig); err != nil {
		return 0, err
	}
	if err := wholefile.Write(file, "."+filepath.Base(file)+"-*", s.Bytes()); err != nil {
		return 0, fmt.Errorf("write %s: %w", file, err)
	}
	return len(s.Signatures), nil
}

func (a *app) reHomeSend() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:     "send FILE",
		Short:   "Have the hub that the spoke belongs to carry a signed re-home to it",
		Example: "  hub cluster re-home send acme-eu-1.re-home",
		Args:    args(1, 1, "the FILE that vendor and provider have signed"),
		RunE: func(c *cobra.Command, given []string) error {
			s, err := readReHome(given[0])
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.SendReHome(ctx, &fleetv1.SendReHomeRequest{Signed: s.Bytes(), DryRun: dryRun})
				if err != nil {
					return err
				}
				for _, w := range r.GetWarnings() {
					fmt.Fprintln(a.err, "warning:", plain(w))
				}
				fmt.Fprintf(a.out, "%s %s, signed by %s\n", s.Statement, done("handed over", dryRun), plain(strings.Join(r.GetReHome().GetKeys(), " and ")))
				if !dryRun {
					fmt.Fprintf(a.err, "next: hub get re-homes %s; at the new hub, once the provider has read out the key of `spoke status`: hub cluster accept %s --fingerprint SHA256:…\n", s.Cluster, s.Cluster)
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "have the hub check it and carry nothing")
	return c
}

// listReHomes is `hub get re-homes`.
func listReHomes(ctx context.Context, hub fleetv1.FleetServiceClient, _ *app, names []string, issues bool) (printer.Answer, error) {
	req := &fleetv1.ListReHomesRequest{}
	if len(names) > 0 {
		req.Cluster = names[0]
	}
	r, err := hub.ListReHomes(ctx, req)
	if err != nil {
		return printer.Answer{}, err
	}
	if issues {
		r.ReHomes = slices.DeleteFunc(r.ReHomes, func(m *fleetv1.ReHome) bool {
			s := fleet.ReHomeState(m.GetState())
			return s != fleet.ReHomeRefused && s != fleet.ReHomeGivenUp && s != fleet.ReHomeExpired
		})
	}
	answer := printer.Answer{Message: r, Empty: "No re-homes",
		Headers: []string{"CLUSTER", "TO", "STATE", "SENT", "BY", "ANSWER"}, WideHeaders: []string{"NONCE", "EXPIRES", "KEYS", "REASON"}}
	for _, m := range r.GetReHomes() {
		answer.Rows = append(answer.Rows, []string{m.GetCluster(), plain(m.GetTo()), m.GetState(), stamp(m.GetSent()), plain(m.GetSentBy()), shorten(m.GetAnswer(), 100)})
		answer.WideRows = append(answer.WideRows, []string{m.GetNonce(), stamp(m.GetExpires()), plain(strings.Join(m.GetKeys(), ",")), shorten(m.GetReason(), 60)})
		answer.Names = append(answer.Names, m.GetCluster())
	}
	return answer, nil
}
