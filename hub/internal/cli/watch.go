package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// refresh is how often a watched screen is drawn again without news: ages move on.
const refresh = 5 * time.Second

// retry is how long a watch waits before it asks a hub again that went away.
const retry = time.Second

// show prints one answer of the hub.
type show func(context.Context, fleetv1.FleetServiceClient) error

// watch prints through show at once and after every change, until interrupted. On a terminal the
// screen is drawn anew; elsewhere an answer that is the same as the one before is not repeated. A hub that
// goes away, as it does when it is restarted, is waited for once it has answered.
func (a *app) watch(ctx context.Context, p *printer.Printer, print show) error {
	w := &watcher{app: a, printer: p, show: print, screen: a.terminal() && p.Human()}
	for {
		var cause error // before it is explained
		err := a.stream(ctx, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			cause = w.follow(ctx, hub)
			return cause
		})
		if ctx.Err() != nil || errors.Is(err, context.Canceled) {
			return nil // the person has seen enough
		}
		if !w.drawn || status.Code(cause) != codes.Unavailable {
			return err
		}
		if !w.away {
			fmt.Fprintln(a.err, "hub: waiting until it can be reached again:", wordless(status.Convert(cause).Message()))
		}
		w.away = true
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil
		}
	}
}

// watcher is one watch, over all its connections.
type watcher struct {
	*app
	printer *printer.Printer
	show    show
	screen  bool
	last    []byte // drawn
	drawn   bool
	away    bool // the hub, as the person was told
}

// follow draws until the stream of changes ends.
func (w *watcher) follow(ctx context.Context, hub fleetv1.FleetServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the reader too
	changes, err := hub.Watch(ctx, &fleetv1.WatchRequest{})
	if err != nil {
		return err
	}
	news := make(chan error)
	go func() {
		for {
			_, err := changes.Recv()
			select {
			case news <- err:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for {
		select {
		case err := <-news:
			if err != nil {
				return err
			}
		case <-tick.C:
			if !w.screen {
				continue
			}
		case <-ctx.Done(): // the reader may have seen it first, and said nothing
			return ctx.Err()
		}
		if err := w.draw(ctx, hub); err != nil {
			return err
		}
	}
}

func (w *watcher) draw(ctx context.Context, hub fleetv1.FleetServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	var b bytes.Buffer
	w.printer.Out = &b
	if err := w.show(ctx, hub); err != nil && exitcode.Message(err) != "" {
		return err
	}
	if err := draw(w.out, b.Bytes(), w.last, w.screen); err != nil {
		return err
	}
	w.last, w.drawn, w.away = b.Bytes(), true, false
	return nil
}

func draw(out io.Writer, now, last []byte, screen bool) error {
	if screen {
		_, err := fmt.Fprintf(out, "\x1b[H\x1b[2J%s", now)
		return err
	}
	if bytes.Equal(now, last) {
		return nil
	}
	_, err := out.Write(now)
	return err
}

// terminal: the output goes to a person's screen.
func (a *app) terminal() bool {
	f, ok := a.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colour: the screen takes colours and nobody asked for none (https://no-color.org).
func (a *app) colour() bool {
	return a.terminal() && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
