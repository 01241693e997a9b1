package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// plugin is one plugin over its processes, of which there is one at a time.
type plugin struct {
	host *Host
	cfg  Plugin
	log  *slog.Logger
	quit context.CancelFunc
	life context.Context // ends with the host, not with a call

	turn      chan struct{} // held by who starts or ends a process; guards what is below
	proc      *process
	failures  int
	why       string // what the last of them was
	notBefore time.Time
	closed    bool

	looked inspection
}

// steady is how long a process has to live before the pause after a crash is the first one again.
const steady = time.Minute

// mostPause is the longest one.
const mostPause = 30 * time.Second

func newPlugin(h *Host, cfg Plugin) *plugin {
	life, quit := context.WithCancel(context.Background())
	return &plugin{host: h, cfg: cfg, log: h.cfg.Log.With(logging.Plugin, cfg.Name), turn: make(chan struct{}, 1), life: life, quit: quit}
}

func (p *plugin) timeout(otherwise time.Duration) time.Duration {
	if p.cfg.Timeout > 0 {
		return p.cfg.Timeout
	}
	return otherwise
}

// get is the running process. It starts one where none runs, after the pause that a crash asks for; ctx
// bounds that, and the process lives on after it.
func (p *plugin) get(ctx context.Context) (*process, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, p.late(ctx)
	}
	if p.closed {
		return nil, ErrClosed
	}
	if p.proc != nil {
		if !p.proc.over() {
			return p.proc, nil
		}
		p.failed(time.Since(p.proc.began), strings.TrimSuffix(p.proc.how()+": "+p.proc.logs.last(), ": "))
		p.proc = nil
	}
	if pause := time.Until(p.notBefore); pause > 0 {
		select {
		case <-time.After(pause):
		case <-p.life.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, fmt.Errorf("plugin %s: ended %d times in a row (%s), is started again at %s: %w",
				p.cfg.Name, p.failures, p.why, p.notBefore.Format(time.TimeOnly), context.Cause(ctx))
		}
	}
	proc, err := p.start(ctx)
	if err != nil {
		p.failed(0, err.Error())
		if p.life.Err() != nil {
			err = ErrClosed
		}
		return nil, fmt.Errorf("start plugin %s: %w", p.cfg.Name, err)
	}
	p.proc = proc
	p.log.Info("plugin started", "name", printable(proc.hello.GetName(), maxName), logging.Version, printable(proc.hello.GetVersion(), maxName),
		"contract", proc.hello.GetContract(), "isolation", proc.below.Isolation, logging.Duration, time.Since(proc.began).Round(time.Millisecond))
	return proc, nil
}

// failed sets the pause before the next start: 0.25 s, doubled with every failure in a row to 30 s.
func (p *plugin) failed(lived time.Duration, why string) {
	if lived >= steady {
		p.failures = 0
	}
	pause := min(mostPause, 250*time.Millisecond<<min(p.failures, 7))
	p.failures++
	p.why = why
	p.notBefore = time.Now().Add(pause)
}

func (p *plugin) close() {
	p.quit()
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	p.closed = true
	if p.proc != nil {
		p.proc.stop()
		p.proc = nil
	}
}

// ErrEnded is a process that ended while a call was in flight.
type ErrEnded struct {
	Plugin, Method string
	How            string // "exit status 2", "signal: killed", "had more than 256 processes"
	Last           string // line of its log; may be empty
}

func (e *ErrEnded) Error() string {
	text := fmt.Sprintf("plugin %s ended during %s: %s", e.Plugin, e.Method, e.How)
	if e.Last != "" {
		text += ": " + e.Last
	}
	return text
}

// ErrDeadline is a call that was not answered in time.
type ErrDeadline struct {
	Plugin, Method string
	After          time.Duration
}

func (e *ErrDeadline) Error() string {
	return fmt.Sprintf("plugin %s did not answer %s within %s; where it needs longer, raise its timeout under `plugins`", e.Plugin, e.Method, e.After)
}

func (e *ErrDeadline) Is(target error) bool { return target == context.DeadlineExceeded }

// ErrRefused is the plugin's own error: it could not do its work.
type ErrRefused struct{ Plugin, Method, Reason string }

func (e *ErrRefused) Error() string {
	return fmt.Sprintf("plugin %s: %s: %s", e.Plugin, e.Method, e.Reason)
}

// late is an end of ctx before it was this call's turn.
func (p *plugin) late(ctx context.Context) error {
	if err := ctx.Err(); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("plugin %s: %w", p.cfg.Name, err)
	}
	return fmt.Errorf("plugin %s: it is being started for another call: %w", p.cfg.Name, context.DeadlineExceeded)
}

// ready is get within bounds of its own, so that a call's time is not spent on a cold start.
func (p *plugin) ready(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout+mostPause)
	defer cancel()
	return p.get(ctx)
}

// call asks the plugin once, within its deadline.
func call[A any](ctx context.Context, p *plugin, method string, ask func(context.Context, *process) (A, error)) (A, error) {
	return callFor(ctx, p, method, p.timeout(DefaultTimeout), ask)
}

func callFor[A any](ctx context.Context, p *plugin, method string, timeout time.Duration, ask func(context.Context, *process) (A, error)) (A, error) {
	var none A
	proc, err := p.ready(ctx)
	if err != nil {
		return none, err
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := p.catchUp(ctx, proc); err != nil {
		return none, fmt.Errorf("plugin %s: %w", p.cfg.Name, err)
	}
	answer, err := ask(ctx, proc)
	if err == nil {
		return answer, nil
	}
	return none, p.explain(ctx, proc, method, begin, err)
}

// explain turns an error of the wire into one that says what became of the plugin.
func (p *plugin) explain(ctx context.Context, proc *process, method string, begin time.Time, err error) error {
	var flood *ErrFlood
	if errors.As(err, &flood) {
		return err
	}
	st, ok := status.FromError(err)
	switch {
	case p.life.Err() != nil:
		return fmt.Errorf("plugin %s: %s: %w", p.cfg.Name, method, ErrClosed)
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("plugin %s: %s: %w", p.cfg.Name, method, context.Canceled)
	case ctx.Err() != nil, ok && st.Code() == codes.DeadlineExceeded:
		p.host.tasks.Go(func() { p.probe(proc) })
		return &ErrDeadline{Plugin: p.cfg.Name, Method: method, After: time.Since(begin).Round(time.Millisecond)}
	case ok && (st.Code() == codes.Unavailable || st.Code() == codes.Canceled):
		// The connection broke; why is known when the process was waited for.
		select {
		case <-proc.exited:
		case <-time.After(patience):
		}
		if proc.over() {
			return &ErrEnded{Plugin: p.cfg.Name, Method: method, How: proc.how(), Last: proc.logs.last()}
		}
	}
	reason := err.Error()
	if ok {
		reason = st.Message()
		if st.Code() == codes.Unimplemented {
			reason = "it does not serve this: " + reason
		}
	}
	return &ErrRefused{Plugin: p.cfg.Name, Method: method, Reason: printable(reason, maxReason)}
}

// probe ends a process that missed a deadline and does not answer at all any more.
func (p *plugin) probe(proc *process) {
	ctx, cancel := context.WithTimeout(p.life, 2*time.Second)
	defer cancel()
	if _, err := proc.front.CheckHealth(ctx, &pluginv1.CheckHealthRequest{}); err != nil && !proc.over() && p.life.Err() == nil {
		p.log.Warn("plugin hangs: it is ended, and started again when it is needed")
		proc.stop()
	}
}
