package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) authCommand() *cobra.Command {
	return group("auth", "Who you are to the hub, and what you may ask of it", a.whoAmI(), a.canI(), a.tokenContext(), a.renewContext())
}

func (a *app) whoAmI() *cobra.Command {
	c := &cobra.Command{Use: "whoami", Short: "Show as whom the hub takes you", Args: args(0, 0, "no arguments")}
	p := a.output(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.WhoAmI(ctx, &fleetv1.WhoAmIRequest{})
			if err != nil {
				return err
			}
			return p.Print(printer.Answer{Message: r, Headers: []string{"NAME", "ROLE", "BY", "UNTIL"}, WideHeaders: []string{"CREDENTIAL", "GROUPS"}, Names: []string{r.GetName()},
				Rows:     [][]string{{plain(r.GetName()), r.GetRole(), r.GetCredentialKind(), stamp(r.GetNotAfter())}},
				WideRows: [][]string{{plain(r.GetCredential()), plain(strings.Join(r.GetGroups(), ","))}}})
		})
	}
	return c
}

// tokenContext writes a context file that holds no secret: every operator of a hub may have the same.
func (a *app) tokenContext() *cobra.Command {
	c := clientcontext.Context{}
	var command, file string
	var arguments []string
	cmd := &cobra.Command{
		Use:   "context -o FILE --token-file FILE | --exec-command PROGRAM",
		Short: "Write a context file for operators who log in at the hub's OIDC issuer",
		Long: `context takes the hub's address and authority out of the context file in use, and writes another in which, in place of
a certificate, stands where a token comes from: a file that something keeps fresh, or a program that prints one, or
kubectl's ExecCredential with one in it. There is no secret in it. What the bearer may do is for "oidc" in hub.yaml.`,
		Example: "  hub auth context --context admin.yaml --token-file /var/run/secrets/hub/token -o ci.yaml\n" +
			"  hub auth context --context admin.yaml --exec-command oidc-login --exec-arg get-token -o people.yaml",
		Args: args(0, 0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			path, err := a.contextPath()
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			from, err := clientcontext.Load(path)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if c.Address, c.CA = from.Address, from.CA; command != "" {
				c.TokenCommand = append([]string{command}, arguments...)
			}
			switch {
			case file == "":
				return exitcode.With(exitcode.Usage, errors.New("where to? Name the file with -o FILE"))
			case (c.TokenFile == "") == (command == "") || command == "" && len(arguments) > 0:
				return exitcode.With(exitcode.Usage, errors.New("want one of --token-file FILE and --exec-command PROGRAM, which may have --exec-arg"))
			}
			if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
				return exitcode.With(exitcode.Usage, inTheWay(file))
			}
			if err := clientcontext.Save(file, c); err != nil {
				return exitcode.With(exitcode.Failed, err)
			}
			fmt.Fprintf(a.err, "next: hub auth whoami --context %s\n", file)
			return nil
		},
	}
	cmd.Flags().StringVar(&c.TokenFile, "token-file", "", "`FILE` that a token is in, read when one is needed; relative to the context file")
	cmd.Flags().StringVar(&command, "exec-command", "", "`PROGRAM` that prints a token")
	cmd.Flags().StringArrayVar(&arguments, "exec-arg", nil, "an `ARGUMENT` of the program; may be given several times")
	cmd.Flags().StringVarP(&file, "output", "o", "", "`FILE` to write; one that is there is left alone")
	return cmd
}

// renewContext brings a context file up to date with the hub's authority.
func (a *app) renewContext() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "renew",
		Short: "Bring the context file up to date: the hub's authority, and a certificate of a new key",
		Long: `renew writes what the hub's own certificate may come from into the context file in use and, where that holds a
certificate, makes a new key here and has the hub sign another certificate for it. It works as long as the one
before, which stays good beside it; for a longer time, have an operator above you remove and add you.

It is needed while the hub's authority is rotated: "hub authority status" says who has not done it yet. A context file
with a token holds no certificate, so that the hub cannot know, but its authority wants renewing too.`,
		Example: "  hub auth renew --context maria.yaml",
		Args:    args(0, 0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := a.contextPath()
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			renewed, err := clientcontext.Load(path)
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			if file == "" {
				file = path
			} else if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
				return exitcode.With(exitcode.Usage, inTheWay(file))
			}
			return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
				req := &fleetv1.RenewOperatorRequest{}
				var key string
				if renewed.Certificate != "" {
					if key, req.Csr, err = newKey(); err != nil {
						return err
					}
				}
				r, err := hub.RenewOperator(ctx, req)
				if err != nil {
					return err
				}
				if renewed.CA = pemBlocks(r.GetAuthorities()...); key != "" {
					renewed.Certificate, renewed.Key = pemBlocks(r.GetCertificate()), key
				}
				if err := clientcontext.Save(file, renewed); err != nil {
					return exitcode.With(exitcode.Failed, fmt.Errorf("%w; %s is as it was and works as before: name another file with -o FILE", err, path))
				}
				fmt.Fprintf(a.out, "%s renewed: %s of the hub's authority", file, plural(len(r.GetAuthorities()), "key", "keys"))
				if key != "" {
					fmt.Fprintf(a.out, ", and a certificate until %s as before", stamp(r.GetNotAfter()))
				}
				fmt.Fprintln(a.out)
				return nil
			})
		},
	}
	c.Flags().StringVarP(&file, "output", "o", "", "`FILE` to write (default: the context file in use); one that is there is left alone")
	return c
}

// methods are what people type for a method of the service: the command without "hub".
func methods() map[string]string {
	return map[string]string{
		"status": "GetStatus", "why": "Explain", "version": "GetVersion", "pin": "PinCluster", "unpin": "UnpinCluster", "approve": "DecideDelivery", "reject": "DecideDelivery",
		"order": "SendOrder", "audit export": "ExportAudit", "audit verify": "ExportAudit", "operator add": "AddOperator", "operator remove": "RemoveOperator", "auth renew": "RenewOperator", "backup": "Backup",
		"authority status": "GetAuthority", "authority rotate": "RotateAuthority", "authority retire": "RetireAuthority",
		"cluster invite": "InviteCluster", "cluster remove": "RemoveCluster", "distribution add": "AddDistribution", "distribution remove": "RemoveDistribution", "distribution set": "SetSigners",
		"channel publish": "PublishStatement", "channel show": "GetChannel", "cluster accept": "AcceptCluster", "cluster reject": "RejectCluster", "cluster re-home send": "SendReHome",
		"release describe": "GetRelease", "release recall": "RecallRelease", "rollout plan": "PlanRollout", "rollout start": "StartRollout", "rollout status": "GetRollout",
		"rollout pause": "DecideRollout", "rollout resume": "DecideRollout", "rollout abort": "DecideRollout", "rollout undo": "DecideRollout",
		"rollout approve": "DecideRollout", "rollout reject": "DecideRollout", "get distributions": "ListDistributions", "get releases": "ListReleases",
		"get rollouts": "ListRollouts", "get clusters": "ListClusters", "get pins": "ListPins", "get events": "ListEvents", "get orders": "ListOrders", "get re-homes": "ListReHomes", "get operators": "ListOperators",
	}
}

func (a *app) canI() *cobra.Command {
	var list bool
	var about string
	c := &cobra.Command{
		Use:   "can-i COMMAND | METHOD | --list",
		Short: "Say whether you may do something: exit code 0 yes, 1 no",
		Long: `can-i asks the hub, which answers from the table that it judges every call by. COMMAND is what you would type after
"hub", METHOD a method of the service. With --cluster it answers for that cluster: a provider's people reach their own.`,
		Example: "  hub auth can-i release recall\n  hub auth can-i pin --cluster acme/eu-1\n  hub auth can-i StartRollout\n  hub auth can-i --list",
		Args:    args(0, 3, "a command, a method or --list"),
	}
	p := a.output(c)
	c.Flags().BoolVar(&list, "list", false, "list every method, and whether you may call it")
	c.Flags().StringVar(&about, "cluster", "", "`PROVIDER/NAME` that it is about")
	c.RunE = func(c *cobra.Command, given []string) error {
		word := strings.Join(given, " ")
		if list != (word == "") {
			return exitcode.With(exitcode.Usage, fmt.Errorf("want a command, a method or --list; see %q", c.CommandPath()+" --help"))
		}
		if about != "" {
			if err := cluster(about); err != nil {
				return err
			}
		}
		if err := p.Check(); err != nil {
			return err
		}
		req := &fleetv1.CanIRequest{Method: word, Cluster: about}
		if m, known := methods()[strings.TrimPrefix(word, "hub ")]; known {
			if req.Method = m; m == "DecideRollout" {
				req.Decision = given[len(given)-1]
			}
		}
		return a.call(c.Context(), func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			r, err := hub.CanI(ctx, req)
			if err != nil {
				return err
			}
			if list {
				return p.Print(permissions(r))
			}
			if len(r.GetPermissions()) != 1 {
				return exitcode.With(exitcode.Usage, fmt.Errorf("the hub answered about %d methods, asked about %s; is it of another version?", len(r.GetPermissions()), word))
			}
			return a.verdict(p, r)
		})
	}
	return c
}

// verdict is kubectl's: a word, and the reason where there is one.
func (a *app) verdict(p *printer.Printer, r *fleetv1.CanIResponse) error {
	one := r.GetPermissions()[0]
	word := map[bool]string{true: "yes", false: "no"}[one.GetAllowed()]
	if p.Format == "table" {
		fmt.Fprintln(a.out, strings.TrimSuffix(word+" - "+plain(one.GetReason()), " - "))
	} else if err := p.Print(permissions(r)); err != nil {
		return err
	}
	if !one.GetAllowed() {
		return exitcode.Silent(exitcode.Failed)
	}
	return nil
}

func permissions(r *fleetv1.CanIResponse) printer.Answer {
	answer := printer.Answer{Message: r, Headers: []string{"METHOD", "ALLOWED", "REASON"}, WideHeaders: []string{"ROLES"}}
	for _, p := range r.GetPermissions() {
		word := "no"
		if p.GetAllowed() {
			word = "yes"
			answer.Names = append(answer.Names, p.GetMethod())
		}
		answer.Rows = append(answer.Rows, []string{p.GetMethod(), word, plain(p.GetReason())})
		answer.WideRows = append(answer.WideRows, []string{strings.Join(p.GetRoles(), ",")})
	}
	return answer
}
