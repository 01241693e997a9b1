package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) channelCommand() *cobra.Command {
	return group("channel", "Say under your own signature which release is current, so that nobody can keep it from a spoke unnoticed",
		a.channelSign(), a.channelPublish(), a.channelShow())
}

// statementFlags are what a new statement says.
type statementFlags struct {
	latest, previous, key, out string
	recalled                   []string
	expires                    time.Duration
}

func (a *app) channelSign() *cobra.Command {
	f := statementFlags{}
	c := &cobra.Command{
		Use:   "sign DISTRIBUTION --latest VERSION",
		Short: "Sign what is current, with the vendor's own key",
		Long: `sign writes a statement: which release is the latest, which ones are called back, and until when that is news. It is made
where the vendor's key is, in CI or at a desk, and never by the hub, which can only pass it on: a spoke that names the
vendor's keys under ` + "`signers`" + ` takes it from nobody else, says "Frozen since" when it has run out and nothing newer came, and
leaves a release that it calls back. The keys have to be listed for the namespace ` + signer.Channel + `:

  release@vendor.example namespaces="git,` + signer.Channel + `" ssh-ed25519 AAAA…

Each statement names the one before it: --previous is the file with that one, as sign wrote it or ` + "`hub channel show --signed`" + `
prints it; the first has none. What was called back before stays so. Where several keys have to sign, the others add theirs
with --add FILE.`,
		Example: `  hub channel sign shop --latest 1.4.0 --expires 168h --key ~/.ssh/id_ed25519 --previous shop.channel --out shop.channel
  hub channel sign shop --add shop.channel --key other.pub --out shop.channel
  hub channel publish shop.channel`,
		Args: args(1, 1, "the distribution's NAME"),
	}
	add := ""
	c.Flags().StringVar(&f.latest, "latest", "", "the `VERSION` that is current")
	c.Flags().StringArrayVar(&f.recalled, "recalled", nil, "a `VERSION` that is called back from here on; may be given again")
	c.Flags().DurationVar(&f.expires, "expires", 7*24*time.Hour, "for how long it is news; sign the next one before that")
	c.Flags().StringVar(&f.previous, "previous", "", "`FILE` with the statement before this one")
	c.Flags().StringVar(&add, "add", "", "`FILE` with a statement to add a signature to")
	c.Flags().StringVar(&f.key, "key", "", "private SSH key, or the .pub `FILE` of one that the SSH agent has (default: the agent's only key)")
	c.Flags().StringVar(&f.out, "out", "", "`FILE` to write to (default: standard output)")
	c.RunE = func(c *cobra.Command, given []string) error {
		s, err := a.newStatement(given[0], f, add)
		if err != nil {
			return exitcode.With(exitcode.Usage, err)
		}
		key, done, err := a.sshKey(f.key)
		if err != nil {
			return exitcode.With(exitcode.Usage, err)
		}
		defer done()
		s, err = s.Sign(func(text []byte) ([]byte, error) { return signer.SignSSH(text, key, signer.Channel) })
		if err != nil {
			return exitcode.With(exitcode.Usage, err)
		}
		if f.out == "" {
			_, err := a.out.Write(s.Bytes())
			return err
		}
		if err := os.WriteFile(f.out, s.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write the statement: %w", err)
		}
		fmt.Fprintf(a.err, "statement %d of %s: %s is the latest until %s; next: hub channel publish %s\n", s.Sequence, s.Distribution, s.Latest, fleet.Moment(s.Expires), f.out)
		return nil
	}
	return c
}

// newStatement is what is to be signed: a new one, or one that others have signed.
func (a *app) newStatement(distribution string, f statementFlags, add string) (channel.Signed, error) {
	if add != "" {
		if f.latest != "" || f.previous != "" || len(f.recalled) > 0 {
			return channel.Signed{}, errors.New("--add takes the statement as it is: leave out --latest, --recalled and --previous")
		}
		return readStatement(add, distribution)
	}
	if f.latest == "" {
		return channel.Signed{}, fmt.Errorf("which release is current? Name it: hub channel sign %s --latest VERSION", distribution)
	}
	s := channel.Statement{Distribution: distribution, Sequence: 1, Latest: f.latest, Recalled: f.recalled, Issued: a.now(), Expires: a.now().Add(f.expires)}
	if f.previous != "" {
		before, err := readStatement(f.previous, distribution)
		if err != nil {
			return channel.Signed{}, fmt.Errorf("--previous: %w", err)
		}
		s.Sequence, s.Previous = before.Sequence+1, before.Digest()
		s.Recalled = append(slices.Clone(before.Recalled), s.Recalled...)
	}
	fleet.SortVersions(s.Recalled)
	s.Recalled = slices.Compact(s.Recalled)
	return channel.New(s)
}

func readStatement(file, distribution string) (channel.Signed, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return channel.Signed{}, fmt.Errorf("%w; the first statement of a distribution has none before it", err)
	}
	if err != nil {
		return channel.Signed{}, err
	}
	s, err := channel.Parse(raw)
	switch {
	case err != nil:
		return s, fmt.Errorf("%s: %w", file, err)
	case distribution != "" && s.Distribution != distribution:
		return s, fmt.Errorf("%s is about distribution %s, not %s", file, s.Distribution, distribution)
	}
	return s, nil
}

func (a *app) channelPublish() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:     "publish FILE",
		Short:   "Have the hub pass a signed statement on to every spoke",
		Example: "  hub channel publish shop.channel",
		Args:    args(1, 1, "the FILE that hub channel sign wrote"),
		RunE: func(c *cobra.Command, given []string) error {
			s, err := readStatement(given[0], "")
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				if _, err := hub.PublishStatement(ctx, &fleetv1.PublishStatementRequest{Statement: s.Bytes(), DryRun: dryRun}); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "statement %d of %s %s: %s is the latest until %s\n", s.Sequence, s.Distribution, done("passed on", dryRun), s.Latest, fleet.Moment(s.Expires))
				return nil
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check it and pass nothing on")
	return c
}

func (a *app) channelShow() *cobra.Command {
	var signed bool
	c := &cobra.Command{
		Use:   "show DISTRIBUTION",
		Short: "Show what the vendor has stated so far",
		Args:  args(1, 1, "the distribution's NAME"),

		ValidArgsFunction: a.complete(distributionArg),
	}
	p := a.output(c)
	c.Flags().BoolVar(&signed, "signed", false, "print the last one as it was signed, for --previous of the next")
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.GetChannel(ctx, &fleetv1.GetChannelRequest{Distribution: given[0]})
			if err != nil {
				return err
			}
			all := r.GetStatements()
			if signed {
				if len(all) == 0 {
					return exitcode.With(exitcode.Failed, fmt.Errorf("nothing was stated about %s yet; sign the first: hub channel sign %[1]s --latest VERSION", given[0]))
				}
				_, err := a.out.Write(all[len(all)-1].GetSigned())
				return err
			}
			return p.Print(a.statements(given[0], r))
		})
	}
	return c
}

func (a *app) statements(distribution string, r *fleetv1.GetChannelResponse) printer.Answer {
	answer := printer.Answer{Message: r, Headers: []string{"SEQUENCE", "LATEST", "RECALLED", "ISSUED", "EXPIRES", "STATE"}, WideHeaders: []string{"DIGEST"},
		Empty: fmt.Sprintf("Nothing was stated about %s yet. Sign the first: hub channel sign %[1]s --latest VERSION", distribution)}
	for n, s := range r.GetStatements() {
		state := "replaced"
		if n == len(r.GetStatements())-1 {
			if state = "current"; !a.now().Before(wire.FromTime(s.GetExpires())) {
				state = "expired: sign the next"
			}
		}
		answer.Rows = append(answer.Rows, []string{fmt.Sprint(s.GetSequence()), s.GetLatest(), strings.Join(s.GetRecalled(), ","), stamp(s.GetIssued()), stamp(s.GetExpires()), state})
		answer.WideRows = append(answer.WideRows, []string{s.GetDigest()})
		answer.Names = append(answer.Names, fmt.Sprint(s.GetSequence()))
	}
	return answer
}
