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

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// refresh is how often a watched screen is drawn again without news: ages move on.
const refresh = 5 * time.Second

// watch prints through show at once and after every change, until interrupted. On a terminal the
// screen is drawn anew; elsewhere an answer that is the same as the one before is not repeated.
func (a *app) watch(ctx context.Context, p *printer.Printer, show func(context.Context, fleetv1.FleetServiceClient) error) error {
	screen := a.terminal() && p.Human()
	err := a.stream(ctx, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
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
		var last []byte
		for {
			select {
			case err := <-news:
				if err != nil {
					return err
				}
			case <-tick.C:
				if !screen {
					continue
				}
			}
			var b bytes.Buffer
			p.Out = &b
			if err := show(ctx, hub); err != nil && exitcode.Message(err) != "" {
				return err
			}
			if err := draw(a.out, b.Bytes(), last, screen); err != nil {
				return err
			}
			last = b.Bytes()
		}
	})
	if ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return nil // the person has seen enough
	}
	return err
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
