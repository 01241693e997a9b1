package cli

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) operatorCommand() *cobra.Command {
	return group("operator", "Give people and programs a role at the hub, and take it away", a.operatorAdd(), a.operatorRemove())
}

func (a *app) operatorAdd() *cobra.Command {
	var role, ttl, file string
	var dryRun bool
	c := &cobra.Command{
		Use:   "add NAME --role ROLE",
		Short: "Write a context file with which somebody operates the hub",
		Long: `add makes a key here, has the hub sign a certificate for it, and writes both into a context file for NAME to use
with --context FILE or $` + contextVariable + `. The key is nowhere else; the file is as secret as a password.

Roles: admin            everything
       viewer           everything that only reads
       vendor-release   what goes out: distributions, recalls, starting and steering rollouts
       vendor-operator  to whom: clusters, rollouts, signed orders and re-homes, and operators that are viewer or provider:NAME
       approver:ROLE    reads, and answers a rollout's gate whose plan says "approval: ROLE"
       provider:NAME    sees and changes the provider's own clusters: status, pins, approvals, signed orders and re-homes

"hub auth can-i --list" says what one's own role comes to, method by method.

What an operator may do is in the hub's record, not in the file: "hub operator remove" ends it at once.`,
		Example: "  hub operator add maria --role approver:qa\n  hub operator add ci@acme --role provider:acme --ttl 30d -o acme.yaml",
		Args:    args(1, 1, "the operator's NAME"),
		RunE: func(c *cobra.Command, given []string) error {
			req, err := a.operatorRequest(given[0], role, ttl)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if file == "" {
				file = given[0] + ".yaml"
			}
			if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
				return exitcode.With(exitcode.Usage, inTheWay(file))
			}
			if req.DryRun = dryRun; dryRun {
				return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
					r, err := hub.AddOperator(ctx, req)
					if err == nil {
						fmt.Fprintln(a.out, done(added(r.GetOperator()), true))
					}
					return err
				})
			}
			return a.addOperator(c.Context(), req, file)
		},
	}
	c.Flags().StringVar(&role, "role", "", "`ROLE`: admin, viewer, vendor-release, vendor-operator, approver:ROLE or provider:PROVIDER")
	c.Flags().StringVar(&ttl, "ttl", "90d", "how long the certificate works: `HOW LONG` such as 30d or 12h, or until a date; at most 365d")
	c.Flags().StringVarP(&file, "output", "o", "", "`FILE` to write (default NAME.yaml); one that is there is left alone")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would happen and change nothing")
	_ = c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"admin", "viewer", "vendor-release", "vendor-operator", "approver:", "provider:"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
	return c
}

func inTheWay(file string) error {
	return fmt.Errorf("%s is there already and is left alone: it may be the only key of somebody; name another with -o FILE", file)
}

func added(o *fleetv1.Operator) string {
	return fmt.Sprintf("operator %s added as %s until %s", o.GetName(), o.GetRole(), stamp(o.GetCertificateNotAfter()))
}

// operatorRequest checks what can be checked before the hub is asked.
func (a *app) operatorRequest(name, role, ttl string) (*fleetv1.AddOperatorRequest, error) {
	if role == "" {
		return nil, fmt.Errorf("which role? `hub operator add %s --role admin|viewer|vendor-release|vendor-operator|approver:ROLE|provider:PROVIDER`", name)
	}
	if _, err := caller.ParseRole(role); err != nil {
		return nil, fmt.Errorf("--role: %w", err)
	}
	now := a.now()
	end, err := fleet.ParseUntil(now, ttl)
	if err != nil {
		return nil, fmt.Errorf("--ttl: %w", err)
	}
	left := end.Sub(now)
	if end.IsZero() || left < time.Minute || left > 365*24*time.Hour {
		return nil, fmt.Errorf("--ttl %s: want 1m to 365d", ttl)
	}
	// A moment is cut to whole seconds, which must not take one from 1m.
	return &fleetv1.AddOperatorRequest{Name: name, Role: role, TtlSeconds: uint32((left + time.Second/2) / time.Second)}, nil
}

// addOperator takes the file's name before it asks the hub, so that no identity is made that cannot be kept.
func (a *app) addOperator(ctx context.Context, req *fleetv1.AddOperatorRequest, file string) error {
	key, csr, err := newKey()
	if err != nil {
		return err
	}
	req.Csr = csr
	place, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	switch {
	case errors.Is(err, fs.ErrExist):
		return exitcode.With(exitcode.Usage, inTheWay(file))
	case err != nil:
		return exitcode.With(exitcode.Usage, fmt.Errorf("write %s: %w; name another with -o FILE", file, err))
	}
	written := false
	defer func() {
		if _ = place.Close(); !written {
			_ = os.Remove(file)
		}
	}()
	return a.call(ctx, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		r, err := hub.AddOperator(ctx, req)
		if err != nil {
			return err
		}
		context := clientcontext.Context{Address: r.GetAddress(), CA: pemBlocks(r.GetAuthorities()...), Certificate: pemBlocks(r.GetCertificate()),
			Key: key}
		if err := clientcontext.Save(file, context); err != nil {
			return exitcode.With(exitcode.Failed, fmt.Errorf("the hub knows operator %s now and its key is lost: %w; `hub operator remove %s --reason 'key lost'`, then add it again", req.GetName(), err, req.GetName()))
		}
		written = true
		fmt.Fprintf(a.out, "%s: %s\n", added(r.GetOperator()), file)
		fmt.Fprintf(a.err, "next: give %s to %s over a channel that nobody else reads; used as: hub status --context %s\n", file, req.GetName(), file)
		return nil
	})
}

// newKey makes a key, in PEM, and a request for its certificate; the hub reads nothing but the public key.
func newKey() (keyPEM string, csr []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", nil, fmt.Errorf("make a key: %w", err)
	}
	if csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return "", nil, fmt.Errorf("make a certificate request: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", nil, fmt.Errorf("encode the key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), csr, nil
}

func pemBlocks(certificates ...[]byte) string {
	var b strings.Builder
	for _, der := range certificates {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.String()
}

func (a *app) operatorRemove() *cobra.Command {
	req := &fleetv1.RemoveOperatorRequest{}
	var yes bool
	c := &cobra.Command{
		Use:               "remove NAME --reason WHY",
		Short:             "End an operator's certificate, at once and on open streams too",
		Args:              args(1, 1, "the operator's NAME"),
		ValidArgsFunction: a.complete(operatorArg),
		RunE: func(c *cobra.Command, given []string) error {
			if strings.TrimSpace(req.Reason) == "" {
				return exitcode.With(exitcode.Usage, fmt.Errorf("why? The audit keeps it: `hub operator remove %s --reason '…'`", given[0]))
			}
			if err := a.confirm(fmt.Sprintf("end the access of operator %s to the hub", given[0]), yes || req.DryRun); err != nil {
				return err
			}
			req.Name = given[0]
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				if _, err := hub.RemoveOperator(ctx, req); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "operator %s %s\n", given[0], done("removed", req.DryRun))
				return nil
			})
		},
	}
	c.Flags().StringVar(&req.Reason, "reason", "", "`WHY`")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "say what would happen and change nothing")
	return c
}

// soon is how long before its end a certificate wants a person's look.
const soon = 14 * 24 * time.Hour

// listOperators is `hub get operators`.
func listOperators(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error) {
	r, err := hub.ListOperators(ctx, &fleetv1.ListOperatorsRequest{})
	if err != nil {
		return printer.Answer{}, err
	}
	items, err := wanted(r.GetOperators(), names, (*fleetv1.Operator).GetName, "operator", "hub get operators")
	if err != nil {
		return printer.Answer{}, err
	}
	if issues {
		items = slices.DeleteFunc(slices.Clone(items), func(o *fleetv1.Operator) bool { return a.operatorState(o) == operatorActive })
	}
	answer := printer.Answer{
		Message: &fleetv1.ListOperatorsResponse{Operators: items}, Empty: "No operators",
		Headers: []string{"NAME", "ROLE", "STATE", "CERTIFICATE UNTIL", "CREATED"}, WideHeaders: []string{"BY", "CREDENTIAL"},
	}
	for _, o := range items {
		answer.Rows = append(answer.Rows, []string{o.GetName(), o.GetRole(), a.operatorState(o), stamp(o.GetCertificateNotAfter()), stamp(o.GetCreated())})
		answer.WideRows = append(answer.WideRows, []string{o.GetCreatedBy(), o.GetCredential()})
		answer.Names = append(answer.Names, o.GetName())
	}
	return answer, nil
}

const operatorActive = "Active"

// operatorState says whether the newest certificate works, and for how long where that is short.
func (a *app) operatorState(o *fleetv1.Operator) string {
	left := wire.FromTime(o.GetCertificateNotAfter()).Sub(a.now())
	switch {
	case left <= 0:
		return "Expired"
	case left < soon:
		return "Ends(" + span(left) + ")"
	}
	return operatorActive
}
