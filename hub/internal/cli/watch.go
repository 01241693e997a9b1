package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
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
// screen is drawn anew; elsewhere an answer that is the same as the one before is not repeated.
func (a *app) watch(ctx context.Context, p *printer.Printer, print show) error {
	screen := a.terminal() && p.Human()
	var last []byte
	if screen {
		fmt.Fprint(a.out, "\x1b[H\x1b[2J")
	}
	return a.follow(ctx, screen, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		var b bytes.Buffer
		p.Out = &b
		if err := print(ctx, hub); err != nil && exitcode.Message(err) != "" {
			return err
		}
		width, height := a.size()
		err := draw(a.out, b.Bytes(), last, screen, width, height)
		last = b.Bytes()
		return err
	})
}

// follow looks at once, after every change and, with tick, every now and then, until look returns an error
// or the context ends, which is none. A hub that goes away, as it does when it is restarted, is waited
// for once it has answered.
func (a *app) follow(ctx context.Context, tick bool, look show) error {
	answered, away := false, false
	for {
		var cause error // before it is explained
		err := a.stream(ctx, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
			cause = eachChange(ctx, hub, tick, func() error {
				ctx, cancel := context.WithTimeout(ctx, a.timeout)
				defer cancel()
				err := look(ctx, hub)
				if err == nil {
					answered, away = true, false
				}
				return err
			})
			return cause
		})
		if ctx.Err() != nil || errors.Is(err, context.Canceled) {
			return nil // the person has seen enough
		}
		if !answered || status.Code(cause) != codes.Unavailable {
			return err
		}
		if !away {
			fmt.Fprintln(a.err, "hub: waiting until it can be reached again:", wordless(status.Convert(cause).Message()))
		}
		away = true
		select {
		case <-time.After(retry):
		case <-ctx.Done():
			return nil
		}
	}
}

// eachChange looks until the stream of changes ends.
func eachChange(ctx context.Context, hub fleetv1.FleetServiceClient, ticks bool, look func() error) error {
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
			if !ticks {
				continue
			}
		case <-ctx.Done(): // the reader may have seen it first, and said nothing
			return ctx.Err()
		}
		if err := look(); err != nil {
			return err
		}
	}
}

// draw writes what is shown now. A screen is written over line by line, so that it does not flicker, and
// never past its last line, so that it does not scroll.
func draw(out io.Writer, now, last []byte, screen bool, width, height int) error {
	if !screen {
		if bytes.Equal(now, last) {
			return nil
		}
		_, err := out.Write(now)
		return err
	}
	lines := strings.Split(strings.TrimRight(string(now), "\n"), "\n")
	if height > 1 && len(lines) > height-1 {
		more := len(lines) - (height - 2)
		lines = append(lines[:height-2:height-2], fmt.Sprintf("… and %s; a taller window shows more", plural(more, "line", "lines")))
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for _, l := range lines {
		b.WriteString(clip(l, width) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	_, err := io.WriteString(out, b.String())
	return err
}

// terminal: the output goes to a person's screen.
func (a *app) terminal() bool {
	f, ok := a.out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// size of the screen in columns and lines; 0 and 0: no bounds.
func (a *app) size() (width, height int) {
	if !a.terminal() {
		return 0, 0
	}
	width, height, err := term.GetSize(int(a.out.(*os.File).Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// colour: the screen takes colours and nobody asked for none (https://no-color.org).
func (a *app) colour() bool {
	return a.terminal() && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
