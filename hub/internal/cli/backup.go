package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/wheelwright-dev/wheelwright/hub"
	"github.com/wheelwright-dev/wheelwright/hub/internal/backup"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func (a *app) backupCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy what a hub keeps into one file, while it works",
		Long: `backup writes a tar: the database as of one moment, and the bundles that its releases need. Unpacked into an empty
folder it is a data folder. Only an admin may make one: whoever has it can read all that the hub knows.

With --data DIR, on the hub's machine and as the owner of DIR, whether the hub runs or not, it also has the private keys of
the hub's authority. Whoever has those can be any spoke and any operator: keep the file as you keep the keys. Without
--data they are not in it, they leave the machine by no call: keep a copy of DIR/authority apart, made once and after each
"hub authority rotate", and put it beside what the backup has. A hub without them cannot be put back.

FILE appears whole or not at all, readable for its owner only. To put it back:

  mkdir -m 700 DIR && tar -xf FILE -C DIR && hub check --data DIR && hub serve --data DIR

Exit code 0: all is in it; 1: something that the hub should have is missing, and what; 2: no backup was made.`,
		Example: "  hub backup hub-$(date +%F).tar\n  hub backup --data /var/lib/hub /mnt/safe/hub-$(date +%F).tar",
		Args:    args(1, 1, "the FILE to write"),
	}
	p := a.output(c)
	c.Flags().StringVar(&dir, "data", "", "data `DIR` of the hub on this machine: the authority's keys are in the backup too")
	c.RunE = func(c *cobra.Command, given []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		m, err := a.backup(c.Context(), dir, given[0])
		if err != nil {
			return exitcode.With(exitcode.Usage, err)
		}
		return a.printBackup(p, given[0], m)
	}
	return c
}

// backup writes the file beside its name and reads it again before it gets that.
func (a *app) backup(ctx context.Context, dir, name string) (m backup.Manifest, err error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return m, fmt.Errorf("write backup: %s is no file; name another", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".part-*") // 0600
	if err != nil {
		return m, fmt.Errorf("write backup: %w; name a file in a folder that can be written", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone, where it got its name
	err = a.fetchBackup(ctx, dir, f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		m, err = backup.Read(f, func(backup.File, io.Reader) error { return nil })
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return m, fmt.Errorf("write backup %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return m, fmt.Errorf("write backup: %w", err)
	}
	if err := wholefile.SyncFolder(filepath.Dir(name)); err != nil {
		return m, fmt.Errorf("write backup %s: %w", name, err)
	}
	return m, nil
}

// fetchBackup asks the hub, or reads the folder of one that does not run.
func (a *app) fetchBackup(ctx context.Context, dir string, w io.Writer) error {
	if dir == "" {
		return a.stream(ctx, receiveBackup(w))
	}
	r, pipe := io.Pipe()
	go func() {
		err := hub.BackupStopped(pipe, dir)
		if errors.Is(err, hub.ErrRuns) {
			err = a.at(ctx, hub.AdminContext(dir), receiveBackup(pipe))
		}
		_ = pipe.CloseWithError(err) // never fails
	}()
	_, err := hub.AddKeys(w, r, dir)
	_ = r.Close() // never fails; ends the other where this one had enough
	return err
}

func receiveBackup(w io.Writer) func(context.Context, fleetv1.FleetServiceClient) error {
	return func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := hub.Backup(ctx, &fleetv1.BackupRequest{})
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
			if _, err := w.Write(r.GetData()); err != nil {
				return err
			}
		}
	}
}

func (a *app) printBackup(p *printer.Printer, name string, m backup.Manifest) error {
	missing := make([]any, 0, len(m.Missing))
	for _, what := range m.Missing {
		missing = append(missing, what)
		fmt.Fprintf(a.err, "hub: %s is missing at the hub; see `hub check --data DIR` there\n", what)
	}
	if !m.Keys {
		fmt.Fprintln(a.err, "hub: the authority's keys are not in it; keep a copy of the data folder's authority/ apart (see `hub backup --help`)")
	}
	message, err := structpb.NewStruct(map[string]any{"file": name, "at": m.At.Format("2006-01-02T15:04:05Z"), "hubVersion": m.HubVersion,
		"files": len(m.Files), "bytes": m.Size(), "keys": m.Keys, "missing": missing})
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	keys := "no"
	if m.Keys {
		keys = "yes"
	}
	err = p.Print(printer.Answer{Message: message, Headers: []string{"FILE", "AT", "FILES", "BYTES", "KEYS"}, WideHeaders: []string{"HUB"},
		Rows:     [][]string{{name, m.At.Format("2006-01-02T15:04:05Z"), fmt.Sprint(len(m.Files)), thousands(int(m.Size())), keys}},
		WideRows: [][]string{{m.HubVersion}}, Names: []string{name}})
	if err == nil && len(m.Missing) > 0 {
		return exitcode.Silent(exitcode.Failed)
	}
	return err
}

func (a *app) checkCommand() *cobra.Command {
	var dir string
	var compact bool
	c := &cobra.Command{
		Use:   "check --data DIR",
		Short: "Read all of a stopped hub's data folder, and say what is damaged",
		Long: `check reads every page and every record of the database, looks whether what they name is there, computes the
audit's chain of hashes anew, unpacks every bundle that a release needs, and reads the authority. It changes nothing, but
for --compact. The hub of the folder must not run; a hub checks every page itself when it starts.

Exit code 0: all is well; 1: something is damaged, and what to do; 2: the folder cannot be checked.`,
		Example: "  hub check --data /var/lib/hub\n  hub check --data /var/lib/hub --compact",
		Args:    args(0, 0, "no argument"),
	}
	p := a.output(c)
	c.Flags().StringVar(&dir, "data", "", "data `DIR` of the hub")
	c.Flags().BoolVar(&compact, "compact", false, "then write the database anew without its free pages")
	c.RunE = func(*cobra.Command, []string) error {
		if err := p.Check(); err != nil {
			return err
		}
		if dir == "" {
			return exitcode.With(exitcode.Usage, errors.New("which data folder? Name it: `hub check --data DIR`"))
		}
		r, err := hub.Check(dir)
		if err == nil && compact && r.Sound() {
			var before, after int64
			if before, after, err = hub.Compact(dir); err == nil {
				fmt.Fprintf(a.err, "hub: the database has %s bytes, %s before\n", thousands(int(after)), thousands(int(before)))
			}
		}
		if errors.Is(err, hub.ErrRuns) {
			return exitcode.With(exitcode.Usage, fmt.Errorf("a hub runs on %s: stop it to check its folder, or check a copy: `hub backup --data %s FILE`, `tar -xf FILE -C COPY` and `hub check --data COPY`", dir, dir))
		}
		if err != nil {
			return exitcode.With(exitcode.Usage, err)
		}
		return a.printCheck(p, r)
	}
	return c
}

func (a *app) printCheck(p *printer.Printer, r hub.CheckReport) error {
	answer := printer.Answer{Headers: []string{"PART", "CHECKED", "PROBLEMS"}}
	var findings []any
	for _, f := range r.Findings {
		problems := make([]any, 0, len(f.Problems))
		for _, text := range f.Problems {
			problems = append(problems, plain(text))
		}
		findings = append(findings, map[string]any{"part": f.Part, "checked": f.Checked, "problems": problems, "next": f.Next})
		answer.Rows = append(answer.Rows, []string{f.Part, fmt.Sprint(f.Checked), fmt.Sprint(len(f.Problems))})
		answer.WideRows = append(answer.WideRows, nil)
		if len(f.Problems) > 0 {
			answer.Names = append(answer.Names, f.Part)
		}
	}
	message, err := structpb.NewStruct(map[string]any{"sound": r.Sound(), "schema": int64(r.Schema), "bytes": r.Size, "free": r.Free, "findings": findings})
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	answer.Message = message
	if err := p.Print(answer); err != nil {
		return err
	}
	if p.Human() {
		for _, f := range r.Findings {
			for _, text := range f.Problems {
				fmt.Fprintf(p.Out, "%s: %s\n", f.Part, plain(text))
			}
			if f.Next != "" {
				fmt.Fprintf(p.Out, "  next: %s\n", f.Next)
			}
		}
	}
	if !r.Sound() {
		return exitcode.Silent(exitcode.Failed)
	}
	return nil
}
