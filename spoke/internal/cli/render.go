package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/agent"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/hubclient"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/overlay"
)

func (a *app) renderCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "render DISTRIBUTION [VERSION]",
		Short: "Print exactly what would be applied",
		Long: `render lays your overlay over a release and prints the result as YAML: what the spoke applies, before it
adds its label wheelwright.dev/distribution. Nothing is recorded and nothing is applied. Without VERSION:
the one that runs, or else the highest on offer. What of it is outside of the envelope in your spoke.yaml, so that it
would be refused, is said beside it, and the exit code is 1.

A running spoke is asked, which works with the hub away. Where none runs, the data folder is read: its bundles
and what the hub last offered; the hub is asked only for a bundle that is not there.`,
		Example: "  spoke render shop 1.2.0 --data ./spoke-data | kubectl diff -f -",
		Args:    arguments(1, 2, "the distribution's name, and perhaps a version"),

		ValidArgsFunction: a.completed(known),
		RunE: func(c *cobra.Command, given []string) error {
			dir, err := a.data(true)
			if err != nil {
				return err
			}
			distribution, version := given[0], ""
			if len(given) == 2 {
				version = given[1]
			}
			r, err := askRender(c.Context(), dir, distribution, version)
			switch {
			case errors.Is(err, local.ErrNotRunning):
				r, err = renderHere(c.Context(), dir, cmp.Or(file, filepath.Join(dir, configName)), distribution, version)
			case file != "":
				fmt.Fprintf(a.err, "spoke: the spoke that runs on %s was asked: it uses its own configuration, not --config %s\n", dir, file)
			}
			if err != nil {
				return fmt.Errorf("render: %w", err)
			}
			if _, err = a.out.Write(r.GetManifest()); err != nil {
				return err
			}
			for _, line := range r.GetOutside() {
				fmt.Fprintf(a.err, "spoke: outside of the envelope: %s\n", line)
			}
			if len(r.GetOutside()) > 0 {
				return exitcode.Silent(exitcode.Failed)
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", "", "spoke.yaml `FILE` where no spoke runs (default DIR/"+configName+")")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	return c
}

func askRender(ctx context.Context, dir, distribution, version string) (*localv1.RenderResponse, error) {
	c, err := local.Dial(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Render(ctx, distribution, version)
}

// renderHere does with the data folder at rest what a running spoke would do.
func renderHere(ctx context.Context, dir, file, distribution, version string) (_ *localv1.RenderResponse, err error) {
	settings, err := config.Load(file)
	if err != nil {
		return nil, exitcode.With(exitcode.Usage, err)
	}
	c, err := journal.Read(filepath.Join(dir, journal.File))
	if err != nil && !errors.Is(err, journal.ErrAbsent) {
		return nil, exitcode.With(exitcode.Usage, err)
	}
	if c.Desired == nil {
		return nil, exitcode.With(exitcode.Usage, fmt.Errorf("the spoke on %s has not heard yet what the hub offers: start it with `spoke run --data %s`", dir, dir))
	}
	past := resting{c}
	if r, found, _ := past.Record(distribution); found {
		version = cmp.Or(version, r.Installation.Running)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	renderer := render.New(render.Config{Log: log})
	defer func() { err = errors.Join(err, renderer.Close()) }()
	still, err := agent.New(agent.Config{Dir: dir, Settings: settings, Memory: past, Offers: past, Renderer: renderer, Log: log,
		Fetch: func(ctx context.Context, d fleet.Digest) ([]byte, error) { return fetchHere(ctx, dir, d, log) },
		Overlay: func(s config.Subscription) (agent.Source, error) {
			return overlay.New(overlay.Config{Source: s.Overlay, Dir: filepath.Join(dir, "overlays", s.Distribution), Log: log})
		}})
	if err != nil {
		return nil, err
	}
	manifest, outside, err := still.Render(ctx, distribution, version)
	return &localv1.RenderResponse{Manifest: manifest, Outside: outside}, err
}

func fetchHere(ctx context.Context, dir string, d fleet.Digest, log *slog.Logger) ([]byte, error) {
	hub, err := hubclient.New(hubclient.Config{Dir: dir, Log: log})
	if err != nil {
		return nil, err
	}
	return hub.Fetch(ctx, d)
}

// resting is the journal of a spoke that does not run, to be looked at only.
type resting struct{ journal.Contents }

var errResting = errors.New("the journal is open to be read only")

func (r resting) ID() string                                     { return r.Contents.ID }
func (r resting) Created() time.Time                             { return time.Time{} }
func (r resting) Desired() (*syncv1.DesiredState, error)         { return r.Contents.Desired, nil }
func (r resting) PutDesired(*syncv1.DesiredState) error          { return errResting }
func (r resting) PutRecord(journal.Record, ...fleet.Event) error { return errResting }
func (r resting) Records() ([]journal.Record, error)             { return r.Contents.Records, nil }
func (r resting) Record(name string) (journal.Record, bool, error) {
	for _, rec := range r.Contents.Records {
		if rec.Distribution == name {
			return rec, true, nil
		}
	}
	return journal.Record{}, false, nil
}
