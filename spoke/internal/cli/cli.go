// Package cli is the spoke's command line: words in, the running spoke asked or told or its data folder
// read, answers printed. It works with the hub away, and decides nothing.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
)

// dataVariable names the data folder where --data does not.
const dataVariable = "WHEELWRIGHT_DATA"

// app is what every command needs.
type app struct {
	out, err io.Writer
	dir      string
	now      func() time.Time
}

// Main runs one command and returns its exit code.
func Main(args []string, out, err io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{out: out, err: err, now: time.Now}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // nil would mean the arguments of this process
	err := root.ExecuteContext(ctx)
	if errors.Is(err, context.Canceled) {
		err = exitcode.With(exitcode.Usage, errors.New("interrupted"))
	}
	if m := exitcode.Message(err); m != "" {
		fmt.Fprintln(a.err, "spoke:", m)
	}
	return exitcode.Of(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "spoke",
		Short: "Take a vendor's releases on your own cluster, your way",
		Long: `spoke runs beside your cluster, takes the releases that a vendor's hub offers, lays your own overlay over
them, proves and applies them, and reports. What it keeps is in one data folder: name it with --data or
$` + dataVariable + `.

  spoke join --hub HOST:PORT --token T --data DIR     the line that the vendor sent you
  spoke run --data DIR --config spoke.yaml            and then this
  spoke status --data DIR                             what runs, with the hub away too
  spoke diff DISTRIBUTION --data DIR                  what the next release would do
  spoke pin DISTRIBUTION VERSION --data DIR           stay where it is
  spoke canary status DISTRIBUTION --data DIR         how far live traffic is led to a release
  spoke rollback DISTRIBUTION --data DIR              back to the one before

Exit codes: 0 done and healthy; 1 failed, unhealthy or different; 2 usage or transport; 3 timed out;
4 waiting for an approval.`,
		SilenceErrors: true, SilenceUsage: true,
		Version: buildinfo.Version(),
		Args:    arguments(0, 0, "a command"),
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Help()
			return exitcode.Silent(exitcode.Usage)
		},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return exitcode.With(exitcode.Usage, fmt.Errorf("%w; see `%s --help`", err, c.CommandPath()))
	})
	root.PersistentFlags().StringVar(&a.dir, "data", "", "data `DIR` (default $"+dataVariable+")")
	_ = root.MarkPersistentFlagDirname("data")
	root.AddCommand(a.joinCommand(), a.viaCommand(), a.runCommand(), a.statusCommand(), a.renderCommand(), a.diffCommand(), a.approveCommand(), a.rejectCommand(),
		a.pinCommand(), a.unpinCommand(), a.rollbackCommand(), a.canaryCommand(), a.auditCommand(), a.pluginCommand(), a.versionCommand())
	return root
}

// data is the data folder; made says that it has to be there.
func (a *app) data(made bool) (string, error) {
	dir := a.dir
	if dir == "" {
		dir = os.Getenv(dataVariable)
	}
	if dir == "" {
		return "", exitcode.With(exitcode.Usage, fmt.Errorf("which data folder? Name it with --data DIR or `export %s=DIR`; `spoke join` makes it", dataVariable))
	}
	if !made {
		return dir, nil
	}
	switch info, err := os.Stat(dir); {
	case errors.Is(err, os.ErrNotExist):
		return "", exitcode.With(exitcode.Usage, fmt.Errorf("data folder %s is not there; the `spoke join` line of your vendor (`hub cluster invite`) makes it", dir))
	case err != nil:
		return "", exitcode.With(exitcode.Usage, fmt.Errorf("data folder: %w", err))
	case !info.IsDir():
		return "", exitcode.With(exitcode.Usage, fmt.Errorf("data folder %s is a file", dir))
	}
	return dir, nil
}

// output adds -o and --no-headers to a command.
func (a *app) output(c *cobra.Command) *printer.Printer {
	p := &printer.Printer{Out: a.out}
	c.Flags().StringVarP(&p.Format, "output", "o", "table", "`FORMAT`: table, wide, json, yaml or name")
	c.Flags().BoolVar(&p.NoHeaders, "no-headers", false, "leave the table's headers out")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "wide", "json", "yaml", "name"}, cobra.ShellCompDirectiveNoFileComp))
	return p
}

// colour: for a terminal, unless somebody does not want it.
func (a *app) colour() bool {
	f, ok := a.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// arguments is a cobra argument check that says what was wanted, with exit code 2.
func arguments(least, most int, want string) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		switch {
		case len(given) >= least && len(given) <= most:
			return nil
		case !c.HasParent():
			return exitcode.With(exitcode.Usage, fmt.Errorf("there is no command %q; see `spoke --help`", given[0]))
		}
		return exitcode.With(exitcode.Usage, fmt.Errorf("%s: want %s, got %d; see `%s --help`", c.CommandPath(), want, len(given), c.CommandPath()))
	}
}
