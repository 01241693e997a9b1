package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// signerFlags are whose signatures are asked for.
type signerFlags struct {
	files     []string
	threshold uint32
}

func (f *signerFlags) flags(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.files, "signers", nil, "`FILE` with the keys whose signed tags are releases: allowed signers of SSH (ssh-keygen(1)), or armoured OpenPGP public keys; may be given again")
	c.Flags().Uint32Var(&f.threshold, "threshold", 0, "how many different keys have to have signed a tag (default 1)")
}

// read makes the message; nil where no file is named.
func (f *signerFlags) read() (*fleetv1.Signers, error) {
	if len(f.files) == 0 {
		if f.threshold > 0 {
			return nil, fmt.Errorf("--threshold %d of which keys? Name them with --signers FILE", f.threshold)
		}
		return nil, nil
	}
	m := &fleetv1.Signers{Threshold: f.threshold}
	for _, name := range f.files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read signers: %w", err)
		}
		m.Files = append(m.Files, &fleetv1.SignerFile{Name: name, Text: string(text)})
	}
	return m, nil
}

// signersOf is the noun.
func signersOf(m *fleetv1.Signers) fleet.Signers {
	s := fleet.Signers{Threshold: int(m.GetThreshold())}
	for _, f := range m.GetFiles() {
		s.Files = append(s.Files, fleet.SignerFile{Name: f.GetName(), Text: f.GetText()})
	}
	return s
}

func (a *app) printSigners(m *fleetv1.Signers) {
	if m == nil {
		return
	}
	fmt.Fprintf(a.out, "its tags need %d of %s:\n", m.GetThreshold(), plural(len(m.GetKeys()), "signature", "signatures"))
	for _, k := range m.GetKeys() {
		fmt.Fprintf(a.out, "  %s\n", plain(k))
	}
}

// signedBy is a cell: how many keys of how many have to sign; empty for nobody.
func signedBy(m *fleetv1.Signers) string {
	if m == nil {
		return ""
	}
	return fmt.Sprintf("%d of %d", m.GetThreshold(), len(m.GetKeys()))
}

func (a *app) distributionSet() *cobra.Command {
	keys := signerFlags{}
	var none, yes, dryRun bool
	c := &cobra.Command{
		Use:   "set NAME --signers FILE",
		Short: "Say whose signatures the tags of a distribution need from now on",
		Long: `set replaces the keys whose signed tags become releases. What was judged before stays as it was judged. A tag that some
of the keys have signed, and fewer than --threshold, waits for the others: they push theirs beside it, made by git alone,

  git tag -s 1.4.0 COMMIT && git push origin refs/tags/1.4.0:refs/signatures/1.4.0/NAME`,
		Example: `  hub distribution set shop --signers allowed_signers --threshold 2
  hub distribution set shop --no-signers`,
		Args: args(1, 1, "the distribution's NAME"),

		ValidArgsFunction: a.complete(distributionArg),
		RunE: func(c *cobra.Command, given []string) error {
			signers, err := keys.read()
			if err == nil && (signers == nil) != none {
				err = errors.New("whose signatures? Name files of keys with --signers FILE, or give --no-signers where anybody's tag shall be a release")
			}
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if none {
				if err := a.confirm(fmt.Sprintf("publish tags of %s whoever made them", given[0]), yes || dryRun); err != nil {
					return err
				}
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				r, err := hub.SetSigners(ctx, &fleetv1.SetSignersRequest{Distribution: given[0], Signers: signers, DryRun: dryRun})
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "distribution %s %s\n", given[0], done("changed", dryRun))
				a.printSigners(r.GetSigners())
				return nil
			})
		},
	}
	keys.flags(c)
	c.Flags().BoolVar(&none, "no-signers", false, "anybody's tags are releases")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check the keys and change nothing")
	return c
}

// trailer are the lines that tie the content, and whose release it is, into a signed tag.
func trailer(sum string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "to tie the content into the tag's signature, end the tag's message with the line\n  Bundle-SHA256: %s\n", sum)
	b.WriteString("where the same keys sign several distributions, this line keeps one from passing for another:\n  Wheelwright-Distribution: NAME\n")
	return b.String()
}
