package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Read the record of what was changed, by whom, and why", a.auditExport(), a.auditVerify(), a.auditCompare())
}

func (a *app) auditExport() *cobra.Command {
	req := &fleetv1.ExportAuditRequest{}
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the audit as lines of JSON, oldest first",
		Long: `export writes one JSON object a line. hash is SHA-256 over previous, the hash of the entry before, and record,
the bytes that were hashed; all three are base64.`,
		Example: "  hub audit export > audit.jsonl\n  hub audit export --after 1200 >> audit.jsonl",
		Args:    args(0, 0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				return entries(ctx, hub, req, func(e *fleetv1.AuditEntry) error {
					line, err := jsonLine(e)
					if err != nil {
						return fmt.Errorf("writing audit entry %d: %w", e.GetNumber(), err)
					}
					_, err = a.out.Write(line)
					return err
				})
			})
		},
	}
	c.Flags().Uint64Var(&req.After, "after", 0, "only the entries above number `N`")
	return c
}

func (a *app) auditVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Recompute the audit's chain of hashes from what the hub exports",
		Long: `verify reads the whole audit and computes every hash anew, here. It prints the last one: kept elsewhere, it
proves later that nothing before it was changed.

Exit code 0: the chain is whole; 1: it is not, and where it breaks first; 2: the hub could not be asked.`,
		Args: args(0, 0, "no argument"),
		RunE: func(c *cobra.Command, _ []string) error {
			var last *fleetv1.AuditEntry
			err := a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				return entries(ctx, hub, &fleetv1.ExportAuditRequest{}, func(e *fleetv1.AuditEntry) error {
					if err := follows(last, e); err != nil {
						return exitcode.With(exitcode.Failed, err)
					}
					last = e
					return nil
				})
			})
			switch {
			case err != nil:
				return err
			case last == nil:
				fmt.Fprintln(a.out, "the audit is empty: nobody has changed anything yet")
				return nil
			}
			fmt.Fprintf(a.out, "%s, whole: the last one is number %d of %s, sha256:%s\n", plural(int(last.GetNumber()), "entry", "entries"), last.GetNumber(), stamp(last.GetAt()), hex.EncodeToString(last.GetHash()))
			return nil
		},
	}
}

// entries hands over what the hub exports, one by one.
func entries(ctx context.Context, hub fleetv1.FleetServiceClient, req *fleetv1.ExportAuditRequest, each func(*fleetv1.AuditEntry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream where each had enough
	stream, err := hub.ExportAudit(ctx, req)
	if err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(r.GetEntry()); err != nil {
			return err
		}
	}
}

// follows checks that the entry is what was hashed and the next one after last; nil: the first of all.
func follows(last, e *fleetv1.AuditEntry) error {
	if want := last.GetNumber() + 1; e.GetNumber() != want {
		return fmt.Errorf("audit entry %d is missing: after %d comes %d; keep the hub's store as it is and compare with an earlier export", want, last.GetNumber(), e.GetNumber())
	}
	err := store.VerifyAudit([]fleet.Entry{{Number: e.GetNumber(), At: wire.FromTime(e.GetAt()), Actor: e.GetActor(), Credential: e.GetCredential(), Action: e.GetAction(),
		Object: e.GetObject(), Reason: e.GetReason(), Previous: e.GetPrevious(), Hash: e.GetHash(), Record: e.GetRecord()}}, last.GetHash())
	if err != nil {
		return fmt.Errorf("%w (%s: %s %s, by %s)", err, stamp(e.GetAt()), plain(e.GetAction()), plain(e.GetObject()), plain(e.GetActor()))
	}
	return nil
}
