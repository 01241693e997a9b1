// Package cli is the hub's command line: words in, calls to a hub's FleetService out, answers printed.
// It decides nothing about the fleet; `hub serve`, `hub validate` and `hub check` do not speak to a running hub,
// nor does `hub backup --data` where there is none.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/clientcontext"
	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// contextVariable names the file that says which hub to speak to, and as whom.
const contextVariable = "WHEELWRIGHT_CONTEXT"

// app is what every command needs: where to print and which hub to call.
type app struct {
	out, err    io.Writer
	contextFile string
	timeout     time.Duration
	now         func() time.Time
}

// Main runs one command and returns its exit code.
func Main(args []string, out, err io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{out: out, err: err, now: time.Now}
	root := a.root()
	root.SetArgs(args)
	runErr := root.ExecuteContext(ctx)
	if m := exitcode.Message(runErr); m != "" {
		fmt.Fprintln(err, "hub:", m)
	}
	return exitcode.Of(runErr)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "hub",
		Short: "Carry a vendor's releases to the clusters of its providers",
		Long: `hub watches a vendor's distribution repositories for release tags, turns each tag into an
immutable bundle and offers it to the spokes on the providers' clusters.

Start one with "hub serve"; every other command speaks to a running hub, as the context file says
that --context or $` + contextVariable + ` names (hub serve writes one into its data folder).`,
		SilenceErrors: true, SilenceUsage: true,
		Version: buildinfo.Version(),
		Args:    cobra.ArbitraryArgs, // so that an unknown command is ours to explain
		RunE: func(c *cobra.Command, given []string) error {
			if len(given) == 0 {
				return c.Help()
			}
			return unknown(c, given[0])
		},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return exitcode.With(exitcode.Usage, fmt.Errorf("%w; see %q", err, c.CommandPath()+" --help"))
	})
	root.PersistentFlags().StringVar(&a.contextFile, "context", "", "context `FILE` of the hub to speak to (default $"+contextVariable+")")
	root.PersistentFlags().DurationVar(&a.timeout, "timeout", 30*time.Second, "how long one call may take")
	root.AddCommand(a.serveCommand(), a.distributionCommand(), a.clusterCommand(), a.relayCommand(), a.releaseCommand(), a.getCommand(),
		a.rolloutCommand(), a.pinCommand(), a.unpinCommand(), a.deliveryCommand("approve", "approved", true), a.deliveryCommand("reject", "rejected", false),
		a.statusCommand(), a.whyCommand(), a.auditCommand(), a.channelCommand(), a.operatorCommand(), a.orderCommand(), a.authCommand(), a.authorityCommand(), a.backupCommand(), a.checkCommand(), a.validateCommand(), a.versionCommand())
	return root
}

// call runs f against the hub of the context file.
func (a *app) call(ctx context.Context, f func(context.Context, fleetv1.FleetServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	debug.SetGCPercent(commandGC)
	return a.stream(ctx, f)
}

// commandGC is in per cent: a command is over before its garbage is worth collecting often.
const commandGC = 800

// stream is call without a deadline, for watches.
func (a *app) stream(ctx context.Context, f func(context.Context, fleetv1.FleetServiceClient) error) error {
	path, err := a.contextPath()
	if err != nil {
		return exitcode.With(exitcode.Usage, err)
	}
	return a.at(ctx, path, f)
}

// at is stream for the hub of another context file.
func (a *app) at(ctx context.Context, path string, f func(context.Context, fleetv1.FleetServiceClient) error) error {
	c, err := clientcontext.Load(path)
	if err != nil {
		return exitcode.With(exitcode.Usage, err)
	}
	var pins []string
	conn, err := clientcontext.Dial(c, func(told []string) { pins = told })
	if err != nil {
		return exitcode.With(exitcode.Usage, err)
	}
	defer conn.Close()
	err = f(ctx, fleetv1.NewFleetServiceClient(conn))
	a.compareAuthorities(path, c, pins)
	return explain(c.Address, err)
}

func (a *app) contextPath() (string, error) {
	if a.contextFile != "" {
		return a.contextFile, nil
	}
	if p := os.Getenv(contextVariable); p != "" {
		return p, nil
	}
	home, err := os.UserConfigDir()
	if err == nil {
		p := filepath.Join(home, "wheelwright", "context.yaml")
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("which hub? Name its context file with --context FILE or `export %s=FILE`; `hub serve --data DIR` writes DIR/admin.yaml, `hub operator add` others", contextVariable)
}

// explain turns a gRPC status into what a person should read, and its exit code.
func explain(addr string, err error) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	var coded *exitcode.Error
	if errors.As(err, &coded) || !ok {
		return err
	}
	switch s.Code() {
	case codes.Unavailable:
		return exitcode.With(exitcode.Usage, unreachable(addr, s.Message()))
	case codes.DeadlineExceeded:
		return exitcode.With(exitcode.TimedOut, fmt.Errorf("hub at %s did not answer in time; try --timeout 2m", addr))
	case codes.Unauthenticated, codes.PermissionDenied:
		return exitcode.With(exitcode.Usage, fmt.Errorf("hub at %s: %s", addr, s.Message()))
	case codes.InvalidArgument:
		return exitcode.With(exitcode.Usage, errors.New(s.Message()))
	case codes.Canceled:
		return exitcode.With(exitcode.Usage, errors.New("interrupted"))
	}
	return exitcode.With(exitcode.Failed, errors.New(s.Message()))
}

// unreachable says why, and what to look at.
func unreachable(addr, why string) error {
	why = wordless(why)
	next := "is `hub serve` running there?"
	switch {
	case strings.Contains(why, "try again"): // it answered, and said what to do
		return fmt.Errorf("hub at %s: %s", addr, why)
	case strings.Contains(why, "signed by unknown authority"):
		next = "the context file is of another hub, or of an earlier data folder: copy DIR/admin.yaml of this hub's data folder again"
	case strings.Contains(why, "x509: "):
		next = "start the hub with that name or address in `hub serve --advertise`, or use the address in its DIR/admin.yaml"
	}
	return fmt.Errorf("hub at %s cannot be reached: %s; %s", addr, why, next)
}

// wordless is a message without the words of the wire around it.
func wordless(why string) string {
	if _, inner, ok := strings.Cut(why, `desc = "`); ok {
		why = strings.TrimSuffix(inner, `"`)
	}
	for _, prefix := range []string{"transport: ", "Error while dialing: ", "authentication handshake failed: ", "tls: "} {
		why = strings.TrimPrefix(why, prefix)
	}
	return why
}

// output adds -o and --no-headers to a command.
func (a *app) output(c *cobra.Command) *printer.Printer {
	p := &printer.Printer{Out: a.out}
	c.Flags().StringVarP(&p.Format, "output", "o", "table", "`FORMAT`: table, wide, json, yaml or name")
	c.Flags().BoolVar(&p.NoHeaders, "no-headers", false, "leave the table's headers out")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "json", "yaml", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return p
}

// args is a cobra argument check that says what was wanted, with exit code 2.
func args(least, most int, want string) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if len(given) >= least && len(given) <= most {
			return nil
		}
		return exitcode.With(exitcode.Usage, fmt.Errorf("%s: want %s, got %d arguments; see %q", c.CommandPath(), want, len(given), c.CommandPath()+" --help"))
	}
}

func unknown(c *cobra.Command, word string) error {
	return exitcode.With(exitcode.Usage, fmt.Errorf("%s has no command %q; see %q", c.CommandPath(), word, c.CommandPath()+" --help"))
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, RunE: func(c *cobra.Command, given []string) error {
		if len(given) > 0 {
			return unknown(c, given[0])
		}
		_ = c.Help()
		return exitcode.Silent(exitcode.Usage)
	}}
	c.AddCommand(children...)
	return c
}
